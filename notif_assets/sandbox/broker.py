"""A Kafka broker inside this process, for demos and tests: librdkafka's mock broker behind a fixed port.

Belongs here: starting and stopping it. Doesn't: anything that depends on this broker: clients use its port as with
any Kafka.

What it isn't: durable (memory only), transactional, or safe to expose (loopback, no authentication). It keeps about
5 MiB per partition and drops the oldest messages beyond that.
"""

import asyncio
import ctypes
import socket
import struct
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from notif_assets.core.signals import Signals
from notif_assets.kafka.client import KafkaError

LOOPBACK = "127.0.0.1"

_API_VERSIONS = 18
_NEWEST_API_VERSIONS = 2  # the newest version of the ApiVersions request that the mock broker understands
_UNSUPPORTED_VERSION = 35


class BrokerNotStarted(KafkaError):
    """The embedded broker can't start; the message says why and what to do."""


class EmbeddedBroker:
    """A broker on 127.0.0.1:`port` (0: any free port) that holds `topic` with `partitions` partitions, until closed.

    Raises BrokerNotStarted when the port is taken or librdkafka is missing.
    """

    def __init__(self, port: int = 0, topic: str = "notifications", partitions: int = 12) -> None:
        mock = _MockCluster()
        try:
            mock.create_topic(topic, partitions)
            self._forwarder = _Forwarder(port, mock.address)
        except BaseException:
            mock.close()
            raise
        self._mock = mock
        self.bootstrap = f"{LOOPBACK}:{self._forwarder.port}"

    def create_topic(self, topic: str, partitions: int) -> None:
        """Adds a topic. Raises BrokerNotStarted if the broker refuses the name or the number."""
        self._mock.create_topic(topic, partitions)

    def close(self) -> None:
        """Frees the port and ends every thread. A second call does nothing."""
        self._forwarder.close()
        self._mock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def serve(port: int, topic: str, partitions: int, started: Callable[[EmbeddedBroker], None]) -> None:
    """Runs a broker in the foreground until SIGINT or SIGTERM; calls `started` once it takes connections.

    Main thread only, as signals need. Raises BrokerNotStarted.
    """
    with Signals() as stop, EmbeddedBroker(port, topic, partitions) as broker:
        started(broker)
        stop.wait()


class _MockCluster:
    """librdkafka's mock cluster of one broker, by ctypes: the Python package exposes none of it.

    Its cluster id comes from its address in memory, and clients tell by the id that its topics are new. So an instance
    at an address that this process used before is discarded.
    """

    _used: ClassVar[set[int]] = set()

    def __init__(self) -> None:
        self._library = _librdkafka()
        problem = ctypes.create_string_buffer(512)
        config = self._library.rd_kafka_conf_new()
        self._library.rd_kafka_conf_set_log_cb(config, None)  # else it writes to standard error
        self._handle = self._library.rd_kafka_new(0, config, problem, len(problem))
        if not self._handle:
            raise BrokerNotStarted(f"librdkafka doesn't start: {problem.value.decode(errors='replace')}")
        self._cluster = self._unused()
        if not self._cluster:
            self.close()
            raise BrokerNotStarted("librdkafka can't create its mock broker: is a loopback address available?")
        host, port = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode().rsplit(":", 1)
        self.address = (host, int(port))

    def _unused(self) -> int | None:
        passed_over = []
        while (cluster := self._library.rd_kafka_mock_cluster_new(self._handle, 1)) in self._used:
            passed_over.append(cluster)
        for each in passed_over:
            self._library.rd_kafka_mock_cluster_destroy(each)
        if cluster:
            self._used.add(cluster)
        found: int | None = cluster
        return found

    def create_topic(self, topic: str, partitions: int) -> None:
        if self._library.rd_kafka_mock_topic_create(self._cluster, topic.encode(), partitions, 1):
            raise BrokerNotStarted(f"the broker refuses topic {topic!r} with {partitions} partitions: already there?")

    def close(self) -> None:
        if self._cluster:
            self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        if self._handle:
            self._library.rd_kafka_destroy(self._handle)
        self._cluster = self._handle = None


