"""Which keys (customer_id, message_id) come more than once among any number of rows.

Belongs here: finding the hashes of such keys, each row read once or twice. Doesn't: comparing the keys themselves,
which is then done for few rows (sql/): a hash only says where that is worth while.

A day has a hundred million keys: their texts would take gigabytes, and so would the engine's table of them. Sorted
hashes take 8 bytes each. They come in shares of customers, as the files of hours that are over are sorted by customer:
of these a share reads its own part.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from notif_assets.lake import Lake, Scan

_SHARE_ROWS = 16_000_000
_STREAMED_ROWS = 500_000


def repeated_keys(lake: Lake, stored: Scan, most: int = _SHARE_ROWS) -> Iterator[tuple[Scan, pa.Table]]:
    """The hashes (key_hash, as sql/stored_hashes.sql makes them) of the keys that come more than once, with the part of
    the scan that has all rows of these; nothing where there are none. A few of other keys may be among them.

    About `most` hashes are in memory at once. Of a customer with more rows than that, the rows are read several times.
    """
    for customers, rows in _shares(lake, stored, most):
        part = replace(stored, bounds={**stored.bounds, "customer_id": customers})
        passes = -(-rows // most)
        for number in range(passes):
            if len(found := _repeated(lake, part, passes, number)):
                yield part, pa.table({"key_hash": found})


def _shares(lake: Lake, stored: Scan, most: int) -> Iterator[tuple[tuple[int, int | None], int]]:
    """Ranges of customers that have about `most` rows, or one customer who has more; and how many rows they have."""
    counts = lake.select("rows_of_customers", {"stored": stored})
    first, held = None, 0
    for customer, rows in zip(counts["customer_id"].to_pylist(), counts["row_count"].to_pylist(), strict=True):
        if first is not None and held + rows > most:
            yield (first, customer), held
            first, held = None, 0
        first, held = customer if first is None else first, held + rows
    if first is not None:
        yield (first, None), held


def _repeated(lake: Lake, stored: Scan, passes: int, number: int) -> npt.NDArray[np.int64]:
    """The hashes that come more than once, of those that are `number` modulo `passes`; in order."""
    some = [np.empty(0, np.int64)]
    for batch in lake.stream("stored_hashes", {"stored": stored}, _STREAMED_ROWS):
        hashes: npt.NDArray[np.int64] = batch["key_hash"].to_numpy()
        some.append(hashes if passes == 1 else hashes[hashes % passes == number])
    every = np.concatenate(some)
    del some
    every.sort()
    return np.unique(every[1:][every[1:] == every[:-1]])
