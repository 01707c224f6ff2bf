"""Maintenance: fewer files, the same rows, the same watermarks, beside ingestion."""

import os
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from notif_assets.lake import SCHEMAS, Lake
from notif_assets.lake.pieces import pieces
from notif_assets.lake.staging import stage
from notif_assets.lake.tables import DataFile
from notif_assets.maintenance import compaction
from notif_assets.maintenance.compaction import compact, groups, is_quiet
from notif_assets.maintenance.maintain import maintain
from notif_assets.maintenance.swaps import Swap, commit
from notif_assets_tests.faults.kills import FLOW
from notif_assets_tests.maintenance.world import START, World

NOW = datetime.now(UTC)
LATER = NOW + timedelta(days=2)


def test_no_row_and_no_watermark_changes_and_ingestion_goes_on(world: World) -> None:
    before, watermarks = world.contents(), world.watermarks()
    maintain(world.lake, world.settings, LATER)
    assert (world.contents(), world.watermarks()) == (before, watermarks)
    world.require_exact()
    world.send(30, START + timedelta(hours=40))
    world.ingest()
    world.require_exact()
    assert world.lake.table("notifications").watermark == watermarks["notifications"] + 1


def test_a_quiet_partition_becomes_one_sorted_file_and_a_second_run_does_nothing(world: World) -> None:
    before = {name: world.files(name) for name in FLOW}
    hours_before = [file.partition for file in world.lake.table("notifications").data_files()]
    maintain(world.lake, world.settings, LATER)
    after = {name: world.files(name) for name in FLOW}
    assert after["notifications"] < before["notifications"]
    assert after["raw_notifications"] == after["ingest_batches"] == 1 < before["ingest_batches"]
    hours = {file.partition for file in world.lake.table("notifications").data_files()}
    assert after["notifications"] == len(hours)
    several = {hour for hour in hours if hours_before.count(hour) > 1}
    assert several
    for hour in several:
        rows = world.lake.rows(world.lake.table("notifications").scan(partitions={hour})).to_pylist()
        keys = [(row["customer_id"], row["event_datetime"], row["message_id"]) for row in rows]
        assert keys == sorted(keys)
    versions = {name: world.lake.table(name).version for name in SCHEMAS}
    maintain(world.lake, world.settings, LATER)
    assert {name: world.lake.table(name).version for name in SCHEMAS} == versions


def test_partitions_still_written_to_are_left_alone(world: World) -> None:
    today = datetime.now(UTC)
    before = world.files("raw_notifications")  # ingested today
    maintain(world.lake, world.settings, today)
    assert world.files("raw_notifications") == before
    day = today.date()
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    assert not is_quiet((day,), midnight + timedelta(hours=25))
    assert is_quiet((day,), midnight + timedelta(hours=26))
    assert not is_quiet((day, 5), midnight + timedelta(hours=7, minutes=59))
    assert is_quiet((day, 5), midnight + timedelta(hours=8))


@pytest.mark.parametrize("name", [name for name, schema in SCHEMAS.items() if schema.sort])
def test_compaction_lays_rows_down_in_the_catalogues_order(world: World, name: str) -> None:
    for _ in range(3):
        world.send(10, START)
        world.ingest()
    table = world.lake.table(name)
    rows = pa.Table.from_batches(compaction.in_order(world.lake, table, table.data_files()))
    keys = [*zip(*(rows[column].to_pylist() for column in table.schema.sort), strict=True)]
    assert keys == sorted(keys)
    assert len(set(keys)) > 10


@pytest.mark.parametrize("name", ["raw_notifications", "rejected_notifications"])
def test_tables_read_by_batch_stay_in_its_order(world: World, name: str) -> None:
    for _ in range(6):
        world.send(10, START)
        world.ingest()
    assert compact(world.lake, name, LATER)[2] == 1
    (merged,) = world.lake.table(name).data_files()
    batches = pa.concat_tables(pieces(world.lake.table(name).scan_files([merged]), ["batch"]))["batch"].to_pylist()
    assert batches == sorted(batches)
    assert len(set(batches)) > 6


def test_files_with_rows_too_long_to_sort_are_left_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        world.send(10, START)
        world.ingest()
    monkeypatch.setattr(compaction, "_SORTABLE_ROW_BYTES", 10)
    before = world.files("notifications")
    assert compact(world.lake, "notifications", LATER) == (0, 0, 0)
    assert world.files("notifications") == before
    monkeypatch.undo()
    assert compact(world.lake, "notifications", LATER) != (0, 0, 0)


