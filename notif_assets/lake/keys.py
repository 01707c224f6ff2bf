"""Which files may hold a row with one of many keys, told by hashes that a file keeps beside its rows.

Belongs here: the hidden column and how files are sorted out by it. Doesn't: the hash itself (sql/key_hashes.sql), which
keys are looked for (ingest/), comparing the keys themselves (sql/): a hash only says where that is worth while.

The hour that is open fills with millions of rows, and every batch asks it for thousands of keys that are spread over
all customers, so no bounds help. 8 bytes a row are read in a tenth of the time that texts take. The column belongs to
the file and not to the table: no schema lists it and no reader sees it. It is named after the engine whose hash it is,
so what another version wrote counts as a file without. Such a file may hold any key. Compaction leaves the column out:
in an hour that is closed few keys are looked for.
"""

from collections.abc import Collection

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from notif_assets.lake.pieces import errors_of, opened
from notif_assets.lake.tables import Scan

COLUMN = f"_key_hash_{duckdb.__version__}"
"""The hidden column's name in a data file."""

_BITS_PER_KEY = 64
_MOST_BITS = 2**23


def files_without(scan: Scan, hashes: npt.NDArray[np.int64]) -> set[str]:
    """The files of the scan that hold none of the keys with these hashes. Raises LakeError for an unreadable file."""
    wanted = np.unique(hashes)
    bits = min(_MOST_BITS, 1 << (max(1, len(wanted) * _BITS_PER_KEY) - 1).bit_length())
    marks = np.zeros(bits, bool)
    marks[wanted & (bits - 1)] = True
    return {path for path in scan.files if not _may_hold(scan, path, wanted, marks)}


def _may_hold(scan: Scan, path: str, wanted: npt.NDArray[np.int64], marks: npt.NDArray[np.bool_]) -> bool:
    with errors_of(scan, path), opened(path) as file:
        if COLUMN not in file.schema.names:
            return True
        for group in range(file.num_row_groups):
            held = file.read_row_group(group, [COLUMN], use_threads=False)[COLUMN].to_numpy()
            near = held[marks[held & (len(marks) - 1)]]  # of millions a few thousand, which are worth a search
            places = np.searchsorted(wanted, near)
            if np.any(wanted[np.minimum(places, len(wanted) - 1)] == near):
                return True
    return False


def with_hashes(rows: pa.Table, hashes: npt.NDArray[np.int64]) -> pa.Table:
    """The rows with their hashes in the hidden column."""
    return rows.append_column(COLUMN, pa.array(hashes))


def hidden_fields(rows: pa.Table) -> Collection[pa.Field]:
    """The hidden column as a field, where the rows have it."""
    return [rows.schema.field(COLUMN)] if COLUMN in rows.column_names else []
