"""What every import of dropped files does: read the bytes, set bad rows aside, publish a file.

Belongs here: what invoices, answers and price lists share. Doesn't: what their rows mean (core/), which rows of a
table an import replaces (invoices.py, answers.py).
"""

import os
import stat
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from notif_assets.core.files import FileRefused
from notif_assets.core.messages import CONTROL_CHARACTER
from notif_assets.core.texts import shown
from notif_assets.lake import Lake, literal, until_committed


def read_file(path: Path) -> bytes:
    """The file's bytes. Raises FileRefused, naming the file and why, if it can't be read or its name can't be kept."""
    if why := odd_name(path.name):
        raise FileRefused(f"{shown(path)}: {why}; rename it")
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileRefused(f"{shown(path)}: can't be read: {error.strerror}") from error


def odd_name(name: str) -> str | None:
    """Why tables, run configurations and lines of text can't hold a file's name; None if they can."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    return "its name holds a control character" if CONTROL_CHARACTER.search(name) else None


SETTLED = 2.0
"""Seconds that a file must have lain untouched: a younger one may still be being written."""


@dataclass(frozen=True)
class Dropped:
    """A file of the inbox, and what changes when its content does."""

    path: Path
    version: str


def settled_files(folder: Path, pattern: str, now: float) -> list[Dropped]:
    """The files of `folder` that match and have a name to keep, oldest first, but for those written to in the last
    seconds before `now`."""
    found = []
    for path in folder.glob(pattern):
        try:
            about = path.stat()
        except OSError:  # taken away meanwhile
            continue
        if (
            stat.S_ISREG(about.st_mode)
            and not path.name.startswith(".")
            and about.st_mtime <= now - SETTLED
            and odd_name(path.name) is None
        ):
            # An older version that is put back brings its time and size with it, but was never changed at that instant.
            version = f"{about.st_mtime_ns}:{about.st_ctime_ns}:{about.st_size}"
            found.append((about.st_mtime_ns, Dropped(path, version)))
    return [file for _, file in sorted(found, key=lambda entry: (entry[0], entry[1].path))]


def not_taken(folder: Path, is_wanted: Callable[[Path], bool], wanted: str, now: float) -> list[str]:
    """What lies in `folder`, at any depth, and is not imported: each with its escaped path below it, and why.

    `is_wanted` says whether a file of that path would be; `wanted` is the pattern in words. Hidden files, and those
    written to in the last seconds before `now`, are left out: they may still become what is wanted.
    """
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in sorted([*folders, *names]):
            path = Path(parent, name)
            why = None if name.startswith(".") else _why_not_taken(path, is_wanted, wanted, now)
            if why is not None:
                found.append(f"{shown(path.relative_to(folder))} ({why})")
    return sorted(found)


def _why_not_taken(path: Path, is_wanted: Callable[[Path], bool], wanted: str, now: float) -> str | None:
    try:
        about = path.stat()
    except OSError as error:
        return f"can't be read: {error.strerror}"
    if stat.S_ISDIR(about.st_mode):
        return "is a folder" if path.suffix in (".csv", ".json") else None
    if about.st_mtime > now - SETTLED:
        return None
    if why := odd_name(path.name):
        return why
    if not stat.S_ISREG(about.st_mode):
        return "is no file"
    return None if is_wanted(path) else f"want {wanted}"


def set_aside(lake: Lake, source_files: Collection[str], rejected: pa.Table) -> None:
    """Makes `rejected` (core's REJECTED_SCHEMA) the set-aside rows of these source files, in one commit."""
    now = pa.array([datetime.now(UTC)] * rejected.num_rows, pa.timestamp("us", "UTC"))
    rows = rejected.append_column("loaded_at", now)
    where = f"source_file in ({', '.join(map(literal, sorted(source_files)))})"
    until_committed(lambda: lake.table("rejected_file_rows").replace(rows, where))


def rows_set_aside(lake: Lake, source_files: Collection[str]) -> pa.Table:
    """The rows of rejected_file_rows of these source files, by file and line."""
    rows = lake.rows(lake.table("rejected_file_rows").scan())
    rows = rows.filter(pc.is_in(rows["source_file"], pa.array(sorted(source_files), pa.string())))
    return rows.sort_by([("source_file", "ascending"), ("source_line", "ascending")])


def count_by_reason(rejected: pa.Table) -> dict[str, int]:
    """How many rows were set aside for each reason, by reason."""
    return dict(sorted(Counter(rejected["reason"].to_pylist()).items()))


def publish(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Writes a file: others, if the umask lets them read it, see the whole of it or the one before, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        with draft.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
