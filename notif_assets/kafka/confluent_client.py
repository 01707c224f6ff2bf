"""KafkaClient on confluent-kafka (librdkafka), the fast one.

Belongs here: what is particular to that library. Doesn't: what both clients share (client.py).
"""

import logging
import re
import time
from collections.abc import Container, Generator, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from itertools import chain
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
from confluent_kafka import Consumer, IsolationLevel, KafkaException, TopicCollection, TopicPartition
from confluent_kafka import KafkaError as Code
from confluent_kafka import Message as _Message
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin import OffsetSpec as _OffsetSpec  # type: ignore[attr-defined]

from notif_assets.kafka.client import (
    MAX_BYTES,
    MAX_ROWS,
    MOCK_CLUSTER,
    KafkaError,
    NoLeader,
    Progress,
    PropertyRefused,
    Ranges,
    ReadStalled,
    RecordMark,
    TopicMissing,
    TopicOffsets,
    check_properties,
    check_ranges,
    first_two_marks,
    no_connection,
    record_batch,
    slices,
)
from notif_assets.kafka.offsets import Log
from notif_assets.settings import Settings

_SILENT = logging.Logger(
    "librdkafka", logging.CRITICAL
)  # outside the logging tree, so that no configuration enables it
_SILENT.addHandler(logging.NullHandler())

OffsetSpec: Any = _OffsetSpec
Message: Any = _Message  # its types allow a None that a message from a topic never has
_UNREACHABLE = {
    Code._TRANSPORT,
    Code._TIMED_OUT,
    Code._RESOLVE,
    Code._ALL_BROKERS_DOWN,
    Code._NOENT,  # the library has lost the leaders of all partitions
    Code.REQUEST_TIMED_OUT,
    Code.NETWORK_EXCEPTION,
    Code.BROKER_NOT_AVAILABLE,
}
# A restarted broker soon answers again. A new broker or topic has its leaders in a moment, perhaps with an epoch that
# the library does not know yet.
_WORTH_WAITING = _UNREACHABLE | {
    Code.NOT_LEADER_FOR_PARTITION,
    Code.LEADER_NOT_AVAILABLE,
    Code.REPLICA_NOT_AVAILABLE,
    Code.KAFKA_STORAGE_ERROR,
    Code.FENCED_LEADER_EPOCH,
    Code.UNKNOWN_LEADER_EPOCH,
    Code.OFFSET_NOT_AVAILABLE,
}
_MISSING = {Code.UNKNOWN_TOPIC_OR_PART, Code._UNKNOWN_TOPIC}

# A short wait, since consume() returns early only when it has all it was asked for.
_CONSUME_SECONDS = 0.05
_LOOKUP_SECONDS = 5.0
_NO_ID = "AAAAAAAAAAAAAAAAAAAAAA"  # from a broker without ids
# Few at a time: while they leave its queue the library refills it, and they may be of any size.
_CONSUME_ROWS = 1_000

_EXACT: dict[str, Any] = {
    "group.id": "notif-assets",  # the library requires one; the client never joins it
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "isolation.level": "read_committed",
    "auto.offset.reset": "error",
    "allow.auto.create.topics": False,
    "enable.partition.eof": True,
    "check.crcs": True,
    "fetch.queue.backoff.ms": 5,
    "fetch.wait.max.ms": 100,  # how long the end of a partition takes to arrive
}
# Messages kept from beyond the ranges: finished partitions are read ahead while the last ones are read.
_AHEAD_BYTES = MAX_BYTES // 2
# Bytes on the wire, which compression may make a thousand times more in memory: an answer is decompressed whole.
_LARGE_FETCHES = {
    "fetch.max.bytes": 2**20,
    "max.partition.fetch.bytes": 2**16,  # a response covers many partitions, so that none is far behind
    "queued.max.messages.kbytes": (MAX_BYTES - _AHEAD_BYTES) // 2**10,
}
_SMALL_FETCHES = {
    "fetch.max.bytes": 2**20,
    "max.partition.fetch.bytes": 2**16,
    "queued.min.messages": 1,
    "queued.max.messages.kbytes": 2**10,
}


