"""Whatever happens, and in whatever order: a closed day's lines and adjustments are its recount × its price.

Belongs here: histories of arrivals, closes, backfills, price changes, moves, upkeep and crashes, and what must hold of
the books after each step. Doesn't: single cases (test_bill.py, test_late.py), the other tables' rows in every detail
(notifications/test_model.py). The rules are told by the plain-Python oracle, the prices by this file.
"""

import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from notif_assets.billing import closing, prices
from notif_assets.billing.adjustments import _adjustments_due
from notif_assets.billing.audit import closed_days_that_differ
from notif_assets.billing.closed_days import closed_days
from notif_assets.billing.price_list import parse_price_list
from notif_assets.maintenance.maintain import maintain
from notif_assets.maintenance.rebuild import rebuild
from notif_assets.notifications import audit, catch_up
from notif_assets.notifications.ledger import plan_move
from notif_assets_tests import books
from notif_assets_tests.notifications.test_model import MIDNIGHT, World, messages
from notif_assets_tests.streams import (
    CENT,
    DAY,
    HOUR,
    Clock,
    Killed,
    Pair,
    Record,
    Row,
    assert_tables,
    killed_after,
    message,
    rows_of,
)

BOOKS = ("daily_billing", "billing_days", "billing_adjustments")
MINUTE = timedelta(minutes=1)
PriceList = dict[tuple[int | None, str], Decimal]
LISTS: tuple[PriceList, ...] = (
    {(None, "Whatsapp"): Decimal("0.04"), (None, "SMS"): Decimal("0.005"), (2, "SMS"): Decimal("0.0333")},
    {(None, "Whatsapp"): Decimal("0.05"), (None, "SMS"): Decimal("0.005")},
    {(None, "Whatsapp"): Decimal("0.045"), (None, "SMS"): Decimal("0.004999"), (1, "Whatsapp"): Decimal(0)},
    {(None, "Whatsapp"): Decimal("0.0075"), (None, "SMS"): Decimal("0.001")},
)
CURRENCIES = ("BRL", "BRL", "BRL", "USD")


def priced(listed: PriceList, pair: Pair) -> Decimal:
    """The customer's own price, or the channel's."""
    return listed.get(pair, listed[None, pair[1]])


lateness = st.one_of(
    st.sampled_from([timedelta(0), MINUTE, 59 * MINUTE, HOUR, 61 * MINUTE, -HOUR]),
    st.sampled_from([DAY - MINUTE, DAY, DAY + HOUR, 2 * DAY, 3 * DAY, 40 * DAY]),
    st.timedeltas(timedelta(0), 2 * DAY),
)
crashes = st.one_of(st.none(), st.none(), st.tuples(st.integers(1, 9), st.booleans()))
backs = st.integers(1, 4)


class Survivor(World):
    """The world of the model, in which who was killed does not always try again."""

    crash: tuple[int, bool] | None = None

    def surviving(self, _commits: int | None, action: Callable[[], object]) -> None:
        """Runs `action`; killed after some commits, it is run again or left to whoever comes."""
        crash, self.crash = self.crash, None
        if crash is None:
            action()
            return
        try:
            with killed_after(crash[0]):
                action()
        except Killed:
            History.seen["kills"] += 1
            if crash[1]:
                action()
            else:
                raise


