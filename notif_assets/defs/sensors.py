"""What starts a run because something happened: messages, files, late messages, failures.

Belongs here: looking, and deciding whether to start a run now. Doesn't: what a run does (assets/), what runs by the
clock (schedules.py). Nothing here writes to the lake.

Every tick asks Kafka, the lake and the inbox what is due. A cursor only avoids looking at the same things again, so
losing one costs time and never a message. One that can't be read, or that was made with another lake or
another storage of Dagster (either was restored, or emptied), counts as none. Sensors that would start the same run
again and again back off after failed ones; a file that failed is tried again when it changes.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from hashlib import blake2b
from pathlib import Path

import dagster as dg

from notif_assets.billing.adjustments import days_with_adjustments_due
from notif_assets.billing.closed_days import require_first_day
from notif_assets.defs.assets.inbox import answer_files_by_key, first_few
from notif_assets.defs.jobs import (
    chatbot_answers_job,
    chatbot_reports_job,
    daily_billing_job,
    invoice_averages_job,
    invoices_job,
    jobs_of,
    micro_batch,
    serving_job,
)
from notif_assets.defs.partitions import answer_days, answer_hours, invoice_months, key_ranges
from notif_assets.inbox.listing import InboxFile
from notif_assets.inbox.listing import invoice_files as files_of_invoices
from notif_assets.instance.alerts import failing_checks, failing_jobs, reason_of_failure
from notif_assets.instance.location import store
from notif_assets.instance.messengers import send_alerts
from notif_assets.instance.private import FINISHED_STATUSES, IN_PROGRESS_RUN_STATUSES
from notif_assets.instance.processes import fail_orphaned_runs
from notif_assets.instance.run_tags import range_tags
from notif_assets.invoices.averages import months_affected
from notif_assets.kafka.client import KafkaError, OpenClient
from notif_assets.lake import Lake, LakeError
from notif_assets.notifications.ledger import QUIET, Backlog, backlog
from notif_assets.serving.copying import tables_behind
from notif_assets.serving.postgres import ServingRefused, ServingUnavailable
from notif_assets.settings import Settings

_RUNNING = dg.DefaultSensorStatus.RUNNING
_LONGEST_WAIT = 15  # times NOTIF_RETRY_AFTER
_UNFINISHED = [dg.DagsterRunStatus.QUEUED, *IN_PROGRESS_RUN_STATUSES]
_SKIPPED_KEY = ""  # the cursor's key for the files that were reported
_MOST_RUNS = 50  # of one tick; what is left comes with the next
_MOST_DAYS = 31  # of late messages, in one tick
_SPAN = timedelta(days=62)  # they are one run, which tells Dagster of each day between its first and its last
_MOST_EVENTS = 10_000  # a year of hours in one tick


# --- whether to start a run now -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RecentRuns:
    """What Dagster knows of a job's newest runs: one queued or in progress (its id), how many failed in a row since the
    last that did not, when the last of them ended, and why."""

    in_progress: str | None = None
    failures: int = 0
    failed_at: datetime | None = None
    reason: str = ""


def recent_runs(instance: dg.DagsterInstance, job: str) -> RecentRuns:
    """The newest runs of a job, as the instance has them now; runs of dead processes are ended first."""
    unfinished = instance.get_runs(dg.RunsFilter(job_name=job, statuses=_UNFINISHED), limit=1)
    if unfinished and "DAGSTER_STORE" in os.environ and fail_orphaned_runs(instance, store()):
        return recent_runs(instance, job)
    failures = []
    for record in instance.get_run_records(dg.RunsFilter(job_name=job, statuses=FINISHED_STATUSES), limit=6):
        if record.dagster_run.status != dg.DagsterRunStatus.FAILURE:
            break
        failures.append(record)
    return RecentRuns(
        in_progress=unfinished[0].run_id if unfinished else None,
        failures=len(failures),
        failed_at=datetime.fromtimestamp(failures[0].end_time or 0, UTC) if failures else None,
        reason=reason_of_failure(instance, failures[0].dagster_run.run_id) if failures else "",
    )


def backoff_time(failures: int, retry_after: timedelta) -> timedelta:
    """How long a job rests after so many failed runs in a row: NOTIF_RETRY_AFTER, twice, 4, 8, then always 15 times it.

    >>> [backoff_time(n, timedelta(minutes=1)) // timedelta(minutes=1) for n in (1, 2, 3, 4, 5, 6)]
    [1, 2, 4, 8, 15, 15]
    """
    times: int = min(2 ** (failures - 1), _LONGEST_WAIT)
    return times * retry_after


def backoff_reason(recent: RecentRuns, now: datetime, retry_after: timedelta) -> str | None:
    """Why the job must not be started now, as a sentence for people; None if it may."""
    if recent.in_progress:
        return f"run {recent.in_progress[:8]} is in progress"
    if recent.failures and recent.failed_at is not None:
        until = recent.failed_at + backoff_time(recent.failures, retry_after)
        if recent.failed_at <= now < until:  # a failure yet to come: the clock was put back
            runs = "1 run" if recent.failures == 1 else f"{recent.failures} runs in a row"
            return f"{runs} failed ({recent.reason}); the next starts at {until:%H:%M:%S} UTC, or by hand"
    return None


def _why_not_read(
    instance: dg.DagsterInstance,
    job: str,
    lake: Lake,
    settings: Settings,
    now: datetime,
    *,
    cause_is_over: bool = False,
) -> str | None:
    """As backoff_reason, of a job that reads the lake: nor is it started before there is one.

    With `cause_is_over` it does not rest for the runs that failed.
    """
    recent = recent_runs(instance, job)
    wait = backoff_reason(replace(recent, failures=0) if cause_is_over else recent, now, settings.retry_after)
    return wait or (None if lake.exists() else "nothing was ingested yet")


def idle_reason(waiting: Backlog, settings: Settings) -> str | None:
    """Why no micro-batch is worth a run now; None if one is.

    A run costs seconds of CPU whatever it finds, so while it keeps up it starts once in NOTIF_RUN_EVERY; at once when
    a whole batch is waiting or a run before it was cut short; and after a quiet minute, to say that nothing came.
    """
    if (
        waiting.since_plan is None
        or waiting.unfinished
        or waiting.contradicts
        or waiting.lag >= settings.batch_messages
    ):
        return None
    if waiting.lag == 0:
        if waiting.since_plan >= QUIET:
            return None
        return f"no new messages; all that Kafka held {waiting.since_plan.total_seconds():.0f} s ago is counted"
    if timedelta(0) <= waiting.since_plan < settings.run_every:  # less than 0: the clock was put back
        return f"{waiting.lag} new messages; the last run looked {waiting.since_plan.total_seconds():.0f} s ago"
    return None


# --- what was seen --------------------------------------------------------------------------------------------------


def cursor_number(cursor: str | None, mark_of: Callable[[int], str | None]) -> int | None:
    """The number of a cursor `<number> <mark>`, up to which everything was handled; None for any other cursor.

    `mark_of` gives what the batch or event of that number is known by, None if there is none. A cursor of a number
    that is not there, or is something else there, was made with another source. One without a mark is older than marks.
    """
    number, _, mark = (cursor or "").partition(" ")
    if not (number.isdecimal() and number.isascii() and len(number) < 19):
        return None
    current_mark = mark_of(int(number))
    return int(number) if current_mark is not None and mark in ("", current_mark) else None


def cursor_versions(cursor: str | None) -> dict[str, str]:
    """The texts of a cursor that is a JSON object; empty for any other cursor."""
    try:
        reported = json.loads(cursor or "{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(reported, dict):
        return {}
    return {name: version for name, version in reported.items() if isinstance(version, str)}


# --- the topic --------------------------------------------------------------------------------------------------------


@dg.sensor(
    job=micro_batch,
    minimum_interval_seconds=10,
    default_status=_RUNNING,
    description="Starts a micro-batch when Kafka holds messages that no batch took, one run at a time.",
)
def new_messages(
    context: dg.SensorEvaluationContext,
    lake: dg.ResourceParam[Lake],
    settings: dg.ResourceParam[Settings],
    impatient_kafka: dg.ResourceParam[OpenClient],
) -> dg.SensorResult:
    wait = backoff_reason(recent_runs(context.instance, micro_batch.name), datetime.now(UTC), settings.retry_after)
    if wait:
        return dg.SensorResult(skip_reason=wait)
    try:
        with impatient_kafka() as client:
            waiting = backlog(lake, client)
    except (KafkaError, LakeError) as error:
        return dg.SensorResult(skip_reason=str(error))
    wait = idle_reason(waiting, settings)
    if wait:
        return dg.SensorResult(skip_reason=wait)
    return dg.SensorResult([dg.RunRequest(tags={"notif_assets/lag": str(waiting.lag)})])


# --- files ------------------------------------------------------------------------------------------------------------


@dg.sensor(
    job=invoices_job,
    minimum_interval_seconds=15,
    default_status=_RUNNING,
    description="Imports every new or changed file of the inbox's invoices, once.",
)
def invoice_files(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.SensorResult:
    folder = settings.inbox / "invoices"
    found, skipped = files_of_invoices(folder, time.time(), settings.max_file_bytes)
    known = cursor_versions(context.cursor)
    new = [file for file in found if known.get(file.path.name) != file.version]
    reported = _log_skipped_files(context, skipped, known)
    if not new:
        return dg.SensorResult(skip_reason=_nothing_new_reason(folder, skipped), cursor=json.dumps(known | reported))
    return dg.SensorResult(
        # A run for each, oldest first: a file that is refused must not keep another one out.
        [
            dg.RunRequest(
                run_key=_key([file]), run_config={"ops": {"invoices": {"config": {"files": [str(file.path)]}}}}
            )
            for file in new
        ],
        cursor=json.dumps({file.path.name: file.version for file in found} | reported),
    )


@dg.sensor(
    job=chatbot_answers_job,
    minimum_interval_seconds=15,
    default_status=_RUNNING,
    description="Imports the hours of every day of chatbot/date=YYYY-MM-DD/hour=HH.json whose files changed, once.",
)
def answer_files(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.SensorResult:
    folder = settings.inbox / "chatbot"
    found, skipped = answer_files_by_key(settings, time.time())
    days: dict[str, dict[str, InboxFile]] = {}
    for key, file in found.items():
        days.setdefault(key[:10], {})[key] = file
    known = cursor_versions(context.cursor)  # by day: a year of hours must stay a small cursor
    versions = {day: _key(files.values()) for day, files in days.items()}
    new = {key: day for day in days if known.get(day) != versions[day] for key in days[day]}
    reported = _log_skipped_files(context, skipped, known)
    if not new:
        return dg.SensorResult(skip_reason=_nothing_new_reason(folder, skipped), cursor=json.dumps(known | reported))
    ranges = key_ranges(answer_hours, new)[:_MOST_RUNS]
    taken = {key for keys in ranges for key in new if keys.start <= key <= keys.end}
    done = {day: versions[day] for day in set(new.values()) if taken.issuperset(days[day])}
    return dg.SensorResult(
        [
            dg.RunRequest(
                run_key=_key(days[new[key]][key] for key in sorted(new) if keys.start <= key <= keys.end),
                tags=range_tags(keys),
            )
            for keys in ranges
        ],
        cursor=json.dumps({day: known[day] for day in known if day in days} | done | reported),
    )


def _log_skipped_files(
    context: dg.SensorEvaluationContext, skipped: list[str], known: dict[str, str]
) -> dict[str, str]:
    """Logs skipped files once. Returns what the cursor keeps of them, under a key that is no file name."""
    if not skipped:
        known.pop(_SKIPPED_KEY, None)
        return {}
    digest = blake2b("\n".join(skipped).encode(), digest_size=12).hexdigest()
    if known.get(_SKIPPED_KEY) != digest:
        context.log.warning(f"not taken: {first_few(skipped)}")
    return {_SKIPPED_KEY: digest}


def _nothing_new_reason(folder: Path, skipped: list[str]) -> str:
    return f"nothing new in {folder}" + (f"; not taken: {first_few(skipped)}" if skipped else "")


def _key(files: Iterable[InboxFile]) -> str:
    """A run key for some files: unchanged files give the same key, a changed file another one."""
    digest = blake2b(digest_size=12)
    for file in files:
        digest.update(os.fsencode(file.path) + f"\0{file.version}\0".encode())
    return digest.hexdigest()


@dg.sensor(
    job=invoice_averages_job,
    minimum_interval_seconds=15,
    default_status=_RUNNING,
    description="Computes the averages of every month that newly imported invoices change.",
)
def imported_invoices(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    months: set[date] = set()
    for event in (events := _Events(context, "invoices")):
        for name in ("imported_months", "months_in_part"):
            imported = event.metadata.get(name)
            if isinstance(imported, dg.JsonMetadataValue) and isinstance(imported.value, list):
                months.update(date.fromisoformat(str(month)) for month in imported.value)
    ranges = key_ranges(invoice_months, map(str, months_affected(months)))
    return _runs_of(ranges, events.cursor, "no invoice was imported since")


@dg.sensor(
    job=chatbot_reports_job,
    minimum_interval_seconds=15,
    default_status=_RUNNING,
    description="Computes the report of every day of which answers were imported.",
)
def imported_answers(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    events = _Events(context, "chatbot_answers")
    days = {event.partition[:10] for event in events if event.partition}
    return _runs_of(key_ranges(answer_days, days), events.cursor, "no answers were imported since")


class _Events:
    """The materializations of an asset since the sensor's cursor, and the cursor after them."""

    def __init__(self, context: dg.SensorEvaluationContext, asset: str) -> None:
        self._context, self._asset = context, dg.AssetKey(asset)
        self._records = self._fetch(cursor_number(context.cursor, self._mark_of), limit=_MOST_EVENTS)
        self.cursor = context.cursor
        if self._records:
            self.cursor = f"{self._records[-1].storage_id} {self._records[-1].timestamp}"

    def _fetch(self, after: int | None, limit: int, before: int | None = None) -> Sequence[dg.EventLogRecord]:
        wanted = dg.AssetRecordsFilter(self._asset, after_storage_id=after, before_storage_id=before)
        return self._context.instance.fetch_materializations(wanted, limit=limit, ascending=True).records

    def _mark_of(self, storage_id: int) -> str | None:
        """When the asset's event of that number was; None if the number is of no event of it."""
        return next((str(event.timestamp) for event in self._fetch(storage_id - 1, 1, storage_id + 1)), None)

    def __iter__(self) -> Iterator[dg.AssetMaterialization]:
        for record in self._records:
            if record.asset_materialization is not None:
                yield record.asset_materialization


def _runs_of(ranges: list[dg.PartitionKeyRange], cursor: str | None, nothing: str) -> dg.SensorResult:
    if not ranges:
        return dg.SensorResult(skip_reason=nothing, cursor=cursor)
    return dg.SensorResult([dg.RunRequest(tags=range_tags(keys)) for keys in ranges], cursor=cursor)


# --- late messages ----------------------------------------------------------------------------------------------------


@dg.sensor(
    job=daily_billing_job,
    minimum_interval_seconds=60,
    default_status=_RUNNING,
    description="Writes the adjustments of closed days for which messages came late.",
)
def late_messages(
    context: dg.SensorEvaluationContext, lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]
) -> dg.SensorResult:
    now = datetime.now(UTC)
    if wait := _why_not_read(context.instance, daily_billing_job.name, lake, settings, now):
        return dg.SensorResult(skip_reason=wait)
    corrected = _corrected_at(context)
    if corrected and now < corrected + settings.adjust_every:
        next_time = f"{corrected + settings.adjust_every:%H:%M:%S}"
        return dg.SensorResult(skip_reason=f"closed days were corrected lately; again after {next_time} UTC")
    try:
        require_first_day(lake, settings)
        after = cursor_number(context.cursor, lambda batch: _planned_at(lake, batch)) or 0
        due, through = days_with_adjustments_due(lake, settings, after)
        mark = _planned_at(lake, through) or ""
    except LakeError as error:
        return dg.SensorResult(skip_reason=str(error))
    if not due:
        cursor = f"{through} {mark}"
        return dg.SensorResult(skip_reason=f"no closed day changed up to batch {through}", cursor=cursor)
    days = [day for day in due[:_MOST_DAYS] if day < due[0] + _SPAN]
    keys = dg.PartitionKeyRange(str(days[0]), str(days[-1]))
    only = {"ops": {"daily_billing": {"config": {"days": [str(day) for day in days]}}}}
    # The cursor stays: only a committed adjustment counts as done.
    return dg.SensorResult([dg.RunRequest(tags=range_tags(keys), run_config=only)], cursor=context.cursor)


