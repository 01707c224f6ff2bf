"""A business of some months, as closing and counting leave it in the tables: for pages that show more than a test of
ingestion can wait for.

Belongs here: its rows. Doesn't: what a page must say of them.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from importlib.resources import files
from typing import Any

import numpy as np
import pyarrow as pa

from notif_assets.billing.price_list import parse_price_list
from notif_assets.billing.prices import load_prices
from notif_assets.core.days import days_between
from notif_assets.lake import SCHEMAS, Lake
from notif_assets.settings import Settings
from notif_assets_tests.cli.messages import ACME

CHANNELS = {"Whatsapp": 0.80, "SMS": 0.09, "Email": 0.06, "Push": 0.03, "Telegram": 0.02}
PRICES = {"Whatsapp": "0.04", "SMS": "0.06", "Email": "0.005", "Push": "0.001", "Telegram": "0.02"}
COMPANIES = ("Acme", "Padaria São João", "Farmácia Popular", "Ótica Visão", "Construções Araújo", "Café & Cia")
_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
_VERSION = "packaged"
Key = tuple[date, int, str]


@dataclass
class Business:
    """What its tables hold. Days in UTC; all but today and yesterday are closed."""

    now: datetime
    days: int
    minutes_of_days: int = 3
    customers: int = 6
    seed: int = 1
    lines: Counter[Key] = field(default_factory=Counter)
    adjustments: Counter[Key] = field(default_factory=Counter)
    minutes: Counter[tuple[datetime, int, str]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        chance = np.random.default_rng(self.seed)
        for day in days_between(self.first, self.today):
            start = datetime(day.year, day.month, day.day, tzinfo=UTC)
            fine = day > self.today - self.minutes_of_days * _DAY
            for customer in self.names:
                for channel, share in CHANNELS.items():
                    of_minutes = chance.poisson(_a_minute(day, customer, self.days, share), 1440)
                    if fine:
                        for minute, count in enumerate(of_minutes.tolist()):
                            if count and start + minute * _MINUTE <= self.now:
                                self.minutes[start + minute * _MINUTE, customer, channel] = count
                    if day < self.today - _DAY:
                        self.lines[day, customer, channel] = int(of_minutes.sum())
        for day in days_between(self.first, self.today - 2 * _DAY):
            if chance.random() < 0.2:
                self.adjustments[day, ACME, "Whatsapp"] = int(chance.integers(1, 90))

    @property
    def today(self) -> date:
        return self.now.date()

    @property
    def first(self) -> date:
        return self.today - (self.days - 1) * _DAY

    @property
    def names(self) -> dict[int, str]:
        """The customers: Acme, and smaller ones."""
        others = {1_000_000 + n: COMPANIES[n % len(COMPANIES)] for n in range(1, self.customers)}
        return {ACME: "Acme", **others}

    def counted(self, start: datetime, end: datetime, customer: int | None) -> Counter[str]:
        """Messages per channel in [start, end), by the minutes."""
        found: Counter[str] = Counter()
        for (minute, whose, channel), count in self.minutes.items():
            if start <= minute < end and customer in (None, whose):
                found[channel] += count
        return found

    def billed(self, day: date, customer: int | None) -> Counter[str]:
        """Messages per channel of a closed day, adjustments included."""
        found: Counter[str] = Counter()
        for (billed, whose, channel), count in (*self.lines.items(), *self.adjustments.items()):
            if billed == day and customer in (None, whose):
                found[channel] += count
        return found

    def write(self, settings: Settings) -> None:
        """All of it into an empty lake."""
        with Lake(settings.lake) as lake:
            lake.claim(topic=settings.topic, timezone=settings.timezone)
            prices = files("notif_assets") / "samples" / "prices-demo.csv"
            load_prices(lake, parse_price_list(prices.read_bytes(), "prices-demo.csv"))
            version = lake.rows(lake.table("prices").scan())["price_version"][0].as_py()
            for name, rows in (
                ("ingest_batches", self._ledger()),
                ("minute_aggregates", list(self._minutes())),
                ("daily_billing", list(self._lines(version))),
                ("billing_adjustments", list(self._adjustments(version))),
                ("billing_days", list(self._closed(version))),
                ("customer_panel", list(self._panel())),
            ):
                schema = SCHEMAS[name].arrow
                whole = [{column: row.get(column) for column in schema.names} for row in rows]
                lake.table(name).append(pa.Table.from_pylist(whole, schema), batch=1)

    def _ledger(self) -> list[dict[str, Any]]:
        total = sum(self.minutes.values()) + sum(self.lines.values())
        offsets = {"log_start_offset": 0, "start_offset": 0, "end_offset": total, "log_end_offset": total + 14}
        return [
            {"batch": 1, "kind": "kafka", "topic": "notifications", "kafka_partition": 0, "run_id": "", **offsets}
            | {"planned_at": self.now - timedelta(seconds=at), "log_end_offset": total + 14 * (at < 30)}
            for at in (34, 9)
        ]

    def _minutes(self) -> Iterator[dict[str, Any]]:
        for (minute, customer, channel), count in self.minutes.items():
            yield {
                "batch": 1,
                "customer_id": customer,
                "customer_name": self.names[customer],
                "channel": channel,
                "minute": minute,
                "notifications": count,
                "first_event": minute,
                "last_event": min(self.now, minute + timedelta(seconds=59)),
                "event_date": minute.date(),
                "event_hour": minute.hour,
            }

    def _lines(self, version: str) -> Iterator[dict[str, Any]]:
        for key, count in self.lines.items():
            yield {**self._billed(key, version), "notifications": count, "amount": amount(key[2], count)} | {
                "status": "final",
                "currency": "BRL",
                "computed_at": self.now,
            }

    def _adjustments(self, version: str) -> Iterator[dict[str, Any]]:
        for number, (key, count) in enumerate(self.adjustments.items()):
            whole = self.lines[key] + count
            yield {
                **self._billed(key, version),
                "adjustment_id": str(number),
                "notifications_delta": count,
                "amount_delta": amount(key[2], whole) - amount(key[2], self.lines[key]),
                "reason": "late",
                "created_at": self.now,
            }

    def _billed(self, key: Key, version: str) -> dict[str, Any]:
        day, customer, channel = key
        return {
            "billing_date": day,
            "customer_id": customer,
            "customer_name": self.names[customer],
            "channel": channel,
            "unit_price": Decimal(PRICES[channel]),
            "price_version": version,
            "through_batch": 1,
            "run_id": "",
        }

    def _closed(self, version: str) -> Iterator[dict[str, Any]]:
        for day in days_between(self.first, self.today - 2 * _DAY):
            of_day = {key: count for key, count in self.lines.items() if key[0] == day}
            yield {
                "billing_date": day,
                "status": "final",
                "through_batch": 1,
                "price_version": version,
                "lines": len(of_day),
                "notifications": sum(of_day.values()),
                "amount": sum((amount(key[2], count) for key, count in of_day.items()), Decimal(0)),
                "closed_at": self.now,
                "run_id": "",
            }

    def _panel(self) -> Iterator[dict[str, Any]]:
        start = datetime(self.today.year, self.today.month, self.today.day, tzinfo=UTC)
        for customer, name in self.names.items():
            counts = self.counted(start, start + _DAY, customer)
            for channel in CHANNELS:
                yield {
                    "billing_date": self.today,
                    "customer_id": customer,
                    "customer_name": name,
                    "channel": channel,
                    "notifications": counts[channel],
                    "last_event": self.now - timedelta(seconds=41),
                    "updated_at": self.now - timedelta(seconds=34),
                }


def amount(channel: str, count: int) -> Decimal:
    """What a bill asks for so many messages."""
    return (count * Decimal(PRICES[channel])).quantize(Decimal("0.01"), ROUND_HALF_UP)


def _a_minute(day: date, customer: int, days: int, share: float) -> Any:
    """Messages a minute through a day: more by day than by night, fewer at weekends, and slowly growing."""
    hours = np.arange(1440) / 60
    curve = 0.15 + np.exp(-(((hours - 11) / 2.6) ** 2)) + 0.8 * np.exp(-(((hours - 17.5) / 2.2) ** 2))
    weekend = 0.45 if day.weekday() > 4 else 1.0
    size = 9.0 if customer == ACME else 60.0 / (customer - 1_000_000 + 6)
    growth = 1 + 0.4 * (day.toordinal() % 400) / 400
    return curve * size * weekend * growth * share * (1 + 0.1 * np.sin(day.toordinal()))
