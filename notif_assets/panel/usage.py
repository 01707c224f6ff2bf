"""How much was sent in a period, per channel and step of time: what a chart shows.

Belongs here: which periods there are, where their counts are read. Doesn't: how they are drawn (charts.py), money
(bills.py).

A closed day counts as it is billed, with its adjustments; an open one as of now. A period of one day is counted by
hour, one of at most 92 days by day, a longer one by month; only the last hour is counted by minute.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Literal, TypeAlias
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from notif_assets.billing.closed_days import closed_days
from notif_assets.core.days import FIRST_DAY, day_bounds, days_between, days_of_month, hour_partitions
from notif_assets.lake import Lake, bounds_of_value
from notif_assets.panel.access import Refused
from notif_assets.panel.hours import Hours
from notif_assets.panel.months import scans_of_days
from notif_assets.panel.snapshot import View

PeriodName: TypeAlias = Literal["hora", "dia", "semana", "mes"]
Step: TypeAlias = Literal["minute", "hour", "day", "month"]
Counts: TypeAlias = dict[str, npt.NDArray[np.int64]]

PERIOD = frozenset({"periodo", "de", "ate"})
"""The parameters of an address that ask for a period: one of some name, or from a first to a last day."""

MOST_DAYS = 366
_MOST_BY_DAY = 92
_MOST_OPEN_DAYS = 31  # that are counted for a page, beside those that are in memory
_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
_MINUTES = 60


@dataclass(frozen=True)
class Period:
    """From the day `first` to the day `last`, both included, by its name if it has one; the hour is the last one."""

    name: PeriodName | None
    first: date
    last: date

    @property
    def step(self) -> Step:
        """What one bar of a chart is."""
        days = (self.last - self.first).days + 1
        if self.name == "hora":
            return "minute"
        return "hour" if days == 1 else "day" if days <= _MOST_BY_DAY else "month"

    @property
    def query(self) -> dict[str, str]:
        """The parameters of a page's address that ask for it."""
        return {"periodo": self.name} if self.name else {"de": str(self.first), "ate": str(self.last)}


def period_of(today: date, name: PeriodName | None, first: date | None, last: date | None) -> Period:
    """The period that an address asks for, today if none. Raises Refused for days that nobody may ask for."""
    if first is None and last is None:
        back = {"semana": timedelta(days=6), "mes": timedelta(days=today.day - 1)}
        return Period(name or "dia", today - back.get(name or "dia", timedelta(0)), today)
    if name or first is None or last is None:
        raise Refused(400, "a period has either a name, or a first and a last day")
    if not (FIRST_DAY <= first <= last <= today and (last - first).days < MOST_DAYS):
        raise Refused(400, f"a period ends today at the latest, and has {MOST_DAYS} days at most")
    return Period(None, first, last)


@dataclass(frozen=True)
class Usage:
    """Counts per channel, one for each step."""

    period: Period
    starts: Sequence[datetime] | Sequence[date]
    """Where each step begins: moments for minutes and hours, else days."""
    counts: Counts
    before: npt.NDArray[np.int64] | None = None
    """Of today: the counts of yesterday, all channels."""
    uncounted: Sequence[date] = field(default=())
    """Days that should have been closed long ago, and are not counted here."""

    def average(self, now: datetime) -> float:
        """Of the steps that have begun."""
        begun = sum(start <= now if isinstance(start, datetime) else True for start in self.starts)
        return float(sum(int(counts.sum()) for counts in self.counts.values()) / max(1, begun))


def usage(view: View, zone: ZoneInfo, customer_id: int | None, period: Period, now: datetime) -> Usage:
    """What a customer, or (None) what all of them sent in a period."""
    match period.step:
        case "minute":
            start = now.replace(second=0, microsecond=0) - (_MINUTES - 1) * _MINUTE
            rows = view.hours.minutes(customer_id, hour_partitions(start, now), now)
            return Usage(period, _starts(start, _MINUTE, _MINUTES), binned(rows, start, _MINUTE, _MINUTES))
        case "hour":
            return _hours_of_day(view, zone, customer_id, period)
        case _:
            return _days(view, zone, customer_id, period)


def _starts(start: datetime, step: timedelta, number: int) -> list[datetime]:
    return [start + at * step for at in range(number)]


def binned(rows: pa.Table, start: datetime, step: timedelta, number: int) -> Counts:
    """The notifications of each channel in `number` steps from `start` on; rows outside of them count for nothing."""
    width = step // timedelta(microseconds=1)
    moments = rows["minute"].cast(pa.int64()).to_numpy()
    step_index = (moments - pa.scalar(start, rows["minute"].type).value) // width
    inside = (step_index >= 0) & (step_index < number)
    channels = rows["channel"].combine_chunks().dictionary_encode()
    names = channels.dictionary.to_pylist()
    cell = channels.indices.to_numpy()[inside].astype(np.int64) * number + step_index[inside]
    sums = np.bincount(cell, rows["notifications"].to_numpy()[inside], len(names) * number).astype(np.int64)
    return {name: counts for name, counts in zip(names, sums.reshape(-1, number), strict=True) if counts.any()}


