"""A PostgreSQL server of a test's own: Debian's, on a free port of loopback, gone with the block.

Belongs here: finding, starting and ending the server. Doesn't: what is kept in it (the rooms' tests).
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from notif_assets_tests.cli.deployment import a_free_port, killed_at_the_end, until

_DEBIAN = Path("/usr/lib/postgresql")


@contextmanager
def postgres(tmp: Path) -> Iterator[str]:
    """A server with an empty database; gives its URL, `postgresql://…`. Its log is in `tmp`."""
    tools, port = _tools(), a_free_port()
    # Not in tmp: the server runs as another account than root, which may not look into the folders of pytest.
    data = Path(tempfile.mkdtemp(prefix="postgres-"))
    account = _account(data)
    try:
        initdb = f"{tools}/initdb -D {data}/data -U notif -A trust -E UTF8 --locale=C.UTF-8 --no-sync"
        subprocess.run(initdb.split(), check=True, capture_output=True, cwd=data, **account)
        command = f"{tools}/postgres -D {data}/data -p {port} -k {data} -c listen_addresses=127.0.0.1 -c fsync=off"
        with (
            (tmp / "postgres.log").open("ab") as log,
            subprocess.Popen(command.split(), cwd=data, stdout=log, stderr=log, **account) as server,
            killed_at_the_end(server),
        ):
            ready = f"{tools}/pg_isready -q -h 127.0.0.1 -p {port}".split()
            until(lambda: subprocess.run(ready, check=False).returncode == 0 or server.poll() is not None, "its start")
            assert server.poll() is None, (tmp / "postgres.log").read_text()
            yield f"postgresql://notif@127.0.0.1:{port}/postgres"
            server.send_signal(signal.SIGINT)  # at SIGTERM it would wait for whoever is still connected
            server.wait(30)
    finally:
        shutil.rmtree(data, ignore_errors=True)


def _tools() -> Path:
    """The folder of the newest server's programs."""
    found = sorted(_DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found and "CI" not in os.environ:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    assert found
    return found[-1].parent


def _account(data: Path) -> dict[str, Any]:
    """Whose process the server is: it refuses root."""
    if os.getuid() != 0:
        return {}
    shutil.chown(data, "postgres", "postgres")
    return {"user": "postgres", "group": "postgres", "extra_groups": []}
