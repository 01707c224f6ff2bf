"""A PostgreSQL for the tests of this room, and a database for each of them.

Belongs here: the fixtures of this room. Doesn't: the server itself (notif_assets_tests/postgres.py).
"""

from collections.abc import Iterator

import pytest

from notif_assets_tests.postgres import Server, a_server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server for all that leave it running."""
    with a_server() as server:
        yield server


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server that a test may end."""
    with a_server() as server:
        yield server


@pytest.fixture
def database(server: Server) -> str:
    """The address of an empty database."""
    return server.new_database()