def _corrected_at(context: dg.SensorEvaluationContext) -> datetime | None:
    """When the newest run of this sensor began.

    Not when it was asked for, which a PostgreSQL tells in its own time zone and Dagster takes for UTC.
    """
    own_runs = dg.RunsFilter(job_name=daily_billing_job.name, tags={"dagster/sensor_name": context.sensor_name})
    newest = context.instance.get_run_records(own_runs, limit=1)
    began = newest[0].start_time or newest[0].end_time if newest else None  # one that never began was cancelled
    return datetime.fromtimestamp(began, UTC) if began else None


def _planned_at(lake: Lake, batch: int) -> str | None:
    """When a batch was planned that minute_aggregates has taken; None if there is none of that number."""
    if not 0 < batch <= lake.table("minute_aggregates").watermark:
        return None
    rows = lake.rows(lake.table("ingest_batches").scan(batch=(batch, batch + 1)))
    return f"{rows['planned_at'][0].as_py():%Y-%m-%dT%H:%M:%S.%f}" if rows.num_rows else None


# --- the serving copy -------------------------------------------------------------------------------------------------


# A tick that gives no cursor, or an empty one, keeps the last.
_AWAY, _ANSWERED = "PostgreSQL was away", "PostgreSQL answered"


@dg.sensor(
    job=serving_job,
    minimum_interval_seconds=10,
    default_status=_RUNNING,
    description="Brings the serving copy in PostgreSQL further when the lake has gone on, one run at a time.",
)
def serving_copy(
    context: dg.SensorEvaluationContext, lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]
) -> dg.SensorResult:
    was_away = context.cursor == _AWAY  # then this tick, and no failing run, asks whether it is back
    now = datetime.now(UTC)
    if wait := _why_not_read(context.instance, serving_job.name, lake, settings, now, cause_is_over=was_away):
        return dg.SensorResult(skip_reason=wait)
    try:
        behind = tables_behind(lake, settings)
    except LakeError as error:
        return dg.SensorResult(skip_reason=str(error))
    except ServingUnavailable as problem:
        if was_away:
            return dg.SensorResult(skip_reason=str(problem))
        return dg.SensorResult([dg.RunRequest()], cursor=_AWAY)  # it fails, which is told
    except ServingRefused:  # the run makes the copy, or fails: that is told, and backed off from
        return dg.SensorResult([dg.RunRequest()], cursor=_ANSWERED)
    if not behind and not was_away:
        return dg.SensorResult(skip_reason="the copy is where the lake is")
    return dg.SensorResult([dg.RunRequest()], cursor=_ANSWERED)


# --- what went wrong --------------------------------------------------------------------------------------------------


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=_RUNNING,
    description="Tells the log, NOTIF_WEBHOOK and NOTIF_ALERT_URLS what fails, and when it holds again.",
)
def failures(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.SensorResult:
    assert context.repository_def is not None
    failing = failing_checks(context.instance, context.repository_def.asset_graph.asset_check_keys)
    failing |= failing_jobs(context.instance, (job.name for job in jobs_of(settings)))
    reported = send_alerts(settings, context.cursor, failing)
    for line in reported.lines:
        context.log.warning(line)
    state = f"{len(failing)} fail: {', '.join(sorted(failing))}" if failing else "all checks and jobs hold"
    # An address that did not take the news is told with the next tick.
    return dg.SensorResult(skip_reason="; ".join(reported.problems) or state, cursor=reported.memory)


SENSORS = [
    new_messages,
    invoice_files,
    answer_files,
    imported_invoices,
    imported_answers,
    late_messages,
    failures,
]
SERVING_SENSORS = [serving_copy]
"""That of the serving copy, where there is one."""
