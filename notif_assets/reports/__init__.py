"""The reports, each in every format of core/formats.py.

Belongs here: which columns a report has, in what order its rows stand. Doesn't: how they are written (text.py,
plain.py, workbook.py, pdf.py), what a statement says (statement.py), and reading the lake: rows come in as Arrow, bytes
go out to a binary stream, which stays open.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import BinaryIO, Literal

import pyarrow as pa

from notif_assets.core.formats import Format, StatementFormat
from notif_assets.reports import pdf, plain, text, workbook
from notif_assets.reports import statement as statements
from notif_assets.reports.statement import Statement

_MOMENT = pa.timestamp("us", "UTC")

PANEL_SCHEMA = pa.schema(
    [
        ("billing_date", pa.date32()),
        ("customer_id", pa.int64()),
        ("customer_name", pa.string()),
        ("channel", pa.string()),
        ("notifications", pa.int64()),
        ("last_event", _MOMENT),
        ("updated_at", _MOMENT),
    ]
)
DETAILED_SCHEMA = pa.schema(
    [
        ("customer_id", pa.int64()),
        ("message_id", pa.string()),
        ("customer_name", pa.string()),
        ("channel", pa.string()),
        ("payload", pa.string()),
        ("event_datetime", _MOMENT),
    ]
)
"""The six fields of a message."""
BILLING_SCHEMA = pa.schema(
    [
        ("billing_date", pa.date32()),
        ("customer_id", pa.int64()),
        ("customer_name", pa.string()),
        ("channel", pa.string()),
        ("notifications", pa.int64()),
        ("unit_price", pa.decimal128(18, 6)),
        ("amount", pa.decimal128(18, 2)),
        ("currency", pa.string()),
        ("price_version", pa.string()),
        ("status", pa.string()),
        ("through_batch", pa.int64()),
        ("run_id", pa.string()),
        ("computed_at", _MOMENT),
        ("adjustment_id", pa.string()),
        ("reason", pa.string()),
    ]
)
"""A bill's entries: the columns of daily_billing, then those of adjustments only (null in a line)."""
INVOICE_AVERAGES_SCHEMA = pa.schema(
    [
        ("customer", pa.string()),
        ("account", pa.string()),
        ("avg_invoices_last_3_months", pa.decimal128(18, 2)),
        ("avg_invoices_last_6_months", pa.decimal128(18, 2)),
    ]
)


def write_panel(rows: pa.Table, out: BinaryIO, format: Format) -> None:
    """Rows of customer_panel. A customer without messages has one row: channel null, notifications 0."""
    rows = _sorted(_typed(rows, PANEL_SCHEMA), "billing_date", "customer_id", "channel")
    if format == "text":
        _write_text(text.panel(rows.to_pylist()), out)
    else:
        _write_plain(rows.schema, rows.to_batches(), out, format)


def write_detailed(
    batches: Iterable[pa.RecordBatch], out: BinaryIO, format: Format, names: Mapping[int, str] | None = None
) -> None:
    """Rows of notifications, sorted by customer_id, event_datetime, message_id; streamed, in every format.

    `names` has each customer's newest name, for the headings of the text; other formats keep each message's own.
    """
    rows = (batch.select(DETAILED_SCHEMA.names).cast(DETAILED_SCHEMA) for batch in batches)
    if format == "text":
        _write_text(text.detailed(rows, names or {}), out)
    else:
        _write_plain(DETAILED_SCHEMA, rows, out, format)


def write_billing(lines: pa.Table, adjustments: pa.Table, out: BinaryIO, format: Format) -> None:
    """Rows of daily_billing, and of billing_adjustments with a currency each. A customer without messages has one line:
    channel null, 0, 0.

    Formats for programs have both kinds as rows (see `billing_entries`), so that the sum of `amount`
    of a currency is what is billed.
    """
    entries = billing_entries(lines, adjustments)
    if format == "text":
        _write_text(text.billing(entries.to_pylist()), out)
    else:
        _write_plain(entries.schema, entries.to_batches(), out, format)


def billing_entries(lines: pa.Table, adjustments: pa.Table) -> pa.Table:
    """The lines and the adjustments as rows of BILLING_SCHEMA, by day, customer, currency and channel, lines first.

    An adjustment has the status `adjustment`, its deltas as notifications and amount, and created_at as computed_at.
    """
    adjustments = _sorted(adjustments, "created_at", "adjustment_id")
    as_lines = adjustments.rename_columns(
        {"notifications_delta": "notifications", "amount_delta": "amount", "created_at": "computed_at"}
    ).append_column("status", pa.array(["adjustment"] * adjustments.num_rows, pa.string()))
    entries = pa.concat_tables([_typed(lines, BILLING_SCHEMA), _typed(as_lines, BILLING_SCHEMA)])
    return _sorted(entries, "billing_date", "customer_id", "currency", "channel")


def write_invoice_averages(rows: pa.Table, out: BinaryIO, format: Format) -> None:
    """Rows of invoice_window_averages of one reference month."""
    rows = _sorted(_typed(rows, INVOICE_AVERAGES_SCHEMA), "customer", "account")
    if format == "text":
        _write_text(text.aligned(rows), out)
    else:
        _write_plain(rows.schema, rows.to_batches(), out, format)


def write_chatbot(flows: Sequence[pa.Table], out: BinaryIO, format: Format) -> None:
    """A table per flow: customer, flow, session, first_answer_dt, last_answer_dt, then the flow's own columns, texts.

    The text shows one table after another; the other formats have one header, so several flows get the columns of all.
    """
    tables = [_sorted(_typed(flow, _flow_schema(flow)), "flow", "customer", "session") for flow in flows]
    if format == "text":
        _write_text(("\n" * (number > 0) + "".join(text.aligned(table)) for number, table in enumerate(tables)), out)
    else:
        rows = pa.concat_tables(tables or [_flow_schema(pa.table({})).empty_table()], promote_options="default")
        _write_plain(rows.schema, rows.to_batches(), out, format)


def write_statement(statement: Statement, out: BinaryIO, format: StatementFormat) -> None:
    """A customer's month: its entries, and a total for each currency."""
    if format == "text":
        _write_text(statements.text(statement), out)
    elif format == "pdf":
        pdf.write_pdf(statement, out)
    else:
        rows = statements.statement_rows(statement)
        _write_plain(rows.schema, rows.to_batches(), out, format)


def _flow_schema(flow: pa.Table) -> pa.Schema:
    moments = ("first_answer_dt", "last_answer_dt")
    fixed = ("customer", "flow", "session", *moments)
    names = [*fixed, *(name for name in flow.column_names if name not in fixed)]
    return pa.schema([(name, _MOMENT if name in moments else pa.string()) for name in names])


def _typed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The schema's columns in its order and types, whatever else `rows` has; null for what only an adjustment has.

    Raises KeyError when another column is missing.
    """
    columns = [
        pa.nulls(rows.num_rows, field.type)
        if field.name in ("adjustment_id", "reason") and field.name not in rows.column_names
        else rows[field.name].cast(field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _sorted(rows: pa.Table, *keys: str) -> pa.Table:
    return rows.sort_by([(key, "ascending") for key in keys])  # stable; texts by code point, nulls last


def _write_text(pieces: Iterable[str], out: BinaryIO) -> None:
    for piece in pieces:
        out.write(piece.encode())


def _write_plain(
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    out: BinaryIO,
    format: Literal["csv", "csv-br", "xlsx", "json", "parquet"],
) -> None:
    match format:
        case "csv":
            plain.write_csv(schema, batches, out)
        case "csv-br":
            plain.write_csv(schema, batches, out, plain.CSV_BR)
        case "xlsx":
            workbook.write_xlsx(schema, batches, out)
        case "json":
            plain.write_json(schema, batches, out)
        case "parquet":
            plain.write_parquet(schema, batches, out)
