"""Messages that come late, again, or for days that are closed: late by a minute to 40 days, across every midnight.

Belongs here: what late and repeated messages do to the books of closed days. Doesn't: which of two counts in silver
(notifications/test_duplicates.py), any history at all (test_history.py).
"""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest

from notif_assets.billing import closing, prices
from notif_assets.billing.audit import closed_days_that_differ
from notif_assets.billing.price_list import parse_price_list
from notif_assets.lake import Lake
from notif_assets.notifications import bronze, catch_up
from notif_assets.notifications.ledger import plan_move
from notif_assets.settings import Settings
from notif_assets_tests import books
from notif_assets_tests.streams import (
    DAY,
    HOUR,
    NOON,
    Clock,
    MemoryLog,
    Oracle,
    Row,
    assert_tables,
    rows_of,
    sent,
    written_adjustments,
)

MINUTE = timedelta(minutes=1)
MONDAY, TUESDAY, WEDNESDAY = (date(2020, 2, day) for day in (3, 4, 5))
FOUR_CENTS = Decimal("0.04")
BOOKS = ("daily_billing", "billing_days")


class Office:
    """A lake and its topic, in which time goes on: messages have the moment at which they reach Kafka."""

    def __init__(self, lake: Lake, clock: Clock, **options: object) -> None:
        self.lake, self.clock, self.log = lake, clock, MemoryLog(1)
        self.settings = Settings(**options)  # type: ignore[arg-type]
        self.number = 0
        self.price("0.04")

    def price(self, each: str) -> None:
        lines = (
            f"customer_id,channel,unit_price,currency,valid_from,valid_to\n,Whatsapp,{each},BRL,,\n,SMS,{each},BRL,,"
        )
        prices.load_prices(self.lake, parse_price_list(lines.encode(), "p.csv"))

    def arrive(self, *events: datetime, **fields: object) -> None:
        """Messages that reach Kafka now, in one batch."""
        for event in events:
            self.number += 1
            self.log.produce(sent(event, at=self.clock.now, **{"message_id": str(self.number), **fields}))
        bronze.advance_bronze_by_one(self.lake, self.log, self.settings, "run", even_if_quiet=True)
        catch_up.advance_tables(self.lake, self.settings)

    def close(self, *days: date) -> None:
        for day in days:
            books.close_day(self.lake, self.settings, self.log, day, "run")

    def lines(self, day: date) -> dict[int, int]:
        return {row["customer_id"]: row["notifications"] for row in self.of("daily_billing", day)}

    def adjusted(self, day: date) -> dict[int, int]:
        found: Counter[int] = Counter()
        for row in self.of("billing_adjustments", day):
            found[row["customer_id"]] += row["notifications_delta"]
        return dict(found)

    def of(self, book: str, day: date) -> list[Row]:
        return [row for row in rows_of(self.lake, book) if row["billing_date"] == day]

    def assert_exact(self) -> None:
        assert_tables(self.lake, Oracle(self.log, self.settings.zone))
        assert closed_days_that_differ(self.lake, self.settings) == {}


@pytest.fixture
def office(lake: Lake) -> Iterator[Office]:
    """Monday noon."""
    with pytest.MonkeyPatch.context() as patch:
        yield Office(lake, Clock(patch, NOON))


# --- late by a minute to 40 days ------------------------------------------------------------------------------------

LATE = (MINUTE, 59 * MINUTE, HOUR, 61 * MINUTE, 3 * HOUR, DAY - MINUTE, DAY, 25 * HOUR, 7 * DAY, 40 * DAY)
BY_THE_CLOCK = [
    # The days around a change of clocks in São Paulo, as instants: where each begins, and where the last one ends.
    (date(2018, 2, 16), "2018-02-16T02", "2018-02-17T02", "2018-02-18T03", "2018-02-19T03"),  # the 17th has 25 hours
    (date(2018, 11, 3), "2018-11-03T03", "2018-11-04T03", "2018-11-05T02", "2018-11-06T02"),  # the 4th has 23
    (date(2019, 2, 15), "2019-02-15T02", "2019-02-16T02", "2019-02-17T03", "2019-02-18T03"),  # the 16th has 25
    (date(2019, 11, 2), "2019-11-02T03", "2019-11-03T03", "2019-11-04T03", "2019-11-05T03"),  # abolished: 24 each
]


