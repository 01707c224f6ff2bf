"""The embedded broker starts where it is told and leaves nothing behind."""

import os
import signal
import socket
import threading
from typing import get_args

import pytest

from notif_assets.kafka.open import open_client
from notif_assets.sandbox.broker import BrokerNotStarted, EmbeddedBroker, serve
from notif_assets.settings import Settings
from notif_assets_tests.kafka.conftest import ClientName


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(BrokerNotStarted, match=f"port {port} is taken"):
            EmbeddedBroker(port)


def test_closing_frees_port_and_threads(kafka_client: ClientName) -> None:
    before = set(threading.enumerate())
    port = 0
    for _ in range(2):  # the second on the port of the first
        with EmbeddedBroker(port, "t", 2) as broker:
            port = int(broker.bootstrap.rsplit(":")[-1])
            settings = Settings(kafka_bootstrap=broker.bootstrap, topic="t", kafka_client=kafka_client)
            with open_client(settings) as client:
                assert set(client.offsets().partitions) == {0, 1}
        broker.close()
    assert set(threading.enumerate()) <= before
    socket.create_server(("127.0.0.1", port)).close()


def test_each_start_is_another_topic_for_both_clients() -> None:
    port, seen = 0, set()
    for _ in range(5):
        with EmbeddedBroker(port, "t", 1) as broker:
            port = int(broker.bootstrap.rsplit(":")[-1])
            ids = set()
            for name in get_args(ClientName):
                with open_client(Settings(kafka_bootstrap=broker.bootstrap, topic="t", kafka_client=name)) as client:
                    ids |= {client.offsets().topic_id, client.offsets().topic_id}
        assert len(ids) == 1
        assert None not in ids
        seen |= ids
    assert len(seen) == 5


def test_a_refused_topic_is_an_error(broker: EmbeddedBroker) -> None:
    broker.create_topic("twice", 1)
    with pytest.raises(BrokerNotStarted, match="twice"):
        broker.create_topic("twice", 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serves_until_a_signal(number: signal.Signals) -> None:
    served: list[EmbeddedBroker] = []

    def started(broker: EmbeddedBroker) -> None:
        served.append(broker)
        os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    serve(0, "t", 1, started)
    assert signal.getsignal(number) is handler
    port = int(served[0].bootstrap.rsplit(":")[-1])
    socket.create_server(("127.0.0.1", port)).close()
