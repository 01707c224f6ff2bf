"""A real broker for every test of this room: the embedded one, started once.

Belongs here: the fixtures that kafka/apache replaces by its own. Doesn't: what a client promises (test_clients.py).
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Literal

import pytest

from notif_assets.sandbox.broker import EmbeddedBroker
from notif_assets.settings import Settings

ClientName = Literal["kafka-python", "confluent"]

_numbers = itertools.count()


@pytest.fixture(scope="session")
def broker() -> Iterator[EmbeddedBroker]:
    """One broker; each test makes its own topics."""
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture(params=["kafka-python", "confluent"])
def kafka_client(request: pytest.FixtureRequest) -> ClientName:
    """Each client in turn."""
    name: ClientName = request.param
    return name


@pytest.fixture
def fresh_topic(broker: EmbeddedBroker, kafka_client: ClientName) -> Callable[[int], Settings]:
    """Makes a topic of its own with that many partitions and gives the settings to read it."""

    def make(partitions: int) -> Settings:
        topic = f"topic-{next(_numbers)}"
        broker.create_topic(topic, partitions)
        return Settings(kafka_bootstrap=broker.bootstrap, topic=topic, kafka_client=kafka_client, kafka_timeout=10)

    return make
