"""Amounts of money, each with its currency.

Belongs here: adding them up. Doesn't: how they are rounded and priced (billing/sql/), how people read them (reports/).
"""

from collections.abc import Iterable
from decimal import Decimal

import pyarrow as pa


def sum_by_currency(amounts: Iterable[tuple[str, Decimal]]) -> dict[str, Decimal]:
    """The sum of the amounts of each currency, in the order of the codes: no sum has two currencies.

    A currency whose sum is zero is left out. If every sum is zero, the last currency stays, with zero.

    >>> sum_by_currency([("USD", Decimal("0.50")), ("BRL", Decimal("2.50")), ("USD", Decimal("-0.50"))])
    {'BRL': Decimal('2.50')}
    >>> sum_by_currency([("USD", Decimal("0.50")), ("USD", Decimal("-0.50"))])
    {'USD': Decimal('0.00')}
    """
    sums: dict[str, Decimal] = {}
    for currency, amount in amounts:
        sums[currency] = sums.pop(currency, Decimal(0)) + amount
    nonzero = {currency: amount for currency, amount in sorted(sums.items()) if amount}
    return nonzero or dict([*sums.items()][-1:])


def sum_column_by_currency(rows: pa.Table, amount: str) -> dict[str, Decimal]:
    """The same of a table: its column `currency`, and the one that `amount` names."""
    return sum_by_currency(zip(rows["currency"].to_pylist(), rows[amount].to_pylist(), strict=True))
