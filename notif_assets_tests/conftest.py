"""Fixtures that every test may use."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from notif_assets.kafka.broker import EmbeddedBroker
from notif_assets.lake import Lake
from notif_assets_tests.cli.deployment import Deployment

_numbers = itertools.count()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The rounds of the tests that kill processes."""
    parser.addoption(
        "--soak", type=int, default=0, metavar="N", help="kill `ingest` N times, and `close-day` N // 2 times"
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake."""
    return Lake(tmp_path / "lake")


@pytest.fixture(scope="session")
def broker() -> Iterator[EmbeddedBroker]:
    """One broker for all; each test makes its own topics."""
    with EmbeddedBroker() as broker:
        yield broker


Deploy = Callable[..., Deployment]


@pytest.fixture(scope="session")
def deploy(broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> Deploy:
    """Makes a deployment of its own, with a topic of that many partitions; the other arguments are settings."""

    def make(partitions: int = 4, **settings: str) -> Deployment:
        topic = f"deployed-{next(_numbers)}"
        broker.create_topic(topic, partitions)
        return Deployment(tmp_path_factory.mktemp(topic), broker.bootstrap, topic, partitions, settings)

    return make
