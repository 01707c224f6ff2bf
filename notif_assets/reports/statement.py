"""The monthly statement of a customer: what it says, and its text.

Belongs here: the entries of a month, their sums per channel and currency, the words of a statement. Doesn't: its paper
(pdf.py), formats for programs and spreadsheets (plain.py, workbook.py), which bills there are (billing/).

A statement is of the month's days: an adjustment stands with the day that it corrects, whenever it was written. Amounts
of two currencies have a total each.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from notif_assets.core.amounts import sum_by_currency
from notif_assets.core.days import format_ranges
from notif_assets.reports.text import amounts, in_columns, money, unit_price, visible

STATEMENT_SCHEMA = pa.schema(
    [
        ("month", pa.string()),
        ("customer_id", pa.int64()),
        ("customer_name", pa.string()),
        ("entry", pa.string()),
        ("billing_date", pa.date32()),
        ("channel", pa.string()),
        ("notifications", pa.int64()),
        ("unit_price", pa.decimal128(18, 6)),
        ("amount", pa.decimal128(18, 2)),
        ("currency", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
    ]
)
"""`entry` is line, adjustment or total. A total has the sum of its currency, and neither day nor channel."""

TITLE = "Extrato Mensal"
NUMBERS = frozenset({"Notificações", "Preço", "Valor"})
"""The columns of sections that stand to the right."""
_STATUS = {"final": "final", "provisional": "provisória"}
_REASONS = {
    "late": "mensagens atrasadas",
    "duplicate": "mensagens repetidas",
    "readmitted": "mensagens readmitidas",
    "repriced": "preço corrigido",
}
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Statement:
    """A customer's month. `entries` are rows of BILLING_SCHEMA, without days of no message."""

    customer_id: int
    customer_name: str
    month: date
    entries: pa.Table
    open_days: tuple[date, ...]
    """Days of the month that are not closed: their lines are provisional, or are still to come."""
    unpriced_days: tuple[date, ...]
    """Open days of which something has no price yet, and is left out."""
    currency: str
    """The currency of a total of zero."""

    @property
    def status(self) -> str:
        """final once every day of the month is closed."""
        return "provisional" if self.open_days else "final"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The entries as Python has them."""
        found: list[dict[str, Any]] = self.entries.to_pylist()
        return found

    def totals(self, adjustments: bool | None = None) -> dict[str, Decimal]:
        """The sum of all entries in each currency, or of the adjustments or the lines alone."""
        chosen = (row for row in self.rows if adjustments in (None, is_adjustment(row)))
        return sum_by_currency((row["currency"], row["amount"]) for row in chosen) or {self.currency: Decimal("0.00")}


@dataclass(frozen=True)
class Section:
    """A table of a statement, as people read it."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]


def is_adjustment(row: dict[str, Any]) -> bool:
    """Whether an entry corrects a closed day."""
    return row["adjustment_id"] is not None


def statement_rows(statement: Statement) -> pa.Table:
    """The statement as rows of STATEMENT_SCHEMA: its entries, then a total for each currency."""
    common_columns = {
        "month": f"{statement.month:%Y-%m}",
        "customer_id": statement.customer_id,
        "customer_name": statement.customer_name,
    }
    names = ("billing_date", "channel", "notifications", "unit_price", "amount", "currency", "reason")
    rows = [
        {**{name: row[name] for name in names}, "entry": "adjustment", "status": "final"}
        if is_adjustment(row)
        else {**{name: row[name] for name in names}, "entry": "line", "status": row["status"]}
        for row in statement.rows
    ]
    for currency, amount in statement.totals().items():
        sent = sum(row["notifications"] for row in statement.rows if row["currency"] == currency)
        total = {"notifications": sent, "amount": amount, "currency": currency, "status": statement.status}
        rows.append({**total, "entry": "total"})
    return pa.Table.from_pylist([{**common_columns, **row} for row in rows], schema=STATEMENT_SCHEMA)


def facts(statement: Statement) -> list[tuple[str, str]]:
    """The customer, the month and the status of a statement."""
    found = [
        ("Cliente", visible(statement.customer_name)),
        ("Código", str(statement.customer_id)),
        ("Mês", f"{statement.month:%Y-%m}"),
        ("Situação", _STATUS[statement.status]),
    ]
    if statement.open_days:
        found.append(("Dias em aberto", _days(statement.open_days)))
    if statement.unpriced_days:
        found.append(("Sem preço ainda, não incluído", _days(statement.unpriced_days)))
    return found


def _days(days: Iterable[date]) -> str:
    return format_ranges(days, _DAY, "%Y-%m-%d", " a ", most=16)


def sections(statement: Statement) -> list[Section]:
    """The sum of each channel, and the entries day by day."""
    if not statement.entries.num_rows:
        return []
    return [
        Section("Por canal", ("Canal", "Notificações", "Valor"), list(_of_channels(statement.rows))),
        Section(
            "Por dia",
            ("Data", "Canal", "Lançamento", "Notificações", "Preço", "Valor", "Situação"),
            [_of_day(row) for row in statement.rows],
        ),
    ]


def _of_day(row: dict[str, Any]) -> tuple[str, ...]:
    adjusted = is_adjustment(row)
    return (
        str(row["billing_date"]),
        visible(row["channel"]),
        f"ajuste: {_REASONS[row['reason']]}" if adjusted else "cobrança",
        str(row["notifications"]),
        unit_price(row["unit_price"], row["currency"]),
        money(row["amount"], row["currency"]),
        "final" if adjusted else _STATUS[row["status"]],
    )


def _of_channels(rows: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    sums: dict[tuple[str, str], tuple[int, Decimal]] = {}
    for row in rows:
        key = row["channel"], row["currency"]
        sent, amount = sums.get(key, (0, Decimal(0)))
        sums[key] = sent + row["notifications"], amount + row["amount"]
    for (channel, currency), (sent, amount) in sorted(sums.items()):
        yield visible(channel), str(sent), money(amount, currency)


def totals(statement: Statement) -> list[tuple[str, str]]:
    """Lines, adjustments and both together, each currency beside the others."""
    found = [("Cobranças", amounts(statement.totals(adjustments=False), " e "))]
    if any(map(is_adjustment, statement.rows)):
        found.append(("Ajustes", amounts(statement.totals(adjustments=True), " e ")))
    return [*found, ("Total", amounts(statement.totals(), " e "))]


def text(statement: Statement) -> Iterator[str]:
    """The statement as text."""
    yield f"{TITLE}\n\n"
    yield from (f"{name}: {value}\n" for name, value in facts(statement) + totals(statement))
    for section in sections(statement):
        yield f"\n{section.title}\n"
        columns = [list(column) for column in zip(section.header, *section.rows, strict=True)]
        yield from in_columns(columns, [name in NUMBERS for name in section.header])
