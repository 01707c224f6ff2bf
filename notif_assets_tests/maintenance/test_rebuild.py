"""Rebuilding: the same rows at the same watermark, whatever was lost of the table, and a clear no to the rest."""

import shutil
import threading
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from notif_assets.chatbot.sessions import replace_day
from notif_assets.invoices.averages import replace_averages
from notif_assets.lake import SCHEMAS, Lake, LakeError
from notif_assets.maintenance.erase import erase
from notif_assets.maintenance.rebuild import rebuild
from notif_assets.notifications import bronze, silver
from notif_assets_tests.faults.kills import FLOW
from notif_assets_tests.maintenance.world import START, World, by_reason, days, message

SILVER = ["notifications", "rejected_notifications"]


def lose(world: World, *names: str) -> None:
    for name in names:
        shutil.rmtree(world.settings.lake / name)


@pytest.mark.parametrize("name", ["minute_aggregates", "customer_panel", *SILVER])
@pytest.mark.parametrize("lost", [False, True])
def test_the_same_rows_at_the_same_watermark(world: World, name: str, lost: bool) -> None:
    before, watermarks = world.contents(*FLOW), world.watermarks()
    if lost:
        lose(world, *(SILVER if name in SILVER else [name]))
    rebuild(world.lake, world.settings, name)
    assert world.contents(*FLOW) == before
    assert world.watermarks() == watermarks
    rebuild(world.lake, world.settings, name)
    assert world.contents(*FLOW) == before
    world.send(30, START + timedelta(hours=42))
    world.ingest()
    world.require_exact()


def test_what_an_earlier_version_accepted_stays_counted_and_nothing_new_of_its_kind_is(
    tmp_path: Path,
) -> None:
    """Its lake has no rules.json; the first thing that this version does with it may be a rebuild."""
    world = World(tmp_path)
    marker = world.settings.lake / "rules.json"
    marker.parent.mkdir(parents=True)
    marker.write_text('{"judged_before_the_narrow_rules": 1000000}')

    def send_odd(number: int) -> None:
        world.log.send(0, message(number, START, channel="What\nsapp"), START)
        world.log.send(0, message(number + 1, START, customer_name="x" * 9000), START)
        for year in (1970, 2031):
            far = datetime(year, 1, 2, tzinfo=UTC)
            world.log.send(1, message(number + year, far), far)

    send_odd(5_000)
    world.send(20, START)
    world.ingest()
    send_odd(6_000)  # a batch that was killed before it was counted: the rules of then hold for it too
    bronze.advance_bronze_by_one(world.lake, world.log, world.settings, "killed")
    list(silver.advance_silver(world.lake, world.settings))
    assert by_reason(world.rows("rejected_notifications")) == {"duplicate": 2}
    marker.unlink()
    before, watermarks = world.contents(*FLOW), world.watermarks()
    for _ in range(2):
        rebuild(world.lake, world.settings, "notifications")
        assert (world.contents(*FLOW), world.watermarks()) == (before, watermarks)
    assert marker.read_text() == '{"judged_before_the_narrow_rules": 2}'
    send_odd(10_000)
    world.ingest()
    counts = {"control_character": 1, "too_long": 1, "event_too_early": 1, "event_too_late": 1, "duplicate": 2}
    assert by_reason(world.rows("rejected_notifications")) == counts
    before = world.contents(*FLOW)
    lose(world, *SILVER)
    rebuild(world.lake, world.settings, "notifications")
    assert world.contents(*FLOW) == before
    erase(world.lake, world.settings, 1)
    before = world.contents(*FLOW)
    rebuild(world.lake, world.settings, "notifications")
    assert world.contents(*FLOW) == before
    world.require_exact()


@pytest.mark.parametrize("name", SILVER)
def test_one_lost_half_of_silver_comes_back(world: World, name: str) -> None:
    before, watermarks = world.contents(*FLOW), world.watermarks()
    lose(world, name)
    rebuild(world.lake, world.settings, name)
    assert (world.contents(*FLOW), world.watermarks()) == (before, watermarks)
    world.require_exact()


