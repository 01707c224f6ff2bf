"""Reading a topic with both clients, which must see the same.

Belongs here: asking both, holding their answers against each other, sending records. Doesn't: what should be there.
"""

from collections.abc import Iterable
from typing import Any, get_args

import pyarrow as pa
from confluent_kafka import Producer

from notif_assets.kafka.client import SCHEMA, Ranges, TopicOffsets
from notif_assets.kafka.open import open_client
from notif_assets.settings import Settings
from notif_assets_tests.cli.deployment import IN_ORDER
from notif_assets_tests.kafka.apache.broker import ApacheKafka
from notif_assets_tests.kafka.conftest import ClientName


def offsets(apache: ApacheKafka, topic: str) -> TopicOffsets:
    """Where every partition begins and ends (at the last stable offset), and the topic's id, as both tell it."""
    answers = []
    for name in get_args(ClientName):
        with open_client(_settings(apache, topic, name)) as client:
            answers.append(client.offsets())
    assert answers[0] == answers[1]
    assert answers[0].topic_id
    return answers[0]


def records(apache: ApacheKafka, topic: str, ranges: Ranges | None = None) -> list[dict[str, Any]]:
    """The records of the ranges (None: all of the topic) as both read them, by partition and offset."""
    ranges = ranges or {p: (log.start, log.end) for p, log in offsets(apache, topic).partitions.items()}
    return _of_both(apache, topic, [ranges])


def records_in_steps(apache: ApacheKafka, topic: str, step: int) -> list[dict[str, Any]]:
    """As records of all of the topic, in ranges of `step` offsets that follow each other, each client opened once."""
    logs = offsets(apache, topic).partitions
    starts = range(0, max(log.end for log in logs.values()), step)
    return _of_both(
        apache, topic, [{p: (min(at, log.end), min(at + step, log.end)) for p, log in logs.items()} for at in starts]
    )


def _of_both(apache: ApacheKafka, topic: str, reads: list[Ranges]) -> list[dict[str, Any]]:
    """The records of several reads, one after the other, which must be the same of both."""
    answers = []
    for name in get_args(ClientName):
        with open_client(_settings(apache, topic, name)) as client:
            rows = pa.Table.from_batches((batch for ranges in reads for batch in client.read(ranges)), SCHEMA)
        answers.append(rows.sort_by([("kafka_partition", "ascending"), ("kafka_offset", "ascending")]))
    assert answers[0].equals(answers[1])
    rows_of_both: list[dict[str, Any]] = answers[0].to_pylist()
    return rows_of_both


def positions(rows: Iterable[dict[str, Any]], partition: int = 0) -> list[int]:
    """The offsets of one partition."""
    return [row["kafka_offset"] for row in rows if row["kafka_partition"] == partition]


def producer(apache: ApacheKafka, **config: str | int | float | bool) -> Producer:
    """A producer; `config` with underscores for dots."""
    dotted = {name.replace("_", "."): value for name, value in config.items()}
    return Producer({"bootstrap.servers": apache.bootstrap, "log_level": 0, "linger.ms": 5, **IN_ORDER, **dotted})


def send(apache: ApacheKafka, topic: str, *messages: dict[str, Any], **config: str | int | float | bool) -> None:
    """Sends in order; a message is the keyword arguments of Producer.produce."""
    sender = producer(apache, **config)
    for message in messages:
        sender.produce(topic, **message)
    assert sender.flush(30) == 0


def _settings(apache: ApacheKafka, topic: str, client: ClientName) -> Settings:
    return Settings(kafka_bootstrap=apache.bootstrap, topic=topic, kafka_client=client, kafka_timeout=20)
