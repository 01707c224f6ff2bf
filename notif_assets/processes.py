"""Runs that live in a process of their own, without Dagster's launcher: whose process died, ends here.

Belongs here: knowing whether the process of such a run is alive, and giving back what a dead one holds (its place among
the runs in progress, its slots in the pools). Doesn't: runs that the daemon launched, which Dagster itself watches.

A process holds a lock on a file as long as it lives; the system drops the lock however the process ends. Unlike a
process id that is never somebody else's, and it holds across containers that share the folder.
"""

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES

PROCESS = "notif_assets/process"
"""The tag that says which process a run lives in."""


def store() -> Path:
    """The folder of Dagster's storage. Raises KeyError outside a deployment that sets DAGSTER_STORE."""
    return Path(os.environ["DAGSTER_STORE"])


@contextmanager
def alive(folder: Path) -> Iterator[str]:
    """While this lasts, the process is alive; gives the value of its runs' tag PROCESS."""
    folder = folder / "processes"
    folder.mkdir(parents=True, exist_ok=True)
    name = uuid.uuid4().hex
    path = folder / name
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield name
        finally:
            path.unlink(missing_ok=True)


def is_alive(folder: Path, name: str) -> bool:
    """Whether the process that called itself `name` still runs."""
    try:
        with (folder / "processes" / name).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def end_runs_of_the_dead(instance: dg.DagsterInstance, folder: Path) -> list[str]:
    """Fails every run in progress whose process is dead and frees its slots; gives the runs' ids."""
    ended = []
    for run in instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS_RUN_STATUSES)):
        name = run.tags.get(PROCESS)
        if name is None or is_alive(folder, name):
            continue
        instance.report_run_failed(run, "The process of this run was killed; whatever it committed is good.")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        with suppress(OSError):
            (folder / "processes" / name).unlink()
        ended.append(run.run_id)
    return ended
