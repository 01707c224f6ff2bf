"""Data files that are missing or unreadable, and how to repair each table.

Belongs here: comparing every data file with its Delta log entry, and which command or backup repairs which table.
Doesn't: whether the rows of an intact file are right (asset checks), the repair itself (rebuild.py).
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from notif_assets.lake import SCHEMAS, Lake, LakeError, OutOfMemory, Table
from notif_assets.lake.pieces import NO_MEMORY, batches_of_file
from notif_assets.lake.tables import DataFile
from notif_assets.maintenance.lock import Progress, ignore_progress

_BACKUP = "restore the file from a backup"
_BY_ORIGIN = {
    "book": f"{_BACKUP}, for it is a book, and nothing can compute it again",
    "received": f"{_BACKUP}, for nothing can compute what was received",
}


def find_broken_files(lake: Lake, progress: Progress = ignore_progress) -> Iterator[tuple[str, str]]:
    """Each log entry and data file that is missing or changed: the table, and a sentence with the fault and the remedy.

    Reads every data file of the newest snapshots to its end. Opens no table that does not exist.
    Raises OutOfMemory, which says nothing of the file.
    """
    for name in SCHEMAS:
        if not (lake.root / name / "_delta_log").is_dir():
            continue
        progress(name)
        try:
            table = lake.table(name)
            table.require_whole_log()
            for file in table.data_files():
                fault = _fault_of(table, file)
                # Another commit may have removed the file meanwhile, and a vacuum may have deleted it.
                if fault and file.path in lake.table(name).files()["path"].to_pylist():
                    yield name, f"{table.path / file.path} {fault}; {_file_repair_hint(name, file)}"
        except OutOfMemory:
            raise
        except LakeError as error:
            yield name, str(error)


def _fault_of(table: Table, file: DataFile) -> str | None:
    path: Path = table.path / file.path
    try:
        size = path.stat().st_size
        if size != file.size:
            return f"has {size} bytes, and {file.size} were written"
        columns = [name for name in table.schema.arrow.names if name not in table.schema.partition_by]
        rows = sum(batch.num_rows for batch in batches_of_file(str(path), columns, {}, verify=True))
    except FileNotFoundError:
        return "is missing"
    except (pa.ArrowMemoryError, MemoryError) as error:
        raise OutOfMemory(f"{path} can't be looked at: {NO_MEMORY}") from error
    except (OSError, pa.ArrowException):  # whose texts may show bytes of the file
        return "can't be read: its bytes are not those that were written"
    return None if rows == file.rows else f"has {rows} rows, and {file.rows} were written"


def _file_repair_hint(name: str, file: DataFile) -> str:
    by_day = SCHEMAS[name].rebuilt_by_day
    return repair_hint(name, f" --from {file.partition[0]} --to {file.partition[0]}" if by_day else "")


def repair_hint(table: str, days: str = "") -> str:
    """How to repair a table that lost a file; `days` are the options of rebuild that limit it, if any."""
    schema = SCHEMAS[table]
    if table == "raw_notifications":
        return f"{_BACKUP} or from NOTIF_ARCHIVE, for nothing can compute what was received"
    if schema.computed_from is None:
        return _BY_ORIGIN[schema.origin]
    return f"`notif-assets rebuild {table}{days}` computes it again from {schema.computed_from}"
