"""What the panel keeps between requests.

Belongs here: answers that are kept as long as they are right. Doesn't: the numbers themselves (test_numbers.py).
"""

from pathlib import Path

import pytest

from notif_assets.lake import Lake, bounds_of_value
from notif_assets.panel.read_only import ReadOnlyLake
from notif_assets.settings import Settings
from notif_assets_tests.streams import losses


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of a lake that nobody has written."""
    return Settings(data=tmp_path)


def _append(settings: Settings, start: int) -> None:
    with Lake(settings.lake) as lake:
        lake.table("ingest_losses").append(losses(start, batch=start))


def _starts(lake: Lake, batch: int | None = None) -> list[int]:
    scan = lake.table("ingest_losses").scan(batch=bounds_of_value(batch))
    rows: list[int] = lake.rows(scan)["start_offset"].to_pylist()
    return sorted(rows)


def test_an_answer_is_kept_until_a_commit_and_no_longer(settings: Settings) -> None:
    lake = ReadOnlyLake(settings)
    assert _starts(lake) == []
    for start in (1, 2, 3):
        _append(settings, start)
        assert _starts(lake) == list(range(1, start + 1))
        scan = lake.table("ingest_losses").scan()
        assert lake.rows(scan) is lake.rows(scan)


def test_answers_of_other_rows_and_other_questions_are_others(settings: Settings) -> None:
    lake = ReadOnlyLake(settings)
    for start in (1, 2):
        _append(settings, start)
    assert [_starts(lake, batch) for batch in (1, 2, 1, None)] == [[1], [2], [1], [1, 2]]
    minutes = lake.table("minute_aggregates").scan()
    asked = [lake.select("customer_minutes", {"minutes": minutes}, channel=channel) for channel in ("A", "B", "A")]
    assert asked[0] is asked[2] is not asked[1]
