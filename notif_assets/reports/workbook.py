"""Excel workbooks (.xlsx) of any report's columns.

Belongs here: how a value stands in a cell. Doesn't: which columns a report has and in what order (__init__.py).

A cell holds exactly the value or a text of it: numbers of more than 15 digits, moments finer than a millisecond and
dates before March 1900 are texts, because Excel would change them. Moments are in UTC. No text is a formula. Rows go
through temporary files, so memory stays flat; a sheet takes 1,048,576 rows, the next sheet the ones after.
"""

import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa

from notif_assets.reports.plain import is_text, moments, small_batches

if TYPE_CHECKING:
    from xlsxwriter.format import Format
    from xlsxwriter.worksheet import Worksheet

_SHEET_ROWS = 1_048_576
_CELL_CHARACTERS = 32_767
_CUT = "… (cut)"
_DIGITS = 15
_FIRST_DATE = date(1900, 3, 1)
_CREATED = datetime(2000, 1, 1)  # noqa: DTZ001 - always the same, so that one report is one file
_NOT_XML = re.compile("[\ufffe\uffff]")
_FORMATS = {"date": "yyyy-mm-dd", "moment": "yyyy-mm-dd hh:mm:ss.000", "amount": "#,##0.00", "price": "0.00####"}
_WIDTH = 16

_Write = Callable[["Worksheet", int, int, Any], object]


def write_xlsx(schema: pa.Schema, batches: Iterable[pa.RecordBatch], out: BinaryIO) -> None:
    """A header, which stays in view, and a row for each row."""
    import xlsxwriter  # imported here: most processes never write a workbook

    options = {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    with tempfile.TemporaryFile() as file:  # a zip is written here and there, and `out` may be a pipe
        with xlsxwriter.Workbook(file, options) as book:
            book.set_properties({"created": _CREATED})
            formats = {name: book.add_format({"num_format": form}) for name, form in _FORMATS.items()}
            writers = [_writer(field, formats) for field in schema]
            bold = book.add_format({"bold": True})
            sheet, row = _sheet(book.add_worksheet(), schema, bold), 0
            for batch in small_batches(batches):
                for cells in zip(*map(_values, batch.columns), strict=True):
                    row += 1
                    if row == _SHEET_ROWS:
                        sheet, row = _sheet(book.add_worksheet(), schema, bold), 1
                    for column_index, (write, value) in enumerate(zip(writers, cells, strict=True)):
                        if value is not None:
                            write(sheet, row, column_index, value)
        file.seek(0)
        shutil.copyfileobj(file, out)


def _sheet(sheet: "Worksheet", schema: pa.Schema, bold: "Format") -> "Worksheet":
    for column_index, name in enumerate(schema.names):
        sheet.set_column(column_index, column_index, max(_WIDTH, min(len(name), 40) + 2))
    for column_index, name in enumerate(schema.names):
        sheet.write_string(0, column_index, _text(name), bold)
    sheet.freeze_panes(1, 0)
    return sheet


def _values(column: pa.Array) -> list[Any]:
    """Python values, which Excel's are made of; a moment that it can't hold as a text."""
    if not pa.types.is_timestamp(column.type):
        values: list[Any] = column.to_pylist()
        return values
    texts = moments(column).to_pylist()
    exact = column.cast(pa.timestamp("us")).to_pylist()
    return [
        moment if moment is None or (moment.microsecond % 1000 == 0 and moment.date() >= _FIRST_DATE) else text
        for moment, text in zip(exact, texts, strict=True)
    ]


def _writer(field: pa.Field, formats: "dict[str, Format]") -> _Write:
    """What writes a value of the column."""
    if is_text(field.type):
        return lambda sheet, row, column_index, value: sheet.write_string(row, column_index, _text(str(value)))
    form = formats.get(_format_name(field.type) or "")

    def write(sheet: "Worksheet", row: int, column_index: int, value: Any) -> None:
        if isinstance(value, str) or not _fits(value):
            sheet.write_string(row, column_index, str(value))
        elif isinstance(value, date):
            sheet.write_datetime(row, column_index, value, form)
        else:
            sheet.write_number(row, column_index, value, form)

    return write


def _format_name(kind: pa.DataType) -> str | None:
    if pa.types.is_decimal(kind):
        return "amount" if kind.scale <= 2 else "price"
    return "moment" if pa.types.is_timestamp(kind) else "date" if pa.types.is_date(kind) else None


def _fits(value: int | Decimal | date) -> bool:
    """Whether Excel holds the value as it is."""
    if isinstance(value, datetime):
        return True
    if isinstance(value, date):
        return value >= _FIRST_DATE
    return len(Decimal(value).normalize().as_tuple().digits) <= _DIGITS


def _text(text: str) -> str:
    """The text as a cell holds it: a longer one is cut and says so."""
    text = _NOT_XML.sub("\ufffd", text)
    return text if _characters(text) <= _CELL_CHARACTERS else _truncate(text)


def _characters(text: str) -> int:
    """As Excel counts them: one beyond the first 65,536 of Unicode is two."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def _truncate(text: str) -> str:
    most = 2 * (_CELL_CHARACTERS - len(_CUT))
    return text.encode("utf-16-le")[:most].decode("utf-16-le", "ignore") + _CUT
