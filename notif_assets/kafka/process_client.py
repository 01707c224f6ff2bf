"""KafkaClient in a process of its own, so that reading Kafka and what is done with the records have a core each.

Belongs here: starting that process, what both sides say to each other, how it ends. Doesn't: reading Kafka, which one
of the two clients does there; when this is worth a process (read_ahead.py, in notifications/).

Both libraries make a Python object of every record, which no two threads of one process can do at once. Over there only
the client is imported, and what comes from there are Arrow's own bytes.

The process answers one question after the other. It ends with its connection, whatever becomes of this one.
"""

import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from notif_assets.kafka.client import SCHEMA, KafkaClient, KafkaError, Ranges, RecordMark, TopicOffsets
from notif_assets.kafka.open import open_client
from notif_assets.settings import Settings

_LENGTH_BYTES = 8
_NO_MORE = b""
"""What follows the last batch of a read."""


class ProcessEnded(KafkaError):
    """The process that reads Kafka is gone, as one that the system kills for its memory."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"the process that reads Kafka ended (exit {code}): run again")


class ProcessClient:
    """See KafkaClient. It opens the client that `settings` name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None

    def __enter__(self) -> Self:
        self._connection()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def offsets(self) -> TopicOffsets:
        offsets: TopicOffsets = self._call("offsets")
        return offsets

    def first_records(self, ranges: Ranges) -> dict[int, list[RecordMark]]:
        records: dict[int, list[RecordMark]] = self._call("first_records", dict(ranges))
        return records

    def read(self, ranges: Ranges) -> Iterator[pa.RecordBatch]:
        whole = False
        try:
            line = self._request("read", dict(ranges))
            while batch := self._of_process(lambda: _received(line)):
                yield pa.ipc.read_record_batch(batch, SCHEMA)
                del batch
            whole = True
            self._reply(line)
        finally:
            if not whole:  # what it still says belongs to this question
                self._end()

    def _call(self, method: str, *arguments: Any) -> Any:
        return self._reply(self._request(method, *arguments))

    def _request(self, method: str, *arguments: Any) -> socket.socket:
        line = self._connection()
        self._of_process(lambda: _write_message(line, (method, arguments)))
        return line

    def _reply(self, line: socket.socket) -> Any:
        """What a question brought. Raises what it raised there."""
        answer = self._of_process(lambda: _read_message(line))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _connection(self) -> socket.socket:
        """The connection to the process, which is started if there is none. Raises what opening the client raises."""
        if self._line is None:
            self._line, child_end = socket.socketpair()
            with child_end:
                self._process = subprocess.Popen(  # noqa: S603 - this very program
                    [sys.executable, "-P", "-m", __name__, str(child_end.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[child_end.fileno()],
                )
            try:
                _write_message(self._line, self._settings)
                self._reply(self._line)
            except BaseException:
                self._end()
                raise
        return self._line

    def _of_process(self, step: Callable[[], Any]) -> Any:
        """Raises ProcessEnded if the process does not live to do its part of the step."""
        try:
            return step()
        except (EOFError, OSError):
            code = self._end()
            raise ProcessEnded(code) from None

    def _end(self) -> int | None:
        """Ends the process, which has nothing to lose; gives its exit code."""
        line, process, self._line, self._process = self._line, self._process, None, None
        if line is not None:
            line.close()
        if process is None:
            return None
        with suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=0.1)
        process.kill()
        return process.wait()


def _write_message(line: socket.socket, value: Any) -> None:
    _send(line, pickle.dumps(value))


def _read_message(line: socket.socket) -> Any:
    return pickle.loads(_received(line))  # noqa: S301 - from a process of ours, through a socket that has no name


def _send(line: socket.socket, data: Any) -> None:
    line.sendall(memoryview(data).nbytes.to_bytes(_LENGTH_BYTES))
    line.sendall(data)


def _received(line: socket.socket) -> pa.Buffer:
    """What the other side sent at once. Raises EOFError if there is no other side."""
    length = int.from_bytes(_exactly(line, _LENGTH_BYTES).to_pybytes())
    return _exactly(line, length)


def _exactly(line: socket.socket, length: int) -> pa.Buffer:
    data = pa.allocate_buffer(length)
    left = memoryview(data)
    while left:
        received = line.recv_into(left, len(left), socket.MSG_WAITALL)
        if not received:
            raise EOFError
        left = left[received:]
    return data


def _serve(line: socket.socket) -> None:
    """The other side: answers questions until there is nobody to ask."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who asks
    with suppress(EOFError, OSError), ExitStack() as opened:
        try:
            client: KafkaClient = opened.enter_context(open_client(_read_message(line)))
        except Exception as error:
            _write_message(line, error)
            return
        _write_message(line, None)
        while True:
            method, arguments = _read_message(line)
            _write_message(line, _outcome(line, client, method, arguments))


def _outcome(line: socket.socket, client: KafkaClient, method: str, arguments: tuple[Any, ...]) -> Any:
    """What the client gives, or the error that it raises."""
    try:
        if method != "read":
            return getattr(client, method)(*arguments)
        try:
            for batch in client.read(*arguments):
                _send(line, batch.serialize())
        finally:
            _send(line, _NO_MORE)
    except (BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:
        return error


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as line:
        _serve(line)
