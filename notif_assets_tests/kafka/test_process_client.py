"""The client in a process of its own gives what the client gives, its errors too, and leaves no process behind."""

import os
import pickle
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import SecretStr

from notif_assets.kafka.client import SCHEMA, KafkaError, OffsetsDeleted, RangeBeyondEnd, ReadStalled, TopicMissing
from notif_assets.kafka.open import open_client
from notif_assets.kafka.process_client import ProcessClient, ProcessEnded
from notif_assets.settings import Settings
from notif_assets_tests.cli.deployment import until
from notif_assets_tests.kafka.test_clients import numbered, positions, send

FreshTopic = Callable[[int], Settings]


def children() -> set[int]:
    """The processes that this one started and that still run."""
    told = subprocess.run(["ps", "-ww", "--ppid", str(os.getpid()), "-o", "pid=,args="], capture_output=True, text=True)
    return {int(line.split()[0]) for line in told.stdout.splitlines() if "process_client" in line}


def test_gives_what_the_client_gives(fresh_topic: FreshTopic) -> None:
    settings = fresh_topic(3)
    for partition in range(3):
        send(settings, *numbered(partition, 2_000))
    send(settings, {"partition": 0, "key": b"key"}, {"partition": 0, "value": b"", "timestamp": 1_000})
    some, more = {0: (0, 1_500), 2: (7, 7)}, {0: (1_500, 2_002), 1: (0, 2_000)}
    with ProcessClient(settings) as there, open_client(settings) as here:
        assert there.offsets() == here.offsets()
        assert there.first_records(some) == here.first_records(some)
        for ranges in (some, more, {}):
            read = pa.Table.from_batches(there.read(ranges), SCHEMA)
            by_place = [("kafka_partition", "ascending"), ("kafka_offset", "ascending")]
            assert read.sort_by(by_place) == pa.Table.from_batches(here.read(ranges), SCHEMA).sort_by(by_place)
    assert not children()


def test_a_read_that_is_abandoned_costs_the_next_one_nothing(fresh_topic: FreshTopic) -> None:
    settings = fresh_topic(1)
    send(settings, *[{"partition": 0, "value": b"x" * 2_000} for _ in range(9_000)])  # more than one batch
    with ProcessClient(settings) as client:
        assert next(client.read({0: (0, 9_000)})).num_rows < 9_000
        assert client.offsets().partitions[0].end == 9_000
        assert positions(pa.Table.from_batches(client.read({0: (3, 9)}), SCHEMA)) == {0: [*range(3, 9)]}
        assert len(children()) == 1
    assert not children()


def test_errors_arrive_as_they_were(fresh_topic: FreshTopic) -> None:
    settings = fresh_topic(1)
    with ProcessClient(settings) as client:
        with pytest.raises(RangeBeyondEnd) as beyond:
            list(client.read({0: (0, 5)}))
        assert (beyond.value.partition, beyond.value.end, beyond.value.log_end) == (0, 5, 0)
        with pytest.raises(ValueError, match="not a range of offsets"):
            list(client.read({0: (5, 2)}))
        send(settings, *numbered(0, 5))
        assert len(pa.Table.from_batches(client.read({0: (0, 5)}), SCHEMA)) == 5
    with ProcessClient(settings.model_copy(update={"topic": "no-such"})) as client, pytest.raises(TopicMissing):
        client.offsets()


def test_every_error_can_be_pickled() -> None:
    for error in (OffsetsDeleted(3, 5, 9), ReadStalled(2.5, {1: (3, 9)}), TopicMissing("a", "b"), KafkaError("words")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_what_the_client_refuses_to_open_with_is_told(fresh_topic: FreshTopic) -> None:
    settings = fresh_topic(1).model_copy(update={"kafka_properties": {"no.such.property": SecretStr("x")}})
    with pytest.raises(KafkaError, match=r"no\.such\.property") as here, open_client(settings):
        pass
    with pytest.raises(type(here.value)) as there, ProcessClient(settings):
        pass
    assert str(there.value) == str(here.value)
    assert not children()


def test_a_process_that_is_killed_is_an_error_and_the_next_question_starts_another(fresh_topic: FreshTopic) -> None:
    settings = fresh_topic(1)
    send(settings, *[{"partition": 0, "value": b"x" * 2_000} for _ in range(30_000)])
    with ProcessClient(settings) as client:
        batches = client.read({0: (0, 30_000)})
        next(batches)
        (process,) = children()
        os.kill(process, signal.SIGKILL)
        with pytest.raises(ProcessEnded, match="exit -9"):
            list(batches)
        assert client.offsets().partitions[0].end == 30_000
    assert not children()


def test_the_process_does_not_outlive_who_started_it(fresh_topic: FreshTopic) -> None:
    settings = fresh_topic(1)
    send(settings, *[{"partition": 0, "value": b"x" * 2_000} for _ in range(30_000)])
    code = """
        import pickle, sys
        from notif_assets.kafka.process_client import ProcessClient
        with ProcessClient(pickle.load(sys.stdin.buffer)) as client:
            batches = client.read({0: (0, 30_000)})
            next(batches)
            print(client._process.pid, flush=True)
            input()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(pickle.dumps(settings))
        process.stdin.flush()
        reader = int(process.stdout.readline())
        process.kill()
    until(lambda: not Path(f"/proc/{reader}").exists(), "the end of the process that read")