@pytest.mark.parametrize(("first", "edges"), [(row[0], row[1:]) for row in BY_THE_CLOCK], ids=lambda v: str(v)[:12])
def test_late_by_a_minute_to_40_days_across_midnight_and_a_change_of_clocks(
    office: Office, first: date, edges: tuple[str, ...]
) -> None:
    """Each message is a line or an adjustment of the day it happened on, by when it arrived, and never both."""
    office.settings = Settings(timezone="America/Sao_Paulo")
    bounds = [datetime.fromisoformat(f"{edge}:00:00+00:00") for edge in edges]
    days = [first + n * DAY for n in range(3)]
    coming: list[tuple[datetime, datetime, int]] = []  # arrives, happened, customer: one for each day
    for customer, (start, end) in enumerate(pairwise(bounds), 1):
        for event in (start, start + 59 * MINUTE, end - HOUR, end - 61 * MINUTE, end - timedelta(microseconds=1)):
            coming += [(event + late, event, customer) for late in LATE]
    closes_at = {day: end + HOUR for day, end in zip(days, bounds[1:], strict=True)}
    moments = sorted({*closes_at.values(), bounds[1], *(bounds[-1] + n * DAY for n in (1, 8, 41))})
    expected_lines: dict[date, Counter[int]] = {day: Counter() for day in days}
    expected_late: dict[date, Counter[int]] = {day: Counter() for day in days}
    for before, now in pairwise([bounds[0] - HOUR, *moments]):
        office.clock.now = now
        for arrives, event, customer in sorted(coming):
            if before < arrives <= now:
                day = days[customer - 1]
                (expected_lines if arrives <= closes_at[day] else expected_late)[day][customer] += 1
                office.number += 1
                office.log.produce(sent(event, at=arrives, customer_id=customer, message_id=str(office.number)))
        office.arrive()
        for day in days:
            if now >= closes_at[day]:
                office.close(day)
            else:
                with pytest.raises(closing.NotClosable):
                    office.close(day)
    for day in days:
        assert office.lines(day) == dict(expected_lines[day])
        assert office.adjusted(day) == dict(expected_late[day])
        assert sum(office.lines(day).values()) + sum(office.adjusted(day).values()) == 5 * len(LATE)
        assert {row["reason"] for row in office.of("billing_adjustments", day)} == {"late"}
    office.assert_exact()


def test_a_message_later_than_allowed_is_rejected_and_its_day_stays(office: Office) -> None:
    office.settings = Settings(max_event_age=40 * DAY)
    office.arrive(NOON)
    office.clock.advance(2 * DAY)
    office.arrive()
    office.close(MONDAY)
    office.clock.now = NOON + 40 * DAY
    office.arrive(NOON, NOON - timedelta(milliseconds=1), customer_id=2)
    office.close(MONDAY)
    assert (office.lines(MONDAY), office.adjusted(MONDAY)) == ({1: 1}, {2: 1})
    assert [row["reason"] for row in rows_of(office.lake, "rejected_notifications")] == ["event_too_early"]


# --- the same message again -----------------------------------------------------------------------------------------


def test_again_with_the_same_time_changes_no_day_however_late(office: Office) -> None:
    office.arrive(NOON, message_id="m")
    for wait in (MINUTE, 13 * HOUR, DAY, 40 * DAY):
        office.clock.advance(wait)
        office.arrive(NOON, message_id="m")
        if office.clock.now > NOON + DAY:
            office.close(MONDAY)
    assert (office.lines(MONDAY), office.adjusted(MONDAY)) == ({1: 1}, {})
    assert [row["reason"] for row in rows_of(office.lake, "rejected_notifications")] == ["duplicate"] * 4
    office.assert_exact()


