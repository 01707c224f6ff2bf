"""What the tables must hold after traffic was sent, told by plain Python from what was sent.

Belongs here: reading the messages again with the json module, counting them with dicts, and holding that against the
lake. Nothing of the code under test computes what it should have done; the lake is only opened to read rows.
Doesn't: when a process dies or races (the tests).
"""

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from notif_assets.sandbox.traffic import Message, Tally, messages
from notif_assets_tests.cli.deployment import Deployment

FIELDS = ("customer_id", "message_id", "customer_name", "channel", "payload", "event_datetime")
REASON_OF = {
    "bad_json": "not_json",
    "truncated": "not_json",
    "missing_field": "missing_field",
    "wrong_type": "wrong_type",
    "empty": "not_json",
    "tombstone": "tombstone",
    "not_utf8": "not_utf8",
    "no_offset": "bad_event_datetime",
}
"""What becomes of each kind of broken message that the generator makes."""

PRICES = {"Whatsapp": "0.04", "SMS": "0.06", "Email": "0.005", "Push": "0.001", "Telegram": "0.02"}
"""Those of samples/prices-demo.csv."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Event = tuple[int, str, str, str, str, datetime]  # FIELDS
Minute = tuple[int, str, datetime]


def traffic(
    seed: int, count: int, start: datetime, rate: float = 1000, customers: int = 300
) -> tuple[list[Message], Tally]:
    """`count` messages of the generator, and what it says that they are."""
    tally = Tally()
    return list(itertools.islice(messages(seed, customers, start, rate, tally), count)), tally


def parsed(value: bytes | None) -> Event | None:
    """The message, None if it is none, by the json module."""
    try:
        document = json.loads((value or b"").decode("utf-8"))
    except ValueError:
        return None
    if not isinstance(document, dict) or any(name not in document for name in FIELDS):
        return None
    event = datetime.fromisoformat(document["event_datetime"])
    if type(document["customer_id"]) is not int or event.tzinfo is None:
        return None
    values = [document[name] for name in FIELDS]
    return (*values[:-1], event.astimezone(UTC))


@dataclass
class Truth:
    """All that was ever sent to a topic, and what must have become of it."""

    produced: int = 0
    accepted: dict[tuple[int, str], Event] = field(default_factory=dict)
    rejected: Counter[str] = field(default_factory=Counter)
    tally: Tally = field(default_factory=Tally)

    def send(self, deployment: Deployment, seed: int, count: int, start: datetime) -> None:
        """Sends traffic to the deployment's topic and takes note of it."""
        sent, tally = traffic(seed, count, start)
        self.note(sent)
        self.count(tally)
        deployment.send(sent)

    def count(self, tally: Tally) -> None:
        """Takes note of what the generator says of messages that are sent."""
        self.tally.produced += tally.produced
        self.tally.accepted += tally.accepted
        self.tally.duplicates += tally.duplicates
        self.tally.broken += tally.broken

    def note(self, sent: Iterable[Message]) -> None:
        """Takes note of messages that are sent. Of two with one key the one sent first counts: each customer has its
        partition."""
        for message in sent:
            self.produced += 1
            event = parsed(message.value)
            if event is not None:
                if event[:2] in self.accepted:
                    self.rejected["duplicate"] += 1
                else:
                    self.accepted[event[:2]] = event

    def agrees_with_the_generator(self) -> None:
        """The recount from the bytes and the generator's own tally say the same."""
        assert (self.produced, len(self.accepted)) == (self.tally.produced, self.tally.accepted)
        assert self.rejected["duplicate"] == self.tally.duplicates

    def reasons(self) -> Counter[str]:
        """How many messages must be rejected for which reason."""
        reasons = Counter({"duplicate": self.tally.duplicates})
        for kind, count in self.tally.broken.items():
            reasons[REASON_OF[kind]] += count
        return +reasons

    def minutes(self) -> dict[Minute, tuple[int, datetime, datetime, str]]:
        """Per customer, channel and minute: messages, first and last event, newest name."""
        groups: dict[Minute, list[Event]] = defaultdict(list)
        for event in self.accepted.values():
            groups[event[0], event[3], event[5].replace(second=0, microsecond=0)].append(event)
        return {
            key: (len(group), *_ends(group), max((event[5], event[2]) for event in group)[1])
            for key, group in groups.items()
        }

    def panel(self, day: date) -> dict[tuple[int, str], tuple[int, datetime, str]]:
        """Per customer and channel: messages of the day, newest event of all, the customer's newest name."""
        pairs: dict[tuple[int, str], list[Event]] = defaultdict(list)
        newest: dict[int, tuple[datetime, str]] = {}
        for event in self.accepted.values():
            pairs[event[0], event[3]].append(event)
            newest[event[0]] = max(newest.get(event[0], (_EPOCH, "")), (event[5], event[2]))
        return {
            key: (sum(event[5].date() == day for event in group), _ends(group)[1], newest[key[0]][1])
            for key, group in pairs.items()
        }

    def bills(self, day: date) -> Counter[tuple[int, str]]:
        """Messages of the (UTC) day per customer and channel."""
        return Counter((event[0], event[3]) for event in self.accepted.values() if event[5].date() == day)


