"""The commit protocol: rows and watermark in one commit, a race has one winner, and what can't be read is refused."""

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from notif_assets.lake import SCHEMAS, Lake, LakeError, LostRace, Table, tables, until_committed
from notif_assets_tests.streams import losses, rows_of

LOSSES = SCHEMAS["ingest_losses"]


def starts(lake: Lake) -> list[int]:
    return sorted(row["start_offset"] for row in rows_of(lake, "ingest_losses"))


def commits(table: Table) -> list[dict[str, Any]]:
    """The actions of each commit, from the files of the Delta log."""
    paths = sorted((table.path / "_delta_log").glob("*.json"))
    found = []
    for path in paths:
        merged: dict[str, Any] = {}
        for line in path.read_text().splitlines():
            merged.update(json.loads(line))
        found.append(merged)
    return found


CHANGES: list[tuple[str, Callable[[Table], None], list[int]]] = [
    ("append", lambda table: table.append(losses(7), 5), [1, 2, 7]),
    ("append nothing", lambda table: table.append(losses(), 5), [1, 2]),
    ("replace some", lambda table: table.replace(losses(2, 2), "start_offset = 2", 5), [1, 2, 2]),
    ("replace by nothing", lambda table: table.replace(losses(), "start_offset = 2", 5), [1]),
    ("replace nothing by nothing", lambda table: table.replace(losses(), "start_offset = 9", 5), [1, 2]),
    ("replace all", lambda table: table.replace(losses(7), None, 5), [7]),
    ("replace all by nothing", lambda table: table.replace(losses(), None, 5), []),
]
changes = pytest.mark.parametrize(("change", "left"), [pytest.param(c, left, id=name) for name, c, left in CHANGES])


@changes
def test_a_change_and_its_watermark_are_one_commit(
    lake: Lake, change: Callable[[Table], None], left: list[int]
) -> None:
    table = lake.table("ingest_losses")
    table.append(losses(1, 2), 3)
    change(table)
    assert (table.version, table.watermark) == (2, 5)
    assert (lake.table("ingest_losses").version, lake.table("ingest_losses").watermark) == (2, 5)
    assert commits(table)[-1]["txn"]["version"] == 5
    assert starts(lake) == left


@changes
def test_a_handle_that_was_overtaken_loses_and_leaves_nothing(
    lake: Lake, change: Callable[[Table], None], left: list[int]
) -> None:
    lake.table("ingest_losses").append(losses(1, 2), 3)
    stale = lake.table("ingest_losses")
    lake.table("ingest_losses").append(losses(8), 4)
    with pytest.raises(LostRace):
        change(stale)
    fresh = lake.table("ingest_losses")
    assert (fresh.version, fresh.watermark, starts(lake)) == (2, 4, [1, 2, 8])


@changes
def test_a_batch_that_the_table_has_is_not_committed_again(
    lake: Lake, change: Callable[[Table], None], left: list[int]
) -> None:
    table = lake.table("ingest_losses")
    table.append(losses(1, 2), 5)
    with pytest.raises(LostRace):
        change(table)
    with pytest.raises(LostRace):
        change(lake.table("ingest_losses"))
    assert (lake.table("ingest_losses").version, starts(lake)) == (1, [1, 2])


def test_a_table_without_batches_counts_its_commits(lake: Lake) -> None:
    table = lake.table("ingest_losses")
    assert (table.version, table.watermark) == (-1, 0)
    table.append(losses(1))
    table.replace(losses(2), None)
    assert lake.table("ingest_losses").watermark == 2


def test_what_a_commit_says_to_people(lake: Lake) -> None:
    table = lake.table("ingest_losses")
    table.append(losses(1), note={"ranges": {"0": [1, 2]}})
    assert json.loads(commits(table)[-1]["commitInfo"]["userMetadata"]) == {"ranges": {"0": [1, 2]}}


def test_a_null_where_none_may_be_is_refused_and_nothing_written(lake: Lake) -> None:
    table = lake.table("ingest_losses")
    with pytest.raises(ValueError, match="null"):
        table.append(pa.table({name: pa.nulls(1) for name in LOSSES.arrow.names}))
    assert rows_of(lake, "ingest_losses") == []


def test_who_only_reads_leaves_nothing_behind(lake: Lake) -> None:
    for name in SCHEMAS:
        table = lake.table(name)
        assert (table.version, table.watermark, table.superseded) == (-1, 0, False)
        assert lake.rows(table.scan()).schema.names == SCHEMAS[name].arrow.names
        assert (table.data_files(), table.vacuum(), table.clean_log()) == ([], 0, 0)
        table.require_whole_log()
    assert not lake.root.exists()


