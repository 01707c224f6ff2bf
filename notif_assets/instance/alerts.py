"""What fails and what holds again.

Belongs here: which checks and jobs fail now according to Dagster, and the difference to what was told. Doesn't: whom it
is told, and how (messengers.py); when to look (defs/sensors.py).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import dagster as dg
import sqlalchemy as db
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

HOLDS_AGAIN = " holds again"
"""What a line ends with that tells the end of a failure."""

_EVALUATED = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]


def failing_checks(instance: dg.DagsterInstance, checks: Iterable[dg.AssetCheckKey]) -> dict[str, str]:
    """The checks whose newest evaluation did not pass, and what it found; warnings too.

    A planned check keeps its last result; so does a check that its run did not reach.
    """
    return {one.name: one.sentence for one in evaluations_that_fail(instance, checks)}


@dataclass(frozen=True)
class FailingCheck:
    """A check that did not pass: the name that people are told, what it found, and how much that matters."""

    key: dg.AssetCheckKey
    sentence: str
    severity: dg.AssetCheckSeverity

    @property
    def asset(self) -> str:
        """The asset that it looks at."""
        return self.key.asset_key.to_user_string()

    @property
    def name(self) -> str:
        """What it is called in a sentence."""
        return f"check {self.key.name} of {self.asset}"


def evaluations_that_fail(instance: dg.DagsterInstance, checks: Iterable[dg.AssetCheckKey]) -> Iterator[FailingCheck]:
    """As failing_checks, each with its parts."""
    newest = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(checks))
    for key, latest in newest.items():
        record = latest if latest.status in _EVALUATED else _last_evaluated(instance, key)
        found = _evaluation(record)
        if record and found and not found.passed:
            sentence = f"{found.description or 'see its page'} (run {record.run_id[:8]})"
            yield FailingCheck(key, sentence, found.severity)


def last_evaluation(instance: dg.DagsterInstance, check: dg.AssetCheckKey) -> dg.AssetCheckEvaluation | None:
    """The newest result of a check; None if it never ran."""
    return _evaluation(_last_evaluated(instance, check))


def _last_evaluated(instance: dg.DagsterInstance, check: dg.AssetCheckKey) -> AssetCheckExecutionRecord | None:
    storage = instance.event_log_storage
    return next(iter(storage.get_asset_check_execution_history(check, limit=1, status=_EVALUATED)), None)


def _evaluation(record: AssetCheckExecutionRecord | None) -> dg.AssetCheckEvaluation | None:
    event = record.event.dagster_event if record and record.event else None
    if event is None or event.event_type != dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        return None
    return event.asset_check_evaluation_data


def known_checks(instance: dg.DagsterInstance) -> list[dg.AssetCheckKey]:
    """Every check that ever ran, for callers without definitions."""
    events = instance.event_log_storage
    if not isinstance(events, SqlEventLogStorage):
        return []
    made = AssetCheckExecutionsTable.c
    with events.index_connection() as connection:
        found = connection.execute(db.select(made.asset_key, made.check_name).distinct()).fetchall()
    keys = ((dg.AssetKey.from_db_string(asset), name) for asset, name in found)
    return [dg.AssetCheckKey(asset, name) for asset, name in keys if asset is not None]


def failing_jobs(instance: dg.DagsterInstance, jobs: Iterable[str]) -> dict[str, str]:
    """The jobs whose newest completed run failed, and why. A cancelled run does not count."""
    failing = {}
    for job in jobs:
        for run in instance.get_runs(dg.RunsFilter(job_name=job, statuses=_ENDED), limit=1):
            if run.status == dg.DagsterRunStatus.FAILURE:
                failing[f"job {job}"] = f"{reason_of_failure(instance, run.run_id)} (run {run.run_id[:8]})"
    return failing


def reason_of_failure(instance: dg.DagsterInstance, run_id: str) -> str:
    """Why a run failed, in a sentence: its failing checks, else what the step said."""
    checks = [
        f"check {data.check_name} of {data.asset_key.to_user_string()} failed"
        for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        if entry.dagster_event
        and not (data := entry.dagster_event.asset_check_evaluation_data).passed
        and data.severity == dg.AssetCheckSeverity.ERROR
    ]
    if checks:
        return ", ".join(checks)
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        if entry.dagster_event:
            failure = entry.dagster_event.step_failure_data
            if failure.user_failure_data and failure.user_failure_data.description:
                return failure.user_failure_data.description
            return f"step {entry.dagster_event.step_key} failed"
    return "its process ended without a word"


def alert_lines(reported: Mapping[str, str], failing: Mapping[str, str]) -> list[str]:
    """The lines to send: failures that began or ended since `told` was sent.

    >>> alert_lines({"job a": "x"}, {"job b": "y"})
    ['job b: y', 'job a holds again']
    """
    begun = [f"{name}: {sentence}" for name, sentence in sorted(failing.items()) if name not in reported]
    return begun + [f"{name}{HOLDS_AGAIN}" for name in sorted(reported) if name not in failing]
