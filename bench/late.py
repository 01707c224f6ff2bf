"""`python -m bench.late`: one batch whose late rows touch 1,000 hours of a full lake, and `maintain` after it.

Belongs here: a lake with a history, written directly and not message by message, one batch on top of it, and what each
step of that batch cost. Doesn't: ingestion at full speed (__main__.py).

The history is one hour of traffic, repeated in every hour: its messages in silver, their minutes in gold (counted by
the production SQL), a ledger that says so, and a bronze that was archived. Everything is measured in a process of its
own, so that its peak memory is its own.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bench.panel import Topic
from notif_assets.lake import SCHEMAS, Lake
from notif_assets.lake.staging import stage
from notif_assets.maintenance.fingerprint import fingerprint_of
from notif_assets.maintenance.maintain import maintain
from notif_assets.notifications import audit, bronze, gold, silver
from notif_assets.sandbox.traffic import CHANNELS
from notif_assets.settings import Settings

T = TypeVar("T")
_HOUR = timedelta(hours=1)
_INSTANT = pa.timestamp("us", "UTC")
_CHANNEL_WEIGHTS = (0.80, 0.09, 0.06, 0.03, 0.02)


def _messages(chance: np.random.Generator, number: int, customers: int) -> pa.Table:
    """Messages of one hour since 1970, in the order of a compacted file; customers follow Zipf's law."""
    weights = 1 / np.arange(1, customers + 1) ** 1.1
    ids = np.random.default_rng(0).permutation(np.arange(1, customers + 1)) * 1_009
    customer = np.sort(chance.choice(ids, number, p=weights / weights.sum()))
    channel = chance.choice(len(CHANNELS), number, p=_CHANNEL_WEIGHTS)
    return pa.table(
        {
            "customer_id": customer,
            "message_id": pa.array([f"{n:010X}" for n in chance.integers(0, 2**40, number)]),
            "customer_name": pc.binary_join_element_wise("Cliente", pc.cast(pa.array(customer), pa.string()), " "),
            "channel": pa.array(CHANNELS).take(pa.array(channel)),
            "payload": pa.repeat("Sua fatura já está disponível. Vencimento em 3 dias úteis.", number),
            "event_datetime": pa.array(chance.integers(0, 3_600_000, number) * 1_000).cast(_INSTANT),
        }
    )


def _shifted(rows: pa.Table, columns: tuple[str, ...], start: datetime) -> pa.Table:
    by = pa.scalar(int(start.timestamp()) * 1_000_000)
    for name in columns:
        moved = pc.add(pc.cast(rows[name], pa.int64()), by).cast(_INSTANT)
        rows = rows.set_column(rows.schema.get_field_index(name), name, moved)
    return rows


def build(settings: Settings, now: datetime, hours: int, messages: int, customers: int) -> None:
    """A lake whose last `hours` full hours hold `messages` each; whoever looks finds batch 1 everywhere."""
    chance = np.random.default_rng(1)
    number = pa.scalar(1, pa.int64())
    silver_hour = _messages(chance, messages, customers)
    silver_hour = silver_hour.append_column("batch", pa.repeat(number, messages))
    silver_hour = silver_hour.append_column("topic", pa.repeat(settings.topic, messages))
    silver_hour = silver_hour.append_column("kafka_partition", pa.repeat(pa.scalar(0, pa.int32()), messages))
    last = now.replace(minute=0, second=0, microsecond=0)
    with Lake(settings.lake, memory=settings.engine_memory) as lake:
        lake.claim(topic=settings.topic, timezone=settings.timezone)
        touched = lake.select("touched_minutes", {"added": silver_hour, "removed": silver_hour.slice(0, 0)})
        gold_hour = lake.select("minute_aggregates", {"notifications": silver_hour, "touched": touched})
        gold_hour = gold_hour.sort_by([(name, "ascending") for name in SCHEMAS["minute_aggregates"].sort])
        print(f"{hours} hours of {messages:,} messages and {gold_hour.num_rows:,} minutes each", flush=True)
        tables = {name: lake.table(name) for name in ("notifications", "minute_aggregates")}
        staged: dict[str, list] = {name: [] for name in tables}  # type: ignore[type-arg]
        for back in range(hours, 0, -1):
            start = last - back * _HOUR
            place = (start.date(), start.hour)
            first = (hours - back) * messages
            rows = _shifted(silver_hour, ("event_datetime",), start)
            rows = rows.append_column("kafka_offset", pa.array(np.arange(first, first + messages)))
            for column in ("kafka_timestamp", "ingested_at"):
                rows = rows.append_column(column, rows["event_datetime"])
            written = {"notifications": rows, "minute_aggregates": gold_hour}
            written["minute_aggregates"] = _shifted(gold_hour, ("minute", "first_event", "last_event"), start)
            for name, table in tables.items():
                staged[name] += stage(table, place, written[name].to_batches(), table.schema.file_rows)
        ledger = {
            "batch": 1,
            "kind": "kafka",
            "topic": settings.topic,
            "kafka_partition": 0,
            "log_start_offset": 0,
            "start_offset": 0,
            "end_offset": hours * messages,
            "log_end_offset": hours * messages,
            "planned_at": now,
            "run_id": "bench",
        }
        lake.table("ingest_batches").append(pa.Table.from_pylist([ledger], schema=SCHEMAS["ingest_batches"].arrow), 1)
        for name in ("raw_notifications", "rejected_notifications"):
            lake.table(name).append(SCHEMAS[name].arrow.empty_table(), 1)
        for name, table in tables.items():
            table.swap([], staged[name], 1)
        gold.advance_panel(lake, settings)


