"""Killed after any commit, or run twice at once: every table exact."""

import copy
import itertools
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

import pytest

from notif_assets.billing import prices
from notif_assets.billing.price_list import parse_price_list
from notif_assets.lake import Lake
from notif_assets.notifications import bronze, catch_up
from notif_assets.notifications.ledger import plan_move
from notif_assets.settings import Settings
from notif_assets_tests import books
from notif_assets_tests.notifications.test_model import POISON, PRICE_LIST, PRICES
from notif_assets_tests.streams import (
    DAY,
    HOUR,
    NOON,
    BillOracle,
    Bounds,
    Clock,
    Killed,
    MemoryLog,
    Oracle,
    Record,
    assert_tables,
    killed_after,
    message,
    sent,
    written_adjustments,
)

MONDAY = date(2020, 2, 3)
STRICT, RELAXED = timedelta(days=30), timedelta(days=400)


def strict(batch: int = 50) -> Settings:
    return Settings(batch_messages=batch, max_event_age=STRICT)


def relaxed(batch: int = 50) -> Settings:
    return Settings(batch_messages=batch, max_event_age=RELAXED)


class Scenario:
    """Everything that commits, in a few steps."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self.lake, self.log, self.clock = Lake(root), MemoryLog(2), clock
        self.oracle = Oracle(self.log, bounds={0: Bounds(max_age=STRICT)})
        self.bills = BillOracle(PRICES)

    def steps(self) -> Iterator[tuple[Callable[[], object], date | None]]:
        """Each step, and the day that it closes if it does. What lies between two steps is not the lake's."""
        lake, log = self.lake, self.log
        yield lambda: prices.load_prices(lake, parse_price_list(PRICE_LIST, "prices.csv")), None
        twice = sent(NOON, message_id="twice")
        log.produce(twice, twice, sent(NOON, message_id="twice", payload="other"), *(Record(p) for p in POISON[:4]))
        log.produce(sent(NOON, channel="SMS"), None, sent(NOON + HOUR, message_id="twice"), partition=1)
        log.produce(sent(NOON - 40 * DAY, at=NOON, message_id="old"), partition=1)
        log.produce(sent(NOON, message_id="x", customer_id=2, channel="SMS"), sent(NOON + DAY, message_id="twice"))
        yield lambda: bronze.advance_bronze_by_one(lake, log, strict(8), "run", even_if_quiet=True), None
        yield lambda: catch_up.advance_tables(lake, strict()), None
        self.clock.advance(2 * DAY)
        yield self.catch_up, None
        yield lambda: books.close_day(lake, strict(), log, MONDAY, "run"), MONDAY
        log.produce(sent(NOON, at=self.clock.now, message_id="late"))
        log.produce(sent(NOON + 5 * HOUR, at=self.clock.now, message_id="twice"), partition=1)
        log.produce(sent(NOON - 32 * DAY, at=NOON, message_id="older"))
        yield self.catch_up, None
        yield lambda: books.close_day(lake, strict(), log, MONDAY, "run"), MONDAY
        # The rule changes, and what was too old is tried again.
        self.oracle.bounds[self.newest() + 1] = Bounds(max_age=RELAXED)
        yield self.readmit, None
        late = (NOON - 32 * DAY).date()
        yield lambda: books.close_day(lake, relaxed(), log, late, "run"), late

    def settings(self) -> Settings:
        """Those in force now."""
        return strict() if len(self.oracle.bounds) == 1 else relaxed()

    def newest(self) -> int:
        return self.lake.table("ingest_batches").watermark

    def catch_up(self) -> None:
        bronze.advance_bronze_by_one(self.lake, self.log, strict(), "run", even_if_quiet=True)
        catch_up.advance_tables(self.lake, strict())

    def readmit(self) -> None:
        plan_move(self.lake, "run", "readmit", readmit_reason="event_too_early")
        catch_up.execute_planned(self.lake, self.log, relaxed())

    def assert_all(self, bills: BillOracle) -> None:
        assert_tables(self.lake, self.oracle)
        assert bills.written_lines(self.lake) == bills.lines
        assert written_adjustments(self.lake) == sorted(bills.adjustments)


def finishes(step: Callable[[], object], commits: int) -> bool:
    """Runs a step that is killed after so many commits, and then again; whether it finished before."""
    try:
        with killed_after(commits):
            step()
    except Killed:
        step()
        return False
    return True


