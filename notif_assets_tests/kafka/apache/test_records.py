"""Whatever a real topic holds, both clients read the same of it: codecs, sizes, transactions, compaction."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from notif_assets.kafka.offsets import Log
from notif_assets_tests.cli.deployment import until
from notif_assets_tests.kafka.apache import both
from notif_assets_tests.kafka.apache.broker import ApacheKafka
from notif_assets_tests.kafka.apache.conftest import MakeTopic

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")  # in the order of their numbers
MIB = 2**20


def _codecs_on_disk(log: Path) -> Iterator[int]:
    """The number of the codec of every record batch in a partition's segments."""
    for segment in sorted(log.glob("*.log")):
        data, at = segment.read_bytes(), 0
        while at < len(data):
            _, length = struct.unpack_from(">qi", data, at)
            (attributes,) = struct.unpack_from(">h", data, at + 21)
            yield attributes & 7
            at += 12 + length


def test_every_codec_headers_null_keys_and_null_values(apache: ApacheKafka, make_topic: MakeTopic) -> None:
    topic = make_topic(1)
    sent: list[dict[str, Any]] = []
    for codec in CODECS:
        shapes: list[dict[str, Any]] = [
            {"key": b"k\xff", "value": f"{codec} {number}".encode() * 30, "headers": {"trace": b"\x00\x01", "h": None}}
            for number in range(200)
        ]
        shapes += [{"key": None, "value": b"no key"}, {"key": b"", "value": b""}, {"key": b"tombstone", "value": None}]
        shapes += [{"key": None, "value": None, "headers": {"only": b"headers"}}]
        messages = [{**shape, "timestamp": 1580738401001 + n} for n, shape in enumerate(shapes)]
        both.send(apache, topic, *messages, compression_type=codec)
        sent += messages
    read = both.records(apache, topic)
    assert both.positions(read) == [*range(len(sent))]
    assert [(row["key"], row["value"]) for row in read] == [(message["key"], message["value"]) for message in sent]
    assert [row["kafka_timestamp"].timestamp() for row in read] == [message["timestamp"] / 1000 for message in sent]
    assert set(_codecs_on_disk(apache.log_of(topic, 0))) == {*range(len(CODECS))}  # each was really used


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_messages_of_5_mb_and_of_more_than_a_fetch(apache: ApacheKafka, make_topic: MakeTopic, codec: str) -> None:
    topic = make_topic(2)
    sizes = [5 * MIB, 1, 5 * MIB, 12 * MIB, 5 * MIB]
    values = [os.urandom(size) for size in sizes]
    messages = [{"partition": partition, "value": value} for partition in (0, 1) for value in values]
    both.send(apache, topic, *messages, compression_type=codec, message_max_bytes=15 * MIB)
    for ranges in (None, {0: (1, 4), 1: (3, 4)}):
        read = both.records(apache, topic, ranges)
        expected = {p: range(*ranges[p]) if ranges else range(5) for p in (0, 1)}
        assert {p: both.positions(read, p) for p in (0, 1)} == {p: [*at] for p, at in expected.items()}
        assert all(row["value"] == values[row["kafka_offset"]] for row in read)


