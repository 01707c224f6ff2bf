"""The lines of a day's bill, as its messages and the price list make them.

Belongs here: counting a day, pricing it, and what must hold of its lines before any is written. Doesn't: the arithmetic
(sql/), when lines become final (closing.py), what comes after that (adjustments.py).
"""

import io
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from notif_assets.billing.price_list import price_list_cell
from notif_assets.billing.prices import (
    packaged_prices,
    prices_in_force,
    with_currency,
)
from notif_assets.core.days import day_bounds
from notif_assets.core.texts import quote_odd
from notif_assets.errors import Refusal
from notif_assets.lake import SCHEMAS, Lake, bounds_of_value
from notif_assets.reports import write_billing
from notif_assets.settings import Settings

Status = Literal["provisional", "final"]

Gate = Literal["every_channel_has_one_price", "bill_equals_messages_times_price"]

EXAMPLE_BILL = """\
Relatório de Cobrança

Cliente: Acme
Notificações Whatsapp: 25000
Valor: R$ 1000,00
Data: 2020-02-03
"""
"""The user's document, "Relatório de Cobrança"."""

CENT = Decimal("0.01")


class BillRefused(Refusal):
    """The bill would be wrong, so nothing of it was written. `findings` has a plain sentence for each reason;
    `channels` are those without exactly one price."""

    def __init__(self, day: date, gate: Gate, findings: list[str], channels: Sequence[str] = ()) -> None:
        more = f" … and {len(findings) - 5} more" if len(findings) > 5 else ""
        super().__init__(f"{day} can't be billed: {'; '.join(findings[:5])}{more}")
        self.day, self.gate, self.findings, self.channels = day, gate, findings, channels


def lines_of(
    lake: Lake,
    settings: Settings,
    day: date,
    status: Status,
    run_id: str,
    customer_id: int | None = None,
    counted: pa.Table | None = None,
    unpriced: list[BillRefused] | None = None,
) -> tuple[pa.Table, int]:
    """The day's lines, or those of one customer, as they would be billed now, and the batch up to which they count;
    nothing is written. `counted` has the day's counts, as sql/day_counts.sql gives them, if the caller knows them.
    Raises BillRefused for a channel without exactly one price; or puts it into `unpriced`, and gives the other lines.
    """
    version, listed = prices_in_force(lake)
    counts, through = _recount(lake, settings, day, customer_id, counted)
    try:
        prices = refuse_unpriced(lake, day, counts, version, listed)
    except BillRefused as refused:
        if unpriced is None:
            raise
        unpriced.append(refused)
        prices, _ = priced(lake, day, counts, listed)
    return _lines(lake, counts, prices, day, version, status, through, run_id), through


def _lines(
    lake: Lake, counts: pa.Table, prices: pa.Table, day: date, version: str, status: Status, through: int, run_id: str
) -> pa.Table:
    """The one path from counts to lines, for the bill, the report and the check on the document's example."""
    return lake.select(
        "daily_billing",
        {"counts": counts, "unit_prices": prices},
        billing_date=day,
        price_version=version,
        status=status,
        through_batch=through,
        run_id=run_id,
        computed_at=datetime.now(UTC),
    )


def example_bill_differences(lake: Lake) -> list[str]:
    """Where the deployed code does not give the document's bill: 25000 WhatsApp notifications → R$ 1000,00."""
    counts = pa.table(
        {"customer_id": [1], "customer_name": ["Acme"], "channel": ["Whatsapp"], "notifications": [25_000]}
    )
    day = date(2020, 2, 3)
    prices = lake.select("unit_prices", {"pairs": counts, "prices": packaged_prices()}, day=day)
    lines = _lines(lake, counts, prices, day, "published", "final", 0, "published")
    written = io.BytesIO()
    write_billing(lines, with_currency(lake, SCHEMAS["billing_adjustments"].arrow.empty_table()), written, "text")
    return [] if written.getvalue().decode() == EXAMPLE_BILL else ["the document's bill of 25000 notifications differs"]


