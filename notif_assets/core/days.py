"""Billing days: calendar days of one time zone, as instants in UTC.

Belongs here: which day an instant falls on, and where a day begins and ends. Doesn't: when a day may close (billing/).
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

FIRST_DAY: Final = date(2015, 1, 1)
"""The first billing day there may be; a deployment may begin later (NOTIF_FIRST_DAY)."""

_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)


def day_start(day: date, zone: ZoneInfo) -> datetime:
    """The first instant of `day` in `zone`, in UTC: if the clock skips midnight, the instant at which it skips.

    >>> day_start(date(2020, 2, 3), ZoneInfo("America/Sao_Paulo"))
    datetime.datetime(2020, 2, 3, 3, 0, tzinfo=datetime.timezone.utc)
    >>> day_start(date(2018, 11, 4), ZoneInfo("America/Sao_Paulo"))  # began at 01:00, summer time
    datetime.datetime(2018, 11, 4, 3, 0, tzinfo=datetime.timezone.utc)
    >>> day_start(date(2018, 2, 18), ZoneInfo("America/Sao_Paulo"))  # the hour before midnight came twice
    datetime.datetime(2018, 2, 18, 3, 0, tzinfo=datetime.timezone.utc)
    """
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    return midnight.astimezone(UTC)


def day_bounds(day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """[start, end) of `day` in UTC; 23 to 25 hours where the clock changes."""
    return day_start(day, zone), day_start(day + _DAY, zone)


def day_of(instant: datetime, zone: ZoneInfo) -> date:
    """The billing day of an instant: the one whose bounds hold it.

    That is its date in `zone`, except when the clock goes back past midnight (from 00:01 to 23:01): the repeated hour
    belongs to the new day, because a day is one unbroken span of time.
    """
    day = instant.astimezone(zone).date()
    start, end = day_bounds(day, zone)
    return day - _DAY if instant < start else day + _DAY if instant >= end else day


def days_between(first: date, last: date) -> Iterator[date]:
    """Every day from `first` to `last`, both included."""
    for offset in range((last - first).days + 1):
        yield first + offset * _DAY


def days_of_month(month: date) -> list[date]:
    """Every day of the month whose first day it is.

    >>> days_of_month(date(2020, 2, 1))[-1], len(days_of_month(date(2019, 12, 1)))
    (datetime.date(2020, 2, 29), 31)
    """
    return list(days_between(month, (month + 31 * _DAY).replace(day=1) - _DAY))


def fill_short_gaps(days: Sequence[date], last: date, most: int) -> list[date]:
    """`days` in order, with gaps of at most `most` days filled; no day is after `last`.

    >>> fill_short_gaps([date(2016, 3, 1), date(2020, 2, 3)], date(2020, 2, 5), 31)[1:]
    [datetime.date(2020, 2, 3), datetime.date(2020, 2, 4), datetime.date(2020, 2, 5)]
    """
    found: list[date] = []
    for day, after in pairwise([*days, last + _DAY]):
        found += days_between(day, after - _DAY) if (after - day).days <= most + 1 else [day]
    return found


def format_ranges(moments: Iterable[date], step: timedelta, form: str, to: str = " to ", most: int = 5) -> str:
    """Moments as ranges: neighbours that are `step` apart share one. At most `most` ranges are written.

    >>> format_ranges([date(2020, 2, day) for day in (1, 2, 3, 9)], timedelta(days=1), "%Y-%m-%d")
    '2020-02-01 to 2020-02-03, 2020-02-09'
    """
    found: list[list[date]] = []
    for moment in sorted(moments):
        if found and moment - found[-1][-1] == step:
            found[-1][1:] = [moment]
        else:
            found.append([moment])
    more = f" … and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(to.join(f"{edge:{form}}" for edge in one) for one in found[:most]) + more


def days_of_hours(hours: Iterable[datetime], zone: ZoneInfo) -> list[date]:
    """Every billing day that shares an instant with one of the UTC hours beginning at `hours`."""
    edges = (instant for hour in hours for instant in (hour, hour + _HOUR - timedelta(microseconds=1)))
    return sorted({day_of(instant, zone) for instant in edges})


def hour_partitions(start: datetime, end: datetime) -> set[tuple[date, int]]:
    """The (event_date, event_hour) partitions that hold [start, end).

    >>> sorted(hour_partitions(datetime(2020, 1, 1, 23, 30, tzinfo=UTC), datetime(2020, 1, 2, 1, tzinfo=UTC)))
    [(datetime.date(2020, 1, 1), 23), (datetime.date(2020, 1, 2), 0)]
    """
    hour = start.replace(minute=0, second=0, microsecond=0)
    found = set()
    while hour < end:
        found.add((hour.date(), hour.hour))
        hour += _HOUR
    return found
