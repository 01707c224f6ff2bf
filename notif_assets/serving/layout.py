"""What the copy looks like in PostgreSQL: its tables, keys, comments, the views for people, the role that reads them.

Belongs here: SQL that the catalogue says everything of, as texts. Doesn't: running it (setup.py), rows (rows.py).

Schema `serving` holds the tables as the lake has them, `bi` a view of each for people: every instant in UTC and in the
billing time zone, money with its currency, a map as one row for each of its entries.
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b

import pyarrow as pa

from notif_assets.lake import SCHEMAS, Schema
from notif_assets.lake.catalogue import Column

TABLES = (
    "customer_panel",
    "minute_aggregates",
    "daily_billing",
    "billing_days",
    "billing_adjustments",
    "prices",
    "invoices",
    "invoice_window_averages",
)
"""What is copied."""
OPTIONAL_TABLE = "chatbot_reports"
"""What is copied only when a setting asks for it, because it holds what people answered."""
READERS = "notif_bi"
"""The role that may read the views and nothing else."""

_MONEY = ("amount", "amount_delta", "unit_price")

STATE = (
    "create schema if not exists serving",
    "comment on schema serving is 'A copy of tables of the lake, which notif-assets writes; read the views of bi'",
    "create table if not exists serving.layout (digest text not null)",
    "create table if not exists serving.watermarks (table_name text primary key, version bigint not null, "
    "mark text not null, shared jsonb not null, served_at timestamp with time zone)",
    "comment on table serving.watermarks is 'Which version of each table the copy holds'",
    "comment on column serving.watermarks.version is 'the Delta version of the table; -1: nothing was copied yet'",
    "comment on column serving.watermarks.mark is 'a hash of the names of its data files, by which it is recognized'",
    "comment on column serving.watermarks.shared is 'the columns whose value is the same in every row of the table'",
    "comment on column serving.watermarks.served_at is 'when the copy was last brought to a version'",
)
"""What the copy knows of itself; running it again changes nothing."""


def served(*, with_chatbot: bool) -> tuple[str, ...]:
    """The tables that are copied, in order."""
    return (*TABLES, OPTIONAL_TABLE) if with_chatbot else TABLES


def columns(schema: Schema) -> list[Column]:
    """The columns that the copy of a table has: all but those that every row shares."""
    return [column for column in schema.columns if not column.shared]


def column_type(kind: pa.DataType) -> str:
    """The type of a column as PostgreSQL tells it.

    >>> column_type(pa.decimal128(18, 2)), column_type(pa.map_(pa.string(), pa.string()))
    ('numeric(18,2)', 'jsonb')
    """
    if pa.types.is_decimal(kind):
        return f"numeric({kind.precision},{kind.scale})"
    if pa.types.is_map(kind):
        return "jsonb"
    names = {
        pa.int32(): "integer",
        pa.int64(): "bigint",
        pa.string(): "text",
        pa.date32(): "date",
        pa.timestamp("us", "UTC"): "timestamp with time zone",
    }
    return names[kind]


def table_statements(name: str) -> list[str]:
    """Makes the table of the copy, empty, with its key, an index by day, and what it and its columns mean."""
    schema = SCHEMAS[name]
    made = ", ".join(f'"{c.name}" {column_type(c.type)}{"" if c.nullable else " not null"}' for c in columns(schema))
    statements = [f"create table serving.{name} ({made})"]
    if schema.key:
        parts = ", ".join(_indexed(schema, column) for column in schema.key)
        statements.append(f"create unique index {name}_key on serving.{name} ({parts})")
    if schema.partition_by:  # rows come by day: an index of a few pages finds them
        statements.append(f'create index {name}_day on serving.{name} using brin ("{schema.partition_by[0]}")')
    statements.append(f"comment on table serving.{name} is {quoted(schema.meaning)}")
    statements += [f'comment on column serving.{name}."{c.name}" is {quoted(c.meaning)}' for c in columns(schema)]
    return statements


def _indexed(schema: Schema, column: str, of: str = "") -> str:
    """A column of a key in its index, which holds no text as long as a producer may make it."""
    return f'md5({of}"{column}")' if pa.types.is_string(schema.arrow.field(column).type) else f'{of}"{column}"'


def same_key(schema: Schema, one: str, other: str) -> str:
    """The condition that rows of two tables have one key, in the words of the key's index."""
    return " and ".join(
        f"{_indexed(schema, column, f'{one}.')} = {_indexed(schema, column, f'{other}.')} "
        f'and {one}."{column}" = {other}."{column}"'
        for column in schema.key
    )


def dropped_views() -> list[str]:
    """Takes the views away, before their tables change; what others built upon one keeps it from going."""
    return [f"drop view if exists bi.{name}" for name in ("freshness", *served(with_chatbot=True))]


def view_statements(names: Sequence[str], zone: str) -> list[str]:
    """Makes the views for people of these tables, and one that tells how fresh each of them is."""
    statements = [
        "create schema if not exists bi",
        "comment on schema bi is 'For people and their tools: what notif-assets counted and billed'",
        *_view(FRESHNESS, _FRESHNESS_SELECT, FRESHNESS_MEANING),
    ]
    for name in names:
        statements += _view(name, _select(SCHEMAS[name], zone), SCHEMAS[name].meaning)
    for name in (FRESHNESS, *names):
        for column, _, meaning in view_columns(name, zone):
            statements.append(f'comment on column bi.{name}."{column}" is {quoted(meaning)}')
    return statements


