"""What a KafkaClient promises, held against both, on a broker."""

import os
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import Producer

from notif_assets.core.offsets import Log
from notif_assets.kafka.broker import EmbeddedBroker
from notif_assets.kafka.client import (
    MAX_BYTES,
    MAX_ROWS,
    SCHEMA,
    KafkaUnavailable,
    OffsetsDeleted,
    PropertyRefused,
    RangeBeyondEnd,
    Ranges,
    TopicMissing,
    open_client,
    record_batch,
    rows_within_bytes,
)
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


def test_batches_stay_near_their_size(fresh_topic: FreshTopic) -> None:
    settings = fresh_topic(1)
    send(settings, *({"partition": 0, "value": bytes(800_000)} for _ in range(6)))
    with open_client(settings) as client:
        bounds = client.offsets().partitions[0]
        batches = list(client.read({0: (bounds.start, bounds.end)}))
    assert sum(batch.num_rows for batch in batches) == bounds.end - bounds.start
    assert max(batch.nbytes for batch in batches) < 2 * MAX_BYTES


@pytest.mark.parametrize(("size", "expected"), [(0, MAX_ROWS), (2**20, MAX_BYTES // 2**20), (2 * MAX_BYTES, 1)])
def test_as_many_rows_are_asked_for_next_as_the_last_ones_let_expect(size: int, expected: int) -> None:
    batch = record_batch([0] * 3, [0, 1, 2], [0] * 3, [None] * 3, [bytes(size)] * 3)
    assert expected - 1 <= rows_within_bytes(batch) <= expected


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
