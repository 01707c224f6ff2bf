"""What Prometheus is told.

Belongs here: the panel's own counters, and which numbers there are of the lake, of Dagster and of the disk. All of them
are known already when Prometheus asks: the panel keeps them, or its children read them before. Doesn't: anything of a
single customer; which numbers alarm people (deploy/prometheus/alerts.yml).
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from notif_assets.lake import LakeError
from notif_assets.notifications import queries
from notif_assets.panel.dagster_state import State
from notif_assets.panel.measures import Measures
from notif_assets.panel.snapshot import Panel
from notif_assets.serving.copying import CopyState

REQUESTS = Counter("notif_panel_requests", "Requests.", ("method", "route", "status"), registry=None)
SECONDS = Histogram(
    "notif_panel_request_seconds",
    "Time to the end of an answer.",
    ("route",),
    registry=None,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30),
)
EXPORTS = Gauge("notif_panel_exports_in_progress", "Exports that are being sent.", registry=None)
EXPORTED = Counter("notif_panel_exported_bytes", "Bytes of exports.", registry=None)


@dataclass(frozen=True)
class Number:
    """A metric that says how something is now: its name, its meaning, its labels."""

    name: str
    meaning: str
    labels: tuple[str, ...] = ()


_OF_THE_LAKE = (
    Number("notif_lake_readable", "1 if the panel can read the lake, else 0."),
    Number("notif_counted_until_timestamp_seconds", "All messages up to here are counted."),
    Number("notif_batches_planned", "Number of the newest batch that was planned."),
    Number("notif_batches_counted", "Number of the newest batch that is on the panel."),
    Number("notif_kafka_lag", "Offsets that the newest batch left in Kafka, when it was planned."),
    Number("notif_kafka_lag_timestamp_seconds", "When the newest batch was planned."),
    Number("notif_customers", "Known customers."),
    Number("notif_notifications_today", "Messages of the day counted so far."),
    Number("notif_rejected_messages", "Messages rejected since the beginning of yesterday, UTC.", ("reason",)),
    Number("notif_panel_table_version", "Version of customer_panel."),
)
_OF_THE_DISK = (
    Number("notif_disk_bytes", "Size of the disk that the lake is on."),
    Number("notif_disk_free_bytes", "What is free of it."),
)
_OF_MEASURES = (
    Number("notif_measured_timestamp_seconds", "When the four numbers below were measured, every 15 minutes."),
    Number("notif_table_bytes", "Bytes of all files of a table, old ones and its log too.", ("table",)),
    Number("notif_dagster_store_bytes", "Bytes below DAGSTER_STORE."),
    Number("notif_open_days", "Days before today that have messages and are not closed."),
    Number("notif_days_that_may_close", "Those of which everything is counted, past NOTIF_GRACE."),
)
_OF_THE_COPY = (
    Number("notif_copy_readable", "1 if the serving copy can be read, 0 if not; absent without NOTIF_SERVING_URL."),
    Number("notif_copy_read_timestamp_seconds", "When the numbers of the copy were read, every minute."),
    Number("notif_copy_counted_until_timestamp_seconds", "All messages up to here are counted in the serving copy."),
)
_OF_DAGSTER = (
    Number("notif_dagster_readable", "1 if Dagster's storage could be read, 0 if not, or if Dagster never ran."),
    Number("notif_dagster_read_timestamp_seconds", "When the numbers below were read, every minute."),
    Number("notif_dagster_daemon_timestamp_seconds", "Last sign of life of a part of Dagster's daemon.", ("daemon",)),
    Number("notif_runs_unfinished", "Runs that wait or go on.", ("status",)),
    Number(
        "notif_check_failing",
        "1 for each check that fails, with its severity: WARN or ERROR.",
        ("asset", "check", "severity"),
    ),
    Number("notif_job_failing", "1 if the newest run of a job failed, else 0.", ("job",)),
    Number("notif_job_failures", "Runs of a job that failed in the last 24 hours.", ("job",)),
    Number("notif_job_success_timestamp_seconds", "When the newest run of a job that succeeded ended.", ("job",)),
    Number("notif_job_seconds", "What that run took.", ("job",)),
    Number("notif_step_seconds", "What each step of that run took.", ("job", "step")),
)
SUBJECTS = {
    "The lake": _OF_THE_LAKE,
    "The disk": _OF_THE_DISK,
    "Sizes and open days": _OF_MEASURES,
    "The serving copy": _OF_THE_COPY,
    "Dagster": _OF_DAGSTER,
}
NUMBERS = tuple(number for numbers in SUBJECTS.values() for number in numbers)

Sample = tuple[str, tuple[str, ...], float]
"""A number's name, the values of its labels, and its own."""


