"""One Apache Kafka for every test of this room, which one worker runs; each test makes its own topics.

Belongs here: the fixtures of this room. Doesn't: the broker (broker.py).
"""

import itertools
import os
from collections.abc import Callable, Iterator

import pytest

from notif_assets.settings import Settings
from notif_assets_tests.cli.deployment import Deployment
from notif_assets_tests.kafka.apache.broker import ApacheKafka, tools_missing
from notif_assets_tests.kafka.conftest import ClientName

_numbers = itertools.count()


@pytest.fixture(scope="session")
def apache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    """The broker, with every kind of listener."""
    missing = tools_missing()
    if missing and "CI" not in os.environ:
        pytest.skip(missing)
    with ApacheKafka(tmp_path_factory.mktemp("apache-kafka"), secure=True) as apache:
        apache.start()
        yield apache


MakeTopic = Callable[..., str]


@pytest.fixture
def make_topic(apache: ApacheKafka) -> MakeTopic:
    """Makes a topic with that many partitions and its own configuration, and gives its name."""

    def make(partitions: int, **config: str) -> str:
        topic = f"topic-{next(_numbers)}"
        apache.create_topic(topic, partitions, **config)
        return topic

    return make


@pytest.fixture
def fresh_topic(apache: ApacheKafka, make_topic: MakeTopic, kafka_client: ClientName) -> Callable[[int], Settings]:
    """As on the embedded broker: makes a topic and gives the settings to read it."""

    def make(partitions: int) -> Settings:
        topic = make_topic(partitions)
        return Settings(kafka_bootstrap=apache.bootstrap, topic=topic, kafka_client=kafka_client, kafka_timeout=10)

    return make


DeployOn = Callable[..., Deployment]


@pytest.fixture
def deploy_on(apache: ApacheKafka, tmp_path_factory: pytest.TempPathFactory) -> DeployOn:
    """Makes a deployment on a topic with that many partitions; the other arguments are settings."""

    def make(topic: str, partitions: int, **settings: str) -> Deployment:
        return Deployment(tmp_path_factory.mktemp(topic), apache.bootstrap, topic, partitions, settings)

    return make
