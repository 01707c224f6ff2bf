"""Plain renderings: CSV, JSON and Parquet of any report's columns, a batch at a time.

Belongs here: how a value is written for programs, and which cells of CSV a spreadsheet would run. Doesn't: Brazilian
layouts (text.py), workbooks (workbook.py), which columns a report has and in what order (__init__.py).

Values: UTC ISO 8601; decimals with a point (in csv-br with a comma), as strings in JSON; null is an empty cell in CSV.
Each writer takes batches of one schema and holds no more than one batch or row group, so memory stays flat however long
the report.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_ROWS_AT_ONCE = 2_048
_ROW_GROUP_BYTES = 8 * 2**20

# Columns of the user's document that write their moments their own way; all others as `moments` does by default.
_MILLISECONDS = {"event_datetime"}
_NO_OFFSET = {"first_answer_dt", "last_answer_dt"}

_MINUTE = 60_000_000  # microseconds


def moments(column: pa.Array, *, milliseconds: bool = False, offset: bool = True) -> pa.Array:
    """Timestamps as UTC ISO 8601 text: no more fraction digits than needed, of 0, 3 (at least, on demand) or 6.

    2020-02-03T14:00:01.001+00:00; without `offset` the +00:00 is left out.
    """
    moment = column.cast(pa.timestamp("us")).cast(pa.int64())
    if moment.null_count or np.any(moment.to_numpy() % 1000):
        return _moments_one_by_one(column, milliseconds, offset)
    # Formatting costs a hundred times as much as a lookup. There are few minutes, and the texts within one are fixed.
    minutes, within = np.divmod(moment.to_numpy(), _MINUTE)
    codes = pa.array(minutes).dictionary_encode()
    beginnings = pc.multiply(codes.dictionary, _MINUTE).cast(pa.timestamp("us")).cast(pa.large_string())
    beginnings = pc.replace_substring(pc.utf8_slice_codeunits(beginnings, 0, -9), " ", "T")  # less seconds
    seconds = _seconds(milliseconds, offset).take(pa.array(within // 1000))
    return _joined(beginnings.take(codes.indices), seconds)


@cache
def _seconds(milliseconds: bool, offset: bool) -> pa.Array:
    """What stands behind the minute, for each of its 60,000 milliseconds."""
    rest = "+00:00" if offset else ""
    return pa.array(
        [
            f"{second:02}" + (f".{thousandth:03}" if milliseconds or thousandth else "") + rest
            for second in range(60)
            for thousandth in range(1000)
        ],
        pa.large_string(),
    )


def _moments_one_by_one(column: pa.Array, milliseconds: bool, offset: bool) -> pa.Array:
    # Arrow's own text of a zoneless timestamp in µs: 2020-02-03 14:00:01.001000
    text = column.cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us")).cast(pa.large_string())
    text = pc.replace_substring(text, " ", "T", max_replacements=1)
    text = pc.replace_substring_regex(text, r"(\.\d{3})000$", r"\1")
    if not milliseconds:
        text = pc.replace_substring_regex(text, r"\.000$", "")
    return _joined(text, "+00:00") if offset else text


@dataclass(frozen=True)
class Dialect:
    """What stands between two cells and before the cents, and what begins the file."""

    delimiter: str = ","
    decimal: str = "."
    beginning: str = ""


CSV = Dialect()
CSV_BR = Dialect(delimiter=";", decimal=",", beginning="\ufeff")


def write_csv(schema: pa.Schema, batches: Iterable[pa.RecordBatch], out: BinaryIO, dialect: Dialect = CSV) -> None:
    """RFC 4180 with LF line ends and always a header line.

    A text cell, or a column's name, that a spreadsheet would run gets a ' before it, see `guarded`. Null and empty text
    are both an empty cell.
    """
    names = _csv_texts(pa.array(schema.names, pa.large_string()), dialect.delimiter).to_pylist()
    out.write((dialect.beginning + dialect.delimiter.join(names) + "\n").encode())
    for batch in small_batches(batches):
        out.write(_csv_lines(batch, dialect))


def _csv_lines(batch: pa.RecordBatch, dialect: Dialect) -> bytes:
    """The lines of a batch. Its intermediate arrays are freed before a slow reader makes the writer wait."""
    cells = [_cells(field, column, dialect) for field, column in zip(batch.schema, batch.columns, strict=True)]
    lines = pc.binary_join_element_wise(*cells, _large(dialect.delimiter), null_handling="replace")
    one_behind_another: bytes = _joined(lines, "\n").buffers()[2].to_pybytes()
    return one_behind_another


def _cells(field: pa.Field, column: pa.Array, dialect: Dialect) -> pa.Array:
    plain = _plain(field.name, column)
    if is_text(field.type):
        return _csv_texts(plain, dialect.delimiter)
    if pa.types.is_decimal(field.type) and dialect.decimal != ".":
        return pc.replace_substring(plain, ".", dialect.decimal)
    return plain


def write_json(schema: pa.Schema, batches: Iterable[pa.RecordBatch], out: BinaryIO) -> None:
    """One array of objects, one object a line, in UTF-8; integers are numbers, decimals and moments strings."""
    encode = msgspec.json.Encoder().encode
    out.write(b"[")
    before = b"\n"
    for batch in small_batches(batches):
        columns = [
            (column if pa.types.is_integer(column.type) else _plain(name, column)).to_pylist()
            for name, column in zip(schema.names, batch.columns, strict=True)
        ]
        rows = [encode(dict(zip(schema.names, row, strict=True))) for row in zip(*columns, strict=True)]
        out.write(before + b",\n".join(rows))
        before = b",\n"
    out.write(b"]\n" if before == b"\n" else b"\n]\n")


def write_parquet(schema: pa.Schema, batches: Iterable[pa.RecordBatch], out: BinaryIO) -> None:
    """The columns with their own types, zstd; small batches are gathered into row groups of about 8 MiB."""
    held: list[pa.RecordBatch] = []
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        for batch in small_batches(batches):
            held.append(batch)
            if sum(each.nbytes for each in held) >= _ROW_GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(held, schema))
                held = []
        if held:
            writer.write_table(pa.Table.from_batches(held, schema))


def small_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches small enough to hold as Python objects."""
    for batch in batches:
        for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
            yield batch.slice(start, _ROWS_AT_ONCE)


