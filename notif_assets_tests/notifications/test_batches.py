"""Planning and reading: exact ranges, loss, another topic, new partitions, and up to when all is complete."""

import itertools
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Literal

import pyarrow as pa
import pytest

from notif_assets.kafka.client import KafkaClient, KafkaError, TopicOffsets
from notif_assets.kafka.offsets import PlanRefused
from notif_assets.kafka.open import open_client
from notif_assets.lake import SCHEMAS, Lake
from notif_assets.lake.staging import stage
from notif_assets.lake.tables import DataFile
from notif_assets.maintenance.redacted_values import CONFLICTING_NAME, NAME
from notif_assets.notifications import audit, bronze, catch_up, gold, marks, silver
from notif_assets.notifications.bronze import OffsetsLost
from notif_assets.notifications.ledger import (
    backlog,
    complete_until,
    deleted_before,
    deleted_before_text,
    plan_from_kafka,
    plan_move,
)
from notif_assets.settings import Settings
from notif_assets_tests import books
from notif_assets_tests.conftest import Asked
from notif_assets_tests.streams import (
    DAY,
    HOUR,
    NOON,
    Bounds,
    Clock,
    MemoryLog,
    Oracle,
    Record,
    assert_tables,
    message,
    milliseconds,
    rows_of,
    sent,
)

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


@pytest.fixture
def clock() -> Iterator[Clock]:
    with pytest.MonkeyPatch.context() as patch:
        yield Clock(patch)


def several(count: int, first: int = 0) -> list[Record | None]:
    return [sent(NOON, message_id=str(first + n)) for n in range(count)]


def take(lake: Lake, log: KafkaClient, batch: int = 50, *, even_if_quiet: bool = True) -> int:
    """One batch through all tables; the newest batch."""
    settings = Settings(batch_messages=batch)
    bronze.advance_bronze_by_one(lake, log, settings, "run", even_if_quiet=even_if_quiet)
    catch_up.advance_tables(lake, settings)
    return lake.table("customer_panel").watermark


def until(lake: Lake) -> datetime | None:
    return complete_until(lake, lake.table("customer_panel").watermark)


# --- planning -------------------------------------------------------------------------------------------------------


def test_nothing_new_is_planned_after_a_quiet_minute_only(lake: Lake, clock: Clock) -> None:
    log = MemoryLog(1)
    assert take(lake, log, even_if_quiet=False) == 1  # the first batch is planned whatever there is
    for seconds, newest in ((59, 1), (1, 2), (30, 2), (30, 3)):
        clock.advance(seconds * SECOND)
        assert take(lake, log, even_if_quiet=False) == newest
    assert until(lake) == clock.now
    assert take(lake, log, even_if_quiet=True) == 4
    log.produce(*several(1))
    assert take(lake, log, even_if_quiet=False) == 5


def test_planned_at_never_decreases(lake: Lake, clock: Clock) -> None:
    log = MemoryLog(1)
    take(lake, log)
    clock.advance(-HOUR)
    log.produce(*several(1))
    take(lake, log)
    assert [row["planned_at"] for row in rows_of(lake, "ingest_batches")] == [NOON, NOON]


def test_a_plan_that_was_not_executed_is_executed_and_not_another_one(lake: Lake) -> None:
    log = MemoryLog(1)
    log.produce(*several(3))
    plan_from_kafka(lake, log, Settings(), "planner", even_if_quiet=False)
    log.produce(*several(3, 3))
    assert (taken := bronze.advance_bronze_by_one(lake, log, Settings(), "another")) is not None
    assert (taken.batch.number, taken.records, taken.batch.offsets, taken.batch.lag) == (1, 3, 3, 0)
    assert {row["run_id"] for row in rows_of(lake, "ingest_batches")} == {"planner"}