def test_a_handle_from_before_the_first_commit_loses_to_it(lake: Lake) -> None:
    before, created = lake.table("ingest_losses"), lake.table("ingest_losses")
    created.create()
    assert before.superseded
    lake.table("ingest_losses").append(losses(1))
    for stale in (before, created):
        with pytest.raises(LostRace):
            stale.append(losses(1))  # it would not have seen the first commit
    assert starts(lake) == [1]


def test_handles_share_a_snapshot_as_long_as_it_is_the_newest(lake: Lake) -> None:
    lake.table("ingest_losses").append(losses(1))
    first, second = lake.table("ingest_losses"), lake.table("ingest_losses")
    assert first.snapshot is second.snapshot
    first.append(losses(2))
    assert (first.version, second.version) == (2, 1)  # a commit moves the handle that made it, and no other
    assert (first.watermark, second.watermark, second.superseded) == (2, 1, True)
    assert lake.rows(second.scan())["start_offset"].to_pylist() == [1]
    second.create()  # it is there, and that is all that who stages files must know
    with pytest.raises(LostRace):
        second.append(losses(3))
    Lake(lake.root).table("ingest_losses").append(losses(4))  # another process
    assert starts(lake) == [1, 2, 4]
    assert not lake.table("ingest_losses").superseded


