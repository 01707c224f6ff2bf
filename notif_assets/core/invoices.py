"""Invoice files: CSV bytes in, rows out.

Belongs here: which line is an invoice, and why another isn't. Doesn't: CSV itself (files.py), replacing earlier rows
of the same account and month (assets/invoices.py), averages (sql/invoice_window_averages.sql).
"""

from datetime import date
from decimal import Decimal

import pyarrow as pa

from notif_assets.core.files import ParsedFile, RowRefused, csv_lines, date_cell, decimal_cell, rejected_table, table_of
from notif_assets.core.windows import has_windows

INVOICE_COLUMNS = ("customer", "account", "month", "invoice")
INVOICES_SCHEMA = pa.schema(
    [
        ("customer", pa.string()),
        ("account", pa.string()),
        ("month", pa.date32()),
        ("invoice", pa.decimal128(18, 2)),
        ("source_file", pa.string()),
        ("source_line", pa.int32()),
    ]
)
"""month is the first day of a month; invoice may be zero or negative; source_line counts from 1, the header's line."""

# Thirteen digits before the point, though the column has room for sixteen: sums over many rows stay exact in cents
# as a 64-bit integer, which the averages are computed with.
_WHOLE_DIGITS = 13


def parse_invoices(data: bytes, source_file: str) -> ParsedFile:
    """The invoices of one file (INVOICES_SCHEMA) and the lines set aside: every line after the header is in either.

    Raises FileRefused when the file is empty, is no text, or a needed column is missing or named twice.
    """
    rows: list[tuple[str, str, date, Decimal, str, int]] = []
    rejected: list[tuple[int, RowRefused]] = []
    for line, cells in csv_lines(data, source_file, INVOICE_COLUMNS):
        try:
            if isinstance(cells, RowRefused):
                raise cells
            rows.append((*_invoice(cells), source_file, line))
        except RowRefused as why:
            rejected.append((line, why))
    return ParsedFile(table_of(rows, INVOICES_SCHEMA), rejected_table(source_file, rejected))


def _invoice(cells: list[str]) -> tuple[str, str, date, Decimal]:
    cells = [cell.strip() for cell in cells[:2]] + cells[2:]  # "A1 " is no other account than "A1"
    for column, cell in zip(INVOICE_COLUMNS, cells, strict=True):
        if not cell:
            raise RowRefused("empty_field", f"{column} is empty")
    customer, account, month_cell, invoice = cells
    month = date_cell(month_cell)
    if month is None or month.day != 1:
        raise RowRefused("bad_month", "month: want the first day of a month as YYYY-MM-01")
    if not has_windows(month):
        raise RowRefused("bad_month", "month: its windows have no date, at the end of the calendar")
    return customer, account, month, decimal_cell(invoice, "invoice", decimals=2, whole_digits=_WHOLE_DIGITS)