def wrong_lines(lake: Lake, settings: Settings, day: date, lines: pa.Table, through: int) -> list[str]:
    """Where lines are not silver × price, counted from the messages themselves and multiplied in plain Python."""
    start, end = day_bounds(day, settings.zone)
    messages = lake.table("notifications").scan(event_datetime=(start, end), batch=(None, through + 1))
    counted = {
        (row["customer_id"], row["channel"]): row["notifications"]
        for row in lake.select("message_counts", {"notifications": messages}).to_pylist()
    }
    found = []
    for line in lines.to_pylist():
        key = (line["customer_id"], line["channel"])
        expected = counted.pop(key, 0)
        if line["notifications"] != expected:
            found.append(f"customer {key[0]}, {quote_odd(key[1])}: billed {line['notifications']}, sent {expected}")
        amount = (line["notifications"] * line["unit_price"]).quantize(CENT, ROUND_HALF_UP)
        if line["amount"] != amount:
            found.append(f"customer {key[0]}, {quote_odd(key[1])}: amount {line['amount']}, should be {amount}")
    for (customer, channel), n in counted.items():
        found.append(f"customer {customer}, {quote_odd(channel)}: sent {n}, not billed")
    return found


def _recount(
    lake: Lake, settings: Settings, day: date, customer_id: int | None = None, counted: pa.Table | None = None
) -> tuple[pa.Table, int]:
    """The day's counts from minute_aggregates, unless `counted` has them, and the batch up to which they count."""
    aggregates = lake.table("minute_aggregates")
    if counted is None:
        minutes = aggregates.scan(minute=day_bounds(day, settings.zone), customer_id=bounds_of_value(customer_id))
        counted = lake.select("day_counts", {"minutes": minutes})
    return counted, aggregates.watermark


def refuse_unpriced(lake: Lake, day: date, pairs: pa.Table, version: str, listed: pa.Table) -> pa.Table:
    """The unit price of each customer and channel of `pairs`. Raises BillRefused naming those without exactly one."""
    prices, unpriced = priced(lake, day, pairs, listed)
    if unpriced:
        remedy = "import a list that has exactly one (`notif-assets import-prices FILE`)"
        channels = sorted({row["channel"] for row in unpriced})
        sentences = unpriced_channels(unpriced, version, remedy)
        raise BillRefused(day, "every_channel_has_one_price", sentences, channels)
    return prices


def priced(lake: Lake, day: date, pairs: pa.Table, listed: pa.Table) -> tuple[pa.Table, list[dict[str, Any]]]:
    """The unit price of each customer and channel of `pairs` that has exactly one; and the others."""
    prices = unit_prices_of(lake, day, pairs, listed)
    one = pc.equal(prices["prices_found"], 1)
    return prices.filter(one), prices.filter(pc.invert(one)).to_pylist()


def unit_prices_of(lake: Lake, day: date, pairs: pa.Table, listed: pa.Table) -> pa.Table:
    """How many prices each customer and channel of `pairs` has on the day, and the price of those that have one."""
    return lake.select("unit_prices", {"pairs": pairs, "prices": listed}, day=day)


def unpriced_channels(unpriced: Iterable[dict[str, Any]], version: str, remedy: str) -> list[str]:
    """A sentence for each channel without exactly one price, and the remedy."""
    channels: dict[tuple[str, int], list[int]] = {}
    for row in unpriced:
        channels.setdefault((row["channel"], row["prices_found"]), []).append(row["customer_id"])
    return [
        f"channel {quote_odd(channel)} has {'no price' if found == 0 else f'{found} prices'} in list {version} "
        f"(customer {customers[0]}{f' and {len(customers) - 1} more' if len(customers) > 1 else ''}): {remedy}"
        + (f"; a list names this channel as {price_list_cell(channel)}" if quote_odd(channel) != channel else "")
        for (channel, found), customers in sorted(channels.items())
    ]