def _large(text: str) -> pa.Scalar:
    return pa.scalar(text, pa.large_string())


def _joined(*parts: pa.Array | str) -> pa.Array:
    return pc.binary_join_element_wise(*(_large(part) if isinstance(part, str) else part for part in parts), _large(""))


def is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return not (types.is_integer(kind) or types.is_decimal(kind) or types.is_date(kind) or types.is_timestamp(kind))


def _plain(name: str, column: pa.Array) -> pa.Array:
    """A column's values as text (large_string, so that a batch may exceed 2 GiB)."""
    if pa.types.is_timestamp(column.type):
        return moments(column, milliseconds=name in _MILLISECONDS, offset=name not in _NO_OFFSET)
    return column.cast(pa.large_string())


# What may precede a sign in a formula: blanks and invisible characters.
_INVISIBLE = r"\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff"
_UNSEEN = rf"(?:[^\S\r\n]|[\x00-\x08\x0e-\x1f\x7f-\x9f{_INVISIBLE}])*"
_SIGN = r"[=+\-@＝＋－＠]"
_NUMBER = r"(?:[+-][0-9]+(?:[.,][0-9]+)*|\+[0-9(][0-9 ().-]*[0-9])(?=[;\r\n]|\Z)"
_WOULD_RUN = re.compile(rf"(?:\A|(?<=[;\r\n]))(?!{_NUMBER})(?={_UNSEEN}{_SIGN})|\A(?=[\t\r\n])")


def guarded(text: str) -> str:
    """`text` with a ' before what a spreadsheet would run as a formula.

    That is = + - or @, full-width ones too, at the beginning, also behind blanks and unseen characters. It is so behind
    a ; and a line break too: where ; is the separator, Excel begins a cell there, whatever quotes stand around. A text
    that begins with TAB, CR or LF is guarded whatever follows. Signed numbers and phone numbers stay as they are.

    >>> [guarded(text) for text in ("=1+1", "a;=1+1", "-42", "+55 (11) 99999-0000", "2-1")]
    ["'=1+1", "a;'=1+1", '-42', '+55 (11) 99999-0000', '2-1']
    """
    return _WOULD_RUN.sub("'", text)


def _csv_texts(column: pa.Array, delimiter: str) -> pa.Array:
    """Texts (large_string) as cells of a CSV file."""
    column = _guarded_column(column)
    edges, letters = _utf8_bytes(column)
    marks = np.flatnonzero(_any_of(b'"\r\n' + delimiter.encode(), letters))
    quoted = np.diff(np.searchsorted(marks, edges)) > 0
    if quoted.any():
        column = pc.if_else(pa.array(quoted), _joined('"', pc.replace_substring(column, '"', '""'), '"'), column)
    return column


def _guarded_column(column: pa.Array) -> pa.Array:
    """`guarded` of each text that it may change: these are few, and it handles them one by one."""
    edges, letters = _utf8_bytes(column)
    inside = np.flatnonzero(_any_of(b";\r\n", letters))
    doubtful = np.diff(np.searchsorted(inside, edges)) > 0
    begun = edges[:-1] < edges[1:]
    doubtful[begun] |= _MAY_BEGIN_A_FORMULA[letters[edges[:-1][begun]]]
    if not doubtful.any():
        return column
    mask = pa.array(doubtful)
    texts = [text and guarded(text) for text in column.filter(mask).to_pylist()]
    return pc.replace_with_mask(column, mask, pa.array(texts, column.type))


# Signs, blanks and control characters, and whatever begins the UTF-8 of unseen and full-width characters.
_MAY_BEGIN_A_FORMULA = np.isin(np.arange(256), [*range(0x21), *b"=+-@\x7f", 0xC2, 0xD8, 0xE1, 0xE2, 0xE3, 0xEF])


def _utf8_bytes(column: pa.Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Where each text begins, and the last one ends, in the UTF-8 bytes of all of them; and these bytes."""
    _, offsets, data = column.buffers()
    edges = np.frombuffer(offsets, np.int64, len(column) + 1, column.offset * 8)
    return edges - edges[0], np.frombuffer(data or b"", np.uint8)[edges[0] : edges[-1]]


def _any_of(wanted: bytes, letters: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which of the bytes are one of these ASCII letters; the UTF-8 of no other letter contains them."""
    found: npt.NDArray[np.bool_] = np.logical_or.reduce([letters == letter for letter in wanted])
    return found