def test_everything_derived_comes_back_from_bronze(world: World) -> None:
    before, watermarks = world.contents(*FLOW), world.watermarks()
    lose(world, *SILVER, "minute_aggregates", "customer_panel")
    for name in ("notifications", "minute_aggregates", "customer_panel"):
        rebuild(world.lake, world.settings, name)
    assert (world.contents(*FLOW), world.watermarks()) == (before, watermarks)
    assert not (world.settings.lake / ".replay").exists()


def test_wrong_minutes_are_put_right_within_the_days_asked(world: World) -> None:
    before = world.contents("minute_aggregates")
    table = world.lake.table("minute_aggregates")
    hours = sorted({file.partition for file in table.data_files()})
    first = hours[0][0]
    assert isinstance(first, date)
    wrong = world.lake.rows(table.scan(partitions={hours[0]}))
    damaged = wrong.slice(1).set_column(
        wrong.schema.get_field_index("notifications"), "notifications", pa.array([99] * (len(wrong) - 1), pa.int64())
    )
    where = f"event_date = '{first}' and event_hour = {hours[0][1]}"
    table.replace(damaged, where, table.watermark + 1)
    files = {f.path for f in table.data_files()}
    rebuild(world.lake, world.settings, "minute_aggregates", first + timedelta(days=1), None)
    assert world.contents("minute_aggregates") != before
    assert {f.path for f in world.lake.table("minute_aggregates").data_files() if f.partition[0] == first} <= files
    rebuild(world.lake, world.settings, "minute_aggregates", first, first)
    assert world.contents("minute_aggregates") == before


def test_hours_that_silver_does_not_have_go(world: World) -> None:
    before = world.contents("minute_aggregates")
    table = world.lake.table("minute_aggregates")
    rows = world.lake.rows(table.scan()).slice(0, 1)
    ghost = rows.set_column(rows.schema.get_field_index("event_date"), "event_date", pa.array([date(2001, 1, 1)]))
    table.append(ghost, table.watermark + 1)
    rebuild(world.lake, world.settings, "minute_aggregates")
    assert world.contents("minute_aggregates") == before


def test_killed_in_the_middle_it_is_finished_by_the_next(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before, watermarks = world.contents(*FLOW), world.watermarks()
    taken: list[int] = []
    take = silver.advance_silver_by_one

    def fail_at(number: int) -> Any:
        def take_or_fail(*args: Any) -> Any:
            if len(taken) == number:
                raise KeyboardInterrupt
            taken.append(1)
            return take(*args)

        return take_or_fail

    monkeypatch.setattr("notif_assets.maintenance.rebuild.silver.advance_silver_by_one", fail_at(5))
    with pytest.raises(KeyboardInterrupt):
        rebuild(world.lake, world.settings, "notifications")
    assert (world.contents(*FLOW), world.watermarks()) == (before, watermarks)
    world.send(20, START)
    monkeypatch.setattr("notif_assets.maintenance.rebuild.silver.advance_silver_by_one", take)
    world.ingest()
    before, watermarks = world.contents(*FLOW), world.watermarks()

    # and between the commits of its two tables
    from notif_assets.maintenance import rebuild as module

    link = module._link
    monkeypatch.setattr(
        module, "_link", lambda s, t, f: link(s, t, f) if s.schema.name == "notifications" else fail_at(len(taken))()
    )
    with pytest.raises(KeyboardInterrupt):
        rebuild(world.lake, world.settings, "notifications")
    world.send(20, START)
    world.ingest()
    monkeypatch.setattr(module, "_link", link)
    rebuild(world.lake, world.settings, "rejected_notifications")
    world.require_exact()
    assert world.contents("raw_notifications")["raw_notifications"].rows > before["raw_notifications"].rows


def test_beside_ingestion_it_stays_exact(world: World) -> None:
    failures: list[BaseException] = []

    def ingest() -> None:
        try:
            for n in range(15):
                world.send(25, START + timedelta(hours=n % 4))
                world.ingest()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=ingest)
    thread.start()
    lake = Lake(world.settings.lake)
    for name in ("minute_aggregates", "customer_panel", "notifications", "minute_aggregates", "customer_panel"):
        rebuild(lake, world.settings, name)
    thread.join()
    assert not failures
    world.require_exact()
    before = world.contents(*FLOW)
    for name in ("notifications", "minute_aggregates", "customer_panel"):
        rebuild(lake, world.settings, name)
    assert world.contents(*FLOW) == before


