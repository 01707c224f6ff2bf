"""Fixtures that every test may use.

Belongs here: a lake, the broker, a deployment, the daemon; the order in which files are dealt to workers. Doesn't: what
only one room needs (the conftest.py of that room).
"""

import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import pyarrow as pa
import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from notif_assets.lake import Lake
from notif_assets.sandbox.broker import EmbeddedBroker
from notif_assets_tests.cli.deployment import ROOT, Deployment
from notif_assets_tests.instance.daemon import Daemon

_numbers = itertools.count()

# No number may depend on where a process runs: not in UTC, and not at whole hours from it.
os.environ["TZ"] = "Asia/Kathmandu"
time.tzset()

# How long an example takes says more of what else runs on the machine.
settings.register_profile("any speed", deadline=None)
settings.load_profile("any speed")

# Files are dealt to the workers in this order: one that takes minutes must not be the last one begun.
_LONGEST = (
    "test_conductor.py",
    "test_conductor_on_postgres.py",
    "test_killed_anything.py",
    "test_living.py",
    "test_demo.py",
    "test_pages.py",
    "test_full_disk.py",
    "test_contract.py",
    "test_late.py",
    "test_fuzz.py",
    "test_races.py",
    "test_bill.py",
    "test_damage.py",
    "test_books.py",
    "test_history.py",
    "test_clock.py",
    "test_killed_ingest.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The rounds of the tests that kill processes."""
    parser.addoption(
        "--soak",
        type=int,
        default=0,
        metavar="N",
        help="kill what runs N times, `ingest` alone N times, and `close-day` alone N // 2 times",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first."""
    rank = {name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


class _WithTheirFixtures(LoadScopeScheduling):  # type: ignore[misc]
    """A file, and a room whose tests share something costly, is for one worker: it is made once."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, _ = nodeid.partition("::")
        room, _, _ = file.rpartition("/")
        return room if room.endswith(("/panel", "/apache")) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """How the tests are dealt to the workers."""
    return _WithTheirFixtures(config, log)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake."""
    return Lake(tmp_path / "lake")


class Asked(NamedTuple):
    """A question to a lake: the SQL file, its inputs, and the answer."""

    name: str
    inputs: Mapping[str, Any]
    answer: pa.Table


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """Every question to any lake of this process from here on."""
    questions: list[Asked] = []
    select = Lake.select

    def noting(lake: Lake, name: str, inputs: Mapping[str, Any], **parameters: Any) -> pa.Table:
        answer = select(lake, name, inputs, **parameters)
        questions.append(Asked(name, inputs, answer))
        return answer

    monkeypatch.setattr(Lake, "select", noting)
    return questions


@pytest.fixture(scope="session")
def broker() -> Iterator[EmbeddedBroker]:
    """One broker for all; each test makes its own topics."""
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new storage of Dagster's, as the repository's dagster.yaml has it, to be copied: a new one would cost more than
    most tests."""
    store = tmp_path_factory.mktemp("storage")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(ROOT))
        patch.setenv("DAGSTER_STORE", str(store))
        with dg.DagsterInstance.get() as instance:
            assert instance.get_runs_count() == 0
    return store


Deploy = Callable[..., Deployment]


@pytest.fixture(scope="session")
def deploy(broker: EmbeddedBroker, storage: Path, tmp_path_factory: pytest.TempPathFactory) -> Deploy:
    """Makes a deployment of its own, with a topic of that many partitions; the other arguments are settings.

    Dagster's storage is there already, unless the deployment is to be `untouched`.
    """

    def make(partitions: int = 4, *, untouched: bool = False, **settings: str) -> Deployment:
        topic = f"deployed-{next(_numbers)}"
        broker.create_topic(topic, partitions)
        home = tmp_path_factory.mktemp(topic)
        if not untouched:
            shutil.copytree(storage, home / "dagster")
        return Deployment(home, broker.bootstrap, topic, partitions, settings)

    return make


MakeDaemon = Callable[..., Daemon]


@pytest.fixture
def make_daemon(storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeDaemon:
    """Makes a daemon with a lake and a storage of their own; the arguments are settings."""
    return lambda **options: Daemon(tmp_path, monkeypatch, storage, **options)


@pytest.fixture
def daemon(make_daemon: MakeDaemon) -> Daemon:
    """A daemon with the default settings."""
    return make_daemon()
