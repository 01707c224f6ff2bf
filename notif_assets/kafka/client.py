"""The one interface to Kafka: where a topic begins and ends, and exactly the records between two offsets.

Belongs here: the interface, what it returns, its errors, and what both implementations share. Doesn't: either client
library (python_client.py, confluent_client.py; imported only when one is opened, so that definitions load fast), nor
which ranges to read.

Both read committed records only, belong to no consumer group, commit nothing and never reset an offset by themselves.
Keys and values go into the record batches and nowhere else: not into logs, not into errors.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from notif_assets.errors import Unavailable
from notif_assets.kafka.offsets import Log

SCHEMA = pa.schema(
    [
        pa.field("kafka_partition", pa.int32(), nullable=False),
        pa.field("kafka_offset", pa.int64(), nullable=False),
        pa.field("kafka_timestamp", pa.timestamp("us", "UTC")),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
    ]
)
MAX_ROWS = 20_000
MAX_BYTES = 16 * 2**20
"""The most bytes of keys and values in a batch; a single larger record is a batch of its own."""

MOCK_CLUSTER = "mockCluster"
"""What the cluster id of the embedded broker begins with; Kafka's own ids are 16 bytes in base64."""

Ranges = Mapping[int, tuple[int, int]]  # partition → [start, end)


@dataclass(frozen=True)
class TopicOffsets:
    """What every partition holds. topic_id changes when a topic is deleted and created again; None: not known.

    The embedded broker loses its topics at every start, so the id of its cluster is used.
    """

    topic: str
    topic_id: str | None
    partitions: dict[int, Log]


@dataclass(frozen=True)
class RecordMark:
    """The identity of a record. `digest` (see `digest`) hashes its key and value; None: unknown."""

    offset: int
    timestamp: datetime | None
    digest: str | None

    def is_of(self, other: "RecordMark") -> bool:
        """Whether both may be marks of one record."""
        known = None not in (self.digest, other.digest)
        return (
            self.offset == other.offset
            and self.timestamp == other.timestamp
            and (not known or self.digest == other.digest)
        )


class KafkaClient(Protocol):
    """A connection to one topic. Every method raises a KafkaError within about `kafka_timeout` seconds of silence."""

    def offsets(self) -> TopicOffsets:
        """The topic's bounds now. Raises KafkaUnavailable, TopicMissing, NoLeader."""
        ...

    def first_records(self, ranges: Ranges) -> dict[int, list[RecordMark]]:
        """The first two committed records of each range, or as many as it has, and little of what lies behind them.

        Every range lies within its partition's log, as `offsets` tells it. Raises as `read`.
        """
        ...

    def read(self, ranges: Ranges) -> Iterator[pa.RecordBatch]:
        """Every committed record with start ≤ offset < end, per partition, each once, as batches with SCHEMA.

        In offset order within a partition, in any order across them; a batch holds at most MAX_ROWS rows and at most
        MAX_BYTES, unless it is one record that is larger alone. What is held of the topic at any moment is a few times
        that, whatever sizes follow each other. Offsets without a record (transaction markers, aborted or compacted
        messages) are passed over: a range ends when the position reaches its end, not when a record does. Raises
        OffsetsDeleted and RangeBeyondEnd before the first batch, ReadStalled, KafkaUnavailable, TopicMissing, NoLeader.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


OpenClient: TypeAlias = Callable[[], KafkaClient]
"""Makes a client; nothing is connected, nor a client library imported, before that."""


class KafkaError(Unavailable):
    """Anything that Kafka, or the way to it, refuses; one line that says what to do. It can be pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _error_again, (type(self), self.args, self.__dict__)


def _error_again(kind: type[KafkaError], arguments: tuple[Any, ...], known: dict[str, Any]) -> KafkaError:
    """An error as it was, without asking again for what it was made of."""
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(known)
    return error


class KafkaUnavailable(KafkaError):
    """No broker answers."""

    def __init__(self, bootstrap: str, reason: str = "") -> None:
        super().__init__(
            f"no Kafka broker answers at {bootstrap}{f' ({reason})' if reason else ''}: "
            "start it (`notif-assets broker`) or set NOTIF_KAFKA_BOOTSTRAP, or security.protocol in "
            "NOTIF_KAFKA_PROPERTIES if it is there"
        )


