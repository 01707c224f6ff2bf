"""A broker that is away for a while, or lets nobody in: recovery where waiting helps, a clear error in time where not.

Belongs here: outages and security of Apache Kafka, through both clients and through the commands. Doesn't: what happens
to a topic (test_commands.py).
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka.admin import AdminClient
from pydantic import SecretStr

from notif_assets.kafka.client import KafkaUnavailable, ReadStalled
from notif_assets.kafka.open import open_client
from notif_assets.settings import Settings
from notif_assets_tests.cli.deployment import Deployment, ended, killed_at_the_end, ok, refusal, until
from notif_assets_tests.faults.truth import Truth, assert_exact
from notif_assets_tests.kafka.apache import both
from notif_assets_tests.kafka.apache.broker import PASSWORD, SCRAM, USER, ApacheKafka
from notif_assets_tests.kafka.apache.conftest import DeployOn, MakeTopic
from notif_assets_tests.kafka.conftest import ClientName

MIB = 2**20
MESSAGES = {"kafka-python": 60, "confluent": 180}
"""Of 1 MiB: more than each client reads ahead, so that the rest of a read begun needs the broker."""

Outage = Callable[[ApacheKafka], None]


@pytest.fixture(autouse=True)
def it_goes_on(apache: ApacheKafka) -> Iterator[None]:
    """Whatever a test did, the next one has a broker that answers."""
    yield
    apache.thaw()
    apache.start()


@pytest.fixture(scope="module")
def large(apache: ApacheKafka) -> str:
    """A topic with more in it than a client reads ahead; each message begins with its offset."""
    apache.create_topic("large", 1)
    noise = os.urandom(MIB - 8)
    messages = ({"partition": 0, "value": n.to_bytes(8) + noise} for n in range(max(MESSAGES.values())))
    for message in messages:
        both.send(apache, "large", message, message_max_bytes=2 * MIB)
    return "large"


def _settings(apache: ApacheKafka, topic: str, client: ClientName, timeout: float) -> Settings:
    return Settings(kafka_bootstrap=apache.bootstrap, topic=topic, kafka_client=client, kafka_timeout=timeout)


def _frozen_for_3_seconds(apache: ApacheKafka) -> None:
    apache.freeze()
    threading.Timer(3, apache.thaw).start()


def _killed_and_restarted(apache: ApacheKafka) -> None:
    apache.kill()
    threading.Thread(target=apache.start).start()


@pytest.mark.parametrize("outage", [_frozen_for_3_seconds, _killed_and_restarted])
def test_a_read_goes_on_when_the_broker_is_back(
    apache: ApacheKafka, large: str, kafka_client: ClientName, outage: Outage
) -> None:
    end = MESSAGES[kafka_client]
    with open_client(_settings(apache, large, kafka_client, 120)) as client:
        batches = client.read({0: (0, end)})
        read = [next(batches)]
        outage(apache)
        read += batches
    values = [value for batch in read for value in batch["value"].to_pylist()]
    assert [int.from_bytes(value[:8]) for value in values] == [*range(end)]
    assert [offset for batch in read for offset in batch["kafka_offset"].to_pylist()] == [*range(end)]


@pytest.mark.parametrize("outage", [ApacheKafka.freeze, ApacheKafka.kill])
def test_a_read_gives_up_in_time_and_is_repeated_later(
    apache: ApacheKafka, large: str, kafka_client: ClientName, outage: Outage
) -> None:
    end = MESSAGES[kafka_client]
    settings = _settings(apache, large, kafka_client, 2)
    with open_client(settings) as client:
        batches = client.read({0: (0, end)})
        rows, said = next(batches).num_rows, ""
        outage(apache)
        began = time.monotonic()
        try:
            rows += sum(batch.num_rows for batch in batches)
        except (KafkaUnavailable, ReadStalled) as error:
            said = str(error)
        assert "\n" not in said
        assert said or rows == end  # unless the library had read ahead to the end
        assert time.monotonic() - began < 60
    with open_client(settings) as client, pytest.raises(KafkaUnavailable, match="no Kafka broker answers at "):
        client.offsets()
    assert time.monotonic() - began < 60
    apache.thaw()
    apache.start()
    with open_client(settings.model_copy(update={"kafka_timeout": 60})) as client:
        assert sum(batch.num_rows for batch in client.read({0: (0, end)})) == end


def test_ingest_outlives_outages_and_every_message_is_counted_once(
    apache: ApacheKafka, make_topic: MakeTopic, deploy_on: DeployOn, kafka_client: ClientName
) -> None:
    small = {"NOTIF_BATCH_MESSAGES": "40"}  # several batches a run
    deployment = deploy_on(make_topic(3), 3, NOTIF_KAFKA_CLIENT=kafka_client, NOTIF_KAFKA_TIMEOUT="120", **small)
    truth, start = Truth(), datetime.now(UTC) - timedelta(minutes=5)

    def in_the_middle(seed: int, outage: Outage, **settings: str) -> tuple[int, str]:
        truth.send(deployment, seed, 240, start)
        planned = deployment.table("ingest_batches")[0]
        with killed_at_the_end(deployment.start("ingest", "--until-caught-up", **settings)) as process:
            # The table's creation is a commit too.
            until(
                lambda: deployment.commits("ingest_batches") - 1 > planned + 2 or process.poll() is not None, "batches"
            )
            assert process.poll() is None
            outage(apache)
            answer = ended(process)
        return answer.code, answer.err

    assert in_the_middle(1, _killed_and_restarted) == (0, "")
    code, said = in_the_middle(2, ApacheKafka.freeze, NOTIF_KAFKA_TIMEOUT="2")
    assert code == 1
    (line,) = said.splitlines()
    assert "no Kafka broker answers at " in line or "no progress for 2 s at partition " in line
    apache.thaw()
    ok(deployment.call("ingest", "--until-caught-up"))
    assert_exact(deployment, truth)


def test_an_answer_that_never_comes_is_an_outage(apache: ApacheKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen just before the last of its questions, which the library gives up no sooner than we do."""
    apache.create_topic("unanswered", 1)
    monkeypatch.setattr(AdminClient, "describe_topics", lambda *_, **__: {"unanswered": Future()})
    with (
        open_client(_settings(apache, "unanswered", "confluent", 1)) as client,
        pytest.raises(KafkaUnavailable, match="no Kafka broker answers at "),
    ):
        client.offsets()


