"""The rows of each report, read from the lake. Read only.

Belongs here: which rows a report holds for a customer, a channel, a period. Doesn't: layouts (reports/), options and
files (cli/), pages (panel/).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from notif_assets.core.days import day_of
from notif_assets.errors import Refusal
from notif_assets.lake import SCHEMAS, Lake, Scan, Table, bounds_of_value
from notif_assets.lake.pieces import PIECE_BYTES, bytes_of_rows, spans, values_at
from notif_assets.notifications.ledger import Batch, read_batch
from notif_assets.settings import Settings

_SLICE = 10_000  # messages sorted, and held, at once
_BATCH = 2_048  # messages of a report of all customers that the engine gives at once: as many as it works on
_BYTES_A_MESSAGE = PIECE_BYTES // _SLICE  # a longer payload is not sorted with its message, but fetched afterwards
_PAGE_BYTES = 4 * 2**20  # of a page of messages, which is one text in memory, or one message that has more
_PART = 1_000  # messages; a minute of more is read in parts
_MINUTE = 60_000_000  # microseconds
_DAY = timedelta(days=1)


class Unknown(Refusal):
    """No message, file or answer has that id or name."""


def customer_names(lake: Lake, customer_id: int | None = None) -> dict[int, str]:
    """The newest name of each known customer, or of one. Raises Unknown for one that never had a message."""
    return _names(lake.rows(lake.table("customer_panel").scan(customer_id=bounds_of_value(customer_id))), customer_id)


def _names(panel_rows: pa.Table, customer_id: int | None) -> dict[int, str]:
    names = dict(zip(panel_rows["customer_id"].to_pylist(), panel_rows["customer_name"].to_pylist(), strict=True))
    if customer_id is None:
        return names
    if customer_id not in names:
        raise Unknown(f"customer {customer_id} is not known: no message of it was ever counted")
    return {customer_id: names[customer_id]}


def today(settings: Settings, now: datetime | None = None) -> date:
    """The current billing day."""
    return day_of(now or datetime.now(UTC), settings.zone)


def panel(lake: Lake, day: date, customer_id: int | None = None, channel: str | None = None) -> pa.Table:
    """The panel's rows on `day`, today; of one customer and one channel, whatever its case, if asked. A known customer
    has at least one.

    Until the day's first commit the table still holds the counts of a day before: then nothing of `day` is counted, and
    updated_at says so.
    """
    whole = lake.rows(lake.table("customer_panel").scan())
    known = _names(whole, customer_id)
    if whole.num_rows and whole["billing_date"][0].as_py() < day:
        whole = set_columns(whole, billing_date=day, notifications=0)
    rows = rows_of(whole, customer_id, channel)
    if not rows.num_rows and customer_id is not None:
        empty = {
            "billing_date": whole["billing_date"][0].as_py(),
            "customer_id": customer_id,
            "customer_name": known[customer_id],
            "channel": channel,
            "notifications": 0,
            "updated_at": whole["updated_at"][0].as_py(),
        }
        rows = pa.Table.from_pylist([empty], schema=nullable("customer_panel"))
    return rows


def minutes(lake: Lake, customer_id: int, start: datetime, end: datetime, channel: str | None = None) -> pa.Table:
    """The customer's notifications per minute (of its beginning, UTC) and channel, start <= minute < end, in order."""
    aggregates = lake.table("minute_aggregates").scan(customer_id=bounds_of_value(customer_id), minute=(start, end))
    return lake.select("customer_minutes", {"minutes": aggregates}, channel=channel)


def detailed(
    lake: Lake,
    customer_id: int | None = None,
    channel: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    at_once: Callable[[], int] = lambda: _SLICE,
) -> tuple[Iterator[pa.RecordBatch], dict[int, str]]:
    """Every message with start <= event < end, streamed by customer, event and message id; and the customers' names.
    The case of `channel` doesn't count.

    Of one customer about `at_once()` messages are held, asked anew before each reading; but hardly ever fewer
    than some hundreds. However large messages are, about as many bytes are held as these many usual ones have, or one
    message that has more.
    """
    names = customer_names(lake, customer_id)
    messages = lake.table("notifications")
    if customer_id is None:
        return _in_order(lake, messages.scan(event_datetime=(start, end)), channel), names
    return _in_slices(lake, messages, customer_id, channel, (start, end), at_once), names


