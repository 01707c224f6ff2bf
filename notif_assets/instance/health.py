"""How the jobs of an instance do, in numbers, for who watches them.

Belongs here: the newest runs of each job, the seconds of their steps, how many runs wait. Few questions to the storage,
whatever it holds. Doesn't: which checks fail (alerts.py), what is made of the numbers (panel/metrics.py).
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

import dagster as dg
import sqlalchemy as db
from dagster._core.storage.runs.schema import RunsTable
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage

from notif_assets.instance.private import FINISHED_STATUSES

_DAGSTERS_OWN = "__"  # what the names of the jobs begin with by which Dagster materializes a selection
_SUCCESS, _FAILURE = dg.DagsterRunStatus.SUCCESS.value, dg.DagsterRunStatus.FAILURE.value


class JobHealth(NamedTuple):
    """Of one job: whether its newest run that came to an end by itself failed, how many failed since a moment, and the
    newest run that succeeded; `seconds` is what that took, `ended_at` seconds since 1970."""

    job: str
    failing: bool
    failures: int
    run_id: str | None
    ended_at: float | None
    seconds: float | None


def jobs(instance: dg.DagsterInstance, since: datetime) -> list[JobHealth]:
    """Every job that ever ran, by name."""
    runs = RunsTable.c
    of_late = db.func.sum(db.case((runs.end_time >= since.timestamp(), 1), else_=0))
    query = db.select(runs.pipeline_name, runs.status, db.func.max(runs.id), of_late)
    query = query.where(runs.status.in_([_SUCCESS, _FAILURE])).group_by(runs.pipeline_name, runs.status)
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for job, status, newest, count in _rows(instance, query):
        if not job.startswith(_DAGSTERS_OWN):
            found.setdefault(job, {})[status] = newest, int(count)
    succeeded = _runs_by_number(instance, [of[_SUCCESS][0] for of in found.values() if _SUCCESS in of])
    return [_health(job, found[job], succeeded) for job in sorted(found)]


class _Success(NamedTuple):
    run_id: str
    started_at: float | None
    ended_at: float | None


def _health(job: str, of: dict[str, tuple[int, int]], succeeded: dict[int, _Success]) -> JobHealth:
    number = of.get(_SUCCESS, (0, 0))[0]
    failed, failures = of.get(_FAILURE, (0, 0))
    newest = succeeded.get(number)
    if newest is None:
        return JobHealth(job, failed > number, failures, None, None, None)
    started, ended = newest.started_at, newest.ended_at
    seconds = None if started is None or ended is None else ended - started
    return JobHealth(job, failed > number, failures, newest.run_id, ended, seconds)


def _runs_by_number(instance: dg.DagsterInstance, numbers: list[int]) -> dict[int, _Success]:
    runs = RunsTable.c
    query = db.select(runs.id, runs.run_id, runs.start_time, runs.end_time).where(runs.id.in_(numbers))
    return {row[0]: _Success(*row[1:]) for row in _rows(instance, query)}


def unfinished(instance: dg.DagsterInstance) -> dict[str, int]:
    """How many runs there are in each state that is not the end of a run."""
    status = RunsTable.c.status
    over = [one.value for one in FINISHED_STATUSES]
    query = db.select(status, db.func.count()).where(status.not_in(over)).group_by(status)
    return {row[0]: row[1] for row in _rows(instance, query)}


def step_seconds(instance: dg.DagsterInstance, run_id: str) -> dict[str, float]:
    """What each step of a run took, as far as it ended."""
    return {
        step.step_key: step.end_time - step.start_time
        for step in instance.get_run_step_stats(run_id)
        if step.start_time is not None and step.end_time is not None
    }


def _rows(instance: dg.DagsterInstance, query: "db.Select[Any]") -> Iterator[tuple[Any, ...]]:
    storage = instance.run_storage
    if isinstance(storage, SqlRunStorage):
        with storage.connect() as connection:
            yield from map(tuple, connection.execute(query).fetchall())
