"""What children of the panel read, as of a moment ago.

A child ends when it has read: the libraries that it needs, and what it holds meanwhile, would stay in the panel's
memory for ever. Belongs here: starting one, how long its answer is kept. Doesn't: what they read (read_dagster.py,
measure_lake.py), who waits for it (dagster_state.py, metrics.py).
"""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Generic, Protocol, TypeVar

import msgspec

from notif_assets.errors import Unavailable

_SECONDS = 60.0


class Reading(Protocol):
    """What was read, and when."""

    @property
    def read_at(self) -> datetime: ...


R = TypeVar("R", bound=Reading)
T = TypeVar("T")


class NotRead(Unavailable):
    """A child could not read; the message is the end of what it said."""


class Readings(Generic[R]):
    """The newest reading. One goes on at a time."""

    def __init__(self, executor: Executor, read: Callable[[], R]) -> None:
        self._executor = executor
        self._read = read
        self._lock = Lock()
        self._last: R | None = None
        self._next: Future[R] | None = None
        self._failed_at = datetime.min.replace(tzinfo=UTC)

    def newest(self, kept: timedelta) -> tuple[R | None, "Future[R] | None"]:
        """The newest reading, and the one that goes on. Another is begun if the newest, or the newest that failed, was
        longer ago than `kept`."""
        with self._lock:
            tried_at = max(self._last.read_at, self._failed_at) if self._last else self._failed_at
            if self._next is None and datetime.now(UTC) - tried_at > kept:
                self._next = self._executor.submit(self._keep)
            return self._last, self._next

    def _keep(self) -> R:
        try:
            read = self._read()
        except BaseException:
            with self._lock:
                self._failed_at, self._next = datetime.now(UTC), None
            raise
        with self._lock:
            self._last, self._next = read, None
        return read


def read_by_child(module: str, kind: type[T]) -> T:
    """What `python -m module` prints as JSON. Raises NotRead."""
    try:
        done = subprocess.run([sys.executable, "-m", module], check=True, capture_output=True, timeout=_SECONDS)  # noqa: S603 - our own
        return msgspec.json.decode(done.stdout, type=kind)
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError) as error:
        why = error.stderr if isinstance(error, subprocess.CalledProcessError) else b""
        raise NotRead(why.decode(errors="replace").strip()[-500:] or str(error)) from None
