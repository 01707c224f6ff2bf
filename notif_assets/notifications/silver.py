"""notifications and rejected_notifications: each message of bronze is in exactly one of them.

Belongs here: what each kind of batch does to the two tables, in the order that a replay can finish. Doesn't: what is
valid (validity.py), which of several counts (sql/duplicate_arrivals.sql, sql/day_duplicates.sql).

A batch that moves rows writes the target first and then deletes from the source; if it is killed in between, the rows
are in both until it is replayed, never in neither.

Keys and positions of a whole batch are in memory at once, values and payloads only in pieces: a plan bounds how many
messages a batch has, and nothing bounds what they weigh.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property, partial
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from notif_assets.core.days import day_bounds, days_of_hours, hour_partitions
from notif_assets.lake import Lake, Scan, Table, until_committed
from notif_assets.lake.keys import files_without, with_hashes
from notif_assets.lake.pieces import coalesce, pieces, pieces_having, rows_having
from notif_assets.lake.staging import append, exchange
from notif_assets.lake.tables import Value
from notif_assets.notifications.duplicates import duplicate_rows
from notif_assets.notifications.ledger import Batch, deduplicated_through, read_batch
from notif_assets.notifications.repeated import repeated_keys
from notif_assets.notifications.rules import limits_of
from notif_assets.notifications.validity import Limits, validate
from notif_assets.settings import Settings

_DAY = timedelta(days=1)
_HOUR = 3_600_000_000  # microseconds
_INSTANT = pa.timestamp("us", "UTC")
_POSITIONS = pa.schema([("kafka_partition", pa.int32()), ("kafka_offset", pa.int64())])
_FIRST = {"first_partition": "kafka_partition", "first_offset": "kafka_offset"}
_DUPLICATES = pa.schema(
    [("customer_id", pa.int64()), *_POSITIONS, ("first_partition", pa.int32()), ("first_offset", pa.int64())]
)
_KEYS = [*_POSITIONS.names, "customer_id", "message_id", "event_datetime"]
# What of a message is compared with the first one of its key.
_COMPARED = [
    "batch",
    "topic",
    "customer_id",
    "message_id",
    "customer_name",
    "channel",
    "payload",
    *_POSITIONS.names,
    "kafka_timestamp",
    "ingested_at",
]
# The columns that validation needs, and those that notifications keeps.
_VALIDATED_COLUMNS = ["batch", "topic", *_POSITIONS.names, "kafka_timestamp", "value", "ingested_at"]


def advance_silver(lake: Lake, settings: Settings) -> Iterator[Batch]:
    """Brings notifications and rejected_notifications up to raw_notifications, and gives each batch when it is done.

    Raises LakeError. Two at once do no harm: each commit is made by one of them.
    """
    with _ValidateAhead(lake, settings) as ahead:
        while (batch := advance_silver_by_one(lake, settings, ahead.validated)) is not None:
            yield batch


def advance_silver_by_one(
    lake: Lake, settings: Settings, validated_batch: Callable[[int], "ValidatedBatch"] | None = None
) -> Batch | None:
    """Brings notifications and rejected_notifications one batch further; None if they have all of bronze.

    `validated_batch` gives a batch, validated (default: reads and validates it now). Raises as advance_silver.
    """

    def attempt() -> Batch | None:
        # A table is opened before its inputs, and committed against exactly that snapshot.
        tables = {name: lake.table(name) for name in ("notifications", "rejected_notifications")}
        number = min(table.watermark for table in tables.values()) + 1
        if number > lake.table("raw_notifications").watermark:
            return None
        batch = read_batch(lake, lake.table("ingest_batches"), number)
        work = _Work(lake, settings, batch, validated_batch or partial(_validate_batch, lake, settings))
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
    validated_batch: Callable[[int], "ValidatedBatch"]
    elsewhere: set[str] = field(default_factory=set)
    """Files of notifications that are known to hold no message with a key of the batch."""

    @cached_property
    def deduplicated_through(self) -> date | None:
        """The last day that was free of duplicates before the batch."""
        return deduplicated_through(self.lake, self.batch.number)

    @cached_property
    def validated(self) -> "ValidatedBatch":
        """The batch's records, validated once for all steps."""
        return self.validated_batch(self.batch.number)


