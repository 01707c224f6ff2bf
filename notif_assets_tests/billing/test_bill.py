"""The bill of a day: exact to the cent, closed once, and never changed but by adjustments."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notif_assets.billing import closing, prices, statements
from notif_assets.billing.adjustments import days_with_adjustments_due, held_sentence, unpriced_late_messages
from notif_assets.billing.audit import closed_days_that_differ
from notif_assets.billing.lines import BillRefused, example_bill_differences
from notif_assets.billing.price_list import parse_price_list
from notif_assets.billing.report_files import write_bill_files
from notif_assets.lake import SCHEMAS, Lake, write_once
from notif_assets.notifications import bronze, catch_up, rules
from notif_assets.notifications.ledger import plan_move
from notif_assets.reports import billing_entries
from notif_assets.settings import Settings
from notif_assets_tests import books
from notif_assets_tests.streams import (
    CENT,
    DAY,
    HOUR,
    NOON,
    Clock,
    Killed,
    MemoryLog,
    Row,
    killed_after,
    rows_of,
    sent,
    written_adjustments,
)

MONDAY = date(2020, 2, 3)
LIST = ",Whatsapp,0.04,BRL,,", ",SMS,0.005,BRL,,"


class House:
    """A lake with its topic, and few words for what happens to it."""

    def __init__(self, lake: Lake, clock: Clock, **options: object) -> None:
        self.lake, self.clock, self.log = lake, clock, MemoryLog(1)
        self.settings = Settings(**options)  # type: ignore[arg-type]
        self.sent = 0

    def price(self, *lines: str) -> str:
        header = "customer_id,channel,unit_price,currency,valid_from,valid_to"
        return prices.load_prices(self.lake, parse_price_list("\n".join((header, *lines)).encode(), "p.csv"))

    def send(self, count: int = 1, event: datetime = NOON, **fields: object) -> None:
        for _ in range(count):
            self.sent += 1
            self.log.produce(sent(event, at=event, **{"message_id": str(self.sent), **fields}))

    def ingest(self) -> None:
        bronze.advance_bronze_by_one(self.lake, self.log, self.settings, "ingest", even_if_quiet=True)
        catch_up.advance_tables(self.lake, self.settings)

    def close(self, day: date = MONDAY, run_id: str = "run") -> closing.Billed:
        self.ingest()
        return books.close_day(self.lake, self.settings, self.log, day, run_id)

    def lines(self, day: date = MONDAY) -> dict[tuple[int, str], tuple[int, Decimal]]:
        rows = [row for row in rows_of(self.lake, "daily_billing") if row["billing_date"] == day]
        return {(row["customer_id"], row["channel"]): (row["notifications"], row["amount"]) for row in rows}

    def billed(self, day: date = MONDAY) -> Decimal:
        """Lines and adjustments of a day."""
        adjusted = sum(a for when, *_, a in written_adjustments(self.lake) if when == day)
        return sum((amount for _, amount in self.lines(day).values()), Decimal(0)) + adjusted

    def nothing_billed(self) -> bool:
        return not any(rows_of(self.lake, name) for name in ("daily_billing", "billing_days", "billing_adjustments"))


@pytest.fixture
def house(lake: Lake) -> Iterator[House]:
    """Two days after Monday, with prices for WhatsApp and SMS."""
    with pytest.MonkeyPatch.context() as patch:
        house = House(lake, Clock(patch, NOON + 2 * DAY))
        house.price(*LIST)
        yield house


def contents(lake: Lake, *tables: str) -> dict[str, str]:
    """Every file of some tables, with the hash of its bytes."""
    paths = [path for name in tables for path in sorted((lake.root / name).rglob("*")) if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


BOOKS = ("daily_billing", "billing_days", "billing_adjustments", "prices")


# --- closing --------------------------------------------------------------------------------------------------------


def test_the_documents_bill(lake: Lake) -> None:
    """25000 WhatsApp notifications → R$ 1000,00, with the packaged list."""
    assert example_bill_differences(lake) == []


def test_a_closed_day_is_byte_identical_however_often_it_is_done_again(house: House) -> None:
    house.send(3)
    house.send(2, channel="SMS", customer_id=2)
    first = house.close()
    assert (first.closed_now, first.lines, first.notifications, first.amount) == (True, 2, 5, Decimal("0.13"))
    files, rows = contents(house.lake, *BOOKS), {name: rows_of(house.lake, name) for name in BOOKS}
    again: list[Callable[[], closing.Billed]] = [
        lambda: books.close_day(house.lake, house.settings, house.log, MONDAY, "again"),
        lambda: books.bill_day(house.lake, house.settings, house.log, MONDAY, "again"),
        lambda: house.close(run_id="after another batch"),
    ]
    for once_more in again:
        billed = once_more()
        assert (billed.closed_now, billed.adjustments, billed.status) == (False, 0, "final")
        assert (billed.lines, billed.amount) == (first.lines, first.amount)
    assert contents(house.lake, *BOOKS) == files
    assert {name: rows_of(house.lake, name) for name in BOOKS} == rows
    house.price(",Whatsapp,9,BRL,,", ",SMS,9,BRL,,")  # a new list prices open days only
    assert house.close().adjustments == 0
    assert [rows_of(house.lake, name) for name in BOOKS[:3]] == [rows[name] for name in BOOKS[:3]]


def test_a_line_says_all_it_stands_on(house: House) -> None:
    house.send(1, NOON - HOUR, customer_name="Old")
    house.send(1, NOON, customer_name="New")
    house.close()
    (line,) = rows_of(house.lake, "daily_billing")
    version = prices.current_version(house.lake)
    assert line | {"computed_at": None} == {
        "billing_date": MONDAY,
        "customer_id": 1,
        "customer_name": "New",
        "channel": "Whatsapp",
        "notifications": 2,
        "unit_price": Decimal("0.04"),
        "amount": Decimal("0.08"),
        "currency": "BRL",
        "price_version": version,
        "status": "final",
        "through_batch": 2,
        "run_id": "run",
        "computed_at": None,
    }
    (day,) = rows_of(house.lake, "billing_days")
    assert day | {"closed_at": None} == {
        "billing_date": MONDAY,
        "status": "final",
        "through_batch": 2,
        "price_version": version,
        "lines": 1,
        "notifications": 2,
        "amount": Decimal("0.08"),
        "closed_at": None,
        "run_id": "run",
        "note": None,
    }


def test_a_day_without_messages_closes_without_lines(house: House) -> None:
    assert house.close() == closing.Billed(MONDAY, "final", 0, 0, Decimal(0), "BRL", 0, {}, True, None)
    (day,) = rows_of(house.lake, "billing_days")
    assert (day["lines"], day["notifications"], day["amount"]) == (0, 0, 0)
    assert house.close().closed_now is False
    house.send()
    late = house.close()
    assert (late.lines, late.adjustments, late.adjusted) == (0, 1, {"BRL": Decimal("0.04")})


@pytest.mark.parametrize("seconds", [0, 3599])
def test_a_day_does_not_close_before_its_end_and_grace(house: House, seconds: int) -> None:
    house.send()
    house.clock.now = datetime.combine(MONDAY + DAY, datetime.min.time(), NOON.tzinfo) + timedelta(seconds=seconds)
    with pytest.raises(closing.NotClosable) as refused:
        house.close()
    told = str(refused.value)
    assert f"{house.clock.now:%Y-%m-%dT%H:%M:%S}" in told
    assert "past 2020-02-04T01:00:00+0000" in told
    assert "NOTIF_GRACE" in told
    assert house.nothing_billed()
    provisional = books.bill_day(house.lake, house.settings, house.log, MONDAY, "run")
    assert (provisional.status, provisional.notifications, provisional.closed_now) == ("provisional", 1, False)
    assert {row["status"] for row in rows_of(house.lake, "daily_billing")} == {"provisional"}
    house.clock.advance(timedelta(seconds=3600 - seconds))
    house.send()
    house.ingest()
    final = books.bill_day(house.lake, house.settings, house.log, MONDAY, "run")
    assert (final.status, final.notifications, final.closed_now) == ("final", 2, True)
    assert {row["status"] for row in rows_of(house.lake, "daily_billing")} == {"final"}


def test_a_day_does_not_close_while_kafka_holds_more_than_was_read(house: House) -> None:
    with pytest.raises(closing.NotClosable, match="not all messages are counted"):
        books.close_day(house.lake, house.settings, house.log, MONDAY, "run")
    house.send(5)
    house.settings = Settings(batch_messages=3)
    with pytest.raises(closing.NotClosable, match="not all messages are counted"):
        house.close()
    assert house.close().notifications == 5


def test_the_grace_is_a_setting(house: House) -> None:
    house.settings = Settings(grace=timedelta(days=3))
    with pytest.raises(closing.NotClosable, match=r"past 2020-02-07T00:00:00"):
        house.close()


def test_a_later_day_may_close_first(house: House) -> None:
    house.send(2)
    house.send(1, NOON + DAY, message_id="1")  # the same as on Monday
    house.send(1, NOON + DAY)
    assert house.close(MONDAY + DAY).notifications == 1
    assert house.close(MONDAY).notifications == 2
    assert written_adjustments(house.lake) == []


def test_duplicates_of_a_day_are_found_when_it_closes(house: House) -> None:
    for hours in (0, 2, 5):
        house.send(1, NOON + hours * HOUR, message_id="same")
    house.ingest()
    assert len(rows_of(house.lake, "notifications")) == 3
    assert house.close().notifications == 1
    house.send(1, NOON + 7 * HOUR, message_id="same")
    assert house.close().adjustments == 0


def test_the_sum_over_days_is_the_sum_over_minutes(house: House) -> None:
    for n in range(40):
        house.send(1, NOON - DAY + n * timedelta(hours=1, minutes=7), channel=["SMS", "Whatsapp"][n % 2])
    house.clock.now = NOON + 5 * DAY
    days = [MONDAY + n * DAY for n in range(-1, 2)]
    billed = sum(house.close(day).notifications for day in days)
    assert billed == sum(row["notifications"] for row in rows_of(house.lake, "minute_aggregates")) == 40


# --- time zones -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("day", "first", "end"),
    [
        (date(2018, 2, 17), "2018-02-17T02:00:00+00:00", "2018-02-18T03:00:00+00:00"),  # 25 hours
        (date(2018, 2, 18), "2018-02-18T03:00:00+00:00", "2018-02-19T03:00:00+00:00"),
        (date(2018, 11, 4), "2018-11-04T03:00:00+00:00", "2018-11-05T02:00:00+00:00"),  # 23 hours
    ],
)
def test_a_day_in_sao_paulo_bills_its_own_messages(house: House, day: date, first: str, end: str) -> None:
    house.settings = Settings(timezone="America/Sao_Paulo")
    microsecond = timedelta(microseconds=1)
    start, stop = datetime.fromisoformat(first), datetime.fromisoformat(end)
    for customer, event in enumerate((start - microsecond, start, stop - microsecond, stop), 1):
        house.send(1, event, customer_id=customer)
    house.close(day)
    assert {customer for customer, _ in house.lines(day)} == {2, 3}
    house.close(day - DAY)
    house.close(day + DAY)
    assert {customer for customer, _ in house.lines(day - DAY)} == {1}
    assert {customer for customer, _ in house.lines(day + DAY)} == {4}


# --- prices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        (LIST[:1], "channel SMS has no price"),
        ((*LIST, ",SMS,0.01,BRL,,"), "channel SMS has 2 prices"),
        ((*LIST, "1,SMS,0.01,BRL,,", "1,SMS,0.02,BRL,,"), "channel SMS has 2 prices"),
        ((LIST[0], ",SMS,0.005,BRL,2020-02-04,"), "channel SMS has no price"),
        ((LIST[0], ",SMS,0.005,BRL,,2020-02-03"), "channel SMS has no price"),
        ((LIST[0], "2,SMS,0.005,BRL,,"), "channel SMS has no price"),
        ((LIST[0], ",sms,0.005,BRL,,"), "channel SMS has no price"),
    ],
)
def test_a_channel_without_exactly_one_price_blocks_the_close(
    house: House, listed: tuple[str, ...], found: str
) -> None:
    house.price(*listed)
    house.send()
    house.send(2, channel="SMS")
    for attempt in (books.close_day, books.bill_day):
        house.ingest()
        with pytest.raises(BillRefused, match=f"2020-02-03 can't be billed: {found}.*customer 1") as refused:
            attempt(house.lake, house.settings, house.log, MONDAY, "run")
        assert refused.value.gate == "every_channel_has_one_price"
        assert len(refused.value.findings) == 1
    assert house.nothing_billed()
    house.price(*LIST)
    assert house.close().amount == Decimal("0.05")


def test_a_late_message_on_a_channel_without_a_price_holds_up_no_other(house: House) -> None:
    """It is named with the command that helps, by closing and by the check; no tick asks for the day because of it."""
    house.send()
    house.close()
    house.send(1, channel="Whatsap", customer_id=9)
    house.send(5, customer_id=2)
    closed = house.close()
    assert (closed.adjustments, closed.adjusted) == (1, {"BRL": Decimal("0.20")})
    (held,) = closed.held
    assert re.match(
        "channel Whatsap has no price in list [0-9a-f]{16} .customer 9.: this day is closed, so import", held
    )
    assert "`notif-assets reprice --from 2020-02-03 --to 2020-02-03 --reason " in held
    told, through = unpriced_late_messages(house.lake, house.settings)
    assert told == {MONDAY: held_sentence(MONDAY, [held])}
    assert unpriced_late_messages(house.lake, house.settings, through) == ({}, through)  # nothing is new
    assert unpriced_late_messages(house.lake, house.settings, through, {MONDAY}) == (told, through)
    assert closed_days_that_differ(house.lake, house.settings) == {}
    assert days_with_adjustments_due(house.lake, house.settings, 0)[0] == []

    house.price(*LIST, ",Whatsap,0.03,BRL,,")
    assert house.close().held  # a new list alone prices no closed day
    repriced = closing.reprice(house.lake, house.settings, MONDAY, "a price for them", "run")
    assert (repriced.held, repriced.adjusted) == ((), {"BRL": Decimal("0.03")})
    assert unpriced_late_messages(house.lake, house.settings)[0] == {}
    assert closed_days_that_differ(house.lake, house.settings) == {}
    assert house.billed() == Decimal("0.27")


def test_what_a_new_list_cannot_price_either_stays_held_and_the_rest_is_repriced(house: House) -> None:
    house.send()
    house.close()
    house.send(1, channel="Pombo", customer_id=8)
    house.send(1, channel="Push", customer_id=9)
    assert len(house.close().held) == 2
    house.price(*LIST, ",Push,1,BRL,,")
    repriced = closing.reprice(house.lake, house.settings, MONDAY, "why", "run")
    assert repriced.adjusted == {"BRL": Decimal(1)}
    assert len(repriced.held) == 1
    assert "channel Pombo has no price" in repriced.held[0]
    assert closed_days_that_differ(house.lake, house.settings) == {}


ODD = [
    "What\nsapp",
    "Whatsapp\0",
    "Whatsapp ",
    " Whatsapp",
    "\x85",
    "Whats\u200bapp",
    'a"b',
    '"a"',
    "a,b",
    "\\",
    "\u3000",
]


@pytest.mark.parametrize("channel", ODD)
@pytest.mark.parametrize("late", [False, True])
def test_whatever_channel_was_accepted_once_can_be_priced(house: House, channel: str, late: bool) -> None:
    """The error says on one line how a list names it; so does that of a closed day, where `reprice` is what helps."""
    write_once(house.lake.root / "rules.json", {rules._KEY: 10**6})  # as by a version that took all of them
    house.send()
    if late:
        house.close()
    house.send(2, channel=channel, customer_id=9)
    if late:
        (told,) = house.close().held
    else:
        with pytest.raises(BillRefused) as refused:
            house.close()
        (told,) = refused.value.findings
    assert told.isprintable()
    named = re.search("; a list names this channel as (.*)$", told)
    cell = named[1] if named else '"' + channel.replace('"', '""') + '"'
    house.price(*LIST, f"9,{cell},0.5,BRL,,")
    house.close()
    if late:
        closing.reprice(house.lake, house.settings, MONDAY, "named", "run")
    assert house.billed() == Decimal("1.04")
    assert unpriced_late_messages(house.lake, house.settings)[0] == {}
    assert closed_days_that_differ(house.lake, house.settings) == {}


def test_a_report_has_what_can_be_priced_and_says_what_it_lacks(house: House) -> None:
    house.send()
    house.send(1, NOON + DAY)
    house.send(1, channel="Push", customer_id=9)
    house.ingest()
    days, unpriced = [MONDAY, MONDAY + DAY], list[BillRefused]()
    lines, _ = statements.bills(house.lake, house.settings, days, unpriced=unpriced)
    assert lines.select(["customer_id", "billing_date"]).to_pylist() == [
        {"customer_id": 1, "billing_date": MONDAY},
        {"customer_id": 1, "billing_date": MONDAY + DAY},
    ]
    assert [refused.day for refused in unpriced] == [MONDAY]
    assert statements.bills(house.lake, house.settings, days, 1)[0].num_rows == 2
    with pytest.raises(BillRefused, match="2020-02-03 can't be billed: channel Push"):
        statements.bills(house.lake, house.settings, days)


def test_a_customers_own_price_goes_first(house: House) -> None:
    house.price(*LIST, "2,SMS,0.01,BRL,,", "3,SMS,0,BRL,,", "4,SMS,9,BRL,2020-02-04,", "4,Whatsapp,9,BRL,,")
    for customer in (1, 2, 3, 4):
        house.send(2, channel="SMS", customer_id=customer)
    house.close()
    amounts = {customer: amount for (customer, _), (_, amount) in house.lines().items()}
    assert amounts == {1: Decimal("0.01"), 2: Decimal("0.02"), 3: Decimal(0), 4: Decimal("0.01")}


def test_a_price_holds_from_its_first_day_to_before_its_end(house: House) -> None:
    house.price(",Whatsapp,1,BRL,,2020-02-02", ",Whatsapp,2,BRL,2020-02-02,2020-02-03", ",Whatsapp,3,BRL,2020-02-03,")
    for days in (-2, -1, 0):
        house.send(1, NOON + days * DAY)
    assert [house.close(MONDAY + days * DAY).amount for days in (-2, -1, 0)] == [1, 2, 3]


def test_the_packaged_list_holds_where_none_was_loaded(lake: Lake) -> None:
    with pytest.MonkeyPatch.context() as patch:
        house = House(lake, Clock(patch, NOON + 2 * DAY))
        house.send(25)
        assert house.close().amount == Decimal("1.00")
    assert prices.current_version(lake) == rows_of(lake, "billing_days")[0]["price_version"]


def test_loading_a_list_again_writes_nothing_and_an_old_one_holds_again(house: House) -> None:
    first = prices.current_version(house.lake)
    files = contents(house.lake, "prices")
    assert house.price(*reversed(LIST)) == first
    assert contents(house.lake, "prices") == files
    second = house.price(",Whatsapp,1,BRL,,", ",SMS,1,BRL,,")
    assert prices.current_version(house.lake) == second != first
    assert house.price(*LIST) == prices.current_version(house.lake) == first
    assert prices.price_list(house.lake, first or "").num_rows == 2


# --- cents ----------------------------------------------------------------------------------------------------------


def test_half_cents_do_not_drift(house: House) -> None:
    house.send(1, channel="SMS", customer_id=1)
    house.send(1, channel="SMS", customer_id=2)
    house.close()
    assert house.lines() == {(1, "SMS"): (1, Decimal("0.01")), (2, "SMS"): (1, Decimal("0.01"))}
    for late in range(1, 4):
        house.send(1, channel="SMS", customer_id=2)
        house.close()
        two = (Decimal("0.005") * (1 + late)).quantize(CENT, ROUND_HALF_UP)
        assert house.billed() == Decimal("0.01") + two
    # 0.01, then 0.01 for two, 0.02 for three … each adjustment is what is missing, to the cent.
    written = sorted(rows_of(house.lake, "billing_adjustments"), key=lambda row: row["through_batch"])
    assert [row["amount_delta"] for row in written] == [Decimal(0), Decimal("0.01"), Decimal(0)]


counts = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 10**9)), min_size=1, max_size=3, unique_by=lambda c: c[0])
unit_prices = st.integers(0, 10**9).map(lambda n: Decimal(n).scaleb(-6))


@settings(max_examples=60, derandomize=True)
@given(counts, unit_prices)
def test_amounts_are_exact_whatever_the_price(counted: list[tuple[int, int]], price: Decimal) -> None:
    with Lake(Path("nowhere")) as lake:
        rows = [{"customer_id": c, "customer_name": "A", "channel": "W", "notifications": n} for c, n in counted]
        priced = [{"customer_id": c, "channel": "W", "unit_price": price, "currency": "BRL"} for c, _ in counted]
        schema = SCHEMAS["daily_billing"].arrow
        types = pa.schema([schema.field(name) for name in ("customer_id", "channel", "unit_price", "currency")])
        lines = lake.select(
            "daily_billing",
            {"counts": pa.Table.from_pylist(rows), "unit_prices": pa.Table.from_pylist(priced, schema=types)},
            billing_date=MONDAY,
            price_version="v",
            status="final",
            through_batch=1,
            run_id="run",
            computed_at=NOON,
        ).cast(schema)
    expected = {c: (n * price).quantize(CENT, ROUND_HALF_UP) for c, n in counted}
    assert {line["customer_id"]: line["amount"] for line in lines.to_pylist()} == expected


# --- adjustments ----------------------------------------------------------------------------------------------------


def test_late_messages_are_adjusted_once_and_only_where_something_changed(house: House) -> None:
    house.send(3)
    house.send(2, channel="SMS", customer_id=2)
    house.close()
    files = contents(house.lake, "daily_billing")
    house.send(2)
    house.send(1, customer_id=3)
    late = house.close()
    assert (late.adjustments, late.adjusted, late.closed_now) == (2, {"BRL": Decimal("0.12")}, False)
    expected = [
        (MONDAY, 1, "Whatsapp", "late", 2, Decimal("0.08")),
        (MONDAY, 3, "Whatsapp", "late", 1, Decimal("0.04")),
    ]
    assert written_adjustments(house.lake) == expected
    version = house.lake.table("billing_adjustments").version
    for _ in range(2):
        assert house.close().adjustments == 0
    assert written_adjustments(house.lake) == expected
    assert house.lake.table("billing_adjustments").version == version
    assert contents(house.lake, "daily_billing") == files
    house.send(1)
    house.close()
    assert written_adjustments(house.lake) == sorted([*expected, (MONDAY, 1, "Whatsapp", "late", 1, Decimal("0.04"))])
    assert closed_days_that_differ(house.lake, house.settings) == {}


def test_readmitted_messages_have_their_own_reason(house: House) -> None:
    house.settings = Settings(max_event_age=HOUR)
    house.send(1)
    house.log.produce(sent(NOON, at=NOON + 2 * HOUR, message_id="too old"))
    house.close()
    house.settings = Settings()
    plan_move(house.lake, "run", "readmit", readmit_reason="event_too_early")
    house.send(1)
    house.ingest()
    catch_up.execute_planned(house.lake, house.log, house.settings)
    house.close()
    assert written_adjustments(house.lake) == [
        (MONDAY, 1, "Whatsapp", "late", 1, Decimal("0.04")),
        (MONDAY, 1, "Whatsapp", "readmitted", 1, Decimal("0.04")),
    ]
    assert house.close().adjustments == 0


def test_reprice_writes_the_difference_and_nothing_else(house: House) -> None:
    house.send(3)
    house.send(1, channel="SMS")
    with pytest.raises(closing.NotClosable, match="2020-02-03 is open"):
        closing.reprice(house.lake, house.settings, MONDAY, "why", "run")
    house.close()
    lines = house.lines()
    house.price(",Whatsapp,0.05,BRL,,", ",SMS,0.005,BRL,,")
    for adjustments in (1, 0):
        done = closing.reprice(house.lake, house.settings, MONDAY, "new contract", "run")
        assert (done.adjustments, done.closed_now) == (adjustments, False)
    assert written_adjustments(house.lake) == [(MONDAY, 1, "Whatsapp", "repriced", 0, Decimal("0.03"))]
    assert house.lines() == lines
    assert house.billed() == Decimal("0.16")
    notes = sorted((row["status"], row["note"]) for row in rows_of(house.lake, "billing_days"))
    assert notes == [("final", None), ("repriced", "new contract")]
    # From here on the new price is the day's, for late messages too; a third list isn't.
    house.price(",Whatsapp,7,BRL,,", ",SMS,7,BRL,,")
    house.send(1)
    assert house.close().adjusted == {"BRL": Decimal("0.05")}
    assert closed_days_that_differ(house.lake, house.settings) == {}


def test_reprice_to_a_list_that_lacks_a_channel_is_refused(house: House) -> None:
    house.send()
    house.close()
    house.price(",SMS,1,BRL,,")
    with pytest.raises(BillRefused, match="channel Whatsapp has no price"):
        closing.reprice(house.lake, house.settings, MONDAY, "why", "run")
    assert len(rows_of(house.lake, "billing_days")) == 1
    assert house.close().adjustments == 0


# --- currencies -----------------------------------------------------------------------------------------------------

DOLLARS = ",Whatsapp,0.10,USD,,", ",SMS,0.10,USD,,"
REAIS = ",Whatsapp,0.25,BRL,,", ",SMS,0.25,BRL,,"


def reported(house: House, customer_id: int | None = None) -> set[tuple[int, str, str, Decimal]]:
    """What the report of the day says: customer, status, currency and amount of each entry."""
    found = statements.bills(house.lake, house.settings, [MONDAY], customer_id)
    rows = billing_entries(*found).to_pylist()
    return {(row["customer_id"], row["status"], row["currency"], row["amount"]) for row in rows}


def test_an_adjustment_has_the_currency_of_its_own_price(house: House) -> None:
    """Also of a customer who has no line on the day: nothing is near it to take a currency from."""
    house.price(*DOLLARS)
    house.send(5)
    house.close()
    house.send(5, customer_id=2)
    late = house.close()
    assert (late.currency, late.adjusted) == ("USD", {"USD": Decimal("0.50")})
    assert reported(house) == {(1, "final", "USD", Decimal("0.50")), (2, "adjustment", "USD", Decimal("0.50"))}
    assert reported(house, 2) == {
        (2, "final", "USD", Decimal(0)),
        (2, "adjustment", "USD", Decimal("0.50")),
    }
    (published,) = [
        path for path in write_bill_files(house.lake, MONDAY, house.lake.root / "out") if path.suffix == ".txt"
    ]
    assert "R$" not in published.read_text()


def test_nothing_is_nothing_in_the_currency_of_the_day_s_list(house: House) -> None:
    house.price(*DOLLARS)
    house.close()
    house.price(*REAIS)
    house.send(customer_id=9, event=NOON + DAY)
    house.ingest()
    days = [MONDAY, MONDAY + timedelta(days=1), MONDAY + timedelta(days=2)]
    lines, _ = statements.bills(house.lake, house.settings, days, 9)
    assert {row["billing_date"]: row["currency"] for row in lines.to_pylist()} == dict(
        zip(days, ("USD", "BRL", "BRL"), strict=True)
    )


def test_reprice_to_another_currency_reverses_in_the_old_one_and_bills_in_the_new(house: House) -> None:
    old = house.price(*DOLLARS)
    house.send(5)
    house.close()
    house.send(5)
    house.close()
    new = house.price(*REAIS)
    done = closing.reprice(house.lake, house.settings, MONDAY, "another contract", "run")
    assert (done.amount, done.currency) == (Decimal("0.50"), "USD")
    assert done.adjusted == {"BRL": Decimal("2.50"), "USD": Decimal("-1.00")}
    repriced = [row for row in rows_of(house.lake, "billing_adjustments") if row["reason"] == "repriced"]
    assert {
        (row["price_version"], row["unit_price"], row["notifications_delta"], row["amount_delta"]) for row in repriced
    } == {(old, Decimal("0.10"), -10, Decimal("-1.00")), (new, Decimal("0.25"), 10, Decimal("2.50"))}
    assert closed_days_that_differ(house.lake, house.settings) == {}
    assert house.close().adjustments == 0
    house.send()  # from here on the day is billed in reais
    assert house.close().adjusted == {"BRL": Decimal("0.25")}
    for lines, adjusted in (
        (DOLLARS, {"BRL": Decimal("-2.75"), "USD": Decimal("1.10")}),
        (REAIS, None),
        (DOLLARS, None),
    ):
        house.price(*lines)
        done = closing.reprice(house.lake, house.settings, MONDAY, "to and fro", "run")
        assert adjusted in (None, done.adjusted)
        assert closed_days_that_differ(house.lake, house.settings) == {}
    written_adjustments(house.lake)  # no two have one id


def test_amounts_of_two_currencies_that_were_subtracted_are_found_and_put_right(house: House) -> None:
    """As an earlier version wrote them: BRL 2.50 less USD 0.50."""
    house.price(*DOLLARS)
    house.send(5)
    house.close()
    house.price(",Whatsapp,0.50,BRL,,", ",SMS,0.25,BRL,,")
    closing.reprice(house.lake, house.settings, MONDAY, "another contract", "run")

    def as_before(rows: list[Row]) -> list[Row]:
        (row,) = [row for row in rows if row["notifications_delta"] > 0]
        return [row | {"notifications_delta": 0, "amount_delta": Decimal("2.00")}]

    tampered(house, "billing_adjustments", as_before)
    (sentence,) = closed_days_that_differ(house.lake, house.settings)[MONDAY]
    assert sentence.endswith("billed 5 for 2.00 BRL, 0.50 USD, sent 5 for 2.50 BRL")
    assert house.close().adjusted == {"BRL": Decimal("0.50"), "USD": Decimal("-0.50")}
    assert closed_days_that_differ(house.lake, house.settings) == {}


def test_prices_to_and_fro_have_an_adjustment_each(house: House) -> None:
    house.send(3)
    house.close()
    for cents in (5, 4, 5, 4):
        house.price(f",Whatsapp,0.0{cents},BRL,,", ",SMS,1,BRL,,")
        closing.reprice(house.lake, house.settings, MONDAY, "to and fro", "run")
    assert len(written_adjustments(house.lake)) == 4  # no two have one id


# --- gates, crashes and races ---------------------------------------------------------------------------------------


def tampered(house: House, table: str, change: Callable[[list[Row]], list[Row]]) -> None:
    """Rewrites a table as no code of ours would."""
    handle = house.lake.table(table)
    rows = change(house.lake.rows(handle.scan()).to_pylist())
    handle.replace(pa.Table.from_pylist(rows, schema=SCHEMAS[table].arrow), None, handle.watermark + 1)


@pytest.mark.parametrize(
    ("table", "change", "why"),
    [
        ("minute_aggregates", lambda rows: [r | {"notifications": 9} for r in rows], "billed 9, sent 2"),
        ("minute_aggregates", lambda _: [], "sent 2, not billed"),
        ("notifications", lambda rows: rows[:1], "neither in notifications nor in rejected_notifications"),
        ("notifications", lambda rows: [r | {"message_id": "x"} for r in rows], "customer 1 has 1 messages twice"),
    ],
)
def test_a_bill_that_is_not_silver_times_price_is_not_written(
    house: House, table: str, change: Callable[[list[Row]], list[Row]], why: str
) -> None:
    house.send(2)
    house.ingest()
    plan_move(house.lake, "run", "dedup", dedup_through=MONDAY)
    catch_up.execute_planned(house.lake, house.log, house.settings)
    tampered(house, table, change)
    with pytest.raises(BillRefused, match=why) as refused:
        books.close_day(house.lake, house.settings, house.log, MONDAY, "run")
    assert refused.value.gate == "bill_equals_messages_times_price"
    assert house.nothing_billed()


def test_killed_between_the_lines_and_the_closed_day(house: House) -> None:
    house.send(2)
    house.ingest()
    house.clock.advance(HOUR)
    with pytest.raises(Killed), killed_after(1, "daily_billing"):
        books.close_day(house.lake, house.settings, house.log, MONDAY, "killed")
    files = contents(house.lake, "daily_billing")
    assert rows_of(house.lake, "billing_days") == []
    # Somebody may have seen these lines: they are what closes, though more came, and though prices changed.
    house.send(3)
    house.price(",Whatsapp,9,BRL,,", ",SMS,9,BRL,,")
    house.ingest()
    again = house.close(run_id="again")
    assert (again.closed_now, again.lines, again.notifications, again.amount) == (True, 1, 2, Decimal("0.08"))
    assert contents(house.lake, "daily_billing") == files
    assert written_adjustments(house.lake) == [(MONDAY, 1, "Whatsapp", "late", 3, Decimal("0.12"))]
    (day,) = rows_of(house.lake, "billing_days")
    assert (day["lines"], day["notifications"], day["amount"]) == (1, 2, Decimal("0.08"))


def test_provisional_lines_are_replaced_and_final_ones_are_not(house: House) -> None:
    house.clock.now = NOON + HOUR
    for sent_so_far in (1, 2):
        house.send()
        house.ingest()
        done = books.bill_day(house.lake, house.settings, house.log, MONDAY, "run")
        assert (done.status, done.notifications) == ("provisional", sent_so_far)
    house.price(",Whatsapp,1,BRL,,", ",SMS,1,BRL,,")
    assert books.bill_day(house.lake, house.settings, house.log, MONDAY, "run").amount == 2
    assert rows_of(house.lake, "billing_days") == []
    house.clock.now = NOON + 2 * DAY
    house.close()
    assert {row["status"] for row in rows_of(house.lake, "daily_billing")} == {"final"}


def test_two_close_the_same_day_at_once(house: House) -> None:
    for n in range(4):
        house.send(1, NOON + n % 2 * HOUR, message_id=str(n % 3))
    house.ingest()

    def close(name: str) -> closing.Billed:
        with Lake(house.lake.root) as lake:
            return books.close_day(lake, house.settings, house.log, MONDAY, name)

    for late in (0, 1):
        with ThreadPoolExecutor(3) as pool:
            billed = list(pool.map(close, ["one", "two", "three"]))
        assert sum(b.closed_now for b in billed) == 1 - late
        assert sum(b.adjustments for b in billed) == late
        assert {b.notifications for b in billed} == {3}
        assert len(rows_of(house.lake, "billing_days")) == 1
        assert len(rows_of(house.lake, "daily_billing")) == 1
        house.send()
        house.ingest()
    assert written_adjustments(house.lake) == [(MONDAY, 1, "Whatsapp", "late", 1, Decimal("0.04"))]


def test_days_are_closed_in_any_order_and_the_total_is_that_of_plain_python(house: House) -> None:
    expected: dict[date, dict[tuple[int, str], int]] = defaultdict(lambda: defaultdict(int))
    for n in range(30):
        event = NOON - DAY + n * 2 * HOUR
        house.send(1, event, customer_id=1 + n % 3, channel=["SMS", "Whatsapp"][n % 2])
        expected[event.date()][1 + n % 3, ["SMS", "Whatsapp"][n % 2]] += 1
    house.clock.now = NOON + 5 * DAY
    price = {"SMS": Decimal("0.005"), "Whatsapp": Decimal("0.04")}
    for day in sorted(expected, key=lambda d: d.toordinal() * 5 % 7):
        house.close(day)
    for day, pairs in expected.items():
        amounts = {p: (n, (n * price[p[1]]).quantize(CENT, ROUND_HALF_UP)) for p, n in pairs.items()}
        assert house.lines(day) == amounts
