"""Rows written as data files that no snapshot has yet.

Belongs here: the files, the statistics that the Delta log will have of them, the commit of rows that come in pieces,
and the exchange of a few rows, file by file. Doesn't: the commit itself (tables.py), which rows (notifications/,
maintenance/).

Memory holds the rows of one row group of each file that is being written, whatever there is to write in all.
"""

import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from notif_assets.lake.catalogue import Schema
from notif_assets.lake.keys import hidden_fields
from notif_assets.lake.pieces import PIECE_BYTES, coalesce, cut_rows, pieces, pieces_having, rows_having
from notif_assets.lake.tables import DataFile, Table, Value, as_statistics

T = TypeVar("T")
U = TypeVar("U")
KeysByPartition: TypeAlias = dict[tuple[Value, ...], pa.Table]
"""Keys of rows, by the partition that they are in."""

# A query for one customer reads the row groups that hold it: one or two in a sorted file of an hour.
_GROUP_ROWS = 32_768
# By so many of its first rows a column is judged.
_SAMPLE_ROWS = 1_024
# A reader holds a row group's rows at once.
_GROUP_BYTES = PIECE_BYTES
_FILE_BYTES = 2 * 2**30  # of rows, before they are compressed
_APPENDED_AT_ONCE = 4 * PIECE_BYTES
_WORTH_THREADS = 8
# A late row costs the rewriting of one cluster, and a batch reads the log of all there are.
_CLUSTER_ROWS = 4_096
# Of minutes, some 100 MB with what counts them.
_MERGED_KEYS = 262_144
# A larger file was compacted, and keeps its order.
_CLUSTERED_ROWS = 32_768
# Text can be long and personal, so only a column that the catalogue names gets bounds of text.
_BOUNDED = (pa.types.is_integer, pa.types.is_date, pa.types.is_timestamp)


def stage(
    table: Table,
    partition: tuple[Value, ...],
    batches: Iterable[pa.RecordBatch],
    rows_per_file: int,
    prefix: str = "part",
) -> tuple[DataFile, ...]:
    """Writes the rows of one partition, in the order given, as uncommitted files of about `rows_per_file`."""
    staging = _Staging(table, partition, rows_per_file, prefix)
    step = min(_GROUP_ROWS, staging.rows_per_file)
    try:
        for batch in batches:
            for start in range(0, batch.num_rows, step):
                for piece in cut_rows(pa.Table.from_batches([batch.slice(start, step)]), _GROUP_BYTES):
                    staging.add(piece)
        return staging.finish()
    except BaseException:
        staging.abandon()
        raise


def discard(table: Table, files: Iterable[DataFile]) -> None:
    """Deletes staged files that were never committed."""
    for file in files:
        (table.path / file.path).unlink(missing_ok=True)


def append(
    table: Table, tables: Iterable[pa.Table], batch: int | None = None, note: Mapping[str, Any] | None = None
) -> int:
    """Appends rows that come in pieces, in one commit that moves the watermark to `batch` (default: one more); gives
    how many there were. No rows commit too.

    Rows may have the hidden column of keys.py. What is written waits on disk for the commit, not in memory. Raises
    LostRace and LakeError, and what `some` raises.
    """
    schema = table.schema.arrow
    typed = (_typed(schema, rows) for rows in tables)
    staged: list[DataFile] = []
    try:
        with table.writing():
            for rows in coalesce(typed, _APPENDED_AT_ONCE):
                staged += _staged_by_partition(table, rows)
    except BaseException:
        discard(table, staged)
        raise
    # From here on the files may be committed, whatever is raised: vacuum takes them if they are not.
    table.swap([], staged, table.watermark + 1 if batch is None else batch, note=note)
    return sum(file.rows for file in staged)


def _typed(schema: pa.Schema, rows: pa.Table) -> pa.Table:
    """The rows as the catalogue has them, with the hidden column if they have it; refuses nulls where none may be."""
    whole = pa.schema([*schema, *hidden_fields(rows)])
    return rows.select(whole.names).cast(whole)


