"""A PostgreSQL for the tests of this room, and a database for each of them.

Belongs here: the fixtures of this room. Doesn't: the server itself (server.py).
"""

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from notif_assets_tests.serving.server import Server, binaries, running

_numbers = itertools.count()

NewServer = Callable[[], Server]


@pytest.fixture(scope="session")
def programs() -> Path:
    """Where PostgreSQL's programs are; without them the tests are skipped, but in CI."""
    found = binaries()
    if found is None and "CI" not in os.environ:
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    assert found is not None
    return found


@pytest.fixture(scope="session")
def server(programs: Path) -> Iterator[Server]:
    """One server for all that leave it running."""
    with running(Path(tempfile.mkdtemp(prefix="notif-assets-postgres-")), programs) as server:
        yield server


@pytest.fixture
def own_server(programs: Path) -> Iterator[Server]:
    """A server that a test may end."""
    with running(Path(tempfile.mkdtemp(prefix="notif-assets-postgres-")), programs) as server:
        yield server


@pytest.fixture
def database(server: Server) -> str:
    """The address of an empty database."""
    return server.create_database(f"copy{next(_numbers)}")
