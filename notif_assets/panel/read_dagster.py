"""`python -m notif_assets.panel.read_dagster`: Dagster's state as JSON, for the panel, whose child this is.

Belongs here: asking Dagster's storage. Doesn't: when to ask, what is kept (dagster_state.py).
"""

import sys
from datetime import UTC, datetime, timedelta

import dagster as dg
import msgspec

from notif_assets.instance import health
from notif_assets.instance.alerts import evaluations_that_fail, known_checks
from notif_assets.instance.existing import existing_instance
from notif_assets.panel.dagster_state import Failing, Job, Run, State

_MOST = 10
_OF_LATE = timedelta(days=1)


def read() -> State:
    """Dagster's state now; nothing is created where Dagster never ran."""
    now = datetime.now(UTC)
    with existing_instance() as instance:
        if instance is None:
            return State("absent", now)
        failing = sorted(evaluations_that_fail(instance, known_checks(instance)), key=lambda one: one.name)
        return State(
            "known",
            now,
            runs=tuple(_run(record) for record in instance.get_run_records(limit=_MOST)),
            failing=tuple(
                Failing(one.name, one.asset, one.sentence, one.key.name, one.severity.value) for one in failing
            ),
            jobs=tuple(_job(instance, job) for job in health.jobs(instance, now - _OF_LATE)),
            unfinished=health.unfinished(instance),
            daemons={
                part: datetime.fromtimestamp(sign.timestamp, UTC)
                for part, sign in instance.get_daemon_heartbeats().items()
            },
        )


def _run(record: dg.RunRecord) -> Run:
    run, started, ended = record.dagster_run, record.start_time, record.end_time
    began = datetime.fromtimestamp(started, UTC) if started else None
    return Run(run.run_id, run.job_name, run.status.value, began, ended - started if started and ended else None)


def _job(instance: dg.DagsterInstance, job: health.JobHealth) -> Job:
    ended = datetime.fromtimestamp(job.ended_at, UTC) if job.ended_at else None
    steps = health.step_seconds(instance, job.run_id) if job.run_id else {}
    return Job(job.job, job.failing, job.failures, ended, job.seconds, steps)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(read()))
