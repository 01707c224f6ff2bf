"""The rejected messages that the operator's page counts are those of the table, whatever happens to its files.

Belongs here: counts that go on from those before, against plain Python. Doesn't: how they look (test_pages.py).
"""

import random
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from notif_assets.lake import SCHEMAS, Lake
from notif_assets.maintenance.compaction import compact
from notif_assets.panel.rejected import Rejected
from notif_assets_tests.conftest import Asked

TODAY = date(2026, 3, 10)
REASONS = ("duplicate", "invalid_json", "missing_field")


def _rows(chance: random.Random, batch: int, days: tuple[int, ...] = (0, 1, 2)) -> list[dict[str, Any]]:
    return [
        {
            "batch": batch,
            "topic": "notifications",
            "kafka_partition": 0,
            "kafka_offset": 100 * batch + number,
            "reason": chance.choice(REASONS),
            "detail": "",
            "ingested_at": datetime(2026, 3, 10, tzinfo=UTC),
            "ingest_date": TODAY - timedelta(days=chance.choice(days)),
        }
        for number in range(chance.randint(1, 9))
    ]


def _append(lake: Lake, rows: list[dict[str, Any]]) -> None:
    schema = SCHEMAS["rejected_notifications"].arrow
    values = [{**dict.fromkeys(schema.names), "kafka_timestamp": row["ingested_at"], **row} for row in rows]
    lake.table("rejected_notifications").append(pa.Table.from_pylist(values, schema))


def _expected(rows: list[dict[str, Any]], since: date) -> dict[str, int]:
    return dict(Counter(row["reason"] for row in rows if row["ingest_date"] >= since))


@pytest.mark.parametrize("seed", range(4))
def test_they_go_on_from_those_before(tmp_path: Path, seed: int) -> None:
    """Through commits, rows taken out again, compaction, and a day that begins."""
    chance, rows, since = random.Random(seed), [], TODAY - timedelta(days=1)
    with Lake(tmp_path) as lake:
        counted = Rejected(lake, since)
        assert counted.by_reason == {}
        for batch in range(1, 25):
            match chance.choice(["append", "append", "append", "delete", "compact", "day"]):
                case "append":
                    added = _rows(chance, batch)
                    _append(lake, added)
                    rows += added
                case "delete" if rows:
                    reason = chance.choice(REASONS)
                    DeltaTable(lake.table("rejected_notifications").path).delete(
                        f"reason = '{reason}' and batch < {batch - 2}"
                    )
                    rows = [row for row in rows if row["reason"] != reason or row["batch"] >= batch - 2]
                case "compact" if rows:
                    compact(lake, "rejected_notifications", datetime(2026, 3, 20, tzinfo=UTC))
                case "day":
                    since = TODAY - timedelta(days=chance.choice([0, 1]))
            counted = Rejected(lake, since, counted)
            assert counted.by_reason == _expected(rows, since)
            assert list(counted.by_reason.values()) == sorted(counted.by_reason.values(), reverse=True)


def test_a_file_is_read_once(tmp_path: Path, asked: list[Asked]) -> None:
    chance = random.Random(1)
    with Lake(tmp_path) as lake:
        counted = Rejected(lake, TODAY)
        for batch in (1, 2, 3):
            _append(lake, _rows(chance, batch, days=(0,)))
            counted = Rejected(lake, TODAY, counted)
        Rejected(lake, TODAY, counted)
    assert [len(question.inputs["rejected"].files) for question in asked] == [1, 1, 1]
