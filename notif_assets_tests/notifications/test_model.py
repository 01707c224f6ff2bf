"""Random streams, batch sizes, closings and crashes against the plain-Python oracle: every table, every column."""

import itertools
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notif_assets.billing import closing, prices
from notif_assets.billing.audit import closed_days_that_differ
from notif_assets.billing.price_list import parse_price_list
from notif_assets.lake import Lake
from notif_assets.notifications import audit, bronze, catch_up, gold, ledger
from notif_assets.notifications.ledger import complete_until, plan_move
from notif_assets.settings import Settings
from notif_assets_tests import books
from notif_assets_tests.streams import (
    DAY,
    HOUR,
    BillOracle,
    Bounds,
    Clock,
    Killed,
    MemoryLog,
    Oracle,
    Record,
    assert_tables,
    in_order,
    killed_after,
    message,
    rows_of,
    written_adjustments,
)

MIDNIGHT = datetime.fromisoformat("2020-02-04T00:00:00+00:00")
PRICES = {(None, "Whatsapp"): Decimal("0.04"), (None, "SMS"): Decimal("0.005"), (2, "SMS"): Decimal("0.0333")}
PRICE_LIST = (
    b"customer_id,channel,unit_price,currency,valid_from,valid_to\n"
    b",Whatsapp,0.04,BRL,,\n,SMS,0.005,BRL,,\n2,SMS,0.0333,BRL,,\n"
)
STRICT, RELAXED = timedelta(days=2.5), timedelta(days=400)

GOOD = message()
POISON = (
    None,
    b"",
    b"null",
    b"[1]",
    GOOD[:-3],
    GOOD + GOOD,
    GOOD + b" x",
    b"\xef\xbb\xbf" + GOOD,
    b"\xff" + GOOD,
    GOOD.replace(b"Acme", b"\xed\xa0\x80"),
    GOOD.replace(b"Acme", b"\\ud800"),
    GOOD[:-1] + b', "x": NaN}',
    GOOD[:-1] + b', "x": ' + b"[" * 200 + b"]" * 200 + b"}",
    GOOD[:-1] + b', "customer_id": "1"}',
    *(
        message(**change)
        for change in (
            {"customer_id": 0},
            {"customer_id": True},
            {"customer_id": 2**63},
            {"payload": {"a": 1}},
            {"channel": ...},
            {"message_id": ""},
            {"message_id": "a\0"},
            {"channel": "What\nsapp"},
            {"customer_name": "x" * 8193},
            {"event_datetime": "2020-02-03T14:00:00"},
            {"event_datetime": "2020-02-30T14:00:00Z"},
            {"event_datetime": "9999-12-31T23:59:59Z"},
        )
    ),
)

# --- what may happen ------------------------------------------------------------------------------------------------

lateness = st.one_of(
    st.sampled_from([timedelta(0), timedelta(seconds=1), -timedelta(seconds=5), timedelta(minutes=59)]),
    st.sampled_from([HOUR, DAY - HOUR, DAY, DAY + HOUR, 2 * DAY, 2 * DAY + HOUR, 3 * DAY, 40 * DAY, -20 * HOUR]),
    st.timedeltas(timedelta(0), 3 * DAY),
)
some_days = st.sampled_from([DAY, 2 * DAY, 3 * DAY, 4 * DAY]) | st.timedeltas(DAY, 4 * DAY)
message_fields = st.fixed_dictionaries(
    {
        "partition": st.integers(0, 2),
        "zone": st.sampled_from([timedelta(0), timedelta(hours=-3), timedelta(hours=5, minutes=45)]),
        "customer_id": st.integers(1, 2),
        "message_id": st.sampled_from(["a", "b", "a\u200b", "é"]),
        "customer_name": st.sampled_from(["Acme", "Beta"]),
        "channel": st.sampled_from(["Whatsapp", "SMS"]),
        "payload": st.sampled_from(["", "Olá"]),
    }
)


def messages(late: st.SearchStrategy[timedelta]) -> st.SearchStrategy[dict[str, object]]:
    """Messages of few customers with few ids, so that duplicates abound."""
    return st.tuples(message_fields, late).map(lambda pair: pair[0] | {"late": pair[1]})


