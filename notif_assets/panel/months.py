"""What the closed days of each month come to, of all customers, in memory: a page of twelve months would else read some
hundred files.

Belongs here: which months are kept, when one is added up again, a customer's part of them. Doesn't: open days
(bills.py), single days (usage.py).
"""

from dataclasses import dataclass
from datetime import date
from decimal import Decimal

import pyarrow as pa

from notif_assets.billing.closed_days import closed_days
from notif_assets.billing.statements import days_still_open
from notif_assets.core.amounts import sum_by_currency
from notif_assets.core.days import days_of_month
from notif_assets.lake import Lake, Scan
from notif_assets.lake.tables import Bounds
from notif_assets.panel.hours import RowsByCustomer, kept
from notif_assets.settings import Settings

MONTHS = 12
"""The newest months that have closed days; a statement is made of any month."""

BOOKS = ("billing_days", "daily_billing", "billing_adjustments")
"""The tables that it is read from. A day's lines are written before the day is closed, so billing_days comes first."""


@dataclass(frozen=True)
class Billed:
    """What the closed days of a month come to, in each currency."""

    notifications: int
    amounts: list[tuple[str, Decimal]]

    @property
    def totals(self) -> dict[str, Decimal]:
        """The amounts by their currencies."""
        return sum_by_currency(self.amounts)


class Months:
    """The newest months that have closed days, as the books of `lake` have them."""

    def __init__(self, lake: Lake, settings: Settings, today: date, before: "Months | None" = None) -> None:
        """Adds up each month whose files are others than `before`."""
        self.today = today
        self._snapshots = _snapshots(lake)
        self._files: dict[date, tuple[tuple[str, ...], ...]] = {}
        self._sums: dict[date, RowsByCustomer] = {}
        days: dict[date, list[date]] = {}
        for day in sorted(closed_days(lake)):
            days.setdefault(day.replace(day=1), []).append(day)
        self.closed = sorted(days, reverse=True)
        """The first day of each month that has closed days, newest first; of the newest the sums are kept."""
        newest = self.closed[:MONTHS]
        still_open = days_still_open(lake, settings, [day for month in newest for day in days_of_month(month)])
        self.final = frozenset(newest) - {day.replace(day=1) for day in still_open}
        """The kept months of which every day is closed that has a bill; as their statements say."""
        for month in newest:
            self._add_up(lake, month, days[month], before)

    def is_current(self, lake: Lake, today: date) -> bool:
        """Whether it was read from the books as `lake` has them, on this day."""
        return self.today == today and all(a is b for a, b in zip(self._snapshots, _snapshots(lake), strict=True))

    def _add_up(self, lake: Lake, month: date, days: list[date], before: "Months | None") -> None:
        lines, adjustments = scans_of_days(lake, days)
        self._files[month] = lines.files, adjustments.files
        if before and before._files.get(month) == self._files[month]:
            self._sums[month] = before._sums[month]
            return
        currencies = lake.select("price_currencies", {"prices": lake.table("prices").scan()})
        inputs = {"lines": lines, "adjustments": adjustments, "currencies": currencies}
        self._sums[month] = kept(lake.select("billed_month", inputs), "currency")

    def of(self, customer_id: int | None) -> dict[date, Billed]:
        """What each kept month comes to for a customer that has a line of it, or (None) for all customers."""
        found = {month: _billed(sums.of(customer_id)) for month, sums in self._sums.items()}
        return {month: billed for month, billed in found.items() if billed.amounts}


def scans_of_days(lake: Lake, days: list[date], **bounds: Bounds) -> tuple[Scan, Scan]:
    """The lines and the adjustments of closed days."""
    partitions = {(day,) for day in days}
    lines, adjustments = (lake.table(name).scan(partitions, **bounds) for name in BOOKS[1:])
    return lines, adjustments


def _billed(rows: pa.Table) -> Billed:
    sums = rows.group_by("currency", use_threads=False).aggregate([("amount", "sum")])
    amounts = zip(sums["currency"].to_pylist(), sums["amount_sum"].to_pylist(), strict=True)
    return Billed(sum(rows["notifications"].to_pylist()), list(amounts))


def _snapshots(lake: Lake) -> list[object]:
    return [lake.table(name).snapshot for name in BOOKS]