FRESHNESS, FRESHNESS_MEANING = "freshness", "Up to when each table of this schema is as the lake has it."
"""The view that tells of the copy itself."""

_MOMENT = pa.timestamp("us")
_FRESHNESS_COLUMNS = (
    ("table_name", pa.string(), "the table"),
    ("version", pa.int64(), "the Delta version of the table that the copy holds; -1: nothing was copied yet"),
    ("served_at_utc", _MOMENT, "when the copy was last brought to a version (UTC)"),
    ("counted_until_utc", _MOMENT, "of the panel: everything up to here is counted (UTC)"),
)
_FRESHNESS_SELECT = (
    "select table_name, version, served_at at time zone 'UTC' as served_at_utc, "
    "(shared ->> 'updated_at')::timestamptz at time zone 'UTC' as counted_until_utc from serving.watermarks"
)


def _view(name: str, select: str, meaning: str) -> list[str]:
    return [
        f"create view bi.{name} as {select}",
        f"comment on view bi.{name} is {quoted(meaning)}",
    ]


def _select(schema: Schema, zone: str) -> str:
    """The SELECT of a view."""
    shown = [part for column in schema.columns for part in _shown(column, zone)]
    joins = ""
    if _lacks_currency(schema):
        shown.append(
            "(select p.currency from serving.prices as p where p.price_version = t.price_version limit 1) as currency"
        )
    if any(column.shared for column in schema.columns):
        joins += f" cross join (select shared from serving.watermarks where table_name = {quoted(schema.name)}) as w"
    for column in schema.columns:
        if pa.types.is_map(column.type):
            joins += f' cross join lateral jsonb_each_text(t."{column.name}") as {column.name}(key, value)'
    return f"select {', '.join(shown)} from serving.{schema.name} as t{joins}"


def _shown(column: Column, zone: str) -> Iterator[str]:
    """A column as people see it."""
    value = f't."{column.name}"'
    if column.shared:
        value = f"(w.shared ->> {quoted(column.name)})::{column_type(column.type)}"
    if pa.types.is_timestamp(column.type):
        yield f"{value} at time zone 'UTC' as \"{column.name}_utc\""
        yield f'{value} at time zone {quoted(zone)} as "{column.name}_local"'
        yield f'({value} at time zone {quoted(zone)})::date as "{column.name}_local_date"'
    elif pa.types.is_map(column.type):
        yield f"{column.name}.key"
        yield f"{column.name}.value"
    else:
        yield f'{value} as "{column.name}"'


def view_columns(name: str, zone: str) -> list[tuple[str, pa.DataType, str]]:
    """The columns of a view in order: name, type, and what it means. Moments have no zone there."""
    if name == FRESHNESS:
        return list(_FRESHNESS_COLUMNS)
    schema = SCHEMAS[name]
    columns = [shown for column in schema.columns for shown in _column_comments(column, zone)]
    currency = ("currency", pa.string(), "ISO 4217 code, that of the price list")
    return [*columns, currency] if _lacks_currency(schema) else columns


def _column_comments(column: Column, zone: str) -> Iterator[tuple[str, pa.DataType, str]]:
    """A column as people see it, with what it means."""
    if pa.types.is_timestamp(column.type):
        yield f"{column.name}_utc", _MOMENT, f"{column.meaning} (UTC)"
        yield f"{column.name}_local", _MOMENT, f"{column.meaning} ({zone})"
        yield f"{column.name}_local_date", pa.date32(), f"the date of {column.name} in {zone}"
    elif pa.types.is_map(column.type):
        yield "key", column.type.key_type, f"{column.meaning}: the key"
        yield "value", column.type.item_type, f"{column.meaning}: its value"
    else:
        yield column.name, column.type, column.meaning


def _lacks_currency(schema: Schema) -> bool:
    """Whether a table tells money, and the list that priced it, but not in which currency."""
    names = set(schema.arrow.names)
    return "price_version" in names and "currency" not in names and bool(names.intersection(_MONEY))


def reader_statements() -> list[str]:
    """Makes the role of the readers where that is allowed, and lets it read the views and nothing else."""
    return [
        f"do $$ begin create role {READERS} nologin; "
        "exception when duplicate_object or unique_violation or insufficient_privilege then null; end $$",
        f"do $$ begin if exists (select from pg_roles where rolname = '{READERS}') then "
        f"grant usage on schema bi to {READERS}; grant select on all tables in schema bi to {READERS}; end if; end $$",
    ]


def digest(names: Sequence[str], zone: str, *, has_readers: bool) -> str:
    """Names a layout by all that makes it: where PostgreSQL holds another one, it is to be made anew."""
    statements = [*STATE, *(s for name in names for s in table_statements(name)), *view_statements(names, zone)]
    return blake2b("\0".join([*statements, str(has_readers)]).encode(), digest_size=16).hexdigest()


def quoted(text: str) -> str:
    """A text as a literal of SQL.

    >>> print(quoted("it's"))
    'it''s'
    """
    return "'" + text.replace("'", "''") + "'"