def test_a_log_is_read_once_for_many_commits(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit goes on from what was read. The snapshot before it tells what it told."""
    opened = []

    class Noting(DeltaTable):
        def __init__(self, path: str, **more: Any) -> None:
            opened.append(path)
            super().__init__(path, **more)

    lake.table("ingest_losses").append(losses(1))
    monkeypatch.setattr(tables, "DeltaTable", Noting)
    before = lake.table("ingest_losses").snapshot
    for number in range(2, 6):
        lake.table("ingest_losses").append(losses(number))
    assert lake.table("ingest_losses").watermark == 5
    assert opened == []
    assert before is not None
    assert (before.version, before.watermark, before.files.num_rows) == (1, 1, 1)
    assert len(opened) == 1  # the version is read again for who still asks for it
    assert lake.table("ingest_losses").files().num_rows == 5


def test_a_log_entry_that_is_not_the_one_that_was_read_is_read(lake: Lake) -> None:
    table = lake.table("ingest_losses")
    table.append(losses(1))
    table.append(losses(2))
    newest = table.path / "_delta_log" / f"{table.version:020}.json"
    assert starts(lake) == [1, 2]
    newest.rename(newest.with_suffix(".away"))  # as one does with an entry that a power cut cut off
    assert starts(lake) == [1]
    Lake(lake.root).table("ingest_losses").append(losses(3))
    assert starts(lake) == [1, 3]
    shutil.rmtree(table.path)
    assert starts(lake) == []


def test_a_table_whose_log_is_gone_is_not_a_new_one(lake: Lake) -> None:
    table = lake.table("ingest_losses")
    table.append(losses(1))
    shutil.rmtree(table.path / "_delta_log")
    assert_refused(lambda: lake.table("ingest_losses"), "data files but no _delta_log: restore")


# --- races ----------------------------------------------------------------------------------------------------------


def race(lake: Lake, writer: int, last: int) -> int:
    """Writes batches 1 … last, as far as nobody else does; gives how many this one wrote."""
    written = 0
    while True:

        def attempt() -> bool:
            table = lake.table("ingest_losses")
            if table.watermark == last:
                return False
            batch = table.watermark + 1
            table.append(losses(batch * 10 + writer, batch=batch), batch)
            return True

        if not until_committed(attempt):
            return written
        written += 1


def race_on(root: Path, writer: int, last: int) -> int:
    """As race, in a process of its own."""
    return race(Lake(root), writer, last)


def assert_each_batch_once(root: Path, written: list[int], last: int) -> None:
    rows = rows_of(Lake(root), "ingest_losses")
    assert sorted(row["batch"] for row in rows) == list(range(1, last + 1))
    assert sum(written) == last


@pytest.mark.parametrize("lakes", [1, 3])
def test_threads_racing_for_batches_write_each_once(tmp_path: Path, lakes: int) -> None:
    opened = [Lake(tmp_path / "lake") for _ in range(lakes)]
    with ThreadPoolExecutor(3) as pool:
        written = list(pool.map(lambda writer: race(opened[writer % lakes], writer, 30), range(3)))
    assert_each_batch_once(tmp_path / "lake", written, 30)


def test_processes_racing_for_batches_write_each_once(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    # Its processes end by themselves: one that is terminated while it ends may never be done.
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        written = list(pool.map(race_on, [root] * 2, range(2), [20] * 2))
    assert_each_batch_once(root, written, 20)


def test_many_may_create_a_table_at_once(tmp_path: Path) -> None:
    for number in range(8):
        barrier = threading.Barrier(4)

        def create(_: int, root: Path = tmp_path / str(number), barrier: threading.Barrier = barrier) -> int:
            barrier.wait()
            table = Lake(root).table("notifications")
            table.create()
            return table.version

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(create, range(4))) == [0] * 4


def test_who_always_loses_is_told_so() -> None:
    def attempt() -> None:
        raise LostRace("prices")

    with pytest.raises(LakeError, match="prices was never quiet"):
        until_committed(attempt)


def test_a_table_that_is_begun_while_it_is_opened_is_no_damage(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody creates and writes it after the log was not found and before files are looked for."""
    root, found = lake.root / "new", Path.rglob

    def begun(folder: Path, pattern: str) -> Iterator[Path]:
        monkeypatch.undo()
        with Lake(root) as another:
            another.table("ingest_losses").append(losses(1), 1)
        return found(folder, pattern)

    monkeypatch.setattr(Path, "rglob", begun)
    with Lake(root) as new:
        assert new.table("ingest_losses").watermark == 1


# --- what can't be used ---------------------------------------------------------------------------------------------


def test_a_history_without_a_watermark_is_never_taken_for_0(lake: Lake) -> None:
    table = lake.table("ingest_losses")
    table.create()
    write_deltalake(str(table.path), losses(1), mode="append")
    uses: list[Callable[[Table], object]] = [
        lambda table: table.watermark,
        lambda table: table.append(losses(2)),
        lambda table: table.replace(losses(2), "start_offset = 1"),
    ]
    for use in uses:
        with pytest.raises(LakeError, match="ingest_losses has a history but no watermark"):
            use(lake.table("ingest_losses"))
    assert starts(lake) == [1]


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_tables_are_made_for_every_reader(lake: Lake, name: str) -> None:
    table = lake.table(name)
    table.create()
    (created,) = commits(table)
    assert (created["protocol"]["minReaderVersion"], created["protocol"]["minWriterVersion"]) == (1, 2)
    properties = created["metaData"]["configuration"]
    assert properties["delta.enableDeletionVectors"] == "false"
    assert properties["delta.checkpointPolicy"] == "classic"
    days = 1 if name in ("minute_aggregates", "customer_panel") else 7
    assert properties["delta.deletedFileRetentionDuration"] == f"interval {days} days"
    assert "delta.setTransactionRetentionDuration" not in properties
    assert tuple(created["metaData"]["partitionColumns"]) == SCHEMAS[name].partition_by
    partitions = [table.schema.arrow.field(column).type for column in SCHEMAS[name].partition_by]
    assert all(pa.types.is_date(kind) or pa.types.is_integer(kind) for kind in partitions)
    table.append(SCHEMAS[name].arrow.empty_table())
    assert lake.rows(lake.table(name).scan()).schema.names == SCHEMAS[name].arrow.names


@pytest.mark.parametrize(
    ("configuration", "why"),
    [
        ({"delta.enableDeletionVectors": "true"}, "reader 3 / writer 7"),
        ({"delta.columnMapping.mode": "name"}, "reader 2 / writer 5"),
        ({"delta.enableChangeDataFeed": "true"}, "reader 1 / writer 4"),
    ],
)
def test_a_table_with_features_of_another_tool_is_refused(lake: Lake, configuration: dict[str, str], why: str) -> None:
    DeltaTable.create(str(lake.root / "ingest_losses"), LOSSES.arrow, configuration=dict(configuration))
    asks = f"ingest_losses asks for {why}.*must stay at reader 1 / writer 2"
    assert_refused(lambda: lake.table("ingest_losses"), asks)


def test_a_feature_that_nobody_knows_is_refused(lake: Lake) -> None:
    table = lake.table("ingest_losses")
    table.create()
    log = table.path / "_delta_log"
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["x"], "writerFeatures": ["x"]}
    (log / f"{1:020}.json").write_text(json.dumps({"protocol": protocol}))
    assert_refused(lambda: lake.table("ingest_losses"), "ingest_losses in .* can't be opened")


