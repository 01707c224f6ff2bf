"""A closed day counted again: only of the customers of whom its bill may lack something, and always to the same end.

Belongs here: what is due of a day counted whole and counted in part, after whatever may happen to a closed day, and
which rows are read for it. Doesn't: the sums themselves (test_history.py).
"""

import itertools
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notif_assets.billing import closing
from notif_assets.billing.adjustments import _adjustments_due, days_with_adjustments_due
from notif_assets.billing.audit import closed_days_that_differ
from notif_assets.billing.closed_days import closed_rows
from notif_assets.billing.lines import BillRefused
from notif_assets.lake import Lake, Scan
from notif_assets.maintenance.maintain import maintain
from notif_assets.notifications import catch_up
from notif_assets.notifications.ledger import plan_move
from notif_assets.settings import Settings
from notif_assets_tests import books
from notif_assets_tests.billing.test_bill import LIST, MONDAY, House
from notif_assets_tests.conftest import Asked
from notif_assets_tests.streams import DAY, HOUR, NOON, Clock, Killed, Row, killed_after, sent

LATER = datetime(2100, 1, 1, tzinfo=UTC)
LISTS = (
    LIST,
    (",Whatsapp,0.05,BRL,,", LIST[1]),
    (*LIST, ",Fax,0.03,BRL,,"),
    (",Whatsapp,0.04,USD,,", ",SMS,0.005,USD,,"),
)


def due(house: House, day: date, *, whole: bool) -> tuple[list[Row], tuple[str, ...]]:
    """The rows that the day's adjustments lack, and what is held."""
    rows, held = _adjustments_due(
        house.lake, house.settings, day, house.lake.table("billing_adjustments"), "run", whole=whole
    )
    return rows.drop_columns(["created_at"]).to_pylist(), held


def close(house: House, day: date, *, whole: bool) -> closing.Billed:
    house.ingest()
    return books.close_day(house.lake, house.settings, house.log, day, "run", whole=whole)


messages = st.tuples(
    st.integers(1, 3),
    st.sampled_from(["Whatsapp", "Whatsapp", "SMS", "Fax"]),
    st.sampled_from(["Ana", "Bo"]),
    st.sampled_from([-DAY, timedelta(0), HOUR, 11 * HOUR, 13 * HOUR, DAY]),
    st.sampled_from("abcdefghij"),
)
steps = st.one_of(
    st.tuples(st.just("send"), messages),
    st.tuples(st.just("send"), messages),
    st.tuples(st.just("ingest"), st.none()),
    st.tuples(st.just("correct"), st.integers(0, 3)),
    st.tuples(st.just("correct"), st.integers(0, 3)),
    st.tuples(st.just("reprice"), st.tuples(st.sampled_from(LISTS), st.integers(0, 4))),
    st.tuples(st.just("deduplicate"), st.integers(0, 3)),
    st.tuples(st.just("readmit"), st.none()),
    st.tuples(st.just("maintain"), st.none()),
)


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.one_of(messages, messages), max_size=6),
    st.lists(steps, min_size=4, max_size=10),
)
def test_what_a_bill_lacks_is_the_same_whether_the_day_is_counted_whole_or_in_part(
    before: list[tuple[int, str, str, timedelta, str]], after: list[tuple[str, object]]
) -> None:
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder, Lake(Path(folder) / "lake") as lake:
        house = House(lake, Clock(patch, NOON + 2 * DAY), max_event_age=timedelta(days=3.5))
        house.price(*LISTS[2])
        for message in before:
            _send(house, message)
        days = [MONDAY, MONDAY + DAY]
        for day in (MONDAY - DAY, *days[:1]):
            close(house, day, whole=True)
        house.price(*LIST)
        house.clock.advance(DAY)
        actions: dict[str, Callable[..., object]] = {
            "send": _send,
            "ingest": lambda house, _: house.ingest(),
            "correct": _correct,
            "reprice": _reprice,
            "deduplicate": _deduplicate,
            "readmit": _readmit,
            "maintain": lambda house, _: maintain(house.lake, house.settings, LATER),
        }
        for what, how in after:
            actions[what](house, how)
            for day in closed_rows(lake):
                assert due(house, day, whole=False) == due(house, day, whole=True)
        house.ingest()
        for day in closed_rows(lake):
            close(house, day, whole=False)
            assert due(house, day, whole=True)[0] == []
        assert closed_days_that_differ(lake, house.settings) == {}


def _send(house: House, message: tuple[int, str, str, timedelta, str]) -> None:
    customer, channel, name, shift, key = message
    values = {"customer_id": customer, "message_id": f"{customer} {key}", "channel": channel, "customer_name": name}
    house.log.produce(sent(NOON + shift, at=house.clock.now, **values))


def _correct(house: House, killed: int) -> None:
    """In part; killed after some commits, it is left to the next one. Tuesday may be open, and closes then."""
    for day in (MONDAY, MONDAY + DAY):
        with suppress(Killed, BillRefused, closing.NotClosable), killed_after(killed or 99):
            close(house, day, whole=False)


def _reprice(house: House, how: tuple[tuple[str, ...], int]) -> None:
    listed, killed = how
    house.price(*listed)
    with suppress(Killed, BillRefused), killed_after(killed or 99):
        closing.reprice(house.lake, house.settings, MONDAY, "corrected", "run")


