"""Which days are closed, which should be, and what each one's record says.

Belongs here: reading billing_days, and the day's part of a table. Doesn't: closing a day (closing.py).
"""

from collections.abc import Collection, Sequence
from datetime import date, timedelta
from typing import Any

from notif_assets.billing.prices import currencies, prices_in_force
from notif_assets.core.days import day_bounds, fill_short_gaps
from notif_assets.lake import Lake, LakeError, Scan, Table
from notif_assets.notifications.audit import much_rejected
from notif_assets.notifications.ledger import complete_until
from notif_assets.notifications.silver import days_with_messages
from notif_assets.settings import Settings

_QUIET_DAYS = 31


class FirstDayMoved(LakeError):
    """Days are closed that this deployment no longer bills: what comes late to them could never be corrected."""


def require_first_day(lake: Lake, settings: Settings) -> None:
    """Raises FirstDayMoved if a day before NOTIF_FIRST_DAY is closed."""
    first = min(closed_days(lake), default=settings.first_day)
    if first < settings.first_day:
        raise FirstDayMoved(
            f"{first} is closed, and NOTIF_FIRST_DAY says {settings.first_day}: set it to {first} or an earlier day"
        )


def closed_days(lake: Lake) -> set[date]:
    """Every day that is closed."""
    return set(lake.rows(lake.table("billing_days").scan())["billing_date"].to_pylist())


def open_days_that_should_be_closed(lake: Lake, settings: Settings, since: timedelta = timedelta(0)) -> list[date]:
    """Open days that may close: everything is counted up to their end plus NOTIF_GRACE plus `since`. In order.

    They are the days with messages and the quiet days between them. A gap of more than 31 days is not filled: a replay
    of an old year needs its own days, not all days up to today.

    Raises FirstDayMoved.
    """
    require_first_day(lake, settings)
    until = complete_until(lake, lake.table("minute_aggregates").watermark)
    if until is None:
        return []
    past = until - settings.grace - since
    last = past.astimezone(settings.zone).date()
    closed = closed_days(lake)
    days = days_with_messages(lake.table("notifications"), settings)
    known = sorted({day for day in (*days, *closed) if settings.first_day <= day <= last})
    return [
        day
        for day in fill_short_gaps(known, last, _QUIET_DAYS)
        if day not in closed and day_bounds(day, settings.zone)[1] <= past
    ]


def days_before_first_billing_day(lake: Lake, settings: Settings) -> list[date]:
    """Days before NOTIF_FIRST_DAY that have messages: they were accepted when it was earlier, or by an earlier version,
    and no bill has them."""
    return [day for day in days_with_messages(lake.table("notifications"), settings) if day < settings.first_day]


def losses_noted(lake: Lake, day: date) -> str | None:
    """The accepted losses in the time when the closed day's messages arrived; None if there were none."""
    rows = rows_of_day(lake, lake.table("billing_days"), day)
    return next((row["note"] for row in rows if row["status"] == "final"), None)


def rejections_noted(lake: Lake, settings: Settings, day: date) -> str | None:
    """A sentence if many messages were rejected from the day's start until a day after it may close; None if few were.
    A rejected message has no known day."""
    start, end = day_bounds(day, settings.zone)
    until = end + settings.grace + timedelta(days=1)
    found = much_rejected(lake, settings, start, until, f"that came from {day} on")
    return found[0] if found else None


def is_closed(lake: Lake, day: date) -> bool:
    """Whether the day is closed."""
    return bool(rows_of_day(lake, lake.table("billing_days"), day))


def rows_of_day(lake: Lake, table: Table, day: date) -> list[dict[str, Any]]:
    return [row for row in lake.rows(table.scan()).to_pylist() if row["billing_date"] == day]


def closed_rows(lake: Lake) -> dict[date, list[dict[str, Any]]]:
    """The rows of billing_days by day: of each closed day the one that closed it, and one for each time it was priced
    anew."""
    closed: dict[date, list[dict[str, Any]]] = {}
    for row in lake.rows(lake.table("billing_days").scan()).to_pylist():
        closed.setdefault(row["billing_date"], []).append(row)
    return closed


def newest_row(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row of a day in billing_days whose price list is in force."""
    return max(rows, key=lambda row: row["closed_at"])


def day_scan(table: Table, day: date) -> Scan:
    return table.scan(partitions={(day,)})


def currencies_of_days(lake: Lake, days: Collection[date]) -> dict[date, str]:
    """The currency of the price list in force for each day: of a closed day its newest list, else the current one."""
    closed = {day: rows for day, rows in closed_rows(lake).items() if day in days}
    versions = {day: newest_row(rows)["price_version"] for day, rows in closed.items()}
    known = currencies(lake)
    current = prices_in_force(lake)[1]["currency"][0].as_py()
    return {day: known[versions[day]] if day in versions else current for day in days}