@pytest.mark.parametrize("partitions", [1, 48])
def test_one_and_many_partitions(apache: ApacheKafka, make_topic: MakeTopic, partitions: int) -> None:
    topic = make_topic(partitions)
    total = 4800
    messages = ({"partition": n % partitions, "value": b"%d" % n} for n in range(total))
    both.send(apache, topic, *messages, compression_type="lz4")
    each = total // partitions
    assert both.offsets(apache, topic).partitions == {p: Log(0, each) for p in range(partitions)}
    read = both.records(apache, topic)
    assert [row["value"] for row in read] == [
        b"%d" % (offset * partitions + p) for p in range(partitions) for offset in range(each)
    ]
    some = {p: (each // 2, each // 2 + p % 3) for p in range(partitions)}  # of which a third are empty
    assert len(both.records(apache, topic, some)) == sum(end - start for start, end in some.values())


def test_only_what_was_committed_up_to_the_first_open_transaction(apache: ApacheKafka, make_topic: MakeTopic) -> None:
    topic = make_topic(2)
    writer = both.producer(apache, transactional_id=topic)
    writer.init_transactions(30)

    def write(count: int, partition: int = 0) -> None:
        for _ in range(count):
            writer.produce(topic, b"v", partition=partition)
        assert writer.flush(30) == 0

    for count, end in ((3, "commit"), (4, "abort"), (2, "commit"), (2, "abort")):
        writer.begin_transaction()
        write(count)
        write(1, partition=1)
        (writer.commit_transaction if end == "commit" else writer.abort_transaction)(30)
    # Partition 0: 0–2, marker 3, aborted 4–7 and marker 8, 9–10, marker 11, aborted 12–13 and marker 14.
    assert both.offsets(apache, topic).partitions == {0: Log(0, 15), 1: Log(0, 8)}
    read = both.records(apache, topic)
    assert both.positions(read) == [0, 1, 2, 9, 10]
    assert both.positions(read, 1) == [0, 4]
    for nothing in ((3, 4), (4, 8), (3, 9), (8, 9), (11, 12), (11, 15), (13, 15), (14, 15)):
        assert both.records(apache, topic, {0: nothing}) == []
    assert both.positions(both.records(apache, topic, {0: (2, 10)})) == [2, 9]
    assert both.positions(both.records(apache, topic, {0: (5, 10), 1: (1, 4)})) == [9]

    for step in (1, 2, 4, 9):  # ranges that end before, between and after markers, and begin there
        assert both.records_in_steps(apache, topic, step) == read

    writer.begin_transaction()
    write(5)
    both.send(apache, topic, {"partition": 0, "value": b"no transaction"})  # 20, behind one that is open
    assert both.offsets(apache, topic).partitions[0] == Log(0, 15)
    assert both.positions(both.records(apache, topic)) == [0, 1, 2, 9, 10]
    writer.commit_transaction(30)
    assert both.offsets(apache, topic).partitions[0] == Log(0, 22)
    assert both.positions(both.records(apache, topic)) == [0, 1, 2, 9, 10, *range(15, 21)]

    writer.begin_transaction()
    write(1)
    writer.abort_transaction(30)
    both.send(apache, topic, {"partition": 0, "value": b"last"})
    assert both.positions(both.records(apache, topic, {0: (20, 25)})) == [20, 24]


def test_a_compacted_topic_has_holes(apache: ApacheKafka, make_topic: MakeTopic) -> None:
    topic = make_topic(
        1, cleanup_policy="compact", min_cleanable_dirty_ratio="0.001", segment_ms="100", delete_retention_ms="1"
    )
    rounds, keys = 30, 5
    for number in range(rounds):
        messages = [{"partition": 0, "key": b"%d" % key, "value": b"%d" % number} for key in range(keys)]
        if number == rounds // 2:
            messages.append({"partition": 0, "key": b"gone", "value": None})
        both.send(apache, topic, *messages, linger_ms=0)
    end = both.offsets(apache, topic).partitions[0].end
    assert end == rounds * keys + 1

    def compacted() -> list[dict[str, Any]] | None:
        both.send(apache, topic, {"partition": 0, "key": b"tick", "value": b""})  # rolls the segment before it
        read = both.records(apache, topic, {0: (0, end)})
        return read if len(read) <= keys else None

    read = until(compacted, "compaction", seconds=60)
    assert both.offsets(apache, topic).partitions[0].start == 0
    assert {row["key"]: row["value"] for row in read} == {b"%d" % key: b"%d" % (rounds - 1) for key in range(keys)}
    assert both.positions(read) == [*range(end - keys, end)]
    for hole in ((0, 1), (0, end - keys), (7, 8)):
        assert both.records(apache, topic, {0: hole}) == []
    assert both.positions(both.records(apache, topic, {0: (40, end - keys + 1)})) == [end - keys]