class ValidatedBatch:
    """Some records and the valid messages among them: their keys in memory, and both in pieces on demand.

    Both stay in memory if together they are no larger than a normal batch, else only the messages. The rest is read and
    validated again.
    """

    def __init__(self, records: Callable[[], Iterator[pa.Table]], bounds: Limits, most: int) -> None:
        """Validates the records; keeps up to `most` bytes."""
        self._read, self._limits = records, bounds
        self._records: list[pa.Table] | None = []
        self._messages: list[pa.Table] | None = []
        keys: list[pa.Table] = []
        of_records = of_messages = 0
        for some in self._read():
            valid = self._valid(some)
            keys += [valid.select(_KEYS)] if valid.num_rows else []
            of_records, of_messages = of_records + some.nbytes, of_messages + valid.nbytes
            self._records = _append_if_small(self._records, some, of_records + of_messages <= most)
            self._messages = _append_if_small(self._messages, valid, of_messages <= most)
        self.keys = pa.concat_tables(keys) if keys else None

    def _valid(self, records: pa.Table) -> pa.Table:
        return validate(records, self._limits)[0]

    def messages(self) -> Iterator[pa.Table]:
        """The valid messages in pieces, in the order of `keys`."""
        yield from map(self._valid, self._read()) if self._messages is None else self._messages

    def records_at(self, positions: pa.Table) -> Iterator[pa.Table]:
        """The records that lie at these places in Kafka, in pieces. Nothing is read for none."""
        if positions.num_rows:
            for records in self._read() if self._records is None else self._records:
                mask = rows_having(records, positions)
                if mask.any():
                    yield records.filter(pa.array(mask))


def _append_if_small(kept: list[pa.Table] | None, rows: pa.Table, small: bool) -> list[pa.Table] | None:
    return None if kept is None or not small else [*kept, rows]


class _ValidateAhead:
    """Validates the next batch on another core while this one is committed. Bronze rows never change."""

    def __init__(self, lake: Lake, settings: Settings) -> None:
        self._validate = partial(_validate_batch, lake, settings)
        self._last = lake.table("raw_notifications").watermark
        self._worker = ThreadPoolExecutor(1)
        self._next: tuple[int, Future[ValidatedBatch]] | None = None

    def validated(self, number: int) -> ValidatedBatch:
        """A batch of raw_notifications, validated; starts on the one after it."""
        waiting, self._next = self._next, None
        batch = waiting[1].result() if waiting and waiting[0] == number else self._validate(number)
        if number < self._last:
            self._next = number + 1, self._worker.submit(self._validate, number + 1)
        return batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.shutdown(cancel_futures=True)


def _validate_batch(lake: Lake, settings: Settings, number: int) -> ValidatedBatch:
    records = lake.table("raw_notifications").scan(batch=(number, number + 1))
    return ValidatedBatch(
        partial(pieces, records, _VALIDATED_COLUMNS), limits_of(lake, settings, number), settings.batch_bytes
    )


# --- a range of the topic -------------------------------------------------------------------------------------------


def _accept(work: _Work, notifications: Table) -> None:
    append(notifications, _first_arrivals(work, notifications, work.validated), work.batch.number)


def _reject(work: _Work, rejected: Table) -> None:
    notifications = work.lake.table("notifications")
    only = (work.batch.number, work.batch.number + 1)
    records = work.lake.table("raw_notifications").scan(batch=only)
    left = work.lake.select("unaccepted", {"records": records, "accepted": notifications.scan(batch=only)})
    some = coalesce(work.validated.records_at(left.cast(_POSITIONS)))
    append(rejected, (rows for records in some for rows in _rejected(work, notifications, records)), work.batch.number)


