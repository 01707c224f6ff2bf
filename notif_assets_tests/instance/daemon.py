"""What Dagster's daemon does with a deployment, one tick at a time, on a real instance.

Belongs here: the instance of the repository's dagster.yaml, ticks of real sensors and schedules with their cursors,
running what they request. Doesn't: what should be requested (the tests).
"""

import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from notif_assets.definitions import build_definitions
from notif_assets.defs import schedules, sensors
from notif_assets.instance.processes import PROCESS
from notif_assets.instance.run_tags import range_tags
from notif_assets.lake import Lake
from notif_assets.notifications import bronze, catch_up, ledger
from notif_assets.settings import Settings
from notif_assets_tests.books import close_day
from notif_assets_tests.cli.deployment import ROOT
from notif_assets_tests.streams import MemoryLog

# Closed days are corrected as soon as a test looks.
_OPTIONS: dict[str, Any] = {"max_event_age": timedelta(days=400), "adjust_every": timedelta(0)}
_QUIET: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Daemon:
    """A lake, a topic in memory and an instance of their own; the cursors of the sensors are kept as Dagster does."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, storage: Path, **options: Any) -> None:
        """`storage` is copied: a new one would cost more than most tests."""
        self.store = root / "dagster"
        shutil.copytree(storage, self.store)
        patch.setenv("DAGSTER_HOME", str(ROOT))
        patch.setenv("DAGSTER_STORE", str(self.store))
        self.settings = Settings(data=root / "data", **(_OPTIONS | options))
        self.topic = MemoryLog(partitions=2)
        self.lake = Lake(self.settings.lake)
        self.definitions = build_definitions(self.settings, kafka=lambda: self.topic)
        self.repository = self.definitions.get_repository_def()
        self.instance = dg.DagsterInstance.get()
        self.cursors: dict[str, str | None] = {}

    def tick(self, sensor: str) -> SensorExecutionData:
        """One evaluation of a sensor."""
        with dg.build_sensor_context(
            self.instance,
            self.cursors.get(sensor),
            sensor_name=sensor,
            repository_def=self.repository,
            resources=self.repository.get_top_level_resources(),
        ) as context:
            answer = self.repository.get_sensor_def(sensor).evaluate_tick(context)
        self.cursors[sensor] = answer.cursor
        return answer

    def requests(self, sensor: str) -> Sequence[dg.RunRequest]:
        """What a tick of a sensor that has something to do requests."""
        answer = self.tick(sensor)
        assert answer.run_requests, answer.skip_message
        return answer.run_requests

    def skips(self, sensor: str) -> str:
        """Why a tick of a sensor requests nothing."""
        answer = self.tick(sensor)
        assert not answer.run_requests
        assert answer.skip_message
        return answer.skip_message

    def scheduled(self, schedule: str, at: datetime | None = None) -> tuple[Sequence[dg.RunRequest], str | None]:
        """What a schedule requests at its tick, and why it requests nothing."""
        with dg.build_schedule_context(
            self.instance, at or datetime.now(UTC), self.repository.get_top_level_resources(), self.repository
        ) as context:
            answer = self.repository.get_schedule_def(schedule).evaluate_tick(context)
        return answer.run_requests or [], answer.skip_message

    def run(
        self, job: str, request: dg.RunRequest | None = None, tags: Mapping[str, str] | None = None
    ) -> dg.ExecuteInProcessResult:
        """Runs a job, as a request asks for it, and records it."""
        asked = request or dg.RunRequest()
        return self.definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            run_config={**_QUIET, **asked.run_config},
            tags={**asked.tags, **(tags or {})},
            raise_on_error=False,
        )

    def ingest(self) -> None:
        """What a micro-batch commits, without a run of Dagster's."""
        self.lake.claim(topic=self.settings.topic, timezone=self.settings.timezone)
        while bronze.advance_bronze_by_one(self.lake, self.topic, self.settings, "by hand", even_if_quiet=True):
            catch_up.advance_tables(self.lake, self.settings)
            if sum(map(len, self.topic.partitions.values())) == self.taken():
                break

    def taken(self) -> int:
        """How many offsets the newest batch says are taken."""
        table = self.lake.table("ingest_batches")
        rows = self.lake.rows(table.scan(batch=(table.watermark, None))).to_pylist()
        return sum(row["end_offset"] for row in rows)

    def close(self, *days: str) -> None:
        """Closes days, without a run of Dagster's."""
        for day in sorted(days):
            assert close_day(self.lake, self.settings, self.topic, date.fromisoformat(day), "by hand").closed_now

    def bill(self, first: str, last: str | None = None) -> dg.ExecuteInProcessResult:
        """Runs the bills of some days."""
        return self.run("daily_billing_job", tags=range_tags(dg.PartitionKeyRange(first, last or first)))

    def stuck(self, job: str, status: str, process: str | None = None, launched: bool = False) -> dg.DagsterRun:
        """A run in a state that it does not leave, with its tag of a process; `launched` by the daemon or else not."""
        code = ModuleCodePointer("notif_assets.definitions", "defs", str(ROOT))
        repository = RepositoryPythonOrigin(sys.executable, code)
        location = InProcessCodeLocationOrigin(
            LoadableTargetOrigin(executable_path=sys.executable, module_name="notif_assets.definitions"),
            location_name="notif_assets",
        )
        return self.instance.create_run_for_job(
            self.definitions.resolve_job_def(job),
            status=dg.DagsterRunStatus[status],
            tags={PROCESS: process} if process else {},
            remote_job_origin=RemoteJobOrigin(RemoteRepositoryOrigin(location, self.repository.name), job)
            if launched
            else None,
            job_code_origin=JobPythonOrigin(job, repository) if launched else None,
        )

    def status(self, run: dg.DagsterRun) -> str:
        """The state of a run now."""
        now = self.instance.get_run_by_id(run.run_id)
        assert now is not None
        return now.status.value


def ranges(requests: Sequence[dg.RunRequest]) -> list[tuple[str, str]]:
    """The first and the last partition of each request."""
    names = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
    return [(request.tags[names[0]], request.tags[names[1]]) for request in requests]


class Time:
    """What sensors, schedules and the ledger take for the present; it stands still until it is moved."""

    def __init__(self, patch: pytest.MonkeyPatch, now: datetime | None = None) -> None:
        self.now = now or datetime.now(UTC)
        time = self

        class Stopped(datetime):
            @classmethod
            def now(cls, _tz: object = None) -> Any:
                return time.now

        for module in (sensors, schedules, ledger):
            patch.setattr(module, "datetime", Stopped)

    def advance(self, **by: float) -> None:
        """Lets time pass: seconds=…, days=…"""
        self.now += timedelta(**by)
