"""`python -m bench.years [--days N N …] [--messages N]`: what a batch, an hourly look and a nightly close cost as the
years go by.

Belongs here: lakes whose ledger, logs and closed days have the size of so many days of 100 million messages, and then
two days of `--messages`, which are really there (day.py). Each takes some batches of 12 seconds with the checks of a
run, is looked at as every hour, and closes the newer of the two days. Doesn't: Kafka and Dagster, whose cost does not
depend on the past.

The logs name data files that are not there: of old days none may be read, and one that is read ends the benchmark. A
run is a process of its own, so each batch opens the lake anew. The last line is what a batch costs at the greatest age
over what it costs at the least.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import islice, repeat
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa

from bench.day import fill
from bench.hour import PARTITIONS, RATE, SECONDS, Growing, take
from notif_assets.billing import audit
from notif_assets.billing.adjustments import days_with_adjustments_due, unpriced_late_messages
from notif_assets.billing.closed_days import open_days_that_should_be_closed
from notif_assets.billing.closing import close_day
from notif_assets.billing.prices import ensure_prices
from notif_assets.lake import SCHEMAS, Lake
from notif_assets.lake.staging import stage
from notif_assets.lake.tables import DataFile
from notif_assets.maintenance.compaction import LATE
from notif_assets.notifications import audit as messages_audit
from notif_assets.notifications.deduplication import deduplicate
from notif_assets.sandbox.traffic import messages
from notif_assets.settings import Settings

_AGES = (1, 30, 365, 1095)
_BATCHES_A_DAY = 7_200
_WARM, _MEASURED = 3, 5
_ROWS_A_FILE = 1_000_000
_COMMIT_FILES = 20_000
_NOBODY = 10**12  # a customer that the traffic does not have
_FILES_A_DAY = {"raw_notifications": 31, "rejected_notifications": 2}
_FILES_AN_HOUR = {"notifications": 5, "minute_aggregates": 5}
"""As compaction leaves them; one after LATE."""


def main() -> None:
    """Builds a lake of each age, takes batches on top of it, and prints what they and an hourly look cost."""
    parser = argparse.ArgumentParser(prog="python -m bench.years", description=__doc__)
    parser.add_argument("--days", type=int, nargs="+", default=_AGES)
    parser.add_argument(
        "--messages", type=int, default=200_000, help="of the day that is closed (default: %(default)s)"
    )
    arguments = parser.parse_args()
    ages = arguments.days
    # Each in a process of its own: what one leaves in memory makes the next one dearer.
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        costs = dict(zip(ages, pool.map(_measured, ages, repeat(arguments.messages)), strict=True))
    print(f"ratio {costs[max(costs)] / costs[min(costs)]:.2f}")


def _measured(days: int, messages: int) -> float:
    with tempfile.TemporaryDirectory(prefix="notif-assets-bench-") as folder:
        return _measured_in(Path(folder), days, messages)


def _measured_in(folder: Path, days: int, of_a_day: int) -> float:
    settings = Settings(data=folder, grace=timedelta(0))
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    began = time.monotonic()
    with Lake(settings.lake) as lake:
        files, taken = _build(lake, settings, days, of_a_day, now)
    built = time.monotonic() - began
    # Events happen up to 50 ms before: none in the hour before, of which files are missing.
    traffic, topic = messages(0, 5_000, now + timedelta(seconds=1), RATE, late=0), Growing(taken)
    spent = []
    for _ in range(_WARM + _MEASURED):
        topic.grow(traffic)
        with Lake(settings.lake) as lake:
            before = time.process_time()
            take(lake, topic, settings, now)
            spent.append(time.process_time() - before)
    with Lake(settings.lake) as lake:
        before = time.process_time()
        counted = _look(lake, settings, now)
        hourly = time.process_time() - before
    yesterday = now.date() - timedelta(days=1)
    with Lake(settings.lake) as lake:
        before = time.process_time()
        deduplicate(lake, topic, settings, yesterday, "bench")
        closed = close_day(lake, settings, yesterday, "bench")
        nightly = time.process_time() - before
        before = time.process_time()
        assert not audit.closed_days_that_differ(lake, settings, {yesterday})
        recount = time.process_time() - before
    cost = median(spent[-_MEASURED:])
    print(
        f"day {days:>5}: {cost:.2f} CPU-s a batch; an hourly look {hourly:.2f} and {counted} closed days to count; "
        f"a nightly close {nightly:.2f}, counting that day again {recount:.2f} ({closed.notifications} messages); "
        f"{files} files, built in {built:.0f} s",
        flush=True,
    )
    return cost


def _look(lake: Lake, settings: Settings, now: datetime) -> int:
    """What the hourly checks ask of all there is; gives how many closed days they would count."""
    assert messages_audit.unaccepted_losses(lake) == []
    open_days_that_should_be_closed(lake, settings)
    hour, batch = audit.epoch_hour(now), lake.table("minute_aggregates").watermark
    unpriced_late_messages(lake, settings, batch - _BATCHES_A_DAY // 24)
    assert not messages_audit.panel_differences(lake, settings)
    messages_audit.much_rejected(lake, settings, now - timedelta(days=1), datetime.now(UTC), "of the last day")
    days_with_adjustments_due(lake, settings, batch - 1)
    before = audit.AuditState(hour - 1)
    return len(audit.days_to_count(*audit.closed_and_corrected(lake, before), before, hour))


def _build(lake: Lake, settings: Settings, days: int, messages: int, now: datetime) -> tuple[int, int]:
    """A past of so many days, and two days before today of so many messages each; gives how many data files the logs
    name, and the offset up to which each partition is taken."""
    lake.claim(topic="notifications", timezone="UTC")
    past = [now.date() - timedelta(days=age + 2) for age in range(days, 0, -1)]
    last = days * _BATCHES_A_DAY
    _plan(lake, past[0], last)
    for name in (*_FILES_AN_HOUR, *_FILES_A_DAY):
        files = _files_of(name, past, now)
        while some := list(islice(files, _COMMIT_FILES)):
            lake.table(name).swap([], some, same_rows=True)
        lake.table(name).swap([], [], last)
        lake.table(name).clean_log()
    lake.table("customer_panel").append(SCHEMAS["customer_panel"].arrow.empty_table(), last)
    newest, taken = fill(lake, settings, now, messages, last)
    _close(lake, [*past, now.date() - timedelta(days=2)], newest)
    return sum(lake.table(name).files().num_rows for name in SCHEMAS), taken


def _plan(lake: Lake, first: date, last: int) -> None:
    """A ledger up to batch `last`: nothing taken yet, so that no record of it need be there."""
    ledger = lake.table("ingest_batches")
    start = datetime(first.year, first.month, first.day, tzinfo=UTC)
    staged: list[DataFile] = []
    step = _ROWS_A_FILE // PARTITIONS
    for begin in range(1, last + 1, step):
        numbers = np.arange(begin, min(begin + step, last + 1))
        rows = len(numbers) * PARTITIONS
        batches = np.repeat(numbers, PARTITIONS)
        through, closes = batches // _BATCHES_A_DAY - 1, batches % _BATCHES_A_DAY == 0
        dedup = pa.array((first - date(1970, 1, 1)).days + through, pa.int32(), mask=~closes).cast(pa.date32())
        planned = int(start.timestamp() * 1_000_000) + numbers * SECONDS * 1_000_000
        columns = {
            "batch": pa.array(batches),
            "kind": pa.array(np.where(closes, "dedup", "kafka").tolist()),
            "topic": pa.repeat("notifications", rows),
            "topic_id": pa.repeat("an id", rows),
            "kafka_partition": pa.array(np.tile(np.arange(PARTITIONS, dtype=np.int32), len(numbers))),
            "planned_at": pa.array(np.repeat(planned, PARTITIONS)).cast(pa.timestamp("us", "UTC")),
            "run_id": pa.repeat("a run's id, which has as many letters", rows),
            "dedup_through": dedup,
            "taken_offset": pa.array(np.full(rows, -1)),
        }
        zeros = pa.array(np.zeros(rows, np.int64))
        schema = ledger.schema.arrow
        table = pa.table(
            [
                columns.get(field.name, zeros if not field.nullable else pa.nulls(rows, field.type)).cast(field.type)
                for field in schema
            ],
            schema=schema,
        )
        staged += stage(ledger, (), table.to_batches(), _ROWS_A_FILE)
    ledger.swap([], staged, last)
    ledger.clean_log()


def _files_of(name: str, past: list[date], now: datetime) -> Iterator[DataFile]:
    for day in past:
        if name in _FILES_A_DAY:
            for number in range(_FILES_A_DAY[name]):
                yield _file(name, (day,), number, datetime(day.year, day.month, day.day, tzinfo=UTC))
            continue
        for hour in range(24):
            for number in range(1 if day < (now - LATE).date() else _FILES_AN_HOUR[name]):
                yield _file(name, (day, hour), number, datetime(day.year, day.month, day.day, hour, tzinfo=UTC))


def _file(name: str, partition: tuple[date] | tuple[date, int], number: int, start: datetime) -> DataFile:
    """A file that is not there, of rows that nobody asks for."""
    schema = SCHEMAS[name]
    begins = start.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
    bounds = {
        column: _NOBODY + number if column == "customer_id" else begins if column in ("event_datetime", "minute") else 0
        for column in schema.statistics
        if column != "reason"
    }
    nulls = dict.fromkeys(bounds, 0)
    told = {"numRecords": 800_000, "minValues": bounds, "maxValues": bounds, "nullCount": nulls}
    folder = "".join(f"{column}={value}/" for column, value in zip(schema.partition_by, partition, strict=True))
    path = f"{folder}part-{number:08}-aaaa-bbbb-cccc-dddddddddddd.zstd.parquet"
    return DataFile(path, partition, 800_000, 40_000_000, json.dumps(told))


def _close(lake: Lake, past: list[date], last: int) -> None:
    """The days closed, all long ago, each with a file of its lines."""
    version = ensure_prices(lake)
    row = {"status": "final", "price_version": version, "lines": 1, "notifications": 1, "amount": Decimal("0.04")}
    days = [
        {
            **row,
            "billing_date": day,
            "through_batch": last,
            "closed_at": datetime(2020, 1, 1, tzinfo=UTC),
            "run_id": "r",
        }
        for day in past
    ]
    table = lake.table("billing_days")
    table.append(pa.Table.from_pylist(days, schema=table.schema.arrow))
    billing = lake.table("daily_billing")
    line = replace(_file("daily_billing", (past[0],), 0, datetime(2020, 1, 1, tzinfo=UTC)), rows=10_000)
    lines = [replace(line, path=f"billing_date={day}/{line.path.rpartition('/')[2]}", partition=(day,)) for day in past]
    billing.swap([], lines, 1)


if __name__ == "__main__":
    main()
