"""What the UI shows of every table, from the catalogue in lake/catalogue.py.

Belongs here: turning a table's schema into an asset's description and metadata. Doesn't: the schemas themselves, and
numbers of a single run, but for how many rows a table has.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import dagster as dg
import pyarrow as pa

from notif_assets.lake import SCHEMAS, Lake

OWNERS = ["team:data-engineering"]
_WRITTEN_AS_GIVEN = frozenset({"ingest_batches", "ingest_losses", "prices"})
"""Books that no SQL computes."""

_LINEAGE: Mapping[str, Mapping[str, tuple[tuple[str, str], ...]]] = {
    "minute_aggregates": {
        "batch": (("notifications", "batch"),),
        "customer_id": (("notifications", "customer_id"),),
        "customer_name": (("notifications", "customer_name"), ("notifications", "event_datetime")),
        "channel": (("notifications", "channel"),),
        "minute": (("notifications", "event_datetime"),),
        "notifications": (("notifications", "message_id"),),
        "first_event": (("notifications", "event_datetime"),),
        "last_event": (("notifications", "event_datetime"),),
    },
    "daily_billing": {
        "customer_id": (("minute_aggregates", "customer_id"),),
        "customer_name": (("minute_aggregates", "customer_name"),),
        "channel": (("minute_aggregates", "channel"),),
        "notifications": (("minute_aggregates", "notifications"), ("minute_aggregates", "minute")),
        "unit_price": (("prices", "unit_price"),),
        "amount": (("minute_aggregates", "notifications"), ("prices", "unit_price")),
        "currency": (("prices", "currency"),),
        "price_version": (("prices", "price_version"),),
    },
}
"""From a minute to a bill: each column, and the columns of other tables that decide its value."""


class Described(TypedDict):
    """What `described` gives."""

    group_name: str
    description: str
    kinds: set[str]
    owners: Sequence[str]
    metadata: Mapping[str, Any]


def described(name: str) -> Described:
    """The arguments of `@dg.asset` and `dg.AssetSpec` that say what a table of the catalogue is."""
    as_given = SCHEMAS[name].origin == "received" or name in _WRITTEN_AS_GIVEN
    return {
        "group_name": SCHEMAS[name].group,
        "description": SCHEMAS[name].meaning,
        "kinds": {
            "deltalake",
            "python" if as_given else "duckdb",
        },
        "owners": OWNERS,
        "metadata": asset_metadata(name),
    }


def asset_metadata(name: str) -> dict[str, Any]:
    """Dagster's standard metadata of a table: its name and its columns with what they mean."""
    columns = [
        dg.TableColumn(
            column.name, _delta_type(column.type), column.meaning, dg.TableColumnConstraints(nullable=column.nullable)
        )
        for column in SCHEMAS[name].columns
    ]
    return {"dagster/table_name": name, "dagster/column_schema": dg.TableSchema(columns=columns)}


def _delta_type(kind: pa.DataType) -> str:
    if pa.types.is_decimal(kind):
        return f"decimal({kind.precision},{kind.scale})"
    names = {pa.int32(): "integer", pa.int64(): "bigint", pa.date32(): "date", pa.timestamp("us", "UTC"): "timestamp"}
    return names.get(kind, str(kind).replace(", ", ","))


def row_count(lake: Lake, name: str) -> int:
    """How many rows the table has, from the Delta log."""
    files = lake.table(name).files()
    return sum(files["num_records"].to_pylist()) if files.num_rows else 0


def column_lineage(name: str) -> dict[str, dg.TableColumnLineage]:
    """Dagster's standard metadata of a materialization that says which columns each column comes from."""
    deps = {
        column: [dg.TableColumnDep(asset_key=table, column_name=source) for table, source in sources]
        for column, sources in _LINEAGE[name].items()
    }
    return {"dagster/column_lineage": dg.TableColumnLineage(deps_by_column=deps)}
