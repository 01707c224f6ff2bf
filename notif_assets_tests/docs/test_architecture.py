"""docs/architecture.md draws the code that there is.

Belongs here: its two diagrams and its tables, held to the catalogue, the asset graph, the imports, the sensors and the
schedules. Doesn't: which imports are allowed (the contracts of import-linter in pyproject.toml).
"""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import dagster as dg
import grimp
import pytest
from pydantic import SecretStr

from notif_assets.definitions import build_definitions
from notif_assets.lake.catalogue import SCHEMAS
from notif_assets.settings import Settings
from notif_assets_tests.docs.pointers import ROOT

TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
TABLES, ROOMS = re.findall(r"^```mermaid\n(.*?)^```", TEXT, re.M | re.S)
PACKAGE = ROOT / "notif_assets"

_NODE = r"(\w+)(?:\[\(?\"?([^\"\])]+)\"?\)?\]|\(\[[^\]]*\]\))?"
_ARROW = re.compile(rf"{_NODE} -->(?:\|[^|]*\|)? {_NODE}")


def _labels(diagram: str) -> dict[str, str]:
    """What each node of a diagram is called; one without a label is called as it is."""
    labels: dict[str, str] = {}
    for source, source_label, target, target_label in _ARROW.findall(diagram):
        for node, label in ((source, source_label), (target, target_label)):
            if label or node not in labels:
                labels[node] = label or node
    return labels


def _arrows(diagram: str) -> Iterator[tuple[str, str]]:
    for source, _, target, _ in _ARROW.findall(diagram):
        yield source, target


def test_every_table_is_drawn() -> None:
    assert set(SCHEMAS) - set(_labels(TABLES).values()) == set()


def test_every_arrow_between_tables_is_one_of_the_asset_graph() -> None:
    graph = json.loads((ROOT / "notif_assets_tests" / "defs" / "asset_graph.json").read_text())
    labels = _labels(TABLES)
    drawn = {(labels[source], labels[target]) for source, target in _arrows(TABLES)}
    drawn = {(source, target) for source, target in drawn if {source, target} <= set(SCHEMAS)}
    assert drawn >= {("raw_notifications", "notifications"), ("prices", "daily_billing")}
    assert [(source, target) for source, target in sorted(drawn) if source not in graph[target]["deps"]] == []


def _room(module: str) -> str:
    """The folder, or the module at the top, that a module is in."""
    return module.split(".")[1]


@cache
def _boxes() -> dict[str, str]:
    """The box of the diagram that each room is in."""
    return {room: box for box, rooms in _labels(ROOMS).items() for room in rooms.split(", ")}


def test_every_room_is_drawn_and_in_the_table() -> None:
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" and not path.name.startswith("_")}
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert set(_boxes()) == there | folders
    told = set(re.findall(r"`notif_assets/(\w+)(?:/|\.py)`", TEXT.partition("| room | holds |")[2]))
    assert told == there | folders


def test_every_import_goes_along_the_arrows() -> None:
    reached = {box: {box} for box in _boxes().values()}
    for _ in reached:
        for source, target in _arrows(ROOMS):
            reached[source] |= reached[target]
    graph = grimp.build_graph("notif_assets", cache_dir=None)
    against = [
        f"{module} imports {imported}"
        for module in sorted(graph.modules)
        if module.count(".") and not _room(module).startswith("_")
        for imported in sorted(graph.find_modules_directly_imported_by(module))
        if imported.count(".") and _boxes()[_room(imported)] not in reached[_boxes()[_room(module)]]
    ]
    assert against == []


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    folder: Path = tmp_path_factory.mktemp("data")
    return build_definitions(Settings(data=folder, serving_url=SecretStr("postgresql://localhost")))


def _rows(header: str) -> dict[str, str]:
    """The second cell of each row of a table, by the names in its first one."""
    table = TEXT.partition(f"| {header} |")[2].partition("\n\n")[0]
    cells = [line.split(" | ") for line in table.splitlines()[2:]]
    return {name: row[1] for row in cells for name in re.findall(r"`(\w+)`", row[0])}


def test_every_sensor_is_told_with_how_often_it_looks(definitions: dg.Definitions) -> None:
    sensors = {sensor.name: f"{sensor.minimum_interval_seconds} s" for sensor in definitions.sensors or ()}
    assert _rows("sensor") == sensors


def test_every_schedule_is_told(definitions: dg.Definitions) -> None:
    schedules = {schedule.name for schedule in definitions.schedules or ()}
    assert set(_rows("schedule")) == schedules
