"""Late rows that touch many hours: only the minutes and files they lie in change, and every table stays exact."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from notif_assets.lake import SCHEMAS, Lake, LakeError, LostRace, Scan, staging
from notif_assets.lake.staging import exchange
from notif_assets.maintenance.compaction import compact, merge_open_files
from notif_assets.maintenance.fingerprint import fingerprint_of
from notif_assets.maintenance.maintain import maintain
from notif_assets.maintenance.rebuild import rebuild
from notif_assets.notifications import audit, bronze, catch_up, gold, silver
from notif_assets.notifications.ledger import plan_move
from notif_assets.settings import Settings
from notif_assets_tests.conftest import Asked
from notif_assets_tests.streams import DAY, HOUR, NOON, MemoryLog, Oracle, Row, assert_tables, in_order, rows_of, sent

HOURS = 60
LATER = datetime(2100, 1, 1, tzinfo=UTC)


def fill(lake: Lake, log: MemoryLog) -> None:
    """Some messages of many customers in each of the last hours, compacted as old hours are."""
    for hour in range(HOURS):
        for customer in range(1, 9):
            event = NOON - hour * HOUR + timedelta(minutes=customer * 3)
            log.produce(sent(event, message_id=f"{hour}", customer_id=customer, channel=("Whatsapp", "SMS")[hour % 2]))
    take(lake, log)
    maintain(lake, Settings(), LATER)


def take(lake: Lake, log: MemoryLog) -> None:
    bronze.advance_bronze_by_one(lake, log, Settings(), "run", even_if_quiet=True)
    catch_up.advance_tables(lake, Settings())


def test_one_batch_for_many_hours_is_what_a_recount_from_scratch_gives(lake: Lake) -> None:
    log = MemoryLog(1)
    fill(lake, log)
    before = {file.path for file in lake.table("minute_aggregates").data_files()}
    for hour in range(0, HOURS, 2):  # a minute that there is, one that there isn't, a customer that there isn't
        at = NOON - hour * HOUR
        for n, (customer, minute) in enumerate(((1 + hour % 8, 3 * (1 + hour % 8)), (3, 50), (99, 9))):
            event = at + timedelta(minutes=minute, seconds=30 * (hour % 3))
            late = sent(event, at=NOON + DAY, message_id=f"late {n}", customer_id=customer, customer_name="Beta")
            log.produce(late, late)
    take(lake, log)
    assert_tables(lake, Oracle(log))
    after = {file.path for file in lake.table("minute_aggregates").data_files()}
    assert 0 < len(before - after) <= HOURS // 2  # the other hours' files are the same files
    assert audit.minutes_that_differ(lake) == []

    written = {name: fingerprint_of(lake, lake.table(name).scan()) for name in ("notifications", "minute_aggregates")}
    files = {name: len(lake.table(name).data_files()) for name in written}
    maintain(lake, Settings(), LATER)
    assert {name: fingerprint_of(lake, lake.table(name).scan()) for name in written} == written
    assert {name: len(lake.table(name).data_files()) for name in written} == dict.fromkeys(written, HOURS)
    assert files["notifications"] > HOURS >= files["minute_aggregates"]  # few minutes are laid down together
    rebuild(lake, Settings(), "minute_aggregates")
    assert fingerprint_of(lake, lake.table("minute_aggregates").scan()) == written["minute_aggregates"]
    assert_tables(lake, Oracle(log))


def test_a_large_file_that_holds_none_of_the_minutes_is_not_rewritten(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The customer and the minute are within its bounds, and not among its rows."""
    monkeypatch.setattr(staging, "_CLUSTER_ROWS", 1)
    monkeypatch.setattr(staging, "_CLUSTERED_ROWS", 1)
    log = MemoryLog(1)
    fill(lake, log)
    (file,) = lake.table("minute_aggregates").data_files([(NOON.date(), NOON.hour)])
    log.produce(sent(NOON + timedelta(minutes=7), at=NOON + DAY, message_id="late", customer_id=4))
    take(lake, log)
    assert file.path in {each.path for each in lake.table("minute_aggregates").data_files()}
    assert_tables(lake, Oracle(log))


def test_minutes_whose_messages_all_went_go(lake: Lake) -> None:
    """The deduplication of a day takes the only message of a minute; its row goes, and its file stays readable."""
    log = MemoryLog(1)
    log.produce(*(sent(NOON + n * HOUR, message_id="same") for n in (0, 1, 2)), sent(NOON + HOUR, customer_id=2))
    take(lake, log)
    maintain(lake, Settings(), LATER)
    assert len(rows_of(lake, "minute_aggregates")) == 4
    plan_move(lake, "run", "dedup", dedup_through=NOON.date())
    catch_up.execute_planned(lake, log, Settings())
    assert len(rows_of(lake, "minute_aggregates")) == 2
    assert_tables(lake, Oracle(log))