class _State(Collector):
    def __init__(self, panel: Panel) -> None:
        self._panel = panel

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Asked at every scrape. Each number is there, with its values as far as they are known."""
        families = {one.name: GaugeMetricFamily(one.name, one.meaning, labels=one.labels) for one in NUMBERS}
        for name, labels, value in self._samples():
            families[name].add_metric(labels, value)
        yield from families.values()

    def _samples(self) -> Iterator[Sample]:
        panel = self._panel
        try:
            yield from [*_of_lake(panel), ("notif_lake_readable", (), float(not panel.problem))]
        except LakeError:
            yield "notif_lake_readable", (), 0
        yield from _of_disk(panel.settings.lake)
        if measures := panel.measures.last():
            yield from _of_measures(measures)
        if copy := panel.copy.last():
            yield from _of_copy(copy)
        if dagster := panel.dagster.last():
            yield from _of_dagster(dagster)


def _of_lake(panel: Panel) -> Iterator[Sample]:
    overview, batch = panel.overview, queries.newest_batch(panel.lake)
    if overview.updated_at is not None:
        yield "notif_counted_until_timestamp_seconds", (), overview.updated_at.timestamp()
    yield "notif_batches_counted", (), panel.view.lake.table("customer_panel").watermark
    if batch:
        yield "notif_batches_planned", (), batch.number
        yield "notif_kafka_lag", (), batch.lag
        yield "notif_kafka_lag_timestamp_seconds", (), batch.planned_at.timestamp()
    yield "notif_customers", (), len(overview.customers)
    yield "notif_notifications_today", (), sum(overview.customers.per_channel().values())
    for reason, messages in (panel.rejected.by_reason if panel.rejected else {}).items():
        yield "notif_rejected_messages", (reason,), messages
    yield "notif_panel_table_version", (), overview.version


def _of_disk(lake: Path) -> Iterator[Sample]:
    there = next((folder for folder in (lake, *lake.parents) if folder.exists()), None)
    if there:
        disk = shutil.disk_usage(there)
        yield "notif_disk_bytes", (), disk.total
        yield "notif_disk_free_bytes", (), disk.free


def _of_measures(measures: Measures) -> Iterator[Sample]:
    yield "notif_measured_timestamp_seconds", (), measures.read_at.timestamp()
    for table, size in measures.table_bytes.items():
        yield "notif_table_bytes", (table,), size
    yield "notif_dagster_store_bytes", (), measures.dagster_bytes
    yield "notif_open_days", (), measures.open_days
    yield "notif_days_that_may_close", (), measures.days_that_may_close


def _of_copy(copy: CopyState) -> Iterator[Sample]:
    yield "notif_copy_readable", (), not copy.problem
    yield "notif_copy_read_timestamp_seconds", (), copy.read_at.timestamp()
    if copy.counted_until:
        yield "notif_copy_counted_until_timestamp_seconds", (), copy.counted_until.timestamp()


def _of_dagster(state: State) -> Iterator[Sample]:
    yield "notif_dagster_readable", (), state.reading == "known"
    yield "notif_dagster_read_timestamp_seconds", (), state.read_at.timestamp()
    for part, sign in state.daemons.items():
        yield "notif_dagster_daemon_timestamp_seconds", (part,), sign.timestamp()
    for status, runs in state.unfinished.items():
        yield "notif_runs_unfinished", (status,), runs
    for one in state.failing:
        yield "notif_check_failing", (one.asset, one.check, one.severity), 1
    for job in state.jobs:
        yield "notif_job_failing", (job.name,), job.failing
        yield "notif_job_failures", (job.name,), job.failures
        if job.succeeded_at:
            yield "notif_job_success_timestamp_seconds", (job.name,), job.succeeded_at.timestamp()
        if job.seconds is not None:
            yield "notif_job_seconds", (job.name,), job.seconds
        for step, seconds in job.steps.items():
            yield "notif_step_seconds", (job.name, step), seconds


def exposition(panel: Panel) -> bytes:
    """The text format of Prometheus."""
    registry = CollectorRegistry()
    for metric in (REQUESTS, SECONDS, EXPORTS, EXPORTED, _State(panel)):
        registry.register(metric)
    return generate_latest(registry)
