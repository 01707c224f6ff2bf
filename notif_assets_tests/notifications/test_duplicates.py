"""Duplicates case by case: which of several messages counts, on arrival and when days close."""

from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notif_assets.lake import Lake
from notif_assets.notifications import bronze, catch_up, ledger
from notif_assets.notifications.ledger import plan_move
from notif_assets.settings import Settings
from notif_assets_tests.conftest import Asked
from notif_assets_tests.streams import DAY, HOUR, NOON, MemoryLog, Oracle, Record, assert_tables, message, rows_of


class Stream:
    """Messages with one key and their fate, told by number in order of arrival."""

    def __init__(self, lake: Lake) -> None:
        self.lake, self.log = lake, MemoryLog(1)

    def arrive(self, *lateness: timedelta, **fields: object) -> None:
        """One batch of messages that happened so long before noon."""
        for late in lateness:
            self.log.produce(Record(message(NOON - late, **fields), NOON))
        self._ingest()

    def _ingest(self) -> None:
        bronze.advance_bronze_by_one(self.lake, self.log, Settings(), "run", even_if_quiet=True)
        catch_up.advance_tables(self.lake, Settings())

    def arrive_together(self, messages: Iterable[dict[str, Any]]) -> None:
        """One batch of different messages, each of which happened so long before noon as its `late` says."""
        for fields in messages:
            others = {name: value for name, value in fields.items() if name != "late"}
            self.log.produce(Record(message(NOON - fields["late"], **others), NOON))
        self._ingest()

    def close(self, days_ago: int) -> None:
        """Deduplicates every day up to one."""
        plan_move(self.lake, "run", "dedup", dedup_through=(NOON - days_ago * DAY).date())
        catch_up.execute_planned(self.lake, self.log, Settings())

    def kept(self) -> list[int]:
        """Which messages count; everything else is compared with the oracle."""
        assert_tables(self.lake, Oracle(self.log))
        return sorted(row["kafka_offset"] for row in rows_of(self.lake, "notifications"))

    def reasons(self) -> dict[int, tuple[str, str]]:
        """Why the others don't."""
        rejected = rows_of(self.lake, "rejected_notifications")
        return {row["kafka_offset"]: (row["reason"], row["detail"]) for row in rejected}


@pytest.fixture
def stream(lake: Lake) -> Stream:
    return Stream(lake)


def test_on_arrival_a_message_is_checked_against_its_own_hour(stream: Stream) -> None:
    stream.arrive(0 * HOUR, -timedelta(minutes=59), HOUR)
    stream.arrive(-timedelta(minutes=30), HOUR, 2 * HOUR)
    assert stream.kept() == [0, 2, 5]
    first = "the first is batch 1, partition 0, offset"
    assert stream.reasons() == {n: ("duplicate", f"{first} {of}") for n, of in ((1, 0), (3, 0), (4, 2))}


def test_the_same_message_is_caught_however_late_it_comes_again(stream: Stream) -> None:
    stream.arrive(300 * DAY)
    stream.arrive(300 * DAY)
    assert stream.kept() == [0]


def test_a_key_is_two_values(stream: Stream) -> None:
    for customer, name in ((1, "11"), (11, "1"), (111, ""), (1, "1"), (2, "11"), (1, "11 "), (1, "é"), (1, "É")):
        stream.arrive(0 * HOUR, customer_id=customer, message_id=name or "x")
    assert stream.kept() == list(range(8))


@pytest.mark.parametrize("field", ["customer_name", "channel", "payload"])
def test_another_content_is_a_conflict(stream: Stream, field: str) -> None:
    stream.arrive(0 * HOUR)
    stream.arrive(0 * HOUR, **{field: "another"})
    stream.arrive(0 * HOUR)
    stream.arrive(5 * HOUR, **{field: "another"})
    stream.close(0)
    assert stream.kept() == [0]
    assert {n: reason for n, (reason, _) in stream.reasons().items()} == {
        1: "duplicate_conflict",
        2: "duplicate",
        3: "duplicate_conflict",
    }


