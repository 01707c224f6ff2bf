"""Whole days of messages, made in bulk, for what is done to a day when it is over.

Belongs here: two days in every table from the ledger to the panel, as ingestion and the hourly compaction leave them an
hour after midnight. Doesn't: traffic that is taken batch by batch (hour.py), what is measured (years.py).

Of the messages of each hour 1 % were rejected as duplicates on arrival. Every sixth hour has the last message of the
hour before again, with another time: only the day's deduplication finds it, and writes the file anew that it lies in.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from notif_assets.lake import SCHEMAS, Lake
from notif_assets.lake.staging import append
from notif_assets.maintenance.compaction import compact
from notif_assets.notifications import gold
from notif_assets.settings import Settings

PARTITIONS = 12
CUSTOMERS = 5_000
_HOURS = 24
_AGAIN_EVERY = 6  # hours
_REJECTED = 100  # one of so many
_FILE_ROWS = 200_000  # of what is not compacted yet
_WEYL = 0x9E3779B97F
_IDS = 2**33 - 1


def fill(lake: Lake, settings: Settings, now: datetime, messages: int, before: int) -> tuple[int, int]:
    """The two days before today, of about so many messages each, in batches after `before`; gives the newest batch, and
    the offset up to which each partition is taken.

    The first of them is free of duplicates and nothing is left to be taken at `now`.
    """
    today = datetime(now.year, now.month, now.day, tzinfo=UTC)
    an_hour = PARTITIONS * _REJECTED * max(1, messages // _HOURS // (PARTITIONS * _REJECTED))
    hours = [today + timedelta(hours=number) for number in range(-2 * _HOURS, 0)]
    planned = [_Planned(hour + timedelta(hours=1), an_hour) for hour in hours]
    planned.insert(_HOURS, _Planned(hours[_HOURS], 0, dedup_through=(today - timedelta(days=2)).date()))
    planned.append(_Planned(now, 0))
    batches = list(enumerate(planned, before + 1))
    _plan(lake, batches)
    taken = 0
    for number, batch in batches:
        _take(lake, settings, number, batch, taken)
        taken += batch.records // PARTITIONS
    # An hour after midnight the last two hours are too young to be merged.
    for name in ("notifications", "minute_aggregates"):
        compact(lake, name, today + timedelta(minutes=35))
    return before + len(batches), taken


@dataclass(frozen=True)
class _Planned:
    """A batch of the messages of an hour that ends when it is planned, or of none."""

    at: datetime
    records: int
    dedup_through: date | None = None


def _plan(lake: Lake, batches: list[tuple[int, _Planned]]) -> None:
    rows: list[dict[str, Any]] = []
    start = 0
    for number, batch in batches:
        end = start + batch.records // PARTITIONS
        row = {
            "batch": number,
            "kind": "kafka" if batch.dedup_through is None else "dedup",
            "topic": "notifications",
            "topic_id": "an id",
            "log_start_offset": 0,
            "start_offset": start,
            "end_offset": end,
            "log_end_offset": end,
            "planned_at": batch.at,
            "run_id": "a run's id, which has as many letters",
            "dedup_through": batch.dedup_through,
            "taken_offset": -1,  # as if nothing were: no record need be there
        }
        rows += [{**row, "kafka_partition": partition} for partition in range(PARTITIONS)]
        start = end
    ledger = lake.table("ingest_batches")
    ledger.append(pa.Table.from_pylist(rows, schema=SCHEMAS["ingest_batches"].arrow), batches[-1][0])


def _take(lake: Lake, settings: Settings, number: int, batch: _Planned, first: int) -> None:
    """A batch through all tables; `first` is the offset of its first record in each partition."""
    rows = list(_messages(number, batch.at - timedelta(hours=1), batch.records, first)) if batch.records else []
    rejected = [pc.equal(some["reason"], "duplicate") for some in rows]
    of_tables = {
        "raw_notifications": rows,
        "notifications": [some.filter(pc.invert(mask)) for some, mask in zip(rows, rejected, strict=True)],
        "rejected_notifications": [some.filter(mask) for some, mask in zip(rows, rejected, strict=True)],
    }
    for name, some in of_tables.items():
        append(lake.table(name), [table.select(SCHEMAS[name].arrow.names) for table in some], number)
    gold.advance_minutes(lake)
    gold.advance_panel(lake, settings)


def _messages(batch: int, hour: datetime, rows: int, first: int) -> Iterator[pa.Table]:
    """The hour's records with the columns of every table, in the order of their offsets."""
    customers = _customers(batch, rows)
    numbers = np.arange(rows) + first * PARTITIONS
    if first and hour.hour % _AGAIN_EVERY == 0:
        before = batch - 2 if hour.hour == 0 else batch - 1  # after midnight comes the batch that deduplicates
        numbers[1] = numbers[0] - 1
        customers[1] = _customers(before, rows)[-1]
    start = int(hour.timestamp() * 1_000_000)
    events = start + np.arange(rows) * 3_600 // rows * 1_000_000
    for begin in range(0, rows, _FILE_ROWS):
        part = slice(begin, min(begin + _FILE_ROWS, rows))
        yield _records(batch, hour, customers[part], numbers[part], events[part], first * PARTITIONS + begin)


