"""KafkaClient on confluent-kafka (librdkafka), the fast one.

Belongs here: what is particular to that library. Doesn't: what both clients share (client.py).
"""

import logging
import re
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Consumer, KafkaException, TopicCollection, TopicPartition
from confluent_kafka import KafkaError as Code
from confluent_kafka import Message as _Message
from confluent_kafka.admin import AdminClient

from notif_assets.core.offsets import Log
from notif_assets.kafka.client import (
    KafkaError,
    Progress,
    PropertyRefused,
    Ranges,
    ReadStalled,
    TopicMissing,
    TopicOffsets,
    check_properties,
    check_ranges,
    no_connection,
    record_batch,
    rows_within_bytes,
)
from notif_assets.settings import Settings

_SILENT = logging.Logger("librdkafka", logging.CRITICAL)  # outside the logging tree: nobody else can turn it up
_SILENT.addHandler(logging.NullHandler())

Message: Any = _Message  # its types allow a None that a message from a topic never has
_UNREACHABLE = {Code._TRANSPORT, Code._TIMED_OUT, Code._RESOLVE, Code._ALL_BROKERS_DOWN}
# A restarted broker is there again soon; one that has just started, or a new topic, has its leaders in a moment.
_WORTH_WAITING = _UNREACHABLE | {Code.NOT_LEADER_FOR_PARTITION, Code.LEADER_NOT_AVAILABLE}
_MISSING = {Code.UNKNOWN_TOPIC_OR_PART, Code._UNKNOWN_TOPIC, Code._UNKNOWN_PARTITION}

# A short wait, since consume() returns early only when it has all it was asked for.
_CONSUME_SECONDS = 0.05


