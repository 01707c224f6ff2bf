"""Payloads and names taken out of rows, file by file, without moving a watermark or changing a count.

Belongs here: which columns of which table are personal, rewriting the files that hold them, and retention of payloads
(NOTIF_PAYLOAD_DAYS). Doesn't: what is left of a value (blanks.py), who asks for one customer (erase.py).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from math import ceil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from notif_assets.core.answers import BLANK_CHARACTERS
from notif_assets.core.messages import Limits
from notif_assets.ingest.silver import limits
from notif_assets.lake import Lake, LakeError, Scan, Table
from notif_assets.lake.staging import stage
from notif_assets.lake.tables import DataFile
from notif_assets.settings import Settings
from notif_assets.upkeep.blanks import ANSWER, NAME, blank_records
from notif_assets.upkeep.compaction import BLANKED, by_partition, files_needed, is_blanked, order_of, sorted_together
from notif_assets.upkeep.staging import Swap, commit

PERSONAL = (
    "raw_notifications",
    "rejected_notifications",
    "notifications",
    "minute_aggregates",
    "customer_panel",
    "daily_billing",
    "billing_adjustments",
    "chatbot_answers",
    "chatbot_reports",
)
"""Every table with payloads, names or answers, each after those it is computed from: what is computed anew meanwhile
is computed from blanked rows."""

Mask = Callable[[pa.Table], pa.ChunkedArray]
_COMMIT_ROWS = 5_000_000
_ROUNDS = 100


def blank_old(lake: Lake, settings: Settings, now: datetime) -> dict[str, int]:
    """Blanks what is older than NOTIF_PAYLOAD_DAYS, by the day of its partition; gives the rows changed per table.

    Without the setting: nothing. The panel's names go with the customer's newest message.
    """
    if settings.payload_days is None:
        return {}
    first_kept = now.date() - timedelta(days=settings.payload_days)
    return {
        place: _blank_partitions(lake, there, name, first_kept, limits(settings))
        if name != "customer_panel"
        else blank_rows(lake, there, name, _unseen_since(now - timedelta(days=settings.payload_days)), settings)
        for place, there, name in places(lake, settings)
    }


def places(lake: Lake, settings: Settings) -> list[tuple[str, Lake, str]]:
    """What to call it, the lake and the table, for every table with personal data that exists; the archive too."""
    found = [(name, lake, name) for name in PERSONAL]
    if settings.archive is not None:
        found.insert(1, ("archive", Lake(settings.archive.absolute(), memory=settings.engine_memory), PERSONAL[0]))
    return [(place, there, name) for place, there, name in found if (there.root / name / "_delta_log").exists()]


def _unseen_since(cutoff: datetime) -> Mask:
    def mask(panel: pa.Table) -> pa.ChunkedArray:
        newest = panel.group_by("customer_id").aggregate([("last_event", "max")])
        gone = newest.filter(pc.less(newest["last_event_max"], pa.scalar(cutoff, pa.timestamp("us", "UTC"))))
        return pc.is_in(panel["customer_id"], gone["customer_id"].combine_chunks())

    return mask


def _blank_partitions(lake: Lake, there: Lake, name: str, first_kept: date, bounds: Limits) -> int:
    """Blanks all rows of the partitions before `first_kept`, and says so in the names of their files."""

    def rewritten(table: Table) -> Iterator[tuple[Swap, int]]:
        for partition, files in sorted(by_partition([f for f in table.data_files() if not is_blanked(f)]).items()):
            day = partition[0]
            if not isinstance(day, date) or day >= first_kept:
                continue
            for group in sorted_together(table.schema, files):
                blanking = _Blanking(name, _everything, bounds)
                batches = blanking.blanked(_stream(lake, there, name, table.scan_files(group)))
                rows_per_file = ceil(sum(file.rows for file in group) / files_needed(table.schema, group))
                staged = stage(table, partition, batches, rows_per_file, BLANKED)
                yield Swap(partition, tuple(group), staged), blanking.changed

    return _commit_all(there, name, rewritten)


def blank_rows(
    lake: Lake,
    there: Lake,
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
            together = not table.schema.partition_by
            probe = _Blanking(name, mask, bounds)
            probe.count(_whole(_stream(lake, there, name, scan), together))
            if probe.changed:
                batches = _Blanking(name, mask, bounds).blanked(_whole(_stream(lake, there, name, scan), together))
                yield Swap(file.partition, (file,), stage(table, file.partition, batches, file.rows)), probe.changed

    return _commit_all(there, name, rewritten)


def _commit_all(there: Lake, name: str, rewritten: Callable[[Table], Iterator[tuple[Swap, int]]]) -> int:
    """Commits what is rewritten, again and again where files changed meanwhile; gives the rows changed."""
    total = 0
    for _ in range(_ROUNDS):
        waiting: list[tuple[Swap, int]] = []
        settled = True
        for done in rewritten(there.table(name)):
            waiting.append(done)
            if sum(file.rows for swap, _ in waiting for file in swap.old) >= _COMMIT_ROWS:
                changed, all_made = _commit(there, name, waiting)
                total, settled, waiting = total + changed, settled and all_made, []
        changed, all_made = _commit(there, name, waiting)
        total += changed
        if settled and all_made:
            return total
    raise LakeError(f"table {name} was never quiet enough to blank rows in it; run it again")


def _commit(there: Lake, name: str, waiting: Sequence[tuple[Swap, int]]) -> tuple[int, bool]:
    """Gives the rows changed, and whether all swaps could be made."""
    refused = commit(there, name, [swap for swap, _ in waiting], same_rows=False, note="blanked")
    return sum(changed for swap, changed in waiting if swap not in refused), not refused


def _whole(batches: Iterator[pa.RecordBatch], together: bool) -> Iterator[pa.RecordBatch]:
    """The batches as they are, or as one."""
    if not together:
        yield from batches
        return
    all_of_them = list(batches)
    if all_of_them:
        yield from pa.Table.from_batches(all_of_them).combine_chunks().to_batches()


def _stream(lake: Lake, there: Lake, name: str, scan: Scan) -> Iterator[pa.RecordBatch]:
    """The rows to look at, in the order they are laid down; those of bronze know whether they were in conflict."""
    if name != "raw_notifications":
        return there.stream(order_of(name), {"files": scan})
    rejected = lake.table("rejected_notifications").scan(reason=("duplicate_conflict", "duplicate_conflict "))
    return lake.stream("records_to_blank", {"records": scan, "conflicts": rejected})


def _everything(rows: pa.Table) -> pa.ChunkedArray:
    return pa.chunked_array([pa.repeat(pa.scalar(True), rows.num_rows)])


class _Blanking:
    """Blanks batches of rows and counts those that this changes."""

    def __init__(self, name: str, mask: Mask, bounds: Limits) -> None:
        self._blank = _BLANKED_COLUMNS[name]
        self._mask, self._limits = mask, bounds
        self.changed = 0

    def count(self, batches: Iterator[pa.RecordBatch]) -> None:
        for _ in self.blanked(batches):
            pass

    def blanked(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = pa.Table.from_batches([batch])
            places = pc.indices_nonzero(self._mask(rows).combine_chunks())
            if not len(places):
                yield batch
                continue
            chosen = rows.take(places)
            differs = pa.chunked_array([pa.repeat(pa.scalar(False), len(places))])
            for column, values in self._blank(chosen, self._limits).items():
                differs = pc.or_(differs, _differs(chosen[column], values))
                rows = rows.set_column(rows.schema.get_field_index(column), column, _put(rows[column], places, values))
            self.changed += pc.sum(differs).as_py() or 0
            yield from rows.combine_chunks().to_batches()


def _differs(before: pa.ChunkedArray, after: pa.Array) -> pa.ChunkedArray:
    if pa.types.is_map(before.type):
        pairs = zip(before.to_pylist(), after.to_pylist(), strict=True)
        return pa.chunked_array([pa.array([one != other for one, other in pairs], pa.bool_())])
    nulls = pc.not_equal(pc.is_null(before), pc.is_null(after))
    return pc.or_(nulls, pc.fill_null(pc.not_equal(before, after), False))


def _put(column: pa.ChunkedArray, places: pa.Array, values: pa.Array) -> pa.ChunkedArray:
    """`column` with `values` at `places`."""
    if len(places) == len(column):
        return values
    order = np.arange(len(column))
    order[places.to_numpy()] = len(column) + np.arange(len(places))
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return pa.chunked_array([*column.chunks, values.cast(column.type)]).take(pa.array(order))


# --- what is personal in each table ---------------------------------------------------------------------------------

_Columns = Mapping[str, pa.Array]


def _named(rows: pa.Table, _: Limits) -> _Columns:
    return {"customer_name": _all(NAME, rows)}


def _message(rows: pa.Table, _: Limits) -> _Columns:
    return {"payload": _all("", rows), "customer_name": _all(NAME, rows)}


def _record(rows: pa.Table, bounds: Limits) -> _Columns:
    values, _ = blank_records(rows, rows["conflicts"], bounds)
    return {"value": values, "key": pa.nulls(rows.num_rows, pa.binary())}


def _rejected(rows: pa.Table, bounds: Limits) -> _Columns:
    conflicts = pc.equal(rows["reason"], "duplicate_conflict")
    values, details = blank_records(rows, conflicts, bounds)
    duplicate = pc.starts_with(rows["reason"], "duplicate")  # its detail says which one was first
    return {"value": values, "detail": pc.if_else(duplicate, rows["detail"], pc.coalesce(details, rows["detail"]))}


def _answer(rows: pa.Table, _: Limits) -> _Columns:
    blank = pc.equal(pc.utf8_trim(rows["value"], characters=BLANK_CHARACTERS), "")
    return {"value": pc.if_else(blank, rows["value"], ANSWER)}


def _answers(rows: pa.Table, _: Limits) -> _Columns:
    kind = pa.map_(pa.string(), pa.string())
    return {"answers": pa.array([[(key, ANSWER) for key, _ in pairs] for pairs in rows["answers"].to_pylist()], kind)}


def _all(word: str, rows: pa.Table) -> pa.Array:
    return pa.repeat(pa.scalar(word), rows.num_rows)


_BLANKED_COLUMNS: Mapping[str, Callable[[pa.Table, Limits], _Columns]] = {
    "raw_notifications": _record,
    "rejected_notifications": _rejected,
    "notifications": _message,
    "minute_aggregates": _named,
    "customer_panel": _named,
    "daily_billing": _named,
    "billing_adjustments": _named,
    "chatbot_answers": _answer,
    "chatbot_reports": _answers,
}
