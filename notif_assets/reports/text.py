"""Text renderings, in Portuguese: the layouts of docs/requirements.md, byte for byte.

Belongs here: layouts, and Brazilian formats, which live here and nowhere else. Doesn't: which rows a report has and in
what order (__init__.py), formats for programs (plain.py).

Every function yields pieces of text; together they end with one line break. Values are shown with control characters
escaped (`visible`), so that no name, key or message can imitate a line of the layout.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa

from notif_assets.reports.plain import moments, small_batches

_Row = Mapping[str, Any]

# Control characters, line and paragraph separators, and the marks that turn the reading direction around.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]")

_SHORT_ESCAPES = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def visible(text: str | None) -> str:
    r"""`text` on one line: each character that would break or disguise the layout as its JSON escape; None is nothing.

    >>> visible("Acme\nValor: 0")
    'Acme\\nValor: 0'
    """
    return _HIDDEN.sub(_escape, text or "")


def _escape(match: re.Match[str]) -> str:
    return _SHORT_ESCAPES.get(match[0]) or f"\\u{ord(match[0]):04x}"


def brazilian(value: Decimal) -> str:
    """With two decimals, points between thousands, a comma before cents.

    >>> brazilian(Decimal("-56333.33"))
    '-56.333,33'
    """
    return f"{value:,.2f}".translate(str.maketrans(",.", ".,"))


def money(amount: Decimal, currency: str) -> str:
    """An amount of a bill: no points between thousands, R$ for BRL and the code for any other currency.

    >>> money(Decimal("1000.00"), "BRL")
    'R$ 1000,00'
    """
    return f"{symbol(currency)} {brazilian(amount).replace('.', '')}"


def amounts(sums: Mapping[str, Decimal], between: str = " and ") -> str:
    """What a sum comes to in each currency, one beside another.

    >>> amounts({"BRL": Decimal("2.50"), "USD": Decimal("-0.50")})
    'R$ 2,50 and USD -0,50'
    """
    return between.join(money(amount, currency) for currency, amount in sums.items())


def unit_price(price: Decimal, currency: str) -> str:
    """A price with the decimals that it needs, two at least.

    >>> unit_price(Decimal("0.040000"), "BRL"), unit_price(Decimal("0.005000"), "BRL")
    ('R$ 0,04', 'R$ 0,005')
    """
    whole, _, decimals = f"{price.normalize():f}".partition(".")
    return f"{symbol(currency)} {whole},{decimals.ljust(2, '0')}"


def symbol(currency: str) -> str:
    """R$ for BRL, the code for any other currency."""
    return "R$" if currency == "BRL" else visible(currency)


def panel(rows: Iterable[_Row]) -> Iterator[str]:
    """A block per customer and day; rows in that order. A channel of None stands for a customer without messages."""
    yield "Painel de Notificações\n"
    for number, (_, group) in enumerate(groupby(rows, itemgetter("billing_date", "customer_id"))):
        lines = list(group)
        updated: datetime = min(row["updated_at"] for row in lines).astimezone(UTC)
        yield (
            ("\n" if number else "")
            + f"Cliente: {visible(_newest_name(lines))}\n"
            + _notifications(lines)
            + f"Última atualização: {updated.replace(microsecond=0).isoformat()}\n"
        )


def _newest_name(lines: Sequence[_Row]) -> str | None:
    with_events = [row for row in lines if row["last_event"] is not None] or lines[:1]
    name: str | None = max(with_events, key=lambda row: (row["last_event"], row["customer_name"] or ""))[
        "customer_name"
    ]
    return name


def _notifications(lines: Sequence[_Row]) -> str:
    """A line per channel: Whatsapp first and if there is none at all, then the others by name."""
    counts: dict[str, int] = {}
    for row in lines:
        if row["channel"] is not None:
            counts[row["channel"]] = counts.get(row["channel"], 0) + row["notifications"]
    channels = sorted(
        counts or {"Whatsapp": 0}, key=lambda channel: (channel != "Whatsapp", channel.casefold(), channel)
    )
    return "".join(f"Notificações {visible(channel)}: {counts.get(channel, 0)}\n" for channel in channels)


def detailed(batches: Iterable[pa.RecordBatch], names: Mapping[int, str]) -> Iterator[str]:
    """The messages of each customer, in the order they come; `names` has each customer's newest name.

    A customer that `names` doesn't know goes by the name in its first message.
    """
    yield "Relatório Detalhado de Notificações\n"
    customer: int | None = None
    for batch in small_batches(batches):
        moment = moments(batch["event_datetime"], milliseconds=True).to_pylist()
        columns = [batch[name].to_pylist() for name in ("customer_id", "customer_name", "message_id", "payload")]
        messages = []
        for customer_id, name, message_id, payload, when in zip(*columns, moment, strict=True):
            if customer_id != customer:
                customer = customer_id
                messages.append(f"\n= Cliente: {visible(names.get(customer_id, name))} =\n")
            quoted = visible(json.dumps(payload, ensure_ascii=False))
            messages.append(f"\nMensagem ID: {visible(message_id)}\nPayload: {quoted}\nData hora: {when}\n")
        yield "".join(messages)


def billing(entries: Iterable[_Row]) -> Iterator[str]:
    """A block per day, customer and currency; rows in that order. An adjustment has an adjustment_id."""
    yield "Relatório de Cobrança\n"
    for (day, _, currency), group in groupby(entries, itemgetter("billing_date", "customer_id", "currency")):
        rows = list(group)
        lines = [row for row in rows if row["adjustment_id"] is None]
        adjustments = [row["amount"] for row in rows if row["adjustment_id"] is not None]
        yield f"\nCliente: {visible((lines or rows)[-1]['customer_name'])}\n" + _notifications(lines)
        yield f"Valor: {money(sum((row['amount'] for row in lines), Decimal(0)), currency)}\n"
        if adjustments:
            yield f"Ajustes: {money(sum(adjustments, Decimal(0)), currency)}\n"
        yield f"Data: {day.isoformat()}\n"
        if any(row["status"] == "provisional" for row in lines):
            yield "Situação: provisória\n"


def aligned(table: pa.Table) -> Iterator[str]:
    """A table for reading: a header, then a line per row; columns two blanks apart, numbers to the right."""
    numbers = [pa.types.is_decimal(field.type) or pa.types.is_integer(field.type) for field in table.schema]
    columns = [
        [visible(name), *_display_values(column)] for name, column in zip(table.column_names, table, strict=True)
    ]
    return in_columns(columns, numbers)


def in_columns(columns: Sequence[Sequence[str]], numbers: Sequence[bool]) -> Iterator[str]:
    """A line for each place in the columns, which stand two blanks apart; those of numbers to the right."""
    widths = [max(map(_width, column)) for column in columns]
    for cells in zip(*columns, strict=True):
        padded = []
        for cell, width, number in zip(cells, widths, numbers, strict=True):
            padding = " " * (width - _width(cell))
            padded.append(padding + cell if number else cell + padding)
        yield "  ".join(padded).rstrip(" ") + "\n"


def _display_values(column: pa.ChunkedArray) -> list[str]:
    if pa.types.is_timestamp(column.type):
        column = moments(column, offset=False)
    return [
        "null" if value is None else brazilian(value) if isinstance(value, Decimal) else visible(str(value))
        for value in column.to_pylist()
    ]


def _width(text: str) -> int:
    """Columns of a terminal: East Asian wide characters take two, marks set on another character none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.category(char) in ("Mn", "Me", "Cf") else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )
