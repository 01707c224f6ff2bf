"""What the world does to a command: no broker, no topic, no place to write, settings that can't be.

Belongs here: refusals that say in one line what to do, and leave nothing half-written. Doesn't: wrong arguments
(test_help.py), bad files (test_files.py), bad messages (notifications/).
"""

import socket
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import click
import pytest
from deltalake import DeltaTable, TableFeatures

from notif_assets.cli.main import _one_line
from notif_assets.sandbox.broker import BrokerNotStarted, EmbeddedBroker
from notif_assets.settings import Settings, unknown_variables
from notif_assets_tests.cli.deployment import Deployment, ok, refusal
from notif_assets_tests.cli.messages import day_of_acme
from notif_assets_tests.conftest import Deploy


@pytest.fixture
def nobody() -> str:
    """An address where nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"127.0.0.1:{port}"


@pytest.fixture(scope="module")
def ingested(deploy: Deploy) -> Deployment:
    """Two messages, ingested."""
    deployment = deploy(2)
    deployment.send(day_of_acme()[:2])
    ok(deployment.call("ingest", "--until-caught-up"))
    return deployment


@pytest.mark.parametrize("client", ["confluent", "kafka-python"])
def test_no_broker(ingested: Deployment, nobody: str, client: str) -> None:
    settings = {"NOTIF_KAFKA_BOOTSTRAP": nobody, "NOTIF_KAFKA_TIMEOUT": "1", "NOTIF_KAFKA_CLIENT": client}
    before = ingested.files()
    for command in (["ingest", "--until-caught-up"], ["produce", "--seconds", "1"]):
        line = refusal(ingested.run(*command, **settings))
        assert f"no Kafka broker answers at {nobody}" in line
        assert "start it (`notif-assets broker`) or set NOTIF_KAFKA_BOOTSTRAP" in line
    assert ingested.files() == before
    ok(ingested.call("report", "panel", **settings))  # who only reads needs no broker


@pytest.mark.parametrize("client", ["confluent", "kafka-python"])
def test_no_topic(deploy: Deploy, client: str) -> None:
    deployment = deploy(1)
    settings = {"NOTIF_TOPIC": "nobody-made-it", "NOTIF_KAFKA_CLIENT": client}
    for command in (["ingest"], ["produce", "--seconds", "1"]):
        line = refusal(deployment.run(*command, **settings))
        assert "has no topic 'nobody-made-it': create it or set NOTIF_TOPIC" in line
    assert deployment.files() == {}


def test_a_file_in_the_place_of_the_lake(deploy: Deploy) -> None:
    deployment = deploy(1)
    place = deployment.home / "place"
    place.write_text("mine")
    for lake in (place, place / "below"):
        for command in (
            ["ingest"],
            ["import-invoices", _sample("invoices.csv")],
            ["import-prices", _sample("prices.csv")],
        ):
            assert "can't be written" in refusal(deployment.run(*command, NOTIF_LAKE=str(lake)))
        for command in (
            ["close-day", "2020-02-03"],
            ["report", "panel"],
            ["check"],
            ["maintain"],
            ["rebuild", "customer_panel"],
        ):
            assert f"there is no lake at {lake}" in refusal(deployment.call(*command, NOTIF_LAKE=str(lake)))
    assert place.read_text() == "mine"
    assert deployment.files() == {}


def _sample(name: str) -> str:
    return str(files("notif_assets") / "samples" / name)


@pytest.mark.parametrize(
    "command",
    [
        ("report", "panel"),
        ("report", "detailed"),
        ("report", "billing", "--date", "2020-02-03"),
        ("report", "invoice-averages", "--month", "2020-01"),
        ("report", "chatbot", "--date", "2019-12-16"),
        ("check",),
        ("maintain",),
        ("rebuild", "minute_aggregates"),
        ("readmit", "--reason", "event_too_early"),
        ("accept-loss", "--batch", "1"),
        ("erase", "--customer", "1", "--yes"),
        ("close-day", "2020-02-03"),
        ("reprice", "--from", "2020-02-03", "--to", "2020-02-03", "--reason", "r"),
    ],
    ids=" ".join,
)
def test_no_lake(deploy: Deploy, command: tuple[str, ...]) -> None:
    deployment = deploy(1)
    line = refusal(deployment.call(*command))
    assert "there is no lake at " in line
    assert "ingest or import first, or set NOTIF_LAKE" in line
    assert deployment.files() == {}


def test_an_empty_folder_is_no_lake(deploy: Deploy) -> None:
    deployment = deploy(1)
    deployment.lake.root.mkdir(parents=True)
    for command in (("check",), ("close-day", "2020-02-03"), ("maintain",)):
        assert "there is no lake at " in refusal(deployment.call(*command))
    assert list(deployment.lake.root.iterdir()) == []


@pytest.mark.parametrize("name", ["NOTIF_DATA", "NOTIF_LAKE", "NOTIF_INBOX", "NOTIF_REPORTS", "NOTIF_ARCHIVE"])
def test_an_address_in_the_place_of_a_folder_is_refused(
    ingested: Deployment, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = sorted(ingested.home.rglob("*"))
    for command in (["import-prices", _sample("prices.csv")], ["report", "panel"], ["token", "--operator"]):
        line = refusal(ingested.call(*command, **{name: "s3://bucket/secret"}))
        assert line.startswith(f"Error: {name}: ")
        assert "want a folder of this machine, not an address" in line
        assert "bucket" not in line
        assert "no such user" in refusal(ingested.call(*command, **{name: "~no-such-user/x"}))
    assert sorted(ingested.home.rglob("*")) == before
    monkeypatch.setenv(name, "file:///abs")
    with pytest.raises(ValueError, match="want a folder of this machine"):
        Settings()


def test_an_address_in_the_place_of_the_store_is_refused(ingested: Deployment) -> None:
    before = sorted(ingested.home.iterdir())
    line = refusal(ingested.call("check", DAGSTER_STORE="s3://bucket/store"))
    assert line.startswith("Error: DAGSTER_STORE: want a folder of this machine")
    assert sorted(ingested.home.iterdir()) == before


def test_a_tilde_is_the_home_folder_and_an_empty_name_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ana")
    monkeypatch.setenv("NOTIF_LAKE", "~/lake")
    monkeypatch.setenv("NOTIF_INBOX", "")
    monkeypatch.setenv("NOTIF_DATA", "")
    settings = Settings()
    assert settings.lake == Path("/home/ana/lake")
    assert (settings.inbox, settings.data) == (tmp_path / "data" / "inbox", Path("data"))


def test_a_variable_that_is_no_setting_is_named_and_the_command_goes_on(ingested: Deployment) -> None:
    (ingested.home / ".env").write_text("NOTIF_LAEK=secret1\nOTHER=1\n")
    answer = ingested.call("report", "panel", NOTIF_TIME_ZONE="secret2", NOTIF_QQQQQQQQ="secret3")
    (ingested.home / ".env").unlink()
    assert answer.code == 0
    assert answer.err.splitlines() == [
        "Warning: NOTIF_LAEK is no setting: did you mean NOTIF_LAKE?",
        "Warning: NOTIF_QQQQQQQQ is no setting, and changes nothing",
        "Warning: NOTIF_TIME_ZONE is no setting: did you mean NOTIF_TIMEZONE?",
    ]
    every = dict.fromkeys(Settings.variables(), "x")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in every.items():
            patch.setenv(name, value)
        assert unknown_variables() == []


@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-31"])
@pytest.mark.parametrize(
    "command", ["report billing --date", "report detailed --date", "report chatbot --date", "close-day"]
)
def test_a_day_at_the_end_of_the_calendar_is_no_day(ingested: Deployment, day: str, command: str) -> None:
    """In some zone it has no beginning or no end."""
    assert day in refusal(ingested.call(*command.split(), day))
    assert day in refusal(ingested.call("report", "detailed", "--to", f"{day}T23"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"NOTIF_GRACE": "x"}, "NOTIF_GRACE: "),
        ({"NOTIF_BATCH_MESSAGES": "0"}, "NOTIF_BATCH_MESSAGES: Input should be greater than or equal to 1"),
        ({"NOTIF_TIMEZONE": "Mars/Olympus"}, "no such time zone: Mars/Olympus; use an IANA name like"),
        ({"NOTIF_KAFKA_CLIENT": "java"}, "NOTIF_KAFKA_CLIENT: Input should be 'auto', 'kafka-python' or 'confluent'"),
        ({"NOTIF_ENGINE": "spark"}, "NOTIF_ENGINE: only duckdb is built so far"),
        ({"NOTIF_KAFKA_TIMEOUT": "0"}, "NOTIF_KAFKA_TIMEOUT: Input should be greater than 0"),
        ({"NOTIF_BRONZE_DAYS": "-1"}, "NOTIF_BRONZE_DAYS: Input should be greater than or equal to 1"),
        ({"NOTIF_KAFKA_PROPERTIES": "not json"}, "NOTIF_KAFKA_PROPERTIES: want JSON"),
        ({"NOTIF_KAFKA_PROPERTIES": '{"group.id": "mine"}'}, "Kafka property 'group.id' is fixed by this project"),
        ({"NOTIF_KAFKA_PROPERTIES": '{"no.such.thing": "1"}'}, "Kafka property 'no.such.thing' is refused by"),
        ({"NOTIF_KAFKA_BOOTSTRAP": "", "NOTIF_KAFKA_TIMEOUT": "1"}, "NOTIF_KAFKA_BOOTSTRAP"),
        ({"NOTIF_ENGINE_MEMORY": "much"}, "NOTIF_ENGINE_MEMORY"),
        ({"NOTIF_GRACE": "-1h"}, "NOTIF_GRACE: "),
    ],
    ids=str,
)
def test_impossible_settings_are_named(ingested: Deployment, settings: dict[str, str], said: str) -> None:
    before = ingested.files()
    assert said in refusal(ingested.call("ingest", **settings))
    assert ingested.files() == before


@pytest.mark.parametrize("command", ["close-day {}", "reprice --reason r --from {0} --to {0}"])
@pytest.mark.parametrize(("day", "first"), [("2014-12-31", "2015-01-01"), ("2020-02-03", "2020-02-04")])
def test_a_day_before_the_first_is_not_billed(ingested: Deployment, command: str, day: str, first: str) -> None:
    before = ingested.files()
    said = refusal(ingested.call(*command.format(day).split(), NOTIF_FIRST_DAY=first))
    assert f"{day} can't be billed: days go from {first} (NOTIF_FIRST_DAY) to today" in said
    assert ingested.files() == before


def test_impossible_settings_as_a_process(deploy: Deploy) -> None:
    deployment = deploy(1)
    line = refusal(deployment.run("ingest", NOTIF_GRACE="x", NOTIF_BATCH_MESSAGES="0"))
    assert line.startswith("Error: NOTIF_GRACE: ")
    assert "; NOTIF_BATCH_MESSAGES: " in line
    assert deployment.files() == {}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"NOTIF_TOPIC": "another"}, "this lake was made with topic {topic}, and now NOTIF_TOPIC says another"),
        (
            {"NOTIF_TIMEZONE": "America/Sao_Paulo"},
            "made with timezone UTC, and now NOTIF_TIMEZONE says America/Sao_Paulo",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize(
    "command",
    [
        ("ingest",),
        ("close-day", "2020-02-03"),
        ("readmit", "--reason", "event_too_early"),
        ("rebuild", "customer_panel"),
        ("report", "billing", "--date", "2020-02-03"),
        ("check",),
    ],
    ids=" ".join,
)
def test_what_must_not_change_is_refused(
    ingested: Deployment, broker: EmbeddedBroker, settings: dict[str, str], said: str, command: tuple[str, ...]
) -> None:
    with suppress(BrokerNotStarted):  # it is there already
        broker.create_topic("another", 2)
    before = ingested.files()
    assert said.format(topic=ingested.topic) in refusal(ingested.call(*command, **settings))
    assert ingested.files() == before


@pytest.mark.parametrize(
    ("table", "said"),
    [("nonsense", "nonsense"), ("daily_billing", "daily_billing"), ("raw_notifications", "raw_notifications")],
)
def test_tables_that_are_not_rebuilt(ingested: Deployment, table: str, said: str) -> None:
    before = ingested.files()
    assert said in refusal(ingested.call("rebuild", table))
    assert refusal(ingested.run("rebuild", table))
    assert ingested.files() == before


def test_a_table_that_another_tool_upgraded(deploy: Deploy) -> None:
    deployment = deploy(1)
    deployment.send(day_of_acme()[:2])
    ok(deployment.call("ingest"))
    table = DeltaTable(str(deployment.lake.root / "notifications"))
    table.alter.add_feature(TableFeatures.AppendOnly, allow_protocol_versions_increase=True)
    line = refusal(deployment.run("ingest"))
    assert line.startswith(
        "Error: table notifications asks for reader 1 / writer 7; it must stay at reader 1 / writer 2"
    )


def test_a_machine_without_memory_is_told_in_a_line() -> None:
    with pytest.raises(click.ClickException, match="no memory left for it: run it where there is more"), _one_line():
        raise MemoryError
