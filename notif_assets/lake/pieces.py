"""Rows in pieces of bounded bytes, for every step over values that a producer may make as large as it likes.

Belongs here: reading data files piece by piece, and cutting or gathering rows by their bytes. Doesn't: questions that
name no large column (engine.py: the engine is faster for those), writing (staging.py).

The engine holds some thousands of rows at once whatever they weigh. Of a message of kilobytes that is nothing, of one
of megabytes it is more memory than the machine has.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from notif_assets.lake.tables import Bounds, LakeError, OutOfMemory, Scan, Value

PIECE_BYTES = 16 * 2**20
"""About the most bytes of a piece: as many as a message may have by default, so that the largest is one piece."""

# A dictionary says how long its values are, not how often they come: of such a column few rows are read at once.
_ROWS_OF_A_DICTIONARY = 1_024
_READ_AHEAD = 2**20
_LARGE_ROW = 2**18
NO_MEMORY = "the machine has no memory left for it"


def pieces(
    scan: Scan, columns: Sequence[str] | None = None, most: int = PIECE_BYTES, keys: pa.Table | None = None
) -> Iterator[pa.Table]:
    """The rows of a scan in the order of its files, `columns` of them (default: all), never empty tables.

    A piece holds about `most` bytes, or one row that has more. With `keys`, row groups whose statistics leave no room
    for one of these are not read. Raises LakeError for a file that can't be read.
    """
    numbers = {} if keys is None else _numbers(keys)
    for number, path in enumerate(scan.files):
        partition = {column: values[number] for column, values in scan.partition_values.items()}
        yield from _pieces_of_file(scan, path, partition, columns, most, numbers)


def _numbers(keys: pa.Table) -> dict[str, npt.NDArray[np.int64]]:
    """The columns of whole numbers."""
    return {name: keys[name].to_numpy() for name in keys.column_names if pa.types.is_integer(keys[name].type)}


def _pieces_of_file(
    scan: Scan,
    path: str,
    partition: dict[str, Value],
    columns: Sequence[str] | None,
    most: int,
    keys: Mapping[str, npt.NDArray[np.int64]],
) -> Iterator[pa.Table]:
    wanted = pa.schema([field for field in scan.schema.arrow if columns is None or field.name in columns])
    bounds = {column: edges for column, edges in scan.bounds.items() if edges != (None, None)}
    needed = [*wanted.names, *(column for column in bounds if column not in wanted.names)]
    stored = [name for name in needed if name not in partition]
    with as_lake_errors(scan, path):
        for batch in batches_of_file(path, stored, bounds, most, keys=keys):
            read = _with_partition(scan, batch, needed, partition)
            yield from cut_rows(_within(read, bounds).select(wanted.names), most)


@contextmanager
def as_lake_errors(scan: Scan, path: str) -> Iterator[None]:
    """Raises the errors of reading a data file of the scan as LakeError."""
    try:
        yield
    except (pa.ArrowMemoryError, MemoryError) as error:
        raise OutOfMemory(f"{path} can't be read: {NO_MEMORY}") from error
    except (pa.ArrowException, OSError) as error:
        raise LakeError(
            f"table {scan.schema.name}: the data file {path} can't be read; `notif-assets check` says what repairs it"
        ) from error


def batches_of_file(
    path: str,
    columns: Sequence[str],
    bounds: Mapping[str, Bounds],
    most: int = PIECE_BYTES,
    *,
    verify: bool = False,
    keys: Mapping[str, npt.NDArray[np.int64]] | None = None,
) -> Iterator[pa.RecordBatch]:
    """The rows of a data file in batches of about `most` bytes, less row groups that can hold none within `bounds`, or
    none with one of `keys`: their numbers by column, aligned.

    `verify` holds each page against its checksum. Raises pa.ArrowException, OSError, MemoryError.
    """
    with open_data_file(path, verify=verify) as file:
        for group in range(file.num_row_groups):
            about = file.metadata.row_group(group)
            if _may_hold(about, bounds) and (not keys or _may_hold_one(about, keys)):
                rows = _rows_at_once(about, columns, most)
                yield from file.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False)


def whole_batches(scan: Scan, most: int = PIECE_BYTES) -> Iterator[pa.RecordBatch]:
    """The rows of the scan's files in batches of about `most` bytes, whatever its bounds, with all columns that each of
    the files has: hidden ones too, and no partition columns. Raises LakeError."""
    names = []
    for path in scan.files:
        with as_lake_errors(scan, path), open_data_file(path) as file:
            names.append(file.schema_arrow.names)
    columns = [name for name in names[0] if all(name in others for others in names)] if names else []
    for path in scan.files:
        with as_lake_errors(scan, path):
            yield from batches_of_file(path, columns, {}, most)


def open_data_file(path: str, *, verify: bool = False) -> pq.ParquetFile:
    """A data file of any version of this project. Raises as batches_of_file."""
    # A buffer, or a column of a whole row group would be read at once. Older files have whole values for statistics.
    options = {"buffer_size": _READ_AHEAD, "thrift_string_size_limit": 2**31 - 1}
    return pq.ParquetFile(path, page_checksum_verification=verify, **options)


def largest_mean_row(path: str) -> int:
    """The mean bytes of a row in that row group of a data file where it is greatest. Raises LakeError."""
    try:
        about = pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        raise LakeError(f"the data file {path} can't be read; `notif-assets check` says what repairs it") from error
    groups = (about.row_group(number) for number in range(about.num_row_groups))
    return max((group.total_byte_size // max(group.num_rows, 1) for group in groups), default=0)


def _rows_at_once(group: pq.RowGroupMetaData, columns: Sequence[str], most: int) -> int:
    """How many rows of a row group weigh about `most`, judged by their mean."""
    size, rows = 0, most
    for number in range(group.num_columns):
        column = group.column(number)
        if column.path_in_schema.partition(".")[0] in columns:
            size += column.total_uncompressed_size
            if column.physical_type == "BYTE_ARRAY" and column.has_dictionary_page:
                # No value is longer than the dictionary: of short ones, as a topic's name, many rows are.
                rows = min(rows, max(_ROWS_OF_A_DICTIONARY, most // max(column.total_uncompressed_size, 1)))
    return max(1, min(rows, most * int(group.num_rows) // max(size, 1)))


def _may_hold(group: pq.RowGroupMetaData, bounds: Mapping[str, Bounds]) -> bool:
    """Whether the statistics of a row group leave room for a row within the bounds."""
    for number in range(group.num_columns):
        column = group.column(number)
        low, high = bounds.get(column.path_in_schema, (None, None))
        if not isinstance(low, int | None) or not isinstance(high, int | None) or not column.is_stats_set:
            continue
        if not column.statistics.has_min_max:
            continue
        if (low is not None and column.statistics.max < low) or (high is not None and column.statistics.min >= high):
            return False
    return True


def _may_hold_one(group: pq.RowGroupMetaData, keys: Mapping[str, npt.NDArray[np.int64]]) -> bool:
    """Whether the statistics of a row group leave room for a row with one of the keys."""
    possible: Any = True
    for number in range(group.num_columns):
        column = group.column(number)
        if column.path_in_schema in keys and column.is_stats_set and column.statistics.has_min_max:
            values, statistics = keys[column.path_in_schema], column.statistics
            possible &= (values >= statistics.min) & (values <= statistics.max)
    return bool(np.any(possible))


def _with_partition(scan: Scan, batch: pa.RecordBatch, names: Sequence[str], partition: dict[str, Value]) -> pa.Table:
    """The batch with the columns that its file does not have: those of the partition, and null for newer ones."""
    schema = pa.schema([scan.schema.arrow.field(name) for name in names])
    columns = [
        pa.repeat(pa.scalar(partition[field.name], field.type), batch.num_rows)
        if field.name in partition
        else batch[field.name].cast(field.type)
        if field.name in batch.schema.names
        else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _within(rows: pa.Table, bounds: Mapping[str, Bounds]) -> pa.Table:
    keep = None
    for column, (low, high) in bounds.items():
        for edge, holds in ((low, pc.greater_equal), (high, pc.less)):
            if edge is not None:
                mask = pc.fill_null(holds(rows[column], pa.scalar(edge, rows[column].type)), False)
                keep = mask if keep is None else pc.and_(keep, mask)
    return rows if keep is None else rows.filter(keep)


def cut_rows(rows: pa.Table, most: int = PIECE_BYTES) -> Iterator[pa.Table]:
    """The rows in slices of at most `most` bytes, or of one row that has more; none for no rows."""
    if rows.num_rows and rows.nbytes <= most:
        yield rows
        return
    for start, end in spans(bytes_of_rows(rows), most):
        yield rows.slice(start, end - start)


def spans(sizes: npt.NDArray[np.int64], most: int = PIECE_BYTES) -> Iterator[tuple[int, int]]:
    """Rows of these sizes in bytes → [start, end) of as many at a time as have `most`, or of one that has more.

    >>> list(spans(np.array([4, 6, 1, 30, 0, 0]), 10))
    [(0, 2), (2, 3), (3, 4), (4, 6)]
    """
    up_to = np.cumsum(sizes)
    start = 0
    while start < len(up_to):
        before = up_to[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(up_to, before + most, "right")))
        yield start, end
        start = end


def bytes_of_rows(rows: pa.Table) -> npt.NDArray[np.int64]:
    """How many bytes each row has, about: its texts to the byte, and 8 for every other column."""
    sizes = np.full(rows.num_rows, 8 * rows.num_columns, np.int64)
    for column in rows.columns:
        if pa.types.is_binary(column.type) or pa.types.is_string(column.type):
            sizes += pc.fill_null(pc.binary_length(column), 0).to_numpy()
    return sizes


def coalesce(tables: Iterable[pa.Table], most: int = PIECE_BYTES) -> Iterator[pa.Table]:
    """Concatenates small pieces up to `most` bytes. A larger piece stays alone, and so does a piece of few large rows:
    a larger read does not make these faster."""
    held: list[pa.Table] = []
    size, alone = 0, False
    for piece in tables:
        large = piece.nbytes > _LARGE_ROW * piece.num_rows
        if held and (size + piece.nbytes > most or large or alone):
            yield pa.concat_tables(held)
            held, size = [], 0
        held.append(piece)
        size, alone = size + piece.nbytes, large
    if held:
        yield pa.concat_tables(held)


def rows_having(rows: pa.Table, keys: pa.Table) -> npt.NDArray[np.bool_]:
    """Which rows have one of `keys` in all of its columns."""
    possible = np.ones(rows.num_rows, bool)
    for column in keys.column_names:
        possible &= pc.is_in(rows[column], value_set=keys[column]).to_numpy()
    found = np.flatnonzero(possible)
    if not len(found) or keys.num_columns == 1:
        return possible
    near = rows.select(keys.column_names).take(pa.array(found)).append_column("place", pa.array(found))
    having = near.join(keys, keys=keys.column_names, join_type="left semi", use_threads=False)["place"]
    mask = np.zeros(rows.num_rows, bool)
    mask[having.to_numpy()] = True
    return mask


def pieces_having(scan: Scan, keys: pa.Table, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows of a scan that have one of `keys`, in pieces; nothing is read for no keys, nor of row groups whose
    statistics leave no room for one."""
    if not keys.num_rows:
        return
    needed = None if columns is None else list(dict.fromkeys(chain(columns, keys.column_names)))
    for piece in pieces(scan, needed, keys=keys):
        mask = rows_having(piece, keys)
        if mask.any():
            found = piece if mask.all() else piece.filter(pa.array(mask))
            yield found if columns is None else found.select(columns)


