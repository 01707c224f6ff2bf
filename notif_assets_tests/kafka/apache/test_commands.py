"""What happens to a topic behind our back, and what the commands say and do about it.

Belongs here: partitions, transactions, retention, deletion and truncation on Apache Kafka, through `notif-assets`.
Doesn't: a broker that is away or lets nobody in (test_outages.py).
"""

import struct
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from notif_assets.kafka.open import open_client
from notif_assets.notifications.ledger import plan_from_kafka
from notif_assets.sandbox.broker import EmbeddedBroker
from notif_assets.settings import Settings
from notif_assets_tests.cli.deployment import Deployment, ok, refusal, until
from notif_assets_tests.cli.messages import ACME, notification
from notif_assets_tests.faults.truth import Truth, assert_exact
from notif_assets_tests.kafka.apache import both
from notif_assets_tests.kafka.apache.broker import ApacheKafka
from notif_assets_tests.kafka.apache.conftest import DeployOn, MakeTopic
from notif_assets_tests.kafka.conftest import ClientName

NOON = datetime(2020, 2, 3, 12, tzinfo=UTC)
DAY = "2020-02-03"


def _send(deployment: Deployment, first: int, count: int) -> None:
    deployment.send(notification(NOON, f"{number}") for number in range(first, first + count))


def _plan(deployment: Deployment) -> None:
    """All that a command does which is killed between its plan and its read."""
    settings = Settings(kafka_bootstrap=deployment.bootstrap, topic=deployment.topic)
    with deployment.lake as lake, open_client(settings) as client:
        assert plan_from_kafka(lake, client, settings, "killed", even_if_quiet=False)


def _offsets(deployment: Deployment) -> list[int]:
    return sorted(row["kafka_offset"] for row in deployment.rows("raw_notifications"))


def test_the_topic_gains_partitions(
    apache: ApacheKafka, make_topic: MakeTopic, deploy_on: DeployOn, kafka_client: ClientName
) -> None:
    topic, truth, start = make_topic(2), Truth(), datetime.now(UTC) - timedelta(minutes=5)
    deployment = deploy_on(topic, 2, NOTIF_KAFKA_CLIENT=kafka_client)
    truth.send(deployment, 1, 300, start)
    ok(deployment.call("ingest", "--until-caught-up"))
    apache.add_partitions(topic, 5)
    until(lambda: len(both.offsets(apache, topic).partitions) == 5, "more partitions", seconds=30)
    deployment.partitions = 5
    customers = {customer for customer, _ in truth.accepted}
    truth.send(deployment, 2, 700, start)  # other customers: those of before would now arrive out of order
    assert {customer for customer, _ in truth.accepted} > customers
    ok(deployment.call("ingest", "--until-caught-up"))
    assert_exact(deployment, truth)
    newest = max(row["batch"] for row in deployment.rows("ingest_batches"))
    starts = {
        r["kafka_partition"]: r["start_offset"] for r in deployment.rows("ingest_batches") if r["batch"] == newest
    }
    assert set(starts) == {*range(5)}
    assert [starts[partition] for partition in (2, 3, 4)] == [0, 0, 0]


def test_only_committed_messages_are_counted_and_billed(
    apache: ApacheKafka, make_topic: MakeTopic, deploy_on: DeployOn, kafka_client: ClientName
) -> None:
    topic = make_topic(1)
    deployment = deploy_on(topic, 1, NOTIF_KAFKA_CLIENT=kafka_client)
    writer = both.producer(apache, transactional_id=topic)
    writer.init_transactions(30)
    number = iter(range(1000))

    def transaction(count: int) -> None:
        writer.begin_transaction()
        for _ in range(count):
            message = notification(NOON, f"{next(number)}")
            writer.produce(topic, message.value, timestamp=message.timestamp)
        assert writer.flush(30) == 0

    def ingested() -> int:
        ok(deployment.call("ingest", "--until-caught-up"))
        return len(deployment.rows("notifications"))

    transaction(3)
    writer.commit_transaction(30)
    transaction(4)
    writer.abort_transaction(30)
    assert ingested() == 3
    transaction(5)
    writer.abort_transaction(30)
    assert ingested() == 3  # a range of nothing but aborted messages and a marker
    newest = max(deployment.rows("ingest_batches"), key=lambda row: row["batch"])
    assert (newest["start_offset"], newest["end_offset"]) == (9, 15)
    transaction(2)
    assert ingested() == 3  # open: not yet there
    writer.commit_transaction(30)
    assert ingested() == 5
    assert _offsets(deployment) == [0, 1, 2, 15, 16]
    assert ok(deployment.call("close-day", DAY)).text == f"{DAY} closed: 1 lines, 5 notifications, R$ 0,20\n"
    ok(deployment.call("check"))


