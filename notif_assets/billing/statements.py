"""The bills that people read: of some days, of a month, of a customer. Read only.

Belongs here: which lines and adjustments they hold, and those of open days as of now. Doesn't: layouts (reports/),
writing a bill (closing.py).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from notif_assets.billing.closed_days import closed_days, currencies_of_days, open_days_that_should_be_closed
from notif_assets.billing.lines import BillRefused, lines_of
from notif_assets.billing.prices import with_currency
from notif_assets.core.days import day_bounds, days_between, days_of_month
from notif_assets.lake import Lake, bounds_of_value
from notif_assets.notifications.ledger import complete_until
from notif_assets.notifications.queries import customer_names, nullable, rows_of, set_columns
from notif_assets.reports import billing_entries
from notif_assets.reports.statement import Statement
from notif_assets.settings import Settings

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Prefetched:
    """What the caller knows of a customer, so that it is not read again: the name, and the lines of an open day under
    any name (None: they must be counted)."""

    name: str
    lines: Callable[[date], pa.Table | None]


def bills(
    lake: Lake,
    settings: Settings,
    days: Sequence[date],
    customer_id: int | None = None,
    channel: str | None = None,
    prefetched: Prefetched | None = None,
    unpriced: list[BillRefused] | None = None,
) -> tuple[pa.Table, pa.Table]:
    """The lines and adjustments of these days; an open day is billed provisionally as of now, without being written.

    A known customer without messages has a line of zero for each day, with the channel asked for. The channel's case is
    ignored. Raises BillRefused for an open day that can't be priced; or puts it into `unpriced`, and gives what has a
    price.
    """
    known = {customer_id: prefetched.name} if prefetched else customer_names(lake, customer_id)
    closed = closed_days(lake).intersection(days)
    partitions = {(day,) for day in closed}
    written, adjustments = (
        rows_of(
            lake.rows(lake.table(name).scan(partitions, customer_id=bounds_of_value(customer_id))), None, channel
        ).cast(nullable(name))
        for name in ("daily_billing", "billing_adjustments")
    )
    adjustments = with_currency(lake, adjustments)
    lines = [written]
    aggregates = lake.table("minute_aggregates")
    for day in days:
        if day in closed:
            continue
        day_lines = prefetched.lines(day) if prefetched else None
        if prefetched and day_lines is not None:
            day_lines = set_columns(day_lines, customer_name=prefetched.name)
        else:
            if not aggregates.scan(minute=day_bounds(day, settings.zone)).files:
                continue  # counting a day without messages would cost as much as counting any other
            day_lines, _ = lines_of(lake, settings, day, "provisional", "report", customer_id, None, unpriced)
        lines.append(rows_of(day_lines.select(written.schema.names), None, channel).cast(written.schema))
    if customer_id is not None:
        days_with_rows = {day for table in lines for day in table["billing_date"].to_pylist()}
        empty = [day for day in days if day not in days_with_rows]
        nothing = {"customer_id": customer_id, "customer_name": known[customer_id], "channel": channel}
        lines.append(_zero_lines(lake, nothing, empty, closed))
    return pa.concat_tables(lines), adjustments


def _zero_lines(
    lake: Lake, customer_columns: Mapping[str, object], days: Sequence[date], closed: Collection[date]
) -> pa.Table:
    """A line with zero notifications for each day, in the currency of the day's price list."""
    currencies = currencies_of_days(lake, days)
    rows = [
        {
            **customer_columns,
            "notifications": 0,
            "amount": Decimal(0),
            "billing_date": day,
            "currency": currencies[day],
            "status": "final" if day in closed else "provisional",
        }
        for day in days
    ]
    return pa.Table.from_pylist(rows, schema=nullable("daily_billing"))


def statement(
    lake: Lake, settings: Settings, customer_id: int, month: date, day: date, prefetched: Prefetched | None = None
) -> Statement:
    """The customer's month, whose first day is `month`, as it is on `day`. Raises Unknown; ValueError for a month that
    is still to come.

    An open day's channels without a price are left out, and the statement names the day.
    """
    if month > day:
        raise ValueError(f"{month:%Y-%m} has not begun")
    days = days_of_month(month)
    past = [one for one in days if one <= day]
    unpriced: list[BillRefused] = []
    lines, adjustments = bills(lake, settings, past, customer_id, None, prefetched, unpriced)
    entries = billing_entries(lines.filter(pc.is_valid(lines["channel"])), adjustments)
    names = lines["customer_name"].to_pylist()
    return Statement(
        customer_id=customer_id,
        customer_name=names[-1] or "",
        month=month,
        entries=entries,
        open_days=tuple(days_still_open(lake, settings, days)),
        unpriced_days=tuple(sorted({refused.day for refused in unpriced})),
        currency=currencies_of_days(lake, past[-1:])[past[-1]],
    )


def days_still_open(lake: Lake, settings: Settings, days: Sequence[date]) -> list[date]:
    """The open days that may still get a bill: those not yet counted completely, and earlier ones that should be
    closed."""
    until = complete_until(lake, lake.table("minute_aggregates").watermark)
    closed = closed_days(lake)
    not_closed = [day for day in days if day not in closed]
    if until is None:
        return not_closed
    due = set(open_days_that_should_be_closed(lake, settings))
    counted = until - settings.grace
    return [day for day in not_closed if day in due or day_bounds(day, settings.zone)[1] > counted]


def billed_days(lake: Lake, day: date, most: int = 31) -> list[date]:
    """The days whose bills a page shows on `day`: the newest closed ones, and the last calendar days, closed or open,
    `most` of each. A day that failed to close is among them."""
    closed = sorted(closed_days(lake))
    return sorted({*closed[-most:], *days_between(day - (most - 1) * _DAY, day)})
