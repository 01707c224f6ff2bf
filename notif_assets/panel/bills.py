"""A customer's bills as its page shows them: day by day, and by month.

Belongs here: which days a page bills, what a month comes to. Doesn't: making bills (billing/), what the closed days of
a month come to (months.py), files (api.py).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import partial
from itertools import groupby
from operator import attrgetter

from notif_assets.billing import statements
from notif_assets.billing.closed_days import closed_days
from notif_assets.billing.lines import BillRefused
from notif_assets.core.amounts import sum_by_currency
from notif_assets.core.days import days_of_month
from notif_assets.panel.api import Adjustment, Line, bills_of
from notif_assets.panel.snapshot import Customer, Panel, View

_LATEST = 31  # days, of each kind: calendar days, and closed ones
LISTED = 7
"""Of the latest days with a bill, those that a page lists where no month is chosen."""


@dataclass(frozen=True)
class DayBill:
    """A day's bill: its lines and its adjustments."""

    day: date
    status: str
    lines: list[Line]
    adjustments: list[Adjustment]

    @property
    def notifications(self) -> int:
        """Of all lines and adjustments."""
        return sum(line.notifications for line in self.lines) + sum(one.notifications_delta for one in self.adjustments)

    @property
    def amounts(self) -> list[tuple[str, Decimal]]:
        """Of all lines and adjustments, each with its currency."""
        lines = [(line.currency, line.amount) for line in self.lines]
        return lines + [(one.currency, one.amount_delta) for one in self.adjustments]


@dataclass(frozen=True)
class Bills:
    """Days that are billed, newest first; `unpriced`: open days are missing for want of a price."""

    days: list[DayBill]
    unpriced: bool


@dataclass(frozen=True)
class MonthBill:
    """What a month comes to so far: its closed days, and the open ones of late."""

    month: date
    is_final: bool
    notifications: int
    amounts: dict[str, Decimal]


def latest(panel: Panel, customer: Customer, view: View) -> Bills:
    """The bills of late. An open day without messages has none yet, but for today."""
    return _bills(panel, customer, view, statements.billed_days(view.lake, view.overview.day, _LATEST))


def of_month(panel: Panel, customer: Customer, view: View, month: date) -> Bills:
    """The bills of a month, whose first day it is."""
    return _bills(panel, customer, view, [day for day in days_of_month(month) if day <= view.overview.day])


def _bills(panel: Panel, customer: Customer, view: View, days: list[date]) -> Bills:
    lake, today = view.lake, view.overview.day
    prefetched = None
    if customer.customer_id in view.overview.customers:
        prefetched = statements.Prefetched(
            customer.name, partial(view.hours.lines, panel.settings, customer.customer_id)
        )
    try:
        answer, unpriced = bills_of(panel, customer, days, prefetched, lake), False
    except BillRefused:
        closed = closed_days(lake)
        answer, unpriced = bills_of(panel, customer, [day for day in days if day in closed], prefetched, lake), True
    adjustments: dict[date, list[Adjustment]] = {}
    for one in answer.adjustments:
        adjustments.setdefault(one.date, []).append(one)
    bills = []
    for day, group in groupby(answer.lines, attrgetter("date")):
        lines = list(group)
        bill = DayBill(day, lines[0].status, lines, adjustments.get(day, []))
        if bill.notifications or bill.adjustments or bill.status == "final" or day == today:
            bills.append(bill)
    return Bills(bills[::-1], unpriced)


def by_month(view: View, customer: Customer, bills: Iterable[DayBill]) -> list[MonthBill]:
    """The months that the customer has bills of, newest first; this month always. `bills` are the latest ones."""
    closed = view.months.of(customer.customer_id)
    open_days: dict[date, list[DayBill]] = {}
    for bill in bills:
        if bill.status != "final":
            open_days.setdefault(bill.day.replace(day=1), []).append(bill)
    found = []
    for month in sorted({*closed, *open_days, view.overview.day.replace(day=1)}, reverse=True):
        of_closed, of_open = closed.get(month), open_days.get(month, [])
        amounts = (of_closed.amounts if of_closed else []) + [one for bill in of_open for one in bill.amounts]
        notifications = (of_closed.notifications if of_closed else 0) + sum(bill.notifications for bill in of_open)
        found.append(MonthBill(month, month in view.months.final, notifications, sum_by_currency(amounts)))
    return found