def test_refused_at_start_then_served(
    apache: ApacheKafka, make_topic: MakeTopic, deploy_on: DeployOn, kafka_client: ClientName
) -> None:
    deployment = deploy_on(make_topic(1), 1, NOTIF_KAFKA_CLIENT=kafka_client)
    truth = Truth()
    truth.send(deployment, 1, 20, datetime.now(UTC) - timedelta(minutes=5))
    apache.kill()
    began = time.monotonic()
    line = refusal(deployment.call("ingest", "--until-caught-up", NOTIF_KAFKA_TIMEOUT="2"))
    assert time.monotonic() - began < 60
    assert f"no Kafka broker answers at {apache.bootstrap}" in line
    assert deployment.files() == {}
    threading.Timer(1, apache.start).start()  # and who waits for it, needn't be called again
    ok(deployment.call("ingest", "--until-caught-up", NOTIF_KAFKA_TIMEOUT="120"))
    assert len(deployment.rows("raw_notifications")) == truth.produced


# --- who may come in --------------------------------------------------------------------------------------------------


def _tls(apache: ApacheKafka, authority: str = "ca") -> dict[str, str]:
    return {"security.protocol": "SSL", "ssl.ca.location": str(apache.home / f"{authority}.pem")}


def _with_certificate(apache: ApacheKafka) -> dict[str, str]:
    certificate, key = str(apache.home / "client.pem"), str(apache.home / "client.key")
    return {**_tls(apache), "ssl.certificate.location": certificate, "ssl.key.location": key}


def _login(mechanism: str, password: str = PASSWORD) -> dict[str, str]:
    login = {"sasl.mechanism": mechanism, "sasl.username": USER, "sasl.password": password}
    return {"security.protocol": "SASL_PLAINTEXT", **login}


