"""What a KafkaClient promises, held against both, on a broker."""

import ctypes
import os
import random
import re
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from confluent_kafka import Producer

from notif_assets.kafka import client as client_module
from notif_assets.kafka import confluent_client, python_client
from notif_assets.kafka.client import (
    MAX_ROWS,
    SCHEMA,
    KafkaUnavailable,
    NoLeader,
    OffsetsDeleted,
    PropertyRefused,
    RangeBeyondEnd,
    Ranges,
    RecordMark,
    TopicMissing,
    TopicOffsets,
    digest,
)
from notif_assets.kafka.offsets import Log
from notif_assets.kafka.open import open_client
from notif_assets.sandbox.broker import EmbeddedBroker
from notif_assets.settings import Settings
from notif_assets_tests.cli.deployment import IN_ORDER
from notif_assets_tests.kafka.conftest import ClientName

FreshTopic = Callable[[int], Settings]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def send(settings: Settings, *messages: dict[str, Any]) -> None:
    """Sends in order; keyword arguments of Producer.produce."""
    options = {"bootstrap.servers": settings.kafka_bootstrap, "compression.type": "lz4", "linger.ms": 5}
    producer = Producer({**options, **IN_ORDER})
    for message in messages:
        producer.produce(settings.topic, **message)
    assert producer.flush(10) == 0


def numbered(partition: int, count: int) -> list[dict[str, Any]]:
    return [{"partition": partition, "value": b"%d:%d" % (partition, n)} for n in range(count)]


def read(settings: Settings, ranges: Ranges) -> pa.Table:
    with open_client(settings) as client:
        return pa.Table.from_batches(client.read(ranges), SCHEMA)


def positions(rows: pa.Table) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for row in rows.select(["kafka_partition", "kafka_offset"]).to_pylist():
        found.setdefault(row["kafka_partition"], []).append(row["kafka_offset"])
    return found


def test_offsets_before_and_after_producing(fresh_topic: FreshTopic) -> None:
    settings = fresh_topic(3)
    with open_client(settings) as client:
        assert client.offsets().partitions == {p: Log(0, 0) for p in range(3)}
        send(settings, *numbered(0, 5), *numbered(2, 1))
        assert client.offsets().topic == settings.topic
        assert client.offsets().partitions == {0: Log(0, 5), 1: Log(0, 0), 2: Log(0, 1)}


def test_reads_exactly_the_ranges_in_order(fresh_topic: FreshTopic) -> None:
    settings = fresh_topic(4)
    for partition in range(4):
        send(settings, *numbered(partition, 3000))
    rows = read(settings, {0: (0, 3000), 1: (10, 11), 2: (500, 2999), 3: (7, 7)})
    assert rows.schema == SCHEMA
    assert positions(rows) == {0: [*range(3000)], 1: [10], 2: [*range(500, 2999)]}
    for row in rows.to_pylist():
        assert row["value"] == b"%d:%d" % (row["kafka_partition"], row["kafka_offset"])


def test_one_client_reads_again_and_further(fresh_topic: FreshTopic) -> None:
    settings = fresh_topic(2)
    send(settings, *numbered(0, 100), *numbered(1, 100))
    with open_client(settings) as client:
        for ranges in ({0: (0, 60), 1: (0, 10)}, {0: (60, 100)}, {0: (0, 1), 1: (99, 100)}):
            got = positions(pa.Table.from_batches(client.read(ranges), SCHEMA))
            assert got == {partition: [*range(*ends)] for partition, ends in ranges.items()}