def test_a_batch_holds_about_as_many_bytes_as_allowed(lake: Lake) -> None:
    log = MemoryLog(1)
    log.produce(*(sent(NOON, message_id=str(n), payload="x" * 1000) for n in range(100)))
    settings = Settings(batch_bytes=20_000)
    sizes = []
    while (taken := bronze.advance_bronze_by_one(lake, log, settings, "run")) is not None:
        sizes.append(taken.value_bytes)
    assert max(sizes) < 25_000
    assert len(rows_of(lake, "raw_notifications")) == 100


def test_markers_hold_offsets_without_records(lake: Lake) -> None:
    log = MemoryLog(1)
    log.produce(None, *several(2), None, None, *several(1, 2), None)
    for _ in range(8):
        take(lake, log, batch=1)
    assert_tables(lake, Oracle(log))
    assert len(rows_of(lake, "raw_notifications")) == 3
    assert max(row["end_offset"] for row in rows_of(lake, "ingest_batches")) == 7


def test_a_new_partition_begins_at_its_beginning(lake: Lake) -> None:
    log = MemoryLog(1)
    log.produce(*several(3))
    take(lake, log)
    log.produce(*several(3, 3), partition=1)
    take(lake, log)
    assert_tables(lake, Oracle(log))
    assert len(rows_of(lake, "notifications")) == 6


def test_a_lake_begins_where_kafka_does(lake: Lake) -> None:
    log = MemoryLog(1)
    log.produce(*several(5))
    log.expire(0, 3)
    take(lake, log)
    assert [row["kafka_offset"] for row in rows_of(lake, "raw_notifications")] == [3, 4]
    assert audit.unaccepted_losses(lake) == []


@pytest.mark.parametrize("change", ["shorter", "gone", "made anew"])
def test_another_topic_is_refused_and_nothing_planned(lake: Lake, change: str) -> None:
    log = MemoryLog(2)
    log.topic_id = "first"
    log.produce(*several(3), partition=1)
    take(lake, log)
    if change == "shorter":
        log.partitions[1].pop()
    elif change == "gone":
        del log.partitions[1]
    else:
        log.topic_id = "second"
    with pytest.raises(PlanRefused, match="partition 1" if change != "made anew" else "deleted and made anew"):
        take(lake, log)
    assert lake.table("ingest_batches").watermark == 1


@pytest.mark.parametrize(("told", "why"), [("second", "made anew"), (None, "this broker tells none")])
def test_an_id_that_changes_or_vanishes_is_refused_after_a_move_too(lake: Lake, told: str | None, why: str) -> None:
    log = MemoryLog(1)
    log.topic_id = "first"
    take(lake, log)
    plan_move(lake, "run", "dedup", dedup_through=date(2020, 1, 1))
    catch_up.execute_planned(lake, log, Settings())
    log.topic_id = told
    with pytest.raises(PlanRefused, match=why):
        take(lake, log)
    assert backlog(lake, log).contradicts  # so a run starts, and says so


def test_a_broker_that_learns_to_tell_ids_is_known_by_what_was_taken(lake: Lake) -> None:
    log, other = MemoryLog(1), MemoryLog(1)
    log.produce(*several(3))
    take(lake, log)
    other.topic_id = log.topic_id = "new"
    other.produce(*several(9, 100))
    other.expire(0, 3)  # what could be compared is gone
    with pytest.raises(PlanRefused, match="has an id now, and had none when batch 1 was planned"):
        take(lake, other)
    assert take(lake, log) == 2
    assert {row["topic_id"] for row in rows_of(lake, "ingest_batches") if row["batch"] == 2} == {"new"}


# --- what was taken is recognized -----------------------------------------------------------------------------------


def _regrown(log: MemoryLog, keep: int, again: int) -> None:
    """The log loses all but `keep` records and grows by `again`."""
    del log.partitions[0][keep:]
    log.produce(*(sent(NOON + (1000 + n) * MINUTE, message_id=f"again{n}") for n in range(again)))


