"""The copy follows the lake: which rows changed between two versions of a table, and one transaction that moves them.

Belongs here: the steps of that transaction. Doesn't: what the tables look like (layout.py), how a row is written
(rows.py). Nothing here knows one table from another.

A version of a Delta table is a list of files that never change, so rows that changed are in files that only one of two
versions has: what there is in all does not matter. The watermark (the version that the copy holds) is moved in the
transaction that moves the rows, and is locked first. So a killed process leaves all of it or nothing, and of two
processes the second one finds nothing left to do.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from notif_assets.lake import Lake, LakeError, Scan, Schema, Table
from notif_assets.lake.pieces import pieces
from notif_assets.serving.layout import columns, same_key, served
from notif_assets.serving.postgres import (
    REBUILD,
    Connection,
    ServingRefused,
    ServingUnavailable,
    as_serving_errors,
    connected,
)
from notif_assets.serving.rows import holdable, to_csv
from notif_assets.serving.setup import prepare
from notif_assets.settings import Settings


@dataclass(frozen=True)
class Copied:
    """What became of one table: the version that the copy now holds, how many rows came and went (a row that changed
    did both)."""

    table: str
    version: int
    came: int
    went: int


def serve(
    lake: Lake, settings: Settings, *, anew: bool = False, tell: Callable[[Copied], None] = lambda _: None
) -> list[Copied]:
    """Brings each table of the copy to the lake's newest version; gives those that were behind, and tells of each.

    `anew` loads them whole, whatever the copy holds. A table that is refused does not hold up the others. Raises
    ServingUnavailable at once, ServingRefused or LakeError, the first that came, at the end.
    """
    done: list[Copied] = []
    failed: list[ServingRefused | LakeError] = []
    with connected(settings.serving_url) as connection:
        for name in prepare(connection, settings, anew=anew):
            try:
                copied = serve_table(connection, lake, name, anew=anew)
            except (ServingRefused, LakeError) as error:
                failed.append(error)
                continue
            if copied is not None:
                done.append(copied)
                tell(copied)
    if failed:
        raise failed[0]
    return done


def serve_table(connection: Connection, lake: Lake, name: str, *, anew: bool = False) -> Copied | None:
    """Brings one table to the lake's newest version, in one transaction; None if it is there. Raises as serve."""
    with as_serving_errors(), connection.transaction():
        version, mark, _ = watermark(connection, name, lock=True)
        table = lake.table(name)  # not before: who had the lock may have copied a newer version
        newest = table.version, mark_of(table)
        if (version, mark) == newest and not anew:
            return None
        before = None if anew else _version_copied(table, version, mark)
        came, went = _move(connection, lake, table, before)
        connection.execute(
            "update serving.watermarks set version = %s, mark = %s, shared = %s, served_at = now() "
            "where table_name = %s",
            [*newest, shared_values(table), name],
        )
        return Copied(name, table.version, came, went)


def tables_behind(lake: Lake, settings: Settings) -> list[str]:
    """The tables of which the copy does not hold the newest version; nothing is written. Raises ServingUnavailable,
    ServingRefused, also if the copy was not made yet, and LakeError."""
    names = served(with_chatbot=settings.serving_chatbot)
    with connected(settings.serving_url) as connection:
        known = dict(connection.execute("select table_name, version from serving.watermarks").fetchall())
    return [name for name in names if known.get(name) != lake.table(name).version]


@dataclass(frozen=True)
class CopyState:
    """Up to when the panel of the copy counts everything (None: nothing was copied, or it is not known), and why the
    copy could not be read, if it could not."""

    read_at: datetime
    counted_until: datetime | None
    problem: str = ""


def read_state(settings: Settings) -> CopyState:
    """How far the copy is. Nothing is written."""
    query = "select (shared ->> 'updated_at')::timestamptz from serving.watermarks where table_name = 'customer_panel'"
    try:
        with connected(settings.serving_url) as connection:
            (until,) = connection.execute(query).fetchone() or (None,)
    except (ServingRefused, ServingUnavailable) as problem:
        return CopyState(datetime.now(UTC), None, str(problem))
    return CopyState(datetime.now(UTC), until)


def mark_of(table: Table) -> str:
    """A hash of the names of the table's data files, no two of which are ever the same: a lake that was restored and
    went on has other ones at the same version."""
    files = table.files()
    paths = sorted(files["path"].to_pylist()) if files.num_rows else []
    return blake2b("\0".join(paths).encode(), digest_size=16).hexdigest() if table.version >= 0 else ""