@pytest.mark.parametrize("closed", [(), (MONDAY,), (MONDAY, TUESDAY), (TUESDAY, MONDAY)], ids=str)
def test_again_with_another_time_counts_on_one_of_neighbouring_days(office: Office, closed: tuple[date, ...]) -> None:
    """On Monday, on Tuesday and on Wednesday by its event: the first counts, the next is its duplicate, and the third
    is two days from the first. Whenever the days close, the bill is the same."""
    office.clock.now = NOON + 2 * DAY
    office.arrive(NOON, message_id="m")
    office.close(*closed)
    office.arrive(NOON + DAY, message_id="m")
    office.arrive(NOON + 2 * DAY, message_id="m")
    office.clock.advance(2 * DAY)
    office.arrive()
    office.close(MONDAY, TUESDAY, WEDNESDAY)
    billed = [(office.lines(day), office.adjusted(day)) for day in (MONDAY, TUESDAY, WEDNESDAY)]
    assert billed == [({1: 1}, {}), ({}, {}), ({1: 1}, {})]
    office.assert_exact()


def test_again_for_a_closed_day_when_an_open_one_has_it(office: Office) -> None:
    """Tuesday's came first; what happened on Monday comes after Monday closed."""
    office.clock.now = NOON + DAY
    office.arrive(NOON + DAY, message_id="m")
    office.close(MONDAY)
    office.arrive(NOON, message_id="m")
    office.arrive(NOON - DAY, message_id="m")
    office.clock.advance(DAY)
    office.arrive()
    office.close(MONDAY, TUESDAY, MONDAY - DAY)
    assert (office.lines(MONDAY), office.adjusted(MONDAY), office.lines(TUESDAY)) == ({}, {}, {1: 1})
    assert office.lines(MONDAY - DAY) == {1: 1}
    office.assert_exact()


def test_again_across_a_midnight_of_25_hours(office: Office) -> None:
    """23:30 comes twice on 17 February 2018 in São Paulo: two instants of one day, and one message."""
    office.settings = Settings(timezone="America/Sao_Paulo")
    saturday = date(2018, 2, 17)
    summer, winter = (datetime(2018, 2, 18, hour, 30, tzinfo=UTC) for hour in (1, 2))
    office.clock.now = winter + DAY
    office.arrive(summer, message_id="m")
    office.arrive(winter, message_id="m")
    office.close(saturday)
    office.arrive(winter, summer, winter + HOUR, message_id="m")  # the last one on the 18th
    office.clock.advance(DAY)
    office.arrive()
    office.close(saturday, saturday + DAY)
    assert (office.lines(saturday), office.adjusted(saturday)) == ({1: 1}, {})
    assert office.lines(saturday + DAY) == {}
    office.assert_exact()


@pytest.mark.parametrize("change", [{"payload": "Tchau"}, {"customer_name": "Zeta"}, {"channel": "SMS"}], ids=str)
def test_again_with_another_content_is_a_conflict_and_the_first_is_what_is_billed(
    office: Office, change: dict[str, str]
) -> None:
    office.arrive(NOON, message_id="m")
    office.arrive(NOON, message_id="m", **change)
    office.arrive(NOON + 3 * HOUR, message_id="m", **change)
    office.clock.advance(2 * DAY)
    office.arrive()
    office.close(MONDAY)
    office.arrive(NOON, message_id="m", **change)
    office.arrive(NOON + DAY, message_id="m", **change)
    office.close(MONDAY, TUESDAY)
    (line,) = rows_of(office.lake, "daily_billing")
    assert (line["notifications"], line["channel"], line["customer_name"]) == (1, "Whatsapp", "Acme")
    assert written_adjustments(office.lake) == []
    rejected = rows_of(office.lake, "rejected_notifications")
    assert {row["reason"] for row in rejected} == {"duplicate_conflict"}
    assert len(rejected) == 4
    office.assert_exact()


# --- closed days ----------------------------------------------------------------------------------------------------


