"""Rows as PostgreSQL takes them: what it can hold of a value, and the CSV of its COPY.

Belongs here: Arrow in, Arrow or bytes out. Doesn't: which rows (copying.py), connections (postgres.py).
"""

import io
import json

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

_NUL, _INSTEAD = "\0", "\ufffd"
"""No text of PostgreSQL holds the character of code 0: the sign for a character that can't be shown stands for it."""


def holdable(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The rows as PostgreSQL can hold them: texts without the character of code 0, maps as JSON, its keys in order."""
    columns = [_holdable(column) for column in rows.columns]
    return pa.RecordBatch.from_arrays(columns, names=rows.schema.names)


def _holdable(column: pa.Array) -> pa.Array:
    if pa.types.is_map(column.type):
        return pa.array(
            [None if entries is None else _json(dict(entries)) for entries in column.to_pylist()], pa.string()
        )
    if pa.types.is_string(column.type):
        return pc.replace_substring(column, _NUL, _INSTEAD)
    return column


def _json(entries: dict[str, str | None]) -> str:
    whole = {key.replace(_NUL, _INSTEAD): value and value.replace(_NUL, _INSTEAD) for key, value in entries.items()}
    return json.dumps(whole, ensure_ascii=False, sort_keys=True)


def to_csv(rows: pa.RecordBatch) -> bytes:
    r"""The rows as COPY … (format csv) reads them in a session of UTC: a text is quoted always, null is an empty cell.

    >>> to_csv(pa.record_batch({"a": ["", None, 'b"c'], "n": [1, 2, None]}))
    b'"",1\n,2\n"b""c",\n'
    """
    written = io.BytesIO()
    # An instant that names its zone takes Arrow ten times as long to write.
    columns = [c.cast(pa.timestamp("us")) if pa.types.is_timestamp(c.type) else c for c in rows.columns]
    csv.write_csv(pa.table(columns, rows.schema.names), written, csv.WriteOptions(include_header=False))
    return written.getvalue()


def from_csv(data: bytes, schema: pa.Schema) -> pa.RecordBatch:
    """What COPY … to stdout (format csv) told, as `holdable` gives it: a map is JSON again."""
    fields = [pa.field(f.name, pa.string() if pa.types.is_map(f.type) else f.type) for f in schema]
    read = csv.read_csv(
        io.BytesIO(data),
        csv.ReadOptions(column_names=schema.names, block_size=max(len(data), 1)),
        csv.ParseOptions(newlines_in_values=True),
        csv.ConvertOptions(
            column_types={field.name: field.type for field in fields},
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        ),
    )
    columns = [
        pa.array([text and _json(json.loads(text)) for text in column.to_pylist()], pa.string())
        if pa.types.is_map(field.type)
        else column.combine_chunks()
        for field, column in zip(schema, read.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, names=schema.names)
