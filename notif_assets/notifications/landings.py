"""Whether each record of some batches is where it belongs, once: the answer that is nearly always yes, at little cost.

Belongs here: yes or no. Doesn't: which records are not, and what is wrong with them (sql/offset_findings.sql): who asks
and is told no asks that then.

Offsets are whole numbers in a row, so a byte for each of them takes the place of the engine's table of places: a day
has a hundred million. The answer is exact.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from notif_assets.lake import Lake
from notif_assets.lake.engine import Input

_MOST_OFFSETS = 2**28  # a day's are a hundred million; of more than this the engine is asked, which has a disk
_STREAMED_ROWS = 500_000


def all_land_once(lake: Lake, batches: Input, records: Input, accepted: Input, rejected: Input) -> bool:
    """Whether each of the records is within its batch's range in the ledger, once, and once among what was accepted or
    rejected; False too if there are too many offsets to tell. Inputs as of sql/offset_findings.sql."""
    if lake.select("records_out_of_range", {"batches": batches, "records": records})["places"][0].as_py():
        return False
    reach = lake.select("partition_reach", {"batches": batches})
    if not reach.num_rows:
        return False
    offset_numbers = _OffsetNumbers(reach)
    if offset_numbers.size > _MOST_OFFSETS:
        return False
    taken = np.zeros(offset_numbers.size, bool)
    if _mark(lake, offset_numbers, [records], taken, None) != np.count_nonzero(taken):
        return False
    landed = np.zeros(offset_numbers.size, bool)
    number = _mark(lake, offset_numbers, [accepted, rejected], landed, taken)
    return bool(number == np.count_nonzero(landed) == np.count_nonzero(taken))


def _mark(
    lake: Lake,
    offset_numbers: "_OffsetNumbers",
    scans: list[Input],
    marks: npt.NDArray[np.bool_],
    among: npt.NDArray[np.bool_] | None,
) -> int:
    """Marks where rows of the scans are, `among` these places if they are given; gives how many rows that were."""
    rows = 0
    for scan in scans:
        for batch in lake.stream("places", {"placed": scan}, _STREAMED_ROWS):
            at = offset_numbers.numbers(batch)
            at = at if among is None else at[among[at]]
            marks[at] = True
            rows += len(at)
    return rows


class _OffsetNumbers:
    """The offsets of all partitions, numbered in a row from 0."""

    def __init__(self, reach: pa.Table) -> None:
        partitions = reach["kafka_partition"].to_numpy()
        self._starts, self._ends, self._bases = (np.zeros(partitions.max() + 1, np.int64) for _ in range(3))
        self._starts[partitions] = reach["first_offset"].to_numpy()
        self._ends[partitions] = reach["end_offset"].to_numpy()
        sizes = self._ends - self._starts
        self._bases = np.cumsum(sizes) - sizes
        self.size = int(sizes.sum())

    def numbers(self, rows: pa.RecordBatch) -> npt.NDArray[np.int64]:
        """The numbers of the rows' places, less those beyond."""
        partitions, offsets = rows["kafka_partition"].to_numpy(), rows["kafka_offset"].to_numpy()
        known = (partitions >= 0) & (partitions < len(self._starts))
        partitions, offsets = partitions[known], offsets[known]
        within = (offsets >= self._starts[partitions]) & (offsets < self._ends[partitions])
        partitions, offsets = partitions[within], offsets[within]
        found: npt.NDArray[np.int64] = self._bases[partitions] + offsets - self._starts[partitions]
        return found