def test_closed_repriced_and_ingested_at_once_the_books_are_exact(office: Office) -> None:
    """Late messages and corrected prices meet whoever closes the day, in any order, and each is billed once."""
    office.clock.now = NOON + 2 * DAY
    office.arrive(*(NOON + n * MINUTE for n in range(5)))
    office.close(MONDAY)
    before = {book: rows_of(office.lake, book) for book in BOOKS}

    def late() -> None:
        with Lake(office.lake.root) as lake:
            while bronze.advance_bronze_by_one(lake, office.log, Settings(batch_messages=2), "late") is not None:
                catch_up.advance_tables(lake, office.settings)

    def again(name: str) -> None:
        with Lake(office.lake.root) as lake:
            if name == "reprice":
                closing.reprice(lake, office.settings, MONDAY, "corrected", name)
            else:
                books.close_day(lake, office.settings, office.log, MONDAY, name)

    for n, each in enumerate(("0.05", "0.03"), 1):
        office.log.produce(*(sent(NOON + HOUR, at=office.clock.now, message_id=f"late {n} {m}") for m in range(6)))
        office.price(each)
        with ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(late), *(pool.submit(again, name) for name in ("close", "reprice", "close"))]
            for done in waiting:
                done.result()
        office.close(MONDAY)
        entries = written_adjustments(office.lake)
        assert 5 + sum(n for *_, n, _ in entries) == 5 + 6 * n
        assert 5 * FOUR_CENTS + sum(amount for *_, amount in entries) == (5 + 6 * n) * Decimal(each)
        assert {reason for *_, reason, _, _ in entries} == {"late", "repriced"}
    lines, closed = (rows_of(office.lake, book) for book in BOOKS)
    assert lines == before["daily_billing"]
    assert [row for row in closed if row["status"] == "final"] == before["billing_days"]
    assert len([row for row in closed if row["status"] == "repriced"]) == 2
    office.assert_exact()


def test_prices_corrected_twice_and_back_are_adjustments_and_the_lines_stay(office: Office) -> None:
    office.clock.now = NOON + 2 * DAY
    office.arrive(*(NOON + n * MINUTE for n in range(3)))
    office.arrive(NOON, customer_id=2, channel="SMS")
    office.close(MONDAY)
    lines = rows_of(office.lake, "daily_billing")
    so_far: list[Row] = []
    for each, late in (("0.05", 1), ("0.001", 0), ("0.05", 2), ("0.04", 0)):
        office.price(each)
        office.arrive(*[NOON] * late, customer_id=2, channel="SMS")
        closing.reprice(office.lake, office.settings, MONDAY, "corrected", "run")
        rows = rows_of(office.lake, "billing_adjustments")
        assert all(row in rows for row in so_far)
        so_far = rows
        assert rows_of(office.lake, "daily_billing") == lines
        assert closed_days_that_differ(office.lake, office.settings) == {}
    totals: Counter[int] = Counter()
    amounts: dict[int, Decimal] = {1: 3 * FOUR_CENTS, 2: FOUR_CENTS}
    for row in rows_of(office.lake, "billing_adjustments"):
        totals[row["customer_id"]] += row["notifications_delta"]
        amounts[row["customer_id"]] += row["amount_delta"]
    assert (totals, amounts) == (Counter({2: 3, 1: 0}), {1: Decimal("0.12"), 2: Decimal("0.16")})


def test_readmitted_after_a_rule_changed_each_closed_day_gets_its_own(office: Office) -> None:
    """Of three days, one closed before and one after; a duplicate among them, and one that the new rule refuses too."""
    office.settings = Settings(max_event_age=HOUR)
    office.clock.now = NOON + 3 * DAY
    office.log.produce(sent(NOON, at=NOON, message_id="on time"))
    office.arrive(NOON, message_id="a")
    office.arrive(NOON + HOUR, NOON + HOUR, message_id="b")
    office.arrive(NOON + DAY, NOON - 30 * DAY, message_id="c")
    office.close(MONDAY)
    assert office.lines(MONDAY) == {1: 1}
    office.settings = Settings(max_event_age=20 * DAY)
    for _ in range(2):
        plan_move(office.lake, "run", "readmit", readmit_reason="event_too_early")
        catch_up.execute_planned(office.lake, office.log, office.settings)
        office.close(MONDAY, TUESDAY)
    assert [(reason, n) for *_, reason, n, _ in written_adjustments(office.lake)] == [("readmitted", 2)]
    assert (office.lines(MONDAY), office.lines(TUESDAY)) == ({1: 1}, {1: 1})
    left = [row["reason"] for row in rows_of(office.lake, "rejected_notifications")]
    assert left == ["event_too_early"] * 2  # b again, which is a duplicate now, and the one of January
    assert closed_days_that_differ(office.lake, office.settings) == {}