def test_scans_by_customer_skip_files_after_compaction(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCHEMAS, "notifications", replace(SCHEMAS["notifications"], file_rows=50))
    for _ in range(6):
        world.send(40, START)
        world.ingest()
    compact(world.lake, "notifications", LATER)
    table = world.lake.table("notifications")
    hour = (START.date(), START.hour)
    everyone, one = table.scan(partitions={hour}), table.scan(partitions={hour}, customer_id=(2, 3))
    assert len(everyone.files) == 6
    assert len(one.files) < len(everyone.files)
    rows = world.lake.rows(one).to_pylist()
    assert len(rows) == sum(row["customer_id"] == 2 for row in world.lake.rows(everyone).to_pylist()) > 0


def file(rows: int, name: str = "", batch: int = 0) -> DataFile:
    return DataFile(
        name or f"{rows}-{batch}", (), rows, rows, f'{{"minValues": {{"batch": {batch}}}, "maxValues": {{}}}}'
    )


def test_a_few_late_rows_do_not_cost_the_rewriting_of_millions() -> None:
    hourly = SCHEMAS["notifications"]
    full = [file(840_000, f"full{n}") for n in range(5)]
    assert list(groups(hourly, full)) == []
    assert list(groups(hourly, [*full, file(3)])) == []
    assert [{f.rows for f in group} for group in groups(hourly, [*full, file(3), file(4)])] == [{3, 4}]
    assert [len(group) for group in groups(hourly, [*full, file(60_000), file(60_001)])] == [7]
    assert [len(group) for group in groups(hourly, [file(150_000), file(1)])] == [2]


