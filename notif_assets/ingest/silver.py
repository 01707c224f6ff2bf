"""notifications and rejected_notifications: each message of bronze is in exactly one of them.

Belongs here: what each kind of batch does to the two tables, in the order that a replay can finish. Doesn't: what is
valid (core/messages.py), which of several counts (sql/notifications.sql, sql/day_duplicates.sql).

A batch that moves rows writes the target first and then deletes from the source; if it is killed in between, the rows
are in both until it is replayed, never in neither.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from notif_assets.core.days import day_bounds, days_of_hours, hours_of
from notif_assets.core.duplicates import blocked
from notif_assets.core.messages import Limits, judge
from notif_assets.ingest.ledger import Batch, deduplicated_through, read_batch
from notif_assets.lake import SCHEMAS, Lake, Scan, Table, literal, until_committed
from notif_assets.lake.tables import Value
from notif_assets.settings import Settings

_BUCKET_ROWS = 2_000_000
_DAY = timedelta(days=1)
_HOUR = 3_600_000_000  # microseconds
_INSTANT = pa.timestamp("us", "UTC")
_PLACES = pa.schema([("kafka_partition", pa.int32()), ("kafka_offset", pa.int64())])
_DUPLICATES = pa.schema([*_PLACES, ("first_partition", pa.int32()), ("first_offset", pa.int64())])


def take_batches(lake: Lake, settings: Settings) -> Iterator[Batch]:
    """Brings notifications and rejected_notifications up to raw_notifications, and gives each batch when it is done.

    Raises LakeError. Two at once do no harm: each commit is made by one of them.
    """
    with _Ahead(lake, settings) as ahead:
        while (batch := take_next_batch(lake, settings, ahead.judged)) is not None:
            yield batch


def take_next_batch(lake: Lake, settings: Settings, judged: Callable[[int], pa.Table] | None = None) -> Batch | None:
    """Brings notifications and rejected_notifications one batch further; None if they have all of bronze.

    `judged` gives the valid messages of a batch (default: reads and judges them now). Raises as take_batches.
    """

    def attempt() -> Batch | None:
        # Each is opened before what it is made of, and committed against just that snapshot.
        tables = {name: lake.table(name) for name in ("notifications", "rejected_notifications")}
        number = min(table.watermark for table in tables.values()) + 1
        if number > lake.table("raw_notifications").watermark:
            return None
        batch = read_batch(lake, lake.table("ingest_batches"), number)
        work = _Work(lake, settings, batch, judged or partial(_judged, lake, settings))
        for name, step in _STEPS[batch.kind]:
            if tables[name].watermark < number:
                step(work, tables[name])
        return batch

    return until_committed(attempt)


@dataclass(frozen=True)
class _Work:
    """What the steps of one batch need."""

    lake: Lake
    settings: Settings
    batch: Batch
    judged: Callable[[int], pa.Table]


class _Ahead:
    """Judges the next batch on another core while this one is committed; what is judged never changes."""

    def __init__(self, lake: Lake, settings: Settings) -> None:
        self._judge = partial(_judged, lake, settings)
        self._last = lake.table("raw_notifications").watermark
        self._worker = ThreadPoolExecutor(1)
        self._next: tuple[int, Future[pa.Table]] | None = None

    def judged(self, number: int) -> pa.Table:
        """The valid messages of a batch of raw_notifications; starts on the one after it."""
        waiting, self._next = self._next, None
        valid = waiting[1].result() if waiting and waiting[0] == number else self._judge(number)
        if number < self._last:
            self._next = number + 1, self._worker.submit(self._judge, number + 1)
        return valid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.shutdown(cancel_futures=True)


def _judged(lake: Lake, settings: Settings, number: int) -> pa.Table:
    records = lake.select(
        "judged_columns", {"records": lake.table("raw_notifications").scan(batch=(number, number + 1))}
    )
    return judge(records, limits(settings))[0]


# --- a range of the topic -------------------------------------------------------------------------------------------


def _accept(work: _Work, notifications: Table) -> None:
    valid = work.judged(work.batch.number)
    notifications.append(_first_arrivals(work, notifications, valid), work.batch.number)


def _reject(work: _Work, rejected: Table) -> None:
    notifications = work.lake.table("notifications")
    only = (work.batch.number, work.batch.number + 1)
    records = work.lake.select(
        "unaccepted",
        {"records": work.lake.table("raw_notifications").scan(batch=only), "accepted": notifications.scan(batch=only)},
    )
    repeated, invalid = judge(records.append_column("original", records["value"]), limits(work.settings))
    pieces = [invalid]
    if repeated.num_rows:
        repeated, stored, _ = _windows(work, notifications, repeated)
        keys = repeated.select([*_PLACES.names, "customer_id", "message_id", "window_from", "window_to"])
        originals = work.lake.select("originals", {"repeated": keys, "stored": stored})
        repeated = repeated.rename_columns({"original": "value"})
        inputs = {"repeated": repeated, "originals": originals, "firsts": _firsts(notifications, originals)}
        pieces.append(work.lake.select("rejected_duplicates", inputs))
    schema = SCHEMAS["rejected_notifications"].arrow
    rejected.append(pa.concat_tables(p.select(schema.names).cast(schema) for p in pieces), work.batch.number)


def _firsts(notifications: Table, originals: pa.Table) -> Scan:
    """The files that hold the originals: of an hour, those of their batches."""
    batches: dict[tuple[Value, ...], list[int]] = defaultdict(list)
    for row in originals.to_pylist():
        batches[row["event_date"], row["event_hour"]].append(row["first_batch"])
    return notifications.scan_holding("batch", {place: np.array(numbers) for place, numbers in batches.items()})


def _first_arrivals(work: _Work, notifications: Table, valid: pa.Table) -> pa.Table:
    """The rows of `valid` that are no duplicate of a message accepted before, or of an earlier one of themselves."""
    schema = SCHEMAS["notifications"].arrow
    if not valid.num_rows:
        return schema.empty_table()
    # Only keys and times go through the engine, whole messages stay where they are.
    keys = valid.select([*_PLACES.names, "customer_id", "message_id", "event_datetime"])
    keys = keys.append_column("row", pa.array(np.arange(valid.num_rows)))
    arrived, stored, any_late = _windows(work, notifications, keys)
    duplicates = work.lake.select("duplicate_arrivals", {"arrived": arrived, "stored": stored})
    rows = duplicates["row"].to_pylist()
    if any_late:  # only days already deduplicated have windows that can overlap without being equal
        contested = work.lake.select("contested_arrivals", {"arrived": arrived, "duplicates": duplicates})
        rows += blocked(contested.to_pylist())
    if rows:
        first = np.ones(valid.num_rows, bool)
        first[rows] = False
        valid = valid.filter(pa.array(first))
    hour = pc.divide(pc.cast(valid["event_datetime"], pa.int64()), _HOUR)
    of_day = pc.subtract(hour, pc.multiply(pc.divide(hour, 24), 24))
    return (
        valid.append_column("event_date", pc.cast(valid["event_datetime"], pa.date32()))
        .append_column("event_hour", pc.cast(of_day, pa.int32()))
        .select(schema.names)
    )


def _windows(work: _Work, notifications: Table, valid: pa.Table) -> tuple[pa.Table, Scan, bool]:
    """`valid` with the window of each message, a scan of every stored message that one of the windows may hold, and
    whether any message is of a day already deduplicated.

    An earlier message with the same key makes a message a duplicate if it lies in its window: the hour of the event or,
    where its day is already deduplicated, that day and both its neighbours.
    """
    events = pc.cast(valid["event_datetime"], pa.int64()).to_numpy()
    hour_numbers, in_hour = np.unique(events // _HOUR, return_inverse=True)
    hours = [datetime.fromtimestamp(number * 3600, UTC) for number in hour_numbers.tolist()]
    through = deduplicated_through(work.lake, work.batch.number)
    window_from, window_to = hour_numbers[in_hour] * _HOUR, (hour_numbers[in_hour] + 1) * _HOUR
    customers = valid["customer_id"].to_numpy()
    wanted: dict[tuple[Value, ...], npt.NDArray[np.int64]] = {}
    by_hour = np.split(customers[np.argsort(in_hour, kind="stable")], np.cumsum(np.bincount(in_hour))[:-1])
    wanted |= {(hour.date(), hour.hour): of_hour for hour, of_hour in zip(hours, by_hour, strict=True)}
    late = [day for day in days_of_hours(hours, work.settings.zone) if through is not None and day <= through]
    for day in late:
        start, end = (_microseconds(instant) for instant in day_bounds(day, work.settings.zone))
        around = (day_bounds(day - _DAY, work.settings.zone)[0], day_bounds(day + _DAY, work.settings.zone)[1])
        of_day = (events >= start) & (events < end)
        window_from[of_day], window_to[of_day] = map(_microseconds, around)
        for hour in hours_of(*around):
            wanted[hour] = np.concatenate([wanted.get(hour, customers[:0]), customers[of_day]])
    arrived = valid.append_column("window_from", pa.array(window_from).cast(_INSTANT))
    arrived = arrived.append_column("window_to", pa.array(window_to).cast(_INSTANT))
    return arrived, notifications.scan_holding("customer_id", wanted), bool(late)


def _microseconds(instant: datetime) -> int:
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


# --- duplicates of whole days ---------------------------------------------------------------------------------------


def _reject_duplicates(work: _Work, rejected: Table) -> None:
    notifications = work.lake.table("notifications")
    duplicates = _DUPLICATES.empty_table()
    days = _days_to_deduplicate(work, notifications)
    for day in days:
        start, end = day_bounds(day, work.settings.zone)
        window = (day_bounds(day - _DAY, work.settings.zone)[0], day_bounds(day + _DAY, work.settings.zone)[1])
        stored = notifications.scan(event_datetime=window)
        buckets = 1 + stored.rows_at_most // _BUCKET_ROWS
        for bucket in range(buckets):
            more = work.lake.select(
                "day_duplicates",
                {"stored": stored, "removed": duplicates.select(_PLACES.names)},
                **{"from": start, "to": end, "buckets": buckets, "bucket": bucket},
            )
            duplicates = pa.concat_tables([duplicates, more.cast(_DUPLICATES)])
    rows = SCHEMAS["rejected_notifications"].arrow.empty_table()
    if duplicates.num_rows:
        around = (day_bounds(days[0] - _DAY, work.settings.zone)[0], day_bounds(days[-1] + _DAY, work.settings.zone)[1])
        bronze, stored = work.lake.table("raw_notifications"), notifications.scan(event_datetime=around)
        # By offset and not by batch: a readmitted message has another batch than its record.
        offsets = pc.min_max(duplicates["kafka_offset"]).as_py()
        records = bronze.scan(kafka_offset=(offsets["min"], offsets["max"] + 1))
        inputs = {"duplicates": duplicates, "stored": stored, "records": records}
        rows = work.lake.select("moved_duplicates", inputs, batch=work.batch.number)
        if rows.num_rows != duplicates.num_rows:
            raise RuntimeError(f"{duplicates.num_rows - rows.num_rows} duplicates have no record in raw_notifications")
    rejected.append(rows, work.batch.number)


def _days_to_deduplicate(work: _Work, notifications: Table) -> list[date]:
    """The days with messages after the last deduplicated one, up to the batch's, in date order."""
    assert work.batch.dedup_through is not None
    before = deduplicated_through(work.lake, work.batch.number)
    days = days_with_messages(notifications, work.settings)
    return [day for day in days if day <= work.batch.dedup_through and (not before or day > before)]


