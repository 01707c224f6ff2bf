"""Processes end when they are asked to, whatever signals come, how many and how close together.

Belongs here: real processes and real signals. Doesn't: being killed (faults/).
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import ExecuteExternalJobArgs

from notif_assets.core.signals import Signals
from notif_assets_tests.cli.deployment import Deployment, a_free_port, killed_at_the_end, processes_of, until
from notif_assets_tests.conftest import Deploy, MakeDaemon

BOTH = (signal.SIGTERM, signal.SIGINT)


def test_one_that_waits_is_woken_by_a_signal_and_only_by_one_of_its_own() -> None:
    before = {number: signal.getsignal(number) for number in (*BOTH, signal.SIGUSR1)}
    signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with Signals() as asked:
            assert not asked.wait(0)
            os.kill(os.getpid(), signal.SIGUSR1)
            began = time.monotonic()
            assert not asked.wait(0.2)
            assert time.monotonic() - began >= 0.2
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
            assert asked.wait()
            assert (asked.count, asked.is_set()) == (1, True)
            os.kill(os.getpid(), signal.SIGINT)
            assert asked.wait(0)
            assert asked.count == 2
    finally:
        signal.signal(signal.SIGUSR1, before[signal.SIGUSR1])
    assert {number: signal.getsignal(number) for number in before} == before
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.timeout(30)
def test_a_signal_that_comes_while_another_is_handled_harms_nothing() -> None:
    """One comes at each line of the handler, and of what it calls: a lock that it takes would be taken twice."""

    def another(_frame: object, _event: str, _argument: object) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return another

    with Signals() as asked:
        sys.settrace(another)
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            sys.settrace(None)
        assert asked.count > 2
        assert asked.wait()


@pytest.mark.parametrize("times", range(3))
def test_the_broker_ends_at_a_burst_of_signals(deploy: Deploy, times: int) -> None:
    deployment = deploy(1)
    port = a_free_port()
    with killed_at_the_end(deployment.start_python("broker", "--port", port, "--partitions", 1)) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"broker at ")
        for number in (*BOTH, *BOTH, *BOTH)[: 2 + 2 * times]:
            process.send_signal(number)
        process.wait(30)
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


def listens(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc, and runs are forks on Linux only")
def test_a_code_server_in_the_background_of_a_script_ends_at_sigterm_and_the_server_of_its_forks_with_it(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    daemon, port = make_daemon(), a_free_port()
    environment = Deployment(tmp_path, "127.0.0.1:1", "notifications", 1).environment()
    command = ("-m", "dagster", "api", "grpc", "-m", "notif_assets.definitions", "--host", "127.0.0.1")
    with killed_at_the_end(
        subprocess.Popen(
            [sys.executable, *command, "--port", str(port)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # As a shell without job control starts what is followed by `&`.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        )
    ) as server:
        client = DagsterGrpcClient(port=port, host="127.0.0.1")
        until(lambda: server.poll() is not None or listens(port), "the code server", 60)
        run = daemon.stuck("prices_job", "STARTING", launched=True)
        assert run.remote_job_origin is not None
        asked = ExecuteExternalJobArgs(
            job_origin=run.remote_job_origin, run_id=run.run_id, instance_ref=daemon.instance.get_ref()
        )
        client.start_run(asked)
        until(lambda: daemon.status(run) == "SUCCESS", "the run", 60)
        assert len(set(processes_of(daemon.store)) - {os.getpid()}) > 1  # that of the forks
        server.terminate()
        assert server.wait(30) == 0
    until(lambda: not set(processes_of(daemon.store)) - {os.getpid()}, "the end of what it started", 10)
    assert dg.DagsterRunStatus.SUCCESS.value == daemon.status(run)