@pytest.mark.parametrize("again", [10, 15], ids=["to the same end", "beyond it"])
@pytest.mark.parametrize("between", ["nothing", "quiet", "moves", "bronze dropped", "bronze blanked"])
def test_a_log_that_lost_its_end_and_grew_again_is_refused(lake: Lake, again: int, between: str) -> None:
    log = MemoryLog(2)
    log.produce(*several(30))
    log.produce(*several(4, 50), partition=1)
    take(lake, log)
    if between == "quiet":
        for _ in range(3):
            take(lake, log)
    elif between == "moves":
        plan_move(lake, "run", "dedup", dedup_through=date(2020, 1, 1))
        plan_move(lake, "run", "readmit", readmit_reason="not_json")
        catch_up.execute_planned(lake, log, Settings())
    elif between.startswith("bronze"):
        take(lake, log)  # the marks are in the ledger from here on
        bronze_table = lake.table("raw_notifications")
        old = bronze_table.data_files()
        new: tuple[DataFile, ...] = ()
        if between == "bronze blanked":
            rows = lake.rows(bronze_table.scan())
            blank = pa.array([b"{}"] * rows.num_rows, pa.binary())
            blanked = rows.set_column(rows.schema.get_field_index("value"), "value", blank)
            new = stage(bronze_table, old[0].partition, blanked.to_batches(), rows.num_rows)
        bronze_table.swap(old, new)
    _regrown(log, 20, again)
    before = lake.table("ingest_batches").watermark
    with pytest.raises(PlanRefused, match="partition 0 of topic notifications has another message at offset 29"):
        take(lake, log)
    assert lake.table("ingest_batches").watermark == before


def test_a_log_that_is_what_it_was_goes_on(lake: Lake) -> None:
    log = MemoryLog(3)  # one of them never has a message
    for number in range(6):
        log.produce(*several(3, 10 * number), None, partition=number % 2)  # with a transaction's marker behind
        take(lake, log, batch=2)
        take(lake, log)
        if number == 3:
            log.expire(0, 8)
            plan_move(lake, "run", "dedup", dedup_through=date(2020, 1, 1))
            catch_up.execute_planned(lake, log, Settings())
    assert len(rows_of(lake, "notifications")) == 18
    assert audit.offsets_taken_once(lake, 1, lake.table("raw_notifications").watermark) == []


def test_a_plan_while_somebody_else_has_not_read_theirs_yet_recognizes_what_was_read(lake: Lake) -> None:
    """Two plan one after the other before either reads: none takes what the other is about to read for new."""
    log = MemoryLog(2)
    log.produce(*several(5))
    take(lake, log)
    for first in (10, 20, 30):
        log.produce(*several(5, first))
        plan_from_kafka(lake, log, Settings(), "run", even_if_quiet=True)
    plan_move(lake, "run", "dedup", dedup_through=date(2020, 1, 1))
    catch_up.execute_planned(lake, log, Settings())
    assert len(rows_of(lake, "notifications")) == 20
    assert take(lake, log) == 6


def test_a_batch_that_was_planned_so_is_not_read_from_another_log(lake: Lake) -> None:
    log = MemoryLog(1)
    log.produce(*several(5))
    take(lake, log)
    for first in (10, 20):
        log.produce(*several(5, first))
        plan_from_kafka(lake, log, Settings(), "run", even_if_quiet=True)
    assert bronze.execute_next_batch(lake, log)
    _regrown(log, 5, 30)
    with pytest.raises(PlanRefused, match="has another message at offset 9"):
        catch_up.execute_planned(lake, log, Settings())


def test_a_marker_behind_what_was_taken_that_is_a_message_now_is_refused(lake: Lake) -> None:
    log = MemoryLog(1)
    log.produce(*several(5), None, None)
    take(lake, log)
    log.partitions[0][6:] = []
    log.produce(*several(4, 100))
    with pytest.raises(PlanRefused, match="has another message at offset 6"):
        take(lake, log)


def test_what_retention_deleted_can_not_be_compared_and_stops_nothing(lake: Lake) -> None:
    log = MemoryLog(1)
    log.produce(*several(5))
    take(lake, log)
    log.expire(0, 5)
    log.produce(*several(2, 10))
    assert take(lake, log) == 2
    assert len(rows_of(lake, "notifications")) == 7