def exchange(table: Table, keys: pa.Table, rows: pa.Table, batch: int) -> None:
    """Replaces the rows that have one of `keys` by `rows`, in one commit that moves the watermark to `batch`.

    `keys` has the table's partition columns and others that the catalogue keeps statistics of, or texts. A file that
    holds none of them stays as it is, so that a few late rows cost the rewriting of the files they lie in, and no more;
    the new rows come as files of their own. In a table with a cluster column, small files that may hold a key are laid
    down anew with the new rows: a partition that is written to often has a few files, each with a range of its own.
    Raises LostRace, LakeError.
    """
    _exchange(table, [rows_by_partition(table.schema, keys)], lambda _keys, _before: rows, batch)


def merge(table: Table, keys: pa.Table, merged: Callable[[KeysByPartition, pa.Table], pa.Table], batch: int) -> int:
    """As exchange, by what `merged` makes of keys and of the rows that have one of them; gives how many rows it made.

    It is called for as many partitions at a time as have about _MERGED_KEYS keys, and memory holds the rows of those:
    of a table with values of any length none are given.
    """
    return _exchange(table, _slices(rows_by_partition(table.schema, keys)), merged, batch)


def _slices(keys: KeysByPartition) -> Iterator[KeysByPartition]:
    """The keys in slices of about _MERGED_KEYS, those of a partition in one."""
    some: KeysByPartition = {}
    for partition, of_partition in keys.items():
        some[partition] = of_partition
        if sum(map(len, some.values())) >= _MERGED_KEYS:
            yield some
            some = {}
    if some:
        yield some


def _exchange(
    table: Table,
    slices: Iterable[KeysByPartition],
    merged: Callable[[KeysByPartition, pa.Table], pa.Table],
    batch: int,
) -> int:
    none = table.schema.arrow.empty_table()
    removed: list[DataFile] = []
    added: list[DataFile] = []
    made = 0
    with table.writing():
        for keys in slices:
            changed = _split_files(table, keys)
            before = pa.concat_tables([none, *(parts.matching for _, parts in changed)])
            rows = _typed(none.schema, merged(keys, before))
            removed += [file for file, _ in changed]
            added += [new for _, parts in changed for new in parts.staged]
            added += _staged_by_partition(table, pa.concat_tables([rows, *(parts.others for _, parts in changed)]))
            made += len(rows)
    table.swap(removed, added, batch)
    return made


def _split_files(table: Table, keys: KeysByPartition) -> list[tuple[DataFile, "_Split"]]:
    """The files that have a row of one of `keys`, or are laid down anew, each with its rows told apart."""
    wanted = {partition: rows.drop_columns(list(table.schema.partition_by)) for partition, rows in keys.items()}
    numbers = {partition: _numbers(rows) for partition, rows in wanted.items()}
    candidates = table.data_files(wanted.keys())
    files = [file for file in candidates if _is_tiny(table, file) or _may_hold(file, numbers[file.partition])]
    split = _map_parallel(lambda file: _split_file(table, file, wanted[file.partition]), files)
    return [(file, parts) for file, parts in zip(files, split, strict=True) if parts is not None]


def _staged_by_partition(table: Table, rows: pa.Table) -> list[DataFile]:
    """The rows as a file for each of their partitions, or several where they are many or lie in clusters."""
    of = rows_by_partition(table.schema, rows)
    files = [(partition, tables) for partition, of_one in of.items() for tables in _clusters(table.schema, of_one)]
    staged = _map_parallel(lambda file: stage(table, file[0], file[1].to_batches(), len(rows)), files)
    return [file for files in staged for file in files]


def _clusters(schema: Schema, rows: pa.Table) -> Iterator[pa.Table]:
    """Rows of one partition in sets of at least _CLUSTER_ROWS, no value of the cluster column in two of them."""
    if not schema.cluster or len(rows) <= _CLUSTER_ROWS:
        yield rows
        return
    rows = rows.sort_by(schema.cluster)
    values = rows[schema.cluster].to_numpy()
    begins = np.flatnonzero(values[1:] != values[:-1]) + 1
    start = 0
    for begin in begins.tolist():
        if begin - start >= _CLUSTER_ROWS and len(rows) - begin >= _CLUSTER_ROWS:
            yield rows.slice(start, begin - start)
            start = begin
    yield rows.slice(start)


