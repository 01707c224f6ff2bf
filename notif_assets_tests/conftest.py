"""Fixtures that every test may use."""

from pathlib import Path

import pytest

from notif_assets.lake import Lake


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake."""
    return Lake(tmp_path / "lake")