def test_an_hour_of_long_ago_becomes_one_file(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is left alone then, like the hours of the last weeks once they are sorted."""
    monkeypatch.setitem(SCHEMAS, "notifications", replace(SCHEMAS["notifications"], file_rows=50))
    for _ in range(6):
        world.send(40, START)
        world.ingest()
    soon, late = START + timedelta(days=44), START + compaction.LATE + timedelta(days=1)
    compact(world.lake, "notifications", soon)
    several = len(world.lake.table("notifications").data_files({(START.date(), START.hour)}))
    assert several > 3
    assert compact(world.lake, "notifications", soon) == (0, 0, 0)
    assert compact(world.lake, "notifications", late) == (1, several, 1)
    assert (START.date(), START.hour) not in world.lake.table("notifications").partitions_of_several_files()
    world.require_exact()


def test_a_few_late_rows_do_not_keep_the_files_of_an_hour_apart() -> None:
    hourly = SCHEMAS["notifications"]
    minutes = [file(14_000 + n, f"minute{n}") for n in range(60)]
    assert [len(group) for group in groups(hourly, [file(1), file(5), *minutes])] == [62]
    assert [len(group) for group in groups(hourly, [file(5_000), *(file(240_000, f"big{n}") for n in range(4))])] == [5]


def test_tables_read_by_batch_merge_neighbours_up_to_the_size_of_a_file() -> None:
    bronze = SCHEMAS["raw_notifications"]
    merged = list(groups(bronze, [file(bronze.file_rows // 4, batch=n) for n in range(10)]))
    assert [[f.path.split("-")[1] for f in group] for group in merged] == [list("0123"), list("4567"), list("89")]


def test_statistics_survive_a_round_trip(world: World) -> None:
    compact(world.lake, "notifications", LATER)
    table = world.lake.table("notifications")
    for one in table.data_files():
        rows = world.lake.rows(table.scan_files([one])).to_pylist()
        assert one.rows == len(rows)
        assert one.bounds("customer_id") == (min(r["customer_id"] for r in rows), max(r["customer_id"] for r in rows))
        assert one.bounds("batch") == (min(r["batch"] for r in rows), max(r["batch"] for r in rows))
        newest = max(r["event_datetime"] for r in rows)
        found = table.scan(partitions={one.partition}, event_datetime=(newest, None))
        assert newest in [r["event_datetime"] for r in world.lake.rows(found).to_pylist()]


def test_a_file_that_went_meanwhile_is_not_brought_back(world: World) -> None:
    table = world.lake.table("notifications")
    hour = (START.date(), START.hour)
    old = tuple(f for f in table.data_files() if f.partition == hour)
    rows = world.lake.rows(table.scan_files(old))
    staged = stage(table, hour, rows.to_batches(), 1000)
    DeltaTable(table.path).delete(f"event_date = '{hour[0]}' and event_hour = {hour[1]} and customer_id = 1")
    before = world.contents("notifications")
    swap = Swap(hour, old, staged)
    assert commit(world.lake, "notifications", [swap], same_rows=True, note="test") == [swap]
    assert world.contents("notifications") == before
    assert not any((table.path / f.path).exists() for f in staged)


def test_a_file_that_came_meanwhile_stays(world: World) -> None:
    table = world.lake.table("notifications")
    hour = (START.date(), START.hour)
    old = tuple(f for f in table.data_files() if f.partition == hour)
    staged = stage(table, hour, world.lake.rows(table.scan_files(old)).to_batches(), 1000)
    world.send(20, START)
    world.ingest()
    before = world.contents("notifications")
    assert commit(world.lake, "notifications", [Swap(hour, old, staged)], same_rows=True, note="test") == []
    assert world.contents("notifications") == before
    world.require_exact()


def test_moves_between_tables_work_on_compacted_files(world: World) -> None:
    from notif_assets.notifications.ledger import plan_move

    maintain(world.lake, world.settings, LATER)
    world.log.send(0, (world.log.records[0][0][2]), START + timedelta(hours=2))
    world.ingest()
    plan_move(world.lake, "test", "dedup", dedup_through=(START + timedelta(days=4)).date())
    world.finish()
    plan_move(world.lake, "test", "readmit", readmit_reason="event_too_early")
    world.finish()
    world.require_exact()


def test_beside_ingestion_everything_stays_exact(world: World) -> None:
    failures: list[BaseException] = []
    stop = threading.Event()

    def keep_maintaining() -> None:
        lake = Lake(world.settings.lake)
        try:
            while not stop.is_set():
                maintain(lake, world.settings, LATER)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=keep_maintaining) for _ in range(2)]
    for thread in threads:
        thread.start()
    for n in range(12):
        world.send(25, START + timedelta(hours=n % 4))
        world.ingest()
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    world.require_exact()


def test_vacuum_and_log_clean_up_spare_what_is_younger_than_the_retention(world: World) -> None:
    def count() -> tuple[int, int]:
        path = world.lake.table("ingest_batches").path
        return len(list(path.glob("*.parquet"))), len(list((path / "_delta_log").glob("*.json")))

    maintain(world.lake, world.settings, LATER)
    data, entries = count()
    assert (data, entries) > (1, 10)
    table = world.lake.table("ingest_batches")
    stray = table.path / "part-left-behind-by-a-kill.parquet"
    stray.write_bytes(b"")
    maintain(world.lake, world.settings, LATER)
    assert stray.exists()
    old = (NOW - timedelta(days=8)).timestamp()
    os.utime(stray, (old, old))
    for entry in (table.path / "_delta_log").glob("*.json"):
        os.utime(entry, (old, old))
    watermarks, before = world.watermarks(), world.contents()
    lines = maintain(world.lake, world.settings, LATER)
    assert not stray.exists()
    assert count()[1] < entries
    assert any(line.startswith("ingest_batches: ") and "1 unused files" in line for line in lines)
    assert (world.watermarks(), world.contents()) == (watermarks, before)
    world.send(10, START)
    world.ingest()
    world.require_exact()


def test_drafts_of_killed_writers_go_after_the_retention(world: World) -> None:
    root = world.lake.root
    places = (
        "notifications/event_date=2020-01-01/part-1.parquet#1",
        "notifications/_delta_log/0.json#12",
        "tmpab_1.tmp",
    )
    replayed = [root / ".replay" / "notifications" / name for name in ("old", "new")]
    drafts = [root / place for place in places]
    for draft in (*drafts, *replayed):
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(b"half")
    old = (NOW - timedelta(days=8)).timestamp()
    for draft in (*drafts[:2], replayed[0]):
        os.utime(draft, (old, old))
    assert "2 drafts of killed writers deleted" in maintain(world.lake, world.settings, NOW)
    assert [draft.exists() for draft in drafts] == [False, False, True]
    assert all(path.exists() for path in replayed), "a replay is whole or not there"
    for draft in (drafts[2], *replayed):
        os.utime(draft, (old, old))
    assert "1 drafts of killed writers deleted" in maintain(world.lake, world.settings, NOW)
    assert not drafts[2].exists()
    assert not (root / ".replay").exists()
    world.require_exact()


def test_an_empty_lake_needs_nothing(lake: Lake, world: World) -> None:
    assert maintain(lake, world.settings, NOW) == []
    assert not lake.root.exists()
