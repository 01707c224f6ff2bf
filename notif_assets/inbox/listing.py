"""The inbox: which of its files are imported, and why the others are not.

Belongs here: names, folders and kinds of files. Doesn't: opening one (source_files.py), its content (invoices/,
chatbot/, billing/), when the inbox is listed (defs/sensors.py).

Every entry is either accepted or reported. Only hidden files and files being written are skipped silently.
"""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from notif_assets.core.texts import quote_odd
from notif_assets.inbox.source_files import MOST_BYTES, is_inside, name_problem, read_problem

QUIET_SECONDS = 2.0
"""Seconds without a change before a file is read: a program may still write to a younger one."""

_INVOICES = re.compile(r".+\.(csv|xlsx)(\.gz)?", re.IGNORECASE)
_DAY = re.compile(r"date=([0-9]{4}-[0-9]{2}-[0-9]{2})", re.IGNORECASE)
_FILE = re.compile(r".+\.(csv|xlsx|json)(\.gz)?", re.IGNORECASE)

Hour = tuple[date, int]


@dataclass(frozen=True)
class InboxFile:
    """A file of the inbox, and a version that changes with its content."""

    path: Path
    version: str


@dataclass(frozen=True)
class _Entry:
    """An entry of a folder: its last change in nanoseconds, and why it can't be imported under any name."""

    file: InboxFile
    changed: int
    skip_reason: str | None


def invoice_files(folder: Path, now: float, most: int = MOST_BYTES) -> tuple[list[InboxFile], list[str]]:
    """The invoice files of a folder, oldest first, and the skipped entries: each escaped path with the reason.

    Files that changed in the last seconds before `now` are in neither list.
    """
    accepted, skipped = [], []
    for entry in _entries(folder, now, most):
        path = entry.file.path
        why = entry.skip_reason
        if why is None and (path.parent != folder or not _INVOICES.fullmatch(path.name)):
            why = "want *.csv or *.xlsx, or these with .gz, in no folder"
        if why is None:
            accepted.append(entry)
        else:
            skipped.append(_skipped_line(path, folder, why))
    accepted.sort(key=lambda entry: (entry.changed, entry.file.path))
    return [entry.file for entry in accepted], sorted(skipped)


def answer_files(folder: Path, now: float, most: int = MOST_BYTES) -> tuple[dict[Hour, InboxFile], list[str]]:
    """As invoice_files, for the files of answers, by day and hour. Two files of one hour are both skipped."""
    found: dict[Hour, list[InboxFile]] = {}
    skipped = []
    for entry in _entries(folder, now, most):
        hour = _hour_of(entry.file.path, folder)
        why = entry.skip_reason or ("want date=YYYY-MM-DD/hour=HH.json, or this with .gz" if hour is None else None)
        if why is None and hour is not None:
            found.setdefault(hour, []).append(entry.file)
        else:
            skipped.append(_skipped_line(entry.file.path, folder, str(why)))
    for several in found.values():
        if len(several) > 1:
            skipped += [
                _skipped_line(file.path, folder, f"{len(several)} files of one hour: keep one") for file in several
            ]
    return {hour: files[0] for hour, files in sorted(found.items()) if len(files) == 1}, sorted(skipped)


def _skipped_line(path: Path, folder: Path, why: str) -> str:
    return f"{quote_odd(path.relative_to(folder))} ({why})"


def _hour_of(path: Path, folder: Path) -> Hour | None:
    day = _DAY.fullmatch(path.parent.name)
    if day is None or path.parent.parent != folder:
        return None
    try:
        return date.fromisoformat(day[1]), hour_of_file_name(path.name)
    except ValueError:
        return None


def _entries(folder: Path, now: float, most: int) -> Iterator[_Entry]:
    """The entries of the folder at any depth. Links to folders are not followed; a folder itself is not an entry."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        entries = [name for name in folders if _FILE.fullmatch(name) or Path(parent, name).is_symlink()]
        for name in sorted([*entries, *names]):
            entry = None if name.startswith(".") else _entry(Path(parent, name), folder, now, most)
            if entry is not None:
                yield entry


def _entry(path: Path, folder: Path, now: float, most: int) -> _Entry | None:
    try:
        about = path.stat()
    except OSError as error:
        return _Entry(InboxFile(path, ""), 0, f"can't be read: {error.strerror}")
    if stat.S_ISREG(about.st_mode) and about.st_mtime > now - QUIET_SECONDS:
        return None
    # An older version that is put back brings its time and size with it, but was never changed at that instant.
    version = f"{about.st_mtime_ns}:{about.st_ctime_ns}:{about.st_size}"
    return _Entry(InboxFile(path, version), about.st_mtime_ns, _skip_reason(path, folder, about, most))


def _skip_reason(path: Path, folder: Path, about: os.stat_result, most: int) -> str | None:
    if why := name_problem(str(path.relative_to(folder))):
        return why
    if path.is_symlink() and (stat.S_ISDIR(about.st_mode) or not is_inside(path, folder)):
        return "is a link to a folder" if stat.S_ISDIR(about.st_mode) else "is a link out of the inbox"
    if stat.S_ISDIR(about.st_mode):
        return "is a folder"
    if why := read_problem(about, most):
        return why
    return None if os.access(path, os.R_OK) else "can't be read: Permission denied"


def hour_of_file_name(name: str) -> int:
    """The hour, 0 to 23, of a file named `hour=HH.json` or packed as `hour=HH.json.gz`, in any case.

    Raises ValueError on another name.

    >>> hour_of_file_name("hour=07.json"), hour_of_file_name("Hour=7.JSON.gz")
    (7, 7)
    """
    match = re.fullmatch(r"hour=([0-9]|[01][0-9]|2[0-3])\.json(?:\.gz)?", name, re.IGNORECASE)
    if not match:
        raise ValueError(f"want a file named hour=HH.json with HH from 00 to 23, got {name!r}")
    return int(match[1])