class ConfluentClient:
    """See KafkaClient."""

    def __init__(self, settings: Settings) -> None:
        check_properties(settings.kafka_properties)
        self._topic = settings.topic
        self._bootstrap = settings.kafka_bootstrap
        self._timeout = settings.kafka_timeout
        self._connection_errors: dict[int, str] = {}  # what librdkafka said of its connections since the call began
        self._connection: dict[str, Any] = connection_config(settings) | {"error_cb": self._on_error}
        self._consumer: Any = None
        self._lookup_consumer: Any = None  # a consumer that fetches little
        self._admin: Any = None

    def __enter__(self) -> Self:
        self._consumer = new_handle(Consumer, self._connection | _EXACT | _LARGE_FETCHES)
        self._stream = _Stream(self._consumer, self._topic)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for consumer in (self._consumer, self._lookup_consumer):
            if consumer is not None:
                consumer.close()
        self._consumer = self._lookup_consumer = self._admin = None

    def offsets(self) -> TopicOffsets:
        self._connection_errors.clear()
        deadline = time.monotonic() + self._timeout
        without: NoLeader | None = None
        while True:
            try:
                return self._offsets(deadline)
            except NoLeader as error:
                without = error
                if time.monotonic() > deadline:
                    raise
            except KafkaException as error:
                if error.args[0].code() not in _WORTH_WAITING or time.monotonic() > deadline:
                    # The last request may have had no time for its answer: the error before it says more.
                    raise without or self._translated(error) from None
            time.sleep(0.1)

    def _offsets(self, deadline: float) -> TopicOffsets:
        """One request to each broker for the beginnings and one for the ends, all at once."""
        cluster = self._metadata(deadline)
        if self._admin is None:
            self._admin = new_handle(AdminClient, self._connection)
        partitions = sorted(cluster.topics[self._topic].partitions)
        left = max(0.1, deadline - time.monotonic())
        starts, ends = (
            self._admin.list_offsets(
                {TopicPartition(self._topic, partition): spec for partition in partitions},
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=left,
            )
            for spec in (OffsetSpec.earliest(), OffsetSpec.latest())
        )
        topic_id = self._topic_id(cluster, left)
        first, last = (
            {where.partition: _result_of(offset, left).offset for where, offset in queries.items()}
            for queries in (starts, ends)
        )
        return TopicOffsets(self._topic, topic_id, {p: Log(first[p], last[p]) for p in partitions})

    def _metadata(self, deadline: float) -> Any:
        """The cluster, with the topic and a leader of each of its partitions. Raises NoLeader."""
        cluster = self._consumer.list_topics(self._topic, timeout=max(0.1, deadline - time.monotonic()))
        topic = cluster.topics[self._topic]
        if topic.error is not None:
            raise KafkaException(topic.error)
        without = [partition for partition, known in topic.partitions.items() if known.leader < 0]
        if without:
            raise NoLeader(self._topic, without)
        return cluster

    def first_records(self, ranges: Ranges) -> dict[int, list[RecordMark]]:
        wanted = {partition: (start, end) for partition, (start, end) in ranges.items() if start < end}
        if not wanted:
            return {}
        if self._lookup_consumer is None:
            self._lookup_consumer = new_handle(Consumer, self._connection | _EXACT | _SMALL_FETCHES)
        with (
            closing(_Stream(self._lookup_consumer, self._topic)) as stream,
            closing(self._read(stream, wanted)) as batches,
        ):
            return first_two_marks(batches, wanted)

    def read(self, ranges: Ranges) -> Iterator[pa.RecordBatch]:
        wanted = check_ranges(ranges, self.offsets())
        if wanted:
            yield from self._read(self._stream, wanted)

    def _read(self, stream: "_Stream", wanted: dict[int, tuple[int, int]]) -> Generator[pa.RecordBatch, None, None]:
        progress = Progress(wanted, self._timeout)
        whole = False
        try:
            waiting = stream.switch_to(wanted)
            held = sum(map(len, waiting))
            progress.reach(stream.positions)
            idle = False
            while waiting or progress.left:
                if waiting and (idle or held >= MAX_BYTES or len(waiting) >= MAX_ROWS or not progress.left):
                    yield from _batches(waiting)
                    waiting, held = [], 0
                    progress.reset_timeout()
                    continue
                messages = stream.consume()
                progress.reach(stream.positions)
                stream.pause_if_far_ahead(progress.left)
                idle = not messages
                held += sum(map(len, messages))
                waiting += messages
                del messages
            whole = True
        except ReadStalled:
            if self._connection_errors:
                raise self._no_connection() from None
            with suppress(KafkaException):
                self._metadata(time.monotonic() + min(self._timeout, _LOOKUP_SECONDS))  # a leader is gone?
            raise
        except KafkaException as error:
            check_ranges(progress.left, self.offsets())  # deleted meanwhile?
            raise self._translated(error) from None
        finally:
            if not whole and self._consumer is not None:
                stream.forget()

    def _topic_id(self, cluster: Any, seconds: float) -> str | None:
        if str(cluster.cluster_id).startswith(MOCK_CLUSTER):  # it has no controller, and this would wait for it
            return str(cluster.cluster_id)
        described = self._admin.describe_topics(TopicCollection([self._topic]), request_timeout=seconds)
        try:
            # As Kafka's own tools print it, so that both clients agree.
            topic_id = str(_result_of(described[self._topic], seconds).topic_id).replace("+", "-").replace("/", "_")
        except KafkaException as error:
            if error.args[0].code() == Code._UNSUPPORTED_FEATURE:  # a broker older than 2.8
                return None
            raise
        return None if topic_id == _NO_ID else topic_id

    def _on_error(self, error: Any) -> None:
        self._connection_errors[error.code()] = error.str()

    def _no_connection(self) -> KafkaError:
        self._consumer.poll(0)  # this calls _on_error
        return no_connection(
            self._bootstrap, Code._AUTHENTICATION in self._connection_errors, self._connection_errors.values()
        )

    def _translated(self, error: KafkaException) -> KafkaError:
        code = error.args[0].code()
        if code in _UNREACHABLE:
            return self._no_connection()
        if code in _MISSING:
            return TopicMissing(self._topic, self._bootstrap)
        return KafkaError(f"Kafka at {self._bootstrap} refuses topic {self._topic!r}: {error.args[0].name()}")


