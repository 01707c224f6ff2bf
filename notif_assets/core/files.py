"""What all dropped files share: good rows and set-aside rows, the reasons, and the lines of a CSV file.

Belongs here: what is the same for invoices, answers and price lists. Doesn't: what their columns mean (invoices.py,
answers.py, price_list.py), opening a file, and where rows go (assets/).

No message made here holds a value of a file: they are shown in logs and run metadata.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Literal

import pyarrow as pa

REJECTED_SCHEMA = pa.schema(
    [("source_file", pa.string()), ("source_line", pa.int32()), ("reason", pa.string()), ("detail", pa.string())]
)
"""Rows set aside. source_line counts physical lines from 1; detail says what was wanted and holds no value."""

Reason = Literal[
    "not_utf8",
    "blank_line",
    "stray_quote",
    "missing_cell",
    "extra_cell",
    "empty_field",
    "bad_month",
    "bad_date",
    "bad_number",
    "bad_currency",
    "bad_channel",
    "not_an_object",
    "missing_field",
    "wrong_type",
    "bad_timestamp",
    "too_late",
    "value_not_text",
]


class FileRefused(ValueError):  # noqa: N818
    """The file as a whole can't be taken; nothing of it was. The text names the file and what is missing."""


class RowRefused(ValueError):  # noqa: N818
    """One row or record can't be taken; its neighbours can."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail


@dataclass(frozen=True)
class ParsedFile:
    """A file's good rows, in file order, and what was set aside (REJECTED_SCHEMA), by line."""

    rows: pa.Table
    rejected: pa.Table


def table_of(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    """Tuples in the order of the schema's columns, as a table."""
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.table(arrays, schema=schema)


def rejected_table(source_file: str, rejected: Sequence[tuple[int, RowRefused]]) -> pa.Table:
    """(source_line, why) pairs as a table of REJECTED_SCHEMA."""
    return table_of([(source_file, line, why.reason, why.detail) for line, why in rejected], REJECTED_SCHEMA)


_BOM = b"\xef\xbb\xbf"
_CELL = re.compile(r'(?:"([^"]*(?:""[^"]*)*)"|([^",]*))(,|\Z)')


def csv_lines(data: bytes, source_file: str, columns: Sequence[str]) -> Iterator[tuple[int, list[str] | RowRefused]]:
    """Each line after the header as (line number, its cells in the order of `columns`, or why it can't be taken).

    The header names at least `columns`, in any order; other columns are ignored. UTF-8, with or without a BOM; LF or
    CRLF. RFC 4180, but a cell can't hold a line break: one line is one row, so that a stray quote costs its own line
    and never swallows the next ones.

    Raises FileRefused when there is no such header, or the file is empty or no text at all.
    """
    if b"\0" in data:
        raise FileRefused(f"{source_file}: not a CSV file in UTF-8 (it holds NUL bytes)")
    lines = data.removeprefix(_BOM).split(b"\n")
    if not lines[-1]:  # what follows the last line break is no line
        lines.pop()
    if not lines or not data.removeprefix(_BOM).strip():
        raise FileRefused(f"{source_file}: empty; want a header line {','.join(columns)}")

    try:
        header = [cell.strip() for cell in _cells(lines[0])]
    except RowRefused as why:
        raise FileRefused(f"{source_file}:1: the header can't be read: {why.detail}") from None
    missing = [column for column in columns if column not in header]
    if missing:
        raise FileRefused(
            f"{source_file}: its first line must name the columns, comma separated; missing: {', '.join(missing)}"
        )
    repeated = [column for column in columns if header.count(column) > 1]
    if repeated:
        raise FileRefused(f"{source_file}: its first line names a column more than once: {', '.join(repeated)}")

    places = [header.index(column) for column in columns]
    for number, line in enumerate(lines[1:], start=2):
        try:
            cells = _cells(line)
            if len(cells) != len(header):
                reason: Reason = "missing_cell" if len(cells) < len(header) else "extra_cell"
                raise RowRefused(reason, f"{len(cells)} cells where the header has {len(header)}")
            yield number, [cells[place] for place in places]
        except RowRefused as why:
            yield number, why


def _cells(line: bytes) -> list[str]:
    try:
        text = line.removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        raise RowRefused("not_utf8", "the line isn't UTF-8") from None
    if not text.strip():
        raise RowRefused("blank_line", "the line is blank")
    if '"' not in text:
        return text.split(",")
    cells, at, comma = [], 0, ","
    while comma:
        match = _CELL.match(text, at)
        if not match:
            raise RowRefused("stray_quote", "a quote that doesn't enclose a whole cell, or is never closed")
        quoted, plain, comma = match.groups()
        cells.append(plain if quoted is None else quoted.replace('""', '"'))
        at = match.end()
    return cells


def decimal_cell(cell: str, column: str, decimals: int, whole_digits: int) -> Decimal:
    """A plain decimal like -1234.50 with at most `decimals` decimals and `whole_digits` digits before the point.

    Raises RowRefused(bad_number). An exponent, a plus sign, thousands separators, NaN or a bare point aren't plain.
    """
    match = re.fullmatch(r"-?[0-9]+(?:\.([0-9]+))?", cell)
    if not match:
        raise RowRefused("bad_number", f"{column}: want a plain decimal like -1234.50")
    if len(match[1] or "") > decimals:
        raise RowRefused("bad_number", f"{column}: more than {decimals} decimals")
    value = Decimal(cell)
    if abs(value) >= 10**whole_digits:
        raise RowRefused("bad_number", f"{column}: too large, more than {whole_digits} digits before the point")
    return value


def date_cell(cell: str) -> date | None:
    """The day that `cell` writes as YYYY-MM-DD, None if it writes none (fromisoformat takes 20200101 too)."""
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", cell):
        return None
    try:
        return date.fromisoformat(cell)
    except ValueError:
        return None
