"""Which files may hold a row with one of many keys, told by hashes that a file keeps beside its rows.

Belongs here: the hidden column and how files are sorted out by it. Doesn't: the hash itself
(notifications/sql/key_hashes.sql), which keys are looked for (notifications/), comparing the keys themselves (sql/): a
hash only says where that is worth while.

The hour that is open fills with millions of rows, and every batch asks it for thousands of keys that are spread over
all customers, so no bounds help. 8 bytes a row are read in a tenth of the time that texts take. The column belongs to
the file and not to the table: no schema lists it and no reader sees it. It is named after the engine whose hash it is,
so what another version wrote counts as a file without. Such a file may hold any key. Compaction leaves the column out:
in an hour that is closed few keys are looked for.

A data file never changes, so its hashes are kept in memory once they were read, as many as an hour has: the check after
a batch looks into the files that the batch looked into, and in a process that goes on, so does the next batch.
"""

from collections import OrderedDict
from collections.abc import Collection
from threading import Lock

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from notif_assets.lake.pieces import as_lake_errors, open_data_file
from notif_assets.lake.tables import Scan

COLUMN = f"_key_hash_{duckdb.__version__}"
"""The hidden column's name in a data file."""

_BITS_PER_KEY = 64
_MOST_BITS = 2**23
_CACHE_BYTES = 32 * 2**20  # of an hour in which 100 million messages a day come


def files_without(scan: Scan, hashes: npt.NDArray[np.int64]) -> set[str]:
    """The files of the scan that hold none of the keys with these hashes. Raises LakeError for an unreadable file."""
    wanted = np.sort(hashes)  # a hash that comes twice does no harm, and numpy takes fifty times as long to find it
    bits = min(_MOST_BITS, 1 << (max(1, len(wanted) * _BITS_PER_KEY) - 1).bit_length())
    marks = np.zeros(bits, bool)
    marks[wanted & (bits - 1)] = True
    return {path for path in scan.files if not _may_hold(scan, path, wanted, marks)}


def _may_hold(scan: Scan, path: str, wanted: npt.NDArray[np.int64], marks: npt.NDArray[np.bool_]) -> bool:
    held = _cache.get(path)
    if held is None:
        held = _cache.put(path, _read(scan, path))
    if held is _UNKNOWN:
        return True
    near = held[marks[held & (len(marks) - 1)]]  # a few thousand of millions, few enough for a search
    positions = np.searchsorted(wanted, near)
    return bool(np.any(wanted[np.minimum(positions, len(wanted) - 1)] == near))


def _read(scan: Scan, path: str) -> npt.NDArray[np.int64]:
    """The hashes of a file's keys; _UNKNOWN if it does not have them."""
    with as_lake_errors(scan, path), open_data_file(path) as file:
        if COLUMN not in file.schema.names:
            return _UNKNOWN
        hashes: npt.NDArray[np.int64] = file.read([COLUMN], use_threads=False)[COLUMN].to_numpy()
        return hashes


_UNKNOWN = np.empty(0, np.int64)


class _HashCache:
    """Hashes of files by path; the least recently used are dropped."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, npt.NDArray[np.int64]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, path: str) -> npt.NDArray[np.int64] | None:
        """The hashes of the file, if they are still there."""
        with self._lock:
            if path in self._files:
                self._files.move_to_end(path)
            return self._files.get(path)

    def put(self, path: str, hashes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Keeps the hashes of the file, and gives them back."""
        with self._lock:
            if path not in self._files:
                self._files[path] = hashes
                self._bytes += _size(hashes)
            while self._bytes > _CACHE_BYTES:
                self._bytes -= _size(self._files.popitem(last=False)[1])
        return hashes


def _size(hashes: npt.NDArray[np.int64]) -> int:
    return hashes.nbytes + 1_000  # with its path, and what else a small one takes


_cache = _HashCache()


def with_hashes(rows: pa.Table, hashes: npt.NDArray[np.int64]) -> pa.Table:
    """The rows with their hashes in the hidden column."""
    return rows.append_column(COLUMN, pa.array(hashes))


def hidden_fields(rows: pa.Table) -> Collection[pa.Field]:
    """The hidden column as a field, where the rows have it."""
    return [rows.schema.field(COLUMN)] if COLUMN in rows.column_names else []
