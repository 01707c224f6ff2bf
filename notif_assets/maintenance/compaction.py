"""Merges many small files into few sorted ones, in partitions that are no longer written to.

Belongs here: which files are worth merging, and the order of their rows. Doesn't: writing and
committing them (staging.py), the sorting itself (lake/engine.py).

Late messages arrive for old hours at any time, so a partition is never finished. A few new rows must not cause a
rewrite of millions: small files are merged with each other until they are large enough beside the big ones. One commit
covers many partitions, because each commit makes a batch of ingestion retry its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from math import ceil
from sys import maxsize

import pyarrow as pa

from notif_assets.lake import Lake, Schema, Table
from notif_assets.lake.pieces import largest_mean_row, pieces, whole_batches
from notif_assets.lake.staging import stage
from notif_assets.lake.tables import DataFile, Value
from notif_assets.maintenance.swaps import Swap, commit

QUIET = timedelta(hours=2)
"""How long after its end a partition is not compacted: every batch still writes to it."""

LATE = timedelta(days=45)
"""After this time few late messages arrive, so a large file is hardly ever rewritten."""

OPEN_FILES = 16
"""This many small files of an open partition become one: each batch reads them, and hourly compaction would leave
300."""

FILE_BYTES = 256 * 2**20
_OPEN_ROWS = 50_000
_SMALL_PARTITION_ROWS = 200_000
_REWRITE_RATIO = 8  # a file is rewritten once the smaller ones weigh an eighth of it
_SORTABLE_ROW_BYTES = 4_096
_COMMIT_ROWS = 5_000_000
_COMMIT_PARTITIONS = 500

BLANKED = "blanked"
"""The prefix of files without payloads and names, so that later redactions skip them."""


def compact(lake: Lake, name: str, now: datetime, fewest: int = 2) -> tuple[int, int, int]:
    """Merges the small files of quiet partitions, where there are at least `fewest`; gives how many partitions, files
    before and files after.

    No row and no watermark changes. A partition that changes meanwhile is either compacted or left as it is.
    """
    table = lake.table(name)
    waiting: list[Swap] = []
    merged: list[Swap] = []
    quiet = {partition for partition in table.partitions_of_several_files() if is_quiet(partition, now)}
    for partition, files in sorted(by_partition(table.data_files(quiet)).items()):
        schema = schema_of(table.schema, partition, now)
        for group in groups(schema, files):
            group = _sortable(table, group)
            if len(group) < fewest:
                continue
            waiting.append(Swap(partition, tuple(group), _merged(lake, table, schema, partition, group)))
            if sum(f.rows for s in waiting for f in s.old) >= _COMMIT_ROWS or len(waiting) >= _COMMIT_PARTITIONS:
                merged += _commit(lake, name, waiting)
                waiting = []
    merged += _commit(lake, name, waiting)
    return (
        len({swap.partition for swap in merged}),
        sum(len(swap.old) for swap in merged),
        sum(len(swap.new) for swap in merged),
    )


def merge_open_files(lake: Lake, name: str, now: datetime) -> int:
    """Merges the small files of open partitions, many at a time. Returns how many it merged.

    Their rows keep their order and their hidden columns (lake/keys.py). An open hour gets a file every few seconds, and
    each batch reads all of its files. No row and no watermark changes.
    """
    table = lake.table(name)
    open_now = {partition for partition in table.partitions_of_several_files() if not is_quiet(partition, now)}
    swaps = []
    for partition, files in sorted(by_partition(table.data_files(open_now)).items()):
        small = [file for file in files if file.rows <= _OPEN_ROWS and file.size <= FILE_BYTES / OPEN_FILES]
        if len(small) >= OPEN_FILES:
            small.sort(key=lambda file: (_first_batch(file), file.path))
            rows = whole_batches(table.scan_files(small))
            swaps.append(Swap(partition, tuple(small), stage(table, partition, rows, maxsize)))
    return sum(len(swap.old) for swap in _commit(lake, name, swaps))


def _commit(lake: Lake, name: str, swaps: Sequence[Swap]) -> list[Swap]:
    refused = commit(lake, name, swaps, same_rows=True, note="compaction")
    return [swap for swap in swaps if swap not in refused]


def schema_of(schema: Schema, partition: tuple[Value, ...], now: datetime) -> Schema:
    """The schema with the row limit of a file: the catalogue's, or the size limit alone in a sorted partition past
    LATE.

    Opening a table reads the log entries of all files. Without the row limit old partitions have a sixth of the files.
    """
    day = partition[0] if partition else None
    if schema.sort and isinstance(day, date) and day < (now - LATE).date():
        return replace(schema, file_rows=maxsize)
    return schema


def _merged(
    lake: Lake, table: Table, schema: Schema, partition: tuple[Value, ...], files: Sequence[DataFile]
) -> tuple[DataFile, ...]:
    rows = sum(file.rows for file in files)
    prefix = BLANKED if all(is_blanked(file) for file in files) else "part"
    return stage(table, partition, in_order(lake, table, files), ceil(rows / files_needed(schema, files)), prefix)


def in_order(lake: Lake, table: Table, files: Sequence[DataFile]) -> Iterator[pa.RecordBatch]:
    """The rows of some files in the table's sort order, by which readers skip row groups.

    The engine sorts. A table with values of unbounded length is read by batch, and its files are in that order already.
    """
    if table.schema.sort:
        yield from lake.sorted(table.scan_files(files), table.schema.sort)
        return
    for piece in pieces(table.scan_files(files)):
        yield from piece.to_batches()


def is_blanked(file: DataFile) -> bool:
    """Whether all payloads and names of the file are blanked."""
    return file.path.rpartition("/")[2].startswith(BLANKED)


def is_quiet(partition: tuple[Value, ...], now: datetime) -> bool:
    """Whether the partition's hour or day ended QUIET ago; a table without partitions may always be rewritten."""
    if not partition:
        return True
    day, *hour = partition
    assert isinstance(day, date)
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    end = start + (timedelta(hours=int(str(hour[0])) + 1) if hour else timedelta(days=1))
    return end + QUIET <= now


