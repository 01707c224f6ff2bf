"""Which closed days a check recounts, and when: changed days, failing days, and all of history in slices.

Belongs here: the choice, and the state that it needs. Doesn't: what must hold of a closed day (adjustments.py),
where it is remembered (defs/assets/).

A closed day of 100 million messages takes seconds to count. Counted every hour, a year of them takes longer than that.
So each check takes the days that were closed or corrected since the previous check, the failing days, and one 576th of
history: within 24 days every closed day is counted again, however many there are.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Self

import pyarrow as pa

from notif_assets.billing.adjustments import adjustments_of, billed_so_far, is_not_zero, notifications_by_pair
from notif_assets.billing.closed_days import closed_rows, newest_row
from notif_assets.billing.lines import CENT
from notif_assets.billing.prices import (
    price_list,
)
from notif_assets.core.days import day_bounds
from notif_assets.lake import Lake
from notif_assets.settings import Settings

HOUR = timedelta(hours=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SLICES = 24 * 24
_REST = 24  # hours: a day that gets corrections every quarter of an hour is counted again once in so many
_SLACK = timedelta(hours=_REST + 1)


@dataclass(frozen=True)
class AuditState:
    """What a check leaves to the next one: its hour, the hour of each day's last recount (within 24 hours), the failing
    days, and the newest batch that it counted."""

    hour: int
    seen: Mapping[date, int] = field(default_factory=dict)
    failing: Collection[date] = ()
    batch: int = 0

    def as_json(self) -> dict[str, Any]:
        """The state as metadata of a check."""
        return {
            "hour": self.hour,
            "seen": {str(day): hour for day, hour in sorted(self.seen.items())},
            "failing": sorted(map(str, self.failing)),
            "batch": self.batch,
        }

    @classmethod
    def of(cls, known: Any) -> Self | None:
        """What as_json gave; None for anything else."""
        try:
            return cls(
                hour=int(known["hour"]),
                seen={date.fromisoformat(day): int(hour) for day, hour in known["seen"].items()},
                failing=[date.fromisoformat(day) for day in known["failing"]],
                batch=int(known["batch"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


def epoch_hour(moment: datetime) -> int:
    """The hours since 1970."""
    return (moment - _EPOCH) // HOUR


def days_to_count(
    closed: Mapping[date, datetime], corrected: Collection[date], before: AuditState | None, hour: int
) -> list[date]:
    """The closed days to count again in this hour; all of them if nothing is remembered.

    `closed` has the newest moment at which each day was closed or priced anew; `corrected` are those that got
    adjustments lately, see closed_and_corrected.

    >>> day = date(2026, 1, 1)
    >>> ended = {day + n * timedelta(days=1): _EPOCH for n in range(2000)}
    >>> [len(days_to_count(ended, (), before, 490_000)) for before in (None, AuditState(489_999), AuditState(489_990))]
    [2000, 3, 30]
    >>> [day in days_to_count(ended, {day}, AuditState(489_999, seen), 490_000) for seen in ({}, {day: 489_980})]
    [True, False]
    """
    if before is None:
        return sorted(closed)
    slices = {number % _SLICES for number in range(max(before.hour + 1, hour - _SLICES), hour + 1)}
    since = _EPOCH + before.hour * HOUR

    def is_due(day: date) -> bool:
        seen = before.seen.get(day)
        seen = seen if seen is not None and hour - seen < _REST else None
        if day in before.failing or day.toordinal() % _SLICES in slices:
            return True
        if closed[day] >= (since - HOUR if seen is None else _EPOCH + seen * HOUR):
            return True
        return seen is None and day in corrected

    return [day for day in sorted(closed) if is_due(day)]


def next_state(
    before: AuditState | None, hour: int, looked_at: Collection[date], failing: Collection[date], batch: int = 0
) -> AuditState:
    """The state after a recount of these days."""
    seen = {} if before is None else dict(before.seen)
    seen |= dict.fromkeys(looked_at, hour)
    return AuditState(hour, {day: at for day, at in seen.items() if hour - at < _REST}, failing, batch)


def closed_and_corrected(lake: Lake, before: AuditState | None) -> tuple[dict[date, datetime], set[date]]:
    """When each closed day was closed or priced anew last, and the days that got adjustments in the 25 hours before
    the last look or since; see days_to_count."""
    closed = {day: max(row["closed_at"] for row in rows) for day, rows in closed_rows(lake).items()}
    since = _EPOCH if before is None else _EPOCH + before.hour * HOUR - _SLACK
    changed = lake.table("billing_adjustments").partitions_changed_since(since)
    return closed, {day for (day,) in changed if isinstance(day, date)}


def closed_days_that_differ(
    lake: Lake, settings: Settings, days: Collection[date] | None = None
) -> dict[date, list[str]]:
    """Closed days whose lines and adjustments are not the messages of the day times the price in force, with a sentence
    for each line; among `days` (None: all).

    Counts the messages themselves, up to the batch that the bill counted. Late messages that no adjustment has taken
    yet are not a difference: they are due, or held because they have no price.
    """
    found: dict[date, list[str]] = {}
    for day, rows in sorted(closed_rows(lake).items()):
        if days is not None and day not in days:
            continue
        adjustments = adjustments_of(lake, day)
        through = max([row["through_batch"] for row in rows] + adjustments["through_batch"].to_pylist())
        start, end = day_bounds(day, settings.zone)
        messages = lake.table("notifications").scan(event_datetime=(start, end), batch=(None, through + 1))
        counts = lake.select("message_counts", {"notifications": messages})
        billed = billed_so_far(lake, day, adjustments)
        pairs = lake.select("billed_pairs", {"counts": counts, "billed": billed})
        version = newest_row(rows)["price_version"]
        prices = lake.select("unit_prices", {"pairs": pairs, "prices": price_list(lake, version)}, day=day)
        if sentences := _wrongly_billed(counts, billed, prices):
            found[day] = [f"{day}, {sentence}" for sentence in sentences]
    return found


def _wrongly_billed(counts: pa.Table, billed: pa.Table, prices: pa.Table) -> list[str]:
    """The customers and channels that were not billed their count times the price, in the price's currency and in no
    other; a sentence for each. Another check reports what is held for lack of a price."""
    sent, paid = notifications_by_pair(counts), notifications_by_pair(billed)
    amounts: dict[tuple[int, str], dict[str, tuple[int, Decimal]]] = {}
    for row in billed.filter(is_not_zero(billed)).to_pylist():
        of_pair = amounts.setdefault((row["customer_id"], row["channel"]), {})
        of_pair[row["currency"]] = row["notifications"], row["amount"]
    found = []
    for row in prices.to_pylist():
        key = (row["customer_id"], row["channel"])
        n, is_priced = sent.get(key, 0), row["prices_found"] == 1
        if not is_priced and paid.get(key, 0) != n:
            continue
        due = (n * row["unit_price"]).quantize(CENT, ROUND_HALF_UP) if is_priced else None
        if amounts.get(key, {}) != ({row["currency"]: (n, due)} if n else {}):
            got = ", ".join(f"{amount} {currency}" for currency, (_, amount) in sorted(amounts.get(key, {}).items()))
            owed = f"{due} {row['currency']}" if is_priced else "which there is no price"
            found.append(f"customer {key[0]}, {key[1]}: billed {paid.get(key, 0)} for {got or 0}, sent {n} for {owed}")
    return found
