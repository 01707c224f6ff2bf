"""Findings of a check are about the tables, not about who is writing to them just now."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from notif_assets.lake import SCHEMAS, Lake, Table
from notif_assets.notifications import bronze, catch_up, silver
from notif_assets.notifications.audit import (
    accepted_losses,
    every_offset_once,
    minutes_that_differ,
    offsets_taken_once,
    repeated_in_hours,
)
from notif_assets.notifications.ledger import plan_move
from notif_assets.settings import Settings
from notif_assets_tests.conftest import Asked
from notif_assets_tests.streams import NOON, MemoryLog, Record, sent


def test_minutes_are_compared_with_the_messages_of_their_own_batch(tmp_path: Path) -> None:
    settings, topic = Settings(data=tmp_path), MemoryLog()
    lake = Lake(settings.lake)
    topic.produce(sent(NOON, message_id="a"))
    bronze.advance_bronze_by_one(lake, topic, settings, "run")
    catch_up.advance_tables(lake, settings)
    topic.produce(sent(NOON, message_id="b"))
    bronze.advance_bronze_by_one(lake, topic, settings, "run")
    assert silver.advance_silver_by_one(lake, settings) is not None
    assert lake.table("notifications").watermark > lake.table("minute_aggregates").watermark
    assert minutes_that_differ(lake) == []

    DeltaTable(lake.root / "minute_aggregates").delete("notifications = 1")
    assert len(minutes_that_differ(lake)) == 1


def test_an_accepted_loss_belongs_to_the_time_when_its_records_came(tmp_path: Path) -> None:
    """Partition 0 was read to its end at 10 h and lost what came by 12 h; partition 1 was never read to its end."""
    lake, day, hour = Lake(tmp_path / "lake"), datetime(2020, 2, 3, tzinfo=UTC), timedelta(hours=1)
    constants = {"kind": "kafka", "topic": "t", "log_start_offset": 0, "run_id": "run"}

    def plan(batch: int, at: datetime, *ranges: tuple[int, int, int]) -> None:
        rows = [
            {"batch": batch, "planned_at": at, "kafka_partition": p, "start_offset": start, "end_offset": end}
            | {"log_end_offset": log_end, **constants}
            for p, (start, end, log_end) in enumerate(ranges)
        ]
        lake.table("ingest_batches").append(pa.Table.from_pylist(rows, SCHEMAS["ingest_batches"].arrow), batch)

    plan(1, day + 10 * hour, (0, 5, 5), (0, 5, 9))
    plan(2, day + 12 * hour, (5, 8, 9), (5, 9, 9))
    plan(3, day + 14 * hour, (8, 9, 9), (9, 9, 9))
    losses = [(2, 0, 5, 7), (2, 1, 6, 8)]
    names = ("batch", "kafka_partition", "start_offset", "end_offset")
    rows = [dict(zip(names, loss, strict=True)) | {"accepted_by": "Ana", "accepted_at": day} for loss in losses]
    lake.table("ingest_losses").append(pa.Table.from_pylist(rows, SCHEMAS["ingest_losses"].arrow))

    first = "batch 2, partition 0: offsets 5 to 6, accepted by Ana"
    second = "batch 2, partition 1: offsets 6 to 7, accepted by Ana"
    for start, end, expected in (
        (10, 12, [first]),
        (11, 11.5, [first]),
        (0, 10, [second]),  # what came before the first plan may have come at any time
        (0, 10.5, [first, second]),
        (11.9, 20, [first]),
        (12, 20, []),
        (-48, -24, [second]),
    ):
        assert accepted_losses(lake, day + start * hour, day + end * hour) == expected, (start, end)


@pytest.fixture
def filled(tmp_path: Path) -> Lake:
    """Nine batches over three partitions, one of which is longer than the others, and one that moved a row."""
    settings, topic = Settings(data=tmp_path), MemoryLog(3)
    lake = Lake(settings.lake)
    for batch in range(9):
        for partition, count in enumerate((2, 20, 1)):
            names = [f"{batch} {partition} {n}" for n in range(count)]
            topic.produce(*(sent(NOON, message_id=name) for name in names), Record(b"broken"), partition=partition)
        bronze.advance_bronze_by_one(lake, topic, settings, "run")
    plan_move(lake, "run", "readmit", readmit_reason="not_json")
    catch_up.execute_planned(lake, topic, settings)
    return lake


@pytest.mark.parametrize("at_most", [1, 26, 27, 60, 10_000])
def test_every_offset_ever_is_looked_at_in_slices(filled: Lake, monkeypatch: pytest.MonkeyPatch, at_most: int) -> None:
    looked_at: list[tuple[int, int]] = []

    def noted(lake: Lake, first: int, last: int) -> list[str]:
        looked_at.append((first, last))
        return offsets_taken_once(lake, first, last)

    monkeypatch.setattr("notif_assets.notifications.audit.offsets_taken_once", noted)
    assert every_offset_once(filled, at_most) == []
    assert [batch for first, last in looked_at for batch in range(first, last + 1)] == list(range(1, 11))
    assert all(26 * (last - first + 1) <= max(at_most, 26) or last == 10 for first, last in looked_at)

    DeltaTable(filled.root / "notifications").delete("batch = 2 and kafka_partition = 1")
    DeltaTable(filled.root / "rejected_notifications").delete("batch = 7 and kafka_partition = 0")
    assert every_offset_once(filled, at_most) == [
        "batch 2, partition 1: 20 offsets are neither in notifications nor in rejected_notifications, the first is 21; "
        "`notif-assets rebuild notifications` replays both tables from raw_notifications",
        "batch 7, partition 0: 1 offsets are neither in notifications nor in rejected_notifications, the first is 20; "
        "`notif-assets rebuild notifications` replays both tables from raw_notifications",
    ]
    assert offsets_taken_once(filled, 10, 10) == []  # the newest batch says nothing of it
    (line,) = minutes_that_differ(filled)
    assert "207 messages" not in line
    assert "notifications may have lost some" in line
    assert line.index("`notif-assets rebuild notifications`") < line.index("`notif-assets rebuild minute_aggregates")


def test_a_message_that_is_twice_in_its_hour_is_found_where_a_new_batch_brought_it(
    tmp_path: Path, asked: list[Asked]
) -> None:
    """Of an hour only files are read that may hold a new message's customer, and of other hours none."""
    settings, topic = Settings(data=tmp_path), MemoryLog()
    lake = Lake(settings.lake)
    for late, customer in ((0, 1), (0, 2), (2, 1)):
        topic.produce(sent(NOON - timedelta(hours=late), message_id="a", customer_id=customer))
        bronze.advance_bronze_by_one(lake, topic, settings, "run")
        catch_up.advance_tables(lake, settings)
    notifications = lake.table("notifications")
    kept = lake.rows(notifications.scan())
    asked.clear()
    assert repeated_in_hours(lake, 0) == repeated_in_hours(lake, 2) == []
    for batch, (of, times) in enumerate(((0, 1), (2, 2)), start=4):  # once more each; and twice in one batch
        again = pa.concat_tables([kept.filter(pc.equal(kept["batch"], of + 1))] * times)
        number = pa.repeat(pa.scalar(batch, pa.int64()), len(again))
        notifications.append(again.set_column(again.schema.get_field_index("batch"), "batch", number), batch)
    assert repeated_in_hours(lake, 3) == ["customer 1 has 2 messages twice"]
    assert repeated_in_hours(lake, 4) == ["customer 1 has 1 messages twice"]
    assert repeated_in_hours(lake, 5) == []
    assert [len(one.inputs["before"].files) for one in asked if one.name == "repeated_in_hours"] == [0, 0, 2, 1, 0]