def _in_order(lake: Lake, scan: Scan, channel: str | None) -> Iterator[pa.RecordBatch]:
    """All customers' messages, which the engine sorts, on disk if it must."""
    scan = replace(scan, with_positions=True)
    longest = PIECE_BYTES // _BATCH
    for batch in lake.stream("detailed", {"notifications": scan}, _BATCH, channel=channel, longest=longest):
        yield from _with_payloads(scan, pa.Table.from_batches([batch]), PIECE_BYTES)


def _in_slices(
    lake: Lake,
    messages: Table,
    customer_id: int,
    channel: str | None,
    bounds: tuple[datetime | None, datetime | None],
    at_once: Callable[[], int],
) -> Iterator[pa.RecordBatch]:
    """One customer's messages, sorted a few thousand at a time: the first come at once, and memory stays flat. The
    engine holds nothing of a slice while a client reads it slowly.

    The counts per minute decide where slices end. Wrong counts make slices uneven, never incomplete.
    """
    low, end = bounds
    moments, totals = _moments_and_totals(lake, customer_id, channel, bounds)
    at = read = 0
    while True:
        most = min(at_once(), _SLICE)
        at = max(at + 1, int(np.searchsorted(totals, read + most, "right")))
        high = moments[at].as_py() if at < len(moments) else end
        scan = messages.scan(customer_id=bounds_of_value(customer_id), event_datetime=(low, high))
        scan = replace(scan, with_positions=True)
        rows = lake.select("detailed", {"notifications": scan}, channel=channel, longest=_BYTES_A_MESSAGE)
        yield from _with_payloads(scan, rows, most * _BYTES_A_MESSAGE)
        if at >= len(moments):
            return
        low, read = high, int(totals[at - 1])


def _with_payloads(scan: Scan, rows: pa.Table, most: int) -> Iterator[pa.RecordBatch]:
    """Rows of detailed.sql about `most` bytes at a time, with the payloads that were left where they are."""
    for start, end in spans(_sizes(rows), most):
        yield from _with_payload(scan, rows.slice(start, end - start)).to_batches()


def _with_payload(scan: Scan, rows: pa.Table) -> pa.Table:
    payload = rows["payload"]
    if payload.null_count:
        missing = pc.is_null(payload)
        without_payload = rows.filter(missing)
        values = values_at(scan, "payload", without_payload["file"], without_payload["row"])
        payload = pc.replace_with_mask(payload.combine_chunks(), missing.combine_chunks(), values)
    rows = rows.set_column(rows.schema.get_field_index("payload"), "payload", payload)
    return rows.drop_columns(["payload_bytes", "file", "row"])


def _sizes(rows: pa.Table) -> npt.NDArray[np.int64]:
    """The bytes of each row of detailed.sql, its payload included."""
    sizes: npt.NDArray[np.int64] = bytes_of_rows(rows.drop_columns(["payload"])) + rows["payload_bytes"].to_numpy()
    return sizes


