"""The lake: its tables, and the engine that runs the SQL files over them.

Belongs here: the seam that assets and reports use: `table(name)` and `select(sql_name, inputs, **parameters)`, whose
rows the same lake's tables take. Doesn't: one table's commits (tables.py), what the SQL says (sql/).
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import date, datetime
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Self, TypeAlias, TypeVar
from uuid import uuid4

import duckdb
import pyarrow as pa

from notif_assets.lake.catalogue import SCHEMAS, VERSION
from notif_assets.lake.migrations import migrate
from notif_assets.lake.tables import LakeError, LostRace, OutOfMemory, Scan, Snapshot, Table, sql_literal

_PACKAGE = Path(__file__).resolve().parents[1]
T = TypeVar("T")
Input: TypeAlias = pa.Table | Scan
Connect: TypeAlias = Callable[[], AbstractContextManager[duckdb.DuckDBPyConnection]]

_IDENTITY = "lake.json"
_VERSION = "version"  # in it, of the catalogue; a lake without is of version 1
# Rows for which the engine allocates at a time: allocating its default million takes as long as a small query.
_CHUNK_ROWS = 20_000
_SQL_TYPES = {pa.int32(): "integer", pa.date32(): "date"}


def duckdb_config(memory: str) -> dict[str, str | int | float | bool | list[str]]:
    """How DuckDB is set up everywhere, the same in every process of a deployment."""
    return {
        "memory_limit": memory,
        "preserve_insertion_order": False,
        "enable_external_file_cache": False,  # the system has them in memory already, and gives it back
    }


def _spill_folder() -> str:
    """Where this process's engine puts what its memory does not hold: files of two would have the same names."""
    return str(Path(tempfile.gettempdir()) / f"notif-assets-{os.getpid()}")