def test_where_a_day_is_deduplicated_it_and_its_neighbours_are_looked_at(stream: Stream) -> None:
    stream.arrive(2 * DAY)
    stream.close(2)
    # Of a day that is not, only the own hour; of one that is, the day and both neighbours.
    for late in (2 * DAY + 5 * HOUR, 3 * DAY, DAY, 4 * DAY, 4 * DAY - 5 * HOUR, 5 * DAY):
        stream.arrive(late)
    assert stream.kept() == [0, 3, 4]
    stream.close(1)
    assert stream.kept() == [0, 4]
    assert stream.reasons()[3] == ("duplicate", "the first is batch 1, partition 0, offset 0")
    assert stream.reasons()[6] == ("duplicate", "the first is batch 6, partition 0, offset 4")


def test_of_a_batch_for_deduplicated_days_nobody_is_the_duplicate_of_a_duplicate(stream: Stream) -> None:
    stream.arrive(10 * DAY, message_id="another")
    stream.close(1)
    # The second goes because of the first; the third is two days from the first, and only the second's neighbour.
    stream.arrive(5 * DAY, 4 * DAY, 3 * DAY, 2 * DAY)
    assert stream.kept() == [0, 1, 3]


def test_a_message_of_an_open_day_goes_when_the_day_closes_if_the_day_before_had_it(stream: Stream) -> None:
    stream.arrive(2 * DAY)
    stream.close(2)
    stream.arrive(DAY, DAY - HOUR, 0 * HOUR)
    assert stream.kept() == [0, 1, 2, 3]
    stream.close(1)
    assert stream.kept() == [0, 3]  # two days after the first


def test_the_first_to_arrive_counts_though_it_happened_later(stream: Stream) -> None:
    stream.arrive(DAY)
    stream.arrive(DAY + HOUR)
    stream.arrive(2 * DAY)
    stream.close(2)
    assert stream.kept() == [0]


def test_days_go_in_order_of_date(stream: Stream) -> None:
    stream.arrive(DAY, 2 * DAY, 3 * DAY)
    stream.close(0)
    # The third goes because of the second, and then the second because of the first.
    assert stream.kept() == [0]
    assert stream.reasons()[2] == ("duplicate", "the first is batch 1, partition 0, offset 1")


def test_what_was_deduplicated_is_not_looked_at_again(stream: Stream) -> None:
    stream.arrive(DAY, DAY + HOUR)
    for days_ago in (1, 1, 2, 0):
        stream.close(days_ago)
    assert stream.kept() == [0]
    assert stream.reasons()[1][0] == "duplicate"


