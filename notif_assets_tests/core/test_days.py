"""Billing days: every instant in exactly one, without gap, whatever the clock does."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from notif_assets.core.days import day_bounds, day_of, day_start, days_between, days_of_hours, hour_partitions

SAO_PAULO, KATHMANDU, PLAIN = ZoneInfo("America/Sao_Paulo"), ZoneInfo("Asia/Kathmandu"), ZoneInfo("UTC")
ST_JOHNS = ZoneInfo("America/St_Johns")  # until 2011 its clocks went back at 00:01, into the day before
DAY, HOUR, US = timedelta(days=1), timedelta(hours=1), timedelta(microseconds=1)

zones = st.sampled_from([SAO_PAULO, KATHMANDU, PLAIN, ST_JOHNS, ZoneInfo("Pacific/Apia"), ZoneInfo("America/Havana")])
instants = st.one_of(
    st.datetimes(datetime(1990, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.sampled_from(
        ["2018-02-18T03:00", "2018-11-04T03:00", "2017-10-15T03:00", "2010-11-07T02:31", "2011-12-30T10:00"]
    )
    .map(lambda text: datetime.fromisoformat(text + "+00:00"))
    .flatmap(lambda t: st.timedeltas(-2 * DAY, 2 * DAY).map(lambda near: t + near)),
)


@given(zones, instants)
@example(ST_JOHNS, datetime(2010, 11, 7, 3, 0, tzinfo=UTC))
def test_every_instant_belongs_to_exactly_one_day(zone: ZoneInfo, instant: datetime) -> None:
    day = day_of(instant, zone)
    holding = [
        d
        for d in days_between(day - 3 * DAY, day + 3 * DAY)
        if day_bounds(d, zone)[0] <= instant < day_bounds(d, zone)[1]
    ]
    assert holding == [day]


@given(st.sampled_from([SAO_PAULO, KATHMANDU, PLAIN]), instants)
def test_a_day_is_the_date_on_the_wall(zone: ZoneInfo, instant: datetime) -> None:
    assert day_of(instant, zone) == instant.astimezone(zone).date()


@given(zones, st.dates(date(1990, 1, 1), date(2040, 1, 1)))
def test_bounds_tile(zone: ZoneInfo, day: date) -> None:
    start, end = day_bounds(day, zone)
    assert end == day_bounds(day + DAY, zone)[0] == day_start(day + DAY, zone)
    assert timedelta(0) <= end - start <= 25 * HOUR


@pytest.mark.parametrize(
    ("day", "zone", "start", "hours"),
    [
        (date(2020, 2, 3), PLAIN, "2020-02-03T00:00+00:00", 24),
        (date(2020, 2, 3), SAO_PAULO, "2020-02-03T03:00+00:00", 24),
        (date(2018, 2, 17), SAO_PAULO, "2018-02-17T02:00+00:00", 25),
        (date(2018, 2, 18), SAO_PAULO, "2018-02-18T03:00+00:00", 24),
        (date(2018, 11, 4), SAO_PAULO, "2018-11-04T03:00+00:00", 23),
        (date(2020, 2, 3), KATHMANDU, "2020-02-02T18:15+00:00", 24),
        (date(2011, 12, 30), ZoneInfo("Pacific/Apia"), "2011-12-30T10:00+00:00", 0),  # a day that never was
    ],
)
def test_days_where_the_clock_changes(day: date, zone: ZoneInfo, start: str, hours: int) -> None:
    begins, ends = day_bounds(day, zone)
    assert begins == datetime.fromisoformat(start)
    assert ends - begins == hours * HOUR


@given(zones, st.lists(instants, max_size=5))
def test_days_of_hours_has_every_day_that_an_instant_of_the_hours_falls_on(
    zone: ZoneInfo, some: list[datetime]
) -> None:
    hours = [instant.replace(minute=0, second=0, microsecond=0) for instant in some]
    quarters = [
        hour + minutes for hour in hours for minutes in (timedelta(0), HOUR / 4, HOUR / 2, HOUR * 3 / 4, HOUR - US)
    ]
    assert set(days_of_hours(hours, zone)) >= {day_of(instant, zone) for instant in quarters}
    assert days_of_hours(hours, zone) == sorted(set(days_of_hours(hours, zone)))


@given(instants, st.timedeltas(timedelta(0), 3 * DAY))
def test_hours_of_are_the_hours_that_a_stretch_touches(start: datetime, length: timedelta) -> None:
    hour, touched = start.replace(minute=0, second=0, microsecond=0), set()
    while hour < start + length:
        touched.add((hour.date(), hour.hour))
        hour += HOUR
    assert hour_partitions(start, start + length) == touched


def test_days_between() -> None:
    assert list(days_between(date(2020, 2, 28), date(2020, 3, 1))) == [date(2020, 2, 28 + n) for n in (0, 1)] + [
        date(2020, 3, 1)
    ]
    assert list(days_between(date(2020, 2, 3), date(2020, 2, 2))) == []