def price(count: int, channel: str) -> Decimal:
    """What so many messages cost."""
    return (count * Decimal(PRICES[channel])).quantize(Decimal("0.01"), ROUND_HALF_UP)


def _ends(group: list[Event]) -> tuple[datetime, datetime]:
    return min(event[5] for event in group), max(event[5] for event in group)


def places(rows: Iterable[dict[str, Any]]) -> list[tuple[int, int]]:
    """(partition, offset) of rows, in order."""
    return sorted((row["kafka_partition"], row["kafka_offset"]) for row in rows)


def assert_nothing_wrong_so_far(deployment: Deployment) -> None:
    """Whatever was killed and when: no offset twice, each table holds what its watermark says and no more."""
    names = ("ingest_batches", "raw_notifications", "notifications", "rejected_notifications")
    marks, rows = {}, {}
    for name in names:
        marks[name], rows[name] = deployment.table(name)
    for name in ("raw_notifications", "notifications", "rejected_notifications"):
        found = places(rows[name])
        assert len(found) == len(set(found)), f"an offset is twice in {name}"
    planned = {
        (row["kafka_partition"], offset)
        for row in rows["ingest_batches"]
        if row["batch"] <= marks["raw_notifications"]
        for offset in range(row["start_offset"], row["end_offset"])
    }
    raw = set(places(rows["raw_notifications"]))
    assert raw == planned
    through = min(marks["notifications"], marks["rejected_notifications"])
    settled = set(places(row for row in rows["raw_notifications"] if row["batch"] <= through))
    accepted, rejected = (
        set(places(row for row in rows[name] if row["batch"] <= through))
        for name in ("notifications", "rejected_notifications")
    )
    assert accepted | rejected == settled
    assert not accepted & rejected


def assert_exact(deployment: Deployment, truth: Truth, *, check: bool = True, fresh: bool = True) -> None:
    """Every table between Kafka and the panel is what plain Python makes of what was sent, and `check` agrees."""
    truth.agrees_with_the_generator()
    assert_nothing_wrong_so_far(deployment)
    raw, accepted, rejected = (
        deployment.rows(name) for name in ("raw_notifications", "notifications", "rejected_notifications")
    )
    by_partition: dict[int, list[int]] = defaultdict(list)
    for partition, offset in places(raw):
        by_partition[partition].append(offset)
    assert all(offsets == list(range(len(offsets))) for offsets in by_partition.values())
    assert len(raw) == truth.produced

    assert sorted(tuple(row[name] for name in FIELDS) for row in accepted) == sorted(truth.accepted.values())
    assert Counter(row["reason"] for row in rejected) == truth.reasons()

    rows = deployment.rows("minute_aggregates")
    minutes = {
        (row["customer_id"], row["channel"], row["minute"]): (
            row["notifications"],
            row["first_event"],
            row["last_event"],
            row["customer_name"],
        )
        for row in rows
    }
    assert len(minutes) == len(rows)
    assert minutes == truth.minutes()

    panel = deployment.rows("customer_panel")
    (day,) = {row["billing_date"] for row in panel}
    shown = {
        (row["customer_id"], row["channel"]): (row["notifications"], row["last_event"], row["customer_name"])
        for row in panel
    }
    assert len(shown) == len(panel)
    assert shown == truth.panel(day)
    (updated_at,) = {row["updated_at"] for row in panel}
    assert timedelta(0) <= datetime.now(UTC) - updated_at < (timedelta(minutes=10) if fresh else timedelta.max)
    if check:
        checked = deployment.run("check")
        assert checked.code == 0, checked


def assert_bills_add_up(deployment: Deployment, truth: Truth, days: Iterable[date]) -> None:
    """Of closed days, lines + adjustments = what was sent × price, for every customer and channel."""
    days = set(days)
    assert days <= {row["billing_date"] for row in deployment.rows("billing_days")}
    billed: dict[tuple[date, int, str], list[Any]] = defaultdict(lambda: [0, Decimal(0)])
    for name, count, amount in (
        ("daily_billing", "notifications", "amount"),
        ("billing_adjustments", "notifications_delta", "amount_delta"),
    ):
        for row in deployment.rows(name):
            if row["billing_date"] in days:
                pair = billed[row["billing_date"], row["customer_id"], row["channel"]]
                pair[0] += row[count]
                pair[1] += row[amount]
    due = {(day, *pair): [count, price(count, pair[1])] for day in days for pair, count in truth.bills(day).items()}
    assert billed == due
