"""Price lists: bytes of a CSV file or a workbook in, prices out; and the version that a list's content gives it.

Belongs here: what a price is, and when two lists are the same. Doesn't: CSV itself (inbox/rows.py), workbooks
(inbox/workbooks.py), which price holds for a line of the bill (sql/), when a list is loaded (prices.py).
"""

import hashlib
import json
import re
from datetime import date
from decimal import Decimal

import pyarrow as pa

from notif_assets.core.texts import json_text
from notif_assets.inbox.rows import FileRefused, RowRefused, date_cell, decimal_cell, table_of
from notif_assets.inbox.workbooks import sheet_of

PRICE_COLUMNS = ("customer_id", "channel", "unit_price", "currency", "valid_from", "valid_to")
PRICE_LIST_SCHEMA = pa.schema(
    [
        ("customer_id", pa.int64()),
        ("channel", pa.string()),
        ("unit_price", pa.decimal128(18, 6)),
        ("currency", pa.string()),
        ("valid_from", pa.date32()),
        ("valid_to", pa.date32()),
    ]
)
"""customer_id null: the channel's price for every customer. unit_price is per notification, in `currency` (ISO 4217).
valid_from null: no first day. valid_to is exclusive; null: no last day."""

_ERRORS_SHOWN = 20

_Price = tuple[int | None, str, Decimal, str, date | None, date | None]


def parse_price_list(data: bytes, source_file: str) -> pa.Table:
    """The prices of one file (PRICE_LIST_SCHEMA), in file order.

    Blanks around a customer or a channel don't count. A channel that has some at its ends, or a character that a line
    can't hold, is written as a JSON string: `price_list_cell`. A list is loaded whole or not at all: a part of it
    could leave a channel without a price. Raises FileRefused with a line `file:line: reason` for each of the first bad
    rows, or when the list is empty, has no header or mixes currencies. Two prices for one channel and day are no error
    here: such a day doesn't close, and says why.
    """
    rows: list[_Price] = []
    errors: list[str] = []
    sheet = sheet_of(data, source_file, PRICE_COLUMNS)
    for line, cells in sheet:
        try:
            if isinstance(cells, RowRefused):
                raise cells
            price = _price(cells, sheet.brazilian)
            if rows and price[3] != rows[0][3]:
                raise RowRefused(
                    "bad_currency", "currency: not the same as in the rows before; a list has one currency"
                )
            rows.append(price)
        except RowRefused as why:
            errors.append(f"{source_file}:{line}: {why}")
    if errors:
        more = len(errors) - _ERRORS_SHOWN
        raise FileRefused("\n".join(errors[:_ERRORS_SHOWN] + ([f"… and {more} more"] if more > 0 else [])))
    if not rows:
        raise FileRefused(f"{source_file}: no prices after the header")
    return table_of(rows, PRICE_LIST_SCHEMA)


def _price(cells: list[str], brazilian: bool) -> _Price:
    customer, channel, unit_price, currency, valid_from, valid_to = cells
    customer, channel = customer.strip(), channel.strip()
    for column, cell in (("channel", channel), ("unit_price", unit_price), ("currency", currency)):
        if not cell:
            raise RowRefused("empty_field", f"{column} is empty")
    customer_id = int(customer) if re.fullmatch(r"[0-9]{1,19}", customer) else 0
    if customer and not 1 <= customer_id < 2**63:
        raise RowRefused("bad_number", "customer_id: want an integer from 1 to 2^63-1, or nothing for everyone")
    price = decimal_cell(unit_price, "unit_price", 6, 12, brazilian)
    if price < 0:
        raise RowRefused("bad_number", "unit_price: want zero or more")
    if not re.fullmatch(r"[A-Z]{3}", currency):
        raise RowRefused("bad_currency", "currency: want a code of three capitals, like BRL")
    start, end = date_cell(valid_from, brazilian), date_cell(valid_to, brazilian)
    if (valid_from and not start) or (valid_to and not end):
        raise RowRefused("bad_date", "valid_from and valid_to: want YYYY-MM-DD, or nothing")
    if start and end and start >= end:
        raise RowRefused("bad_date", "valid_from must be before valid_to, which is exclusive")
    return customer_id if customer else None, _channel(channel), price, currency, start, end


def price_list_cell(channel: str) -> str:
    """How a list writes a channel that plain CSV can't hold: a JSON string, quoted as CSV quotes it.

    >>> print(price_list_cell("What\\nsapp"), price_list_cell("sms "))
    \"""What\\nsapp\""" \"""sms \"""
    """
    return '"' + json_text(channel).replace('"', '""') + '"'


def _channel(cell: str) -> str:
    """The channel that a cell names."""
    if len(cell) < 2 or cell[0] != '"' or cell[-1] != '"':
        return cell
    try:
        channel = json.loads(cell)
        channel.encode()
    except ValueError:
        raise RowRefused("bad_channel", 'channel: in double quotes it must be a JSON string, like "sms \\n"') from None
    if not channel:
        raise RowRefused("empty_field", "channel is empty")
    return str(channel)


def price_version(prices: pa.Table) -> str:
    """The version of a list: 16 hex digits of the SHA-256 of its rows, in any order.

    Takes any table with the columns of PRICE_LIST_SCHEMA; others (when it was loaded) don't count.
    """
    # The cast gives 0.04 and 0.040000 one spelling; JSON keeps null apart from text and one cell apart from the next.
    rows = prices.select(PRICE_LIST_SCHEMA.names).cast(PRICE_LIST_SCHEMA).to_pylist()
    lines = sorted(json.dumps(list(row.values()), default=str) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
