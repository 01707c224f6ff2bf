"""The views of schema `bi`, as the tools of the kit see them.

Belongs here: which of their columns is the day of a row. Doesn't: which views there are, their columns and how they are
made: the serving copy says that of them (serving/layout.py).
"""

from dataclasses import dataclass

import pyarrow as pa

from notif_assets.lake.catalogue import SCHEMAS
from notif_assets.serving.layout import FRESHNESS, FRESHNESS_MEANING, served, view_columns

SCHEMA = "bi"


@dataclass(frozen=True)
class ViewColumn:
    """One column: `meaning` is what the tools show beside its name."""

    name: str
    type: pa.DataType
    meaning: str


@dataclass(frozen=True)
class View:
    """One view."""

    name: str
    meaning: str
    columns: tuple[ViewColumn, ...]

    def has(self, name: str) -> bool:
        """Whether it has a column of that name."""
        return any(column.name == name for column in self.columns)


def views(zone: str, *, with_chatbot: bool) -> tuple[View, ...]:
    """Every view that people read; `zone` is the billing time zone."""
    meanings = {name: SCHEMAS[name].meaning for name in served(with_chatbot=with_chatbot)} | {
        FRESHNESS: FRESHNESS_MEANING
    }
    return tuple(
        View(name, meaning, tuple(ViewColumn(*column) for column in view_columns(name, zone)))
        for name, meaning in meanings.items()
    )


def day_of(view: View) -> str | None:
    """The day that a row is of; none of a price, which holds for many."""
    if view.name == "prices":
        return None
    return next((column.name for column in view.columns if pa.types.is_date(column.type)), None)
