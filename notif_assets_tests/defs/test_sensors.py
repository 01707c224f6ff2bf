"""When a run starts because something happened, and why it does not.

Belongs here: ticks of the real sensors on a real instance, and runs of what they request. Doesn't: what a run leaves in
the lake beyond the rows that show it ran (notifications/, billing/, invoices/, chatbot/), what runs by the clock
(test_schedules.py).
"""

import gzip
import json
import os
import shutil
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import dagster as dg
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from pydantic import SecretStr

from notif_assets.billing import adjustments as adjustments_module
from notif_assets.billing import closing, prices
from notif_assets.billing.adjustments import write_adjustments
from notif_assets.billing.price_list import parse_price_list
from notif_assets.core.texts import quote_odd
from notif_assets.definitions import build_definitions
from notif_assets.defs import sensors
from notif_assets.defs.assets.inbox import every_file_is_taken
from notif_assets.defs.partitions import answer_days, invoice_months, key_ranges
from notif_assets.defs.sensors import RecentRuns, backoff_reason, backoff_time, cursor_number, idle_reason
from notif_assets.inbox.listing import QUIET_SECONDS, invoice_files
from notif_assets.instance.alerts import alert_lines
from notif_assets.instance.messengers import AlertNotSent, send
from notif_assets.instance.processes import hold_process_lock
from notif_assets.notifications import bronze
from notif_assets.notifications.ledger import Backlog, backlog
from notif_assets.settings import Settings
from notif_assets_tests.conftest import MakeDaemon
from notif_assets_tests.instance.daemon import Daemon, Time, ranges
from notif_assets_tests.instance.on_postgres import on_postgres
from notif_assets_tests.postgres import a_server
from notif_assets_tests.streams import rows_of, sent

