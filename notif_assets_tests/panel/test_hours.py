"""What a customer's page says of minutes, hours, yesterday and open days is what the rows of the table say.

Belongs here: the counts that the panel keeps in memory, against plain Python. Doesn't: how they look (test_pages.py).
"""

import random
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from starlette.requests import Request

from notif_assets.billing.price_list import parse_price_list
from notif_assets.billing.prices import load_prices
from notif_assets.lake import SCHEMAS, Lake
from notif_assets.panel import pages
from notif_assets.panel.snapshot import Panel
from notif_assets.settings import Settings
from notif_assets_tests.conftest import Asked

NOW = datetime(2026, 3, 10, 17, 23, 41, tzinfo=UTC)
COUNTED_UNTIL = datetime(2026, 3, 10, 17, 21, 30, tzinfo=UTC)
CUSTOMERS = (1, 2, 7)
CHANNELS = ("Whatsapp", "SMS")
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
Rows = list[dict[str, Any]]


@pytest.fixture(params=["UTC", "America/Sao_Paulo", "Asia/Kolkata"])
def settings(tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    """Of a lake with prices, in a zone whose days begin at an hour of UTC, or half past one."""
    settings = Settings(data=tmp_path, timezone=request.param)
    prices = files("notif_assets") / "samples" / "prices-demo.csv"
    with Lake(settings.lake) as lake:
        load_prices(lake, parse_price_list(prices.read_bytes(), "prices-demo.csv"))
        rows = [
            {
                "billing_date": NOW.astimezone(settings.zone).date(),
                "customer_id": customer,
                "customer_name": f"customer {customer}",
                "channel": channel,
                "notifications": 0,
                "updated_at": COUNTED_UNTIL,
            }
            for customer in CUSTOMERS
            for channel in CHANNELS
        ]
        lake.table("customer_panel").append(pa.Table.from_pylist(rows, SCHEMAS["customer_panel"].arrow))
    return settings


def _append(settings: Settings, rows: Rows) -> None:
    with Lake(settings.lake) as lake:
        lake.table("minute_aggregates").append(pa.Table.from_pylist(rows, SCHEMAS["minute_aggregates"].arrow))
        panel = lake.table("customer_panel")
        panel.replace(lake.rows(panel.scan()), None)  # it is written last


def _row(minute: datetime, customer: int, channel: str, notifications: int) -> dict[str, Any]:
    return {
        "batch": 1,
        "customer_id": customer,
        "customer_name": f"customer {customer}",
        "channel": channel,
        "minute": minute,
        "notifications": notifications,
        "first_event": minute,
        "last_event": minute + timedelta(seconds=59),
        "event_date": minute.date(),
        "event_hour": minute.hour,
    }


def _random_rows(chance: random.Random) -> Rows:
    """Over the last 60 hours, and some minutes that come."""
    last = NOW.replace(second=0, microsecond=0) + 5 * MINUTE
    minutes = chance.sample(range(60 * 60), 900) + list(range(80))
    return [
        _row(last - at * MINUTE, chance.choice(CUSTOMERS), chance.choice(CHANNELS), chance.randint(1, 9))
        for at in minutes
    ]


def _page(panel: Panel, customer: int, **asked: Any) -> dict[str, Any]:
    request = Request({"type": "http", "headers": []})
    shown = pages.shown(panel, **asked)
    return pages._customer(request, panel, panel.overview.customers[customer], panel.view, shown)


def _counted(rows: Rows, customer: int, start: datetime, end: datetime) -> Counter[str]:
    counts: Counter[str] = Counter()
    for row in rows:
        if row["customer_id"] == customer and start <= row["minute"] < end:
            counts[row["channel"]] += row["notifications"]
    return counts


def _bounds(day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    start, end = (datetime(d.year, d.month, d.day, tzinfo=zone) for d in (day, day + timedelta(days=1)))
    return start.astimezone(UTC), end.astimezone(UTC)


def _require_exact(panel: Panel, rows: Rows, customer: int, priced: bool = True) -> None:
    page, zone = _page(panel, customer), panel.settings.zone
    minute = NOW.replace(second=0, microsecond=0)
    today, hour_of_late = _bounds(NOW.astimezone(zone).date(), zone), _page(panel, customer, periodo="hora")
    for drawn, first, step, number, end in (
        (hour_of_late, minute - 59 * MINUTE, MINUTE, 60, minute + MINUTE),
        (page, today[0], HOUR, 24, today[1]),
    ):
        starts = [first + at * step for at in range(number)]
        wanted = [_counted(rows, customer, at, min(at + step, end)) for at in starts]
        bars = drawn["chart"].bars
        assert [dict(bar.values) for bar in bars] == [+counts for counts in wanted]
        assert [bar.total for bar in bars] == [counts.total() for counts in wanted]
    of_yesterday = [_counted(rows, customer, at - DAY, at - DAY + HOUR).total() for at in starts]
    assert [bar.before for bar in page["chart"].bars] == of_yesterday
    day, start = NOW.astimezone(zone).date(), today[0]
    before = start - timedelta(days=1)
    until = before + (COUNTED_UNTIL - start) // MINUTE * MINUTE
    assert {one.channel: one.yesterday for one in page["channels"]} == {
        channel: _counted(rows, customer, before, until)[channel] for channel in CHANNELS
    }
    assert page["unpriced"] is not priced
    billed = {bill.day: {line.channel: line.notifications for line in bill.lines} for bill in page["bills"]}
    expected = {
        past: dict(counts)
        for past in (day, day - DAY, day - 2 * DAY)
        if (counts := _counted(rows, customer, *_bounds(past, zone)))
    }
    assert billed == (expected if priced else {})


def test_a_page_says_what_the_table_says_also_after_late_rows(settings: Settings, asked: list[Asked]) -> None:
    chance = random.Random(settings.timezone)
    rows = _random_rows(chance)
    _append(settings, rows)
    panel = Panel(settings, lambda: NOW)
    asked.clear()
    for customer in CUSTOMERS:
        _require_exact(panel, rows, customer)
    whole_hours = settings.timezone != "Asia/Kolkata"
    times = Counter(question.name for question in asked)
    assert times["hour_sums"] >= 48
    pages_read = 2 * len(CUSTOMERS)
    assert times["daily_billing"] == (2 if whole_hours else 2 * pages_read) + pages_read  # two days ago: asked
    late = [_row(NOW.replace(minute=7, second=0) - back * HOUR, 7, "SMS", 3) for back in (0, 5, 30)]
    _append(settings, late)
    asked.clear()
    panel.refresh()
    assert Counter(question.name for question in asked)["hour_sums"] == 3
    for customer in CUSTOMERS:
        _require_exact(panel, rows + late, customer)


def test_a_customer_without_a_price_is_no_other_s_concern(settings: Settings) -> None:
    rows = _random_rows(random.Random(0))
    unpriced = _row(NOW.replace(second=0) - 2 * HOUR, 2, "Fax", 4)
    _append(settings, [*rows, unpriced])
    panel = Panel(settings, lambda: NOW)
    _require_exact(panel, rows, 1)
    assert _page(panel, 2)["unpriced"]
