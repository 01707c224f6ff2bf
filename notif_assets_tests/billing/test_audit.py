"""Closed days are counted again when something of them changed, as long as they do not hold, and all within 24 days."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from notif_assets.billing import audit
from notif_assets.billing.audit import HOUR, AuditState, closed_days_that_differ, days_to_count, next_state
from notif_assets_tests.instance.daemon import Daemon
from notif_assets_tests.streams import sent

NOW = datetime.now(UTC)
DAYS_AGO = [str((NOW - timedelta(days=n)).date()) for n in range(6)]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
START = 490_000
DAY = date(2026, 1, 1)
OLD = EPOCH + (START - 1_000) * HOUR


@given(st.integers(1, 1_200), st.lists(st.integers(1, 30), min_size=30, max_size=600))
def test_every_closed_day_is_counted_within_24_days_of_looking(many: int, gaps: list[int]) -> None:
    """However many hours lie between two looks, and never more than a few days in one of them."""
    closed = {DAY + timedelta(days=n): OLD for n in range(many)}
    memory, counted, hour = AuditState(START), set[date](), START
    for gap in gaps:
        hour += gap
        days = days_to_count(closed, (), memory, hour)
        assert len(days) <= gap * (many // 576 + 1)
        counted |= set(days)
        memory = next_state(memory, hour, days, ())
    if hour - START >= 576:
        assert counted == closed.keys()


def test_a_day_is_counted_when_it_closes_and_once_a_day_while_it_is_corrected() -> None:
    closed = {DAY: OLD, DAY + timedelta(days=1): EPOCH + (START + 10) * HOUR}
    memory, looks = AuditState(START), dict[date, list[int]]()
    for hour in range(START + 1, START + 60):
        known = {day: at for day, at in closed.items() if at <= EPOCH + hour * HOUR}
        days = days_to_count(known, {DAY} if hour > START + 5 else (), memory, hour)
        memory = next_state(memory, hour, days, ())
        for day in days:
            looks.setdefault(day, []).append(hour - START)
    assert looks[DAY] == [6, 30, 54]
    assert looks[DAY + timedelta(days=1)][0] == 10


def test_a_day_that_does_not_hold_is_counted_until_it_does() -> None:
    closed = {DAY: OLD}
    memory = next_state(AuditState(START), START + 1, [DAY], [DAY])
    for hour in (2, 3, 4):
        assert days_to_count(closed, (), memory, START + hour) == [DAY]
        memory = next_state(memory, START + hour, [DAY], [DAY] if hour < 4 else [])
    assert days_to_count(closed, (), memory, START + 5) == []


@pytest.mark.parametrize("known", [None, "", {}, {"hour": "x"}, {"hour": 1, "seen": [], "failing": [], "batch": 0}])
def test_what_is_no_memory_is_none(known: Any) -> None:
    assert AuditState.of(known) is None


def test_a_memory_is_kept_whole() -> None:
    memory = AuditState(5, {DAY: 4}, [DAY], 9)
    assert AuditState.of(memory.as_json()) == memory


def test_the_hourly_check_counts_what_changed_and_what_did_not_hold(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in (3, 4, 5):
        daemon.topic.produce(sent(NOW - timedelta(days=n), message_id=f"{n}"))
    daemon.ingest()
    daemon.close(*DAYS_AGO[3:6])
    assert look(daemon) == (True, 3)  # nothing was remembered
    hours = audit.epoch_hour(datetime.now(UTC))
    later = next(n for n in range(2, 600) if not days_of_slice(hours + n))
    monkeypatch.setattr(audit, "epoch_hour", lambda _: hours + later)
    assert look(daemon)[0]
    monkeypatch.setattr(audit, "epoch_hour", lambda _: hours + later)
    assert look(daemon) == (True, 0)

    DeltaTable(daemon.lake.root / "daily_billing").delete(f"billing_date = '{DAYS_AGO[5]}'")
    assert look(daemon) == (True, 0)  # nobody closed it, nobody corrected it: its turn comes within 24 days
    assert look(daemon, everything=True) == (False, 3)
    assert look(daemon) == (False, 1)
    assert look(daemon) == (False, 1)
    assert closed_days_that_differ(daemon.lake, daemon.settings).keys() == {date.fromisoformat(DAYS_AGO[5])}


def days_of_slice(hour: int) -> list[str]:
    """The closed days whose turn is in this hour."""
    return [day for day in DAYS_AGO[3:6] if date.fromisoformat(day).toordinal() % 576 == hour % 576]


def look(daemon: Daemon, *, everything: bool = False) -> tuple[bool, int]:
    """Whether the check passes, and how many days it counts."""
    config = {"ops": {"daily_billing_closed_days_equal_their_recount": {"config": {"everything": everything}}}}
    evaluations = daemon.run("all_checks", dg.RunRequest(run_config=config)).get_asset_check_evaluations()
    (found,) = [one for one in evaluations if one.check_name == "closed_days_equal_their_recount"]
    days = found.metadata["days_counted"].value
    assert isinstance(days, int)
    return found.passed, days