class LoginRefused(KafkaError):
    """The broker answers and refuses the user, the password or the login mechanism."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__(
            f"Kafka at {bootstrap} refuses the login: correct security.protocol and sasl.* in NOTIF_KAFKA_PROPERTIES"
        )


class NoSecureConnection(KafkaError):
    """Client and broker can't agree on TLS."""

    def __init__(self, bootstrap: str, reason: str) -> None:
        super().__init__(
            f"no secure connection to Kafka at {bootstrap} ({reason}): correct security.protocol and ssl.* in "
            "NOTIF_KAFKA_PROPERTIES"
        )


class TopicMissing(KafkaError):
    """The broker answers but has no such topic."""

    def __init__(self, topic: str, bootstrap: str) -> None:
        super().__init__(f"Kafka at {bootstrap} has no topic {topic!r}: create it or set NOTIF_TOPIC")


class NoLeader(KafkaError):
    """The topic exists, and some of its partitions have no leader."""

    def __init__(self, topic: str, partitions: Iterable[int]) -> None:
        self.partitions = tuple(sorted(partitions))
        one = len(self.partitions) == 1
        super().__init__(
            f"partition{'' if one else 's'} {', '.join(map(str, self.partitions))} of topic {topic!r} "
            f"{'has' if one else 'have'} no leader: look at the brokers and their disks, then run again"
        )


class OffsetsDeleted(KafkaError):
    """A range begins before its partition's log: Kafka deleted messages that were not read."""

    def __init__(self, partition: int, start: int, log_start: int) -> None:
        super().__init__(
            f"Kafka has deleted offsets {start} to {log_start - 1} of partition {partition} before they were read: "
            "restore them or accept the loss (`notif-assets accept-loss`)"
        )
        self.partition, self.start, self.log_start = partition, start, log_start


class RangeBeyondEnd(KafkaError):
    """A range ends after its partition's log does: the topic isn't the one that the range was planned on."""

    def __init__(self, partition: int, end: int, log_end: int) -> None:
        super().__init__(
            f"partition {partition} ends at offset {log_end}, before {end}: is this another cluster, or was the topic "
            "created again? Point NOTIF_KAFKA_BOOTSTRAP at the cluster that this lake was read from"
        )
        self.partition, self.end, self.log_end = partition, end, log_end


class ReadStalled(KafkaError):
    """The broker answers, but no position advances."""

    def __init__(self, seconds: float, unfinished: Ranges) -> None:
        where = ", ".join(f"{partition}: {at} of {end}" for partition, (at, end) in sorted(unfinished.items()))
        super().__init__(f"no progress for {seconds:g} s at partition {where}: look at the broker, then run again")