def test_a_log_that_changes_between_plan_and_read_is_refused(lake: Lake) -> None:
    log = MemoryLog(1)
    log.produce(*several(10))
    take(lake, log)
    log.produce(*several(5, 100))
    plan_from_kafka(lake, log, Settings(), "run", even_if_quiet=True)
    _regrown(log, 5, 30)
    with pytest.raises(PlanRefused, match="has another message at offset 9"):
        take(lake, log)
    with pytest.raises(PlanRefused, match="has another message at offset 9"):
        bronze.accept_loss(lake, log, 2, "me")
    with pytest.raises(PlanRefused, match="has another message at offset 9"):
        catch_up.execute_planned(lake, log, Settings())  # as closing a day does
    assert len(rows_of(lake, "raw_notifications")) == 10


def test_only_what_is_as_received_is_hashed() -> None:
    """A blanked value would never be recognized again."""
    assert (NAME, CONFLICTING_NAME) == ("apagado", "apagado (conflito)")
    assert marks._is_unredacted(message())
    assert marks._is_unredacted(message(payload=""))
    assert marks._is_unredacted(b"{")
    assert marks._is_unredacted(b"v")
    for blanked in (
        None,
        message(payload="", customer_name=NAME),
        message(payload="", customer_name=CONFLICTING_NAME) + b"  ",
        b"{}",
        b"[]",
        b"apagado",
        b"\xff",
        b"[" * 101,
        b'{"customer_id":3,"payload":""}',
        b"",
    ):
        assert not marks._is_unredacted(blanked)


def test_what_kafka_dropped_before_the_first_batch_is_said(lake: Lake) -> None:
    log = MemoryLog(3)
    for partition in range(3):
        log.produce(*several(9, 10 * partition), partition=partition)
    log.expire(0, 3)
    log.expire(2, 9)
    take(lake, log)
    log.expire(1, 9)
    take(lake, log)
    assert deleted_before(lake) == {0: 3, 2: 9}
    assert deleted_before_text(deleted_before(lake)) == (
        "Kafka had dropped 12 offsets before this lake began (partition 0: offsets 0 to 2; partition 2: offsets 0 to "
        "8): their messages are not in it"
    )


# --- loss -----------------------------------------------------------------------------------------------------------


def test_a_loss_stops_everything_until_somebody_accepts_it(lake: Lake) -> None:
    log = MemoryLog(2)
    for partition in (0, 1):
        log.produce(*several(4, 10 * partition), partition=partition)
    take(lake, log)
    for partition in (0, 1):
        log.produce(*several(6, 4 + 10 * partition), partition=partition)
    log.expire(0, 7)
    for _ in range(2):
        with pytest.raises(OffsetsLost, match=r"batch 2 .*\(partition 0: offsets 4 to 6\).*accept-loss --batch 2"):
            take(lake, log)
    assert len(rows_of(lake, "raw_notifications")) == 8
    (finding,) = audit.unaccepted_losses(lake)
    assert finding.startswith("batch 2, partition 0: offsets 4 to 6 were deleted")

    for number in (0, 1, 3):
        with pytest.raises(ValueError, match=f"batch {number} was"):
            bronze.accept_loss(lake, log, number, "somebody")
    assert bronze.accept_loss(lake, log, 2, "somebody") == {0: (4, 7)}
    assert bronze.accept_loss(lake, log, 2, "somebody") == {}
    (loss,) = rows_of(lake, "ingest_losses")
    assert (loss["batch"], loss["kafka_partition"], loss["start_offset"], loss["end_offset"]) == (2, 0, 4, 7)
    assert loss["accepted_by"] == "somebody"
    assert audit.unaccepted_losses(lake) == []

    # More is deleted before the batch is read: that is a loss of its own.
    log.expire(0, 8)
    with pytest.raises(OffsetsLost, match=r"\(partition 0: offsets 7 to 7\)"):
        take(lake, log)
    assert bronze.accept_loss(lake, log, 2, "somebody else") == {0: (7, 8)}
    assert take(lake, log) == 2
    offsets = [(row["kafka_partition"], row["kafka_offset"]) for row in rows_of(lake, "raw_notifications")]
    assert sorted(offsets) == [(0, n) for n in (0, 1, 2, 3, 8, 9)] + [(1, n) for n in range(10)]
    assert audit.offsets_taken_once(lake, 1, 2) == []
    log.produce(*several(2, 30))
    assert take(lake, log) == 3