class Watermark(NamedTuple):
    """What the copy says of one of its tables: the version that it holds, the mark of that, and the values that all
    rows share, as JSON."""

    version: int
    mark: str
    shared: str


def watermark(connection: Connection, name: str, *, lock: bool = False) -> Watermark:
    """A table's watermark; with `lock` nobody else moves it until the transaction ends. Raises ServingRefused."""
    query = "select version, mark, shared::text from serving.watermarks where table_name = %s"
    found = connection.execute(f"{query} for update".encode() if lock else query, [name]).fetchone()
    if found is None:
        raise ServingRefused(f"the copy has no watermark of {name}: it was changed by hand; {REBUILD}")
    return Watermark(*found)


def _version_copied(table: Table, version: int, mark: str) -> Table | None:
    """The version that the copy holds; None if the lake does not keep its log or its files any more.

    Raises ServingRefused if the lake never had it: then it is not the lake that was copied.
    """
    name = table.schema.name
    if version > table.version:
        raise ServingRefused(
            f"the copy holds version {version} of {name}, and this lake has it up to {table.version}: it is an older "
            f"state of the lake that was copied, or another lake; see NOTIF_LAKE, or {REBUILD}"
        )
    try:
        before = table.at(version)
    except LakeError:
        return None
    if mark_of(before) != mark:
        raise ServingRefused(
            f"the copy holds another version {version} of {name} than this lake: it was restored and went on since, or "
            f"it is another lake; see NOTIF_LAKE, or {REBUILD}"
        )
    return before if all(Path(file).exists() for file in before.scan_beside(table).files) else None


def _move(connection: Connection, lake: Lake, table: Table, before: Table | None) -> tuple[int, int]:
    """Makes the rows of the copy those of `table`; gives how many came and went.

    What the copy holds is `before`, or not known (None): then it is loaded whole, and so is a table without a key of
    which rows went, since nothing tells them from rows like them.
    """
    schema, nothing = table.schema, table.scan_files([])
    if before is not None:
        new, old = table.scan_beside(before), before.scan_beside(table)
        if schema.key or not any(rows.num_rows for rows in _only_in(lake, old, new)):
            went = _delete(connection, schema, _only_in(lake, old, new)) if schema.key and old.files else 0
            return _insert(connection, schema.name, _only_in(lake, new, old)), went
    went = connection.execute(f"delete from serving.{schema.name}".encode()).rowcount
    return _insert(connection, schema.name, _only_in(lake, table.scan(), nothing)), went


def _only_in(lake: Lake, these: Scan, those: Scan) -> Iterable[pa.RecordBatch]:
    """The rows that only one of two scans has, as the copy holds them."""
    return map(holdable, lake.difference(these, those, [column.name for column in columns(these.schema)]))


def _insert(connection: Connection, name: str, rows: Iterable[pa.RecordBatch]) -> int:
    return _copy_into(connection, f"serving.{name}", rows)


def _delete(connection: Connection, schema: Schema, rows: Iterable[pa.RecordBatch]) -> int:
    """Deletes rows by their keys. Raises ServingRefused if one of them is not there once."""
    keys = ", ".join(f'"{column}"' for column in schema.key)
    connection.execute(
        f"create temporary table gone on commit drop as select {keys} from serving.{schema.name} with no data".encode()
    )
    wanted = _copy_into(connection, "gone", (batch.select(schema.key) for batch in rows))
    connection.execute("analyze gone")
    went = connection.execute(
        f"delete from serving.{schema.name} as t using gone where {same_key(schema, 't', 'gone')}".encode()
    ).rowcount
    if went != wanted:
        raise ServingRefused(
            f"table serving.{schema.name} lacks {wanted - went} of {wanted} rows that were copied and now change: it "
            f"was changed by hand; {REBUILD}"
        )
    return went


def _copy_into(connection: Connection, table: str, rows: Iterable[pa.RecordBatch]) -> int:
    copied = 0
    with connection.cursor().copy(f"copy {table} from stdin (format csv)".encode()) as copy:
        for batch in rows:
            copy.write(to_csv(batch))
            copied += batch.num_rows
    return copied


def shared_values(table: Table) -> str:
    """The values that all rows of the table share, as JSON; of a table without rows, none."""
    names = [column.name for column in table.schema.columns if column.shared]
    for piece in pieces(table.scan(), names) if names else ():
        return json.dumps(piece.slice(0, 1).to_pylist()[0], default=datetime.isoformat)
    return "{}"
