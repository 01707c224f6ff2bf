"""Blanks payloads and names in rows, file by file, without moving a watermark or changing a count.

Belongs here: how each kind of personal column is blanked, rewriting the files that hold them, and retention of payloads
(NOTIF_PAYLOAD_DAYS). Doesn't: what is left of a value (redacted_values.py), the rows of one customer (erase.py).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from notif_assets.core.texts import BLANK_CHARACTERS
from notif_assets.lake import SCHEMAS, Lake, LakeError, Scan, Table
from notif_assets.lake.catalogue import Personal
from notif_assets.lake.pieces import pieces, rows_having
from notif_assets.lake.staging import stage
from notif_assets.lake.tables import DataFile
from notif_assets.maintenance.compaction import BLANKED, by_partition, is_blanked
from notif_assets.maintenance.redacted_values import ANSWER, NAME, blank_oversized, blank_records
from notif_assets.maintenance.swaps import Swap, commit
from notif_assets.notifications.rules import limits
from notif_assets.notifications.validity import Limits
from notif_assets.settings import Settings

PERSONAL = tuple(name for name, schema in SCHEMAS.items() if schema.personal)
"""Every table with payloads, names or answers, each after its sources, so that rows computed or moved meanwhile come
from blanked rows."""

Mask = Callable[[pa.Table], pa.ChunkedArray]
_COMMIT_ROWS = 5_000_000
_ROUNDS = 100


def blank_old(lake: Lake, settings: Settings, now: datetime) -> dict[str, int]:
    """Blanks what is older than NOTIF_PAYLOAD_DAYS, by the day of its partition; gives the rows changed per table.

    Without the setting it does nothing. The panel blanks a name with the customer's newest message.
    """
    if settings.payload_days is None:
        return {}
    first_kept = now.date() - timedelta(days=settings.payload_days)
    return {
        label: _blank_partitions(lake, target, name, first_kept, limits(settings))
        if name != "customer_panel"
        else blank_rows(lake, target, name, _inactive_since(now - timedelta(days=settings.payload_days)), settings)
        for label, target, name in personal_tables(lake, settings)
    }


def personal_tables(lake: Lake, settings: Settings) -> list[tuple[str, Lake, str]]:
    """Label, lake and name of every existing table with personal data, the archive included."""
    found = [(name, lake, name) for name in PERSONAL]
    if settings.archive is not None:
        found.insert(1, ("archive", Lake(settings.archive.absolute(), memory=settings.engine_memory), PERSONAL[0]))
    return [(label, target, name) for label, target, name in found if (target.root / name / "_delta_log").exists()]


def _inactive_since(cutoff: datetime) -> Mask:
    def mask(panel: pa.Table) -> pa.ChunkedArray:
        newest = panel.group_by("customer_id").aggregate([("last_event", "max")])
        inactive = newest.filter(pc.less(newest["last_event_max"], pa.scalar(cutoff, pa.timestamp("us", "UTC"))))
        return pc.is_in(panel["customer_id"], inactive["customer_id"].combine_chunks())

    return mask


def _blank_partitions(lake: Lake, target: Lake, name: str, first_kept: date, bounds: Limits) -> int:
    """Blanks all rows of the partitions before `first_kept`, and marks their files by a prefix."""

    def rewritten(table: Table) -> Iterator[tuple[Swap, int]]:
        for partition, files in sorted(by_partition([f for f in table.data_files() if not is_blanked(f)]).items()):
            day = partition[0]
            if not isinstance(day, date) or day >= first_kept:
                continue
            for file in files:
                blanking = _Blanking(name, _all_rows, bounds)
                batches = blanking.blanked(_rows(lake, name, table.scan_files([file])))
                staged = stage(table, partition, batches, file.rows, BLANKED)
                yield Swap(partition, (file,), staged), blanking.changed

    return _commit_all(target, name, rewritten)


def blank_rows(
    lake: Lake,
    target: Lake,
    name: str,
    mask: Mask,
    settings: Settings,
    files_of: Callable[[Table], Sequence[DataFile]] = Table.data_files,
) -> int:
    """Blanks the rows of `mask` in every file that holds one; gives how many changed. Other files stay as they are.

    `files_of` gives the files of a snapshot to look into.
    """
    bounds = limits(settings)

    def rewritten(table: Table) -> Iterator[tuple[Swap, int]]:
        for file in files_of(table):
            scan = table.scan_files([file])
            # A table without partitions is small, and its mask may need all of its rows.
            at_once = not table.schema.partition_by
            probe = _Blanking(name, mask, bounds)
            probe.count(_as_one(_rows(lake, name, scan), at_once))
            if probe.changed:
                batches = _Blanking(name, mask, bounds).blanked(_as_one(_rows(lake, name, scan), at_once))
                yield Swap(file.partition, (file,), stage(table, file.partition, batches, file.rows)), probe.changed

    return _commit_all(target, name, rewritten)


def _commit_all(target: Lake, name: str, rewritten: Callable[[Table], Iterator[tuple[Swap, int]]]) -> int:
    """Commits the rewritten files, and repeats those that changed meanwhile. Returns the number of changed rows."""
    total = 0
    for _ in range(_ROUNDS):
        waiting: list[tuple[Swap, int]] = []
        clean = True
        for done in rewritten(target.table(name)):
            waiting.append(done)
            if sum(file.rows for swap, _ in waiting for file in swap.old) >= _COMMIT_ROWS:
                changed, all_made = _commit(target, name, waiting)
                total, clean, waiting = total + changed, clean and all_made, []
        changed, all_made = _commit(target, name, waiting)
        total += changed
        if clean and all_made:
            return total
    raise LakeError(f"table {name} was never quiet enough to blank rows in it; run it again")


def _commit(target: Lake, name: str, waiting: Sequence[tuple[Swap, int]]) -> tuple[int, bool]:
    """Gives the rows changed, and whether all swaps could be made."""
    refused = commit(target, name, [swap for swap, _ in waiting], same_rows=False, note="blanked")
    return sum(changed for swap, changed in waiting if swap not in refused), not refused


def _as_one(tables: Iterator[pa.Table], at_once: bool) -> Iterator[pa.Table]:
    """The pieces as they are, or as one."""
    if not at_once:
        yield from tables
        return
    all_of_them = list(tables)
    if all_of_them:
        yield pa.concat_tables(all_of_them)


def _rows(lake: Lake, name: str, scan: Scan) -> Iterator[pa.Table]:
    """The rows to look at, in pieces and in their order; those of bronze know whether they were in conflict."""
    if name != "raw_notifications":
        yield from pieces(scan)
        return
    rejected = lake.table("rejected_notifications").scan(reason=("duplicate_conflict", "duplicate_conflict "))
    conflicts = lake.select("rejected_positions", {"rejected": rejected}, reason="duplicate_conflict")
    for piece in pieces(scan):
        yield piece.append_column("conflicts", pa.array(rows_having(piece, conflicts)))


def _all_rows(rows: pa.Table) -> pa.ChunkedArray:
    return pa.chunked_array([pa.repeat(pa.scalar(True), rows.num_rows)])


class _Blanking:
    """Blanks batches of rows and counts those that this changes."""

    def __init__(self, name: str, mask: Mask, bounds: Limits) -> None:
        self._kinds = sorted(SCHEMAS[name].personal)
        self._mask, self._limits = mask, bounds
        self.changed = 0

    def _blank(self, rows: pa.Table) -> Iterator[tuple[str, pa.Array]]:
        for kind in self._kinds:
            yield from _BLANKED[kind](rows, self._limits).items()

    def count(self, tables: Iterator[pa.Table]) -> None:
        for _ in self.blanked(tables):
            pass

    def blanked(self, tables: Iterator[pa.Table]) -> Iterator[pa.RecordBatch]:
        for rows in tables:
            indices = pc.indices_nonzero(self._mask(rows))
            if len(indices):
                chosen = rows.take(indices)
                differs = pa.chunked_array([pa.repeat(pa.scalar(False), len(indices))])
                for column, values in self._blank(chosen):
                    differs = pc.or_(differs, _differs(chosen[column], values))
                    at = rows.schema.get_field_index(column)
                    rows = rows.set_column(at, column, _replace_at(rows[column], indices, values))
                self.changed += pc.sum(differs).as_py() or 0
            yield from rows.to_batches()


def _differs(before: pa.ChunkedArray, after: pa.Array) -> pa.ChunkedArray:
    if pa.types.is_map(before.type):
        pairs = zip(before.to_pylist(), after.to_pylist(), strict=True)
        return pa.chunked_array([pa.array([one != other for one, other in pairs], pa.bool_())])
    nulls = pc.not_equal(pc.is_null(before), pc.is_null(after))
    return pc.or_(nulls, pc.fill_null(pc.not_equal(before, after), False))


def _replace_at(column: pa.ChunkedArray, indices: pa.Array, values: pa.Array) -> pa.ChunkedArray:
    """`column` with `values` at `places`."""
    if len(indices) == len(column):
        return values
    order = np.arange(len(column))
    order[indices.to_numpy()] = len(column) + np.arange(len(indices))
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return pa.chunked_array([*column.chunks, values.cast(column.type)]).take(pa.array(order))


# --- what is personal in each table ---------------------------------------------------------------------------------

_Columns = Mapping[str, pa.Array]


def _name(rows: pa.Table, _: Limits) -> _Columns:
    return {"customer_name": _all(NAME, rows)}


def _payload(rows: pa.Table, _: Limits) -> _Columns:
    return {"payload": _all("", rows)}


def _key(rows: pa.Table, _: Limits) -> _Columns:
    return {"key": pa.nulls(rows.num_rows, pa.binary())}


def _record(rows: pa.Table, bounds: Limits) -> _Columns:
    values, _ = blank_records(rows, rows["conflicts"], bounds)
    return {"value": values}


def _rejected(rows: pa.Table, bounds: Limits) -> _Columns:
    conflicts = pc.equal(rows["reason"], "duplicate_conflict")
    oversized = pc.equal(rows["reason"], "oversized")
    at = rows.schema.get_field_index("value")
    validated = rows.set_column(at, "value", pc.if_else(oversized, pa.scalar(None, pa.binary()), rows["value"]))
    values, details = blank_records(validated, conflicts, bounds)
    duplicate = pc.starts_with(rows["reason"], "duplicate")  # its detail says which one was first
    details = pc.if_else(duplicate, rows["detail"], pc.coalesce(details, rows["detail"]))
    beginnings, hashes = blank_oversized(rows["detail"])
    return {"value": pc.if_else(oversized, beginnings, values), "detail": pc.if_else(oversized, hashes, details)}


def _answer(rows: pa.Table, _: Limits) -> _Columns:
    blank = pc.equal(pc.utf8_trim(rows["value"], characters=BLANK_CHARACTERS), "")
    return {"value": pc.if_else(blank, rows["value"], ANSWER)}


def _answers(rows: pa.Table, _: Limits) -> _Columns:
    kind = pa.map_(pa.string(), pa.string())
    return {
        "answers": pa.array(
            [[(key, value and ANSWER) for key, value in pairs] for pairs in rows["answers"].to_pylist()], kind
        )
    }


def _all(word: str, rows: pa.Table) -> pa.Array:
    return pa.repeat(pa.scalar(word), rows.num_rows)


_BLANKED: Mapping[Personal, Callable[[pa.Table, Limits], _Columns]] = {
    "key": _key,
    "record": _record,
    "rejected record": _rejected,
    "name": _name,
    "payload": _payload,
    "answer": _answer,
    "answers": _answers,
}