def test_every_partition_that_lost_something_is_named(lake: Lake) -> None:
    log = MemoryLog(3)
    take(lake, log)
    for partition in range(3):
        log.produce(*several(4, 10 * partition), partition=partition)
    log.expire(0, 2)
    log.expire(2, 4)
    with pytest.raises(OffsetsLost, match=r"\(partition 0: offsets 0 to 1; partition 2: offsets 0 to 3\)"):
        take(lake, log)
    assert bronze.accept_loss(lake, log, 2, "me") == {0: (0, 2), 2: (0, 4)}
    take(lake, log)
    assert_tables(lake, Oracle(log))


def test_what_is_deleted_between_the_question_and_the_read_is_a_loss(lake: Lake) -> None:
    class Deleting(MemoryLog):
        asked = 0

        def offsets(self) -> TopicOffsets:
            self.asked += 1
            answer = super().offsets()
            if self.asked == 2:
                self.expire(0, 2)
            return answer

    deleting = Deleting(1)
    deleting.produce(*several(3))
    with pytest.raises(OffsetsLost, match="partition 0: offsets 0 to 1"):
        take(lake, deleting)
    assert bronze.accept_loss(lake, deleting, 1, "me") == {0: (0, 2)}
    assert take(lake, deleting) == 1
    assert len(rows_of(lake, "notifications")) == 1


def test_everything_is_deleted(lake: Lake) -> None:
    log = MemoryLog(1)
    take(lake, log)
    log.produce(*several(5))
    log.expire(0, 5)
    with pytest.raises(OffsetsLost, match="offsets 0 to 4"):
        take(lake, log)
    bronze.accept_loss(lake, log, 2, "me")
    assert take(lake, log) == 2
    assert rows_of(lake, "raw_notifications") == []
    assert until(lake) is not None


# --- complete until -------------------------------------------------------------------------------------------------


def test_complete_until_is_when_the_slowest_partition_was_last_caught_up(lake: Lake, clock: Clock) -> None:
    log = MemoryLog(2)
    assert until(lake) is None
    log.produce(*several(2), partition=0)
    log.produce(*several(7, 10), partition=1)
    seen = []
    for minute in range(6):
        clock.now = NOON + minute * MINUTE
        take(lake, log, batch=4)
        seen.append(until(lake))
        assert seen[-1] == Oracle(log).replay(lake).complete_until(minute + 1)
        log.produce(*several(1, 100 + minute), partition=0)
    # 0: 2 + 2 of 7 read. 1: 1 + 3 of 5 left. 2: 1 + 2: what there was at minutes 0 to 2 is in.
    assert seen == [None, None, *(NOON + minute * MINUTE for minute in (2, 3, 4, 5))]


def test_up_to_when_all_is_complete_is_told_by_the_newest_batches(lake: Lake, asked: list[Asked]) -> None:
    """Of 300 batches in a file each; a partition that lags for 100 of them makes it look further back."""
    table, row = lake.table("ingest_batches"), {"kind": "kafka", "topic": "t", "topic_id": None, "run_id": "run"}
    for number in range(1, 301):
        rows = [
            row
            | {"batch": number, "planned_at": NOON + number * SECOND, "kafka_partition": partition}
            | {"log_start_offset": 0, "start_offset": number - 1, "end_offset": number}
            | {"log_end_offset": number + (1_000 if partition and number > 200 else 0)}
            for partition in range(2)
        ]
        table.append(pa.Table.from_pylist(rows, schema=SCHEMAS["ingest_batches"].arrow), number)
    asked.clear()
    assert complete_until(lake, 190) == NOON + 190 * SECOND
    assert [len(question.inputs["batches"].files) for question in asked] == [174]  # what came after it is read as well
    asked.clear()
    assert complete_until(lake, 300) == NOON + 200 * SECOND
    assert [len(question.inputs["batches"].files) for question in asked] == [64, 192]


