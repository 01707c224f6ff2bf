"""A topic that this process holds itself, for what the tables cost without Kafka.

Belongs here: what any such topic does alike for a KafkaClient. Doesn't: where its records are (ingest.py, hour.py).
"""

from collections.abc import Iterator
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from notif_assets.kafka.client import Ranges, RecordMark, first_two_marks


class OwnTopic:
    """A KafkaClient without Kafka, but for what the topic holds (`offsets`)."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions

    def candidates(self, ranges: Ranges) -> Iterator[pa.RecordBatch]:
        """Batches that have all records of the ranges, and may have others."""
        raise NotImplementedError

    def read(self, ranges: Ranges) -> Iterator[pa.RecordBatch]:
        """See KafkaClient."""
        starts = pa.array([ranges.get(p, (0, 0))[0] for p in range(self.partitions)])
        ends = pa.array([ranges.get(p, (0, 0))[1] for p in range(self.partitions)])
        for near in self.candidates(ranges):
            start, end = (bounds.take(near["kafka_partition"]) for bounds in (starts, ends))
            offsets = near["kafka_offset"]
            yield near.filter(pc.and_(pc.greater_equal(offsets, start), pc.less(offsets, end)))

    def first_records(self, ranges: Ranges) -> dict[int, list[RecordMark]]:
        """See KafkaClient."""
        return {p: first_two_marks(self.read({p: bounds}), {p: bounds})[p] for p, bounds in ranges.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass
