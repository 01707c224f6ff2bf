"""Superset: a database, datasets, charts and dashboards, as the files of an import.

Belongs here: what of a view becomes which property of a dataset, the one dataset that is a query, packing. Doesn't: the
texts (templates/superset), metrics, charts and dashboards too, which stand there in a file each.
"""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote

import pyarrow as pa

from notif_assets.bi_kit.templating import filled, templates_in
from notif_assets.bi_kit.views import SCHEMA, View, ViewColumn, day_of
from notif_assets.lake.catalogue import AMOUNT, DATE, LONG, TEXT

ARCHIVE = "superset.zip"
_ROOT = "notif"
_MASKED = "X" * 10  # by which an import knows that it must ask for the password
_PACKED_AT = (2020, 1, 1, 0, 0, 0)

BILLS = View(
    "bills",
    "What is owed: the lines of each day, and the adjustments that correct them.",
    (
        ViewColumn("billing_date", DATE, "the day billed"),
        ViewColumn("customer_id", LONG, "the customer"),
        ViewColumn("customer_name", TEXT, "the customer's newest name of the day"),
        ViewColumn("channel", TEXT, "the channel"),
        ViewColumn("kind", TEXT, "line (of a bill) or adjustment (of a closed day)"),
        ViewColumn("reason", TEXT, "of a line: provisional or final; of an adjustment: why"),
        ViewColumn("notifications", LONG, "messages billed"),
        ViewColumn("amount", AMOUNT, "money billed"),
        ViewColumn("currency", TEXT, "ISO 4217 code"),
    ),
)
"""Lines and adjustments in one dataset: no view has both."""


@dataclass(frozen=True)
class _Column:
    name: str
    meaning: str
    type: str
    is_moment: bool


def files(views: tuple[View, ...], server: str, database: str, user: str) -> dict[str, str]:
    """The files of the import by their paths in the archive; none has a password."""
    uri = f"postgresql+psycopg2://{quote(user, safe='')}:{_MASKED}@{server}/{quote(database, safe='')}"
    written = {
        "metadata.yaml": filled("superset/metadata.yaml"),
        "databases/notif.yaml": filled("superset/database.yaml", uri=uri),
    }
    for view in (*views, BILLS):
        written[f"datasets/notif/{view.name}.yaml"] = _dataset(view)
    for folder in ("charts", "dashboards"):
        for name in templates_in(f"superset/{folder}"):
            written[f"{folder}/{PurePosixPath(name).name}"] = filled(name)
    return {f"{_ROOT}/{path}": text for path, text in written.items()}


def packed(files: Mapping[str, str]) -> bytes:
    """The files as an archive: of the same files the same bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path, _PACKED_AT), text, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _dataset(view: View) -> str:
    metrics = f"superset/metrics/{view.name}.yaml"
    return filled(
        "superset/dataset.yaml",
        view=view,
        schema=SCHEMA,
        day=day_of(view),
        currency="currency" if view.has("currency") else None,
        sql=filled("sql/bills.sql", schema=SCHEMA) if view is BILLS else None,
        metrics=f"\n{filled(metrics)}".rstrip() if metrics in templates_in("superset/metrics") else " []",
        columns=[_column_of(column) for column in view.columns],
    )


def _column_of(column: ViewColumn) -> _Column:
    is_moment = pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)
    return _Column(column.name, column.meaning, _type_of(column.type), is_moment)


def _type_of(kind: pa.DataType) -> str:
    """The type as PostgreSQL tells it to Superset. Raises KeyError for a type that no view has."""
    if pa.types.is_decimal(kind):
        return f"NUMERIC({kind.precision}, {kind.scale})"
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP WITHOUT TIME ZONE"
    return {pa.string(): "TEXT", pa.int32(): "INTEGER", pa.int64(): "BIGINT", pa.date32(): "DATE"}[kind]
