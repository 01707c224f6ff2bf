"""What Dagster knows, for the operator's page and for /metrics: the last runs, the checks that fail, the jobs.

Belongs here: what is known, when it is read, and who waits for it. Doesn't: reading it (read_dagster.py, a child:
Dagster takes 54 MiB of memory, which the panel would hold for the sake of one page), starting children (children.py),
looking at the lake.
"""

import logging
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from notif_assets.panel.children import NotRead, Readings, read_by_child

_KEPT = timedelta(seconds=15)
_KEPT_FOR_METRICS = timedelta(minutes=1)  # a reading takes two seconds of a processor, and is asked for for ever
_SHOWN = timedelta(minutes=2)
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
    check: str = ""
    severity: Literal["WARN", "ERROR"] = "ERROR"


@dataclass(frozen=True)
class Job:
    """Of a job: whether its newest run failed, how many failed in the last 24 hours; and of the newest that succeeded
    when it ended, its seconds, and those of each step."""

    name: str
    failing: bool
    failures: int
    succeeded_at: datetime | None
    seconds: float | None
    steps: dict[str, float]


@dataclass(frozen=True)
class State:
    """The newest runs, what each failing check says, and what is watched: the jobs, how many runs there are in each
    state before their end, the last sign of life of each of the daemon's parts. There is none of them where Dagster
    never ran ("absent"), or where its storage can't be read ("unreadable")."""

    reading: Literal["known", "absent", "unreadable"]
    read_at: datetime
    runs: tuple[Run, ...] = ()
    failing: tuple[Failing, ...] = ()
    jobs: tuple[Job, ...] = ()
    unfinished: dict[str, int] = field(default_factory=dict)
    daemons: dict[str, datetime] = field(default_factory=dict)


class DagsterState:
    """Dagster's state as of a moment ago.

    Reading takes a second or two, and begins when somebody asks and what was read last is older than 15 s. Only for
    what is older than 2 minutes does anybody wait.
    """

    def __init__(self, executor: Executor) -> None:
        self._readings = Readings(executor, lambda: _read())

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

    def last(self) -> State | None:
        """The state as it was read last, however long ago, for who asks again and again; read again each minute."""
        return self._readings.newest(_KEPT_FOR_METRICS)[0]

    def _known(self) -> "tuple[State | None, Future[State] | None]":
        last, coming = self._readings.newest(_KEPT)
        fresh = last is not None and datetime.now(UTC) - last.read_at <= _SHOWN
        return last if fresh else None, coming


def _read() -> State:
    try:
        return read_by_child("notif_assets.panel.read_dagster", State)
    except NotRead as problem:
        _log.warning("Dagster's state can't be read: %s", problem)
        return State("unreadable", datetime.now(UTC))
