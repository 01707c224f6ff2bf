"""Power BI: a connection file, and a project with a semantic model in TMDL.

Belongs here: what of a view becomes which property of the model: types, formats, relations, refresh policies. Doesn't:
the texts (templates/power_bi/), measures too, which stand there in a file for each view that has some.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import PurePosixPath
from typing import Literal

import pyarrow as pa

from notif_assets.bi_kit.templating import filled, templates_in
from notif_assets.bi_kit.views import SCHEMA, View, ViewColumn, day_of
from notif_assets.core.days import FIRST_DAY

_PROJECT = "power_bi/project/"
_TABLES = "power_bi/notif.SemanticModel/definition/tables"
_MOST_FIXED_DECIMALS = 4  # what Power BI's decimal type has; it would round a unit price


@dataclass(frozen=True)
class Refresh:
    """Which rows the service keeps, and which days it reads anew each time, by a column that says when a row is from.

    A row that changes later than `days_anew` after that is seen by a full refresh only.
    """

    column: str
    of: Literal["date", "moment"]
    kept: int
    kept_unit: Literal["month", "year"]
    days_anew: int

    def bound(self, parameter: str) -> str:
        """RangeStart or RangeEnd in the type of the column."""
        return f"Date.From({parameter})" if self.of == "date" else parameter


# Adjustments only ever come, on whatever day they correct: by when they came, nothing is missed.
_REFRESHED = {
    "minute_aggregates": Refresh("minute_utc", "moment", kept=3, kept_unit="month", days_anew=3),
    "daily_billing": Refresh("billing_date", "date", kept=5, kept_unit="year", days_anew=10),
    "billing_adjustments": Refresh("created_at_utc", "moment", kept=5, kept_unit="year", days_anew=3),
}

_KEYS = {"customer_id": "customers", "channel": "channels", "currency": "currencies"}
"""Columns that several views share, and the table that has each of their values once."""

_TECHNICAL = {"batch", "run_id", "through_batch"}


@dataclass(frozen=True)
class Relation:
    """From a view's column to the key of the table that has each of its values once."""

    table: str
    column: str
    to_table: str
    to_column: str


@dataclass(frozen=True)
class _Column:
    name: str
    meaning: str
    type: str
    format: str | None
    hidden: bool


def files(views: tuple[View, ...], server: str, database: str, today: date) -> dict[str, str]:
    """The files for Power BI by their paths in the kit."""
    first, end = _two_months(today)
    values = {
        "server": server,
        "database": database,
        "schema": SCHEMA,
        "first": first,
        "end": end,
        "first_day": FIRST_DAY,
        "relations": [relation for view in views for relation in relations_of(view)],
        "tables": [*(PurePosixPath(name).stem for name in templates_in("power_bi/tables")), *(v.name for v in views)],
    }
    written = {"notif.pbids": filled("power_bi/notif.pbids", **values)}
    for name in templates_in("power_bi/project"):
        written[f"power_bi/{name.removeprefix(_PROJECT)}"] = filled(name, **values)
    for name in templates_in("power_bi/tables"):
        written[f"{_TABLES}/{PurePosixPath(name).name}"] = filled(name, **values)
    return written | {f"{_TABLES}/{view.name}.tmdl": _table_of(view) for view in views}


def relations_of(view: View) -> Iterator[Relation]:
    """A view's relations: by the keys that views share, and by the first of its days."""
    for column in view.columns:
        if column.name in _KEYS:
            yield Relation(view.name, column.name, _KEYS[column.name], column.name)
    if (day := day_of(view)) is not None:
        yield Relation(view.name, day, "days", "date")


def _table_of(view: View) -> str:
    related = {relation.column for relation in relations_of(view)}
    columns = [_column_of(column, column.name in related | _TECHNICAL) for column in view.columns]
    refresh = _REFRESHED.get(view.name)
    source = filled("power_bi/source.m", view=view, schema=SCHEMA, refresh=refresh)
    return filled(
        "power_bi/view.tmdl", view=view, columns=columns, refresh=refresh, source=source, measures=_measures(view)
    )


def _measures(view: View) -> str:
    name = f"power_bi/measures/{view.name}.tmdl"
    return filled(name) if name in templates_in("power_bi/measures") else ""


def _column_of(column: ViewColumn, hidden: bool) -> _Column:
    kind, format = _type_of(column.type)
    return _Column(column.name, column.meaning, kind, None if column.name.endswith("_id") else format, hidden)


def _type_of(kind: pa.DataType) -> tuple[str, str | None]:
    """The model's type and how its values are shown. Raises KeyError for a type that no view has."""
    if pa.types.is_decimal(kind):
        fixed = kind.scale <= _MOST_FIXED_DECIMALS
        return ("decimal", "#,0.00") if fixed else ("double", f"#,0.00{'#' * (kind.scale - 2)}")
    if pa.types.is_date(kind):
        return "dateTime", "Short Date"
    if pa.types.is_timestamp(kind):
        return "dateTime", "General Date"
    return {pa.string(): ("string", None), pa.int32(): ("int64", "0"), pa.int64(): ("int64", "#,0")}[kind]


def _two_months(today: date) -> tuple[date, date]:
    """From the first day of the month before to the first day of the next one."""
    month = today.replace(day=1)
    return (month - timedelta(days=1)).replace(day=1), (month + timedelta(days=31)).replace(day=1)