def keys_of(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows).select(["customer_id", "channel", "minute", "event_date", "event_hour"])


def exchanged(lake: Lake, old: list[Row], new: list[Row]) -> None:
    """Exchanges some rows of minute_aggregates for others."""
    table = lake.table("minute_aggregates")
    schema = table.schema.arrow
    keys = pa.Table.from_pylist(old, schema=schema).select(keys_of(old).column_names)
    exchange(table, keys, pa.Table.from_pylist(new, schema=schema), table.watermark + 1)


def test_exactly_the_rows_of_the_keys_are_exchanged(lake: Lake) -> None:
    """Not those of the same customer in another minute, or of another customer in the same one."""
    log = MemoryLog(1)
    fill(lake, log)
    before = rows_of(lake, "minute_aggregates")
    old = [row for n, row in enumerate(before) if n % 7 == 0]
    new = [row | {"notifications": 100} for row in old[1:]]
    exchanged(lake, old, new)
    assert in_order(rows_of(lake, "minute_aggregates")) == in_order([row for row in before if row not in old] + new)
    exchanged(lake, new, [])
    assert in_order(rows_of(lake, "minute_aggregates")) == in_order([row for row in before if row not in old])
    emptied = rows_of(lake, "minute_aggregates")
    exchanged(lake, emptied, [])
    assert rows_of(lake, "minute_aggregates") == []
    assert lake.table("minute_aggregates").data_files() == []


def test_who_loses_the_race_changes_nothing(lake: Lake) -> None:
    log = MemoryLog(1)
    fill(lake, log)
    rows = rows_of(lake, "minute_aggregates")
    late, schema = lake.table("minute_aggregates"), lake.table("minute_aggregates").schema.arrow
    exchanged(lake, rows[:1], [])
    keys = pa.Table.from_pylist(rows[1:2], schema=schema).select(keys_of(rows).column_names)
    with pytest.raises(LostRace):
        exchange(late, keys, schema.empty_table(), late.watermark + 1)
    assert in_order(rows_of(lake, "minute_aggregates")) == in_order(rows[1:])


minutes = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.sampled_from([*range(20), *range(60, 66), 120, 121]),
        st.sampled_from(["Ana", "Bo"]),
        st.integers(0, 59),
    ),
    max_size=12,
)


@settings(max_examples=30, deadline=None)
@given(st.lists(minutes, min_size=1, max_size=6), st.integers(1, 8), st.integers(1, 12), st.integers(1, 9))
def test_minutes_added_to_minutes_are_those_of_all_messages(
    batches: list[list[tuple[int, int, str, int]]], cluster: int, clustered: int, at_a_time: int
) -> None:
    """However the rows lie in files, and however many hours are merged at a time. Each file holds its own minutes while
    they are many enough for a file."""
    log = MemoryLog(1)
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder, Lake(Path(folder) / "lake") as lake:
        patch.setattr(staging, "_CLUSTER_ROWS", cluster)
        patch.setattr(staging, "_CLUSTERED_ROWS", max(cluster, clustered))
        patch.setattr(staging, "_MERGED_KEYS", at_a_time)
        for number, batch in enumerate(batches):
            for place, (customer, minute, name, second) in enumerate(batch):
                event = NOON + timedelta(minutes=minute, seconds=second)
                ids = {"customer_id": customer, "message_id": f"{number} {place}"}
                log.produce(sent(event, at=NOON + HOUR, customer_name=name, **ids))
            take(lake, log)
        assert_tables(lake, Oracle(log))
        assert audit.minutes_that_differ(lake) == audit.panel_differences(lake, Settings()) == []