@pytest.mark.parametrize("ahead", [0, 2_000, 2**23])
def test_whatever_is_read_after_what_each_range_is_whole(
    fresh_topic: FreshTopic, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    """Ranges that go on, that leave partitions out, that jump, and reads that are abandoned, on one client."""
    monkeypatch.setattr(confluent_client, "_AHEAD_BYTES", ahead)
    settings, chance = fresh_topic(3), random.Random(ahead)
    for partition in range(3):
        send(settings, *numbered(partition, 2_000))
    with open_client(settings) as client:
        at = [0, 0, 0]
        for _ in range(25):
            if chance.random() < 0.2:
                at[chance.randrange(3)] = chance.randrange(2_000)
            ranges = {p: (at[p], min(2_000, at[p] + chance.choice([0, 1, 50, 300]))) for p in range(3)}
            if chance.random() < 0.2:
                next(client.read(ranges), None)
                continue
            rows = pa.Table.from_batches(client.read(ranges), SCHEMA)
            assert positions(rows) == {p: [*range(start, end)] for p, (start, end) in ranges.items() if start < end}
            for row in rows.to_pylist():
                assert row["value"] == b"%d:%d" % (row["kafka_partition"], row["kafka_offset"])
            at = [ranges[p][1] for p in range(3)]


def test_ranges_that_follow_each_other_are_assigned_once(
    fresh_topic: FreshTopic, kafka_client: ClientName, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kafka_client != "confluent":
        return  # kafka-python's consumers can't be trusted with a second read
    settings = fresh_topic(3)
    for partition in range(3):
        send(settings, *numbered(partition, 300))
    assigned: list[object] = []
    assign = confluent_client._Stream._assign

    def noting(stream: Any, starts: Any) -> None:
        assigned.append(starts)
        assign(stream, starts)

    monkeypatch.setattr(confluent_client._Stream, "_assign", noting)
    with open_client(settings) as client:
        for start in range(0, 300, 100):
            assert sum(batch.num_rows for batch in client.read(dict.fromkeys(range(3), (start, start + 100)))) == 300
    assert assigned == [{0: 0, 1: 0, 2: 0}]


def test_an_abandoned_read_harms_nobody(fresh_topic: FreshTopic) -> None:
    settings = fresh_topic(1)
    send(settings, *numbered(0, 5000))
    with open_client(settings) as client:
        first = next(client.read({0: (0, 5000)}))
        assert first.num_rows <= MAX_ROWS
        assert positions(pa.Table.from_batches(client.read({0: (40, 50)}), SCHEMA)) == {0: [*range(40, 50)]}


def test_empty_ranges_read_nothing(fresh_topic: FreshTopic) -> None:
    settings = fresh_topic(2)
    assert read(settings, {}).num_rows == 0
    assert read(settings, {0: (0, 0), 1: (0, 0)}).num_rows == 0


def test_keys_values_and_timestamps_as_sent_headers_ignored(fresh_topic: FreshTopic) -> None:
    settings = fresh_topic(1)
    send(
        settings,
        {"partition": 0, "key": b"k\xff", "value": b"v\x00", "timestamp": 1580738401001},
        {"partition": 0, "key": None, "value": b"", "timestamp": 1, "headers": {"h": b"1"}},
        {"partition": 0, "key": b"", "value": None, "timestamp": 1580738401002},
    )
    assert read(settings, {0: (0, 3)}).drop_columns(["kafka_partition", "kafka_offset"]).to_pylist() == [
        {"kafka_timestamp": EPOCH + timedelta(milliseconds=1580738401001), "key": b"k\xff", "value": b"v\x00"},
        {"kafka_timestamp": EPOCH + timedelta(milliseconds=1), "key": None, "value": b""},
        {"kafka_timestamp": EPOCH + timedelta(milliseconds=1580738401002), "key": b"", "value": None},
    ]


def test_a_timestamp_no_clock_shows_is_null(fresh_topic: FreshTopic) -> None:
    settings = fresh_topic(1)
    send(settings, {"partition": 0, "value": b"", "timestamp": 2**62})
    assert read(settings, {0: (0, 1)})["kafka_timestamp"].to_pylist() == [None]


def test_batches_keep_their_bounds_whatever_sizes_follow_each_other(
    fresh_topic: FreshTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, most = 10_000, 50
    for module in (client_module, confluent_client, python_client):
        monkeypatch.setattr(module, "MAX_BYTES", room)
        monkeypatch.setattr(module, "MAX_ROWS", most)
    settings = fresh_topic(2)
    sizes = [3] * 400 + [4_000] * 30 + [room, room + 1, 0, 200_000, 1] + [9_999, 1] * 5 + [0] * 120
    values = [bytes(size) for size in sizes]
    send(settings, *({"partition": p, "key": b"k", "value": value} for p in (0, 1) for value in values))
    with open_client(settings) as client:
        batches = list(client.read({p: (0, len(sizes)) for p in (0, 1)}))
    for batch in batches:
        held = pc.sum(pc.add(pc.binary_length(batch["value"]), pc.binary_length(batch["key"]))).as_py()
        assert batch.num_rows <= most
        assert held <= room or batch.num_rows == 1
    assert len(batches) < len(sizes)  # no more of them than needed, or nearly
    rows = pa.Table.from_batches(batches)
    assert positions(rows) == {p: [*range(len(sizes))] for p in (0, 1)}
    for partition in (0, 1):
        found = rows.filter(pc.equal(rows["kafka_partition"], partition))["value"]
        assert pc.binary_length(found).to_pylist() == sizes


def test_offsets_that_kafka_deleted_are_an_error(fresh_topic: FreshTopic) -> None:
    settings = fresh_topic(1)
    for _ in range(10):  # past the broker's 5 MiB, which it drops batch by batch
        send(settings, {"partition": 0, "value": os.urandom(900_000)})
    with open_client(settings) as client:
        bounds = client.offsets().partitions[0]
        assert bounds.start > 0
        with pytest.raises(OffsetsDeleted, match=f"deleted offsets 0 to {bounds.start - 1} of partition 0"):
            next(client.read({0: (0, bounds.end)}))
        kept = client.read({0: (bounds.start, bounds.end)})
        assert sum(batch.num_rows for batch in kept) == bounds.end - bounds.start


def test_offsets_that_kafka_deletes_after_the_look_are_an_error(
    fresh_topic: FreshTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = fresh_topic(1)
    large = {"partition": 0, "value": os.urandom(900_000)}
    send(settings, large)
    with open_client(settings) as client:
        looks, look = [client.offsets()], client.offsets
        for _ in range(10):
            send(settings, large)
        monkeypatch.setattr(client, "offsets", lambda: looks.pop() if looks else look())
        with pytest.raises(OffsetsDeleted, match="deleted offsets 0 to"):
            list(client.read({0: (0, 1)}))


@pytest.mark.parametrize("ranges", [{0: (0, 6)}, {0: (0, 5), 7: (0, 1)}])
def test_a_range_beyond_the_end_is_an_error(fresh_topic: FreshTopic, ranges: Ranges) -> None:
    settings = fresh_topic(1)
    send(settings, *numbered(0, 5))
    with pytest.raises(RangeBeyondEnd, match="another cluster"):
        read(settings, ranges)


def test_a_missing_topic_is_an_error_and_stays_missing(fresh_topic: FreshTopic) -> None:
    settings = fresh_topic(1).model_copy(update={"topic": "nobody-made-it"})
    for _ in range(2):
        with open_client(settings) as client, pytest.raises(TopicMissing, match="NOTIF_TOPIC"):
            client.offsets()
    with pytest.raises(TopicMissing):
        read(settings, {0: (0, 1)})


def test_a_broker_that_is_down_fails_in_time_with_one_line(
    kafka_client: ClientName, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    settings = Settings(kafka_bootstrap=f"127.0.0.1:{port}", kafka_client=kafka_client, kafka_timeout=1)
    began = time.monotonic()
    with open_client(settings) as client, pytest.raises(KafkaUnavailable) as caught:
        client.offsets()
    assert time.monotonic() - began < 60
    assert f"no Kafka broker answers at 127.0.0.1:{port}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_broker_that_dies_while_reading_fails_in_time(kafka_client: ClientName) -> None:
    with EmbeddedBroker(topic="t", partitions=1) as broker:
        settings = Settings(kafka_bootstrap=broker.bootstrap, topic="t", kafka_client=kafka_client, kafka_timeout=2)
        send(settings, *({"partition": 0, "value": bytes(1000)} for _ in range(4000)))
        with open_client(settings) as client:
            offsets = client.offsets()
            broker.close()
            with pytest.raises(KafkaUnavailable):
                list(client.read({0: (0, offsets.partitions[0].end)}))


@pytest.mark.parametrize(
    ("name", "value"), [("no.such.thing", "secret"), ("group.id", "secret"), ("security.protocol", "secret")]
)
def test_a_refused_property_is_named_without_its_value(kafka_client: ClientName, name: str, value: str) -> None:
    settings = Settings(kafka_client=kafka_client, kafka_properties={name: value}, kafka_timeout=1)
    with pytest.raises(PropertyRefused, match=name) as caught, open_client(settings) as client:
        client.offsets()
    assert value not in str(caught.value)


@pytest.fixture
def what_is_set(fresh_topic: FreshTopic, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names, with dots, of what the client gives to its library's consumers, beside what depends on the user."""
    names: set[str] = set()
    handle = confluent_client.new_handle

    def new_handle(kind: type, config: dict[str, Any]) -> Any:
        names.update(config)
        return handle(kind, config)

    connected = python_client.PythonClient._connected

    def _connected(self: Any, kind: Any, **config: Any) -> Any:
        names.update(name.replace("_", ".") for name in (*config, "bootstrap_servers", "kafka_client"))
        return connected(self, kind, **config)

    monkeypatch.setattr(confluent_client, "new_handle", new_handle)
    monkeypatch.setattr(python_client.PythonClient, "_connected", _connected)
    settings = fresh_topic(1)
    send(settings, *numbered(0, 3))
    with open_client(settings) as client:
        assert sum(batch.num_rows for batch in client.read({0: (0, 3)})) == 3
        assert len(client.first_records({0: (1, 3)})[0]) == 2
    return names


def test_what_the_project_sets_is_refused_alike_by_both(what_is_set: set[str]) -> None:
    assert len(what_is_set) > 8
    for name in sorted(what_is_set):
        for spelled in (name, name.replace(".", "_")):
            said = set()
            for client in get_args(ClientName):
                settings = Settings(kafka_client=client, kafka_properties={spelled: "secret"})
                with pytest.raises(PropertyRefused, match=re.escape(repr(spelled))) as caught:
                    open_client(settings)
                said.add(str(caught.value))
            assert len(said) == 1
            assert "secret" not in said.pop()


def test_the_first_two_records_of_each_range_and_little_behind_them(fresh_topic: FreshTopic) -> None:
    settings = fresh_topic(3)
    stamp = 1580738401001
    send(settings, *({"partition": 0, "key": b"k", "value": b"%d" % n, "timestamp": stamp + n} for n in range(2000)))
    send(settings, {"partition": 1, "value": None, "timestamp": stamp})
    with open_client(settings) as client:
        for _ in range(2):
            found = client.first_records({0: (1998, 2000), 1: (0, 1), 2: (0, 0)})
            assert found == {
                0: [
                    RecordMark(n, EPOCH + timedelta(milliseconds=stamp + n), digest(b"k", b"%d" % n))
                    for n in (1998, 1999)
                ],
                1: [RecordMark(0, EPOCH + timedelta(milliseconds=stamp), digest(None, None))],
            }
        began = time.monotonic()
        assert [mark.offset for mark in client.first_records({0: (7, 2000), 1: (0, 1)})[0]] == [7, 8]
        took = time.monotonic() - began
        client.offsets()
        assert positions(pa.Table.from_batches(client.read({0: (5, 9)}), SCHEMA)) == {0: [5, 6, 7, 8]}
    assert took < 5


def test_what_differs_in_key_or_value_differs_in_its_digest() -> None:
    parts = (None, b"", b"a", b"-", b"1:", b"ab")
    assert len({digest(key, value) for key in parts for value in parts}) == len(parts) ** 2


def test_partitions_without_a_leader_are_waited_for_and_then_named(kafka_client: ClientName) -> None:
    with EmbeddedBroker(topic="t", partitions=4) as broker:
        settings = Settings(kafka_bootstrap=broker.bootstrap, topic="t", kafka_client=kafka_client, kafka_timeout=1)
        send(settings, *numbered(1, 10))
        lead(broker, (0, 2), -1)
        with open_client(settings) as client:
            began = time.monotonic()
            with pytest.raises(NoLeader, match=r"^partitions 0, 2 of topic 't' have no leader: look at the brokers"):
                client.offsets()
            assert time.monotonic() - began >= 1
            lead(broker, (2,), 1)
            with pytest.raises(NoLeader, match=r"^partition 0 of topic 't' has no leader"):
                list(client.read({1: (0, 10)}))
        patient = settings.model_copy(update={"kafka_timeout": 30.0})
        with open_client(patient) as client:
            threading.Timer(0.5, lead, (broker, (0,), 1)).start()
            assert client.offsets().partitions[1] == Log(0, 10)


def test_a_partition_that_loses_its_leader_while_it_is_read_is_named(
    kafka_client: ClientName, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedBroker(topic="t", partitions=2) as broker:
        settings = Settings(kafka_bootstrap=broker.bootstrap, topic="t", kafka_client=kafka_client, kafka_timeout=2)
        send(settings, *numbered(1, 10))
        with open_client(settings) as client:
            look = client.offsets

            def offsets() -> TopicOffsets:
                found = look()
                lead(broker, (1,), -1)
                return found

            monkeypatch.setattr(client, "offsets", offsets)
            if kafka_client == "confluent":
                stream = client._stream  # type: ignore[attr-defined]
                monkeypatch.setattr(stream, "_consumer", NeverFetches(stream._consumer))
            with pytest.raises(NoLeader, match=r"^partition 1 of topic 't' has no leader"):
                list(client.read({1: (0, 10)}))


class NeverFetches:
    """A consumer that is brought nothing, as of a partition without a leader: asked for one of these in the newest
    version of the protocol, the embedded broker would crash."""

    def __init__(self, consumer: Any) -> None:
        self.list_topics, self.poll, self.close = consumer.list_topics, consumer.poll, consumer.close

    def assign(self, _: object) -> None:
        """Nothing."""

    resume = pause = assign

    def unassign(self) -> None:
        """Nothing."""

    def consume(self, _: int, timeout: float) -> list[Any]:
        """Nothing, after that time."""
        time.sleep(timeout)
        return []


def lead(broker: EmbeddedBroker, partitions: tuple[int, ...], number: int) -> None:
    """Makes that broker, the only one being 1, the leader of the partitions of topic t; -1: nobody."""
    mock: Any = broker._mock
    set_leader = mock._library.rd_kafka_mock_partition_set_leader
    set_leader.argtypes = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.c_int32
    for partition in partitions:
        assert set_leader(mock._cluster, b"t", partition, number) == 0
