"""Excel workbooks (.xlsx) as lines of cells, like those of a CSV file.

Belongs here: which sheet is meant, how a cell becomes text. Doesn't: CSV (rows.py), what the columns mean.

A workbook is known by its first bytes, not by its name.
"""

import re
import zipfile
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from io import BytesIO
from typing import Any, BinaryIO

from notif_assets.inbox.rows import FileRefused, Lines, RowRefused, Sheet, csv_lines, refuse_repeated

_ZIP, _OLD_EXCEL = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
_MOST_UNPACKED = 512 * 2**20
_MOST_TEXTS = 64 * 2**20  # shared texts are held in memory
_DIGITS = 15
"""Excel stores no more digits of a number."""


def sheet_of(data: bytes | BinaryIO, source_file: str, columns: Sequence[str]) -> Sheet:
    """The lines of a workbook or, if it is none, of a CSV file (`csv_lines`).

    Of a workbook the one sheet that has the columns is taken. Raises FileRefused if there is none such, or several, or
    if the file is no workbook that can be read.
    """
    stream = BytesIO(data) if isinstance(data, bytes) else data
    stream.seek(0)
    beginning = stream.read(4)
    if beginning == _OLD_EXCEL:
        raise FileRefused(f"{source_file}: an old Excel workbook (.xls): save it as .xlsx or as CSV UTF-8")
    if beginning != _ZIP:
        return csv_lines(stream, source_file, columns)
    try:
        return _sheet(stream, source_file, columns)
    except FileRefused:
        raise
    except Exception as error:  # a damaged part can make openpyxl raise any error
        raise FileRefused(
            f"{source_file}: not a CSV file in UTF-8, and no Excel workbook that can be read ({type(error).__name__}): "
            "save it as .xlsx or as CSV UTF-8"
        ) from None


def _sheet(stream: BinaryIO, source_file: str, columns: Sequence[str]) -> Sheet:
    import openpyxl  # few commands need it

    _refuse_large(stream, source_file)
    workbook = openpyxl.load_workbook(stream, read_only=True, data_only=True)
    found = []
    for sheet in workbook.worksheets:
        sheet.reset_dimensions()  # the declared size of a sheet may be wrong
        first = next(sheet.iter_rows(max_row=1), ())
        header = [str(cell.value or "").strip().lower() for cell in first]
        if all(column in header for column in columns):
            found.append((sheet, header))
    if len(found) != 1:
        many = "has several sheets" if found else "has no sheet"
        raise FileRefused(f"{source_file}: {many} whose first line names the columns {', '.join(columns)}; want one")
    sheet, header = found[0]
    refuse_repeated(header, source_file, columns)
    return Sheet(_rows(sheet, [header.index(column) for column in columns], source_file), brazilian=True)


def _refuse_large(stream: BinaryIO, source_file: str) -> None:
    with zipfile.ZipFile(stream) as parts:
        sizes = {part.filename: part.file_size for part in parts.infolist()}
    texts = sizes.get("xl/sharedStrings.xml", 0)
    if sum(sizes.values()) > _MOST_UNPACKED or texts > _MOST_TEXTS:
        raise FileRefused(f"{source_file}: a workbook that is too large to read: save it as CSV UTF-8")
    stream.seek(0)


def _rows(sheet: Any, positions: Sequence[int], source_file: str) -> Lines:
    """The rows of a sheet, without empty ones: a reader of the sheet does not see them."""
    rows: Iterator[tuple[Any, ...]] = sheet.iter_rows(min_row=2)
    number = 1
    try:
        for row in rows:
            number += 1
            if any(cell.value is not None for cell in row):
                yield number, _texts([row[position] if position < len(row) else None for position in positions])
    except Exception as error:
        raise FileRefused(
            f"{source_file}: the workbook can't be read after line {number} ({type(error).__name__})"
        ) from None


def _texts(cells: Sequence[Any]) -> list[str] | RowRefused:
    try:
        return [_text(cell) for cell in cells]
    except RowRefused as why:
        return why


def _text(cell: Any) -> str:
    value = None if cell is None else cell.value
    if value is None:
        return ""
    if cell.data_type == "e":
        raise RowRefused("empty_field", "a cell holds an error of Excel's")
    if isinstance(value, datetime) and value.time() == datetime.min.time():
        value = value.date()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value, str(cell.number_format))
    return str(value)


def _number(value: int | float, shown_as: str) -> str:
    """A number as Excel shows it to people in Brazil: what it calculates is exact to so many digits and no more."""
    if abs(value) >= 10**_DIGITS:
        raise RowRefused(
            "bad_number", f"a number of more than {_DIGITS} digits, of which Excel keeps no more: use text"
        )
    text = f"{value:.{_DIGITS}g}"
    if "e" in text:
        text = f"{value:.{_DIGITS}f}".rstrip("0")
    whole, point, decimals = text.partition(".")
    if re.fullmatch("00+", shown_as) and not point:
        return whole.zfill(len(shown_as))
    # Three decimals would look like thousands.
    return whole + (f",{decimals}{'0' * (len(decimals) == 3)}" if decimals else "")
