"""What every import of a file does: read its bytes, set bad rows aside.

Belongs here: what invoices, answers and price lists share. Doesn't: what their rows mean, and which rows of a table an
import replaces (invoices/, chatbot/, billing/), which files of the inbox are taken (listing.py).
"""

import gzip
import os
import stat
import tempfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from notif_assets.core.texts import CONTROL_CHARACTER, quote_odd
from notif_assets.inbox.rows import REJECTED_SCHEMA, FileRefused
from notif_assets.lake import Lake, sql_literal, until_committed

MOST_BYTES = 2**30
"""The most bytes of an unpacked file, unless a caller sets another limit."""
_MOST_IN_MEMORY = 256 * 2**20
_GZIP = b"\x1f\x8b"
_CHUNK = 2**20


@contextmanager
def open_source(path: Path, inside: Path | None = None, most: int = MOST_BYTES) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked if it is gzip.

    `inside` is the inbox's folder; a link may not lead out of it. `most` limits the bytes before and after unpacking.
    Raises FileRefused, with the file and the reason, if the file can't be read or a table can't hold its name. A pipe
    or a device is refused without waiting.
    """
    if why := name_problem(path.name):
        raise FileRefused(f"{quote_odd(path)}: {why}; rename it")
    with ExitStack() as open_files:
        try:
            file = _open(open_files, path, inside, most)
        except OSError as error:
            raise FileRefused(f"{quote_odd(path)}: can't be read: {error.strerror or error}") from error
        yield file


def _open(open_files: ExitStack, path: Path, inside: Path | None, most: int) -> BinaryIO:
    file: BinaryIO = open_files.enter_context(os.fdopen(_descriptor(path, inside), "rb"))
    if why := read_problem(os.fstat(file.fileno()), most):
        raise FileRefused(f"{quote_odd(path)}: {why}")
    is_packed = file.read(len(_GZIP)) == _GZIP
    file.seek(0)
    if not is_packed:
        return file
    unpacked: Any = open_files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    _unpack(file, unpacked, path, most)
    return unpacked  # type: ignore[no-any-return]  # it has the methods of a BinaryIO


def _descriptor(path: Path, inside: Path | None) -> int:
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    if inside is None or not path.is_relative_to(inside):
        return os.open(path, flags)
    if not is_inside(path, inside):
        raise FileRefused(f"{quote_odd(path)}: is a link out of the inbox")
    return os.open(path.resolve(), flags | os.O_NOFOLLOW)


def is_inside(path: Path, folder: Path) -> bool:
    """Whether the file that `path` leads to lies in the folder."""
    return path.resolve().is_relative_to(folder.resolve())


def read_problem(about: os.stat_result, most: int) -> str | None:
    """Why the entry is not a readable file of at most `most` bytes; None if it is one."""
    if not stat.S_ISREG(about.st_mode):
        return "is no file"
    return f"is larger than NOTIF_MAX_FILE_BYTES, {most:,} bytes" if about.st_size > most else None


def _unpack(packed: BinaryIO, into: BinaryIO, path: Path, most: int) -> None:
    try:
        with gzip.GzipFile(fileobj=packed) as unpacking:
            while chunk := unpacking.read(_CHUNK):
                into.write(chunk)
                if into.tell() > most:
                    raise FileRefused(
                        f"{quote_odd(path)}: unpacked it is larger than NOTIF_MAX_FILE_BYTES, {most:,} bytes"
                    )
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise FileRefused(f"{quote_odd(path)}: is packed by gzip, and damaged or cut short") from None
    into.seek(0)


def read_file(path: Path, inside: Path | None = None, most: int = MOST_BYTES) -> bytes:
    """All bytes of a file. Arguments and errors as in opened."""
    with open_source(path, inside, min(most, _MOST_IN_MEMORY)) as file:
        return file.read()


def name_problem(name: str) -> str | None:
    """Why tables and run configurations can't hold the name of a file; None if they can."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    return "its name holds a control character" if CONTROL_CHARACTER.search(name) else None


def unique_names(paths: Iterable[Path]) -> dict[Path, str]:
    """The files, each once and in order, each with a unique name: its own, plus the folders that distinguish it.

    >>> list(unique_names([Path("/a/2019/i.csv"), Path("/a/2020/i.csv"), Path("/a/j.csv")]).values())
    ['2019/i.csv', '2020/i.csv', 'j.csv']
    """
    files = list(dict.fromkeys(path.absolute() for path in paths))
    names = {path: path.name for path in files}
    depth = 2
    while same := {name for name, times in Counter(names.values()).items() if times > 1}:
        names = {path: "/".join(path.parts[-depth:]) if name in same else name for path, name in names.items()}
        depth += 1
    return names


def set_aside(lake: Lake, source_files: Collection[str], rejected: pa.Table) -> None:
    """Makes `rejected` (REJECTED_SCHEMA) the set-aside rows of these source files, in one commit."""
    now = pa.array([datetime.now(UTC)] * rejected.num_rows, pa.timestamp("us", "UTC"))
    rows = rejected.append_column("loaded_at", now)
    where = f"source_file in ({', '.join(map(sql_literal, sorted(source_files)))})"
    until_committed(lambda: lake.table("rejected_file_rows").replace(rows, where))


def record_refusal(lake: Lake, source_file: str, why: FileRefused) -> None:
    """Adds to a file's set-aside rows that it was refused whole, as line 0, until a file of that name is taken.

    Later runs succeed and the file stays in the inbox, so only this row reports the refusal.
    """
    known = rows_set_aside(lake, [source_file])
    others = known.filter(pc.not_equal(known["reason"], "file_refused")).select(REJECTED_SCHEMA.names)
    row = {"source_file": source_file, "source_line": 0, "reason": "file_refused", "detail": str(why)}
    noted = pa.Table.from_pylist([row], schema=REJECTED_SCHEMA)
    set_aside(lake, [source_file], pa.concat_tables([noted, others.cast(REJECTED_SCHEMA)]))


def rows_set_aside(lake: Lake, source_files: Collection[str]) -> pa.Table:
    """The rows of rejected_file_rows of these source files, by file and line."""
    rows = lake.rows(lake.table("rejected_file_rows").scan())
    rows = rows.filter(pc.is_in(rows["source_file"], pa.array(sorted(source_files), pa.string())))
    return rows.sort_by([("source_file", "ascending"), ("source_line", "ascending")])


def count_by_reason(rejected: pa.Table) -> dict[str, int]:
    """How many rows were set aside for each reason, by reason."""
    return dict(sorted(Counter(rejected["reason"].to_pylist()).items()))