@pytest.mark.parametrize("planned", [False, True], ids=["nothing planned", "a batch planned"])
def test_a_topic_made_anew_is_a_clear_stop(
    apache: ApacheKafka, make_topic: MakeTopic, deploy_on: DeployOn, kafka_client: ClientName, planned: bool
) -> None:
    topic = make_topic(1)
    deployment = deploy_on(topic, 1, NOTIF_KAFKA_CLIENT=kafka_client)
    _send(deployment, 0, 10)
    ok(deployment.call("ingest", "--until-caught-up"))
    _send(deployment, 10, 10)
    if planned:
        _plan(deployment)
    apache.delete_topic(topic)
    before = deployment.files()
    assert f"has no topic '{topic}'" in refusal(deployment.call("ingest", "--until-caught-up"))
    apache.create_topic(topic, 1)
    _send(deployment, 100, 50)  # more than there was: the offsets alone don't tell
    for command in (
        ["ingest", "--until-caught-up"],
        *([["close-day", DAY], ["accept-loss", "--batch", "2"]] * planned),
    ):
        line = refusal(deployment.call(*command))
        assert f"topic {topic} is not the one that batch {1 + planned} was planned on" in line
        assert "deleted and made anew" in line
        assert "NOTIF_LAKE" in line
    assert _offsets(deployment) == [*range(10)]
    assert deployment.rows("daily_billing") == []
    if not planned:
        assert deployment.files() == before
    elsewhere = ok(deployment.call("ingest", "--until-caught-up", NOTIF_LAKE=str(deployment.home / "anew")))
    assert elsewhere.text.startswith(
        "this run: 50 notifications, 0 rejected; in all: 50 notifications, 0 rejected; complete up to "
    )


def test_retention_overtakes_us(
    apache: ApacheKafka, make_topic: MakeTopic, deploy_on: DeployOn, kafka_client: ClientName
) -> None:
    topic = make_topic(1)
    small = {"NOTIF_BATCH_MESSAGES": "20", "NOTIF_RUN_MESSAGES": "1"}  # a batch a run
    deployment = deploy_on(topic, 1, NOTIF_KAFKA_CLIENT=kafka_client, **small)
    _send(deployment, 0, 100)
    ok(deployment.call("ingest"))
    apache.delete_before(topic, 0, 35)

    def blocked(first: int, last: int) -> None:
        line = refusal(deployment.call("ingest", "--until-caught-up"))
        assert f"deleted offsets of batch 2 before they were read (partition 0: offsets {first} to {last})" in line
        assert "`notif-assets accept-loss --batch 2`" in line
        assert "can't close yet" in refusal(deployment.call("close-day", DAY))
        assert deployment.rows("billing_days") == []
        assert _offsets(deployment) == [*range(20)]

    def accept(first: int, last: int) -> None:
        said = ok(deployment.call("accept-loss", "--batch", "2", "--by", "Ana")).text
        assert said == f"batch 2, partition 0: offsets {first} to {last} accepted as lost\n"

    blocked(20, 34)
    failed = deployment.call("check")
    assert failed.code == 1
    assert "batch 2, partition 0: offsets 20 to 34 were deleted by Kafka before they were read" in failed.text
    accept(20, 34)
    apache.delete_before(topic, 0, 40)  # retention does not wait for us either
    blocked(35, 39)
    accept(35, 39)
    ok(deployment.call("ingest", "--until-caught-up"))
    assert _offsets(deployment) == [*range(20), *range(40, 100)]

    lost = [f"batch 2, partition 0: offsets {place}, accepted by Ana" for place in ("20 to 34", "35 to 39")]
    closed = f"{DAY} closed: 1 lines, 80 notifications, R$ 3,20"
    noted = f"; without what Kafka lost ({'; '.join(lost)})\n"
    for _ in range(2):
        assert ok(deployment.call("close-day", DAY)).text == closed + noted
    (deployment.home / "dearer.csv").write_text(
        "customer_id,channel,unit_price,currency,valid_from,valid_to\n,Whatsapp,0.05,BRL,,\n"
    )
    ok(deployment.call("import-prices", "dearer.csv"))
    repriced = ok(deployment.call("reprice", "--from", DAY, "--to", DAY, "--reason", "contract")).text
    assert repriced == f"{closed}; 1 adjustments, R$ 0,80{noted}"
    days = sorted(deployment.rows("billing_days"), key=lambda row: row["closed_at"])
    assert [(row["status"], row["note"]) for row in days] == [("final", "; ".join(lost)), ("repriced", "contract")]
    assert {row["accepted_by"] for row in deployment.rows("ingest_losses")} == {"Ana"}
    ok(deployment.call("check"))


