"""What people ask of the lake: the rows of each report. Read only.

Belongs here: which rows a report holds for a customer, a channel, a period. Doesn't: layouts (reports/), options and
files (cli.py), pages (panel/).
"""

from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from notif_assets.billing import bill
from notif_assets.billing.published import bill_of
from notif_assets.lake import SCHEMAS, Lake
from notif_assets.settings import Settings


class Unknown(Exception):  # noqa: N818 - an answer
    """Nobody by that id or name was ever seen."""


def customer_names(lake: Lake, customer_id: int | None = None) -> dict[int, str]:
    """The newest name of each known customer, or of one. Raises Unknown for one that never had a message."""
    rows = lake.rows(lake.table("customer_panel").scan())
    names = dict(zip(rows["customer_id"].to_pylist(), rows["customer_name"].to_pylist(), strict=True))
    if customer_id is None:
        return names
    if customer_id not in names:
        raise Unknown(f"customer {customer_id} is not known: no message of it was ever counted")
    return {customer_id: names[customer_id]}


def panel(lake: Lake, customer_id: int | None = None, channel: str | None = None) -> pa.Table:
    """The panel's rows, of one customer and one channel if asked; a known customer has at least one row."""
    known = customer_names(lake, customer_id)
    rows = lake.rows(lake.table("customer_panel").scan())
    rows = _of(rows, customer_id, channel)
    if not rows.num_rows and customer_id is not None:
        whole = lake.rows(lake.table("customer_panel").scan())
        empty = {
            "billing_date": whole["billing_date"][0].as_py(),
            "customer_id": customer_id,
            "customer_name": known[customer_id],
            "channel": channel,
            "notifications": 0,
            "updated_at": whole["updated_at"][0].as_py(),
        }
        rows = pa.Table.from_pylist([empty], schema=_nullable("customer_panel"))
    return rows


def detailed(
    lake: Lake,
    customer_id: int | None = None,
    channel: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
) -> tuple[Iterator[pa.RecordBatch], dict[int, str]]:
    """Every message with start <= event < end, streamed by customer, event and message id; and the customers' names."""
    names = customer_names(lake, customer_id)
    only = (None, None) if customer_id is None else (customer_id, customer_id + 1)
    messages = lake.table("notifications").scan(customer_id=only, event_datetime=(start, end))
    return lake.stream("detailed", {"notifications": messages}, channel=channel), names


def bills(
    lake: Lake, settings: Settings, days: list[date], customer_id: int | None = None, channel: str | None = None
) -> tuple[pa.Table, pa.Table]:
    """The lines and adjustments of these days; an open day is billed provisionally as of now, without being written.

    A known customer without messages has a line of nothing for each day. Raises BillRefused for an open day that
    can't be priced.
    """
    known = customer_names(lake, customer_id)
    lines, adjustments = [_nullable("daily_billing").empty_table()], [_nullable("billing_adjustments").empty_table()]
    for day in days:
        if bill.is_closed(lake, day):
            day_lines, day_adjustments = bill_of(lake, day)
            adjustments.append(_of(day_adjustments, customer_id, channel).cast(adjustments[0].schema))
        else:
            day_lines, _ = bill.lines_of(lake, settings, day, "provisional", "report")
        day_lines = _of(day_lines.select(lines[0].schema.names), customer_id, channel)
        if not day_lines.num_rows and customer_id is not None:
            nothing = {
                "billing_date": day,
                "customer_id": customer_id,
                "customer_name": known[customer_id],
                "notifications": 0,
                "amount": Decimal(0),
                "currency": "BRL",
                "status": "final" if bill.is_closed(lake, day) else "provisional",
            }
            day_lines = pa.Table.from_pylist([nothing], schema=lines[0].schema)
        lines.append(day_lines.cast(lines[0].schema))
    return pa.concat_tables(lines), pa.concat_tables(adjustments)


def _of(rows: pa.Table, customer_id: int | None, channel: str | None) -> pa.Table:
    if customer_id is not None:
        rows = rows.filter(pc.equal(rows["customer_id"], customer_id))
    if channel is not None:
        rows = rows.filter(pc.equal(rows["channel"], channel))
    return rows


def _nullable(name: str) -> pa.Schema:
    """The table's columns, each allowed to be null: a line of nothing has no channel."""
    return pa.schema([field.with_nullable(True) for field in SCHEMAS[name].arrow])