def _login_by_tls(
    apache: ApacheKafka, mechanism: str, password: str = PASSWORD, authority: str = "ca"
) -> dict[str, str]:
    return {**_tls(apache, authority), **_login(mechanism, password), "security.protocol": "SASL_SSL"}


def test_every_way_in_reads_the_same(apache: ApacheKafka, make_topic: MakeTopic, kafka_client: ClientName) -> None:
    topic = make_topic(2)
    both.send(apache, topic, *({"partition": n % 2, "value": b"%d" % n} for n in range(100)))
    ways = [("TLS", _tls(apache)), ("MUTUAL", _with_certificate(apache))]
    for mechanism in (*SCRAM, "PLAIN"):
        ways += [("LOGIN", _login(mechanism)), ("BOTH", _login_by_tls(apache, mechanism))]
    for listener, properties in ways:
        plain = _settings(apache, topic, kafka_client, 60)
        secret = {name: SecretStr(value) for name, value in properties.items()}
        settings = plain.model_copy(update={"kafka_bootstrap": apache.address(listener), "kafka_properties": secret})
        with open_client(settings) as client:
            values = [value for batch in client.read({0: (0, 50), 1: (10, 50)}) for value in batch["value"].to_pylist()]
        assert sorted(map(int, values)) == sorted([*range(0, 100, 2), *range(21, 100, 2)]), (listener, properties)


def test_a_password_is_for_every_command_and_a_wrong_one_is_told(
    apache: ApacheKafka, make_topic: MakeTopic, deploy_on: DeployOn, kafka_client: ClientName
) -> None:
    deployment = deploy_on(make_topic(2), 2, NOTIF_KAFKA_CLIENT=kafka_client, NOTIF_KAFKA_TIMEOUT="60")
    at = {"NOTIF_KAFKA_BOOTSTRAP": apache.address("BOTH")}
    right = at | {"NOTIF_KAFKA_PROPERTIES": json.dumps(_login_by_tls(apache, "SCRAM-SHA-512"))}
    produced = ok(deployment.call("produce", "--rate", "100", "--seconds", "1", **right)).text
    assert produced.startswith("produced 100: ")
    for wrong, listener, said in (
        (
            _login_by_tls(apache, "SCRAM-SHA-512", "wrong-secret"),
            "BOTH",
            "refuses the login: correct security.protocol",
        ),
        (_login("PLAIN", "wrong-secret"), "LOGIN", "refuses the login: correct security.protocol and sasl.*"),
        (_login_by_tls(apache, "SCRAM-SHA-512", authority="other-ca"), "BOTH", "(certificate verify failed)"),
        (_tls(apache), "MUTUAL", "certificate): correct security.protocol and ssl.*"),
        ({}, "BOTH", "or security.protocol in NOTIF_KAFKA_PROPERTIES if it is there"),
        (_tls(apache, "no-such"), "TLS", "Kafka property 'ssl.ca.location' "),
    ):
        began = time.monotonic()
        line = _refused(deployment, apache.address(listener), wrong)
        assert time.monotonic() - began < 60
        assert said in line.replace("certificate required)", "bad certificate)")  # newer and older Java
        assert "wrong-secret" not in line
    assert deployment.files() == {}
    said = ok(deployment.call("ingest", "--until-caught-up", **right)).text
    assert len(deployment.rows("raw_notifications")) == 100, said


def _refused(deployment: Deployment, bootstrap: str, properties: dict[str, str]) -> str:
    settings = {"NOTIF_KAFKA_BOOTSTRAP": bootstrap, "NOTIF_KAFKA_PROPERTIES": json.dumps(properties)}
    return refusal(deployment.call("ingest", "--until-caught-up", NOTIF_KAFKA_TIMEOUT="6", **settings))


def test_a_client_that_finds_no_broker_leaves_no_thread(apache: ApacheKafka, kafka_client: ClientName) -> None:
    """A sensor looks every ten seconds, however long the broker is away."""
    apache.freeze()
    before = threading.active_count()
    for _ in range(2):
        with open_client(_settings(apache, "any", kafka_client, 1)) as client, pytest.raises(KafkaUnavailable):
            client.offsets()
    until(lambda: threading.active_count() <= before, "the end of the threads", seconds=30)
