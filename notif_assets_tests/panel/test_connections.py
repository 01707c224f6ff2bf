"""What one client may take of the process: the real one, by raw sockets."""

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from notif_assets.panel import connections
from notif_assets_tests.panel.conftest import Served

_HOST = b"Host: 127.0.0.1\r\n"


@contextlib.contextmanager
def connection(served: Served) -> Iterator[socket.socket]:
    """A connection of nobody in particular."""
    port = int(served.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        yield client


def _resident_mib(served: Served) -> float:
    pages = int(Path(f"/proc/{served.pid}/statm").read_text().split()[1])
    return pages * 4096 / 2**20


@pytest.mark.parametrize(
    ("beginning", "more"),
    [
        (b"GET / HTTP/1.1\r\n" + _HOST, b"X-Filler: " + b"x" * 1000 + b"\r\n"),
        (b"GET / HTTP/1.1\r\n" + _HOST + b"X-Filler: ", b"x" * 1000),
        (b"GET /?", b"x" * 1000),
        (b"", b"X" * 1000),
    ],
    ids=["headers", "a header", "an address", "a method"],
)
def test_a_request_without_an_end_is_refused(served: Served, beginning: bytes, more: bytes) -> None:
    before = _resident_mib(served)
    sent = 0
    with connection(served) as client:
        client.sendall(beginning)
        with contextlib.suppress(ConnectionError):
            while sent < 100 * 2**20:
                client.sendall(more * 100)
                sent += len(more) * 100
        with contextlib.suppress(ConnectionError):
            assert client.recv(2**16).startswith(b"HTTP/1.1 400 ")
    assert sent < 16 * 2**20  # what the system's buffers take
    assert _resident_mib(served) - before < 20
    assert served.bare("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("beginning", "more"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\n" + _HOST, b""),
        (b"GET / HTTP/1.1\r\n" + _HOST, b"X-Slow: x\r\n"),
        (b"POST /sair HTTP/1.1\r\nContent-Length: 1000000\r\n" + _HOST + b"\r\n", b"x"),
        (b"GET /healthz HTTP/1.1\r\n" + _HOST + b"\r\nGET / HTTP/1.1\r\n", b"X-Slow: x\r\n"),
        (b"POST /entrar HTTP/1.1\r\nContent-Length: 10000\r\n" + _HOST + b"\r\n", b"x"),
    ],
    ids=["nothing", "half", "drops", "a body nobody wants", "the second of two", "a form"],
)
def test_a_request_that_does_not_come_to_its_end_is_closed(served: Served, beginning: bytes, more: bytes) -> None:
    began = time.monotonic()
    with connection(served) as client:
        client.settimeout(0.5)
        client.sendall(beginning)
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - began < 60:
                client.sendall(more)
                try:
                    if not client.recv(2**16):
                        break
                except TimeoutError:
                    continue
    # The body of a form is waited for, and then the rest of what was sent.
    assert time.monotonic() - began < 2 * connections._REQUEST_SECONDS + 15


def test_an_answer_may_take_longer_than_a_request() -> None:
    """The clock stops where the request is whole, whatever its answer takes."""
    assert connections._REQUEST_SECONDS < connections._STALLED_SECONDS


def test_connections_that_say_nothing_leave_room_for_the_others(served: Served) -> None:
    with contextlib.ExitStack() as opened:
        for _ in range(connections._OPEN + 100):
            opened.enter_context(connection(served))
        descriptors = len(list(Path(f"/proc/{served.pid}/fd").iterdir()))
        assert descriptors < 1_000
        refused = _asked(served)
        assert refused in (b"", b"HTTP/1.1 503 ")
    end = time.monotonic() + 30
    while time.monotonic() < end and not _asked(served).startswith(b"HTTP/1.1 200"):
        time.sleep(0.1)
    assert served.bare("/healthz").status_code == 200


def _asked(served: Served) -> bytes:
    with contextlib.suppress(ConnectionError), connection(served) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\n" + _HOST + b"\r\n")
        return client.recv(13)
    return b""


def test_a_web_socket_is_answered_as_any_request(served: Served) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13"}
    answer = served.bare("/nothing", Sec_WebSocket_Key="x" * 22 + "==", **upgrade)
    assert answer.status_code == 404
    assert answer.headers["X-Frame-Options"] == "DENY"