def test_what_comes_later_does_not_make_the_past_less_complete(lake: Lake, clock: Clock) -> None:
    log = MemoryLog(1)
    log.produce(*several(1))
    take(lake, log)
    clock.advance(HOUR)
    log.produce(*several(9, 1))
    take(lake, log, batch=3)
    assert until(lake) == NOON
    clock.advance(HOUR)
    take(lake, log, batch=6)
    assert until(lake) == clock.now


def test_a_plan_that_nobody_executed_completes_nothing(lake: Lake, clock: Clock) -> None:
    log = MemoryLog(1)
    log.produce(*several(1))
    take(lake, log)
    clock.advance(HOUR)
    log.produce(*several(1, 1))
    log.produce(*several(1, 2), partition=1)  # a partition that the tables have never seen
    plan_from_kafka(lake, log, Settings(), "run", even_if_quiet=True)
    assert until(lake) == NOON
    take(lake, log)
    assert until(lake) == NOON + HOUR


def test_a_partition_completes_nothing_that_it_was_not_there_for(lake: Lake, clock: Clock) -> None:
    log = MemoryLog(1)
    log.produce(*several(1))
    take(lake, log)
    clock.advance(HOUR)
    log.produce(*several(1, 2), partition=1)
    plan_from_kafka(lake, log, Settings(), "run", even_if_quiet=True)
    # Partition 0 had nothing new at the plan, but partition 1 did, and it is not read yet.
    assert until(lake) == NOON
    assert Oracle(log).replay(lake).complete_until(1) == NOON
    log.produce(*several(20, 10), partition=2)
    take(lake, log)
    assert until(lake) == NOON + HOUR
    clock.advance(HOUR)
    take(lake, log, batch=3)  # partition 2 lags from its first batch on: what was complete stays so
    assert until(lake) == NOON + HOUR


def test_moving_rows_completes_nothing(lake: Lake, clock: Clock) -> None:
    log = MemoryLog(1)
    log.produce(*several(5))
    take(lake, log, batch=3)
    clock.advance(HOUR)
    kinds: tuple[Literal["dedup", "readmit"], ...] = ("dedup", "readmit")
    for kind in kinds:
        before = until(lake)
        plan_move(lake, "run", kind, dedup_through=date(2020, 2, 2), readmit_reason="not_json")
        catch_up.execute_planned(lake, log, Settings())
        assert until(lake) == before
        planned = {row["batch"]: row["planned_at"] for row in rows_of(lake, "ingest_batches")}
        assert planned[max(planned)] == planned[max(planned) - 1]
        take(lake, log)


def test_the_panel_says_until_when_it_counts(lake: Lake, clock: Clock) -> None:
    log = MemoryLog(1)
    log.produce(*several(3), sent(NOON - DAY, message_id="yesterday", channel="SMS"))
    take(lake, log)
    clock.advance(5 * MINUTE)
    take(lake, log)
    rows = {row["channel"]: row for row in rows_of(lake, "customer_panel")}
    assert {row["updated_at"] for row in rows.values()} == {NOON + 5 * MINUTE}
    assert (rows["Whatsapp"]["notifications"], rows["SMS"]["notifications"]) == (3, 0)
    assert audit.behind_by(lake, clock.now + MINUTE) == MINUTE
    clock.advance(DAY)
    take(lake, log)
    assert {row["notifications"] for row in rows_of(lake, "customer_panel")} == {0}  # a new day, nothing so far