class ConfluentClient:
    """See KafkaClient."""

    def __init__(self, settings: Settings) -> None:
        check_properties(settings.kafka_properties)
        self._topic = settings.topic
        self._bootstrap = settings.kafka_bootstrap
        self._timeout = settings.kafka_timeout
        self._said: dict[int, str] = {}  # what librdkafka said of its connections since the call began
        self._connection: dict[str, Any] = connection_config(settings) | {"error_cb": self._on_error}
        self._consumer: Any = None

    def __enter__(self) -> Self:
        config = self._connection | {
            "group.id": "notif-assets",  # the library wants one; it is never joined
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "check.crcs": True,
            "fetch.max.bytes": 64 * 2**20,
            "max.partition.fetch.bytes": 8 * 2**20,
            "queued.max.messages.kbytes": 128 * 2**10,
            "fetch.queue.backoff.ms": 5,
            "fetch.wait.max.ms": 100,  # how long the news takes that a partition has no more
        }
        self._consumer = new_handle(Consumer, config)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()
        self._consumer = None

    def offsets(self) -> TopicOffsets:
        self._said.clear()
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                return self._offsets(deadline)
            except KafkaException as error:
                if error.args[0].code() not in _WORTH_WAITING or time.monotonic() > deadline:
                    raise self._translated(error) from None
            time.sleep(0.1)

    def _offsets(self, deadline: float) -> TopicOffsets:
        cluster = self._consumer.list_topics(self._topic, timeout=max(0.1, deadline - time.monotonic()))
        topic = cluster.topics[self._topic]
        if topic.error is not None:
            raise KafkaException(topic.error)
        bounds = {}
        for partition in sorted(topic.partitions):
            left = max(0.1, deadline - time.monotonic())
            bounds[partition] = Log(
                *self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=left)
            )
        return TopicOffsets(self._topic, self._topic_id(cluster, deadline), bounds)

    def read(self, ranges: Ranges) -> Iterator[pa.RecordBatch]:
        wanted = check_ranges(ranges, self.offsets())
        if not wanted:
            return
        ends = pa.array([wanted.get(partition, (0, 0))[1] for partition in range(max(wanted) + 1)], pa.int64())
        progress = Progress(wanted, self._timeout)
        rows = 1000  # until the first batch shows how big the messages are
        try:
            starts = [TopicPartition(self._topic, partition, start) for partition, (start, _) in wanted.items()]
            self._consumer.assign(starts)
            self._consumer.resume(starts)  # a pause outlives its assignment
            while progress.left:
                messages = self._consumer.consume(rows, timeout=_CONSUME_SECONDS)
                events: list[Any] = []
                if any(map(Message.error, messages)):
                    events = [message for message in messages if message.error() is not None]
                    messages = [message for message in messages if message.error() is None]
                partitions = list(map(Message.partition, messages))
                offsets = list(map(Message.offset, messages))
                positions = {partition: offset + 1 for partition, offset in zip(partitions, offsets, strict=True)}
                for event in events:
                    # The end of a partition: the only sign that a position has passed offsets without records.
                    if event.error().code() != Code._PARTITION_EOF:
                        raise KafkaException(event.error())
                    positions[event.partition()] = event.offset()
                if messages:
                    batch = record_batch(
                        partitions,
                        offsets,
                        [milliseconds for _, milliseconds in map(Message.timestamp, messages)],
                        list(map(Message.key, messages)),
                        list(map(Message.value, messages)),
                    )
                    rows = rows_within_bytes(batch)
                    # The library reads ahead: what lies beyond a range's end isn't asked for.
                    batch = batch.filter(pc.less(batch["kafka_offset"], ends.take(batch["kafka_partition"])))
                    if batch.num_rows:
                        yield batch
                finished = progress.reach(positions)
                self._consumer.pause([TopicPartition(self._topic, partition) for partition in finished])
        except ReadStalled:
            if self._said:
                raise self._no_connection() from None
            raise
        except KafkaException as error:
            check_ranges(progress.left, self.offsets())  # deleted meanwhile?
            raise self._translated(error) from None
        finally:
            if self._consumer is not None:
                self._consumer.unassign()

    def _topic_id(self, cluster: Any, deadline: float) -> str | None:
        if cluster.controller_id not in cluster.brokers:  # the embedded broker has none, and this would wait for it
            return None
        admin = new_handle(AdminClient, self._connection)
        left = max(0.1, deadline - time.monotonic())
        try:
            described = admin.describe_topics(TopicCollection([self._topic]), request_timeout=left)
            # As Kafka's own tools print it, so that both clients agree.
            return str(described[self._topic].result(left).topic_id).replace("+", "-").replace("/", "_")
        except KafkaException as error:
            if error.args[0].code() == Code._UNSUPPORTED_FEATURE:  # a broker older than 2.8
                return None
            raise
        except TimeoutError:  # a moment before the library itself says so
            raise KafkaException(Code(Code._TIMED_OUT)) from None

    def _on_error(self, error: Any) -> None:
        self._said[error.code()] = error.str()

    def _no_connection(self) -> KafkaError:
        self._consumer.poll(0)  # only so are we told
        return no_connection(self._bootstrap, Code._AUTHENTICATION in self._said, self._said.values())

    def _translated(self, error: KafkaException) -> KafkaError:
        code = error.args[0].code()
        if code in _UNREACHABLE:
            return self._no_connection()
        if code in _MISSING:
            return TopicMissing(self._topic, self._bootstrap)
        return KafkaError(f"Kafka at {self._bootstrap} refuses topic {self._topic!r}: {error.args[0].name()}")


def connection_config(settings: Settings) -> dict[str, Any]:
    """librdkafka's own names: they are Kafka's, or close."""
    return {**settings.kafka_properties, "bootstrap.servers": settings.kafka_bootstrap, "logger": _SILENT}


def new_handle(kind: type, config: dict[str, Any]) -> Any:
    """A Consumer, Producer or AdminClient. Raises PropertyRefused for what it won't take, without the value."""
    try:
        return kind(config)
    except KafkaException as error:
        name = re.search(r'property:? "([^"]+)"|([a-z.]+) failed:', str(error))
        raise PropertyRefused((name[1] or name[2]) if name else "?", "is refused by confluent-kafka") from None
