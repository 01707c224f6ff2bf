"""The system under its real conductor, on the embedded broker: Dagster's own processes, driven and looked at.

Belongs here: starting those processes, as `dagster dev` or as the three of production, killing them and starting them
again as a supervisor does; traffic to them; asking their instance and their UI. Doesn't: what should come of it (the
tests).
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.error import HTTPError

import dagster as dg
import pytest

from notif_assets.notifications.catch_up import committed_ends
from notif_assets.sandbox.traffic import Message
from notif_assets_tests.cli.deployment import ROOT, Deployment, a_free_port, processes_of, until
from notif_assets_tests.faults.truth import Truth

CODE, DAEMON, WEBSERVER = "code server", "daemon", "webserver"
_LOCATION = "load_from: [{{grpc_server: {{host: 127.0.0.1, port: {port}, location_name: notif_assets}}}}]\n"


class Conductor:
    """Dagster's processes of a deployment, each a part with a name, and what their instance knows."""

    instance: dg.DagsterInstance

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.truth = Truth()
        self.seed = 0
        self.port, self.code_port = a_free_port(), a_free_port()
        self.log = (deployment.home / "dagster.log").open("ab")
        self.parts: dict[str, subprocess.Popen[bytes]] = {}
        self.start()

    def commands(self) -> Mapping[str, list[str]]:
        """The parts and the Python modules that they run, in the order that they are started in."""
        return {"dev": ["dagster", "dev", "-w", "workspace.yaml", "--host", "127.0.0.1", "--port", str(self.port)]}

    def start(self) -> None:
        """Every part that does not run."""
        for part, command in self.commands().items():
            if part in self.parts and self.parts[part].poll() is None:
                continue
            self.parts[part] = self._started(command)
            if part == CODE:  # a daemon that finds no code server looks for one again a minute later
                until(self.code_answers, "the start of the code server")

    def start_another(self, name: str, part: str) -> None:
        """One more of a part, under a name of its own."""
        self.parts[name] = self._started(self.commands()[part])

    def _started(self, command: list[str]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=self.deployment.environment(),
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    def code_answers(self) -> bool:
        """Whether the code server listens."""
        time.sleep(0.1)
        with socket.socket() as attempt:
            return attempt.connect_ex(("127.0.0.1", self.code_port)) == 0

    def kill(self, *parts: str, alone: bool = False) -> None:
        """Kills parts, all of them by default, with what they started, as a power cut does; `alone`: without that."""
        chosen = [self.parts[part] for part in parts or self.parts]
        for process in chosen:
            with suppress(ProcessLookupError):
                (os.kill if alone else os.killpg)(process.pid, signal.SIGKILL)
        for process in chosen:
            process.wait()

    def close(self) -> None:
        """Ends every part, in order where that goes."""
        for process in self.parts.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in self.parts.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
        self.kill()
        for left in processes_of(self.deployment.home / "dagster"):
            with suppress(ProcessLookupError):
                if left != os.getpid():
                    os.kill(left, signal.SIGKILL)
        self.log.close()

    # --- traffic ------------------------------------------------------------------------------------------------------

    def send(self, count: int = 300, start: datetime | None = None) -> None:
        """Traffic of the generator."""
        self.seed += 1
        self.truth.send(self.deployment, self.seed, count, start or datetime.now(UTC) - timedelta(seconds=1))

    def send_one(self, channel: str, event: datetime) -> None:
        """A message of a customer of its own."""
        self.seed += 1
        text = {
            "customer_id": 9_000_000 + self.seed,
            "message_id": f"one-{self.seed}",
            "customer_name": "Acme",
            "channel": channel,
            "payload": "Olá",
            "event_datetime": event.isoformat(timespec="milliseconds"),
        }
        value = json.dumps(text, ensure_ascii=False).encode()
        message = Message(9_000_000 + self.seed, value, int(time.time() * 1000))
        self.truth.note([message])
        self.truth.tally.produced += 1
        self.truth.tally.accepted += 1
        self.deployment.send([message])

    def until_counted(self) -> None:
        """Waits until every message is in every table, without doing anything for it."""

        def counted() -> bool:
            time.sleep(0.3)
            with self.deployment.lake as lake:
                return lake.exists() and sum(committed_ends(lake).values()) >= self.truth.produced

        until(counted, "counting all messages")

    # --- runs ---------------------------------------------------------------------------------------------------------

    def runs(self, job: str, *statuses: dg.DagsterRunStatus) -> list[dg.RunRecord]:
        """The runs of a job, the newest first."""
        filters = dg.RunsFilter(job_name=job, statuses=list(statuses) or None)
        return list(self.instance.get_run_records(filters))

    def run(self, run_id: str) -> dg.DagsterRun:
        """The run as it is now."""
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def until_run(self, job: str, status: dg.DagsterRunStatus, already: int = 0) -> dg.RunRecord:
        """The newest run of the job in this status, once there is one more than `already`."""

        def come() -> dg.RunRecord | None:
            time.sleep(0.1)
            records = self.runs(job, status)
            return records[0] if len(records) > already else None

        record: dg.RunRecord = until(come, f"a run of {job} that is {status.value}")
        return record

    def send_until_taken(self, count: int) -> str:
        """Sends traffic, all before it being counted, and waits until the first of it is committed; gives the id of the
        run that takes it. Just any run that is shown as started may be the one before it, at its end."""
        before = self.truth.produced
        self.send(count)
        until(lambda: len(self.deployment.rows("raw_notifications")) > before, "the first commit")
        return self.runs("micro_batch", dg.DagsterRunStatus.STARTED)[0].dagster_run.run_id

    def until_finished(self, run_id: str) -> dg.DagsterRunStatus:
        """Waits for a run's end; gives how it ended."""

        def finished() -> bool:
            time.sleep(0.2)
            return self.run(run_id).is_finished

        try:
            until(finished, "the end of the run")
        except AssertionError as late:
            logs = self.instance.all_logs(run_id)
            told = [f"{entry.timestamp:.1f} {entry.step_key} {entry.message}" for entry in logs]
            raise AssertionError("\n".join([str(late), self.run(run_id).status.value, *told[-40:]])) from None
        return self.run(run_id).status

    def process_of(self, run_id: str) -> int | None:
        """The process of a run that was launched; None if there is none (yet, or any more)."""
        working = processes_of(self.deployment.home / "dagster")
        for entry in self.instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
            for part in entry.message.split():
                if part.rstrip(").").isdigit() and int(part.rstrip(").")) in working:
                    return int(part.rstrip(")."))
        return None

    def kill_run(self, run_id: str) -> bool:
        """Kills the process of a run that was launched; False if there is none."""
        process = self.process_of(run_id)
        if process is not None:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return process is not None

    # --- the UI -------------------------------------------------------------------------------------------------------

    def answers(self) -> bool:
        """Whether the UI is up: it comes some seconds after the start."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/server_info", timeout=5):
                return True
        except OSError:
            time.sleep(0.3)
            return False

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        """What the UI asks, and its answer."""
        until(self.answers, "the start of the UI")
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                told: dict[str, Any] = json.load(answer)
        except HTTPError as error:
            raise AssertionError(error.read().decode()[:4000]) from error
        assert "errors" not in told, told
        return told["data"]  # type: ignore[no-any-return]

    def launch(self, job: str, tags: Mapping[str, str] | None = None) -> str:
        """Starts a run in the UI; gives its id."""
        answer = self.graphql(
            "mutation($p: ExecutionParams!) { launchRun(executionParams: $p) "
            "{ __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }",
            p={
                "selector": {
                    "repositoryLocationName": "notif_assets",
                    "repositoryName": "__repository__",
                    "jobName": job,
                },
                "runConfigData": {},
                "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in (tags or {}).items()]},
            },
        )["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])


class Production(Conductor):
    """The three processes of production, each of which dies alone."""

    def __init__(self, deployment: Deployment) -> None:
        self.workspace = deployment.home / "production.yaml"
        super().__init__(deployment)

    def commands(self) -> Mapping[str, list[str]]:
        self.workspace.write_text(_LOCATION.format(port=self.code_port))
        here, workspace = ["--host", "127.0.0.1"], ["-w", str(self.workspace)]
        return {
            CODE: ["dagster", "api", "grpc", "-m", "notif_assets.definitions", *here, "--port", str(self.code_port)],
            DAEMON: ["dagster._daemon", "run", *workspace],
            WEBSERVER: ["dagster_webserver", *workspace, *here, "--port", str(self.port)],
        }


@contextmanager
def conducted(kind: type[Conductor], deployment: Deployment) -> Iterator[Conductor]:
    """The deployment's conductor, with its instance, until the end of the block."""
    environment = deployment.environment()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DAGSTER_HOME", "DAGSTER_STORE", "DAGSTER_POSTGRES_URL"):
            if name in environment:
                patch.setenv(name, environment[name])
        with dg.DagsterInstance.get() as instance:
            running = kind(deployment)
            running.instance = instance
            try:
                yield running
            finally:
                running.close()