class _Stream:
    """The consumer's stream of the topic, kept between reads.

    The library reads ahead. A range that begins where the one before it ended goes on with what was read ahead: to
    assign anew for each range costs twice as much as to read. Every other range is assigned anew.
    """

    def __init__(self, consumer: Any, topic: str) -> None:
        self._consumer, self._topic = consumer, topic
        self.positions: dict[int, int] = {}
        """Up to where each assigned partition is read; also past offsets without a record."""
        self._ends: dict[int, int] = {}  # of the range of each that was asked for last
        self._ahead: dict[int, list[Any]] = {}  # messages beyond it
        self._held = 0  # their bytes
        self._paused: set[int] = set()

    def switch_to(self, ranges: Ranges) -> list[Any]:
        """Switches to these ranges and returns what was read of them already. Raises KafkaException."""
        if any(self._ends.get(partition) != start for partition, (start, _) in ranges.items()):
            self._assign(self._ends | {partition: start for partition, (start, _) in ranges.items()})
        self._resume(self._paused & ranges.keys())
        found: list[Any] = []
        for partition, (_, end) in ranges.items():
            self._ends[partition] = end
            found += self._of_range(self._ahead.pop(partition, []))
        self._held = sum(map(len, chain.from_iterable(self._ahead.values())))
        return found

    def consume(self) -> list[Any]:
        """Some more messages of the ranges, after a short wait perhaps none. Raises KafkaException."""
        messages = self._consumer.consume(_CONSUME_ROWS, timeout=_CONSUME_SECONDS)
        ends: list[Any] = []
        if any(map(Message.error, messages)):
            ends = [message for message in messages if message.error() is not None]
            messages = [message for message in messages if message.error() is None]
        last = dict(zip(map(Message.partition, messages), map(Message.offset, messages), strict=True))
        reached = {partition: offset + 1 for partition, offset in last.items()}
        for event in ends:
            # The end of a partition: the only sign that a position has passed offsets without records.
            if event.error().code() != Code._PARTITION_EOF:
                raise KafkaException(event.error())
            reached[event.partition()] = event.offset()
        self.positions |= reached
        beyond = any(reached[partition] > self._ends[partition] for partition in last)
        return self._of_range(messages) if beyond else messages

    def _of_range(self, messages: list[Any]) -> list[Any]:
        """Those of the ranges; keeps the others."""
        within = []
        for message in messages:
            if message.offset() < self._ends[message.partition()]:
                within.append(message)
            else:
                self._ahead.setdefault(message.partition(), []).append(message)
                self._held += len(message)
        return within

    def pause_if_far_ahead(self, unfinished: Container[int]) -> None:
        """Reads no further ahead of partitions that are finished if much is held of them."""
        if self._held > _AHEAD_BYTES:
            more = [p for p in self.positions if p not in unfinished and p not in self._paused]
            self._paused.update(more)
            self._consumer.pause([TopicPartition(self._topic, partition) for partition in more])

    def _assign(self, starts: Mapping[int, int]) -> None:
        self.forget()
        self._consumer.assign([TopicPartition(self._topic, partition, start) for partition, start in starts.items()])
        self._resume(starts)  # a pause outlives its assignment
        self._ends = dict(starts)
        self.positions = dict(starts)

    def _resume(self, partitions: Iterable[int]) -> None:
        self._consumer.resume([TopicPartition(self._topic, partition) for partition in partitions])
        self._paused.difference_update(partitions)

    def forget(self) -> None:
        """Drops everything that was read ahead; the next range is assigned again."""
        self._consumer.unassign()
        self.positions, self._ends, self._ahead, self._held = {}, {}, {}, 0
        self._paused.clear()

    close = forget