def groups(schema: Schema, files: Sequence[DataFile]) -> Iterator[list[DataFile]]:
    """The sets of files of one partition that are worth merging, each into fewer files."""
    yield from (
        group
        for group in group_by_order(schema, _worth_merging(schema, files))
        if len(group) > files_needed(schema, group)
    )


def _sortable(table: Table, files: Sequence[DataFile]) -> list[DataFile]:
    """The files whose rows the engine can sort: it holds some thousands of rows at once, of any size.

    A file with long rows is not merged: it is large already.
    """
    if not (table.schema.sort and table.schema.large):
        return list(files)
    return [file for file in files if largest_mean_row(str(table.path / file.path)) <= _SORTABLE_ROW_BYTES]


def group_by_order(schema: Schema, files: Sequence[DataFile]) -> list[list[DataFile]]:
    """Files of one partition in sets that are sorted together.

    A table that is read by batch is written in that order: neighbours form a set, up to the size of a file. In a table
    that is read by customer every file has every customer: all files form one set.
    """
    if (schema.sort or schema.statistics)[:1] != ("batch",):
        return [list(files)]
    sets: list[list[DataFile]] = [[]]
    for file in sorted(files, key=lambda file: (_first_batch(file), file.path)):
        if sets[-1] and files_needed(schema, [*sets[-1], file]) > 1:
            sets.append([])
        sets[-1].append(file)
    return sets


def _worth_merging(schema: Schema, files: Sequence[DataFile]) -> list[DataFile]:
    """The smaller files, up to the last one that is not too large beside the sum of those before it. Full files are
    left out, because merging them gains nothing. A few tiny files must not keep many files of one size from merging."""
    if sum(file.rows for file in files) <= _SMALL_PARTITION_ROWS:
        return list(files)
    by_size = sorted(files, key=lambda file: (file.rows, file.path))
    worth = weight = 0
    for number, file in enumerate(by_size, start=1):
        if file.rows <= _REWRITE_RATIO * weight:
            worth = number
        if max(file.rows / schema.file_rows, file.size / FILE_BYTES) <= 1 / 2:
            weight += file.rows
    return by_size[:worth]


def files_needed(schema: Schema, files: Sequence[DataFile]) -> int:
    """How many files these rows need; at least 1."""
    rows, size = sum(file.rows for file in files), sum(file.size for file in files)
    return max(1, ceil(rows / schema.file_rows), ceil(size / FILE_BYTES))


def _first_batch(file: DataFile) -> int:
    first = file.bounds("batch")[0]
    return first if isinstance(first, int) else 0


def by_partition(files: Sequence[DataFile]) -> dict[tuple[Value, ...], list[DataFile]]:
    """The files of each partition."""
    found: dict[tuple[Value, ...], list[DataFile]] = {}
    for file in files:
        found.setdefault(file.partition, []).append(file)
    return found