def _librdkafka() -> ctypes.CDLL:
    """The library inside the confluent-kafka wheel, with the types of the functions used here."""
    package = find_spec("confluent_kafka")
    if package is None or package.origin is None:
        raise BrokerNotStarted(
            "the embedded broker needs confluent-kafka: install the extra `notif-assets[librdkafka]`"
        )
    home = Path(package.origin).parent
    folders = (home.parent / "confluent_kafka.libs", home / ".dylibs")  # Linux and Windows wheels, macOS wheels
    found = [path for folder in folders for path in sorted(folder.glob("librdkafka*"))]
    if not found:
        raise BrokerNotStarted("this confluent-kafka brings no librdkafka of its own: install it from a wheel of PyPI")
    library = ctypes.CDLL(str(found[0]))
    pointer, text, number, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t
    for name, result, *arguments in (
        ("rd_kafka_conf_new", pointer),
        ("rd_kafka_conf_set_log_cb", None, pointer, pointer),
        ("rd_kafka_new", pointer, number, pointer, text, size),
        ("rd_kafka_destroy", None, pointer),
        ("rd_kafka_mock_cluster_new", pointer, pointer, number),
        ("rd_kafka_mock_cluster_bootstraps", text, pointer),
        ("rd_kafka_mock_cluster_destroy", None, pointer),
        ("rd_kafka_mock_topic_create", number, pointer, text, number, number),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class _Forwarder:
    """Takes connections on a fixed port and passes them on to `target`, whose port can't be chosen."""

    def __init__(self, port: int, target: tuple[str, int]) -> None:
        try:
            listener = socket.create_server((LOOPBACK, port))
        except OSError as error:
            raise BrokerNotStarted(
                f"port {port} is taken ({error.strerror}): stop what uses it or choose another"
            ) from error
        self.port: int = listener.getsockname()[1]
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(listener,), name="embedded-broker", daemon=True)
        self._thread.start()

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def _run(self, listener: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(listener))

    async def _serve(self, listener: socket.socket) -> None:
        server = await asyncio.start_server(self._connected, sock=listener)
        await self._stop.wait()
        server.close()  # open connections end with the loop, whose runner cancels their tasks

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Copies both ways until either side hangs up."""
        writers = [writer]
        try:
            first = await _past_api_versions(reader, writer)
            broker_reader, broker_writer = await asyncio.open_connection(*self._target)
            writers.append(broker_writer)
            broker_writer.write(first)
            copies = [
                asyncio.ensure_future(_copy(reader, broker_writer)),
                asyncio.ensure_future(_copy(broker_reader, writer)),
            ]
            await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
            for copy in copies:
                copy.cancel()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client or the broker went away, or the loop ends (Python 3.11 prints what is cancelled here)
        finally:
            for each in writers:
                each.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def _past_api_versions(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Reads requests up to the first that the broker can answer, and returns that one.

    A client opens with the newest ApiVersions request it knows. A broker that doesn't know it has to answer in
    version 0 which it does (KIP-511); the mock broker answers in a form that only librdkafka reads, and kafka-python
    would try again until its time is up. So that one answer is given here.
    """
    while True:
        size = await reader.readexactly(4)
        request = await reader.readexactly(int.from_bytes(size))
        key, version, correlation = struct.unpack_from(">hhi", request)
        if key != _API_VERSIONS or version <= _NEWEST_API_VERSIONS:
            return size + request
        answer = struct.pack(">ihihhh", correlation, _UNSUPPORTED_VERSION, 1, _API_VERSIONS, 0, _NEWEST_API_VERSIONS)
        writer.write(len(answer).to_bytes(4) + answer)
