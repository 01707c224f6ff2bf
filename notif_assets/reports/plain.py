"""Plain renderings: CSV, JSON and Parquet of any report's columns, a batch at a time.

Belongs here: how a value is written for programs (DESIGN section 4). Doesn't: Brazilian formats and layouts (text.py),
which columns a report has and in what order (__init__.py).

Values: UTC ISO 8601; decimals with a point, as strings in JSON; null is an empty cell in CSV. Each writer takes
batches of one schema and holds no more than one batch or row group, so memory stays flat however long the report.
"""

from collections.abc import Iterable, Iterator
from typing import BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_ROWS_AT_ONCE = 16_384
_ROW_GROUP_BYTES = 64 * 2**20

# Columns of the user's document that write their moments their own way; all others as `moments` does by default.
_MILLISECONDS = {"event_datetime"}
_NO_OFFSET = {"first_answer_dt", "last_answer_dt"}


def moments(column: pa.Array, *, milliseconds: bool = False, offset: bool = True) -> pa.Array:
    """Timestamps as UTC ISO 8601 text: no more fraction digits than needed, of 0, 3 (at least, on demand) or 6.

    2020-02-03T14:00:01.001+00:00; without `offset` the +00:00 is left out.
    """
    # Arrow's own text of a zoneless timestamp in µs: 2020-02-03 14:00:01.001000
    text = column.cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us")).cast(pa.large_string())
    text = pc.replace_substring(text, " ", "T", max_replacements=1)
    text = pc.replace_substring_regex(text, r"(\.\d{3})000$", r"\1")
    if not milliseconds:
        text = pc.replace_substring_regex(text, r"\.000$", "")
    return _joined(text, "+00:00") if offset else text


def write_csv(schema: pa.Schema, batches: Iterable[pa.RecordBatch], out: BinaryIO) -> None:
    """RFC 4180 with LF line ends and always a header line.

    A text cell, or a column's name, that begins with = + - @ TAB or CR gets a leading ': spreadsheets would run it.
    Null and empty text are both an empty cell.
    """
    out.write((",".join(_csv_texts(pa.array(schema.names, pa.large_string())).to_pylist()) + "\n").encode())
    for batch in small_batches(batches):
        cells = [
            _csv_texts(_plain(field.name, column)) if _is_text(field.type) else _plain(field.name, column)
            for field, column in zip(schema, batch.columns, strict=True)
        ]
        lines = pc.binary_join_element_wise(*cells, _large(","), null_handling="replace")
        out.write(_joined(lines, "\n").buffers()[2])  # the lines one behind another, as they are in memory


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
    """The columns with their own types, zstd; small batches are gathered into row groups of about 64 MiB."""
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


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return not (types.is_integer(kind) or types.is_decimal(kind) or types.is_date(kind) or types.is_timestamp(kind))


def _plain(name: str, column: pa.Array) -> pa.Array:
    """A column's values as text (large_string, so that a batch may exceed 2 GiB)."""
    if pa.types.is_timestamp(column.type):
        return moments(column, milliseconds=name in _MILLISECONDS, offset=name not in _NO_OFFSET)
    return column.cast(pa.large_string())


def _csv_texts(column: pa.Array) -> pa.Array:
    formula = pc.match_substring_regex(column, r"\A[=+\-@\t\r]")
    if pc.any(formula).as_py():
        column = pc.if_else(formula, _joined("'", column), column)
    quoted = pc.match_substring_regex(column, '[",\r\n]')
    if pc.any(quoted).as_py():
        column = pc.if_else(quoted, _joined('"', pc.replace_substring(column, '"', '""'), '"'), column)
    return column