def test_how_far_days_are_deduplicated_is_read_from_the_newest_batches(
    stream: Stream, asked: list[Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected: list[date | None] = [None]
    for days_ago in (5, 3, 3, 4, 2):
        stream.arrive(days_ago * DAY, message_id=f"{days_ago}")
        expected.append(expected[-1])
        watermark = stream.lake.table("ingest_batches").watermark
        stream.close(days_ago)
        if days_ago in (3, 4) and expected[-1] == (NOON - 3 * DAY).date():  # nothing is left to do
            assert stream.lake.table("ingest_batches").watermark == watermark
        else:
            expected.append((NOON - days_ago * DAY).date())
    for many in (1, 2, 100):
        monkeypatch.setattr(ledger, "_BATCHES_BACK", many)
        assert [ledger.deduplicated_through(stream.lake, n + 1) for n in range(len(expected))] == expected
    monkeypatch.setattr(ledger, "_BATCHES_BACK", 2)
    del asked[:]
    assert ledger.deduplicated_through(stream.lake) == expected[-1]
    assert [len(question.inputs["batches"].files) for question in asked] == [2]
    stream.kept()


def test_of_several_that_came_before_the_first_to_arrive_is_named(stream: Stream) -> None:
    stream.arrive(2 * DAY)
    stream.arrive(4 * DAY)
    stream.close(2)
    stream.arrive(3 * DAY)
    assert stream.kept() == [0, 1]
    assert stream.reasons()[2] == ("duplicate", "the first is batch 1, partition 0, offset 0")


# --- what the panel shows after messages went -------------------------------------------------------------------------


def test_a_channel_goes_with_its_only_message_and_the_name_with_the_newest(stream: Stream) -> None:
    stream.arrive(900 * HOUR, message_id="1", channel="SMS", customer_name="Oldest")
    stream.arrive(30 * HOUR, message_id="2", customer_name="Before")
    stream.arrive(26 * HOUR, message_id="2", channel="RCS", customer_name="After")
    stream.arrive(26 * HOUR, message_id="3", channel="RCS", customer_id=2)
    assert shown(stream) == {(1, "SMS", "After"), (1, "Whatsapp", "After"), (1, "RCS", "After"), (2, "RCS", "Acme")}
    stream.close(1)
    assert stream.kept() == [0, 1, 3]
    assert shown(stream) == {(1, "SMS", "Before"), (1, "Whatsapp", "Before"), (2, "RCS", "Acme")}


def test_a_channel_whose_newest_message_went_shows_the_one_before(stream: Stream) -> None:
    for hours in (2_000, 1_000, 500, 31):
        stream.arrive(hours * HOUR, message_id=str(hours))
        stream.arrive(hours * HOUR, message_id=str(hours), customer_id=2)
    stream.arrive(27 * HOUR, message_id="31")
    stream.close(1)
    assert stream.kept() == [0, 1, 2, 3, 4, 5, 6, 7]
    newest = {row["customer_id"]: row["last_event"] for row in rows_of(stream.lake, "customer_panel")}
    assert newest == {1: NOON - 31 * HOUR, 2: NOON - 31 * HOUR}


def test_a_message_before_another_customer_s_newest_is_not_taken_for_the_newest(stream: Stream) -> None:
    """Where the newest messages of several customers went, the hours that are looked at first are not in a row."""
    stream.arrive(90 * HOUR)
    stream.arrive(70 * HOUR, message_id="old")
    stream.arrive(60 * HOUR, message_id="new")
    for hours in (95, 90):
        stream.arrive(hours * HOUR, message_id="other", customer_id=2)
    stream.arrive(30 * HOUR, message_id="new")
    stream.close(1)
    assert stream.kept() == [0, 1, 2, 3]
    newest = {row["customer_id"]: row["last_event"] for row in rows_of(stream.lake, "customer_panel")}
    assert newest == {1: NOON - 60 * HOUR, 2: NOON - 95 * HOUR}


some_message = st.fixed_dictionaries(
    {
        "late": st.integers(25, 90).map(lambda hours: hours * HOUR),
        "customer_id": st.integers(1, 3),
        "message_id": st.sampled_from("abc"),
        "customer_name": st.sampled_from(["Acme", "Beta", "Gama"]),
        "channel": st.sampled_from(["Whatsapp", "SMS"]),
    }
)


@settings(max_examples=15, derandomize=True, deadline=None)
@given(st.lists(some_message, min_size=5, max_size=40))
def test_whatever_goes_the_panel_is_that_of_the_messages_that_stay(messages: list[dict[str, Any]]) -> None:
    with TemporaryDirectory() as folder:
        stream = Stream(Lake(Path(folder)))
        stream.arrive_together(messages)
        stream.close(1)
        stream.kept()


def test_after_messages_went_few_minutes_are_read(stream: Stream, asked: list[Asked]) -> None:
    """Of a message a day for 60 days the newest went: not all minutes there ever were are looked at."""
    stream.arrive_together({"late": day * DAY + 6 * HOUR, "message_id": str(day)} for day in range(60, 0, -1))
    stream.arrive(26 * HOUR, message_id="1")
    asked.clear()
    stream.close(1)
    assert stream.kept() == [*range(60)]
    read = [len(question.inputs["minutes"].files) for question in asked if question.name == "known_customers"]
    assert read == [0, 24, 0]  # the hour that it was in, those before, and what the batch changed


def shown(stream: Stream) -> set[tuple[int, str, str]]:
    """The panel's customers, channels and names."""
    return {
        (row["customer_id"], row["channel"], row["customer_name"]) for row in rows_of(stream.lake, "customer_panel")
    }
