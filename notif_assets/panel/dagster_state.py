"""What Dagster knows, for the operator's page.

Belongs here: the last runs and the checks that fail, read from Dagster's storage. Doesn't: looking at the lake.
"""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from notif_assets.alerts import failing_checks, known_checks

_MOST = 10


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
    """The newest runs, and what each failing check says; `known` is False where there is no Dagster storage."""

    known: bool
    runs: tuple[Run, ...] = ()
    failing: tuple[Failing, ...] = ()


def state() -> State:
    """Dagster's state now; nothing is created where Dagster never ran."""
    store = os.environ.get("DAGSTER_STORE")
    if "DAGSTER_HOME" not in os.environ or store is None or not (Path(store) / "history").exists():
        return State(known=False)
    with dg.DagsterInstance.get() as instance:
        runs = [
            Run(
                record.dagster_run.run_id,
                record.dagster_run.job_name,
                record.dagster_run.status.value,
                datetime.fromtimestamp(record.start_time, UTC) if record.start_time else None,
                record.end_time - record.start_time if record.start_time and record.end_time else None,
            )
            for record in instance.get_run_records(limit=_MOST)
        ]
        failing = failing_checks(instance, known_checks(instance))
    found = (Failing(name, name.rpartition(" of ")[2], sentence) for name, sentence in sorted(failing.items()))
    return State(True, tuple(runs), tuple(found))