def _batches(messages: list[Any]) -> Iterator[pa.RecordBatch]:
    """The messages as batches that keep the bounds; each is let go when the next one is asked for, and the list with
    the last one."""
    keys = list(map(Message.key, messages))
    sizes = list(map(len, messages))
    if any(keys):
        sizes = [size + len(key or b"") for size, key in zip(sizes, keys, strict=True)]
    for start, end in slices(sizes):
        some = messages[start:end]
        batch = record_batch(
            list(map(Message.partition, some)),
            list(map(Message.offset, some)),
            [milliseconds for _, milliseconds in map(Message.timestamp, some)],
            keys[start:end],
            list(map(Message.value, some)),
        )
        del some
        messages[start:end] = keys[start:end] = [None] * (end - start)
        yield batch
        del batch


def _result_of(future: Any, seconds: float) -> Any:
    """What an administrator's question brought. Raises KafkaException."""
    try:
        return future.result(seconds)
    except TimeoutError:  # a moment before the library's own timeout
        raise KafkaException(Code(Code._TIMED_OUT)) from None


def connection_config(settings: Settings) -> dict[str, Any]:
    """librdkafka's own names: they are Kafka's, or close."""
    properties = {name: value.get_secret_value() for name, value in settings.kafka_properties.items()}
    return {**properties, "bootstrap.servers": settings.kafka_bootstrap, "logger": _SILENT}


def new_handle(kind: type, config: dict[str, Any]) -> Any:
    """A Consumer, Producer or AdminClient. Raises PropertyRefused for what it won't take, without the value."""
    try:
        return kind(config)
    except KafkaException as error:
        name = re.search(r'property:? "([^"]+)"|([a-z.]+) failed:', str(error))
        raise PropertyRefused((name[1] or name[2]) if name else "?", "is refused by confluent-kafka") from None
