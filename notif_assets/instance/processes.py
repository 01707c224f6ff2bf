"""The processes of runs: they start as forks, and a run ends when its process dies.

Belongs here: how the process of a run starts, whether it is alive, and releasing what a dead process holds (its run in
progress, its slots in the pools). Dagster itself notices the death only of a process whose launcher lives; any other
run would stay in progress until dagster/max_runtime fails it. Doesn't: when dead runs are
looked for (sensors.py), what old runs leave (pruning.py).

A process locks a file while it lives, and the system releases the lock when the process ends in any way. Unlike a
process id, a lock is never reused by another process, and it works across containers that share the folder.
"""

import fcntl
import multiprocessing
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import wraps
from math import inf
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.events import DagsterEvent
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.in_process import InProcessExecutor

from notif_assets.instance.location import store
from notif_assets.instance.private import FINISHED_STATUSES, IN_PROGRESS_RUN_STATUSES

# Seconds: a run registers its process as its first step.
_REGISTERS_WITHIN = 60.0

IMPORTS_OF_A_RUN = [
    "dagster._cli",
    "dagster._grpc.impl",
    "notif_assets.definitions",
    # What is imported only while a run goes on: Dagster's storage, what a job is put together with, a client of Kafka's
    # where it is installed, and pandas, which pyarrow looks for at its first array.
    "dagster._core.execution.execute_in_process",
    "dagster._core.instance.factory",
    "dagster._core.instance.runs.run_domain",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.storage.migration.utils",
    "dagster._core.storage.root",
    "dagster._core.storage.sqlite_storage",
    "notif_assets.kafka.confluent_client",
    "pandas",
    "pyarrow.dataset",
    "upath",
]
"""The modules that a process which runs are forked from imports before."""

PROCESS = "notif_assets/process"
"""The tag that names the process of a run. A launched run has its own process, named by the run's id."""


def fork_run_processes() -> None:
    """In a code server: makes the process of a run a fork of one that has the imports already.

    Dagster starts a new Python for every run. Its imports take 3 to 5 seconds of a processor, longer than the run of a
    micro-batch takes, and a run begins every few seconds. The process that is forked has no threads and no
    connections, and ends with the code server.
    """
    server = sys.modules.get("dagster._grpc.server")
    if server is not None and sys.platform == "linux":
        forks = multiprocessing.get_context("forkserver")
        forks.set_forkserver_preload(IMPORTS_OF_A_RUN)
        # The server has no setting for how it starts processes.
        server.DagsterApiServer._mp_ctx = property(lambda _: forks, lambda *_: None)


def end_at_sigterm() -> None:
    """In a code server that a script started in the background: lets SIGTERM end it.

    A shell without job control lets what it starts with `&` ignore SIGINT. Dagster does at SIGTERM what is done at
    SIGINT, so the server would ignore both, and while definitions are loaded both have other handlers.
    """
    server = sys.modules.get("dagster._grpc.server")
    if server is None or hasattr(server.DagsterGrpcServer.serve, "__wrapped__"):
        return
    serve = server.DagsterGrpcServer.serve

    @wraps(serve)
    def serve_until_sigterm(itself: Any) -> None:
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGTERM) == signal.SIG_IGN:
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # as where SIGINT is not ignored
        serve(itself)

    server.DagsterGrpcServer.serve = serve_until_sigterm


@contextmanager
def hold_process_lock(folder: Path, name: str | None = None) -> Iterator[str]:
    """While this lasts, the process is alive; gives its name, by default a new one: the tag PROCESS of its runs."""
    folder = folder / "processes"
    folder.mkdir(parents=True, exist_ok=True)
    name = name or uuid.uuid4().hex
    path = folder / name
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield name
        finally:
            path.unlink(missing_ok=True)


def hold_lock_until_exit(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Tells by the run's tag PROCESS that it lives in this process, as long as that lasts.

    For a launched run, which has its process to itself; one of the command line tells so itself.
    """
    says_so = run.remote_job_origin is None and PROCESS in run.tags
    if says_so or "DAGSTER_STORE" not in os.environ or is_alive(store(), run.run_id):
        return
    stack = ExitStack()
    stack.enter_context(hold_process_lock(store(), run.run_id))
    Finalize(None, stack.close, exitpriority=0)  # for a killed process fail_orphaned_runs does it
    instance.add_run_tags(run.run_id, {PROCESS: run.run_id})


class _InProcess(InProcessExecutor):
    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        hold_lock_until_exit(plan_context.instance, plan_context.dagster_run)
        yield from super().execute(plan_context, execution_plan)


@dg.executor(name="in_process")
def in_process_executor(_: dg.InitExecutorContext) -> InProcessExecutor:
    """Executes a run in one process, as Dagster's executor of that name. The run registers its process first, before it
    waits for a slot."""
    return _InProcess(RetryMode.ENABLED)


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


def fail_orphaned_runs(instance: dg.DagsterInstance, folder: Path) -> list[str]:
    """Fails every run in progress whose process is dead and frees its slots; gives the runs' ids.

    What runs kept that ended in another way is freed too.
    """
    ended = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=IN_PROGRESS_RUN_STATUSES)):
        run = record.dagster_run
        name = run.tags.get(PROCESS)
        # A run that the UI starts again has the tags of the first one until it says which process it lives in.
        if run.remote_job_origin is not None and name != run.run_id:
            if (
                run.status != dg.DagsterRunStatus.STARTED
                or time.time() < (record.start_time or inf) + _REGISTERS_WITHIN
            ):
                continue
            name = run.run_id
        if name is None or is_alive(folder, name):
            continue
        now = instance.get_run_by_id(run.run_id)
        if now is None or now.status not in IN_PROGRESS_RUN_STATUSES:
            continue  # the run ended meanwhile, and then its process
        instance.report_run_failed(run, "The process of this run was killed; whatever it committed is good.")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        with suppress(OSError):
            (folder / "processes" / name).unlink()
        ended.append(run.run_id)
    _free_slots_of_ended_runs(instance)
    return ended


def _free_slots_of_ended_runs(instance: dg.DagsterInstance) -> None:
    """Frees the slots of runs that ended free_slots_after_run_end_seconds ago, and their places in the queues for one.

    A run whose launcher saw its process die keeps both. Dagster's monitoring frees them, but not where the time zone of
    a PostgreSQL is east of UTC: there dagster 1.13.27 compares the local time of a run's last change with UTC, so that
    for hours the run has not ended long enough, and every other run of the pool waits.
    """
    pools = instance.event_log_storage
    holders = list(pools.get_concurrency_run_ids())
    if not holders:
        return
    until = time.time() - instance.run_monitoring_settings.get("free_slots_after_run_end_seconds", 0)
    for record in instance.get_run_records(dg.RunsFilter(run_ids=holders, statuses=FINISHED_STATUSES)):
        if (record.end_time or 0) < until:
            pools.free_concurrency_slots_for_run(record.dagster_run.run_id)
