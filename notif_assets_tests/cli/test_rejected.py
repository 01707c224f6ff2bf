"""Much that is rejected is told, by what looks and by what closes a day: a green light means that somebody looked.

Belongs here: the commands and the sensor that tell it, and an erasure that can't tell whose it is. Doesn't: which
message is rejected (notifications/).
"""

from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import Producer

from notif_assets.notifications.audit import much_rejected, rejection_findings
from notif_assets.sandbox.traffic import Message
from notif_assets_tests.cli.deployment import ok, refusal
from notif_assets_tests.cli.messages import ACME, notification
from notif_assets_tests.conftest import Deploy, MakeDaemon
from notif_assets_tests.streams import Record, message, sent

YESTERDAY = datetime.now(UTC) - timedelta(days=1)
PREFIX = b"\0\0\0\0\x07"


@pytest.mark.parametrize(
    ("reasons", "records", "told"),
    [
        ({}, 0, False),
        ({"not_json": 1}, 3, False),
        ({"not_json": 9}, 9, False),
        ({"not_json": 10}, 10, True),
        ({"not_json": 50}, 1000, False),
        ({"not_json": 51}, 1000, True),
        ({"not_json": 30, "wrong_type": 21}, 1000, True),
        ({"duplicate": 600, "duplicate_conflict": 300, "not_json": 50}, 1000, False),
    ],
)
def test_what_is_much(reasons: dict[str, int], records: int, told: bool) -> None:
    found = rejection_findings(reasons, records, 0.05, "of the last hour")
    assert bool(found) == told
    if told:
        assert f"of {records} messages of the last hour were rejected" in found[0]
        assert f"{reasons['not_json']} of them as not_json: the value is not one JSON document" in found[0]
        assert "`notif-assets readmit --reason not_json`" in found[0]


def test_all_is_rejected_and_every_command_says_so(deploy: Deploy) -> None:
    deployment = deploy(1)
    good = [notification(YESTERDAY, f"{n}", at=datetime.now(UTC)) for n in range(40)]
    deployment.send(Message(m.customer_id, PREFIX + (m.value or b""), m.timestamp) for m in good)
    assert ok(deployment.call("ingest")).text.startswith("this run: 0 notifications, 40 rejected; ")
    answer = deployment.call("check")
    (line,) = [line for line in answer.text.splitlines() if line.startswith("FAIL ")]
    said = (
        "40 of 40 messages {} were rejected (100.0%), 40 of them as schema_registry_prefix: "
        "the value begins as a schema registry's serializers write it, not as JSON; "
    )
    assert line.startswith("FAIL rejected_notifications.few_are_rejected: " + said.format("of the last hour"))
    assert "1 of " in refusal(answer)

    day = YESTERDAY.date()
    deployment.settings["NOTIF_GRACE"] = "0s"
    closed = deployment.call("close-day", day)
    assert (closed.code, closed.text) == (0, f"{day} closed: 0 lines, 0 notifications, R$ 0,00\n")
    assert closed.err.startswith(f"Warning: {day}: " + said.format(f"that came from {day} on"))
    assert len(closed.err.splitlines()) == 1
    answer = deployment.call("check", NOTIF_MAX_REJECTED="1")
    assert "few_are_rejected: " not in answer.text
    assert answer.code == 0, answer.text


def test_a_run_that_rejects_most_is_told_at_once_and_goes_on(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    now = datetime.now(UTC)
    daemon.topic.produce(*(Record(PREFIX + message(now, message_id=f"{n}"), now) for n in range(20)))
    daemon.topic.produce(sent(now, message_id="good"))
    assert daemon.run("micro_batch").success
    name = "check most_of_a_run_is_accepted of rejected_notifications"
    assert daemon.skips("failures") == f"1 fail: {name}"
    daemon.topic.produce(*(sent(now, message_id=f"better {n}") for n in range(30)))
    assert daemon.run("micro_batch").success
    assert daemon.skips("failures") == "all checks and jobs hold"
    daemon.run("all_checks")
    assert daemon.skips("failures").startswith("1 fail: check few_are_rejected of rejected_notifications")


def test_records_are_counted_whatever_files_they_lie_in(make_daemon: MakeDaemon) -> None:
    """Batches of an hour ago and of now, in one file after compaction."""
    daemon = make_daemon()
    now = datetime.now(UTC)
    for n in range(3):
        daemon.topic.produce(*(Record(b"broken", now) for _ in range(20)), *(sent(now, message_id=f"{n}") for _ in [1]))
        daemon.ingest()
    rows = daemon.lake.rows(daemon.lake.table("ingest_batches").scan()).to_pylist()
    planned = sorted({row["planned_at"] for row in rows})
    start, end = planned[1], planned[2]
    before = much_rejected(daemon.lake, daemon.settings, start, end, "of then")
    assert before[0].startswith("20 of 21 messages of then were rejected")
    bronze = daemon.lake.table("raw_notifications")
    bronze.replace(daemon.lake.rows(bronze.scan()), None)
    assert much_rejected(daemon.lake, daemon.settings, start, end, "of then") == before


def test_erase_says_how_many_rejected_messages_are_nobodys(deploy: Deploy) -> None:
    deployment = deploy(1)
    now = datetime.now(UTC)
    deployment.send([notification(now, "1"), notification(now, "2", customer_id=1)])
    producer = Producer({"bootstrap.servers": deployment.bootstrap})
    for value in (
        b"segredo de ningu\xe9m",
        b'[{"customer_id": 7494212.0, "payload": "segredo"}]',
        b'{"x": "de quem?"}',
    ):
        producer.produce(deployment.topic, value, None, 0)
    assert producer.flush(30) == 0
    ok(deployment.call("ingest", "--until-caught-up"))
    said = ok(deployment.call("erase", "--customer", ACME, "--yes")).text
    assert "raw_notifications: 2 rows blanked\nrejected_notifications: 1 rows blanked\n" in said
    assert said.splitlines()[-1].startswith("2 rejected messages name no customer, so whose they are can't be told; ")