def test_killed_after_any_commit_and_run_again(tmp_path: Path) -> None:
    root, before, crashes = tmp_path / "lake", tmp_path / "before", 0
    root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        scenario = Scenario(root, Clock(patch))
        for step, closes in scenario.steps():
            shutil.copytree(root, before)
            for commits in itertools.count(1):
                done = finishes(step, commits)
                bills = copy.deepcopy(scenario.bills)
                if closes:
                    bills.close(scenario.oracle.replay(scenario.lake), closes)
                if done:
                    break
                crashes += 1
                catch_up.execute_planned(scenario.lake, scenario.log, scenario.settings())
                if scenario.newest():
                    scenario.assert_all(bills)
                shutil.rmtree(root)
                shutil.copytree(before, root)
            scenario.bills = bills
            shutil.rmtree(before)
        scenario.assert_all(scenario.bills)
    # The scenario was worth it: every kind of commit was there.
    oracle = scenario.oracle
    assert crashes > 35
    assert {row["reason"] for row in oracle.rejected} >= {"duplicate", "duplicate_conflict", "tombstone"}
    assert {row["kind"] for row in oracle.batches} == {"kafka", "dedup", "readmit"}
    assert len(scenario.bills.lines) == 2
    assert scenario.bills.adjustments


# --- two at once ----------------------------------------------------------------------------------------------------


def ingest(root: Path, log: MemoryLog, batch: int) -> None:
    """As `ingest --until-caught-up`, in a lake object of one's own."""
    settings = Settings(batch_messages=batch)
    with Lake(root) as lake:
        end = sum(len(records) for records in log.partitions.values())
        while True:
            bronze.advance_bronze_by_one(lake, log, settings, f"run-{threading.get_ident()}", even_if_quiet=True)
            catch_up.advance_tables(lake, settings)
            if sum(catch_up.committed_ends(lake).values()) >= end:
                return


def crowd(messages: int) -> MemoryLog:
    log = MemoryLog(3)
    for n in range(messages):
        event = NOON + timedelta(minutes=n % 7, hours=n % 3)
        log.produce(sent(event, message_id=str(n % 25), customer_id=1 + n % 2), partition=n % 3)
        log.produce(Record(POISON[n % len(POISON)]), partition=n % 3)
    return log


def test_two_ingest_at_once_and_nobody_fails(tmp_path: Path) -> None:
    log = crowd(60)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(ingest, tmp_path / "lake", log, batch) for batch in (17, 23)]:
            done.result()
    with Lake(tmp_path / "lake") as lake:
        assert_tables(lake, Oracle(log))


def test_two_close_and_ingest_at_once(tmp_path: Path) -> None:
    log, root = crowd(20), tmp_path / "lake"
    log.produce(*(sent(NOON + n * HOUR, message_id="same", customer_id=2) for n in range(4)))

    def close(day: date) -> None:
        ingest(root, log, 50)
        with Lake(root) as lake:
            books.close_day(lake, Settings(), log, day, "run")

    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(close, day) for day in (MONDAY, MONDAY, MONDAY - DAY)]
        for done in waiting:
            done.result()
    with Lake(root) as lake:
        oracle = Oracle(log)
        assert_tables(lake, oracle)
        bills = BillOracle({(None, "Whatsapp"): PRICES[None, "Whatsapp"]})
        bills.close(oracle, MONDAY)
        bills.close(oracle, MONDAY - DAY)
        assert bills.written_lines(lake) == bills.lines
        assert written_adjustments(lake) == []
        assert oracle.counts(MONDAY)[2, "Whatsapp"] > 1


def test_gold_is_a_function_of_silver(tmp_path: Path) -> None:
    log = crowd(10)
    ingest(tmp_path / "lake", log, 7)
    with Lake(tmp_path / "lake") as lake:
        for name in ("customer_panel", "minute_aggregates"):
            shutil.rmtree(lake.root / name)
            catch_up.advance_tables(lake, Settings())
            assert_tables(lake, Oracle(log))


def test_a_message_that_cannot_be_read_costs_nobody_else(lake: Lake) -> None:
    log = MemoryLog(1)
    for n, value in enumerate(POISON):
        log.produce(sent(NOON, message_id=f"before-{n}"), Record(value), sent(NOON, message_id=f"after-{n}"))
    absurd = [
        Record(message("1970-01-01T00:00:05Z"), NOON.replace(year=1970, month=1, day=1, hour=0)),
        Record(message("2999-01-01T00:00:00Z"), NOON.replace(year=2999, month=1, day=1)),
        Record(message("1969-12-31T23:59:59Z"), NOON.replace(year=1970, month=1, day=1, hour=0)),
        Record(message("9999-12-31T23:59:59Z"), NOON.replace(year=9999, month=12, day=31)),
        Record(message(NOON, message_id="no timestamp"), None),
    ]
    log.produce(*absurd, sent(NOON, message_id="last"))
    ingest(lake.root, log, 1000)
    oracle = Oracle(log)
    assert_tables(lake, oracle)
    assert len(oracle.accepted) == 2 * len(POISON) + 1
