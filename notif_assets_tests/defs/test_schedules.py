"""What the clock starts, and which days and months are due then.

Belongs here: ticks of the real schedules over a real lake, the times at which they come. Doesn't: what a run of the
bills writes (billing/), what starts because something happened (test_sensors.py).
"""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import islice

import dagster as dg
import pyarrow as pa
import pytest
from dagster._utils.schedules import cron_string_iterator

from notif_assets.billing.closed_days import open_days_that_should_be_closed
from notif_assets.defs.partitions import billing_days
from notif_assets.lake import write_once
from notif_assets.notifications import rules
from notif_assets_tests.conftest import MakeDaemon
from notif_assets_tests.instance.daemon import Daemon, Time, ranges
from notif_assets_tests.streams import rows_of, sent

NOON = datetime(2020, 2, 5, 12, tzinfo=UTC)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch, NOON)


def due(daemon: Daemon) -> list[tuple[str, str]]:
    """What the bills are asked for now, as soon as Kafka was asked too."""
    daemon.ingest()
    requests, _ = daemon.scheduled("bills")
    keys = [request.run_key for request in requests]
    assert len(set(keys)) == len(keys)
    return ranges(requests)


def states(daemon: Daemon) -> dict[str, str]:
    closed = {str(row["billing_date"]): "final" for row in rows_of(daemon.lake, "billing_days")}
    return {str(row["billing_date"]): row["status"] for row in rows_of(daemon.lake, "daily_billing")} | closed


# --- bills ------------------------------------------------------------------------------------------------------------


def test_nothing_is_billed_before_anything_was_ingested(daemon: Daemon) -> None:
    assert daemon.scheduled("bills") == ([], "nothing was ingested yet")
    assert not daemon.settings.lake.exists()


def test_yesterday_closes_as_soon_as_it_may_and_today_is_billed_provisionally(daemon: Daemon, clock: Time) -> None:
    for days in (0, 1):
        daemon.topic.produce(sent(NOON - timedelta(days=days), message_id=str(days)))
    daemon.ingest()
    (request,), skipped = daemon.scheduled("bills")
    assert skipped is None
    assert ranges([request]) == [("2020-02-04", "2020-02-05")]
    assert daemon.run("daily_billing_job", request).success
    assert states(daemon) == {"2020-02-04": "final", "2020-02-05": "provisional"}
    assert due(daemon) == [("2020-02-05", "2020-02-05")]

    clock.now = datetime(2020, 2, 6, 0, 59, 59, tzinfo=UTC)  # the grace of an hour is not over
    assert due(daemon) == [("2020-02-06", "2020-02-06")]
    clock.now = datetime(2020, 2, 6, 1, tzinfo=UTC)
    assert due(daemon) == [("2020-02-05", "2020-02-06")]


def test_what_kafka_was_not_asked_about_is_not_due(daemon: Daemon, clock: Time) -> None:
    daemon.topic.produce(sent(NOON))
    daemon.ingest()
    clock.advance(days=3)
    requests, _ = daemon.scheduled("bills")
    assert ranges(requests) == [("2020-02-08", "2020-02-08")]


def test_days_missed_while_nothing_ran_are_made_up_for_in_one_range(daemon: Daemon, clock: Time) -> None:
    daemon.topic.produce(sent(NOON))
    clock.advance(days=5)
    assert due(daemon) == [("2020-02-05", "2020-02-10")]
    daemon.close("2020-02-05", "2020-02-07")  # by hand, a day in between
    assert due(daemon) == [("2020-02-06", "2020-02-06"), ("2020-02-08", "2020-02-10")]


def test_a_day_between_one_that_is_due_and_today_is_billed_too(daemon: Daemon, clock: Time) -> None:
    daemon.topic.produce(sent(NOON - timedelta(days=1)))
    clock.now = datetime(2020, 2, 6, 0, 30, tzinfo=UTC)  # the 5th is over, but not its grace
    assert due(daemon) == [("2020-02-04", "2020-02-06")]