# --- a day by hour ----------------------------------------------------------------------------------------------------


def _hours_of_day(view: View, zone: ZoneInfo, customer_id: int | None, period: Period) -> Usage:
    start, end = day_bounds(period.first, zone)
    number = -((start - end) // _HOUR)
    counts = binned(_by_hour(view, customer_id, start, end), start, _HOUR, number)
    before = None
    if period.first == view.overview.day:
        began, ended = day_bounds(period.first - _DAY, zone)
        rows = _by_hour(view, customer_id, began, ended)
        before = sum(binned(rows, began, _HOUR, number).values(), np.zeros(number, np.int64))
    return Usage(period, _starts(start, _HOUR, number), counts, before)


def _by_hour(view: View, customer_id: int | None, start: datetime, end: datetime) -> pa.Table:
    """Rows per hour from `start`, or finer ones."""
    if start < view.hours.since:
        return _counted(view.lake, customer_id, start, end, _HOUR)
    hours = hour_partitions(start, end)
    if start.minute or end.minute:
        return view.hours.minutes(customer_id, hours, end)
    return view.hours.sums(customer_id, hours)


def _counted(lake: Lake, customer_id: int | None, start: datetime, end: datetime, step: timedelta) -> pa.Table:
    """What is not in memory, in steps from `start` on."""
    minutes = lake.table("minute_aggregates").scan(customer_id=bounds_of_value(customer_id), minute=(start, end))
    since = int(start.timestamp()) * 1_000_000
    return lake.select("customer_counts", {"minutes": minutes}, start=since, step=step // timedelta(microseconds=1))


def between(hours: Hours, customer_id: int | None, start: datetime, end: datetime) -> dict[str, int]:
    """Notifications per channel in [start, end), of the hours that are in memory."""
    edges = {(one.date(), one.hour) for one in (start, end) if one.minute or one.second}
    rows = [hours.sums(customer_id, hour_partitions(start, end) - edges).select(["minute", "channel", "notifications"])]
    if edges:
        rows.append(hours.minutes(customer_id, edges, end))
    counts = binned(pa.concat_tables(rows), start, end - start, 1) if end > start else {}
    return {name: int(count[0]) for name, count in counts.items()}


# --- several days -----------------------------------------------------------------------------------------------------


def _days(view: View, zone: ZoneInfo, customer_id: int | None, period: Period) -> Usage:
    days = list(days_between(period.first, period.last))
    starts = days if period.step == "day" else sorted({day.replace(day=1) for day in days})
    index_of_day = {day: starts.index(day if period.step == "day" else day.replace(day=1)) for day in days}
    counts: Counts = {}

    def add(day: date, channel: str, notifications: int) -> None:
        if channel not in counts:
            counts[channel] = np.zeros(len(starts), np.int64)
        counts[channel][index_of_day[day]] += notifications

    closed = closed_days(view.lake)
    for (day, channel), notifications in _of_closed_days(view.lake, customer_id, closed, set(days)).items():
        add(day, channel, notifications)
    open_days, uncounted = _of_open_days(view, zone, customer_id, [day for day in days if day not in closed])
    for day, of_channels in open_days.items():
        for channel, notifications in of_channels.items():
            add(day, channel, notifications)
    return Usage(period, starts, counts, None, uncounted)


def _of_closed_days(
    lake: Lake, customer_id: int | None, closed: set[date], days: set[date]
) -> dict[tuple[date, str], int]:
    """As billed. Whole months are asked for, whose answers are kept until one of their days changes."""
    found: dict[tuple[date, str], int] = {}
    for month in sorted({day.replace(day=1) for day in closed & days}):
        whole = [day for day in days_of_month(month) if day in closed]
        lines, adjustments = scans_of_days(lake, whole, customer_id=bounds_of_value(customer_id))
        rows = lake.select("billed_days", {"lines": lines, "adjustments": adjustments})
        for day, channel, notifications in zip(*(column.to_pylist() for column in rows.columns), strict=True):
            if day in days:
                found[day, channel] = notifications
    return found


def _of_open_days(
    view: View, zone: ZoneInfo, customer_id: int | None, days: Sequence[date]
) -> tuple[Mapping[date, dict[str, int]], list[date]]:
    """The counts of each open day that may have some, newest first, and the days that are too many."""
    found: dict[date, dict[str, int]] = {}
    uncounted = []
    read = 0
    minutes = view.lake.table("minute_aggregates")
    for day in reversed(days):
        start, end = day_bounds(day, zone)
        if start >= view.hours.since:
            found[day] = between(view.hours, customer_id, start, end)
        elif minutes.scan(minute=(start, end)).files:
            read += 1
            if read > _MOST_OPEN_DAYS:
                uncounted.append(day)
                continue
            rows = _counted(view.lake, customer_id, start, end, end - start)
            found[day] = dict(zip(rows["channel"].to_pylist(), rows["notifications"].to_pylist(), strict=True))
    return found, uncounted
