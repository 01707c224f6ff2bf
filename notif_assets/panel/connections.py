"""Connections: how much of the process one client may take before anybody knows who it is.

Belongs here: bounds of size, number and time. Doesn't: who may ask for what, and how often (access.py); the proxy's own
bounds (docs/nginx.conf).
"""

import asyncio
import socket
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_HEADER_BYTES = 64 * 2**10  # the longest cursor has half of that
_ANSWERED = 500  # connections at once; more are answered with 503
_OPEN = 600  # more than these are closed: a process often may open no more than 1024 files
_REQUEST_SECONDS = 10.0
_STALLED_SECONDS = 60.0


class Connection(H11Protocol):
    """An HTTP connection that is closed if its next request isn't whole in time, or if there are too many."""

    seconds = _REQUEST_SECONDS
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As of any."""
        super().connection_made(transport)
        if len(self.connections) > _OPEN:
            transport.abort()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """As of any."""
        super().connection_lost(exc)
        self._wait_no_more()

    def data_received(self, data: bytes) -> None:
        """As of any."""
        super().data_received(data)
        self._wait()

    def on_response_complete(self) -> None:
        """As of any."""
        self._wait_no_more()
        super().on_response_complete()
        self._wait()

    def _wait(self) -> None:
        """From the first byte that is missing on; more bytes of the same request give no more time."""
        answered = self.cycle is None or self.cycle.response_complete
        if not answered or self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._wait_no_more()
        elif self._late is None:
            self._late = self.loop.call_later(self.seconds, self.transport.abort)

    def _wait_no_more(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


BOUNDS: dict[str, Any] = {
    "http": Connection,
    "ws": "none",
    "h11_max_incomplete_event_size": _HEADER_BYTES,
    "limit_concurrency": _ANSWERED,
}
"""What uvicorn.Config takes of it."""


def end_if_stalled(listening: socket.socket, seconds: float = _STALLED_SECONDS) -> None:
    """Lets the system close a connection whose client takes no byte for so long, where it can (Linux).

    Such a client would hold a thread, and what was made ready for it, for ever.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # every connection inherits it
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))
