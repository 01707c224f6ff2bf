"""A report as a download that is written while it is read.

Belongs here: bringing what a writer of reports/ writes to a client, no faster than that one reads. Doesn't: rows and
layouts.
"""

import io
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, cast

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.streams.memory import MemoryObjectSendStream
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from notif_assets.core.formats import SUFFIX, StatementFormat
from notif_assets.lake import LakeError
from notif_assets.lake.pieces import NO_MEMORY
from notif_assets.panel.access import HEAD
from notif_assets.panel.metrics import EXPORTED, EXPORTS
from notif_assets.panel.snapshot import Customer

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_TYPE: dict[StatementFormat, str] = {
    "text": "text/plain; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
    "csv-br": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "json": "application/json",
    "parquet": "application/vnd.apache.parquet",
    "pdf": "application/pdf",
}
_log = logging.getLogger("notif_assets.panel")
_AT_ONCE = 24
_PIECE = 2**17  # bytes; a few of them wait at several places for a client to read
_ROWS = 20_000  # that all exports hold together, an export at most half of them


class _ClientGone(Exception):
    """The client went away."""


class _ClientStream(io.RawIOBase):
    """The file that a writer writes to, in its thread; each piece waits until the one before it is on its way."""

    def __init__(self, stream: MemoryObjectSendStream[bytes]) -> None:
        self._stream = stream
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: "ReadableBuffer") -> int:
        whole = memoryview(data).cast("B")
        for start in range(0, len(whole), _PIECE):
            try:
                anyio.from_thread.run(self._stream.send, bytes(whole[start : start + _PIECE]))
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                raise _ClientGone from None
        self._written += len(whole)
        return len(whole)

    def tell(self) -> int:
        return self._written


class Download(Response):
    """What `write` writes, streamed from a thread. A client that goes away ends the writing.

    If writing fails midway the connection breaks: a part must not look like the whole. Raises Refused instead of
    beginning if as many exports go on as may: of the same viewer (429), or of all (503).
    """

    def __init__(self, name: str, format: StatementFormat, write: Callable[[BinaryIO], None]) -> None:
        self.status_code = 200
        self.background = None
        self._write = write
        self.init_headers(
            {
                "Content-Type": _TYPE[format],
                "Content-Disposition": f'attachment; filename="{name}.{SUFFIX[format]}"',
                "X-Accel-Buffering": "no",  # or a proxy would hold it until it is whole
            }
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it."""
        with scope["app"].state.export_limit.hold_slot(scope["state"]["viewer"]):
            await self._send(scope, receive, send)

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        limiter = scope["app"].state.export_threads
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if HEAD in scope:
            await send({"type": "http.response.body", "body": b""})
            return
        outgoing, incoming = anyio.create_memory_object_stream[bytes](1)

        failed: list[Exception] = []

        def work() -> None:
            try:
                self._write(cast("BinaryIO", _ClientStream(outgoing)))
            except _ClientGone:
                pass
            except (LakeError, MemoryError) as error:
                failed.append(error)

        async def produce() -> None:
            async with outgoing:
                await anyio.to_thread.run_sync(work, limiter=limiter)

        async def watch(scope: anyio.CancelScope) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            scope.cancel()

        with EXPORTS.track_inprogress():
            async with anyio.create_task_group() as group:
                group.start_soon(watch, group.cancel_scope)
                group.start_soon(produce)
                async with incoming:
                    async for piece in incoming:
                        EXPORTED.inc(len(piece))
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                group.cancel_scope.cancel()
        if failed:  # without the end of its body the answer breaks
            _log.error("an export failed midway: %s", failed[0] if isinstance(failed[0], LakeError) else NO_MEMORY)
            return
        await send({"type": "http.response.body", "body": b""})


def threads() -> anyio.CapacityLimiter:
    """How many exports are written at once; further ones are refused."""
    return anyio.CapacityLimiter(_AT_ONCE)


def rows_at_once(threads: anyio.CapacityLimiter) -> int:
    """How many rows an export may read at once: fewer the more are written, however slowly they are read."""
    return _ROWS // max(2, threads.borrowed_tokens)


def name_of(customer: Customer, start: datetime | None, end: datetime | None) -> str:
    """A file's name without anything in it that came from the topic."""
    period = [f"{moment.astimezone(UTC):%Y%m%dT%H%M}" for moment in (start, end) if moment]
    return "-".join(["notificacoes", str(customer.customer_id), *period])
