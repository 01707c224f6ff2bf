"""KafkaClient on kafka-python, the one that needs nothing but Python.

Belongs here: what is particular to that library. Doesn't: what both clients share (client.py).
"""

import base64
import logging
import os
import time
import uuid
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, suppress
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import OffsetSpec
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.protocol.consumer import IsolationLevel

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

_POLL_MILLISECONDS = 100
# Polling turns fetched bytes into records: few at a time, and fewer if they are large.
_POLL_ROWS = 500
_POLL_BYTES = MAX_BYTES // 8

_EXACT: dict[str, Any] = {
    "group_id": None,
    "enable_auto_commit": False,
    "isolation_level": "read_committed",
    "auto_offset_reset": "none",
    "allow_auto_create_topics": False,
    "check_crcs": True,
    "fetch_max_wait_ms": _POLL_MILLISECONDS,
    "metrics_enabled": False,
}
# Bytes on the wire, which compression may make a thousand times more in memory.
_LARGE_FETCHES = {"fetch_max_bytes": 2 * 2**20, "max_partition_fetch_bytes": 2**18, "receive_buffer_bytes": 4 * 2**20}
_SMALL_FETCHES = {"fetch_max_bytes": 2**20, "max_partition_fetch_bytes": 2**16}
_PROTOCOLS = {"PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"}  # another would be found out by never connecting
_NO_ID = uuid.UUID(int=0)  # from a broker older than 2.8
_LOGIN_REFUSED = (
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.IllegalSaslStateError,
)
_LOGGER = logging.getLogger("kafka")

# Where librdkafka's names, which kafka_properties uses, aren't kafka-python's with dots for underscores.
_RENAMED = {
    "sasl.mechanisms": "sasl_mechanism",
    "sasl.username": "sasl_plain_username",
    "sasl.password": "sasl_plain_password",
    "ssl.ca.location": "ssl_cafile",
    "ssl.certificate.location": "ssl_certfile",
    "ssl.key.location": "ssl_keyfile",
    "ssl.key.password": "ssl_password",
    "ssl.crl.location": "ssl_crlfile",
    "ssl.cipher.suites": "ssl_ciphers",
}