def test_a_log_that_lost_its_end(apache: ApacheKafka, make_topic: MakeTopic, deploy_on: DeployOn) -> None:
    """As after a power cut on the only broker that held it: the same topic, but shorter than what was taken."""
    deployments = [deploy_on(topic, 1, NOTIF_KAFKA_TIMEOUT="60") for topic in (make_topic(1), make_topic(1))]
    for deployment in deployments:
        _send(deployment, 0, 10)
    ok(deployments[0].call("ingest", "--until-caught-up"))
    for deployment in deployments:
        _send(deployment, 10, 10)
        _send(deployment, 20, 10)
    read, planned = deployments
    ok(read.call("ingest", "--until-caught-up"))
    ok(planned.call("ingest", NOTIF_BATCH_MESSAGES="10", NOTIF_RUN_MESSAGES="1"))
    _plan(planned)
    apache.kill()
    for deployment in deployments:
        _cut(apache, deployment.topic, 20)
    apache.start()
    for deployment in deployments:
        until(lambda topic=deployment.topic: both.offsets(apache, topic).partitions[0].end == 20, "it is short", 30)
    before = read.files()
    line = refusal(read.call("ingest", "--until-caught-up"))
    assert "partition 0 ends at offset 20, though offsets up to 30 were taken: " in line
    assert "truncated" in line
    assert read.files() == before
    line = refusal(planned.call("ingest", "--until-caught-up"))
    assert "partition 0 ends at offset 20, before 30: is this another cluster" in line
    assert _offsets(planned) == [*range(10)]
    line = refusal(planned.call("close-day", DAY))
    assert "all messages are counted" in line
    for deployment in deployments:
        _send(deployment, 100, 25)  # and it is longer again
    for name in get_args(ClientName):
        line = refusal(read.call("ingest", "--until-caught-up", NOTIF_KAFKA_CLIENT=name))
        assert f"partition 0 of topic {read.topic} has another message at offset 29 than the one" in line
    assert read.files() == before
    ok(planned.call("ingest", "--until-caught-up"))  # nothing that was lost had been taken
    assert _offsets(planned) == [*range(45)]


@pytest.mark.parametrize("first", ["embedded", "apache"])
def test_another_broker_with_a_topic_of_that_name_is_a_clear_stop(
    apache: ApacheKafka, make_topic: MakeTopic, deploy_on: DeployOn, kafka_client: ClientName, first: str
) -> None:
    topic = make_topic(1)
    with EmbeddedBroker(topic=topic, partitions=1) as embedded:
        brokers = [embedded.bootstrap, apache.bootstrap]
        if first == "apache":
            brokers.reverse()
        deployment = deploy_on(topic, 1, NOTIF_KAFKA_CLIENT=kafka_client)
        for number, bootstrap in enumerate(brokers):
            deployment.bootstrap = bootstrap
            _send(deployment, 100 * number, 10 + 10 * number)
            if number == 0:
                ok(deployment.call("ingest", "--until-caught-up"))
        before = deployment.files()
        line = refusal(deployment.call("ingest", "--until-caught-up"))
        assert f"topic {topic} is not the one that batch 1 was planned on" in line
        assert deployment.files() == before


def _cut(apache: ApacheKafka, topic: str, end: int) -> None:
    """Takes the record batches from `end` on off the partition's log, as a disk does that had not written them yet."""
    log = apache.log_of(topic, 0)
    (segment,) = log.glob("*.log")
    data, at = segment.read_bytes(), 0
    while at < len(data):
        base, length = struct.unpack_from(">qi", data, at)
        if base >= end:
            break
        at += 12 + length
    assert 0 < at < len(data), f"no batch of {topic} begins at {end}"
    segment.write_bytes(data[:at])
    for derived in (*log.glob("*index"), *log.glob("*.snapshot")):
        derived.unlink()


def test_a_compacted_topic_is_counted_whole(apache: ApacheKafka, make_topic: MakeTopic, deploy_on: DeployOn) -> None:
    topic = make_topic(1, cleanup_policy="compact", min_cleanable_dirty_ratio="0.001", segment_ms="100")
    deployment = deploy_on(topic, 1, NOTIF_BATCH_MESSAGES="50")
    for number in range(20):
        message = notification(NOON, f"{number}")
        both.send(apache, topic, {"partition": 0, "key": b"%d" % ACME, "value": message.value}, linger_ms=0)

    def compacted() -> bool:
        both.send(apache, topic, {"partition": 0, "key": b"tick", "value": b"{}"})
        return len(both.records(apache, topic, {0: (0, 20)})) < 3

    until(compacted, "compaction", seconds=60)
    ok(deployment.call("ingest", "--until-caught-up"))
    end = both.offsets(apache, topic).partitions[0].end
    assert _offsets(deployment) == both.positions(both.records(apache, topic, {0: (0, end)}))
    assert len(_offsets(deployment)) < 20
    ok(deployment.call("check"))