def days_with_messages(notifications: Table, settings: Settings) -> list[date]:
    """Every billing day that may hold a message, by the hours that have files; in date order."""
    hours = [datetime.combine(day, time(hour), UTC) for day, hour in notifications.scan().partitions]
    return days_of_hours(hours, settings.zone)


def _delete_moved(work: _Work, notifications: Table) -> None:
    moved = messages_removed_by(work.lake, work.batch.number)
    notifications.delete(_places_predicate(moved.to_pylist()), work.batch.number)


def messages_removed_by(lake: Lake, number: int) -> pa.Table:
    """The messages that a dedup batch took out of notifications, and where they lie in Kafka.

    They are read from their records again, which were valid then, so today's bounds do not matter.
    """
    records = lake.rows(lake.table("rejected_notifications").scan(batch=(number, number + 1)))
    valid, _ = judge(records.drop_columns(["customer_id", "message_id"]), _UNBOUNDED)
    return valid


_UNBOUNDED = Limits(max_bytes=2**40, max_age=timedelta(days=10**6), max_lead=timedelta(days=10**6))


def _places_predicate(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """The rows by hour and place in Kafka, so that other hours are not even read; None for no rows."""
    places: dict[tuple[date, int, int], list[int]] = defaultdict(list)
    for row in rows:
        event = row["event_datetime"].astimezone(UTC)
        places[event.date(), event.hour, row["kafka_partition"]].append(row["kafka_offset"])
    return (
        " or ".join(
            f"(event_date = {literal(day)} and event_hour = {hour} and kafka_partition = {partition} "
            f"and kafka_offset in ({', '.join(map(str, offsets))}))"
            for (day, hour, partition), offsets in sorted(places.items())
        )
        or None
    )


# --- rejected messages, tried again ---------------------------------------------------------------------------------


def _readmit(work: _Work, notifications: Table) -> None:
    candidates = work.lake.select(
        "readmission_candidates",
        {"rejected": work.lake.table("rejected_notifications").scan(batch=(None, work.batch.number))},
        reason=work.batch.readmit_reason,
    )
    valid, _ = judge(candidates, limits(work.settings))
    number = pa.repeat(pa.scalar(work.batch.number, pa.int64()), valid.num_rows)
    valid = valid.set_column(valid.schema.get_field_index("batch"), "batch", number)
    notifications.append(_first_arrivals(work, notifications, valid), work.batch.number)


def _delete_readmitted(work: _Work, rejected: Table) -> None:
    batch, reason = work.batch.number, work.batch.readmit_reason or ""
    accepted = work.lake.table("notifications").scan(batch=(batch, batch + 1))
    candidates = work.lake.select("rejected_for", {"rejected": rejected.scan()}, reason=reason)
    kept = work.lake.select("unaccepted", {"records": candidates, "accepted": accepted})
    rejected.replace(kept, f"reason = {literal(reason)}", batch)


_Step = Callable[[_Work, Table], None]
_STEPS: dict[str, list[tuple[str, _Step]]] = {
    "kafka": [("notifications", _accept), ("rejected_notifications", _reject)],
    "dedup": [("rejected_notifications", _reject_duplicates), ("notifications", _delete_moved)],
    "readmit": [("notifications", _readmit), ("rejected_notifications", _delete_readmitted)],
}


def limits(settings: Settings) -> Limits:
    """The bounds of a valid message that this deployment set."""
    return Limits(settings.max_message_bytes, settings.max_event_age, settings.max_event_lead)
