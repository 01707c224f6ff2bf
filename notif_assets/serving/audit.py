"""Whether the copy holds what the lake holds, row for row, at the version that it says.

Belongs here: reading both sides, and a hash of each. Doesn't: bringing them together (copying.py).
"""

from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa

from notif_assets.lake import Lake, LakeError, Scan, Schema, Table
from notif_assets.serving.copying import shared_values, watermark
from notif_assets.serving.layout import columns
from notif_assets.serving.postgres import REBUILD, Connection, as_serving_errors
from notif_assets.serving.rows import from_csv, holdable

PARTS = 24
"""A look at a part of the history takes every 24th day."""
_PIECE_BYTES = 4 * 2**20


def difference(connection: Connection, lake: Lake, name: str, part: int | None = None) -> str | None:
    """What differs between a table of the copy and the lake at the copy's version, as a sentence; None if nothing does.

    Of a table with days `part`, from 0 to 23, takes the two newest ones and every 24th; None takes all. Raises
    ServingUnavailable, ServingRefused; LakeError for a damaged file.
    """
    with as_serving_errors(), connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        version, _, shared = watermark(connection, name)
        table = _version(lake, name, version)
        if table is None:
            return f"the copy is at version {version}, which the lake keeps no more: it was not brought further since"
        days = None if part is None else _days(table, part)
        in_lake = _content(lake, _lake_rows(lake, table, days))
        in_copy = _content(lake, _copied_rows(connection, table.schema, days))
        shares = connection.execute("select %s::jsonb = %s::jsonb", [shared, shared_values(table)]).fetchone()
    if in_lake != in_copy or shares != (True,):
        return f"{in_lake[0]} rows of the lake's version {version} are {in_copy[0]} others in the copy; {REBUILD}"
    return None


def _version(lake: Lake, name: str, version: int) -> Table | None:
    try:
        table = lake.table(name).at(version)
    except LakeError:
        return None
    return table if all(Path(file).exists() for file in table.scan().files) else None


def _days(table: Table, part: int) -> list[date]:
    """The two newest days of a table and every 24th; of one without days nothing, which means all of it."""
    there = sorted({partition[0] for partition in table.scan().partitions}) if table.schema.partition_by else []
    if not there:
        return []
    span = range((there[-1] - there[0]).days + 1)
    every = (there[0] + timedelta(days=n) for n in span)
    return sorted({*there[-2:], *(day for day in every if day.toordinal() % PARTS == part)})


def _lake_rows(lake: Lake, table: Table, days: list[date] | None) -> Iterator[pa.RecordBatch]:
    scan: Scan = table.scan()
    if days:
        scan = scan.within({partition for partition in scan.partitions if partition[0] in days})
    names = [column.name for column in columns(table.schema)]
    yield from map(holdable, lake.difference(scan, table.scan_files([]), names))


def _copied_rows(connection: Connection, schema: Schema, days: list[date] | None) -> Iterator[pa.RecordBatch]:
    wanted = columns(schema)
    types = pa.schema([pa.field(column.name, column.type) for column in wanted])
    names = ", ".join(f'"{column.name}"' for column in wanted)
    some = ", ".join(f"date '{day}'" for day in days or ())
    where = f' where "{schema.partition_by[0]}" in ({some})' if some else ""
    query = f"copy (select {names} from serving.{schema.name}{where}) to stdout (format csv)"
    with connection.cursor().copy(query.encode()) as copy:
        for piece in _gathered(copy):
            yield from_csv(piece, types)


def _gathered(rows: Iterable[bytes | bytearray | memoryview]) -> Iterator[bytes]:
    """Whole rows put together, to megabytes."""
    held, size = [], 0
    for row in rows:
        held.append(row)
        size += len(row)
        if size >= _PIECE_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def _content(lake: Lake, batches: Iterable[pa.RecordBatch]) -> tuple[int, int]:
    """How many rows there are, and a hash of them whatever their order."""
    rows = total = 0
    for batch in batches:
        (hashed_rows,) = lake.select("content_hash", {"hashed": pa.Table.from_batches([batch])}).to_pylist()
        rows += hashed_rows["row_count"]
        total += int(hashed_rows["content_hash"])
    return rows, total