def _map_parallel(step: Callable[[T], U], items: Sequence[T]) -> list[U]:
    """`step` of each item, on all cores if they are many; each holds the rows of one file and leaves files behind."""
    if len(items) < _WORTH_THREADS:
        return [step(item) for item in items]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(step, items))


def rows_by_partition(schema: Schema, rows: pa.Table) -> dict[tuple[Value, ...], pa.Table]:
    """`rows`, which have at least the partition columns of the table, by partition."""
    order = [(name, "ascending") for name in schema.partition_by]
    counts = rows.group_by(list(schema.partition_by), use_threads=False).aggregate([([], "count_all")]).sort_by(order)
    if len(counts) > 1:
        rows = rows.sort_by(order)
    ends = np.cumsum(counts["count_all"].to_numpy()).tolist()
    partitions = zip(*(counts[name].to_pylist() for name in schema.partition_by), strict=True)
    return {
        partition: rows.slice(start, end - start)
        for partition, (start, end) in zip(partitions, pairwise([0, *ends]), strict=True)
    }


def _numbers(keys: pa.Table) -> dict[str, npt.NDArray[np.int64]]:
    """The columns that compare as numbers; timestamps as microseconds."""
    return {
        name: pc.cast(keys[name], pa.int64()).to_numpy()
        for name in keys.column_names
        if not pa.types.is_string(keys[name].type)
    }


def _may_hold(file: DataFile, keys: Mapping[str, npt.NDArray[np.int64]]) -> bool:
    """Whether the file's statistics leave room for one of the keys."""
    possible: Any = True
    for column, values in keys.items():
        low, high = file.bounds(column)
        if isinstance(low, str):  # a timestamp, to the millisecond
            low, high = _microseconds(low), _microseconds(high) + 1_000
        if low is not None:
            possible &= (values >= low) & (values <= high)
    return bool(np.any(possible))


def _microseconds(text: str) -> int:
    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@dataclass(frozen=True)
class _Split:
    """A file's rows split by some keys: those that have one, and the others, either staged again or to be written with
    new rows."""

    matching: pa.Table
    others: pa.Table
    staged: tuple[DataFile, ...] = ()


def _split_file(table: Table, file: DataFile, keys: pa.Table) -> _Split | None:
    """The rows of a file by whether they have one of the keys; None if the file may stay as it is.

    Of a table with values of any length rows stay on disk: none are given.
    """
    scan = table.scan_files([file])
    none = table.schema.arrow.empty_table()
    if table.schema.large:
        if next(pieces_having(scan, keys, keys.column_names), None) is None:
            return None
        kept = (piece.filter(pa.array(~rows_having(piece, keys))) for piece in pieces(scan))
        return _Split(none, none, _restage(table, file, kept))
    rows = pa.concat_tables([none, *pieces(scan)])
    having = rows_having(rows, keys)
    taken, left = rows.filter(pa.array(having)), rows.filter(pa.array(~having))
    if table.schema.cluster and file.rows <= _CLUSTERED_ROWS:
        return _Split(taken, left)
    return _Split(taken, none, _restage(table, file, [left])) if having.any() else None


def _is_tiny(table: Table, file: DataFile) -> bool:
    """Whether the file is rewritten together with any new rows of its partition."""
    return bool(table.schema.cluster) and file.rows < _CLUSTER_ROWS


def _restage(table: Table, file: DataFile, kept: Iterable[pa.Table]) -> tuple[DataFile, ...]:
    """These rows of a file as another one. What the file's name says of its rows holds of those that stay."""
    prefix = file.path.rpartition("/")[2].partition("-")[0]
    batches = (batch for piece in kept for batch in piece.to_batches())
    return stage(table, file.partition, batches, max(1, file.rows), prefix)


