"""A filled lake for every test that changes one.

Belongs here: the fixtures of this room. Doesn't: what the lake holds (world.py).
"""

import shutil
from pathlib import Path

import pytest

from notif_assets_tests.maintenance.world import World


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Filled once; not to be changed."""
    world = World(tmp_path_factory.mktemp("filled"))
    world.fill()
    return world


@pytest.fixture
def world(filled: World, tmp_path: Path) -> World:
    """A copy of its own of the filled lake."""
    shutil.copytree(filled.settings.lake, tmp_path / "world" / "lake")
    copy = World(tmp_path / "world")
    copy.log.records = {p: list(records) for p, records in filled.log.records.items()}
    copy.sent = filled.sent
    return copy