one_message = messages(lateness)
broken = st.tuples(st.integers(0, 2), st.sampled_from([*POISON, "no record"]))
produce = st.lists(st.one_of(one_message, one_message, one_message, broken), min_size=1, max_size=14)
crash = st.none() | st.integers(1, 12)
steps = st.lists(
    st.one_of(
        produce.map(lambda what: ("produce", what)),
        produce.map(lambda what: ("produce", what)),
        st.tuples(st.just("ingest"), st.tuples(st.integers(1, 50), st.booleans(), crash)),
        st.tuples(st.just("close"), st.tuples(st.integers(0, 3), crash)),
        st.tuples(st.just("wait"), st.sampled_from([HOUR / 2, 5 * HOUR, DAY])),
        st.tuples(st.just("readmit"), crash),
    ),
    min_size=4,
    max_size=10,
)
latecomers = st.lists(messages(some_days), min_size=1, max_size=10)


@dataclass
class World:
    """A lake, the topic before it, and the oracle beside it."""

    root: Path
    clock: Clock
    zone: str = "UTC"
    log: MemoryLog = field(default_factory=lambda: MemoryLog(2))
    max_age: timedelta = STRICT

    def __post_init__(self) -> None:
        self.lake = Lake(self.root)
        self.oracle = Oracle(self.log, self.settings().zone, {0: Bounds(max_age=STRICT)})
        self.bills = BillOracle(PRICES)
        prices.load_prices(self.lake, parse_price_list(PRICE_LIST, "prices.csv"))

    def settings(self, batch: int = 50) -> Settings:
        return Settings(batch_messages=batch, max_event_age=self.max_age, timezone=self.zone)

    def surviving(self, commits: int | None, action: Callable[[], object]) -> None:
        """Runs `action`; if `commits` is given, is killed after as many and then does it again."""
        if commits is not None:
            try:
                with killed_after(commits):
                    action()
            except Killed:
                pass
            else:
                return
        action()

    def produce(self, what: list[object]) -> None:
        for item in what:
            if isinstance(item, tuple):
                partition, value = item
                record = None if value == "no record" else Record(value, self.clock.now)
                self.log.produce(record, partition=partition)
                continue
            assert isinstance(item, dict)
            values = dict(item)
            partition, late, offset = (values.pop(name) for name in ("partition", "late", "zone"))
            event = (self.clock.now - late + offset).replace(tzinfo=None).isoformat()
            sign, minutes = ("-", -offset) if offset < timedelta(0) else ("+", offset)
            minutes //= timedelta(minutes=1)
            text = f"{event}{sign}{minutes // 60:02}:{minutes % 60:02}"
            self.log.produce(Record(message(text, **values), self.clock.now), partition=partition)

    def ingest(self, batch: int, settled: bool, commits: int | None = None) -> None:
        def action() -> None:
            bronze.advance_bronze_by_one(self.lake, self.log, self.settings(batch), "run", even_if_quiet=True)
            if settled:
                catch_up.advance_tables(self.lake, self.settings(batch))

        self.surviving(commits, action)

    def ingest_all(self, batch: int = 50) -> None:
        while True:
            self.ingest(batch, True)
            batches = self.oracle.replay(self.lake).batches
            newest = [row for row in batches if row["batch"] == batches[-1]["batch"]]
            if all(row["end_offset"] == row["log_end_offset"] for row in newest):
                return

    def close(self, back: int, commits: int | None = None) -> None:
        day = (self.clock.now - back * DAY).astimezone(self.settings().zone).date()
        catch_up.advance_tables(self.lake, self.settings())
        newest = max((row["batch"] for row in self.oracle.replay(self.lake).batches), default=0)
        until = self.oracle.complete_until(newest) if newest else None
        end = datetime.combine(day + DAY, datetime.min.time(), self.settings().zone)
        if day not in self.bills.lines and (until is None or until < end + HOUR):
            with pytest.raises(closing.NotClosable, match=str(day)):
                books.close_day(self.lake, self.settings(), self.log, day, "run")
            return
        self.surviving(commits, lambda: books.close_day(self.lake, self.settings(), self.log, day, "run"))
        self.bills.close(self.oracle.replay(self.lake), day)
        self.assert_bills()
        self.assert_sums(day)

    def readmit(self, commits: int | None = None) -> None:
        """The rule changes: what was too old is not any more; what the old rule rejected is tried again."""
        catch_up.execute_planned(self.lake, self.log, self.settings())
        newest = max((row["batch"] for row in rows_of(self.lake, "ingest_batches")), default=0)
        self.max_age = RELAXED
        self.oracle.bounds.setdefault(newest + 1, Bounds(max_age=RELAXED))

        def action() -> None:
            plan_move(self.lake, "run", "readmit", readmit_reason="event_too_early")
            catch_up.execute_planned(self.lake, self.log, self.settings())

        self.surviving(commits, action)

    def assert_bills(self) -> None:
        assert self.bills.written_lines(self.lake) == self.bills.lines
        assert written_adjustments(self.lake) == sorted(self.bills.adjustments)

    def assert_sums(self, day: date) -> None:
        """Lines + adjustments = the recount × price, and the lines' sums are those of billing_days."""
        totals: dict[tuple[int, str], tuple[int, Decimal]] = dict(self.bills.lines[day])
        for when, customer, channel, _, n, amount in written_adjustments(self.lake):
            if when == day:
                before = totals.get((customer, channel), (0, Decimal(0)))
                totals[customer, channel] = before[0] + n, before[1] + amount
        recount = {pair: (n, self.bills.amount(pair, n)) for pair, n in self.oracle.counts(day).items()}
        assert {pair: total for pair, total in totals.items() if total[0]} == recount
        (closed,) = [row for row in rows_of(self.lake, "billing_days") if row["billing_date"] == day]
        lines = self.bills.lines[day].values()
        assert (closed["lines"], closed["notifications"], closed["amount"]) == (
            len(lines),
            sum(n for n, _ in lines),
            sum((amount for _, amount in lines), Decimal(0)),
        )

    def assert_all(self) -> None:
        assert_tables(self.lake, self.oracle)
        self.assert_ledger()
        self.assert_bills()
        newest = self.oracle.batches[-1]["batch"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ledger, "_BATCHES_BACK", 1)  # so few that it has to look further back
            for batch in {1, -(-newest // 2), newest}:
                assert complete_until(self.lake, batch) == self.oracle.complete_until(batch)
        assert audit.offsets_taken_once(self.lake, 1, newest) == []
        assert audit.repeated_in_hours(self.lake, 0) == []
        assert audit.minutes_that_differ(self.lake) == []
        assert audit.panel_differences(self.lake, self.settings()) == []
        assert closed_days_that_differ(self.lake, self.settings()) == {}

    def assert_ledger(self) -> None:
        """Each partition is read without gap or overlap, no batch is larger than allowed, time never goes back."""
        batches = self.oracle.batches
        for partition in {row["kafka_partition"] for row in batches}:
            rows = [row for row in batches if row["kafka_partition"] == partition]
            assert rows[0]["start_offset"] == 0
            assert all(a["end_offset"] == b["start_offset"] for a, b in itertools.pairwise(rows))
        times = [row["planned_at"] for row in batches]
        assert times == sorted(times)
        numbers = sorted({row["batch"] for row in batches})
        assert numbers == list(range(1, len(numbers) + 1))

    def assert_gold_can_be_rebuilt(self) -> None:
        for name in ("minute_aggregates", "customer_panel"):
            written = rows_of(self.lake, name)
            shutil.rmtree(self.root / name)
            gold.advance_minutes(self.lake)
            gold.advance_panel(self.lake, self.settings())
            assert in_order(rows_of(self.lake, name)) == in_order(written), name


def run(zone: str, what: list[tuple[str, object]], late: list[object], again: bool) -> None:
    """Does what the steps say; then closes days, lets messages for them come late, and closes them again."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        world = World(Path(folder), Clock(patch, MIDNIGHT + HOUR), zone)
        for step, arguments in what:
            if step == "wait":
                assert isinstance(arguments, timedelta)
                world.clock.advance(arguments)
            elif step in ("produce", "readmit"):
                getattr(world, step)(arguments)
            else:
                assert isinstance(arguments, tuple)
                getattr(world, step)(*arguments)
        world.ingest_all()
        world.assert_all()
        world.clock.advance(2 * DAY)
        world.ingest_all()
        for back in (3, 2):
            world.close(back)
        world.produce(late)
        world.ingest_all()
        if again:
            world.readmit()
        for back in (3, 2):
            world.close(back)
        world.assert_all()
        world.assert_gold_can_be_rebuilt()


RUNS = settings(max_examples=8, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True)


@RUNS
@given(st.sampled_from(["UTC", "America/Sao_Paulo", "Asia/Kathmandu"]), steps, latecomers, st.booleans())
def test_every_table_is_what_plain_python_makes_of_the_stream(
    zone: str, what: list[tuple[str, object]], late: list[object], again: bool
) -> None:
    run(zone, what, late, again)