def _rejected(work: _Work, notifications: Table, records: pa.Table) -> Iterator[pa.Table]:
    """The rows of rejected_notifications for records that are not in notifications."""
    records = records.append_column("ingest_date", pc.cast(records["ingested_at"], pa.date32()))
    records = records.append_column("row", pa.array(np.arange(records.num_rows)))
    repeated, invalid = validate(records, limits_of(work.lake, work.settings, work.batch.number))
    yield invalid
    if repeated.num_rows:
        repeated, stored, _ = _windows(work, notifications, repeated)
        keys = repeated.select([*_POSITIONS.names, "customer_id", "message_id", "window_from", "window_to"])
        stored = stored.without(work.elsewhere)
        originals = work.lake.select("originals", {"repeated": keys, "stored": stored})
        repeated = repeated.append_column("value", records["value"].take(repeated["row"]))
        inputs = {"repeated": repeated, "originals": originals, "firsts": _files_of_originals(notifications, originals)}
        yield work.lake.select("rejected_duplicates", inputs)


def _files_of_originals(notifications: Table, originals: pa.Table) -> Scan:
    """The files that hold the originals: of an hour, those of their batches."""
    batches: dict[tuple[Value, ...], list[int]] = defaultdict(list)
    for row in originals.to_pylist():
        batches[row["event_date"], row["event_hour"]].append(row["first_batch"])
    return notifications.scan_holding("batch", {partition: np.array(numbers) for partition, numbers in batches.items()})


def _first_arrivals(work: _Work, notifications: Table, validated: ValidatedBatch) -> Iterator[pa.Table]:
    """The messages that duplicate neither an accepted message nor an earlier one of the batch; in pieces."""
    if validated.keys is None:
        return
    # Only keys and times go through the engine, not whole messages.
    keys = validated.keys.append_column("row", pa.array(np.arange(validated.keys.num_rows)))
    arrived, stored, any_late = _windows(work, notifications, keys)
    hashes = key_hashes(work.lake, keys)
    work.elsewhere.update(files_without(stored, hashes))
    stored = stored.without(work.elsewhere)
    duplicates = work.lake.select("duplicate_arrivals", {"arrived": arrived, "stored": stored})
    rows = duplicates["row"].to_pylist()
    if any_late:  # only days already deduplicated have windows that can overlap without being equal
        contested = work.lake.select("contested_arrivals", {"arrived": arrived, "duplicates": duplicates})
        rows += duplicate_rows(contested.to_pylist())
    first = np.ones(keys.num_rows, bool)
    first[rows] = False
    end = 0
    for messages in validated.messages():
        start, end = end, end + messages.num_rows
        of_piece = first[start:end]
        messages = with_hashes(messages, hashes[start:end])
        yield _in_partitions(messages if of_piece.all() else messages.filter(pa.array(of_piece)))


def key_hashes(lake: Lake, keys: pa.Table) -> npt.NDArray[np.int64]:
    """The hash of each key, in the order of their rows."""
    found = lake.select("key_hashes", {"keys": keys})
    hashes = np.empty(found.num_rows, np.int64)
    hashes[found["row"].to_numpy()] = found["key_hash"].to_numpy()
    return hashes


def _in_partitions(messages: pa.Table) -> pa.Table:
    """The messages with the partition columns of notifications."""
    hour = pc.divide(pc.cast(messages["event_datetime"], pa.int64()), _HOUR)
    of_day = pc.subtract(hour, pc.multiply(pc.divide(hour, 24), 24))
    dated = messages.append_column("event_date", pc.cast(messages["event_datetime"], pa.date32()))
    return dated.append_column("event_hour", pc.cast(of_day, pa.int32()))


