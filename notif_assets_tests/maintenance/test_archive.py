"""Bronze moves to the archive: only what nobody needs, only when the copy reads the same, never twice, never lost."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from notif_assets.core.days import days_of_hours
from notif_assets.lake import SCHEMAS, Lake, LakeError
from notif_assets.maintenance.archive import archive_bronze, keep_reason
from notif_assets.maintenance.fingerprint import Fingerprint, fingerprint_of
from notif_assets.maintenance.maintain import maintain
from notif_assets.maintenance.rebuild import rebuild
from notif_assets.notifications import bronze
from notif_assets.settings import Settings
from notif_assets_tests.maintenance.world import START, World

LATER = datetime.now(UTC) + timedelta(days=40)


def keeping(world: World, archive: Path, bronze_days: int = 30) -> Settings:
    return world.settings.model_copy(update={"bronze_days": bronze_days, "archive": archive})


def close_all(world: World, but: date | None = None) -> None:
    listed = world.lake.table("notifications").files()
    hours = [
        datetime(day.year, day.month, day.day, hour, tzinfo=UTC)
        for day, hour in zip(
            listed["partition.event_date"].to_pylist(), listed["partition.event_hour"].to_pylist(), strict=True
        )
    ]
    row: dict[str, Any] = {"status": "final", "through_batch": 1, "price_version": "v", "lines": 0, "notifications": 0}
    row |= {"amount": 0, "closed_at": datetime.now(UTC), "run_id": "test"}
    rows = [row | {"billing_date": day} for day in days_of_hours(hours, world.settings.zone) if day != but]
    world.lake.table("billing_days").append(pa.Table.from_pylist(rows, schema=SCHEMAS["billing_days"].arrow))


def came_on(world: World) -> date:
    """The day that the records came on; none of these tests may mind when midnight is."""
    day: date = world.lake.table("raw_notifications").files()["partition.ingest_date"][0].as_py()
    return day


def archived(archive: Path) -> Fingerprint:
    lake = Lake(archive)
    return fingerprint_of(lake, lake.table("raw_notifications").scan())


def test_unset_it_keeps_everything_and_without_a_place_it_says_so(world: World) -> None:
    close_all(world)
    assert archive_bronze(world.lake, world.settings, LATER) == []
    with pytest.raises(LakeError, match="NOTIF_ARCHIVE"):
        maintain(world.lake, world.settings.model_copy(update={"bronze_days": 1}), LATER)
    with pytest.raises(LakeError, match="lies in the lake"):
        archive_bronze(world.lake, keeping(world, world.settings.lake / "archive"), LATER)


def test_closed_days_move_and_ingestion_goes_on(world: World, tmp_path: Path) -> None:
    close_all(world)
    settings = keeping(world, tmp_path / "archive")
    before, watermarks = world.contents(), world.watermarks()
    assert archive_bronze(world.lake, settings, datetime.now(UTC)) == []  # too young
    day = came_on(world)
    lines = maintain(world.lake, settings, LATER)
    rows = before["raw_notifications"].rows
    assert lines[0] == f"raw_notifications: {day} archived and dropped ({rows} rows)"
    assert archived(tmp_path / "archive") == before["raw_notifications"]
    after = world.contents()
    assert after.pop("raw_notifications").rows == 0
    assert after.items() < before.items()
    assert world.watermarks() == watermarks
    maintain(world.lake, settings, LATER)
    assert archived(tmp_path / "archive") == before["raw_notifications"]
    world.send(20, START + timedelta(hours=1))
    world.ingest()
    world.require_exact()
    with pytest.raises(LakeError, match="no longer holds batches 1 to"):
        rebuild(world.lake, world.settings, "notifications")


def test_what_is_still_needed_stays(world: World, tmp_path: Path) -> None:
    settings = keeping(world, tmp_path / "archive")
    close_all(world, but=START.date() + timedelta(days=1))
    assert "not closed" in archive_bronze(world.lake, settings, LATER)[0]
    world.send(5, START)
    bronze.advance_bronze_by_one(world.lake, world.log, world.settings, "test")
    assert "notifications stands at batch" in str(keep_reason(world.lake, settings, came_on(world)))
    world.send(5, START)
    from notif_assets.notifications.ledger import plan_from_kafka

    plan_from_kafka(world.lake, world.log, world.settings, "test", even_if_quiet=True)
    assert "not read yet" in str(keep_reason(world.lake, settings, came_on(world)))
    assert archive_bronze(world.lake, settings, LATER)[0].startswith(f"raw_notifications: {came_on(world)} stays")
    assert not (tmp_path / "archive").exists()
    world.finish()
    world.require_exact()


@pytest.mark.parametrize("step", ["rewrite_whole", "_drop", "commit"])
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_step_nothing_is_lost_or_twice(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    from notif_assets.maintenance import archive as module

    close_all(world)
    settings = keeping(world, tmp_path / "archive")
    rows = world.contents("raw_notifications")["raw_notifications"]
    original = getattr(module, step)

    def killed(*args: Any, **named: Any) -> Any:
        if after:
            original(*args, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, step, killed)
    with pytest.raises(KeyboardInterrupt):
        archive_bronze(world.lake, settings, LATER)
    monkeypatch.setattr(module, step, original)
    assert rows in (world.contents("raw_notifications")["raw_notifications"], archived(tmp_path / "archive"))
    archive_bronze(world.lake, settings, LATER)
    assert archived(tmp_path / "archive") == rows
    assert world.contents("raw_notifications")["raw_notifications"].rows == 0


def test_a_copy_that_reads_differently_keeps_bronze(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from notif_assets.maintenance import archive as module

    close_all(world)
    settings = keeping(world, tmp_path / "archive")
    before = world.contents("raw_notifications")
    monkeypatch.setattr(module, "stage", lambda *_: ())
    with pytest.raises(LakeError, match="gives back 0 rows"):
        archive_bronze(world.lake, settings, LATER)
    assert world.contents("raw_notifications") == before


def test_the_archive_of_another_lake_is_not_overwritten(world: World, tmp_path: Path) -> None:
    close_all(world)
    settings = keeping(world, tmp_path / "archive")
    other = World(tmp_path / "other")
    other.send(30, START)
    other.ingest()
    close_all(other)
    archive_bronze(other.lake, keeping(other, tmp_path / "archive"), LATER)
    kept, before = archived(tmp_path / "archive"), world.contents("raw_notifications")
    with pytest.raises(LakeError, match="another lake"):
        archive_bronze(world.lake, settings, LATER)
    assert (archived(tmp_path / "archive"), world.contents("raw_notifications")) == (kept, before)