def late_batch(now: datetime, hours: int, number: int, late: int, customers: int) -> list[tuple[bytes | None, int]]:
    """`number` messages of now, of which `late` are dealt to the last `hours` full hours."""
    chance = np.random.default_rng(2)
    rows = _messages(chance, number, customers)
    rows = rows.take(pa.array(chance.permutation(number)))
    produced = int(now.timestamp() * 1000)
    last = now.replace(minute=0, second=0, microsecond=0)
    found: list[tuple[bytes | None, int]] = []
    for n, row in enumerate(rows.to_pylist()):
        event = now - timedelta(milliseconds=n % 5_000)
        if n < late:
            event = last - (n % hours + 1) * _HOUR + (row["event_datetime"] - datetime(1970, 1, 1, tzinfo=UTC))
        value = (
            f'{{"customer_id": {row["customer_id"]}, "message_id": "{row["message_id"]}+", "customer_name": '
            f'"{row["customer_name"]}", "channel": "{row["channel"]}", "payload": "Olá", '
            f'"event_datetime": "{event.isoformat(timespec="milliseconds")}"}}'
        )
        found.append((value.encode(), produced))
    return found


def _timed(what: str, step: Callable[[], T]) -> T:
    wall, cpu = time.perf_counter(), time.process_time()
    result = step()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what:<42}{wall:>8.1f} s{cpu:>8.1f} CPU-s   peak memory so far {peak:>6.0f} MB", flush=True)
    return result


def _take(settings: Settings, now: datetime, asked: argparse.Namespace) -> None:
    topic = Topic(0)
    with Lake(settings.lake, memory=settings.engine_memory) as lake:
        topic.end = asked.hours * asked.messages
        topic.append(late_batch(now, asked.hours, settings.batch_messages, asked.late, asked.customers))
        began = time.perf_counter()
        _timed("raw_notifications", lambda: bronze.advance_bronze_by_one(lake, topic, settings, "bench"))  # type: ignore[arg-type]
        _timed("notifications + rejected_notifications", lambda: list(silver.advance_silver(lake, settings)))
        minutes = _timed("minute_aggregates", lambda: gold.advance_minutes(lake))
        _timed("customer_panel", lambda: gold.advance_panel(lake, settings))
        print(
            f"{'the batch':<42}{time.perf_counter() - began:>8.1f} s; {minutes and minutes.rows:,} minutes", flush=True
        )


def _maintain(settings: Settings, now: datetime) -> None:
    with Lake(settings.lake, memory=settings.engine_memory) as lake:
        names = ("notifications", "minute_aggregates")
        before = {name: fingerprint_of(lake, lake.table(name).scan()) for name in names}
        _files(lake, "before maintain")
        _timed("maintain", lambda: maintain(lake, settings, now + timedelta(days=2)))
        _files(lake, "after maintain")
        same = all(fingerprint_of(lake, lake.table(name).scan()) == before[name] for name in names)
        print("the same rows" if same else "OTHER ROWS", flush=True)
        differing = audit.minutes_that_differ(lake)
        print("minutes = messages in every hour" if not differing else f"{len(differing)} hours DIFFER", flush=True)


def _files(lake: Lake, when: str) -> None:
    for name in ("notifications", "minute_aggregates"):
        files = lake.table(name).data_files()
        size = sum(file.size for file in files) / 2**20
        print(f"{when:<18}{name:<24}{len(files):>8,} files {size:>10,.1f} MiB {sum(f.rows for f in files):>14,} rows")


def main() -> None:
    """Builds, takes the batch, maintains: each in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m bench.late", description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--hours", type=int, default=1_000)
    parser.add_argument("--messages", type=int, default=150_000, help="in each hour of the history")
    parser.add_argument("--late", type=int, default=20_000, help="late messages among the 131,072 of the batch")
    parser.add_argument("--customers", type=int, default=5_000)
    parser.add_argument("--lake", type=Path, help="keep the lake here, and use it if it is there")
    parser.add_argument("--step", choices=("build", "take", "maintain"), help=argparse.SUPPRESS)
    parser.add_argument("--now", type=datetime.fromisoformat, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    now = asked.now or datetime.now(UTC).replace(minute=30, second=0, microsecond=0)
    if asked.step:
        settings = Settings(data=asked.lake)
        if asked.step == "build":
            build(settings, now, asked.hours, asked.messages, asked.customers)
        elif asked.step == "take":
            _take(settings, now, asked)
        else:
            _maintain(settings, now)
        return
    with tempfile.TemporaryDirectory(prefix="notif-assets-late-") as folder:
        place = asked.lake or Path(folder)
        again = [sys.executable, "-m", "bench.late", *sys.argv[1:], "--lake", str(place), "--now", now.isoformat()]
        for step in ("build", "take", "maintain"):
            if step != "build" or not (place / "lake").exists():
                subprocess.run([*again, "--step", step], check=True, env=os.environ)


if __name__ == "__main__":
    main()