def test_a_replay_of_an_old_day_asks_for_that_day_and_for_no_empty_years(daemon: Daemon, clock: Time) -> None:
    old = datetime(2016, 3, 1, 12, tzinfo=UTC)
    daemon.topic.produce(sent(old, message_id="old"), sent(NOON - timedelta(days=1), message_id="new"))
    assert due(daemon) == [("2016-03-01", "2016-03-01"), ("2020-02-04", "2020-02-05")]
    result = daemon.run("all_checks")
    (told,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "every_closed_day_is_present"]
    assert (
        told.description == "2 days are open: `notif-assets close-day 2020-02-04`, `notif-assets close-day 2016-03-01`"
    )
    daemon.close("2016-03-01", "2020-02-04")
    assert due(daemon) == [("2020-02-05", "2020-02-05")]


def test_a_quiet_time_is_closed_unless_it_is_longer_than_a_month(daemon: Daemon, clock: Time) -> None:
    for ago in (100, 40, 8):  # 59, then 31 quiet days between
        daemon.topic.produce(sent(NOON - timedelta(days=ago), message_id=str(ago)))
    daemon.ingest()
    days = open_days_that_should_be_closed(daemon.lake, daemon.settings)
    assert days == [date(2019, 10, 28), *(date(2019, 12, 27) + timedelta(days=n) for n in range(40))]


def test_many_days_are_asked_for_in_several_ticks_and_yesterday_in_the_first(daemon: Daemon, clock: Time) -> None:
    for days in range(1, 101):
        daemon.topic.produce(sent(NOON - timedelta(days=days), message_id=str(days)))
    asked: list[set[str]] = []
    for _ in range(4):
        daemon.ingest()
        keys = {
            key
            for request in daemon.scheduled("bills")[0]
            for key in billing_days.get_partition_keys_in_range(dg.PartitionKeyRange(*ranges([request])[0]))
        }
        assert {"2020-02-04", "2020-02-05"} <= keys
        assert len(keys) <= 32  # and today
        asked.append(keys)
        clock.advance(hours=1)
    assert len(set().union(*asked)) == 101


def test_a_lake_with_messages_of_1970_is_asked_for_no_day_that_no_bill_takes(daemon: Daemon, clock: Time) -> None:
    daemon.lake.claim(topic=daemon.settings.topic, timezone=daemon.settings.timezone)
    write_once(daemon.lake.root / "rules.json", {rules._KEY: 1})  # as by a version that accepted them
    epoch, far = datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
    daemon.topic.produce(sent(epoch, message_id="e"), sent(far, message_id="f"), sent(NOON - timedelta(days=1)))
    daemon.ingest()
    assert len(rows_of(daemon.lake, "notifications")) == 3
    assert due(daemon) == [("2020-02-04", "2020-02-05")]
    daemon.close("2020-02-04")
    clock.advance(hours=2)
    daemon.ingest()
    result = daemon.run("all_checks")
    (told,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "every_closed_day_is_present"]
    assert told.passed
    assert told.metadata["days_that_no_bill_takes"].value == ["1970-01-01"]


def test_days_are_those_of_the_billing_zone(make_daemon: MakeDaemon, clock: Time) -> None:
    daemon = make_daemon(timezone="Pacific/Kiritimati")  # 14 hours ahead
    daemon.topic.produce(sent(NOON))
    assert due(daemon) == [("2020-02-06", "2020-02-06")]
    clock.now = datetime(2020, 2, 6, 11, tzinfo=UTC)
    assert due(daemon) == [("2020-02-06", "2020-02-07")]


def test_today_is_a_partition_in_every_zone() -> None:
    today_there = (datetime.now(UTC) + timedelta(hours=14)).date()
    assert billing_days.has_partition_key(str(today_there))


def test_a_lake_of_another_kind_is_told_and_costs_no_error(daemon: Daemon, clock: Time) -> None:
    daemon.topic.produce(sent(NOON))
    daemon.ingest()
    for part in (daemon.settings.lake / "minute_aggregates" / "_delta_log").iterdir():
        part.write_text("broken")
    requests, skipped = daemon.scheduled("bills")
    assert requests == []
    assert skipped is not None
    assert "minute_aggregates" in skipped


