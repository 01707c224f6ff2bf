"""What the copy must hold: the rows of the lake, told by plain Python.

Belongs here: both sides as lists of tuples, compared. Doesn't: which lakes, and what happens to them (the tests).
"""

import json
from collections import Counter
from typing import Any

from deltalake import DeltaTable

from notif_assets.lake import SCHEMAS
from notif_assets.settings import Settings
from notif_assets_tests.postgres import ask

NAMES = (
    "customer_panel",
    "minute_aggregates",
    "daily_billing",
    "billing_days",
    "billing_adjustments",
    "prices",
    "invoices",
    "invoice_window_averages",
    "chatbot_reports",
)


def assert_equal(url: str, settings: Settings, *, newest: bool = True) -> dict[str, int]:
    """Each table of the copy has the rows of the lake at its watermark, which is the newest version unless told
    otherwise; gives how many rows each has."""
    counts = {}
    for name, version in ask(url, "select table_name, version from serving.watermarks"):
        path = settings.lake / name
        if newest:
            there = DeltaTable(path).version() if (path / "_delta_log").exists() else -1
            assert version == there, name
        wanted, found = lake_rows(settings, name, version), copied_rows(url, name)
        assert found - wanted == Counter(), (name, "too much")
        assert wanted - found == Counter(), (name, "missing")
        counts[name] = found.total()
    return counts


def lake_rows(settings: Settings, name: str, version: int) -> Counter[Any]:
    if version < 0:
        return Counter()
    names = SCHEMAS[name].arrow.names
    table = DeltaTable(settings.lake / name, version=version).to_pyarrow_table()
    return Counter(tuple(_plain(row.get(column)) for column in names) for row in table.to_pylist())


def copied_rows(url: str, name: str) -> Counter[Any]:
    columns = ", ".join(
        f"(select (shared ->> '{column.name}')::timestamptz from serving.watermarks where table_name = '{name}')"
        if column.shared
        else f'"{column.name}"'
        for column in SCHEMAS[name].columns
    )
    rows = ask(url, f"select {columns} from serving.{name}")
    return Counter(tuple(_plain(value) for value in row) for row in rows)


def _plain(value: Any) -> Any:
    """PostgreSQL has no character of code 0, and JSON for a map."""
    if isinstance(value, list | dict):
        return json.dumps({_plain(key): _plain(answer) for key, answer in dict(value).items()}, sort_keys=True)
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value
