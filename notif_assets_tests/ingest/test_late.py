"""Late rows that touch many hours: only the minutes and files they lie in change, and every table stays exact."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from notif_assets.ingest import bronze, gold, pump, truth
from notif_assets.ingest.ledger import plan_move
from notif_assets.lake import Lake, LakeError, LostRace
from notif_assets.lake.staging import exchange
from notif_assets.settings import Settings
from notif_assets.upkeep.content import content
from notif_assets.upkeep.maintenance import maintain
from notif_assets.upkeep.rebuild import rebuild
from notif_assets_tests.streams import (
    DAY,
    HOUR,
    NOON,
    MemoryLog,
    Oracle,
    Row,
    assert_tables,
    in_order,
    rows_of,
    sent,
)

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
    bronze.take_next_batch(lake, log, Settings(), "run", even_if_quiet=True)
    pump.settle(lake, Settings())


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
    assert truth.minutes_that_differ(lake) == []

    written = {name: content(lake, lake.table(name).scan()) for name in ("notifications", "minute_aggregates")}
    files = {name: len(lake.table(name).data_files()) for name in written}
    maintain(lake, Settings(), LATER)
    assert {name: content(lake, lake.table(name).scan()) for name in written} == written
    assert {name: len(lake.table(name).data_files()) for name in written} == dict.fromkeys(written, HOURS)
    assert all(number > HOURS for number in files.values())
    rebuild(lake, Settings(), "minute_aggregates")
    assert content(lake, lake.table("minute_aggregates").scan()) == written["minute_aggregates"]
    assert_tables(lake, Oracle(log))


def test_a_file_that_holds_none_of_the_minutes_is_not_rewritten(lake: Lake) -> None:
    """The customer and the minute are within its bounds, and not among its rows."""
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
    pump.execute_planned(lake, log, Settings())
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
    bronze.take_next_batch(lake, log, Settings(), "run")
    with pytest.raises(LakeError, match=r"minute_aggregates.*can't be read"):
        pump.settle(lake, Settings())
    assert lake.table("minute_aggregates").version == table.version
    rebuild(lake, Settings(), "minute_aggregates")
    gold.take_minutes(lake)
    gold.take_panel(lake, Settings())
    assert_tables(lake, Oracle(log))