# --- averages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", ["UTC", "America/Sao_Paulo", "Etc/GMT+12", "Pacific/Kiritimati"])
def test_the_month_that_begins_gets_its_averages(make_daemon: MakeDaemon, zone: str) -> None:
    daemon = make_daemon(timezone=zone)
    at = datetime(2020, 3, 1, 2, tzinfo=UTC)
    assert daemon.scheduled("monthly_averages", at) == ([], "no invoice was ever imported")
    assert not daemon.lake.root.exists()
    an_invoice(daemon)
    for month in ("2020-03-01", "2021-01-01"):
        ((request,), _) = daemon.scheduled("monthly_averages", datetime.fromisoformat(f"{month}T02:00:00+00:00"))
        assert ranges([request]) == [(month, month)]


def an_invoice(daemon: Daemon) -> None:
    row = {"customer": "C", "account": "A", "month": date(2019, 1, 1), "invoice": Decimal(1)}
    rows = pa.Table.from_pylist([row | {"source_file": "f", "source_line": 1}])
    daemon.lake.table("invoices").append(rows)


def test_what_runs_by_the_clock_begins_no_lake(daemon: Daemon) -> None:
    for job in ("hourly_maintenance", "daily_maintenance", "all_checks"):
        daemon.run(job)
    assert daemon.scheduled("bills") == ([], "nothing was ingested yet")
    assert not daemon.lake.root.exists()


def test_its_run_writes_that_month(daemon: Daemon) -> None:
    an_invoice(daemon)
    ((request,), _) = daemon.scheduled("monthly_averages", datetime(2020, 3, 1, 2, tzinfo=UTC))
    assert daemon.run("invoice_averages_job", request).success
    assert (daemon.settings.reports / "invoice-averages" / "2020-03.txt").exists()


# --- when -------------------------------------------------------------------------------------------------------------


def times(daemon: Daemon, schedule: str, count: int) -> list[datetime]:
    definition = daemon.repository.get_schedule_def(schedule)
    assert isinstance(definition.cron_schedule, str)
    zone = definition.execution_timezone
    assert zone is None  # UTC
    start = datetime(2020, 1, 31, tzinfo=UTC)
    return list(islice(cron_string_iterator(start.timestamp(), definition.cron_schedule, "UTC"), count))


def test_schedules_come_when_they_are_said_to(daemon: Daemon) -> None:
    day = datetime(2020, 1, 31, tzinfo=UTC)
    every_hour = [day + timedelta(hours=hour) for hour in range(24)]
    assert times(daemon, "bills", 24) == [hour + timedelta(minutes=5) for hour in every_hour]
    assert times(daemon, "checks", 24) == [hour + timedelta(minutes=20) for hour in every_hour]
    maintenance = times(daemon, "maintenance", 2)
    assert maintenance == [day + timedelta(hours=4, minutes=35), day + timedelta(days=1, hours=4, minutes=35)]
    upkeep = sorted(times(daemon, "compaction", 23) + maintenance[:1])  # daily maintenance compacts too
    assert upkeep == [hour + timedelta(minutes=35) for hour in every_hour]
    assert times(daemon, "monthly_averages", 2) == [
        datetime(2020, 2, 1, 2, tzinfo=UTC),
        datetime(2020, 3, 1, 2, tzinfo=UTC),
    ]


STARTS = {
    "new_messages": "micro_batch",
    "invoice_files": "invoices_job",
    "answer_files": "chatbot_answers_job",
    "imported_invoices": "invoice_averages_job",
    "imported_answers": "chatbot_reports_job",
    "late_messages": "daily_billing_job",
    "failures": None,
    "bills": "daily_billing_job",
    "monthly_averages": "invoice_averages_job",
    "checks": "all_checks",
    "compaction": "hourly_maintenance",
    "maintenance": "daily_maintenance",
}


def test_what_starts_what_is_as_agreed_and_on_from_the_start(daemon: Daemon) -> None:
    sensors, schedules = daemon.repository.sensor_defs, daemon.repository.schedule_defs
    jobs = {sensor.name: sensor.job.name if sensor.has_jobs else None for sensor in sensors}
    assert jobs | {schedule.name: schedule.job_name for schedule in schedules} == STARTS
    assert {sensor.default_status for sensor in sensors} == {dg.DefaultSensorStatus.RUNNING}
    assert {schedule.default_status for schedule in schedules} == {dg.DefaultScheduleStatus.RUNNING}
    by_hand = set(daemon.repository.job_names) - set(STARTS.values()) - {"__ASSET_JOB"}
    assert by_hand == {"prices_job"}