def values_at(scan: Scan, column: str, files: pa.Array, rows: pa.Array) -> pa.Array:
    """The values of a column at these positions (see Scan.with_positions), in their order. They are held all at once.

    Of a file only the row groups are read that have one of them, in batches. Raises LakeError.
    """
    of_files, in_file = files.to_numpy(), rows.to_numpy()
    order = np.lexsort((in_file, of_files))
    found: list[pa.Array] = [pa.array([], scan.schema.arrow.field(column).type)]
    for number in np.unique(of_files):
        wanted = in_file[order][of_files[order] == number]
        found += _values_of_file(scan, scan.files[number], column, wanted)
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return pa.concat_arrays(found).take(pa.array(back))


def _values_of_file(scan: Scan, path: str, column: str, wanted: npt.NDArray[np.int64]) -> Iterator[pa.Array]:
    with as_lake_errors(scan, path), open_data_file(path) as file:
        first = 0
        for group in range(file.num_row_groups):
            about = file.metadata.row_group(group)
            of_group = wanted[(first <= wanted) & (wanted < first + about.num_rows)]
            if len(of_group):
                at = first
                rows = _rows_at_once(about, [column], PIECE_BYTES)
                for batch in file.iter_batches(rows, row_groups=[group], columns=[column], use_threads=False):
                    here = of_group[(at <= of_group) & (of_group < at + batch.num_rows)]
                    if len(here):
                        yield batch[column].take(pa.array(here - at)).cast(scan.schema.arrow.field(column).type)
                    at += batch.num_rows
            first += about.num_rows