class _Staging:
    def __init__(self, table: Table, partition: tuple[Value, ...], rows_per_file: int, prefix: str) -> None:
        self._table, self._partition, self._prefix = table, partition, prefix
        self.rows_per_file = max(1, rows_per_file)
        by = table.schema.partition_by
        self._schema = pa.schema([field for field in table.schema.arrow if field.name not in by])
        self._folder = "".join(f"{c}={value}/" for c, value in zip(by, partition, strict=True))
        self._columns = _columns_with_bounds(table.schema)
        self._small = [field.name for field in self._schema if field.name not in table.schema.large]
        self._waiting: list[pa.Table] = []
        self._waiting_bytes = 0
        self._files: list[DataFile] = []
        self._open: tuple[str, pq.ParquetWriter] | None = None
        self._rows = self._bytes = 0
        self._bounds: dict[str, dict[str, Any]] = {}

    def add(self, rows: pa.Table) -> None:
        """Takes rows, which have at most _GROUP_ROWS and about _GROUP_BYTES."""
        if self._waiting and self._waiting_bytes + rows.nbytes > _GROUP_BYTES:
            self._flush()
        self._waiting.append(rows)
        self._waiting_bytes += rows.nbytes
        if sum(len(waiting) for waiting in self._waiting) >= min(_GROUP_ROWS, self.rows_per_file):
            self._flush()

    def finish(self) -> tuple[DataFile, ...]:
        self._flush()
        self._close()
        return tuple(self._files)

    def abandon(self) -> None:
        """Deletes what was written."""
        if self._open is not None:
            path, writer = self._open
            with suppress(pa.ArrowException, OSError):
                writer.close()
            (self._table.path / path).unlink(missing_ok=True)
            self._open = None
        discard(self._table, self._files)

    def _flush(self) -> None:
        if not self._waiting:
            return
        schema = pa.schema([*self._schema, *hidden_fields(self._waiting[0])])
        group = pa.concat_tables(self._waiting).select(schema.names).cast(schema)
        self._waiting, self._waiting_bytes = [], 0
        if self._open is None:
            self._table.create()  # files without a log are a damaged table
            path = f"{self._folder}{self._prefix}-{uuid.uuid4()}.zstd.parquet"
            (self._table.path / self._folder).mkdir(parents=True, exist_ok=True)
            writer = pq.ParquetWriter(
                self._table.path / path,
                schema,
                compression="zstd",
                compression_level=1,
                use_dictionary=_repeating(group.select(self._small)),
                write_statistics=self._small,
                write_page_checksum=True,  # with it `check` finds a damaged page
            )
            self._open, self._rows, self._bytes, self._bounds = (path, writer), 0, 0, {}
        self._open[1].write_table(group, row_group_size=len(group))
        self._rows += len(group)
        self._bytes += group.nbytes
        for name in self._columns:
            _widen(self._bounds.setdefault(name, {"nulls": 0}), group[name])
        if self._rows >= self.rows_per_file or self._bytes >= _FILE_BYTES:
            self._close()

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
                "minValues": {n: as_statistics(b["min"]) for n, b in self._bounds.items() if "min" in b},
                "maxValues": {n: as_statistics(_round_up(b["max"])) for n, b in self._bounds.items() if "max" in b},
                "nullCount": {n: b["nulls"] for n, b in self._bounds.items()},
            },
            ensure_ascii=False,
        )


def _repeating(rows: pa.Table) -> list[str]:
    """The columns of which values come again, by the first rows. A dictionary of others, as of offsets and ids, takes
    longer to write than they do, and more room."""
    tables = rows.slice(0, _SAMPLE_ROWS)
    flat = [name for name in tables.column_names if not pa.types.is_nested(tables[name].type)]
    return [name for name in flat if 2 * pc.count_distinct(tables[name]).as_py() <= len(tables)]


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


def _round_up(value: Any) -> Any:
    """The log keeps milliseconds: a maximum is rounded up, so that it stays one."""
    if isinstance(value, datetime) and value.microsecond % 1000:
        return value + timedelta(microseconds=1000 - value.microsecond % 1000)
    return value