NOW = datetime.now(UTC).replace(microsecond=0)
DAYS_AGO = [f"{NOW - timedelta(days=n):%Y-%m-%d}" for n in range(8)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


# --- whether to start a run now ---------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(0, 3600), st.integers(1, 120))
def test_a_job_rests_longer_the_more_often_it_failed_and_never_over_15_times(
    failed: int, seconds: int, first: int
) -> None:
    retry_after = timedelta(seconds=first)
    rest = backoff_time(failed, retry_after)
    assert rest == timedelta(seconds=first * [1, 2, 4, 8, 15][min(failed, 5) - 1])
    recent = RecentRuns(failures=failed, failed_at=NOW, reason="r")
    reason = backoff_reason(recent, NOW + timedelta(seconds=seconds), retry_after)
    assert (reason is None) == (timedelta(seconds=seconds) >= rest)
    if reason:
        assert f"{NOW + rest:%H:%M:%S}" in reason
        assert "(r)" in reason


def test_a_failure_that_is_yet_to_come_by_a_clock_that_was_put_back_delays_nothing() -> None:
    recent = RecentRuns(failures=5, failed_at=NOW, reason="r")
    assert backoff_reason(recent, NOW - timedelta(seconds=1), timedelta(minutes=1)) is None


def test_a_run_in_progress_goes_before_every_other_reason() -> None:
    a_minute = timedelta(minutes=1)
    assert backoff_reason(RecentRuns(), NOW, a_minute) is None
    recent = RecentRuns(in_progress="0123456789abcdef", failures=3, failed_at=NOW, reason="r")
    assert backoff_reason(recent, NOW + timedelta(days=1), a_minute) == "run 01234567 is in progress"


@pytest.mark.parametrize(
    ("lag", "unfinished", "seconds", "starts"),
    [
        (0, 0, None, True),  # never planned
        (0, 0, 59, False),
        (0, 0, 60, True),
        (1, 0, 19, False),
        (1, 0, 20, True),
        (99, 0, 0, False),
        (100, 0, 0, True),  # a whole batch
        (1, 0, -3600, True),  # the clock was put back
        (0, 1, 0, True),
        (-1, 0, 0, True),  # Kafka holds less than was taken: the run says what is wrong
    ],
)
def test_a_batch_is_worth_a_run(lag: int, unfinished: int, seconds: int | None, starts: bool) -> None:
    settings = Settings(batch_messages=100, run_every=timedelta(seconds=20))
    since = None if seconds is None else timedelta(seconds=seconds)
    reason = idle_reason(Backlog(lag, unfinished, since), settings)
    assert (reason is None) == starts
    if reason:
        assert reason.startswith("no new messages" if lag == 0 else f"{lag} new messages")
        assert f"{seconds} s ago" in reason


names = st.dictionaries(st.sampled_from(["job a", "job b", "check c of d", "check e of f"]), st.text(max_size=3))


@given(names, names)
def test_each_failure_is_told_when_it_begins_and_when_it_ends(told: dict[str, str], failing: dict[str, str]) -> None:
    lines = alert_lines(told, failing)
    begun = {line.split(": ")[0] for line in lines if ": " in line}
    ended = {line.removesuffix(" holds again") for line in lines if line.endswith(" holds again")}
    assert begun == failing.keys() - told.keys()
    assert ended == told.keys() - failing.keys()
    assert len(lines) == len(begun) + len(ended)
    assert alert_lines(failing, dict.fromkeys(failing, "told in other words")) == []


@given(st.sets(st.dates(date(2018, 12, 28), date(2019, 3, 5))))
@effort(max_examples=50)
def test_ranges_hold_exactly_the_partitions_asked_for_and_are_the_fewest(days: set[date]) -> None:
    existing = sorted(str(day) for day in days if day >= date(2019, 1, 1))
    found = key_ranges(answer_days, map(str, days))
    assert [key for some in found for key in answer_days.get_partition_keys_in_range(some)] == existing
    gaps = sum((date.fromisoformat(b) - date.fromisoformat(a)).days > 1 for a, b in pairwise(existing))
    assert len(found) == (gaps + 1 if existing else 0)


def test_ranges_follow_the_calendar() -> None:
    months = ["2020-02-01", "2019-12-01", "2020-01-01", "2020-04-01", "no month", "2014-12-01", "9999-01-01"]
    assert key_ranges(invoice_months, months) == [
        dg.PartitionKeyRange("2019-12-01", "2020-02-01"),
        dg.PartitionKeyRange("2020-04-01", "2020-04-01"),
    ]


# --- the topic --------------------------------------------------------------------------------------------------------


def test_messages_start_one_run_that_takes_them(daemon: Daemon, clock: Time) -> None:
    daemon.topic.produce(sent(NOW, message_id="a"), sent(NOW, message_id="b"), partition=0)
    daemon.topic.produce(sent(NOW, message_id="c"), partition=1)
    (request,) = daemon.requests("new_messages")
    assert request.tags["notif_assets/lag"] == "3"
    assert not daemon.settings.lake.exists(), "who only looks writes nothing"
    assert daemon.run("micro_batch", request).success
    assert len(rows_of(daemon.lake, "notifications")) == 3

    assert daemon.skips("new_messages") == "no new messages; all that Kafka held 0 s ago is counted"
    clock.advance(seconds=59)
    assert daemon.skips("new_messages") == "no new messages; all that Kafka held 59 s ago is counted"
    clock.advance(seconds=1)
    (request,) = daemon.requests("new_messages")
    assert request.tags["notif_assets/lag"] == "0"


def test_while_it_keeps_up_a_run_starts_once_in_run_every(make_daemon: MakeDaemon, clock: Time) -> None:
    daemon = make_daemon(batch_messages=3, run_every=timedelta(seconds=30))
    daemon.topic.produce(sent(NOW))
    daemon.ingest()
    daemon.topic.produce(*[sent(NOW, message_id=str(n)) for n in range(2)])
    clock.advance(seconds=29)
    assert daemon.skips("new_messages") == "2 new messages; the last run looked 29 s ago"
    clock.advance(seconds=1)
    assert len(daemon.requests("new_messages")) == 1
    clock.advance(seconds=-30)
    daemon.topic.produce(sent(NOW, message_id="2"), partition=1)  # a whole batch waits
    (request,) = daemon.requests("new_messages")
    assert request.tags["notif_assets/lag"] == "3"
    assert bronze.advance_bronze_by_one(daemon.lake, daemon.topic, daemon.settings, "cut short")
    daemon.requests("new_messages")  # nothing new, but what was taken is in no panel
    daemon.ingest()
    assert daemon.skips("new_messages").startswith("no new messages")


def test_a_topic_that_holds_less_than_was_taken_starts_a_run_which_says_so(daemon: Daemon, clock: Time) -> None:
    daemon.topic.produce(*[sent(NOW, message_id=str(n)) for n in range(3)])
    daemon.ingest()
    daemon.topic.partitions[0].pop()
    (request,) = daemon.requests("new_messages")
    assert not daemon.run("micro_batch", request).success
    clock.now = datetime.now(UTC)
    assert "partition 0 ends at offset 2, though offsets up to 3 were taken" in daemon.skips("new_messages")


def test_the_backlog_is_what_the_next_plans_will_take(daemon: Daemon, clock: Time) -> None:
    def waiting() -> Backlog:
        return backlog(daemon.lake, daemon.topic)

    daemon.topic.produce(*[sent(NOW, message_id=str(n)) for n in range(5)])
    daemon.topic.expire(0, 2)
    assert waiting() == Backlog(lag=3, unfinished=0, since_plan=None)  # the first plan begins where Kafka does
    daemon.lake.claim(topic=daemon.settings.topic)
    assert waiting() == Backlog(lag=3, unfinished=0, since_plan=None)
    daemon.ingest()
    clock.advance(seconds=7)
    assert waiting() == Backlog(0, 0, timedelta(seconds=7))
    daemon.topic.produce(sent(NOW), partition=1)
    daemon.topic.produce(sent(NOW), sent(NOW), partition=7)  # one that appears later begins at 0
    daemon.topic.expire(7, 1)
    assert waiting().lag == 3
    assert not waiting().contradicts
    last = daemon.topic.partitions[0].pop()
    assert waiting().contradicts
    daemon.topic.produce(last)
    assert not waiting().contradicts
    del daemon.topic.partitions[0]
    assert waiting().contradicts


def test_an_unreachable_broker_is_named(daemon: Daemon) -> None:
    settings = daemon.settings.model_copy(update={"kafka_bootstrap": "127.0.0.1:1"})
    daemon.repository = build_definitions(settings).get_repository_def()
    before = time.monotonic()
    assert "no Kafka broker answers at 127.0.0.1:1" in daemon.skips("new_messages")
    assert time.monotonic() - before < 8
    assert not daemon.settings.lake.exists()


@pytest.mark.parametrize("state", ["QUEUED", "STARTING", "STARTED", "CANCELING"])
def test_at_most_one_run_at_a_time(daemon: Daemon, state: str) -> None:
    daemon.topic.produce(sent(NOW))
    run = daemon.stuck("micro_batch", state, launched=True)
    daemon.stuck("invoices_job", state, launched=True)
    assert daemon.skips("new_messages") == f"run {run.run_id[:8]} is in progress"
    daemon.instance.report_run_canceled(run)
    daemon.requests("new_messages")


def test_after_failed_runs_it_rests_and_names_the_failing_check(daemon: Daemon, clock: Time) -> None:
    hour = NOW.replace(minute=0) - timedelta(hours=2)
    daemon.topic.produce(sent(hour, message_id="a"))
    daemon.ingest()
    DeltaTable(daemon.settings.lake / "minute_aggregates").delete("notifications = 1")
    daemon.topic.produce(sent(hour + timedelta(minutes=30), message_id="b"))
    for failed, minutes in enumerate([1, 2, 4, 8, 15, 15], start=1):
        if failed in (1, 3):
            assert not daemon.run("micro_batch").success
        else:
            daemon.instance.report_run_failed(daemon.stuck("micro_batch", "STARTED"))
        ended = daemon.instance.get_run_records(limit=1)[0].end_time
        assert ended is not None
        clock.now = datetime.fromtimestamp(ended, UTC) + timedelta(minutes=minutes, seconds=-1)
        reason = daemon.skips("new_messages")
        assert reason.startswith("1 run failed" if failed == 1 else f"{failed} runs in a row failed")
        if failed in (1, 3):
            assert "check minutes_equal_messages of minute_aggregates failed" in reason
        clock.advance(seconds=1)
        assert len(daemon.requests("new_messages")) == 1
    daemon.instance.report_run_canceled(daemon.stuck("micro_batch", "STARTED"))
    clock.now = datetime.now(UTC)
    daemon.requests("new_messages")  # somebody looked at it


def test_a_run_whose_process_died_is_ended_and_one_whose_process_lives_is_left(daemon: Daemon, clock: Time) -> None:
    daemon.topic.produce(sent(NOW))
    pools = daemon.instance.event_log_storage
    pools.initialize_concurrency_limit_to_default("notifications")
    with hold_process_lock(daemon.store) as process:
        run = daemon.stuck("micro_batch", "STARTED", process)
        assert pools.claim_concurrency_slot("notifications", run.run_id, "raw_notifications").is_claimed
        assert daemon.skips("new_messages") == f"run {run.run_id[:8]} is in progress"
        assert pools.get_concurrency_info("notifications").active_run_ids == {run.run_id}
    clock.now = datetime.now(UTC) + timedelta(seconds=1)  # the failure is told with the real time
    assert "1 run failed (its process ended without a word)" in daemon.skips("new_messages")
    assert daemon.status(run) == "FAILURE"
    assert pools.get_concurrency_info("notifications").active_slot_count == 0
    clock.now = datetime.now(UTC) + timedelta(seconds=60)
    (request,) = daemon.requests("new_messages")
    assert daemon.run("micro_batch", request).success


def test_a_run_that_the_daemon_launched_is_left_whatever_tags_it_was_given(daemon: Daemon) -> None:
    """Who starts a failed command's run again in the UI gives the new run the tags of the old one."""
    daemon.topic.produce(sent(NOW))
    run = daemon.stuck("micro_batch", "STARTED", "dead", launched=True)
    assert daemon.skips("new_messages") == f"run {run.run_id[:8]} is in progress"
    assert daemon.status(run) == "STARTED"


def test_without_a_shared_folder_nobody_is_known_to_be_dead(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    run = daemon.stuck("micro_batch", "STARTED", "dead")
    monkeypatch.delenv("DAGSTER_STORE")
    assert daemon.skips("new_messages") == f"run {run.run_id[:8]} is in progress"


# --- files ------------------------------------------------------------------------------------------------------------

HEADER = "customer,account,month,invoice\n"


def drop(daemon: Daemon, name: str, content: str, age: float = 60) -> Path:
    """A file in the inbox that was last written `age` seconds ago."""
    path = daemon.settings.inbox / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    at = time.time() - age
    os.utime(path, (at, at))
    return path


def answers(session: str, day: str = "2019-12-16") -> str:
    record = {"customer": "C", "flow": "F", "session": session, "timestamp": f"{day}T13:00:00+00:00"}
    return json.dumps([record | {"content": {"name": "maria"}}])


def test_an_invoice_file_is_imported_once_and_again_when_it_changes(daemon: Daemon) -> None:
    assert daemon.skips("invoice_files") == f"nothing new in {daemon.settings.inbox / 'invoices'}"
    older = drop(daemon, "invoices/b.csv", HEADER + "C,A,2019-07-01,100\n", age=90)
    newer = drop(daemon, "invoices/a.csv", HEADER + "C,A,2019-07-01,200\nC,A,2019-08-01,300\n", age=60)
    requests = daemon.requests("invoice_files")
    assert [request.run_config for request in requests] == [
        {"ops": {"invoices": {"config": {"files": [str(path)]}}}} for path in (older, newer)
    ]
    assert all(daemon.run("invoices_job", request).success for request in requests)
    assert invoiced(daemon) == {"2019-07-01": 200, "2019-08-01": 300}
    assert daemon.skips("invoice_files").startswith("nothing new")

    drop(daemon, "invoices/b.csv", HEADER + "C,A,2019-07-01,150\n", age=30)
    (changed,) = daemon.requests("invoice_files")
    assert changed.run_config["ops"]["invoices"]["config"]["files"] == [str(older)]
    assert changed.run_key not in {request.run_key for request in requests}
    assert daemon.run("invoices_job", changed).success
    assert invoiced(daemon) == {"2019-07-01": 150, "2019-08-01": 300}
    assert daemon.skips("invoice_files").startswith("nothing new")


def test_a_file_that_is_refused_keeps_no_other_one_out(daemon: Daemon) -> None:
    drop(daemon, "invoices/a.csv", "no,such,columns\n1,2,3\n", age=90)
    drop(daemon, "invoices/b.csv", HEADER + "C,A,2019-07-01,100\n")
    refused, taken = (daemon.run("invoices_job", request) for request in daemon.requests("invoice_files"))
    assert (refused.success, taken.success) == (False, True)
    assert invoiced(daemon) == {"2019-07-01": 100}

    drop(daemon, "chatbot/date=2019-12-16/hour=23.json", "no JSON")
    drop(daemon, "chatbot/date=2019-12-17/hour=00.json", answers("S", "2019-12-17"))
    (request,) = daemon.requests("answer_files")
    run = daemon.run("chatbot_answers_job", request)
    assert not run.success
    assert {str(row["answer_date"]) for row in rows_of(daemon.lake, "chatbot_answers")} == {"2019-12-17"}
    assert ranges(daemon.requests("imported_answers")) == [("2019-12-17", "2019-12-17")]


def invoiced(daemon: Daemon) -> dict[str, int]:
    return {str(row["month"]): int(row["invoice"]) for row in rows_of(daemon.lake, "invoices")}


def test_what_is_no_finished_file_of_invoices_is_left_alone(daemon: Daemon) -> None:
    drop(daemon, "invoices/young.csv", HEADER, age=0)
    drop(daemon, "invoices/.a.csv.swp", HEADER)
    drop(daemon, "invoices/.hidden.csv", HEADER)
    drop(daemon, "invoices/notes.txt", HEADER)
    drop(daemon, "elsewhere.csv", HEADER)
    (daemon.settings.inbox / "invoices" / "folder.csv").mkdir()
    (daemon.settings.inbox / "invoices" / "gone.csv").symlink_to("nowhere.csv")
    daemon.skips("invoice_files")
    settled = drop(daemon, "invoices/young.csv", HEADER, age=QUIET_SECONDS + 1)
    (request,) = daemon.requests("invoice_files")
    assert request.run_config["ops"]["invoices"]["config"]["files"] == [str(settled)]


def test_a_file_settles_after_two_seconds(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.touch()
    os.utime(path, (1000, 1000))
    assert invoice_files(tmp_path, 1001.9) == ([], [])
    ((found,), left) = invoice_files(tmp_path, 1002)
    assert (found.path, left) == (path, [])
    assert invoice_files(tmp_path / "missing", 1002) == ([], [])


def test_an_older_version_that_is_put_back_is_another_change(daemon: Daemon) -> None:
    """Its modification time came back with it, and a run key that Dagster knows starts no run."""
    drop(daemon, "invoices/kept", HEADER + "C,A,2019-07-01,100\n", age=90)
    kept = daemon.settings.inbox / "invoices" / "kept"
    shutil.copy2(kept, kept.with_name("a.csv"))
    (first,) = daemon.requests("invoice_files")
    drop(daemon, "invoices/a.csv", HEADER + "C,A,2019-07-01,2000\n", age=60)
    (second,) = daemon.requests("invoice_files")
    shutil.copy2(kept, kept.with_name("a.csv"))
    (third,) = daemon.requests("invoice_files")
    assert len({first.run_key, second.run_key, third.run_key}) == 3


def test_a_lost_cursor_asks_for_the_same_run_of_everything(daemon: Daemon) -> None:
    drop(daemon, "invoices/a.csv", HEADER)
    drop(daemon, "invoices/b.csv", HEADER)
    drop(daemon, "chatbot/date=2019-12-16/hour=13.json", answers("S"))
    drop(daemon, "chatbot/date=2019-12-18/hour=00.json", answers("S"))
    for sensor in ("invoice_files", "answer_files"):
        before = daemon.requests(sensor)
        daemon.skips(sensor)
        daemon.cursors.clear()
        again = daemon.requests(sensor)
        assert [request.run_key for request in again] == [request.run_key for request in before]
        assert [request.run_config for request in again] == [request.run_config for request in before]
        assert len({request.run_key for request in again}) == len(again)


def test_hours_of_answers_come_in_one_run_as_far_as_they_follow_each_other(daemon: Daemon) -> None:
    for day, hour in [("2019-12-16", 22), ("2019-12-16", 23), ("2019-12-17", 0), ("2019-12-17", 1), ("2019-12-17", 5)]:
        drop(daemon, f"chatbot/date={day}/hour={hour:02}.json", answers(f"{day}-{hour}", day))
    requests = daemon.requests("answer_files")
    assert ranges(requests) == [("2019-12-16-22:00", "2019-12-17-01:00"), ("2019-12-17-05:00", "2019-12-17-05:00")]
    for request in requests:
        assert daemon.run("chatbot_answers_job", request).success
    found = {(str(row["answer_date"]), row["hour"]): row["session"] for row in rows_of(daemon.lake, "chatbot_answers")}
    assert found == {(day, hour): f"{day}-{hour}" for day, hour in found}
    assert len(found) == 5
    assert daemon.skips("answer_files") == f"nothing new in {daemon.settings.inbox / 'chatbot'}"

    drop(daemon, "chatbot/date=2019-12-17/hour=05.json", answers("changed"), age=30)
    drop(daemon, "chatbot/date=2019-12-17/hour=06.json", answers("young"), age=0)
    again = daemon.requests("answer_files")  # its day, and no other
    assert ranges(again) == [("2019-12-17-00:00", "2019-12-17-01:00"), ("2019-12-17-05:00", "2019-12-17-05:00")]
    assert daemon.run("chatbot_answers_job", again[1]).success
    assert "changed" in {row["session"] for row in rows_of(daemon.lake, "chatbot_answers")}
    daemon.skips("answer_files")


ODD_NAMES = {
    b"fatura\xe7.csv": '"fatura\\udce7.csv" (its name is not UTF-8)',
    b"two\nlines.csv": '"two\\nlines.csv" (its name holds a control character)',
    b"mar.csv.zip": "mar.csv.zip (want *.csv or *.xlsx, or these with .gz, in no folder)",
    b"2020/jan.csv": "2020/jan.csv (want *.csv or *.xlsx, or these with .gz, in no folder)",
}


def test_an_invoice_file_with_a_name_that_is_not_taken_is_told_and_keeps_no_other_one_out(
    daemon: Daemon, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ODD_NAMES:
        drop(daemon, os.fsdecode(b"invoices/" + name), HEADER)
    inbox = daemon.settings.inbox / "invoices"
    (inbox / "folder.csv").mkdir()
    (inbox / "loop.csv").symlink_to("loop.csv")
    (inbox / "gone.csv").symlink_to("nowhere.csv")
    drop(daemon, "invoices/good.csv", HEADER + "C,A,2019-07-01,100\n")
    (request,) = daemon.requests("invoice_files")
    assert daemon.run("invoices_job", request).success
    told = [*ODD_NAMES.values(), "folder.csv (is a folder)", "gone.csv (can't be read: No such file or directory)"]
    told.append("loop.csv (can't be read: Too many levels of symbolic links)")
    log = capfd.readouterr().err
    skipped = daemon.skips("invoice_files")
    assert skipped.startswith(f"nothing new in {inbox}; not taken: ")
    for line in told:
        assert line in log
        assert line in skipped
    assert not any(line in capfd.readouterr().err for line in told)  # the log has it once
    drop(daemon, "invoices/c.txt", HEADER)
    daemon.skips("invoice_files")
    assert "c.txt (want *.csv or *.xlsx, " in capfd.readouterr().err
    found = every_file_is_taken(daemon.settings)
    assert isinstance(found, dg.AssetCheckResult)
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "invoices/2020/jan.csv (want " in str(found.description)


def test_case_and_packing_of_names_do_not_matter(daemon: Daemon) -> None:
    drop(daemon, "invoices/jan.CSV", HEADER + "C,A,2019-07-01,100\n")
    packed = drop(daemon, "invoices/mar.csv.GZ", "")
    packed.write_bytes(gzip.compress((HEADER + "C,A,2019-08-01,200\n").encode()))
    os.utime(packed, (1, 1))
    assert all(daemon.run("invoices_job", request).success for request in daemon.requests("invoice_files"))
    assert invoiced(daemon) == {"2019-07-01": 100, "2019-08-01": 200}

    drop(daemon, "chatbot/DATE=2019-12-16/hour=9.json", answers("S9"))
    drop(daemon, "chatbot/date=2019-12-16/HOUR=10.JSON", answers("S10"))
    packed = drop(daemon, "chatbot/date=2019-12-16/hour=11.json.gz", "")
    packed.write_bytes(gzip.compress(answers("S11").encode()))
    os.utime(packed, (1, 1))
    (request,) = daemon.requests("answer_files")
    assert daemon.run("chatbot_answers_job", request).success
    assert {row["session"] for row in rows_of(daemon.lake, "chatbot_answers")} == {"S9", "S10", "S11"}
    found = every_file_is_taken(daemon.settings)
    assert isinstance(found, dg.AssetCheckResult)
    assert found.passed


def test_of_two_files_of_one_hour_none_is_taken_and_both_are_told(daemon: Daemon) -> None:
    drop(daemon, "chatbot/date=2019-12-16/hour=9.json", answers("S"))
    drop(daemon, "chatbot/date=2019-12-16/hour=09.json", answers("S"))
    skipped = daemon.skips("answer_files")
    for name in ("9", "09"):
        assert f"date=2019-12-16/hour={name}.json (2 files of one hour: keep one)" in skipped


def test_a_refused_or_missing_hour_keeps_no_other_hour_of_its_day_out(daemon: Daemon) -> None:
    paths = [drop(daemon, f"chatbot/date=2019-12-16/hour={hour}.json", answers(f"S{hour}")) for hour in (12, 13, 14)]
    paths[0].write_text("no JSON")
    os.utime(paths[0], (1, 1))
    (request,) = daemon.requests("answer_files")
    paths[1].unlink()
    assert not daemon.run("chatbot_answers_job", request).success
    assert [row["session"] for row in rows_of(daemon.lake, "chatbot_answers")] == ["S14"]
    assert ranges(daemon.requests("imported_answers")) == [("2019-12-16", "2019-12-16")]


def test_an_answer_file_with_a_name_that_is_not_taken_is_told_and_keeps_no_other_one_out(daemon: Daemon) -> None:
    names = [
        b"date=2019-12-16/hour=9.jsn",
        b"date=2019-12-16/hour=24.json",
        b"2019-12-16/hour=13.json",
        b"date=2018-12-16/hour=13.json",
        b"date=2019-12-16/hour=1\xe7.json",
        b"date=\xe7/hour=13.json",
    ]
    for name in names:
        drop(daemon, os.fsdecode(b"chatbot/" + name), answers("S"))
    skipped = daemon.skips("answer_files")
    for name in names:
        assert quote_odd(os.fsdecode(name)) in skipped
    drop(daemon, "chatbot/date=2019-12-16/hour=13.json", answers("S"))
    (request,) = daemon.requests("answer_files")
    assert daemon.run("chatbot_answers_job", request).success


def test_names_that_are_no_hour_are_ignored(daemon: Daemon) -> None:
    tomorrow = f"{NOW + timedelta(days=2):%Y-%m-%d}"
    for name in [
        "date=2019-12-16/hour=24.json",
        "date=2019-12-16/hour=005.json",
        "date=2019-12-16/hour=05.json.part",
        "date=2019-13-01/hour=01.json",
        "date=20191216/hour=01.json",
        "date=2019-W51-1/hour=01.json",
        "date=2018-12-31/hour=01.json",
        f"date={tomorrow}/hour=01.json",
        "date=/hour=01.json",
        "hour=01.json",
        "date=2019-12-16/more/hour=01.json",
    ]:
        drop(daemon, f"chatbot/{name}", answers("S"))
    (daemon.settings.inbox / "chatbot/date=2019-12-16/hour=03.json").mkdir()
    daemon.skips("answer_files")
    drop(daemon, "chatbot/date=2019-12-16/hour=01.json", answers("S"))
    assert ranges(daemon.requests("answer_files")) == [("2019-12-16-01:00", "2019-12-16-01:00")]


def test_more_ranges_than_a_tick_may_request_come_with_the_next(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "_MOST_RUNS", 3)
    wanted = [(f"2019-12-{day}", hour) for day in (16, 17, 18) for hour in (1, 3)]
    for day, hour in wanted:
        drop(daemon, f"chatbot/date={day}/hour={hour:02}.json", answers("S", day))
    runs: dict[str | None, tuple[str, str]] = {}
    for _ in range(3):
        requests = daemon.requests("answer_files")
        assert len(requests) <= 3
        runs |= {request.run_key: keys for request, keys in zip(requests, ranges(requests), strict=True)}
    assert sorted(runs.values()) == [
        (f"{day}-{hour:02}:00",) * 2 for day, hour in wanted
    ]  # a known run key starts none
    daemon.skips("answer_files")


# --- what follows from imported files ---------------------------------------------------------------------------------


def test_imported_invoices_bring_the_averages_of_the_months_they_change(daemon: Daemon) -> None:
    assert daemon.skips("imported_invoices") == "no invoice was imported since"
    drop(daemon, "invoices/a.csv", HEADER + "C,A,2019-01-01,100\nC,A,2020-03-01,200\n")
    assert daemon.run("invoices_job", daemon.requests("invoice_files")[0]).success
    requests = daemon.requests("imported_invoices")
    assert ranges(requests) == [("2019-02-01", "2019-07-01"), ("2020-04-01", "2020-09-01")]
    assert daemon.skips("imported_invoices") == "no invoice was imported since"
    assert daemon.run("invoice_averages_job", requests[0]).success
    months = {str(row["reference_month"]) for row in rows_of(daemon.lake, "invoice_window_averages")}
    assert months == {f"2019-{month:02}-01" for month in range(2, 8)}

    drop(daemon, "invoices/b.csv", HEADER + "D,A,2019-06-01,100\n")  # a new account has its row in every month
    assert daemon.run("invoices_job", daemon.requests("invoice_files")[0]).success
    assert ranges(daemon.requests("imported_invoices")) == [("2019-07-01", "2019-12-01")]
    rows = rows_of(daemon.lake, "invoice_window_averages")
    assert sorted(row["reference_month"].month for row in rows if row["customer"] == "D") == [2, 3, 4, 5, 6, 7]


def test_imported_answers_bring_the_reports_of_their_days(daemon: Daemon) -> None:
    assert daemon.skips("imported_answers") == "no answers were imported since"
    for day, hour in [("2019-12-16", 13), ("2019-12-16", 14), ("2019-12-17", 0), ("2019-12-20", 1)]:
        drop(daemon, f"chatbot/date={day}/hour={hour:02}.json", answers(f"{day}-{hour}", day))
    for request in daemon.requests("answer_files"):
        assert daemon.run("chatbot_answers_job", request).success
    requests = daemon.requests("imported_answers")
    assert ranges(requests) == [("2019-12-16", "2019-12-17"), ("2019-12-20", "2019-12-20")]
    assert daemon.skips("imported_answers") == "no answers were imported since"
    assert daemon.run("chatbot_reports_job", requests[0]).success
    sessions = {row["session"] for row in rows_of(daemon.lake, "chatbot_reports")}
    assert sessions == {"2019-12-16-13", "2019-12-16-14", "2019-12-17-0"}


# --- late messages ----------------------------------------------------------------------------------------------------


def test_late_messages_start_one_run_for_exactly_the_closed_days_they_change(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert daemon.skips("late_messages") == "nothing was ingested yet"
    for n in (2, 3, 4, 5):
        daemon.topic.produce(sent(NOW - timedelta(days=n), message_id=f"on time {n}"))
    daemon.ingest()
    daemon.close(*DAYS_AGO[3:6])
    counted = daemon.lake.table("minute_aggregates").watermark
    assert daemon.skips("late_messages") == f"no closed day changed up to batch {counted}"
    assert str(daemon.cursors["late_messages"]).startswith(f"{counted} ")

    for n in (5, 3, 2):  # the last is open
        daemon.topic.produce(sent(NOW - timedelta(days=n), at=NOW, message_id=f"late {n}"))
    daemon.ingest()
    (request,) = daemon.requests("late_messages")
    assert ranges([request]) == [(DAYS_AGO[5], DAYS_AGO[3])]
    assert request.run_config == {"ops": {"daily_billing": {"config": {"days": [DAYS_AGO[5], DAYS_AGO[3]]}}}}
    assert daemon.requests("late_messages") == [request], "what was asked for is not yet done"
    recounted: list[str] = []
    adjust = write_adjustments

    def noting(*given: Any) -> Any:
        recounted.append(str(given[2]))
        return adjust(*given)

    monkeypatch.setattr(closing, "write_adjustments", noting)
    assert daemon.run("daily_billing_job", request).success
    assert recounted == [DAYS_AGO[5], DAYS_AGO[3]]
    adjusted = {
        str(row["billing_date"]): row["notifications_delta"] for row in rows_of(daemon.lake, "billing_adjustments")
    }
    assert adjusted == {DAYS_AGO[5]: 1, DAYS_AGO[3]: 1}
    nothing = f"no closed day changed up to batch {counted + 1}"
    assert daemon.skips("late_messages") == nothing
    assert str(daemon.cursors["late_messages"]).startswith(f"{counted + 1} ")
    daemon.cursors.clear()
    assert daemon.skips("late_messages") == nothing


@pytest.mark.parametrize("zone", [None, "Asia/Kathmandu", "America/Sao_Paulo"], ids=["files", "east", "west"])
def test_closed_days_are_corrected_at_most_as_often_as_set(
    make_daemon: MakeDaemon, clock: Time, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str | None
) -> None:
    """With Dagster's runs in files, or in a PostgreSQL of a time zone that is not UTC."""
    daemon = make_daemon(adjust_every=timedelta(minutes=15))
    daemon.topic.produce(sent(NOW - timedelta(days=3)))
    daemon.ingest()
    daemon.close(DAYS_AGO[3])
    with ExitStack() as opened:
        if zone:
            server = opened.enter_context(a_server(timezone=zone))
            for name, value in on_postgres(tmp_path / "home", server.create_database("dagster")).items():
                monkeypatch.setenv(name, value)
            daemon.instance = opened.enter_context(dg.DagsterInstance.get())
        for number in (1, 2):
            daemon.topic.produce(sent(NOW - timedelta(days=3), at=NOW, message_id=f"late {number}"))
            daemon.ingest()
            if number == 2:
                assert daemon.skips("late_messages").startswith("closed days were corrected lately; again after ")
                clock.now = datetime.now(UTC) + timedelta(minutes=15, seconds=1)  # the run began by the real time
            (request,) = daemon.requests("late_messages")
            assert daemon.run("daily_billing_job", request).success
    assert [row["notifications_delta"] for row in rows_of(daemon.lake, "billing_adjustments")] == [1, 1]


def test_days_are_those_of_the_billing_zone(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(timezone="America/Sao_Paulo")
    day = (NOW - timedelta(days=5)).replace(hour=12)
    daemon.topic.produce(sent(day, message_id="on time"))
    daemon.ingest()
    daemon.close(f"{day:%Y-%m-%d}")
    daemon.skips("late_messages")
    daemon.topic.produce(sent(day.replace(hour=2) + timedelta(days=1), at=NOW, message_id="late"))
    daemon.ingest()
    assert ranges(daemon.requests("late_messages")) == [(f"{day:%Y-%m-%d}",) * 2]


def test_what_a_closed_day_cannot_price_starts_no_run_and_holds_up_no_other(daemon: Daemon, clock: Time) -> None:
    """The hourly check tells of it, with the command that helps; closing by hand exits with it."""
    daemon.topic.produce(sent(NOW - timedelta(days=3)))
    daemon.ingest()
    daemon.close(DAYS_AGO[3])
    daemon.topic.produce(sent(NOW - timedelta(days=3), at=NOW, channel="Fax", message_id="late", customer_id=9))
    daemon.ingest()
    assert daemon.skips("late_messages").startswith("no closed day changed up to batch ")
    daemon.topic.produce(sent(NOW - timedelta(days=3), at=NOW, message_id="late", customer_id=2))
    daemon.ingest()
    (request,) = daemon.requests("late_messages")
    assert daemon.run("daily_billing_job", request).success
    clock.advance(minutes=1)
    assert [row["customer_id"] for row in rows_of(daemon.lake, "billing_adjustments")] == [2]
    assert daemon.skips("late_messages").startswith("no closed day changed up to batch ")

    checks = daemon.run("all_checks").get_asset_check_evaluations()
    (told,) = [check for check in checks if check.check_name == "every_late_message_has_one_price"]
    assert not told.passed
    assert told.description is not None
    assert (
        f"{DAYS_AGO[3]} is closed, and messages that came late are not billed: channel Fax has no" in told.description
    )
    assert f"`notif-assets reprice --from {DAYS_AGO[3]} --to {DAYS_AGO[3]} --reason " in told.description


# --- cursors that tell nothing ----------------------------------------------------------------------------------------

DAMAGED = [
    "",
    "null",
    "[]",
    '{"a.csv": 1}',
    "{",
    "[" * 100_000,
    "-1",
    "1.5",
    "٣",
    "9" * 5000,
    "9999999",
    "1 x",
    "two words",
]


@pytest.mark.parametrize("cursor", DAMAGED, ids=[cursor[:9] for cursor in DAMAGED])
def test_a_damaged_cursor_counts_as_none(daemon: Daemon, cursor: str) -> None:
    drop(daemon, "invoices/a.csv", HEADER + "C,A,2019-01-01,100\n")
    drop(daemon, "chatbot/date=2019-12-16/hour=13.json", answers("S"))
    for asset, event in {"invoices": {"imported_months": ["2019-01-01"]}, "chatbot_answers": {}}.items():
        partition = "2019-12-16-13:00" if asset == "chatbot_answers" else None
        daemon.instance.report_runless_asset_event(dg.AssetMaterialization(asset, metadata=event, partition=partition))
    invoice = {"customer": "C", "account": "A", "month": date(2019, 1, 1), "invoice": Decimal(1), "source_file": "f"}
    rows = pa.Table.from_pylist([invoice | {"source_line": 1}])
    daemon.lake.table("invoices").append(rows)
    late(daemon)
    for sensor in ("invoice_files", "answer_files", "imported_invoices", "imported_answers", "late_messages"):
        daemon.cursors[sensor] = None
        expected = [(request.run_key, request.tags) for request in daemon.requests(sensor)]
        daemon.cursors[sensor] = cursor
        assert [(request.run_key, request.tags) for request in daemon.requests(sensor)] == expected, sensor
    daemon.cursors["failures"] = cursor
    assert daemon.skips("failures") == "all checks and jobs hold"


def late(daemon: Daemon) -> None:
    """A late message of a day that was closed long ago."""
    daemon.topic.produce(sent(NOW - timedelta(days=3), message_id="on time"))
    daemon.ingest()
    daemon.close(DAYS_AGO[3])
    daemon.topic.produce(sent(NOW - timedelta(days=3), at=NOW, message_id="late"))
    daemon.ingest()


@pytest.mark.parametrize("batches", [0, 3], ids=["the cursor is ahead of it", "it has caught up with the cursor"])
def test_late_messages_of_a_lake_that_was_restored_are_found(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    monkeypatch.setattr(adjustments_module, "_RECENT", timedelta(0))  # the day was closed long ago
    daemon.topic.produce(sent(NOW - timedelta(days=3), message_id="on time"))
    daemon.ingest()
    daemon.close(DAYS_AGO[3])
    backup = daemon.lake.root.with_name("backup")
    shutil.copytree(daemon.lake.root, backup)
    daemon.topic.produce(sent(NOW - timedelta(days=3), at=NOW, message_id="late"))
    daemon.ingest()
    assert daemon.run("daily_billing_job", daemon.requests("late_messages")[0]).success
    daemon.ingest()
    daemon.skips("late_messages")

    shutil.rmtree(daemon.lake.root)
    shutil.copytree(backup, daemon.lake.root)
    for _ in range(1 + batches):
        daemon.ingest()
    seen = int(str(daemon.cursors["late_messages"]).split()[0])
    assert (daemon.lake.table("minute_aggregates").watermark >= seen) == bool(batches)
    assert ranges(daemon.requests("late_messages")) == [(DAYS_AGO[3],) * 2]


@pytest.mark.parametrize("others", [0, 9], ids=["the cursor is ahead of it", "it has caught up with the cursor"])
def test_imports_are_found_after_the_events_of_dagster_were_deleted(daemon: Daemon, others: int) -> None:
    def imported(day: int) -> None:
        event = dg.AssetMaterialization("chatbot_answers", partition=f"2019-12-{day:02}-13:00")
        daemon.instance.report_runless_asset_event(event)

    for day in range(1, 6):
        imported(day)
    daemon.requests("imported_answers")
    daemon.skips("imported_answers")
    daemon.instance.wipe()
    imported(11)
    for _ in range(others):
        daemon.instance.report_runless_asset_event(dg.AssetMaterialization("another"))
    imported(12)
    assert ranges(daemon.requests("imported_answers")) == [("2019-12-11", "2019-12-12")]
    assert daemon.skips("imported_answers") == "no answers were imported since"


def test_cursors_of_before_are_understood(daemon: Daemon) -> None:
    """Those that hold nothing but a number."""
    assert cursor_number("7", lambda _: "mark") == cursor_number("7 mark", lambda _: "mark") == 7
    assert cursor_number("7 other", lambda _: "mark") is cursor_number("7", lambda _: None) is None
    daemon.topic.produce(sent(NOW - timedelta(days=3)))
    daemon.ingest()
    daemon.close(DAYS_AGO[3])
    daemon.skips("late_messages")
    daemon.cursors["late_messages"] = str(daemon.cursors["late_messages"]).split()[0]
    daemon.skips("late_messages")


# --- what went wrong --------------------------------------------------------------------------------------------------

FAILING = {"check every_channel_has_one_price of daily_billing", "job daily_billing_job"}


class Webhook:
    """A server on loopback that takes what it is told, or answers with an error."""

    def __init__(self) -> None:
        webhook = self
        self.heard: list[str] = []
        self.status = 200

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.headers["Content-Type"] == "application/json"
                if webhook.status == 200:
                    webhook.heard.append(json.loads(body)["text"])
                self.send_response(webhook.status)
                self.send_header("Location", "/login")
                self.end_headers()

            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/services/s3cr3t"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook() as webhook:
        yield webhook


def a_day_without_a_price(daemon: Daemon) -> None:
    daemon.topic.produce(sent(NOW - timedelta(days=3), channel="Fax"))
    daemon.ingest()
    assert not daemon.bill(DAYS_AGO[3]).success


def give_it_a_price(daemon: Daemon) -> None:
    header = "customer_id,channel,unit_price,currency,valid_from,valid_to"
    prices.load_prices(daemon.lake, parse_price_list(f"{header}\n,Fax,1,BRL,,".encode(), "p.csv"))


def test_a_failure_is_told_once_and_its_end_once(
    make_daemon: MakeDaemon, webhook: Webhook, capfd: pytest.CaptureFixture[str]
) -> None:
    daemon = make_daemon(webhook=webhook.address)
    assert daemon.skips("failures") == "all checks and jobs hold"
    a_day_without_a_price(daemon)
    state = daemon.skips("failures")
    assert state == f"2 fail: {', '.join(sorted(FAILING))}"
    (told,) = webhook.heard
    assert told.splitlines()[0] == "notif-assets"
    assert {line.split(": ")[0] for line in told.splitlines()[1:]} == FAILING
    assert "channel Fax has no price" in told
    log = capfd.readouterr().err
    assert "channel Fax has no price" in log

    for _ in range(2):
        assert daemon.skips("failures") == state
    assert not daemon.bill(DAYS_AGO[3]).success  # another run, the same failure
    daemon.skips("failures")
    assert len(webhook.heard) == 1

    give_it_a_price(daemon)
    assert daemon.bill(DAYS_AGO[3], DAYS_AGO[1]).success
    for _ in range(2):
        assert daemon.skips("failures") == "all checks and jobs hold"
    (_, ended) = webhook.heard
    assert set(ended.splitlines()[1:]) == {f"{name} holds again" for name in FAILING}
    assert "s3cr3t" not in log + capfd.readouterr().err


def test_what_a_run_going_on_will_find_is_not_known_yet(make_daemon: MakeDaemon, webhook: Webhook) -> None:
    """Neither a check that is only planned nor a run that somebody stopped says that anything holds again."""
    daemon = make_daemon(webhook=webhook.address)
    a_day_without_a_price(daemon)
    state = daemon.skips("failures")
    run = daemon.stuck("daily_billing_job", "STARTED")
    check = dg.AssetCheckKey(dg.AssetKey("daily_billing"), "every_channel_has_one_price")
    newest = daemon.instance.event_log_storage.get_latest_asset_check_execution_by_key([check])[check]
    assert newest.run_id == run.run_id
    assert daemon.skips("failures") == state
    daemon.instance.report_run_canceled(run)
    assert daemon.skips("failures") == state
    assert len(webhook.heard) == 1


def test_what_a_webhook_did_not_take_is_told_again(
    make_daemon: MakeDaemon, webhook: Webhook, capfd: pytest.CaptureFixture[str]
) -> None:
    daemon = make_daemon(webhook=webhook.address)
    a_day_without_a_price(daemon)
    for status in (500, 404, 302):  # who follows a redirect asks the new address, and tells it nothing
        webhook.status = status
        assert daemon.skips("failures") == f"NOTIF_WEBHOOK answered {status}"
    assert webhook.heard == []
    webhook.status = 200
    daemon.skips("failures")
    assert len(webhook.heard) == 1
    log = capfd.readouterr().err
    assert "channel Fax has no price" in log
    assert "s3cr3t" not in log


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:1/s3cr3t",
        "http://127.0.0.1:1/a s3cr3t",
        "http://127.0.0.1:1/ção-s3cr3t",
        "http://s3cr3t.invalid/",
        "http://127.0.0.1:s3cr3t/",
        "http://",
    ],
)
def test_an_address_that_leads_nowhere_is_kept_secret(address: str) -> None:
    settings = Settings(webhook=SecretStr(address))
    with pytest.raises(AlertNotSent) as caught:
        send(settings.webhook, ["a line"])
    assert str(caught.value).startswith("NOTIF_WEBHOOK can't be reached: ")
    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))
    assert "s3cr3t" not in repr(settings)
    send(settings.webhook, [])  # nothing to tell, nobody is asked
    send(None, ["a line"])


def test_an_answer_that_is_no_http_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"SSH-2.0-s3cr3t\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(AlertNotSent) as caught:
            send(SecretStr(f"http://127.0.0.1:{server.getsockname()[1]}/"), ["a line"])
        thread.join()
    assert "s3cr3t" not in str(caught.value)