def _deduplicate(house: House, days: int) -> None:
    plan_move(house.lake, "run", "dedup", dedup_through=MONDAY + days * DAY)
    catch_up.execute_planned(house.lake, house.log, house.settings)


def _readmit(house: House, _: object) -> None:
    """What happened on Sunday was refused as too early until now."""
    house.settings = Settings()
    plan_move(house.lake, "run", "readmit", readmit_reason="event_too_early")
    catch_up.execute_planned(house.lake, house.log, house.settings)


def test_of_a_corrected_day_only_those_customers_are_counted_who_changed(
    lake: Lake, asked: list[Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 40 customers one, and not the day's minutes, however many there are; nobody once it is corrected."""
    house = House(lake, Clock(monkeypatch, NOON + 2 * DAY))
    house.price(*LIST)
    for customer, hour in itertools.product(range(1, 41), range(6)):
        house.send(1, NOON + hour * HOUR, customer_id=customer)
    house.close()
    assert [_counted(house, asked, whole) for whole in (True, False)] == [240, 0]
    house.send(1, NOON, customer_id=7)
    house.send(1, NOON, customer_id=7, channel="SMS")
    house.ingest()
    assert [_counted(house, asked, whole) for whole in (True, False)] == [241, 7]
    assert _files(asked, "customers_to_recount") == 1  # of six: the others hold nothing that was not billed
    assert days_with_adjustments_due(lake, house.settings, 0)[0] == [MONDAY]
    assert close(house, MONDAY, whole=False).adjustments == 2
    assert [_counted(house, asked, whole) for whole in (True, False)] == [241, 0]
    assert days_with_adjustments_due(lake, house.settings, 0)[0] == []


def _counted(house: House, asked: list[Asked], whole: bool) -> int:
    """How many rows of minute_aggregates are counted to find what is due."""
    del asked[:]
    due(house, MONDAY, whole=whole)
    inputs = [question.inputs["minutes"] for question in asked if question.name == "day_counts"]
    return sum(len(house.lake.rows(rows) if isinstance(rows, Scan) else rows) for rows in inputs)


def _files(asked: list[Asked], name: str) -> int:
    return sum(len(question.inputs["minutes"].files) for question in asked if question.name == name)


def test_a_day_that_was_counted_before_it_was_deduplicated_is_counted_whole(
    lake: Lake, asked: list[Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No version closes a day so. If it were so, duplicates could go from it, and no minute would be newer."""
    house = House(lake, Clock(monkeypatch, NOON + 2 * DAY))
    house.price(*LIST)
    house.send(2)
    with monkeypatch.context() as patch:
        patch.setattr(books, "deduplicate", lambda *_: None)
        patch.setattr(closing, "is_deduplicated", lambda *_: True)
        house.close()
    assert _counted(house, asked, whole=False) == 1
    plan_move(lake, "run", "dedup", dedup_through=MONDAY)
    catch_up.execute_planned(lake, house.log, house.settings)
    assert _counted(house, asked, whole=False) == 1


@pytest.mark.parametrize("listed", LISTS[1:], ids=["price", "nothing", "currency"])
def test_a_reprice_that_was_killed_is_found_though_no_minute_is_newer(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, listed: tuple[str, ...]
) -> None:
    house = House(lake, Clock(monkeypatch, NOON + 2 * DAY))
    house.price(*LIST)
    house.send(3, customer_name="Old")
    house.send(2, event=NOON + HOUR, channel="SMS", customer_name="New")
    house.close()
    house.price(*listed)
    with suppress(Killed), killed_after(1, "billing_days"):
        closing.reprice(lake, house.settings, MONDAY, "corrected", "run")
    assert due(house, MONDAY, whole=False) == due(house, MONDAY, whole=True)
    expected = [MONDAY] if due(house, MONDAY, whole=True)[0] else []
    assert days_with_adjustments_due(lake, house.settings, 99)[0] == expected


def test_what_has_no_price_is_told_again_after_others_were_corrected(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bill counts each customer and channel up to a batch of its own."""
    house = House(lake, Clock(monkeypatch, NOON + 2 * DAY))
    house.price(*LIST)
    house.send()
    house.close()
    house.send(channel="Fax")
    house.send(customer_id=2)
    assert len(close(house, MONDAY, whole=False).held) == 1
    house.send(customer_id=2)
    assert len(close(house, MONDAY, whole=False).held) == 1
    assert due(house, MONDAY, whole=False) == due(house, MONDAY, whole=True)


def test_amounts_of_two_currencies_are_never_taken_for_each_other(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list in force has the same prices in the currency that the day was first billed in."""
    house = House(lake, Clock(monkeypatch, NOON + 2 * DAY))
    house.price(*LIST)
    house.send(25)
    house.close()
    house.price(",Whatsapp,0.04,USD,,", ",SMS,0.005,USD,,")
    closing.reprice(lake, house.settings, MONDAY, "dollars", "run")
    house.price(*LIST)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(closing, "close_day", _killed)
        with pytest.raises(Killed):  # before its adjustments
            closing.reprice(lake, house.settings, MONDAY, "and back", "run")
    assert due(house, MONDAY, whole=False) == due(house, MONDAY, whole=True) != ([], ())


def _killed(*_: object, **__: object) -> None:
    raise Killed