def _moments_and_totals(
    lake: Lake, customer_id: int, channel: str | None, bounds: tuple[datetime | None, datetime | None]
) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """Moments at which messages may be parted, in order, and how many messages there are up to the next of them.

    They are the beginnings of the minutes that have messages; a minute of many is parted as if they came evenly.
    As arrays: as Python objects, or grouped by Arrow, they would take more memory than the messages of a slice.
    """
    aggregates = lake.table("minute_aggregates").scan(customer_id=bounds_of_value(customer_id), minute=bounds)
    counts = lake.select("customer_minutes", {"minutes": aggregates}, channel=channel)
    of_channels = counts["minute"].cast(pa.int64()).to_numpy()
    firsts = np.flatnonzero(np.diff(of_channels, prepend=-1))
    up_to = np.append(0, np.cumsum(counts["notifications"].to_numpy()))[np.append(firsts, len(of_channels))]
    numbers, before = np.diff(up_to), up_to[:-1]
    parts = -(-numbers // _PART)
    minute = np.repeat(np.arange(len(parts)), parts)
    part = np.arange(len(minute)) - np.repeat(np.cumsum(parts) - parts, parts)
    moments = of_channels[firsts][minute] + part * _MINUTE // parts[minute]
    totals = before[minute] + (part + 1) * numbers[minute] // parts[minute]
    moment = counts["minute"].type
    if bounds[1] is not None:  # a part of the last minute may begin behind it
        moments = moments[: np.searchsorted(moments, pa.scalar(bounds[1], moment).value)]
    return pa.array(moments, moment), totals[: len(moments)]


@dataclass(frozen=True)
class Page:
    """Some messages in order, and behind which event and message id the next page begins; None: there is none."""

    rows: pa.Table
    next: tuple[datetime, str] | None


def page(
    lake: Lake,
    customer_id: int,
    channel: str | None,
    start: datetime | None,
    end: datetime | None,
    after: tuple[datetime, str] | None,
    most: int,
) -> Page:
    """The next messages of a customer, as `detailed` has them, behind the event and message id `after`.

    There are `most` of them, or as many as have 4 MiB, or one that has more. Of the hours that may have some, one is
    read first and then twice as many each time, until there are enough.
    """
    moment, message_id = after or (None, None)
    messages = lake.table("notifications").scan(
        customer_id=bounds_of_value(customer_id), event_datetime=(moment or start, end)
    )
    hours = sorted(messages.partitions)
    found: list[pa.Table] = []
    count = size = read = 0
    many, full = 1, False
    while not found or (not full and read < len(hours)):
        scan = replace(messages.within({*hours[read : read + many]}), with_positions=True)
        rows = lake.select(
            "detailed_page",
            {"notifications": scan},
            channel=channel,
            after_event=moment,
            after_message_id=message_id,
            most=most - count,
            longest=_PAGE_BYTES // most,
        )
        sizes = size + np.cumsum(_sizes(rows))
        fitting = rows.slice(0, max(int(np.searchsorted(sizes, _PAGE_BYTES, "right")), 0 if count else 1))
        found.append(_with_payload(scan, fitting))
        count += fitting.num_rows
        size = int(sizes[fitting.num_rows - 1]) if fitting.num_rows else size
        full = count == most or fitting.num_rows < rows.num_rows
        read, many = read + many, 2 * many
    whole = pa.concat_tables(found)
    last = whole.slice(whole.num_rows - 1).to_pylist()[0] if full else None
    return Page(whole, (last["event_datetime"], last["message_id"]) if last else None)


def newest_batch(lake: Lake) -> Batch | None:
    """The batch that was planned last, with what Kafka held beyond it then; None before the first."""
    ledger = lake.table("ingest_batches")
    return read_batch(lake, ledger, ledger.watermark) if ledger.watermark else None


def set_columns(rows: pa.Table, **values: object) -> pa.Table:
    for name, value in values.items():
        at = rows.schema.get_field_index(name)
        field = rows.schema.field(at)
        rows = rows.set_column(at, field, pa.repeat(pa.scalar(value, field.type), rows.num_rows))
    return rows


def rows_of(rows: pa.Table, customer_id: int | None, channel: str | None) -> pa.Table:
    if customer_id is not None:
        rows = rows.filter(pc.equal(rows["customer_id"], customer_id))
    if channel is not None:
        rows = rows.filter(pc.equal(pc.utf8_lower(rows["channel"]), channel.lower()))
    return rows


def nullable(name: str) -> pa.Schema:
    """The table's columns, each allowed to be null: a line of nothing has no channel."""
    return pa.schema([field.with_nullable(True) for field in SCHEMAS[name].arrow])
