"""A PostgreSQL of the tests' own: Debian's, in a folder of its own, on a free port.

Belongs here: starting it, ending it well or by kill -9, making databases in it. Doesn't: what is kept in it (the rooms'
tests). It refuses to run as root, so there it runs as the user `postgres` that Debian's package makes.
"""

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from notif_assets_tests.cli.deployment import a_free_port, until


def binaries() -> Path | None:
    """The folder of the newest PostgreSQL's programs; None if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def programs() -> Path:
    """As binaries; without them the test is skipped, but in CI."""
    found = binaries()
    if found is None and "CI" not in os.environ:
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    assert found is not None
    return found


class Server:
    """A PostgreSQL below `folder`, which must be one that other users may reach."""

    def __init__(self, folder: Path, programs: Path, **options: str) -> None:
        self.folder, self._programs = folder, programs
        self.port = a_free_port()
        self._options = {"fsync": "off", "full_page_writes": "off", "listen_addresses": "127.0.0.1"}
        self._options |= {"max_wal_size": "16MB", **options}
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count()
        folder.mkdir(exist_ok=True)
        folder.chmod(0o700)
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        initdb = ["--auth=trust", "--username=postgres", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"]
        initdb += ["--wal-segsize=1"]
        subprocess.run(
            self._command("initdb", *initdb, "--pgdata", str(folder / "data")), capture_output=True, check=True
        )

    def _command(self, program: str, *arguments: str) -> list[str]:
        as_user = ["--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
        dies_with_us = ["setpriv", "--pdeathsig", "INT", *as_user, "--"]
        return [*dies_with_us, str(self._programs / program), *arguments]

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        command = self._command(
            "postgres",
            *("-D", str(self.folder / "data"), "-p", str(self.port), "-k", str(self.folder)),
            *(part for name, value in self._options.items() for part in ("-c", f"{name}={value}")),
        )
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", start_new_session=True)
        until(self.answers, "PostgreSQL's start")

    @property
    def pid(self) -> int:
        """The first of its processes."""
        assert self._process is not None
        return self._process.pid

    def answers(self) -> bool:
        """Whether it takes connections."""
        with suppress(psycopg.OperationalError), psycopg.connect(self.url("postgres"), connect_timeout=2):
            return True
        return False

    def stop(self) -> None:
        """Ends it well, with its connections."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(60)
            self._process = None

    def kill(self) -> None:
        """Ends it and all its processes by kill -9."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(60)
            self._process = None

    def url(self, database: str, user: str = "postgres") -> str:
        """The address of a database of it."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Makes a database of a name that none has; gives its address."""
        return self.create_database(f"copy{next(self._numbers)}")

    def create_database(self, name: str, **options: str) -> str:
        """Makes a database; gives its address."""
        words = " ".join(f"{option} {value}" for option, value in options.items())
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"create database {name} {words}".encode())
        return self.url(name)


@contextmanager
def running(folder: Path, programs: Path, **options: str) -> Iterator[Server]:
    """A server that ends with the block, and leaves nothing."""
    server = Server(folder, programs, **options)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
        (folder.parent / f"{folder.name}.log").unlink(missing_ok=True)


@contextmanager
def a_server(**options: str) -> Iterator[Server]:
    """As running, in a folder of the system's: that of a test is not for other users."""
    with running(Path(tempfile.mkdtemp(prefix="notif-assets-postgres-")), programs(), **options) as server:
        yield server


def ask(url: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """The rows of a query, instants in UTC."""
    with psycopg.connect(url, options="-c timezone=UTC") as connection:
        return connection.execute(query.encode(), values or None).fetchall()
