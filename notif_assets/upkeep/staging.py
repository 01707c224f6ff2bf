"""Data files written aside and then swapped in, for every job that rewrites rows without moving a watermark.

Belongs here: writing rows as files that no reader sees yet, and the one commit that puts them in the place of others.
Doesn't: which files (compaction.py, blanking.py, rebuild.py).

Sorting an hour takes seconds and a commit milliseconds. Written first and committed afterwards, with a handle opened
only then, upkeep neither holds up ingestion nor loses every race against it. What is left behind by a killed job
belongs to no snapshot and goes with the vacuum.
"""

import json
import os
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from notif_assets.lake import Lake, LostRace, Schema, Table, until_committed
from notif_assets.lake.tables import DataFile, Value, in_statistics

_GROUP_ROWS = 131_072
_GROUP_BYTES = 64 * 2**20
# Text can be long and personal, so only a column that the catalogue names gets bounds of text.
_BOUNDED = (pa.types.is_integer, pa.types.is_date, pa.types.is_timestamp)


@dataclass(frozen=True)
class Swap:
    """Files of one partition and those to put in their place.

    `whole` means that `old` are all files of the partition, and that it is off if any came or went meanwhile.
    """

    partition: tuple[Value, ...]
    old: tuple[DataFile, ...]
    new: tuple[DataFile, ...]
    whole: bool = False


def stage(
    table: Table,
    partition: tuple[Value, ...],
    batches: Iterable[pa.RecordBatch],
    rows_per_file: int,
    prefix: str = "part",
) -> tuple[DataFile, ...]:
    """Writes the rows of one partition, in the order given, as files of about `rows_per_file` that nobody sees yet."""
    staging = _Staging(table, partition, rows_per_file, prefix)
    for batch in batches:
        for start in range(0, batch.num_rows, staging.rows_per_file):
            staging.add(batch.slice(start, staging.rows_per_file))
    return staging.finish()


def discard(table: Table, files: Iterable[DataFile]) -> None:
    """Deletes staged files that were never committed."""
    for file in files:
        (table.path / file.path).unlink(missing_ok=True)


def commit(lake: Lake, name: str, swaps: Sequence[Swap], *, same_rows: bool, note: str) -> list[Swap]:
    """Makes all swaps that can still be made in one commit and gives those that can't: their files have changed."""

    def attempt() -> list[Swap]:
        table = lake.table(name)
        present = table.data_files()
        possible = [swap for swap in swaps if _possible(swap, present)]
        if any(swap.old or swap.new for swap in possible):
            table.swap(
                [file for swap in possible for file in swap.old],
                [file for swap in possible for file in swap.new],
                same_rows=same_rows,
                note={"upkeep": note},
            )
        refused = [swap for swap in swaps if swap not in possible]
        for swap in refused:
            discard(table, swap.new)
        return refused

    return until_committed(attempt) if swaps else []


def _possible(swap: Swap, present: Sequence[DataFile]) -> bool:
    there = {file.path for file in present if file.partition == swap.partition}
    old = {file.path for file in swap.old}
    return there == old if swap.whole else old <= there


def rewrite_whole(lake: Lake, table: Table, swaps: Sequence[Swap], note: str) -> None:
    """Commits swaps of whole partitions. Raises LostRace if one is off, so that the caller looks again."""
    if commit(lake, table.schema.name, swaps, same_rows=False, note=note):
        raise LostRace(table.schema.name)


class _Staging:
    def __init__(self, table: Table, partition: tuple[Value, ...], rows_per_file: int, prefix: str) -> None:
        self._table, self._partition, self._prefix = table, partition, prefix
        self.rows_per_file = max(1, rows_per_file)
        by = table.schema.partition_by
        self._schema = pa.schema([field for field in table.schema.arrow if field.name not in by])
        self._folder = "".join(f"{c}={value}/" for c, value in zip(by, partition, strict=True))
        self._columns = _columns_with_bounds(table.schema)
        self._waiting: list[pa.RecordBatch] = []
        self._files: list[DataFile] = []
        self._open: tuple[str, pq.ParquetWriter] | None = None
        self._rows = 0
        self._bounds: dict[str, dict[str, Any]] = {}

    def add(self, batch: pa.RecordBatch) -> None:
        self._waiting.append(batch)
        rows = sum(b.num_rows for b in self._waiting)
        if rows >= min(_GROUP_ROWS, self.rows_per_file) or sum(b.nbytes for b in self._waiting) >= _GROUP_BYTES:
            self._flush()
            if self._rows >= self.rows_per_file:
                self._close()

    def finish(self) -> tuple[DataFile, ...]:
        self._flush()
        self._close()
        return tuple(self._files)

    def _flush(self) -> None:
        if not sum(batch.num_rows for batch in self._waiting):
            return
        group = pa.Table.from_batches(self._waiting).select(self._schema.names).cast(self._schema)
        self._waiting = []
        if self._open is None:
            path = f"{self._folder}{self._prefix}-{uuid.uuid4()}.zstd.parquet"
            (self._table.path / self._folder).mkdir(parents=True, exist_ok=True)
            writer = pq.ParquetWriter(
                self._table.path / path,
                self._schema,
                compression="zstd",
                compression_level=1,
                write_page_checksum=True,  # by which `check` finds a page that is no longer what was written
            )
            self._open, self._rows, self._bounds = (path, writer), 0, {}
        self._open[1].write_table(group, row_group_size=len(group))
        self._rows += len(group)
        for name in self._columns:
            _widen(self._bounds.setdefault(name, {"nulls": 0}), group[name])

    def _close(self) -> None:
        if self._open is None:
            return
        path, writer = self._open
        writer.close()
        full = self._table.path / path
        with full.open("rb") as written:
            os.fsync(written)  # the rows it replaces will be gone one day
        self._files.append(DataFile(path, self._partition, self._rows, full.stat().st_size, self._statistics()))
        self._open = None

    def _statistics(self) -> str:
        return json.dumps(
            {
                "numRecords": self._rows,
                "minValues": {n: in_statistics(b["min"]) for n, b in self._bounds.items() if "min" in b},
                "maxValues": {n: in_statistics(_up(b["max"])) for n, b in self._bounds.items() if "max" in b},
                "nullCount": {n: b["nulls"] for n, b in self._bounds.items()},
            },
            ensure_ascii=False,
        )


def _columns_with_bounds(schema: Schema) -> list[str]:
    """The catalogue's choice; without one, what Delta would take by itself, less text."""
    columns = [field for field in schema.arrow if field.name not in schema.partition_by]
    bounded = {field.name for field in columns if any(is_(field.type) for is_ in _BOUNDED)}
    texts = {field.name for field in columns if pa.types.is_string(field.type)}
    if schema.statistics:
        return [name for name in schema.statistics if name in bounded | texts]
    return [field.name for field in columns if field.name in bounded]


def _widen(bounds: dict[str, Any], column: pa.ChunkedArray) -> None:
    found = pc.min_max(column).as_py()
    bounds["nulls"] += column.null_count
    if found["min"] is not None:
        bounds["min"] = min(bounds.get("min", found["min"]), found["min"])
        bounds["max"] = max(bounds.get("max", found["max"]), found["max"])


def _up(value: Any) -> Any:
    """The log keeps milliseconds: a maximum is rounded up, so that it stays one."""
    if isinstance(value, datetime) and value.microsecond % 1000:
        return value + timedelta(microseconds=1000 - value.microsecond % 1000)
    return value