class Lake:
    """The tables under `root`, computed upon by DuckDB.

    `connect` opens a DuckDB connection. It is kept, because opening one costs 20 ms, and each `select` works on a
    cursor of its own, so a Lake may be shared by threads. `close` ends it; the next `select` opens another.
    """

    def __init__(self, root: Path, connect: Connect | None = None, memory: str = "1GB") -> None:
        self.root = root
        self._connect = connect or (lambda: duckdb.connect(config=duckdb_config(memory)))
        self._opened = ExitStack()
        self._database: duckdb.DuckDBPyConnection | None = None
        self._newest: dict[str, Snapshot] = {}
        self._looked_at: tuple[object, ...] = ()
        self._lock, self._opening = Lock(), Lock()

    def close(self) -> None:
        """Ends the connection to the engine."""
        with self._lock:
            self._opened.close()
            self._database = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def table(self, name: str) -> Table:
        """A handle on the table's newest snapshot. Raises LakeError if it can't be opened, or is of a newer version.

        Snapshots are kept: reading a log takes milliseconds, and a micro-batch asks for 33 handles and commits 6 times.
        """
        with self._opening:
            self._refuse_newer()
            return Table(self.root, SCHEMAS[name], self._newest)

    def exists(self) -> bool:
        """Whether the lake exists."""
        return (self.root / _IDENTITY).exists()

    def claim(self, **identity: str) -> None:
        """Stores what must never change in a lake (topic, time zone), or compares it with what is stored.

        The process that stores it creates all tables, empty, for other engines. Raises LakeError if the lake was made
        with another value: its rows and bills would mean something else.

        A lake that an older version of this project wrote is brought forward (migrations.py). Raises LakeError if it
        can't be, or if a newer version wrote it.
        """
        path = self.root / _IDENTITY
        if not path.exists():  # a reader must not need the right to write
            write_once(path, identity)
            for name in SCHEMAS:
                with suppress(LostRace):
                    self.table(name).create()
        known = self._read_identity()
        for name, value in identity.items():
            if known.get(name, value) != value:
                raise LakeError(
                    f"this lake was made with {name} {known[name]}, and now NOTIF_{name.upper()} says {value}: "
                    "set it back, or use another NOTIF_LAKE"
                )
        if known[_VERSION] < VERSION:
            self._migrate(known)

    def _migrate(self, known: Mapping[str, Any]) -> None:
        try:
            migrate(self.table, known[_VERSION])
            draft = _draft(self.root, {**known, _VERSION: VERSION})
            try:
                draft.replace(self.root / _IDENTITY)
            finally:
                draft.unlink(missing_ok=True)
        except (LakeError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise LakeError(
                f"the lake {self.root} is of version {known[_VERSION]} and can't be brought to version {VERSION} "
                f"({why}): run `notif-assets maintain` once as a user who may write it"
            ) from error

    def _read_identity(self) -> dict[str, Any]:
        """What lake.json says. Raises LakeError if it can't be read, or if a newer version of this project wrote it."""
        path = self.root / _IDENTITY
        try:
            known: dict[str, Any] = json.loads(path.read_text())
            version = int(known.setdefault(_VERSION, 1))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise LakeError(f"{path} can't be read: restore it, it says what must never change") from error
        if version > VERSION:
            raise LakeError(
                f"the lake {self.root} is of version {version}, and this notif-assets knows up to {VERSION}: use the "
                "newer one that wrote it"
            )
        return known

    def _refuse_newer(self) -> None:
        """Raises LakeError if lake.json is of a newer version; costs microseconds while it is the file it was."""
        with suppress(FileNotFoundError, NotADirectoryError):  # not claimed yet
            found = (self.root / _IDENTITY).stat()
            identity_of_file = found.st_ino, found.st_size, found.st_mtime_ns
            if identity_of_file != self._looked_at:
                self._read_identity()
                self._looked_at = identity_of_file

    def select(self, name: str, inputs: Mapping[str, Input], **parameters: object) -> pa.Table:
        """Runs sql/<name>.sql with `inputs` as its tables and `parameters` as its $names; gives all rows."""
        with self._prepared(inputs) as connection:
            return connection.execute(_sql(name), parameters).to_arrow_table(_CHUNK_ROWS)

    def stream(
        self, name: str, inputs: Mapping[str, Input], rows: int = _CHUNK_ROWS, **parameters: object
    ) -> Iterator[pa.RecordBatch]:
        """As select, in record batches of at most about `rows`, so that memory stays flat whatever the result."""
        with self._prepared(inputs) as connection:
            yield from connection.execute(_sql(name), parameters).to_arrow_reader(rows)

    def rows(self, scan: Scan) -> pa.Table:
        """The rows of a scan, as they are."""
        with self._prepared({"scanned": scan}) as connection:
            return connection.execute("select * from scanned").to_arrow_table(_CHUNK_ROWS)

    def difference(self, these: Scan, those: Scan, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows of a scan that another one lacks, by these columns, in record batches. A row that is there several
        times comes as often as it is missing."""
        names = ", ".join(f'"{name}"' for name in columns)
        query = f"select {names} from these"
        if those.files:
            query += f" except all select {names} from those"
        with self._prepared({"these": these, "those": those}) as connection:
            yield from connection.execute(query).to_arrow_reader(_CHUNK_ROWS)

    def sorted(self, scan: Scan, by: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows of a scan in the order of these columns, in record batches; the engine sorts, on disk if it must."""
        with self._prepared({"scanned": scan}) as connection:
            query = f"select * from scanned order by {', '.join(by)}"
            yield from connection.execute(query).to_arrow_reader(_CHUNK_ROWS)

    @contextmanager
    def _prepared(self, inputs: Mapping[str, Input]) -> Iterator[duckdb.DuckDBPyConnection]:
        with _raised_by_signals(), self._new_cursor() as connection:
            try:
                for table, source in inputs.items():
                    if isinstance(source, Scan):
                        connection.execute(f"create temporary view {table} as {_scan_sql(source)}")
                    else:
                        connection.register(table, source)
                yield connection
            except (duckdb.OutOfMemoryException, MemoryError) as error:
                raise OutOfMemory(
                    "the engine needs more memory for this than it may have: set NOTIF_ENGINE_MEMORY higher (of the "
                    "panel NOTIF_PANEL_MEMORY)"
                ) from error
            except (duckdb.IOException, duckdb.InvalidInputException) as error:
                cause = str(error).splitlines()[0]
                raise LakeError(
                    f"a data file can't be read: {cause}; `notif-assets check` says what repairs it"
                ) from error
            finally:
                # Closing waits for every thread of a query, and one that is left in its middle goes on without this.
                connection.interrupt()

    def _new_cursor(self) -> duckdb.DuckDBPyConnection:
        with self._lock:
            if self._database is None:
                database = self._opened.enter_context(self._connect())
                database.execute("set global timezone = 'UTC'")
                database.execute(f"set global temp_directory = {sql_literal(_spill_folder())}")
                self._database = database
            return self._database.cursor()


@contextmanager
def _raised_by_signals() -> Iterator[None]:
    """Raises what the handler of a signal raised, where DuckDB makes a RuntimeError of it."""
    try:
        yield
    except RuntimeError as error:
        if error.__cause__ is None or isinstance(error.__cause__, Exception):
            raise
        raise error.__cause__ from None


def write_once(path: Path, content: Mapping[str, Any]) -> None:
    """Writes an immutable file of a lake, as JSON; does nothing if it exists already. Raises LakeError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = _draft(path.parent, content)
        try:
            os.link(draft, path)  # atomic, and fails if the file exists
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    except OSError as error:
        raise LakeError(f"the lake {path.parent} can't be written: {error.strerror}; see NOTIF_LAKE") from error


def _draft(folder: Path, content: Mapping[str, Any]) -> Path:
    path = folder / f"tmp{uuid4().hex}.tmp"  # maintain deletes files of this name that a killed process left
    try:
        with path.open("x") as draft:
            json.dump(content, draft)
            draft.flush()
            os.fsync(draft.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def until_committed(attempt: Callable[[], T]) -> T:
    """Calls `attempt`, which opens its handles anew and looks, until it loses no race.

    A lost race means that another process advanced, so this ends. The limit guards against a bug.
    """
    for _ in range(1_000):
        try:
            return attempt()
        except LostRace as lost:
            last = lost
    raise LakeError(f"table {last} was never quiet enough to commit to: is something writing to it in a loop?")


@cache
def _sql(name: str) -> str:
    """The text of <room>/sql/<name>.sql: each subject keeps its own, and no two have one name."""
    (path,) = _PACKAGE.glob(f"*/sql/{name}.sql")
    return path.read_text(encoding="utf-8")


def _scan_sql(scan: Scan) -> str:
    """The scan as one SELECT over its files; partition values come from the Delta log, not from paths."""
    by = scan.schema.partition_by
    columns = []
    for field in scan.schema.arrow:
        if not scan.files:
            columns.append(f'cast(null as {_duckdb_type(field.type)}) as "{field.name}"')
        elif field.name in by:
            values = ", ".join(sql_literal(value) for value in scan.partition_values[field.name])
            columns.append(
                f'cast(([{values}])[cast(file_index as bigint) + 1] as {_SQL_TYPES[field.type]}) as "{field.name}"'
            )
        else:
            columns.append(f'"{field.name}"')
    if scan.with_positions:
        number = "cast({} as bigint) as {}" if scan.files else "cast(null as bigint) as {1}"
        columns += [number.format("file_index", "file"), number.format("file_row_number", "row")]
    if not scan.files:
        return f"select {', '.join(columns)} where false"
    paths = ", ".join(sql_literal(path) for path in scan.files)
    bounds = [
        f'"{column}" {sign} {_typed(value)}'
        for column, (low, high) in scan.bounds.items()
        for sign, value in ((">=", low), ("<", high))
        if value is not None
    ]
    where = f" where {' and '.join(bounds)}" if bounds else ""
    options = ["hive_partitioning = false"]
    options += ["file_row_number = true"] if scan.with_positions else []
    options += ["union_by_name = true"] if scan.schema.since(2) else []
    source = f"read_parquet([{paths}], {', '.join(options)})"
    if later := scan.schema.since(2):  # files of before lack them
        nulls = ", ".join(f'cast(null as {_duckdb_type(column.type)}) as "{column.name}"' for column in later)
        source = f"(select {nulls} where false union all by name select *, file_index from {source})"
    return f"select {', '.join(columns)} from {source}{where}"


def _typed(value: int | str | date | datetime) -> str:
    kind = "timestamptz " if isinstance(value, datetime) else "date " if isinstance(value, date) else ""
    return kind + sql_literal(value)


def _duckdb_type(kind: pa.DataType) -> str:
    if pa.types.is_decimal(kind):
        return f"decimal({kind.precision}, {kind.scale})"
    if pa.types.is_map(kind):
        return "map(varchar, varchar)"
    names = {
        pa.int32(): "integer",
        pa.int64(): "bigint",
        pa.string(): "varchar",
        pa.binary(): "blob",
        pa.date32(): "date",
        pa.timestamp("us", "UTC"): "timestamptz",
    }
    return names[kind]
