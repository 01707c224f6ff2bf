"""`broker` and `produce`, as processes: what they print, how they end."""

import re
import select
import signal
import socket
import time

import pytest

from notif_assets.kafka.open import open_client
from notif_assets.settings import Settings
from notif_assets_tests.cli.deployment import Deployment, ended, killed_at_the_end, ok, refusal
from notif_assets_tests.conftest import Deploy


@pytest.fixture(scope="module")
def deployment(deploy: Deploy) -> Deployment:
    return deploy(3)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_broker_serves_until_a_signal_and_frees_its_port(deployment: Deployment, number: signal.Signals) -> None:
    port = free_port()
    command = ("broker", "--port", port, "--topic", "t", "--partitions", 2)
    with killed_at_the_end(deployment.start_python(*command)) as process:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 60)[0], "the broker says nothing"
        assert process.stdout.readline() == b"broker at 127.0.0.1:%d, topic t, 2 partitions; Ctrl-C ends it\n" % port
        with open_client(Settings(kafka_bootstrap=f"127.0.0.1:{port}", topic="t")) as client:
            assert set(client.offsets().partitions) == {0, 1}
        with socket.create_connection(("127.0.0.1", port)):  # somebody who has not said anything yet
            process.send_signal(number)
            answer = ended(process)
    assert (answer.code, answer.err) == (0, "")
    socket.create_server(("127.0.0.1", port)).close()


def test_a_busy_port_is_named(deployment: Deployment) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        answer = deployment.run("broker", "--port", port)
    assert f"port {port} is taken" in refusal(answer)
    assert answer.code == 1


def test_produce_says_what_arrived(deployment: Deployment) -> None:
    began = time.monotonic()
    said = ok(deployment.run("produce", "--rate", 2000, "--seconds", 1, "--customers", 50, "--seed", 4)).text
    assert time.monotonic() - began < 60
    numbers = re.fullmatch(r"produced (\d+): (\d+) to accept, (\d+) duplicates, (\d+) broken\n", said)
    assert numbers
    produced, accepted, duplicates, broken = map(int, numbers.groups())
    assert produced == 2000 == accepted + duplicates + broken
    with open_client(Settings(kafka_bootstrap=deployment.bootstrap, topic=deployment.topic)) as client:
        assert sum(bounds.end for bounds in client.offsets().partitions.values()) == produced
