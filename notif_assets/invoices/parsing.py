"""Invoice files: bytes of a CSV file or a workbook in, rows out.

Belongs here: which line is an invoice, and why a line is rejected. Doesn't: CSV itself (inbox/rows.py), workbooks
(inbox/workbooks.py), replacing earlier rows of the same account and month (averages.py), averages
(sql/invoice_window_averages.sql).
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from decimal import Decimal
from itertools import islice
from typing import BinaryIO

import pyarrow as pa

from notif_assets.core.windows import has_windows
from notif_assets.inbox.rows import (
    REJECTED_SCHEMA,
    FileRefused,
    ParsedFile,
    RowRefused,
    decimal_cell,
    month_cell,
    rejected_table,
    table_of,
)
from notif_assets.inbox.workbooks import sheet_of

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


GAPS_SCHEMA = pa.schema([(name, INVOICES_SCHEMA.field(name).type) for name in ("customer", "account", "month")])
"""The accounts and months of set-aside lines: the other lines of these months are incomplete."""

_PIECE_ROWS = 20_000
_MOST_REJECTED = 100_000
"""The most rejected lines of one file: a file with more is not a file of invoices."""


def parse_invoices(data: bytes | BinaryIO, source_file: str) -> ParsedFile:
    """The invoices of one file (INVOICES_SCHEMA) and the lines set aside: every line after the header is in either.

    The gaps (GAPS_SCHEMA) are of the lines set aside whose account and month can be told.

    Raises FileRefused when the file is empty, is no text, or a needed column is missing or named twice.
    """
    pieces = [ParsedFile(*(schema.empty_table() for schema in (INVOICES_SCHEMA, REJECTED_SCHEMA, GAPS_SCHEMA)))]
    pieces += invoice_pieces(data, source_file)
    rows, rejected, gaps = (
        pa.concat_tables(getattr(piece, part) for piece in pieces) for part in ("rows", "rejected", "gaps")
    )
    return ParsedFile(rows, rejected, gaps)


def invoice_pieces(data: bytes | BinaryIO, source_file: str) -> Iterator[ParsedFile]:
    """As parse_invoices, in pieces of bounded memory. Also refuses a file with very many bad lines."""
    sheet = sheet_of(data, source_file, INVOICE_COLUMNS)
    set_aside = 0
    while lines := list(islice(sheet, _PIECE_ROWS)):
        piece = _piece(lines, source_file, sheet.brazilian)
        set_aside += piece.rejected.num_rows
        if set_aside > _MOST_REJECTED:
            first = piece.rejected.to_pylist()[0]
            raise FileRefused(
                f"{source_file}: more than {_MOST_REJECTED:,} lines can't be taken, "
                f"line {first['source_line']} for one: {first['reason']}: {first['detail']}"
            )
        yield piece


def _piece(lines: Iterable[tuple[int, list[str] | RowRefused]], source_file: str, brazilian: bool) -> ParsedFile:
    rows: list[tuple[str, str, date, Decimal, str, int]] = []
    rejected: list[tuple[int, RowRefused]] = []
    gaps: list[tuple[str, str, date]] = []
    for line, cells in lines:
        try:
            if isinstance(cells, RowRefused):
                raise cells
            rows.append((*_invoice(cells, brazilian), source_file, line))
        except RowRefused as why:
            rejected.append((line, why))
            gaps += _gap(why.cells if isinstance(cells, RowRefused) else cells, brazilian)
    return ParsedFile(
        table_of(rows, INVOICES_SCHEMA), rejected_table(source_file, rejected), table_of(gaps, GAPS_SCHEMA)
    )


def _gap(cells: Sequence[str], brazilian: bool) -> list[tuple[str, str, date]]:
    """The account and month of a set-aside line, if they can be read."""
    if not cells:
        return []
    customer, account, month = (cell.strip() for cell in cells[:3])
    day = month_cell(month, brazilian)
    return [(customer, account, day)] if customer and account and day and has_windows(day) else []


def _invoice(cells: list[str], brazilian: bool) -> tuple[str, str, date, Decimal]:
    cells = [cell.strip() for cell in cells[:2]] + cells[2:]  # "A1 " is the same account as "A1"
    for column, cell in zip(INVOICE_COLUMNS, cells, strict=True):
        if not cell:
            raise RowRefused("empty_field", f"{column} is empty")
    customer, account, written, amount = cells
    month = month_cell(written, brazilian)
    if month is None:
        raise RowRefused("bad_month", "month: want the first day of a month as YYYY-MM-01, or MM/YYYY")
    if not has_windows(month):
        raise RowRefused("bad_month", "month: its windows have no date, at the end of the calendar")
    return customer, account, month, decimal_cell(amount, "invoice", 2, _WHOLE_DIGITS, brazilian)
