"""Many small files to few sorted ones, in partitions that have gone quiet.

Belongs here: which files are worth merging, and in what order their rows are laid down. Doesn't: writing and
committing them (staging.py), the sorting itself (lake/engine.py).

Late messages keep dripping into hours long past, so a partition is never done. A few new rows don't cost the rewriting
of millions: small files are merged among themselves until they weigh enough beside the big ones. One commit takes many
partitions, because each commit costs a batch of ingestion a second attempt.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from math import ceil
from sys import maxsize

import pyarrow as pa

from notif_assets.lake import Lake, Schema, Table
from notif_assets.lake.pieces import longest_mean, pieces, whole_batches
from notif_assets.lake.staging import stage
from notif_assets.lake.tables import DataFile, Value
from notif_assets.maintenance.swaps import Swap, commit

QUIET = timedelta(hours=2)
"""How long after its end a partition is left alone: it is still written to at every batch."""

LATE = timedelta(days=45)
"""After so long hardly a late message comes any more, for which a large file would have to be written again."""

OPEN_FILES = 16
"""So many small files of what is still written become one: each batch reads them, and the hourly compaction would leave
300."""

FILE_BYTES = 256 * 2**20
_OPEN_ROWS = 50_000
_SMALL_PARTITION_ROWS = 200_000
_WORTH_IT = 8  # a file is rewritten once the smaller ones weigh an eighth of it
_SORTABLE_ROW_BYTES = 4_096
_COMMIT_ROWS = 5_000_000
_COMMIT_PARTITIONS = 500

BLANKED = "blanked"
"""How the names of files begin that hold no payloads and names any more, so that nobody need look into them."""


def compact(lake: Lake, name: str, now: datetime, fewest: int = 2) -> tuple[int, int, int]:
    """Merges the small files of quiet partitions, where there are at least `fewest`; gives how many partitions, files
    before and files after.

    No row changes, the watermark stays, and of partitions that change meanwhile each is either done or left as it is.
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


def gather_open(lake: Lake, name: str, now: datetime) -> int:
    """Puts the small files of partitions that are not quiet yet together, many at a time; gives how many there were.

    Their rows keep their order, and what a file holds beside them (lake/keys.py). An hour that fills by a file every
    few seconds is looked into at each of them. No row changes, and the watermark stays.
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
    """The catalogue's word on how many rows a file has at most; in a sorted partition past LATE its size alone counts.

    Every open of a table reads what its log says of every file: six times fewer of them for all but the last weeks.
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
    """The rows of some files in the order that the readers of their table skip by.

    The engine sorts. Tables of values of any length are read by batch, and their files come in that order already.
    """
    if table.schema.sort:
        yield from lake.sorted(table.scan_files(files), table.schema.sort)
        return
    for piece in pieces(table.scan_files(files)):
        yield from piece.to_batches()


def is_blanked(file: DataFile) -> bool:
    """Whether the file holds no payloads and names any more."""
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
        for group in sorted_together(schema, _worth_merging(schema, files))
        if len(group) > files_needed(schema, group)
    )


def _sortable(table: Table, files: Sequence[DataFile]) -> list[DataFile]:
    """The files whose rows the engine can sort: it holds some thousands of them at once, whatever they weigh.

    A file with long rows is left as it is: it is large anyway.
    """
    if not (table.schema.sort and table.schema.large):
        return list(files)
    return [file for file in files if longest_mean(str(table.path / file.path)) <= _SORTABLE_ROW_BYTES]


def sorted_together(schema: Schema, files: Sequence[DataFile]) -> list[list[DataFile]]:
    """Files of one partition in sets whose rows are to be laid down in one order.

    A table that is read by batch came in that order: neighbours go together, up to the size of a file. One that is
    read by customer has each customer everywhere: all files go together.
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
    """The smaller files, up to the last one that does not outweigh those before it; full ones weigh nothing, because
    merging gains nothing by them. A few tiny files before many of one size must not keep these apart."""
    if sum(file.rows for file in files) <= _SMALL_PARTITION_ROWS:
        return list(files)
    by_size = sorted(files, key=lambda file: (file.rows, file.path))
    worth = weight = 0
    for number, file in enumerate(by_size, start=1):
        if file.rows <= _WORTH_IT * weight:
            worth = number
        if max(file.rows / schema.file_rows, file.size / FILE_BYTES) <= 1 / 2:
            weight += file.rows
    return by_size[:worth]


def files_needed(schema: Schema, files: Sequence[DataFile]) -> int:
    """How many files the rows of these fill; at least 1."""
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