def assert_refused(action: Callable[[], object], why: str) -> None:
    """`action` raises LakeError with one clear line."""
    with pytest.raises(LakeError, match=why) as refused:
        action()
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("below", ["", "deeper/lake"])
def test_a_lake_where_a_file_is_in_the_way(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    lake = Lake(tmp_path / "file" / below)
    assert not lake.exists()
    assert_refused(lambda: lake.table("prices").create(), "can't be written: .*; see NOTIF_LAKE")
    assert_refused(lambda: lake.claim(topic="t"), "can't be written: .*; see NOTIF_LAKE")


def test_a_table_where_a_file_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "prices").write_text("")
    assert_refused(lambda: Lake(tmp_path).table("prices").create(), "prices")
    (tmp_path / "invoices").mkdir()
    (tmp_path / "invoices" / "_delta_log").write_text("")
    assert_refused(lambda: Lake(tmp_path).table("invoices").create(), "invoices")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_lake_that_may_not_be_written(lake: Lake) -> None:
    table = lake.table("ingest_losses")
    for folder in (table.path, table.path / "_delta_log", lake.root):
        folder.chmod(0o500)
    try:
        assert_refused(lambda: table.append(losses(1)), "could not be written")
        assert_refused(lambda: lake.table("prices").create(), "can't be written")
        assert_refused(lambda: lake.claim(topic="t"), "can't be written")
    finally:
        for folder in (lake.root, table.path, table.path / "_delta_log"):
            folder.chmod(0o700)
    assert starts(lake) == []


def test_a_commit_that_fails_by_itself_is_no_lost_race(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    table = lake.table("ingest_losses")

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("notif_assets.lake.tables.write_deltalake", full)
    assert_refused(lambda: table.append(losses(1)), "could not be written: no space left")


@pytest.mark.parametrize("name", ["br[1]", "st*r", "wh?t", "per%20cent"])
def test_a_path_that_an_engine_would_misread_is_refused(tmp_path: Path, name: str) -> None:
    assert_refused(lambda: Lake(tmp_path / name).table("prices"), "choose a NOTIF_LAKE without")


@pytest.mark.parametrize("name", ["sp ace", "quo'te", "ha#sh", "é ação", "a,b;c$d&e"])
def test_a_path_with_unusual_letters_works(tmp_path: Path, name: str) -> None:
    lake = Lake(tmp_path / name)
    lake.table("ingest_losses").append(losses(1))
    lake.table("ingest_losses").replace(losses(1, 1), "start_offset = 1")
    assert starts(lake) == [1, 1]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"junk")])
def test_a_data_file_that_is_gone_or_broken(lake: Lake, damage: Callable[[Path], object]) -> None:
    table = lake.table("ingest_losses")
    table.append(losses(1))
    damage(Path(table.scan().files[0]))
    assert_refused(lambda: lake.rows(table.scan()), "a data file can't be read")


# --- who the lake belongs to ----------------------------------------------------------------------------------------


def test_claim_refuses_another_topic_or_time_zone(lake: Lake) -> None:
    assert not lake.exists()
    lake.claim(topic="notifications", timezone="UTC")
    lake.claim(topic="notifications", timezone="UTC")
    assert lake.exists()
    assert_refused(
        lambda: lake.claim(topic="other", timezone="UTC"),
        "made with topic notifications, and now NOTIF_TOPIC says other",
    )
    assert_refused(
        lambda: lake.claim(topic="notifications", timezone="Asia/Kathmandu"),
        "made with timezone UTC, and now NOTIF_TIMEZONE says Asia/Kathmandu",
    )
    assert {path.name for path in lake.root.iterdir()} == {"lake.json", *SCHEMAS}  # no drafts left behind
    assert {lake.table(name).version for name in SCHEMAS} == {0}
    assert (lake.root / "lake.json").stat().st_mode & 0o444 == 0o444
    (lake.root / "lake.json").write_text("{")
    assert_refused(lambda: lake.claim(topic="notifications"), "lake.json can't be read")


def test_of_two_claims_at_once_one_holds(tmp_path: Path) -> None:
    for number in range(10):
        barrier = threading.Barrier(2)

        def claim(topic: str, root: Path = tmp_path / str(number), barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            try:
                Lake(root).claim(topic=topic)
            except LakeError:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(claim, ["a", "b"])) == [False, True]
