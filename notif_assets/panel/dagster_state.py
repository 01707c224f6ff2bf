"""What Dagster knows, for the operator's page: the last runs, and the checks that fail.

Belongs here: when it is read, and how long it is kept. Doesn't: reading it (read_dagster.py, a process that ends when
it has read: Dagster takes 54 MiB of memory, which the panel would hold for the sake of one page); looking at the lake.
"""

import logging
import subprocess
import sys
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Literal

import msgspec

_KEPT = timedelta(seconds=15)
_SHOWN = timedelta(minutes=2)
_SECONDS = 60.0
_log = logging.getLogger("notif_assets.panel")


@dataclass(frozen=True)
class Run:
    """A run of Dagster."""

    run_id: str
    job: str
    status: str
    started: datetime | None
    seconds: float | None


@dataclass(frozen=True)
class Failing:
    """A check that fails, and what it found."""

    name: str
    asset: str
    sentence: str


@dataclass(frozen=True)
class State:
    """The newest runs, and what each failing check says. There is none of them where Dagster never ran ("absent"), or
    where its storage can't be read ("unreadable")."""

    reading: Literal["known", "absent", "unreadable"]
    read_at: datetime
    runs: tuple[Run, ...] = ()
    failing: tuple[Failing, ...] = ()


class DagsterState:
    """Dagster's state as of a moment ago.

    Reading takes a second or two, and begins when somebody asks and what was read last is older than 15 s. Only for
    what is older than 2 minutes does anybody wait.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._lock = Lock()
        self._last: State | None = None
        self._next: Future[State] | None = None

    def recent(self) -> State | None:
        """The state, if it is known; otherwise it will be soon."""
        return self._known()[0]

    def __call__(self) -> State:
        """The state, which is waited for if it must be."""
        known, coming = self._known()
        if known:
            return known
        assert coming
        return coming.result()

    def _known(self) -> tuple[State | None, Future[State] | None]:
        with self._lock:
            last = self._last
            age = datetime.now(UTC) - last.read_at if last else timedelta.max
            if age > _KEPT and self._next is None:
                self._next = self._executor.submit(self._read)
            return last if age <= _SHOWN else None, self._next

    def _read(self) -> State:
        state = _read()
        with self._lock:
            self._last, self._next = state, None
        return state


def _read() -> State:
    command = [sys.executable, "-m", "notif_assets.panel.read_dagster"]
    try:
        done = subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS)  # noqa: S603 - our own
        return msgspec.json.decode(done.stdout, type=State)
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError) as error:
        why = error.stderr if isinstance(error, subprocess.CalledProcessError) else b""
        _log.warning("Dagster's state can't be read: %s", why.decode(errors="replace").strip()[-500:] or error)
        return State("unreadable", datetime.now(UTC))
