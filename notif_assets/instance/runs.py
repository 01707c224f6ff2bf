"""Dagster jobs run in this process, for the command line.

Belongs here: the Dagster instance to use, running one job, and the sentence on a failed one. Doesn't: which
jobs a command runs (cli/), what they do (defs/assets/).
"""

import fcntl
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import dagster as dg

from notif_assets.errors import NotifError
from notif_assets.instance.location import set_instance_environment, store
from notif_assets.instance.processes import PROCESS, fail_orphaned_runs, hold_process_lock
from notif_assets.instance.pruning import prune_runs
from notif_assets.instance.run_tags import range_tags
from notif_assets.settings import Settings

_QUIET: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class RunFailed(NotifError):
    """A job failed; the message is the sentence of the asset or check that failed."""


def silence_beta_warnings() -> None:
    """Silences Dagster's warnings about its own beta features: a user can do nothing about them. Assets warn when they
    are defined, so call this before the definitions are imported.
    """
    for category in (dg.BetaWarning, dg.PreviewWarning):
        warnings.filterwarnings("ignore", category=category)


class Runs:
    """The jobs of one deployment, run in this process and recorded in its Dagster instance, so that the UI shows them.

    The instance is that of DAGSTER_HOME, by default the folder that holds dagster.yaml beside this package; without
    either the runs are recorded nowhere.
    """

    def __init__(self, settings: Settings, definitions: dg.Definitions) -> None:
        self._settings = settings
        self._definitions = definitions
        self._opened = ExitStack()
        # The person at the terminal sees the failure. The daemon must not repeat the run.
        self._tags = {"dagster/max_retries": "0"}

    def __enter__(self) -> Self:
        set_instance_environment(self._settings)
        recorded = "DAGSTER_HOME" in os.environ
        with _exclusive(store()) if recorded else nullcontext():
            instance = dg.DagsterInstance.get() if recorded else dg.DagsterInstance.ephemeral()
            self._instance = self._opened.enter_context(instance)
        if recorded:
            # A run waits for a slot of its pool, and a killed command would hold its slot for ever.
            fail_orphaned_runs(self._instance, store())
            self._tags[PROCESS] = self._opened.enter_context(hold_process_lock(store()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def run(
        self,
        job: str,
        config: Mapping[str, Mapping[str, Any]] | None = None,
        partitions: dg.PartitionKeyRange | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Runs one job, over a range of partitions if given; `config` is per op. Raises RunFailed."""
        result = self.attempt(job, config, partitions)
        if not result.success:
            if _was_interrupted(result):
                raise KeyboardInterrupt
            raise RunFailed(_reason(result))
        return result

    def attempt(
        self,
        job: str,
        config: Mapping[str, Mapping[str, Any]] | None = None,
        partitions: dg.PartitionKeyRange | None = None,
    ) -> dg.ExecuteInProcessResult:
        """As run, and gives the result of a failed one too."""
        tags = self._tags | ({} if partitions is None else range_tags(partitions))
        with redirect_stderr(_WithoutStorageErrors(sys.stderr)):
            return self._execute(job, config, tags)

    def _execute(
        self, job: str, config: Mapping[str, Mapping[str, Any]] | None, tags: Mapping[str, str]
    ) -> dg.ExecuteInProcessResult:
        return self._definitions.resolve_job_def(job).execute_in_process(
            instance=self._instance,
            run_config=_QUIET | {"ops": {op: {"config": dict(values)} for op, values in (config or {}).items()}},
            tags=tags,
            raise_on_error=False,
        )

    def prune(self, cut_of_jobs: Mapping[str, dg.TimeWindowPartitionsDefinition | None]) -> int:
        """Deletes old runs of these jobs from Dagster's storage, as `prune_runs` does; gives how many."""
        return prune_runs(self._instance, cut_of_jobs)

    def skipped_checks(self, result: dg.ExecuteInProcessResult) -> dict[str, str]:
        """The checks that a run of all checks could not evaluate, and why. A failed check was evaluated."""
        made = {(check.asset_key, check.check_name) for check in result.get_asset_check_evaluations()}
        broken = {e.step_key: e.step_failure_data.error for e in result.all_events if e.is_step_failure}
        return {
            f"{key.asset_key.to_user_string()}.{key.name}": _error_sentence(broken.get(check.op.name))
            or "not looked at, because a check of what it stands on failed"
            for check in self._definitions.asset_checks or ()
            for key in check.check_keys
            if (key.asset_key, key.name) not in made
        }


class _WithoutStorageErrors(io.TextIOBase):
    """Standard error without Dagster's own output before it raises: the command prints one line with the same
    content."""

    def __init__(self, stderr: TextIO) -> None:
        self._stderr = stderr

    def write(self, text: str) -> int:
        return len(text) if text.startswith("Exception while writing logger call") else self._stderr.write(text)

    def flush(self) -> None:
        self._stderr.flush()

    def isatty(self) -> bool:
        return self._stderr.isatty()


@contextmanager
def _exclusive(store: Path) -> Iterator[None]:
    """Lets one process in at a time: two that open a new storage at once both create its tables, and one fails."""
    store.mkdir(parents=True, exist_ok=True)
    with (store / ".opening.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _reason(result: dg.ExecuteInProcessResult) -> str:
    """Why the run failed, in one sentence: the failing checks, else the step's description, else its error."""
    failed = [
        f"check {check.check_name} of {check.asset_key.to_user_string()} failed: {check.description or 'see the run'}"
        for check in result.get_asset_check_evaluations()
        if not check.passed and check.severity == dg.AssetCheckSeverity.ERROR
    ]
    for event in result.all_events:
        if event.is_step_failure:
            failure = event.step_failure_data
            if failure.user_failure_data and failure.user_failure_data.description:
                return failure.user_failure_data.description
            if failure.error is not None and not failed:
                return _error_sentence(failure.error)
    return "; ".join(failed) or f"run {result.run_id} failed"


def _error_sentence(error: Any) -> str:
    """The original error on one line. The project's own errors are sentences and need no class name."""
    while error is not None and error.cause is not None and error.cls_name.startswith("Dagster"):
        error = error.cause
    return re.sub(r"^notif_assets[\w.]*: ", "", " ".join(error.message.split())) if error is not None else ""


def _was_interrupted(result: dg.ExecuteInProcessResult) -> bool:
    return any(
        event.step_failure_data.error.cls_name == "DagsterExecutionInterruptedError"
        for event in result.all_events
        if event.is_step_failure and event.step_failure_data.error is not None
    )
