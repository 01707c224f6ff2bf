"""What all dropped files share: good rows and set-aside rows, the reasons, and the lines of a CSV file.

Belongs here: what is the same for invoices, answers and price lists. Doesn't: what their columns mean
(invoices/parsing.py, chatbot/parsing.py, billing/price_list.py), opening a file, and where rows go (defs/assets/).

No message made here holds a value of a file: logs and run metadata show the messages.
"""

import codecs
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from io import BytesIO
from typing import Any, BinaryIO, Final, Literal

import pyarrow as pa

from notif_assets.errors import Refusal

REJECTED_SCHEMA = pa.schema(
    [("source_file", pa.string()), ("source_line", pa.int32()), ("reason", pa.string()), ("detail", pa.string())]
)
"""Rows set aside. source_line counts physical lines from 1; detail says what was expected and holds no value."""

Reason = Literal[
    "file_refused",
    "not_utf8",
    "blank_line",
    "line_too_long",
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

MEANINGS: Final[dict[Reason, str]] = {
    "file_refused": "the file of the inbox as a whole was refused; nothing of it was taken",
    "not_utf8": "the line is not UTF-8",
    "blank_line": "the line is blank",
    "line_too_long": "the line is longer than 1 MiB",
    "stray_quote": "a quote does not enclose a whole cell, or is never closed",
    "missing_cell": "the line has fewer cells than the header",
    "extra_cell": "the line has more cells than the header",
    "empty_field": "a cell or a field that must say something is empty",
    "bad_month": "the month is not written as YYYY-MM-01, MM/YYYY or 01/MM/YYYY, or lies at the end of the calendar",
    "bad_date": "a date is not written as YYYY-MM-DD, or valid_from is not before valid_to",
    "bad_number": "a number is not a plain decimal, has too many digits, or can be read in two ways (`1.234`)",
    "bad_currency": "the currency is not a code of three capitals, like BRL",
    "bad_channel": "a channel in double quotes is not a JSON string",
    "not_an_object": "the record is not a JSON object",
    "missing_field": "the record lacks a field",
    "wrong_type": "a field of the record has the wrong type",
    "bad_timestamp": "the timestamp is not ISO 8601 with an offset",
    "too_late": "the timestamp lies more than a day after the hour of the file",
    "value_not_text": "an answer is not text, or holds half a surrogate pair; the record's other answers are imported",
}


class FileRefused(Refusal, ValueError):
    """The whole file is refused; none of its rows is imported. The text names the file and what is missing."""


class RowRefused(ValueError):
    """One row or record is refused; its neighbours are not."""

    def __init__(self, reason: Reason, detail: str, cells: list[str] | None = None) -> None:
        """`cells`: the probable cells, in the order of the columns asked for; None: they are unknown."""
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail
        self.cells = cells or []


@dataclass(frozen=True)
class ParsedFile:
    """A file's good rows, in file order, and what was set aside (REJECTED_SCHEMA), by line.

    `gaps` has the keys of the set-aside rows, where known, so that a result computed from the other rows is marked
    incomplete. Its columns are the key columns of the rows.
    """

    rows: pa.Table
    rejected: pa.Table
    gaps: pa.Table


def table_of(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    """Tuples in the order of the schema's columns, as a table."""
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.table(arrays, schema=schema)


def rejected_table(source_file: str, rejected: Sequence[tuple[int, RowRefused]]) -> pa.Table:
    """(source_line, why) pairs as a table of REJECTED_SCHEMA."""
    return table_of([(source_file, line, why.reason, why.detail) for line, why in rejected], REJECTED_SCHEMA)


_BOM = b"\xef\xbb\xbf"
_CELLS = {
    separator: re.compile(rf'(?:"([^"]*(?:""[^"]*)*)"|([^"{separator}]*))({separator}|\Z)') for separator in (",", ";")
}
_SEPARATOR_LINE = re.compile(rb"sep=([,;])\r?\n?")  # what Excel writes and reads before the header
_LONGEST_LINE = 2**20
_CHUNK = 2**20
_ASCII = bytes(range(128))
_TEXT_OF_UTF_8 = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}")
# The letters of Portuguese in Windows-1252. A file with another byte may use another code page, in which these bytes
# are other letters, so its encoding is not guessed.
_LETTERS = frozenset("ÀÁÂÃÇÉÊÍÓÔÕÚÜàáâãçéêíóôõúüªº".encode("cp1252"))

Lines = Iterator[tuple[int, list[str] | RowRefused]]


@dataclass(frozen=True)
class Sheet:
    """The lines after a header, each with its number and its cells in the order of the columns asked for, or why it
    can't be taken. In a `brazilian` one numbers may have a decimal comma and dates are day, month, year."""

    lines: Lines
    brazilian: bool

    def __iter__(self) -> Lines:
        return self.lines


def csv_lines(data: bytes | BinaryIO, source_file: str, columns: Sequence[str]) -> Sheet:
    """The lines of a CSV file after its header.

    The header names at least `columns`, in any order and case; other columns are ignored. Separated by commas: UTF-8,
    with or without a BOM. Separated by semicolons, as Excel writes it in Brazil: Windows-1252 too, if nothing in it can
    be anything else; lines of separators alone are none. LF or CRLF. RFC 4180, but a cell can't hold a line break: one
    line is one row, so that a stray quote costs its own line and never swallows the next ones. Memory holds a line.

    Raises FileRefused when there is no such header, or the file is empty or no text at all.
    """
    stream = BytesIO(data) if isinstance(data, bytes) else data
    facts = _FileFacts.of(stream)
    if facts.has_nul:
        raise FileRefused(
            f'{source_file}: not a CSV file in UTF-8 (it holds NUL bytes, as Excel\'s "Unicode text" does): save it as '
            "CSV UTF-8"
        )
    if facts.is_blank:
        raise FileRefused(f"{source_file}: empty; want a header line {','.join(columns)}")
    stream.seek(len(_BOM) if facts.has_bom else 0)
    number, line = 1, stream.readline(_LONGEST_LINE)
    separator_line = _SEPARATOR_LINE.fullmatch(line)
    if separator_line:
        number, line = 2, stream.readline(_LONGEST_LINE)
    separators = separator_line[1].decode() if separator_line else ",;"
    separator, header = _header(line, number, source_file, columns, separators)
    encoding = "cp1252" if separator == ";" and facts.is_windows else "utf-8"
    positions = [header.index(column) for column in columns]
    return Sheet(_lines(stream, number, separator, encoding, len(header), positions), separator == ";")


@dataclass(frozen=True)
class _FileFacts:
    """What one pass over all bytes of a file finds."""

    has_bom: bool
    has_nul: bool
    is_blank: bool
    is_windows: bool

    @classmethod
    def of(cls, stream: BinaryIO) -> "_FileFacts":
        stream.seek(0)
        decoder = codecs.getincrementaldecoder("utf-8")()
        beginning, has_nul, is_blank, is_utf_8, has_utf_8 = b"", False, True, True, False
        others: set[int] = set()
        tail = b""
        while chunk := stream.read(_CHUNK):
            beginning = beginning or chunk[: len(_BOM)]
            has_nul |= b"\0" in chunk
            is_blank &= not chunk.removeprefix(_BOM).strip()
            others.update(chunk.translate(None, _ASCII))
            has_utf_8 |= _TEXT_OF_UTF_8.search(tail + chunk) is not None
            tail = chunk[-2:]
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError:
                is_utf_8 = False
                decoder.reset()
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            is_utf_8 = False
        is_windows = not is_utf_8 and not has_utf_8 and others <= _LETTERS
        return cls(beginning == _BOM, has_nul, is_blank, is_windows)


def _header(
    line: bytes, number: int, source_file: str, columns: Sequence[str], separators: str
) -> tuple[str, list[str]]:
    """The first separator that yields all columns, and the header's names in lower case."""
    found: dict[str, list[str]] = {}
    why = None
    for separator in separators:
        try:
            found[separator] = [
                cell.strip().lower() for cell in _cells(line, separator, _decode_header(line, separator))
            ]
        except RowRefused as refused:
            why = why or refused
    if not found and why:
        raise FileRefused(f"{source_file}:{number}: the header can't be read: {why.detail}")
    missing = {separator: [c for c in columns if c not in header] for separator, header in found.items()}
    separator = min(missing, key=lambda separator: len(missing[separator]))
    if missing[separator]:
        raise FileRefused(
            f"{source_file}: its first line must name the columns, separated by commas or semicolons; missing: "
            f"{', '.join(missing[separator])}"
        )
    refuse_repeated(found[separator], source_file, columns)
    return separator, found[separator]


def refuse_repeated(header: Sequence[str], source_file: str, columns: Sequence[str]) -> None:
    """Raises FileRefused if the header names one of the columns twice."""
    repeated = [column for column in columns if header.count(column) > 1]
    if repeated:
        raise FileRefused(f"{source_file}: its first line names a column more than once: {', '.join(repeated)}")


def _decode_header(line: bytes, separator: str) -> str:
    """The header as text. Its encoding does not matter: the wanted columns are ASCII."""
    return "cp1252" if separator == ";" and any(byte in _LETTERS for byte in line) else "utf-8"


def _lines(stream: BinaryIO, number: int, separator: str, encoding: str, width: int, positions: Sequence[int]) -> Lines:
    while line := stream.readline(_LONGEST_LINE + 1):
        number += 1
        if len(line) > _LONGEST_LINE and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = stream.readline(_LONGEST_LINE)
            yield number, RowRefused("line_too_long", f"the line is longer than {_LONGEST_LINE:,} bytes")
            continue
        if separator == ";" and not line.strip(b"; \t\r\n"):
            continue
        try:
            cells = _cells(line.removesuffix(b"\n"), separator, encoding)
            if len(cells) != width:
                reason: Reason = "missing_cell" if len(cells) < width else "extra_cell"
                raise RowRefused(reason, f"{len(cells)} cells where the header has {width}")
            yield number, [cells[position] for position in positions]
        except RowRefused as why:
            yield number, RowRefused(why.reason, why.detail, _guess_cells(line, separator, encoding, positions))


def _guess_cells(line: bytes, separator: str, encoding: str, positions: Sequence[int]) -> list[str] | None:
    """The probable cells of a line that can't be decoded; None if a letter can't be guessed."""
    try:
        cells = [cell.strip().strip('"') for cell in line.decode(encoding).split(separator)]
    except UnicodeDecodeError:
        return None
    return [cells[position] if position < len(cells) else "" for position in positions]


def _cells(line: bytes, separator: str, encoding: str) -> list[str]:
    try:
        text = line.removesuffix(b"\n").removesuffix(b"\r").decode(encoding)
    except UnicodeDecodeError:
        raise RowRefused("not_utf8", "the line isn't UTF-8") from None
    if not text.strip():
        raise RowRefused("blank_line", "the line is blank")
    if '"' not in text:
        return text.split(separator)
    cells, at, more = [], 0, separator
    while more:
        match = _CELLS[separator].match(text, at)
        if not match:
            raise RowRefused("stray_quote", "a quote that doesn't enclose a whole cell, or is never closed")
        quoted, plain, more = match.groups()
        cells.append(plain if quoted is None else quoted.replace('""', '"'))
        at = match.end()
    return cells


_AMBIGUOUS = re.compile(r"-?[1-9][0-9]{0,2}[.,][0-9]{3}")
_BRAZILIAN = re.compile(r"(-?)([0-9]{1,3}(?:\.[0-9]{3})+|[0-9]+)(?:,([0-9]+))?")


def decimal_cell(cell: str, column: str, decimals: int, whole_digits: int, brazilian: bool = False) -> Decimal:
    """A plain decimal like -1234.50 with at most `decimals` decimals and `whole_digits` digits before the point.

    In a `brazilian` file -1234,50 and -1.234,50 too, but nothing that can be read in two ways (1.234).

    Raises RowRefused(bad_number). An exponent, a plus sign, other separators, NaN or a bare point aren't plain.
    """
    wanted = "-1234,50" if brazilian else "-1234.50"
    if brazilian:
        if _AMBIGUOUS.fullmatch(cell):
            raise RowRefused("bad_number", f"{column}: can be read in two ways; write all decimals, like {wanted}")
        if pieces := _BRAZILIAN.fullmatch(cell):
            cell = f"{pieces[1]}{pieces[2].replace('.', '')}" + (f".{pieces[3]}" if pieces[3] else "")
    match = re.fullmatch(r"-?[0-9]+(?:\.([0-9]+))?", cell)
    if not match:
        raise RowRefused("bad_number", f"{column}: want a plain decimal like {wanted}")
    if len(match[1] or "") > decimals:
        raise RowRefused("bad_number", f"{column}: more than {decimals} decimals")
    value = Decimal(cell)
    if abs(value) >= 10**whole_digits:
        raise RowRefused("bad_number", f"{column}: too large, more than {whole_digits} digits before the point")
    return value


def date_cell(cell: str, brazilian: bool = False) -> date | None:
    """The day that `cell` writes as YYYY-MM-DD, in a `brazilian` file as DD/MM/YYYY too; None if it writes none
    (fromisoformat takes 20200101 too)."""
    if brazilian and (match := re.fullmatch(r"([0-9]{2})/([0-9]{2})/([0-9]{4})", cell)):
        cell = f"{match[3]}-{match[2]}-{match[1]}"
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", cell):
        return None
    try:
        return date.fromisoformat(cell)
    except ValueError:
        return None


def month_cell(cell: str, brazilian: bool = False) -> date | None:
    """The first day of the month that `cell` writes as MM/YYYY or as that day; None if it writes none.

    >>> month_cell("01/2020"), month_cell("2020-01-01"), month_cell("2020-01-02")
    (datetime.date(2020, 1, 1), datetime.date(2020, 1, 1), None)
    """
    match = re.fullmatch(r"([0-9]{2})/([0-9]{4})", cell)
    day = date_cell(f"{match[2]}-{match[1]}-01" if match else cell, brazilian)
    return day if day is not None and day.day == 1 else None