class PythonClient:
    """See KafkaClient."""

    def __init__(self, settings: Settings) -> None:
        check_properties(settings.kafka_properties)
        self._topic = settings.topic
        self._bootstrap = settings.kafka_bootstrap
        self._timeout = settings.kafka_timeout
        self._connection = connection_config(settings)
        self._admin: Any = None
        self._cluster_id: str | None = None
        self._open = ExitStack()
        self._failed: list[BaseException] = []  # connections that came to nothing since the call began

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        self._admin = self._cluster_id = None

    def offsets(self) -> TopicOffsets:
        self._failed.clear()
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                return self._offsets()
            except NoLeader:
                if time.monotonic() > deadline:
                    raise
            except kafka_errors.KafkaError as error:
                # A restarted broker is there again soon, a topic that is missing is not.
                missing = isinstance(error, kafka_errors.UnknownTopicOrPartitionError)
                if missing or not isinstance(error, kafka_errors.RetriableError) or time.monotonic() > deadline:
                    raise self._translated(error) from None
            time.sleep(0.1)

    def _offsets(self) -> TopicOffsets:
        topic = self._describe_topic()
        partitions = sorted(each["partition_index"] for each in topic["partitions"])
        starts, ends = (
            self._admin.list_partition_offsets(
                {TopicPartition(self._topic, partition): spec for partition in partitions},
                isolation_level=IsolationLevel.READ_COMMITTED,
                timeout_ms=int(self._timeout * 1000),
            )
            for spec in (OffsetSpec.EARLIEST, OffsetSpec.LATEST)
        )
        bounds = {at.partition: Log(starts[at].offset, ends[at].offset) for at in sorted(starts)}
        return TopicOffsets(self._topic, self._topic_id(topic.get("topic_id")), bounds)

    def _describe_topic(self) -> Any:
        """The topic, with a leader of each of its partitions. Raises NoLeader."""
        if self._admin is None:  # connects, hence not before it is needed
            self._admin = self._open.enter_context(self._connected(KafkaAdminClient))
        topic = self._admin.describe_topics([self._topic])[0]
        if error_code := topic["error_code"]:
            raise kafka_errors.for_code(error_code)
        without = [each["partition_index"] for each in topic["partitions"] if each["leader_id"] < 0]
        if without:
            raise NoLeader(self._topic, without)
        return topic

    def _topic_id(self, received: str | None) -> str | None:
        if self._cluster_id is None or self._cluster_id.startswith(MOCK_CLUSTER):  # another may be at its port now
            self._cluster_id = str(self._admin.describe_cluster().get("cluster_id"))
        if self._cluster_id.startswith(MOCK_CLUSTER):
            return self._cluster_id
        number = uuid.UUID(received) if received else _NO_ID
        # As Kafka's own tools print it, so that both clients agree.
        return None if number == _NO_ID else base64.urlsafe_b64encode(number.bytes).rstrip(b"=").decode()

    def first_records(self, ranges: Ranges) -> dict[int, list[RecordMark]]:
        wanted = {partition: (start, end) for partition, (start, end) in ranges.items() if start < end}
        with closing(self._read(wanted, _SMALL_FETCHES)) as batches:
            return first_two_marks(batches, wanted)

    def read(self, ranges: Ranges) -> Iterator[pa.RecordBatch]:
        yield from self._read(check_ranges(ranges, self.offsets()), _LARGE_FETCHES)

    def _read(
        self, wanted: dict[int, tuple[int, int]], bounds: dict[str, int]
    ) -> Generator[pa.RecordBatch, None, None]:
        if not wanted:
            return
        try:
            # A new consumer: a used one keeps fetches for earlier positions, and may wait for ever for a partition that
            # it believes it has fetched.
            consumer = self._connected(KafkaConsumer, **_EXACT, **bounds)
        except kafka_errors.KafkaError as error:
            raise self._translated(error) from None
        try:
            yield from self._poll(consumer, wanted)
        finally:
            _close(consumer)

    def _poll(self, consumer: Any, wanted: dict[int, tuple[int, int]]) -> Generator[pa.RecordBatch, None, None]:
        progress = Progress(wanted, self._timeout)
        at = {partition: TopicPartition(self._topic, partition) for partition in wanted}
        waiting: list[Any] = []
        held, rows = 0, 1
        try:
            consumer.assign(list(at.values()))
            for partition, (start, _) in wanted.items():
                consumer.seek(at[partition], start)
            while progress.left:
                polled = consumer.poll(timeout_ms=_POLL_MILLISECONDS, max_records=rows)
                came = [record for records in polled.values() for record in records]
                size = sum(_sizes(came))
                rows = min(2 * rows, _POLL_ROWS) if size <= _POLL_BYTES else max(1, len(came) * _POLL_BYTES // size)
                if came:
                    positions = {where.partition: records[-1].offset + 1 for where, records in polled.items()}
                else:  # positions also pass offsets without records
                    positions = {each: consumer.position(at[each], timeout_ms=1000) for each in progress.left}
                # The library reads ahead: what lies beyond a range's end isn't asked for.
                if any(positions[partition] > wanted[partition][1] for partition in positions):
                    came = [record for record in came if record.offset < wanted[record.partition][1]]
                if progress.reach(positions):
                    # One that is only paused keeps its last batch, decompressed.
                    consumer.assign([at[partition] for partition in progress.left])
                held += size
                waiting += came
                if waiting and (held >= MAX_BYTES // 2 or len(waiting) >= MAX_ROWS or not came or not progress.left):
                    del polled, came
                    yield from _batches(waiting)
                    waiting, held = [], 0
                    progress.reset_timeout()
        except ReadStalled:
            with suppress(kafka_errors.KafkaError):
                self._describe_topic()  # a leader is gone?
            raise
        except kafka_errors.KafkaError as error:
            check_ranges(progress.left, self.offsets())  # deleted meanwhile?
            raise self._translated(error) from None

    def _connected(self, kind: Any, **config: Any) -> Any:
        """A KafkaAdminClient or KafkaConsumer that has found a broker. Its network is ours, for two reasons: it tells
        why connections fail, which the library only logs, and its thread ends if none is found."""
        network = _Network(self._failed)
        try:
            return kind(**known_config(kind, self._connection, self._timeout), **config, kafka_client=network)
        except BaseException:
            network.stop()
            raise

    def _translated(self, error: kafka_errors.KafkaError) -> KafkaError:
        if isinstance(error, kafka_errors.UnknownTopicOrPartitionError):
            return TopicMissing(self._topic, self._bootstrap)
        refused_login = any(isinstance(each, _LOGIN_REFUSED) for each in (error, *self._failed))
        if refused_login or isinstance(error, kafka_errors.RetriableError):
            return no_connection(self._bootstrap, refused_login, map(str, self._failed))
        name = type(error).__name__
        return KafkaError(f"Kafka at {self._bootstrap} refuses topic {self._topic!r}: {name}")


def _sizes(records: list[Any]) -> list[int]:
    return [len(record.value or b"") + len(record.key or b"") for record in records]


def _batches(records: list[Any]) -> Iterator[pa.RecordBatch]:
    """The records as batches that keep the bounds; each is let go when the next one is asked for."""
    for start, end in slices(_sizes(records)):
        some = records[start:end]
        records[start:end] = [None] * (end - start)
        batch = record_batch(
            [record.partition for record in some],
            [record.offset for record in some],
            [-1 if record.timestamp is None else record.timestamp for record in some],
            [record.key for record in some],
            [record.value for record in some],
        )
        del some
        yield batch
        del batch


def _close(consumer: Any) -> None:
    consumer.close(autocommit=False, timeout_ms=1000)


class _Network:
    """What makes the network of one KafkaAdminClient or KafkaConsumer, see PythonClient._connected."""

    def __init__(self, failed: list[BaseException]) -> None:
        self._failed = failed
        self._net: Any = None

    def __call__(self, **config: Any) -> KafkaNetClient:
        self._net = NetworkSelector(**config)
        manager = _Connections(self._net, **config)
        manager.failed = self._failed
        return KafkaNetClient(self._net, manager, **config)

    def stop(self) -> None:
        """Ends the thread of the network, if it was begun."""
        if self._net is not None:
            self._net.stop()
            self._net.close()


class _Connections(KafkaConnectionManager):  # type: ignore[misc]
    failed: list[BaseException]

    def get_connection(self, *args: Any, **options: Any) -> Any:
        first = self.broker_version_data is None
        connection = super().get_connection(*args, **options)

        def failed(error: BaseException) -> None:
            # Kafka answers a wrong password and closes the connection. The library sees only the latter.
            greeted = first and connection.broker_version_data is not None
            if greeted and connection.sasl_enabled and isinstance(error, kafka_errors.KafkaConnectionError):
                error = kafka_errors.SaslAuthenticationFailedError()
            if not isinstance(error, kafka_errors.RequestTimedOutError):
                self.failed.append(error)

        connection.init_future.add_errback(failed)
        return connection


def connection_config(settings: Settings) -> dict[str, Any]:
    """`settings` under kafka-python's keyword names. Raises PropertyRefused for what it doesn't know or can't take."""
    if _LOGGER.level == logging.NOTSET:  # it logs each failed attempt; users get one error instead
        _LOGGER.setLevel(logging.CRITICAL + 1)
    config: dict[str, Any] = {"bootstrap_servers": settings.kafka_bootstrap.split(",")}
    for name, secret in settings.kafka_properties.items():
        value = secret.get_secret_value()
        if name == "ssl.endpoint.identification.algorithm":
            config["ssl_check_hostname"] = value == "https"
            continue
        keyword = _RENAMED.get(name, name.replace(".", "_"))
        if keyword not in KafkaConsumer.DEFAULT_CONFIG:
            raise PropertyRefused(name, "is unknown to kafka-python")
        default = KafkaConsumer.DEFAULT_CONFIG[keyword]
        try:
            match default:
                case bool():
                    config[keyword] = {"true": True, "false": False}[value.lower()]
                case int() | float():
                    config[keyword] = type(default)(value)
                case None if keyword.endswith("file") and not os.access(value, os.R_OK):
                    raise PropertyRefused(name, "names a file that can't be read")
                case str() | None if keyword != "security_protocol" or value in _PROTOCOLS:
                    config[keyword] = value
                case _:
                    raise ValueError(name)
        except (KeyError, ValueError):
            raise PropertyRefused(name, "has a value that kafka-python can't take") from None
    return config


def known_config(kind: Any, connection: dict[str, Any], timeout: float) -> dict[str, Any]:
    """What of `connection` a KafkaConsumer, KafkaProducer or KafkaAdminClient takes, with `timeout` seconds' limits."""
    limits = {
        "bootstrap_timeout_ms": int(timeout * 1000),
        "request_timeout_ms": int(min(max(timeout, 1.0), 500.0) * 1000),  # must stay below the idle time of 540 s
        "reconnect_backoff_max_ms": 1000,
    }
    return {name: value for name, value in (limits | connection).items() if name in kind.DEFAULT_CONFIG}