@pytest.mark.parametrize(
    ("name", "first", "last", "said"),
    [
        ("daily_billing", None, None, "it is a book"),
        ("ingest_batches", None, None, "it is a book"),
        ("raw_notifications", None, None, "came from outside"),
        ("invoices", None, None, "came from outside"),
        ("nonsense", None, None, "no such table"),
        ("notifications", START.date(), None, "rebuilt whole"),
        ("customer_panel", None, START.date(), "rebuilt whole"),
        ("minute_aggregates", START.date(), START.date() - timedelta(days=1), "lies after"),
    ],
)
def test_what_makes_no_sense_is_refused(world: World, name: str, first: date, last: date, said: str) -> None:
    before = {table: world.lake.table(table).version for table in SCHEMAS}
    with pytest.raises(ValueError, match=said):
        rebuild(world.lake, world.settings, name, first, last)
    assert {table: world.lake.table(table).version for table in SCHEMAS} == before


def test_without_the_first_batches_of_bronze_silver_is_not_rebuilt(world: World) -> None:
    bronze = world.lake.table("raw_notifications")
    before = world.contents("notifications")
    DeltaTable(bronze.path).delete("batch <= 3")
    with pytest.raises(LakeError, match="no longer holds batches 1 to 3"):
        rebuild(world.lake, world.settings, "notifications")
    assert world.contents("notifications") == before


def test_a_batch_that_held_nothing_is_not_missed(world: World) -> None:
    empty = World(world.settings.data / "other")
    empty.ingest()
    empty.send(20, START)
    empty.ingest()
    rebuild(empty.lake, empty.settings, "notifications")
    empty.require_exact()


@pytest.mark.parametrize("lost", [False, True])
def test_tables_from_files(world: World, lost: bool) -> None:
    rows = [
        {
            "customer": "C",
            "account": "A",
            "month": date(2019, month, 1),
            "invoice": Decimal(month),
            "source_file": "f",
            "source_line": month,
        }
        for month in range(7, 13)
    ]
    world.lake.table("invoices").append(pa.Table.from_pylist(rows, schema=SCHEMAS["invoices"].arrow))
    answers = [
        {
            "answer_date": day,
            "hour": 3,
            "customer": "C",
            "flow": "F",
            "session": "S",
            "key": "nome",
            "value": "x",
            "timestamp": START,
            "source_file": "f",
            "position": 1,
        }
        for day in days(START.date(), 3)
    ]
    world.lake.table("chatbot_answers").append(pa.Table.from_pylist(answers, schema=SCHEMAS["chatbot_answers"].arrow))
    for month in [date(2019, m, 1) for m in range(8, 13)] + [date(2020, m, 1) for m in range(1, 7)]:
        replace_averages(world.lake, month)
    for day in days(START.date(), 3):
        replace_day(world.lake, day)
    names = ("invoice_window_averages", "chatbot_reports")
    before = world.contents(*names)
    if lost:
        lose(world, *names)
    for name in names:
        rebuild(world.lake, world.settings, name)
    assert world.contents(*names) == before
    rebuild(world.lake, world.settings, "chatbot_reports", START.date(), START.date())
    rebuild(world.lake, world.settings, "invoice_window_averages", date(2020, 1, 15), date(2020, 1, 31))
    assert world.contents(*names) == before
