"""A fresh clone after `make install`: Dagster's own commands work in it, though no variable is set.

Belongs here: `dagster` and `dg` as a newcomer types them. Doesn't: the README's tour (cli/test_readme.py), the demo.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from notif_assets_tests.cli.deployment import ROOT, a_free_port, until

_TOOLS = Path(sys.executable).parent
_TRACKED = ("Makefile", "dagster.yaml", "workspace.yaml", "pyproject.toml", "README.md")
_RUNS = "{ runsOrError { ... on Runs { results { runId status } } } repositoriesOrError { __typename } }"


def _nothing_set() -> dict[str, str]:
    """This process's variables without those of the project and of whoever runs the tests."""
    ours = ("NOTIF_", "DAGSTER_", "MAKE", "MFLAGS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {"PATH": f"{_TOOLS}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `git clone` and `make install` leave, but for .venv, which is the one that runs the tests."""
    folder = tmp_path_factory.mktemp("a clone")  # with a blank in its name
    shutil.copytree(ROOT / "notif_assets", folder / "notif_assets", ignore=shutil.ignore_patterns("__pycache__"))
    for name in _TRACKED:
        shutil.copy(ROOT / name, folder / name)
    (folder / ".env").write_text("NOTIF_GRACE=2h\n")
    for _ in range(2):
        subprocess.run(["make", ".env"], cwd=folder, env=_nothing_set(), check=True)
    return folder


def _run(clone: Path, *command: str, **settings: str) -> str:
    environment = _nothing_set() | {"PYTHONPATH": str(clone)} | settings
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_install_names_dagsters_folders_once_and_keeps_what_is_set(clone: Path) -> None:
    assert (clone / ".env").read_text().count("DAGSTER_STORE=") == 1
    assert (clone / ".env").read_text().startswith("NOTIF_GRACE=2h\n")
    program = "from dotenv import dotenv_values; import json; print(json.dumps(dotenv_values('.env')))"
    assert json.loads(_run(clone, sys.executable, "-c", program)) == {
        "NOTIF_GRACE": "2h",
        "DAGSTER_HOME": str(clone),
        "DAGSTER_STORE": str(clone / "data" / "dagster"),
    }
    chosen = subprocess.run(
        [sys.executable, "-c", program], cwd=clone, env=_nothing_set() | {"DAGSTER_STORE": "/x"}, stdout=subprocess.PIPE
    )
    assert json.loads(chosen.stdout)["DAGSTER_STORE"] == "/x"


@pytest.fixture(scope="module")
def run_id(clone: Path) -> str:
    """Of an asset that the command line of Dagster materialized."""
    _run(clone, "dagster", "asset", "materialize", "-m", "notif_assets.definitions", "--select", "prices")
    (told,) = re.findall(r"Run: (\S+)", _run(clone, "dagster", "run", "list"))
    return str(told)


@pytest.mark.usefixtures("run_id")
def test_an_asset_is_materialized(clone: Path) -> None:
    assert (clone / "data" / "lake" / "prices" / "_delta_log").is_dir()
    # Our own command line keeps its runs in the same place: there is one storage.
    program = (
        "from notif_assets.instance.location import *; from notif_assets.settings import Settings; "
        "set_instance_environment(Settings()); print(store())"
    )
    assert _run(clone, sys.executable, "-c", program).strip() == str(clone / "data" / "dagster")


@pytest.mark.parametrize("command", ["dagster", "dg"])
def test_dev_serves_the_assets_and_shows_earlier_runs(clone: Path, run_id: str, command: str) -> None:
    port = a_free_port()
    with _going_on(clone, command, "dev", "--port", str(port), "--host", "127.0.0.1"):
        told = until(lambda: _asked(port), f"{command} dev answers", 180)["data"]
        assert {"runId": run_id, "status": "SUCCESS"} in told["runsOrError"]["results"]
        assert told["repositoriesOrError"]["__typename"] == "RepositoryConnection"
        assert not list(clone.glob(".tmp_dagster_home_*"))
        status = (sys.executable, "-m", "notif_assets", "status")
        ui = {"NOTIF_DAGSTER_URL": f"http://127.0.0.1:{port}", "NOTIF_KAFKA_TIMEOUT": "1"}
        until(lambda: "; the daemon lives (" in _run(clone, *status, **ui), "the daemon gives a sign of life", 60)
        assert f"the UI answers at http://127.0.0.1:{port}; " in _run(clone, *status, **ui)


@contextmanager
def _going_on(clone: Path, *command: str) -> Iterator[None]:
    with (clone / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=clone,
            env=_nothing_set() | {"PYTHONPATH": str(clone)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    except AssertionError:
        print((clone / "log").read_text())
        raise
    finally:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _asked(port: int) -> Mapping[str, Any] | None:
    question = json.dumps({"query": _RUNS}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", question, {"Content-Type": "application/json"})
    with suppress(OSError), urllib.request.urlopen(request, timeout=10) as answer:
        found: Mapping[str, Any] = json.load(answer)
        return found
    return None
