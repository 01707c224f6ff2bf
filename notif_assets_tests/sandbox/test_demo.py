"""`make demo`, as a newcomer runs it: it proves its numbers, and leaves nothing behind however it is ended.

Belongs here: the demo as a process of its own. Doesn't: what its parts do.
"""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from notif_assets.sandbox.traffic import ACME
from notif_assets_tests.cli.deployment import ROOT, a_free_port, processes_of, until

pytestmark = pytest.mark.timeout(600)


class Demo:
    """A demo in a folder of its own, its output in a file."""

    def __init__(self, home: Path, *options: str) -> None:
        self.data = home / "demo"
        self.ports = (a_free_port(), a_free_port(), a_free_port())
        self.output = home / "output.txt"
        self.options = options

    @contextmanager
    def running(self) -> Iterator["subprocess.Popen[bytes]"]:
        command = [sys.executable, "-m", "notif_assets.sandbox.demo", "--data", str(self.data), *self.options]
        command += ["--port", str(self.ports[0]), "--kafka-port", str(self.ports[1])]
        command += ["--panel-port", str(self.ports[2])]
        with self.output.open("wb") as output:
            process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()

    @property
    def said(self) -> str:
        return self.output.read_text()

    def left(self) -> list[int]:
        """The processes that it started and that still run."""
        return processes_of(self.data / "dagster")

    def assert_nothing_left(self) -> None:
        assert self.left() == []
        for port in self.ports:
            with socket.socket() as again:
                again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                again.bind(("127.0.0.1", port))


def test_it_counts_reconciles_and_ends_with_nothing_left_behind(tmp_path: Path) -> None:
    demo = Demo(tmp_path, "--for", "25", "--rate", "400")
    with demo.running() as process:
        assert process.wait(400) == 0, demo.said
    table = demo.said.partition("reconciliation")[2]
    assert [line.split()[-1] for line in table.splitlines()[1:]] == ["ok"] * 7, demo.said
    assert "10000" in table  # 25 s × 400
    assert "today Acme: " in demo.said
    demo.assert_nothing_left()


def test_two_ctrl_c_end_all_that_it_started_and_it_used_no_setting_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIF_LAKE", str(tmp_path / "production"))
    monkeypatch.setenv("NOTIF_KAFKA_BOOTSTRAP", "production.example:9092")
    demo = Demo(tmp_path)
    with demo.running() as process:
        until(lambda: "produced" in demo.said or process.poll() is not None, "the first line")
        links = re.findall(r"http://\S+/entrar\?t=\S+", demo.said)
        pages = [httpx.Client(follow_redirects=True, timeout=60).get(link) for link in links]
        assert [(page.status_code, page.url.path) for page in pages] == [(200, f"/clientes/{ACME}"), (200, "/operador")]
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, demo.said
    assert not (tmp_path / "production").exists()
    assert "production.example" not in demo.said
    assert "Traceback" not in demo.said
    demo.assert_nothing_left()


def test_ctrl_c_while_it_starts_ends_it_too(tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    with demo.running() as process:
        until(demo.left, "the start of Dagster")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, demo.said
    assert "Traceback" not in demo.said
    demo.assert_nothing_left()


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_busy_port_is_named_and_nothing_is_started(tmp_path: Path, which: int) -> None:
    demo = Demo(tmp_path)
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", demo.ports[which]))
        busy.listen()
        with demo.running() as process:
            assert process.wait(60) == 1
    assert f"port {demo.ports[which]} is taken" in demo.said
    assert f"{('PORT', 'KAFKA_PORT', 'PANEL_PORT')[which]}=" in demo.said
    assert not (demo.data / "lake").exists()


def test_a_folder_with_something_else_in_it_is_not_emptied(tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    demo.data.mkdir()
    (demo.data / "thesis.txt").write_text("years of work")
    with demo.running() as process:
        assert process.wait(60) == 1
    assert "holds something else" in demo.said
    assert (demo.data / "thesis.txt").exists()
