"""The systemd units: systemd takes them, they are hardened, and what they start starts and ends as they say.

There is no systemd at work here: its own tool reads the units, and the test starts their commands.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from notif_assets.settings import Settings
from notif_assets_tests.cli.deployment import ROOT, Deployment, a_free_port, killed_at_the_end, until
from notif_assets_tests.conftest import Deploy
from notif_assets_tests.deploy.tools import DEPLOY, needed, told

UNITS = DEPLOY / "systemd"
COMMON = UNITS / "notif-assets-.service.d" / "common.conf"
CODE, DAEMON, WEBSERVER, PANEL = (f"notif-assets-{name}.service" for name in ("code", "daemon", "webserver", "panel"))
SERVICES = [CODE, DAEMON, WEBSERVER, PANEL]


def directives(unit: str) -> dict[str, str]:
    """What a unit says, with what all of them have in common."""
    text = COMMON.read_text() + (UNITS / unit).read_text()
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.M))


@pytest.fixture(scope="module")
def analyze() -> str:
    return needed("systemd-analyze", "systemd")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units with this repository in the place of /opt/notif-assets: systemd looks whether programs are there."""
    shutil.copytree(UNITS, tmp_path / "units")
    for unit in (tmp_path / "units").glob("*.service"):
        unit.write_text(unit.read_text().replace("/opt/notif-assets", str(ROOT)))
    return tmp_path / "units"


def test_systemd_finds_no_fault(analyze: str, installed: Path) -> None:
    units = [*installed.glob("*.service"), *installed.glob("*.target")]
    assert {unit.name for unit in units} == {*SERVICES, "notif-assets.target"}
    assert told(analyze, "verify", "--man=no", *units) == ""


def test_a_fault_would_be_found(analyze: str, installed: Path) -> None:
    (installed / PANEL).write_text("[Service]\nExecStart=/no/such/program\nUmsk=0027\n")
    complaints = told(analyze, "verify", "--man=no", installed / PANEL, code=1)
    assert "/no/such/program" in complaints
    assert "Umsk" in complaints


@pytest.mark.parametrize("unit", SERVICES)
def test_a_service_is_hardened(analyze: str, installed: Path, unit: str) -> None:
    """1.4 of 10 is what systemd says; without our common part it is 9.2."""
    told(analyze, "security", "--offline=true", "--threshold=20", "--no-pager", installed / unit)
    assert directives(unit)["UMask"] == "0027"


def test_no_run_begins_while_the_code_server_ends() -> None:
    """What is started after it is stopped before it."""
    for unit in (DAEMON, WEBSERVER):
        assert directives(unit)["Wants"] == CODE
        assert f"\nAfter={CODE}\n" in (UNITS / unit).read_text()
    wanted = re.findall(r"^Wants=(.*)$", (UNITS / "notif-assets.target").read_text(), re.M)[0]
    assert wanted.split() == SERVICES


def test_every_variable_is_one_that_is_read() -> None:
    names = [line.partition("=")[0] for line in (UNITS / "environment").read_text().splitlines() if line[:1] != "#"]
    assert set(names) <= Settings.variables() | {"DAGSTER_HOME", "DAGSTER_STORE"}


# As ProtectSystem=strict does to all but a unit's own folders.
_READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


class _Supervisor:
    """Does with the units' commands what systemd does, in a deployment's folders and on free ports. To root, as in CI,
    the program's own folder is read-only, as systemd makes it."""

    def __init__(self, deployment: Deployment, stack: ExitStack) -> None:
        self.deployment = deployment
        self.stack = stack
        self.ports = {port: a_free_port() for port in (4000, 3000, 8000)}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.workspace = deployment.home / "production.yaml"
        self.workspace.write_text((DEPLOY / "production.yaml").read_text().replace("4000", str(self.ports[4000])))

    def start(self, unit: str) -> None:
        said = directives(unit)
        log = self.stack.enter_context((self.deployment.home / unit).open("wb"))
        process = subprocess.Popen(
            self._command(said["ExecStart"]),
            cwd=self.deployment.home,
            env=self.deployment.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        self.running[unit] = self.stack.enter_context(killed_at_the_end(process))
        if "ExecStartPost" in said:
            environment = self.deployment.environment()
            after = self._command(said["ExecStartPost"])
            subprocess.run(after, check=True, env=environment, timeout=180, capture_output=True)

    def _command(self, line: str) -> list[str]:
        for port, free in self.ports.items():
            line = line.replace(f"--port {port}", f"--port {free}")
        line = line.replace("/opt/notif-assets/deploy/production.yaml", str(self.workspace))
        command = shlex.split(line.replace("/opt/notif-assets", str(ROOT)))
        return ["unshare", "--mount", "sh", "-c", _READ_ONLY, str(ROOT), *command] if os.geteuid() == 0 else command

    def stop(self, unit: str) -> None:
        said, process = directives(unit), self.running[unit]
        sent = signal.Signals[said["KillSignal"]]
        process.send_signal(sent)
        code = process.wait(float(said["TimeoutStopSec"]))
        good = {0, -sent, *map(int, said.get("SuccessExitStatus", "").split())}
        assert code in good, f"{unit} ended with {code}: {(self.deployment.home / unit).read_text()[-2000:]}"

    def answers(self, port: int, path: str) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[port]}{path}", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def daemon_lives(self) -> bool:
        return "Instance is configured with the following daemons" in (self.deployment.home / DAEMON).read_text()


@pytest.fixture
def supervisor(deploy: Deploy) -> Iterator[_Supervisor]:
    with ExitStack() as stack:
        yield _Supervisor(deploy(1), stack)


def test_what_the_units_start_works_and_ends_at_their_signals(supervisor: _Supervisor) -> None:
    for unit in SERVICES:
        supervisor.start(unit)
    until(lambda: supervisor.answers(3000, "/server_info"), "the UI")
    until(lambda: supervisor.answers(8000, "/healthz"), "the panel")
    until(supervisor.daemon_lives, "the daemon")
    for unit in (DAEMON, WEBSERVER, PANEL, CODE):
        supervisor.stop(unit)


def test_the_workspace_asks_the_code_server_of_the_unit() -> None:
    (server,) = yaml.safe_load((DEPLOY / "production.yaml").read_text())["load_from"]
    where: Mapping[str, object] = server["grpc_server"]
    assert f"--host {where['host']} --port {where['port']}" in directives(CODE)["ExecStart"]
    assert where["location_name"] == "notif_assets"