def test_an_hour_that_fills_has_few_files_of_minutes(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """One minute after the other, with some late ones: a batch rewrites the files of its minutes, and few others."""
    monkeypatch.setattr(staging, "_CLUSTER_ROWS", 20)
    log = MemoryLog(1)
    rewritten = []
    for minute in range(40):
        for customer in range(1, 31):
            event = NOON + timedelta(minutes=minute, seconds=customer)
            log.produce(sent(event, at=NOON + HOUR, message_id=f"{minute}", customer_id=customer))
        late = NOON + timedelta(minutes=minute // 2)
        log.produce(sent(late, at=NOON + HOUR, message_id=f"late {minute}", customer_id=15))
        before = {file.path for file in lake.table("minute_aggregates").data_files()}
        take(lake, log)
        rewritten.append(len(before - {file.path for file in lake.table("minute_aggregates").data_files()}))
    files = lake.table("minute_aggregates").data_files()
    assert len(files) <= 40
    assert max(rewritten) <= 2
    spans = sorted(file.bounds("minute") for file in files)
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(spans))
    assert_tables(lake, Oracle(log))


def test_a_batch_is_counted_without_the_messages_that_are_counted_already(lake: Lake, asked: list[Asked]) -> None:
    log = MemoryLog(1)
    for number in range(6):
        log.produce(sent(NOON, message_id=f"{number}"))
        del asked[:]
        take(lake, log)
        scans = [
            (question.name, len(scan.files))
            for question in asked
            for scan in question.inputs.values()
            if isinstance(scan, Scan) and scan.schema.name in ("notifications", "minute_aggregates")
        ]
        assert scans
        assert max(files for _, files in scans) == 1, scans
    assert_tables(lake, Oracle(log))


def _delete(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize("damage", [_delete, _truncate])
def test_a_damaged_file_is_told_and_nothing_is_committed(lake: Lake, damage: Callable[[Path], None]) -> None:
    log = MemoryLog(1)
    fill(lake, log)
    table = lake.table("minute_aggregates")
    (file,) = table.data_files([(NOON.date(), NOON.hour)])
    damage(table.path / file.path)
    late = sent(NOON + timedelta(minutes=3), at=NOON + DAY, message_id="late", customer_id=1)
    log.produce(late)
    bronze.advance_bronze_by_one(lake, log, Settings(), "run")
    with pytest.raises(LakeError, match=r"minute_aggregates.*can't be read"):
        catch_up.advance_tables(lake, Settings())
    assert lake.table("minute_aggregates").version == table.version
    rebuild(lake, Settings(), "minute_aggregates")
    gold.advance_minutes(lake)
    gold.advance_panel(lake, Settings())
    assert_tables(lake, Oracle(log))


def test_minutes_that_come_while_the_panel_is_made_are_counted_once(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day begins, so its minutes are counted; meanwhile another run brings them further."""
    log, panel_day, today = MemoryLog(1), gold.panel_day, datetime.now(UTC)

    def slow(*arguments: Any) -> Any:
        monkeypatch.undo()
        log.produce(sent(today, at=today, message_id="meanwhile"))
        bronze.advance_bronze_by_one(lake, log, Settings(), "run")
        list(silver.advance_silver(lake, Settings()))
        gold.advance_minutes(lake)
        return panel_day(*arguments)

    log.produce(sent(today, at=today, message_id="first"))
    bronze.advance_bronze_by_one(lake, log, Settings(), "run")
    list(silver.advance_silver(lake, Settings()))
    gold.advance_minutes(lake)
    monkeypatch.setattr(gold, "panel_day", slow)
    gold.advance_panel(lake, Settings())
    gold.advance_panel(lake, Settings())
    assert lake.table("customer_panel").watermark == lake.table("minute_aggregates").watermark == 2
    assert audit.panel_differences(lake, Settings()) == []
    assert [row["notifications"] for row in rows_of(lake, "customer_panel")] == [2]


def test_what_a_commit_left_is_known_as_the_log_tells_it(lake: Lake) -> None:
    """After batches, late ones, messages that went, and compaction."""

    def same() -> None:
        with Lake(lake.root) as other:
            for name in SCHEMAS:
                known, told = (
                    table.files().sort_by("path") if table.files().num_rows else table.files()
                    for table in (lake.table(name), other.table(name))
                )
                assert known.equals(told), name

    log = MemoryLog(2)
    for number in range(4):
        log.produce(*(sent(NOON + hour * HOUR, message_id=f"{number % 3} {hour}") for hour in range(3)))
        log.produce(sent(NOON, message_id="same"), sent(NOON + HOUR, message_id="same"))
        take(lake, log)
        same()
    plan_move(lake, "run", "dedup", dedup_through=NOON.date())
    catch_up.execute_planned(lake, log, Settings())
    same()
    merge_open_files(lake, "raw_notifications", datetime.now(UTC))
    for name in ("notifications", "minute_aggregates", "ingest_batches"):
        compact(lake, name, LATER)
        same()
    assert_tables(lake, Oracle(log))


def test_a_wrong_count_is_told_with_the_command_that_mends_it(lake: Lake) -> None:
    """Batches add to what is there: a wrong sum would stay."""
    log, today = MemoryLog(1), datetime.now(UTC)
    log.produce(sent(today, at=today, message_id="first"))
    take(lake, log)
    for name in ("minute_aggregates", "customer_panel"):
        DeltaTable(lake.root / name).update({"notifications": "7"})
    minutes, panel = audit.minutes_that_differ(lake), audit.panel_differences(lake, Settings())
    assert "`notif-assets rebuild minute_aggregates" in minutes[0]
    assert "`notif-assets rebuild customer_panel`" in panel[0]
    for name in ("minute_aggregates", "customer_panel"):
        rebuild(lake, Settings(), name)
    assert audit.minutes_that_differ(lake) == audit.panel_differences(lake, Settings()) == []