# --- what a step says of itself, and silence ------------------------------------------------------------------------


def test_steps_say_how_far_they_came_and_then_none(lake: Lake) -> None:
    log = MemoryLog(1)
    for number in (1, 2):
        log.produce(*several(2, 10 * number))
        bronze.advance_bronze_by_one(lake, log, Settings(), "run")
        assert (batch := silver.advance_silver_by_one(lake, Settings())) is not None
        assert batch.number == number
        assert silver.advance_silver_by_one(lake, Settings()) is None
        assert gold.advance_minutes(lake) == gold.Advance(number - 1, number, 1)
        assert gold.advance_minutes(lake) is None
        assert gold.advance_panel(lake, Settings()) == gold.Advance(number - 1, number, 1)
        assert gold.advance_panel(lake, Settings()) is None


def test_a_broker_that_is_down_leaves_no_plan(lake: Lake) -> None:
    class Down(MemoryLog):
        def offsets(self) -> TopicOffsets:
            raise KafkaError("down")

    with pytest.raises(KafkaError, match="down"):
        take(lake, Down(1))
    assert lake.table("ingest_batches").watermark == 0


# --- the real thing -------------------------------------------------------------------------------------------------


def test_from_a_real_broker_to_a_printed_line(lake: Lake) -> None:
    confluent = pytest.importorskip("confluent_kafka")
    from notif_assets.sandbox.broker import EmbeddedBroker

    today = datetime.now().astimezone()
    event = today - timedelta(days=2)
    log = MemoryLog(2)
    with EmbeddedBroker(topic="notifications", partitions=2) as broker:
        producer = confluent.Producer({"bootstrap.servers": broker.bootstrap, "log_level": 0})
        for n, kind in zip(range(40), itertools.cycle(["good", "again", "late", "broken"]), strict=False):
            at = event - DAY if kind == "late" else event
            value = message(at, message_id=str(n - n % 4)) if kind != "broken" else b"{"
            stamp = today.replace(microsecond=0)
            producer.produce("notifications", value, partition=n % 3 % 2, timestamp=milliseconds(stamp))
            log.produce(Record(value, stamp), partition=n % 3 % 2)
        assert producer.flush(30) == 0
        del producer
        settings = Settings(kafka_bootstrap=broker.bootstrap, batch_messages=16, kafka_timeout=10)
        with open_client(settings) as client:
            while catch_up.committed_ends(lake) != {p: len(records) for p, records in log.partitions.items()}:
                bronze.advance_bronze_by_one(lake, client, settings, "run", even_if_quiet=True)
                catch_up.advance_tables(lake, settings)
            assert_tables(lake, Oracle(log))
            day = event.astimezone(settings.zone).date()
            billed = books.close_day(lake, settings, client, day, "run")
    oracle = Oracle(log)
    assert_tables(lake, oracle)
    assert (billed.lines, billed.closed_now) == (1, True)
    assert billed.notifications == oracle.counts(day)[1, "Whatsapp"] > 5


def test_a_readmitted_message_may_turn_out_a_duplicate_when_its_day_closes(lake: Lake) -> None:
    log = MemoryLog(1)
    old = Record(message(NOON, message_id="same"), NOON + 2 * HOUR)
    log.produce(old, sent(NOON + 2 * HOUR, message_id="same"))
    strict = Settings(max_event_age=HOUR)
    bronze.advance_bronze_by_one(lake, log, strict, "run")
    catch_up.advance_tables(lake, strict)
    plan_move(lake, "run", "readmit", readmit_reason="event_too_early")
    catch_up.execute_planned(lake, log, Settings())
    assert len(rows_of(lake, "notifications")) == 2
    plan_move(lake, "run", "dedup", dedup_through=NOON.date())
    catch_up.execute_planned(lake, log, Settings())
    assert_tables(lake, Oracle(log, bounds={0: Bounds(max_age=HOUR), 2: Bounds()}))
    assert [row["value"] for row in rows_of(lake, "rejected_notifications")] == [old.value]