class History(RuleBasedStateMachine):
    """One lake, and everything that may happen to it."""

    seen: ClassVar[Counter[str]] = Counter()
    whole = True

    @initialize(zone=st.sampled_from(["UTC", "America/Sao_Paulo"]))
    def begin(self, zone: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.patch = pytest.MonkeyPatch()
        self.world = Survivor(Path(self.folder.name), Clock(self.patch, MIDNIGHT + HOUR), zone)
        self.lists: dict[str, PriceList] = {prices.current_version(self.world.lake) or "": LISTS[0]}
        self.current = next(iter(self.lists))
        self.currencies = {self.current: CURRENCIES[0]}
        self.price_of: dict[date, str] = {}
        self.books: dict[str, list[Row]] = {name: [] for name in BOOKS}
        self.sent: list[tuple[dict[str, Any], datetime]] = []
        self.seen["histories"] += 1
        for n in range(8):  # of four days, so that there is something to close
            names = {"customer_id": 1 + n % 2, "channel": ("Whatsapp", "SMS")[n // 4], "message_id": "abcdefgh"[n]}
            self.send(n % 2, self.world.clock.now - n * 9 * HOUR, names)
        self.world.ingest_all()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.world.crash = None
            self.world.ingest_all()
            for day in sorted(self.closed()):
                self.bill(day)
                self.assert_sums(day)
            self.observe()
            if self.world.oracle.replay(self.world.lake).batches:
                assert_tables(self.world.lake, self.world.oracle)
            assert audit.minutes_that_differ(self.world.lake) == []
            assert closed_days_that_differ(self.world.lake, self.world.settings()) == {}
            self.seen["closed days"] += len(self.closed())
            self.seen["adjustments"] += len(self.books["billing_adjustments"])
            self.seen.update(f"adjusted: {row['reason']}" for row in self.books["billing_adjustments"])
        finally:
            self.patch.undo()
            self.world.lake.close()
            self.folder.cleanup()

    # --- what may happen ---

    @rule(what=st.lists(messages(lateness), min_size=1, max_size=5))
    def messages_come(self, what: list[dict[str, Any]]) -> None:
        for item in what:
            values = {name: item[name] for name in item if name not in ("partition", "late", "zone")}
            self.send(item["partition"], self.world.clock.now - item["late"], values)

    @precondition(lambda self: self.sent)
    @rule(
        which=st.integers(0),
        shift=st.sampled_from([timedelta(0), timedelta(0), MINUTE, HOUR, -DAY, DAY, 2 * DAY]),
        change=st.sampled_from([{}, {}, {"payload": "another"}, {"customer_name": "Zeta"}, {"channel": "SMS"}]),
    )
    def one_comes_again(self, which: int, shift: timedelta, change: dict[str, Any]) -> None:
        values, event = self.sent[which % len(self.sent)]
        self.send(which % 2, event + shift, values | change)

    @rule(time=st.sampled_from([HOUR, 5 * HOUR, DAY]))
    def time_passes(self, time: timedelta) -> None:
        self.world.clock.advance(time)

    @rule(batch=st.sampled_from([3, 50]), settled=st.booleans(), crash=crashes)
    def a_batch_is_taken(self, batch: int, settled: bool, crash: tuple[int, bool] | None) -> None:
        self.attempt(crash, lambda: self.world.ingest(batch, settled))

    @rule(back=backs, crash=crashes, whole=st.booleans())
    def a_day_closes(self, back: int, crash: tuple[int, bool] | None, whole: bool) -> None:
        """Or it is closed again, which is a backfill of a closed day."""
        day, self.whole = self.day(back), whole
        self.world.ingest(50, True)
        for one in self.closed():
            assert self.due(one, whole=False) == self.due(one, whole=True)
        if self.attempt(crash, lambda: self.world.surviving(None, lambda: self.bill(day))) and day in self.closed():
            self.assert_sums(day)

    @rule(back=st.integers(0, 2), crash=crashes)
    def a_day_is_billed(self, back: int, crash: tuple[int, bool] | None) -> None:
        """Provisionally, if it can't close."""
        world, day = self.world, self.day(back)
        catch_up.advance_tables(world.lake, world.settings())
        if not rows_of(world.lake, "ingest_batches"):
            return
        one = lambda: books.bill_day(world.lake, world.settings(), world.log, day, "run")  # noqa: E731
        if self.attempt(crash, lambda: world.surviving(None, one)) and day in self.closed():
            self.assert_sums(day)

    @rule(which=st.integers(0, len(LISTS) - 1))
    def prices_change(self, which: int) -> None:
        header = "customer_id,channel,unit_price,currency,valid_from,valid_to"
        of_list = LISTS[which].items()
        lines = [f"{customer or ''},{channel},{price},{CURRENCIES[which]},," for (customer, channel), price in of_list]
        parsed = parse_price_list("\n".join((header, *lines)).encode(), "prices.csv")
        self.current = prices.load_prices(self.world.lake, parsed)
        self.lists[self.current], self.currencies[self.current] = LISTS[which], CURRENCIES[which]

    @precondition(lambda self: self.closed())
    @rule(which=st.integers(0), crash=crashes)
    def a_day_is_repriced(self, which: int, crash: tuple[int, bool] | None) -> None:
        world, day = self.world, sorted(self.closed())[which % len(self.closed())]
        catch_up.execute_planned(world.lake, world.log, world.settings())
        one = lambda: closing.reprice(world.lake, world.settings(), day, "corrected", "run")  # noqa: E731
        if self.attempt(crash, lambda: world.surviving(None, one)):
            self.observe()
            assert self.price_of[day] == self.current
            self.assert_sums(day)

    @rule(crash=crashes)
    def the_old_are_readmitted(self, crash: tuple[int, bool] | None) -> None:
        self.attempt(crash, self.world.readmit)

    @rule(back=backs, crash=crashes)
    def days_are_deduplicated(self, back: int, crash: tuple[int, bool] | None) -> None:
        world, day = self.world, self.day(back)

        def one() -> None:
            plan_move(world.lake, "run", "dedup", dedup_through=day)
            catch_up.execute_planned(world.lake, world.log, world.settings())

        self.attempt(crash, lambda: world.surviving(None, one))

    @rule(what=st.sampled_from(["maintain", "minute_aggregates", "customer_panel", "notifications"]), crash=crashes)
    def upkeep(self, what: str, crash: tuple[int, bool] | None) -> None:
        world = self.world

        def one() -> None:
            if what == "maintain":
                maintain(world.lake, world.settings(), datetime.now(UTC))
            elif rows_of(world.lake, "ingest_batches") and world.max_age == timedelta(days=2.5):
                catch_up.execute_planned(world.lake, world.log, world.settings())  # silver is replayed by today's rule
                rebuild(world.lake, world.settings(), what)

        self.attempt(crash, lambda: world.surviving(None, one))

    # --- what must hold ---

    @invariant()
    def no_final_line_ever_changed(self) -> None:
        if hasattr(self, "world"):
            self.observe()

    def due(self, day: date, *, whole: bool) -> tuple[list[Row], tuple[str, ...]]:
        """The rows that the day's adjustments lack, and what is held."""
        lake = self.world.lake
        rows, held = _adjustments_due(
            lake, self.world.settings(), day, lake.table("billing_adjustments"), "run", whole=whole
        )
        return rows.drop_columns(["created_at"]).to_pylist(), held

    def observe(self) -> None:
        """Every row of the books that was final stays as it was, to the last column; new ones have today's prices."""
        before, self.books = self.books, {name: rows_of(self.world.lake, name) for name in BOOKS}
        self.books["daily_billing"] = [row for row in self.books["daily_billing"] if row["status"] == "final"]
        finished = {row["billing_date"] for row in before["daily_billing"]} | {*self.price_of}
        for name in BOOKS:
            now, then = Counter(map(repr, self.books[name])), Counter(map(repr, before[name]))
            assert not then - now, f"{name}: rows that were final are gone or changed"
            new = [row for row in self.books[name] if repr(row) in now - then]
            for row in new:
                day = row["billing_date"]
                if name == "daily_billing":
                    assert day not in finished, f"{day} was closed, and has a new line"
                    assert self.price_of.setdefault(day, self.current) == row["price_version"] == self.current
                elif name == "billing_days" and row["status"] == "repriced":
                    assert row["price_version"] == self.current
                    self.price_of[day] = self.current
                elif name == "billing_days":
                    assert self.price_of.setdefault(day, self.current) == row["price_version"]
                else:
                    if self.currencies[row["price_version"]] != self.currencies[self.price_of[day]]:
                        assert row["reason"] == "repriced"  # reversed as it was billed
                        self.seen["reversed"] += 1
                    else:
                        assert row["price_version"] == self.price_of[day]
                    assert row["notifications_delta"] or row["amount_delta"]
        assert len({row["adjustment_id"] for row in self.books["billing_adjustments"]}) == len(
            self.books["billing_adjustments"]
        )

    def assert_sums(self, day: date) -> None:
        """Lines + adjustments = the recount × the price in force for the day, to the cent, and the lines hold alone."""
        self.observe()
        listed = self.lists[self.price_of[day]]
        billed: dict[tuple[str, Pair], tuple[int, Decimal]] = defaultdict(lambda: (0, Decimal(0)))
        for row in self.books["daily_billing"]:
            if row["billing_date"] == day:
                due = row["notifications"] * row["unit_price"]
                assert row["amount"] == due.quantize(CENT, ROUND_HALF_UP)
                assert row["currency"] == self.currencies[row["price_version"]]
                pair = row["customer_id"], row["channel"]
                billed[row["currency"], pair] = row["notifications"], row["amount"]
        for row in self.books["billing_adjustments"]:
            if row["billing_date"] == day:
                key = self.currencies[row["price_version"]], (row["customer_id"], row["channel"])
                n, amount = billed[key]
                billed[key] = n + row["notifications_delta"], amount + row["amount_delta"]
        counted = self.world.oracle.replay(self.world.lake).counts(day)
        currency = self.currencies[self.price_of[day]]
        recount = {
            (currency, pair): (n, (n * priced(listed, pair)).quantize(CENT, ROUND_HALF_UP))
            for pair, n in counted.items()
        }
        assert {pair: total for pair, total in billed.items() if any(total)} == recount
        self.seen["sums proved"] += 1

    # --- few words ---

    def send(self, partition: int, event: datetime, values: dict[str, Any]) -> None:
        self.sent.append((values, event))
        self.world.log.produce(Record(message(event, **values), self.world.clock.now), partition=partition)
        self.seen["messages"] += 1

    def day(self, back: int) -> date:
        return (self.world.clock.now - back * DAY).astimezone(self.world.settings().zone).date()

    def closed(self) -> set[date]:
        return closed_days(self.world.lake)

    def bill(self, day: date) -> None:
        """Closes the day, if it may close."""
        world = self.world
        try:
            books.close_day(world.lake, world.settings(), world.log, day, "run", whole=self.whole)
        except closing.NotClosable:
            assert day not in self.closed()

    def attempt(self, crash: tuple[int, bool] | None, step: Callable[[], object]) -> bool:
        """Whether the step was finished; else it was killed and nobody took it up."""
        self.seen["steps"] += 1
        self.world.crash = crash
        try:
            step()
        except Killed:
            return False
        finally:
            self.world.crash = None
        return True


@pytest.mark.timeout(0)  # a soak takes as long as it takes
def test_after_any_history_the_books_are_the_recount_times_the_price(request: pytest.FixtureRequest) -> None:
    soak = request.config.getoption("--soak")
    History.seen.clear()
    run_state_machine_as_test(
        History,
        settings=settings(
            max_examples=soak or 8,
            stateful_step_count=30 if soak else 20,
            derandomize=not soak,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
            deadline=None,
        ),
    )
    print("\n" + ", ".join(f"{name}: {number}" for name, number in History.seen.items()))
    assert History.seen["sums proved"]
