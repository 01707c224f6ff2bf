"""Findings of a check are about the tables, not about who is writing to them just now."""

from pathlib import Path

from deltalake import DeltaTable

from notif_assets.ingest import bronze, pump, silver
from notif_assets.ingest.truth import minutes_that_differ
from notif_assets.lake import Lake
from notif_assets.settings import Settings
from notif_assets_tests.streams import NOON, MemoryLog, sent


def test_minutes_are_compared_with_the_messages_of_their_own_batch(tmp_path: Path) -> None:
    settings, topic = Settings(data=tmp_path), MemoryLog()
    lake = Lake(settings.lake)
    topic.produce(sent(NOON, message_id="a"))
    bronze.take_next_batch(lake, topic, settings, "run")
    pump.settle(lake, settings)
    topic.produce(sent(NOON, message_id="b"))
    bronze.take_next_batch(lake, topic, settings, "run")
    assert silver.take_next_batch(lake, settings) is not None
    assert lake.table("notifications").watermark > lake.table("minute_aggregates").watermark
    assert minutes_that_differ(lake) == []

    DeltaTable(lake.root / "minute_aggregates").delete("notifications = 1")
    assert len(minutes_that_differ(lake)) == 1