def _customers(batch: int, rows: int) -> npt.NDArray[np.int64]:
    """Whose the messages of a batch are, by a Zipf distribution."""
    weights = np.cumsum(1 / np.arange(1, CUSTOMERS + 1))
    found: npt.NDArray[np.int64] = 1 + np.searchsorted(weights, np.random.default_rng(batch).random(rows) * weights[-1])
    return found


def _records(
    batch: int,
    hour: datetime,
    customers: npt.NDArray[np.int64],
    numbers: npt.NDArray[np.int64],
    events: npt.NDArray[np.int64],
    at: int,
) -> pa.Table:
    rows = len(customers)
    instants = pa.array(events).cast(pa.timestamp("us", "UTC"))
    ids = pc.utf8_lpad(pa.array(numbers * _WEYL & _IDS).cast(pa.string()), 10, "0")
    names = pc.binary_join_element_wise("Cliente ", pa.array(customers).cast(pa.string()), "")
    texts = pc.binary_join_element_wise("Olá ", names, ", seja bem-vindo! Precisa de alguma ajuda hoje?", "")
    when = pc.strftime(instants, "%Y-%m-%dT%H:%M:%S+00:00")
    values = pc.binary_join_element_wise(
        '{"customer_id":', pa.array(customers).cast(pa.string()),
        ',"customer_name":"', names,
        '","message_id":"', ids,
        '","channel":"Whatsapp","payload":"', texts,
        '","event_datetime":"', when, '"}', "",
    )  # fmt: skip
    places = at + np.arange(rows)
    planned = hour + timedelta(hours=1)

    def constant(value: Any, kind: pa.DataType) -> pa.Array:
        return pa.repeat(pa.scalar(value, kind), rows)

    return pa.table(
        {
            "batch": constant(batch, pa.int64()),
            "topic": constant("notifications", pa.string()),
            "kafka_partition": pa.array((places % PARTITIONS).astype(np.int32)),
            "kafka_offset": pa.array(places // PARTITIONS),
            "kafka_timestamp": instants,
            "key": pa.nulls(rows, pa.binary()),
            "value": values.cast(pa.binary()),
            "ingested_at": constant(planned, pa.timestamp("us", "UTC")),
            "ingest_date": constant(planned.date(), pa.date32()),
            "reason": pc.if_else(pa.array(places % _REJECTED == 0), "duplicate", ""),
            "detail": constant("the first is another", pa.string()),
            "customer_id": pa.array(customers),
            "message_id": ids,
            "customer_name": names,
            "channel": constant("Whatsapp", pa.string()),
            "payload": texts,
            "event_datetime": instants,
            "event_date": constant(hour.date(), pa.date32()),
            "event_hour": constant(hour.hour, pa.int32()),
        }
    )