def test_what_left_bronze_is_not_missed(filled: Lake) -> None:
    DeltaTable(filled.root / "raw_notifications").delete("batch <= 4")
    assert every_offset_once(filled) == []
    DeltaTable(filled.root / "raw_notifications").delete()
    assert every_offset_once(filled) == []


def test_minutes_are_held_against_the_log_without_a_look_at_each_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour has thousands of files of late messages until they are put together."""
    settings, topic, lake = Settings(data=tmp_path), MemoryLog(), Lake(tmp_path / "lake")
    assert lake.table("notifications").rows_of([(NOON.date(), 12)]) == {}
    for number in range(3):
        topic.produce(*(sent(NOON + timedelta(hours=hour), message_id=f"{number} {hour}") for hour in range(number, 3)))
        bronze.advance_bronze_by_one(lake, topic, settings, "run")
        catch_up.advance_tables(lake, settings)
    rows = lake.table("notifications").rows_of([(NOON.date(), hour) for hour in (12, 14, 20)])
    assert rows == {(NOON.date(), 12): 1, (NOON.date(), 14): 3}
    with monkeypatch.context() as patch:
        patch.delattr(Table, "data_files")
        assert minutes_that_differ(lake) == []
    DeltaTable(lake.root / "minute_aggregates").delete("notifications = 1 and event_hour = 12")
    assert [finding.partition(";")[0] for finding in minutes_that_differ(lake)] == [
        "2020-02-03 12h: 1 messages, 0 in minute_aggregates"
    ]
