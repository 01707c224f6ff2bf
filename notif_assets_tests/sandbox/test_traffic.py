"""The traffic is what its tally says, counted again from the bytes."""

import itertools
import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from notif_assets.kafka.client import KafkaUnavailable
from notif_assets.kafka.open import open_client
from notif_assets.sandbox.traffic import BROKEN_KINDS, CHANNELS, Message, Tally, messages, partition_of, produce
from notif_assets.settings import Settings
from notif_assets_tests.kafka.conftest import ClientName

START = datetime(2020, 2, 3, 14, tzinfo=UTC)
FIELDS = {"customer_id", "message_id", "customer_name", "channel", "payload", "event_datetime"}


def take(count: int, seed: int = 7) -> tuple[list[Message], Tally]:
    tally = Tally()
    return list(itertools.islice(messages(seed, 3000, START, 1000, tally), count)), tally


def valid(value: bytes | None) -> bool:
    try:
        fields = json.loads((value or b"").decode("utf-8"))
    except ValueError:
        return False
    if set(fields) != FIELDS or type(fields["customer_id"]) is not int:
        return False
    return datetime.fromisoformat(fields["event_datetime"]).tzinfo is not None


def recount(values: list[bytes | None]) -> tuple[int, int, Counter[tuple[int, str]], Counter[object], set[str]]:
    """(rejected, duplicates, accepted per customer and channel, per UTC date, names per customer that differ)."""
    rejected = duplicates = 0
    seen: set[tuple[int, str]] = set()
    accepted: Counter[tuple[int, str]] = Counter()
    dates: Counter[object] = Counter()
    names: dict[int, str] = {}
    two_names: set[str] = set()
    for value in values:
        if not valid(value):
            rejected += 1
            continue
        fields = json.loads(value or b"")
        key = fields["customer_id"], fields["message_id"]
        if key in seen:
            duplicates += 1
            continue
        seen.add(key)
        accepted[fields["customer_id"], fields["channel"]] += 1
        dates[datetime.fromisoformat(fields["event_datetime"]).astimezone(UTC).date()] += 1
        if names.setdefault(key[0], fields["customer_name"]) != fields["customer_name"]:
            two_names.add(fields["customer_name"])
    return rejected, duplicates, accepted, dates, two_names


def test_the_same_seed_gives_the_same_messages() -> None:
    assert take(20_000) == take(20_000)
    assert take(100)[0] != take(100, seed=8)[0]


def test_the_tally_is_what_plain_python_counts() -> None:
    sent, tally = take(100_000)
    rejected, duplicates, accepted, dates, two_names = recount([message.value for message in sent])
    assert (rejected, duplicates) == (tally.broken.total(), tally.duplicates)
    assert accepted == tally.by_customer_and_channel
    assert dates == tally.by_utc_date
    assert accepted.total() == tally.accepted
    assert tally.produced == tally.accepted + tally.duplicates + rejected == len(sent)
    assert not two_names


def test_it_looks_like_the_platform() -> None:
    sent, tally = take(100_000)
    assert 0.008 < tally.duplicates / tally.produced < 0.012
    assert set(tally.broken) == set(BROKEN_KINDS)
    channels: Counter[str] = Counter()
    for (_, channel), count in tally.by_customer_and_channel.items():
        channels[channel] += count
    assert set(channels) == set(CHANNELS)
    assert channels["Whatsapp"] > tally.accepted / 2
    assert len({customer for customer, _ in tally.by_customer_and_channel}) > 2000
    assert len(tally.by_utc_date) > 10
    assert [message.timestamp for message in sent[:3]] == [1580738400000, 1580738400001, 1580738400002]


def test_produced_is_what_arrives(fresh_topic: Callable[[int], Settings]) -> None:
    settings = fresh_topic(3)
    heard: list[int] = []
    tally = produce(settings, rate=4000, seconds=1, customers=50, seed=3, progress=heard.append)
    assert heard[-1] == tally.produced == 4000
    with open_client(settings) as client:
        bounds = client.offsets().partitions
        batches = list(client.read({p: (b.start, b.end) for p, b in bounds.items()}))
    rows = [row for batch in batches for row in batch.to_pylist()]
    rejected, duplicates, accepted, dates, _ = recount([row["value"] for row in rows])
    assert (len(rows), rejected, duplicates) == (4000, tally.broken.total(), tally.duplicates)
    assert (accepted, dates) == (tally.by_customer_and_channel, tally.by_utc_date)
    assert all(row["kafka_partition"] == partition_of(int(row["key"]), 3) for row in rows)


def test_no_broker_no_traffic(kafka_client: ClientName) -> None:
    settings = Settings(kafka_bootstrap="127.0.0.1:1", kafka_client=kafka_client, kafka_timeout=1)
    with pytest.raises(KafkaUnavailable):
        produce(settings, rate=10, seconds=1)