def _windows(work: _Work, notifications: Table, valid: pa.Table) -> tuple[pa.Table, Scan, bool]:
    """`valid` with the window of each message, a scan of every stored message that one of the windows may hold, and
    whether any message is of a day already deduplicated.

    An earlier message with the same key makes a message a duplicate if it lies in its window: the hour of the event or,
    where its day is already deduplicated, that day and both its neighbours.
    """
    events = pc.cast(valid["event_datetime"], pa.int64()).to_numpy()
    hour_numbers, in_hour = np.unique(events // _HOUR, return_inverse=True)
    hours = [datetime.fromtimestamp(number * 3600, UTC) for number in hour_numbers.tolist()]
    through = work.deduplicated_through
    window_from, window_to = hour_numbers[in_hour] * _HOUR, (hour_numbers[in_hour] + 1) * _HOUR
    customers = valid["customer_id"].to_numpy()
    wanted: dict[tuple[Value, ...], npt.NDArray[np.int64]] = {}
    by_hour = np.split(customers[np.argsort(in_hour, kind="stable")], np.cumsum(np.bincount(in_hour))[:-1])
    wanted |= {(hour.date(), hour.hour): of_hour for hour, of_hour in zip(hours, by_hour, strict=True)}
    late_days = [day for day in days_of_hours(hours, work.settings.zone) if through is not None and day <= through]
    for day in late_days:
        start, end = (_microseconds(instant) for instant in day_bounds(day, work.settings.zone))
        around = (day_bounds(day - _DAY, work.settings.zone)[0], day_bounds(day + _DAY, work.settings.zone)[1])
        of_day = (events >= start) & (events < end)
        window_from[of_day], window_to[of_day] = map(_microseconds, around)
        for hour in hour_partitions(*around):
            wanted[hour] = np.concatenate([wanted.get(hour, customers[:0]), customers[of_day]])
    arrived = valid.append_column("window_from", pa.array(window_from).cast(_INSTANT))
    arrived = arrived.append_column("window_to", pa.array(window_to).cast(_INSTANT))
    return arrived, notifications.scan_holding("customer_id", wanted), bool(late_days)


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
        for part, hashes in repeated_keys(work.lake, stored):
            inputs = {"stored": part, "repeated_hashes": hashes, "removed": duplicates.select(_POSITIONS.names)}
            more = work.lake.select("day_duplicates", inputs, **{"from": start, "to": end})
            duplicates = pa.concat_tables([duplicates, more.select(_DUPLICATES.names).cast(_DUPLICATES)])
    append(rejected, _moved_rows(work, notifications, days, duplicates), work.batch.number)


def _moved_rows(work: _Work, notifications: Table, days: list[date], duplicates: pa.Table) -> Iterator[pa.Table]:
    """The rows of rejected_notifications for duplicates of whole days, in pieces."""
    if not duplicates.num_rows:
        return
    around = (day_bounds(days[0] - _DAY, work.settings.zone)[0], day_bounds(days[-1] + _DAY, work.settings.zone)[1])
    duplicate_keys = duplicates.select(["customer_id", *_POSITIONS.names])
    firsts = duplicates.select(["customer_id", *_FIRST]).rename_columns(duplicate_keys.column_names)
    some = pieces_having(
        notifications.scan(event_datetime=around), pa.concat_tables([duplicate_keys, firsts]), _COMPARED
    )
    hashed = [work.lake.select("payload_hashes", {"messages": messages}) for messages in some]
    inputs = {"duplicates": duplicates, "messages": pa.concat_tables(hashed)}
    rows = work.lake.select("moved_duplicates", inputs, batch=work.batch.number)
    # Matched by offset, not by batch: a readmitted message has another batch than its record.
    offsets = pc.min_max(duplicates["kafka_offset"]).as_py()
    records = work.lake.table("raw_notifications").scan(kafka_offset=(offsets["min"], offsets["max"] + 1))
    found = 0
    for values in pieces_having(records, duplicates.select(_POSITIONS.names), [*_POSITIONS.names, "value"]):
        whole = values.join(rows, _POSITIONS.names, join_type="inner", use_threads=False)
        found += whole.num_rows
        yield whole
    if found != duplicates.num_rows:
        raise RuntimeError(f"{duplicates.num_rows - found} duplicates have no record in raw_notifications")


def _days_to_deduplicate(work: _Work, notifications: Table) -> list[date]:
    """The days with messages after the last deduplicated one, up to the batch's, in date order."""
    assert work.batch.dedup_through is not None
    before = work.deduplicated_through
    days = days_with_messages(notifications, work.settings)
    return [day for day in days if day <= work.batch.dedup_through and (not before or day > before)]


def days_with_messages(notifications: Table, settings: Settings) -> list[date]:
    """Every billing day that may hold a message, by the hours that have files; in date order."""
    hours = [datetime.combine(day, time(hour), UTC) for day, hour in notifications.scan().partitions]
    return days_of_hours(hours, settings.zone)


def _delete_moved(work: _Work, notifications: Table) -> None:
    moved = _in_partitions(messages_removed_by(work.lake, work.batch.number))
    keys = moved.select([*notifications.schema.partition_by, "customer_id", *_POSITIONS.names])
    exchange(notifications, keys, notifications.schema.arrow.empty_table(), work.batch.number)


_REMOVED = pa.schema([*_POSITIONS, ("customer_id", pa.int64()), ("channel", pa.string()), ("event_datetime", _INSTANT)])


def messages_removed_by(lake: Lake, number: int) -> pa.Table:
    """The messages that a dedup batch took out of notifications: customer, channel, event, and where they lie in Kafka.

    They are read from their records again, which were valid then, so today's bounds do not matter.
    """
    records = pieces(lake.table("rejected_notifications").scan(batch=(number, number + 1)), _VALIDATED_COLUMNS)
    valid = (validate(some, _UNBOUNDED)[0].select(_REMOVED.names).cast(_REMOVED) for some in records)
    return pa.concat_tables([_REMOVED.empty_table(), *valid])


_UNBOUNDED = Limits(max_bytes=2**40, max_age=timedelta(days=10**6), max_lead=timedelta(days=10**6), narrow=False)


# --- rejected messages, tried again ---------------------------------------------------------------------------------


def _readmit(work: _Work, notifications: Table) -> None:
    number = pa.scalar(work.batch.number, pa.int64())

    def candidates() -> Iterator[pa.Table]:
        for records in _candidates(work):
            batch = pa.repeat(number, records.num_rows)
            yield records.set_column(records.schema.get_field_index("batch"), "batch", batch)

    validated = ValidatedBatch(
        candidates, limits_of(work.lake, work.settings, work.batch.number), work.settings.batch_bytes
    )
    append(notifications, _first_arrivals(work, notifications, validated), work.batch.number)


def _candidates(work: _Work) -> Iterator[pa.Table]:
    """The records of the messages that were rejected for the reason, in pieces.

    Of an oversized message only raw_notifications has the whole value.
    """
    reason = work.batch.readmit_reason
    scan = work.lake.table("rejected_notifications").scan(batch=(None, work.batch.number))
    if reason != "oversized":
        for rows in pieces(scan, [*_VALIDATED_COLUMNS, "reason"]):
            yield rows.filter(pc.equal(rows["reason"], reason)).select(_VALIDATED_COLUMNS)
        return
    positions = work.lake.select("rejected_positions", {"rejected": scan}, reason=reason).cast(_POSITIONS)
    if positions.num_rows:
        offsets = pc.min_max(positions["kafka_offset"]).as_py()
        records = work.lake.table("raw_notifications").scan(kafka_offset=(offsets["min"], offsets["max"] + 1))
        yield from pieces_having(records, positions, _VALIDATED_COLUMNS)


def _delete_readmitted(work: _Work, rejected: Table) -> None:
    batch = work.batch.number
    accepted = work.lake.table("notifications").scan(batch=(batch, batch + 1))
    readmitted = list(pieces(accepted, [*_POSITIONS.names, "ingested_at"]))
    keys = pa.concat_tables(readmitted) if readmitted else rejected.schema.arrow.empty_table()
    keys = keys.select(_POSITIONS.names).append_column("ingest_date", pc.cast(keys["ingested_at"], pa.date32()))
    exchange(rejected, keys, rejected.schema.arrow.empty_table(), batch)


_Step = Callable[[_Work, Table], None]
_STEPS: dict[str, list[tuple[str, _Step]]] = {
    "kafka": [("notifications", _accept), ("rejected_notifications", _reject)],
    "dedup": [("rejected_notifications", _reject_duplicates), ("notifications", _delete_moved)],
    "readmit": [("notifications", _readmit), ("rejected_notifications", _delete_readmitted)],
}