class PropertyRefused(KafkaError):
    """A Kafka property that the client doesn't know, can't take, or that isn't the user's to set."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"Kafka property {name!r} {why}: correct NOTIF_KAFKA_PROPERTIES")


_SSL_REASON = re.compile(r"SSL: (\w+)|SSL routines::([\w /]+)")  # as OpenSSL names it


def no_connection(bootstrap: str, refused_login: bool, library_errors: Iterable[str]) -> KafkaError:
    """The error of a client that got no answer, from what its library said of its connections (never a value)."""
    if refused_login:
        return LoginRefused(bootstrap)
    for text in library_errors:
        if "SSL" in text:
            named = _SSL_REASON.search(text)
            reason = next(filter(None, named.groups())) if named else "the broker does not speak TLS"
            return NoSecureConnection(bootstrap, reason.strip().lower().replace("_", " "))
    return KafkaUnavailable(bootstrap)


# Properties that the project sets itself are refused, under every name that a client has for them.
_FIXED = (
    "allow.auto.create.topics",
    "auto.commit.enable",
    "auto.offset.reset",
    "check.crcs",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "fetch.max.bytes",
    "fetch.max.wait.ms",
    "fetch.message.max.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "group.id",
    "isolation.level",
    "kafka.client",
    "logger",
    "max.partition.fetch.bytes",
    "metrics.enabled",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "receive.buffer.bytes",
    "socket.receive.buffer.bytes",
)
RESERVED = {
    **dict.fromkeys(("bootstrap.servers", "metadata.broker.list"), "is set by NOTIF_KAFKA_BOOTSTRAP"),
    **dict.fromkeys(_FIXED, "is fixed by this project"),
}


def check_properties(properties: Mapping[str, object]) -> None:
    """Raises PropertyRefused for a property that the project sets itself."""
    for name in properties:
        dotted = name.replace("_", ".")  # as kafka-python takes them too
        if dotted in RESERVED:
            raise PropertyRefused(name, RESERVED[dotted])
        if dotted.endswith(".cb"):
            raise PropertyRefused(name, "is a function, which no setting can hold")


def check_ranges(ranges: Ranges, offsets: TopicOffsets) -> dict[int, tuple[int, int]]:
    """The ranges that hold anything. Raises OffsetsDeleted, RangeBeyondEnd, ValueError for an end before its start."""
    wanted = {}
    for partition, (start, end) in ranges.items():
        log = offsets.partitions.get(partition, Log(0, 0))
        if end < start or start < 0:
            raise ValueError(f"not a range of offsets: [{start}, {end}) of partition {partition}")
        if start == end:
            continue
        if start < log.start:
            raise OffsetsDeleted(partition, start, log.start)
        if end > log.end:
            raise RangeBeyondEnd(partition, end, log.end)
        wanted[partition] = (start, end)
    return wanted


class Progress:
    """What is left of the ranges of one read: partition → (position, end)."""

    def __init__(self, ranges: Ranges, timeout: float) -> None:
        self.left = dict(ranges)
        self._timeout = timeout
        self._moved_at = time.monotonic()

    def reach(self, positions: Mapping[int, int]) -> list[int]:
        """Takes the positions reached and gives the partitions that this finishes. Raises ReadStalled."""
        moved = False
        for partition, position in positions.items():
            if partition in self.left and position > self.left[partition][0]:
                moved = True
                self.left[partition] = position, self.left[partition][1]
        if moved:
            self._moved_at = time.monotonic()
        elif time.monotonic() > self._moved_at + self._timeout:
            raise ReadStalled(self._timeout, self.left)
        finished = [partition for partition, (position, end) in self.left.items() if position >= end]
        for partition in finished:
            del self.left[partition]
        return finished

    def reset_timeout(self) -> None:
        """Restarts the timeout: the time spent on the records is not silence of the broker."""
        self._moved_at = time.monotonic()


def digest(key: bytes | None, value: bytes | None) -> str:
    """32 hexadecimal digits that tell one record's key and value from another's."""
    found = sha256()
    for part in (key, value):
        found.update(b"-" if part is None else b"%d:" % len(part))
        found.update(part or b"")
    return found.hexdigest()[:32]


def first_two_marks(batches: Iterable[pa.RecordBatch], ranges: Ranges) -> dict[int, list[RecordMark]]:
    """The first two records of each range, from a read of them that ends as soon as they are known."""
    found: dict[int, list[RecordMark]] = {partition: [] for partition in ranges}
    for batch in batches:
        for index, partition in enumerate(batch["kafka_partition"].to_pylist()):
            if len(found[partition]) < 2:
                row = batch.slice(index, 1).to_pylist()[0]
                mark = RecordMark(row["kafka_offset"], row["kafka_timestamp"], digest(row["key"], row["value"]))
                found[partition].append(mark)
        if all(len(marks) == 2 or (marks and marks[0].offset == ranges[p][1] - 1) for p, marks in found.items()):
            break
    return found


def slices(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Records of these sizes in bytes → [start, end) of as many at a time as a batch may hold.

    >>> from unittest.mock import patch
    >>> with patch(f"{slices.__module__}.MAX_BYTES", 10), patch(f"{slices.__module__}.MAX_ROWS", 3):
    ...     list(slices([4, 6, 1, 30, 0, 0, 0, 0]))
    [(0, 2), (2, 3), (3, 4), (4, 7), (7, 8)]
    """
    ends = np.cumsum(np.asarray(sizes, dtype=np.int64))
    start = 0
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        end = int(np.searchsorted(ends, before + MAX_BYTES, side="right"))
        end = min(max(end, start + 1), start + MAX_ROWS, len(ends))
        yield start, end
        start = end


_LAST_MILLISECOND = 253_402_300_799_999  # of year 9999, the last that Python's datetime knows


def record_batch(
    partitions: list[int], offsets: list[int], milliseconds: list[int], keys: list[Any], values: list[Any]
) -> pa.RecordBatch:
    """Columns as the clients give them → a batch with SCHEMA. A timestamp that is none (−1) or absurd becomes null."""
    stamps = pa.array(milliseconds, pa.int64())
    real = pc.and_(pc.greater_equal(stamps, 0), pc.less_equal(stamps, _LAST_MILLISECOND))
    stamps = pc.if_else(real, stamps, None).cast(pa.timestamp("ms", "UTC")).cast(SCHEMA.field("kafka_timestamp").type)
    columns = [
        pa.array(partitions, pa.int32()),
        pa.array(offsets, pa.int64()),
        stamps,
        pa.array(keys, pa.binary()),
        pa.array(values, pa.binary()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
