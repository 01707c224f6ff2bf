"""Commands that cost what they do, though hundreds are run, each with imports and a storage of Dagster's to begin with.

Belongs here: forking a process from one that has imported what the commands import (it can be killed, signalled and
raced like any other); what libraries would prepare anew for each command. Doesn't: which command, in which deployment
(deployment.py).
"""

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import sqlalchemy
from alembic.script import ScriptDirectory
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage

from notif_assets.instance.processes import IMPORTS_OF_A_RUN

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["notif_assets.cli", "notif_assets_tests.cli.warm", *IMPORTS_OF_A_RUN])


def _prepare_storages_once(*storages: ModuleType) -> None:
    """Keeps a database's engine, and with it the statements compiled for it, and the scripts of Alembic's migrations.

    Dagster makes an engine for each statement and reads the scripts for each run: a third of a short command's work.
    """
    engines: dict[str, sqlalchemy.Engine] = {}

    def create_engine(address: str, **options: Any) -> sqlalchemy.Engine:
        if address not in engines:
            engines[address] = sqlalchemy.create_engine(address, **options)
        return engines[address]

    for storage in storages:
        storage.create_engine = create_engine  # type: ignore[attr-defined]
    ScriptDirectory.from_config = cache(ScriptDirectory.from_config)  # type: ignore[method-assign]


_prepare_storages_once(sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage)


class Command:
    """`notif-assets` with these arguments, going on; what it prints goes to files. The methods are those of Popen."""

    def __init__(
        self, arguments: Sequence[str], cwd: Path, environment: Mapping[str, str], out: Path, err: Path
    ) -> None:
        self._out, self._err = out, err
        self._process = _FORKS.Process(
            target=_run, args=(list(arguments), cwd, dict(environment), out, err), daemon=True
        )
        self._process.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, -9 after kill -9; None while it goes on."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """As returncode."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it ended. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("notif-assets", timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends it a signal, if it still goes on."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9."""
        self.send_signal(signal.SIGKILL)

    def printed(self) -> str:
        """Standard output and standard error so far."""
        return "".join(path.read_text() for path in (self._out, self._err) if path.exists())

    def communicate(self, timeout: float | None = None) -> tuple[bytes, bytes]:
        """Standard output and standard error, once it ended. Raises subprocess.TimeoutExpired."""
        self.wait(timeout)
        return self._out.read_bytes(), self._err.read_bytes()


def _run(arguments: list[str], cwd: Path, environment: dict[str, str], out: Path, err: Path) -> None:
    """The command, from the state that a new process has to the exit code."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for stream, opened in (
        (sys.stdin, os.open(os.devnull, os.O_RDONLY)),
        (sys.stdout, os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)),
        (sys.stderr, os.open(err, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)),
    ):
        os.dup2(opened, stream.fileno())
        os.close(opened)
    code: object = 1
    try:
        from notif_assets.cli import main

        main(arguments, prog_name="notif-assets")
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)
