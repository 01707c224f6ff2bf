"""What people ask of the lake: the rows of each report. Read only.

Belongs here: which rows a report holds for a customer, a channel, a period. Doesn't: layouts (reports/), options and
files (cli.py), pages (panel/).
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from notif_assets.billing.closed_days import currencies_of_days
from notif_assets.billing.lines import BillRefused, lines_of
from notif_assets.billing.prices import with_currency
from notif_assets.core.days import day_bounds, day_of, days_between
from notif_assets.errors import Refusal
from notif_assets.lake import SCHEMAS, Lake, Scan, Table, only
from notif_assets.lake.pieces import PIECE_BYTES, bytes_of_rows, spans, values_at
from notif_assets.notifications.audit import closed_days, open_days_that_should_be_closed
from notif_assets.notifications.ledger import Batch, complete_until, read_batch
from notif_assets.reports import billing_entries
from notif_assets.reports.statement import Statement
from notif_assets.settings import Settings

_SLICE = 10_000  # messages sorted, and held, at once
_BATCH = 2_048  # messages of a report of all customers that the engine gives at once: as many as it works on
_BYTES_A_MESSAGE = PIECE_BYTES // _SLICE  # a longer payload is not sorted with its message, but fetched afterwards
_PAGE_BYTES = 4 * 2**20  # of a page of messages, which is one text in memory, or one message that has more
_PART = 1_000  # messages; a minute of more is read in parts
_MINUTE = 60_000_000  # microseconds
_DAY = timedelta(days=1)


class Unknown(Refusal):
    """Nobody by that id or name was ever seen."""


def customer_names(lake: Lake, customer_id: int | None = None) -> dict[int, str]:
    """The newest name of each known customer, or of one. Raises Unknown for one that never had a message."""
    return _names(lake.rows(lake.table("customer_panel").scan(customer_id=only(customer_id))), customer_id)


def _names(panel_rows: pa.Table, customer_id: int | None) -> dict[int, str]:
    names = dict(zip(panel_rows["customer_id"].to_pylist(), panel_rows["customer_name"].to_pylist(), strict=True))
    if customer_id is None:
        return names
    if customer_id not in names:
        raise Unknown(f"customer {customer_id} is not known: no message of it was ever counted")
    return {customer_id: names[customer_id]}


def today(settings: Settings, now: datetime | None = None) -> date:
    """The billing day it is."""
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
        whole = _replaced(whole, billing_date=day, notifications=0)
    rows = _of(whole, customer_id, channel)
    if not rows.num_rows and customer_id is not None:
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


def minutes(lake: Lake, customer_id: int, start: datetime, end: datetime, channel: str | None = None) -> pa.Table:
    """The customer's notifications per minute (of its beginning, UTC) and channel, start <= minute < end, in order."""
    aggregates = lake.table("minute_aggregates").scan(customer_id=only(customer_id), minute=(start, end))
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
    scan = replace(scan, with_places=True)
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
    """One customer's messages, sorted a few thousand at a time: the first come at once, and memory stays flat. While
    somebody takes their time to read a slice, the engine holds nothing of it.

    The slices end where the minutes say; were they wrong, slices would be uneven, never incomplete.
    """
    low, end = bounds
    moments, totals = _moments_and_totals(lake, customer_id, channel, bounds)
    at = read = 0
    while True:
        most = min(at_once(), _SLICE)
        at = max(at + 1, int(np.searchsorted(totals, read + most, "right")))
        high = moments[at].as_py() if at < len(moments) else end
        scan = messages.scan(customer_id=only(customer_id), event_datetime=(low, high))
        scan = replace(scan, with_places=True)
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
        places = rows.filter(missing)
        values = values_at(scan, "payload", places["file"], places["row"])
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
    aggregates = lake.table("minute_aggregates").scan(customer_id=only(customer_id), minute=bounds)
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
    messages = lake.table("notifications").scan(customer_id=only(customer_id), event_datetime=(moment or start, end))
    hours = sorted(messages.partitions)
    found: list[pa.Table] = []
    count = size = read = 0
    many, full = 1, False
    while not found or (not full and read < len(hours)):
        scan = replace(messages.within({*hours[read : read + many]}), with_places=True)
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
        fit = rows.slice(0, max(int(np.searchsorted(sizes, _PAGE_BYTES, "right")), 0 if count else 1))
        found.append(_with_payload(scan, fit))
        count += fit.num_rows
        size = int(sizes[fit.num_rows - 1]) if fit.num_rows else size
        full = count == most or fit.num_rows < rows.num_rows
        read, many = read + many, 2 * many
    whole = pa.concat_tables(found)
    last = whole.slice(whole.num_rows - 1).to_pylist()[0] if full else None
    return Page(whole, (last["event_datetime"], last["message_id"]) if last else None)


@dataclass(frozen=True)
class AtHand:
    """What somebody knows of a customer already, so that it need not be read: the name, and the lines of an open day,
    whatever name they have (None: they must be counted)."""

    name: str
    lines: Callable[[date], pa.Table | None]


def bills(
    lake: Lake,
    settings: Settings,
    days: Sequence[date],
    customer_id: int | None = None,
    channel: str | None = None,
    at_hand: AtHand | None = None,
    unpriced: list[BillRefused] | None = None,
) -> tuple[pa.Table, pa.Table]:
    """The lines and adjustments of these days; an open day is billed provisionally as of now, without being written.

    A known customer without messages has a line of nothing for each day, of the channel asked, whose case doesn't
    count. Raises BillRefused for an open day that can't be priced; or puts it into `unpriced`, and gives what has a
    price.
    """
    known = {customer_id: at_hand.name} if at_hand else customer_names(lake, customer_id)
    closed = closed_days(lake).intersection(days)
    partitions = {(day,) for day in closed}
    written, adjustments = (
        _of(lake.rows(lake.table(name).scan(partitions, customer_id=only(customer_id))), None, channel).cast(
            _nullable(name)
        )
        for name in ("daily_billing", "billing_adjustments")
    )
    adjustments = with_currency(lake, adjustments)
    lines = [written]
    aggregates = lake.table("minute_aggregates")
    for day in days:
        if day in closed:
            continue
        day_lines = at_hand.lines(day) if at_hand else None
        if at_hand and day_lines is not None:
            day_lines = _replaced(day_lines, customer_name=at_hand.name)
        else:
            if not aggregates.scan(minute=day_bounds(day, settings.zone)).files:
                continue  # counting a day without messages would cost as much as counting any other
            day_lines, _ = lines_of(lake, settings, day, "provisional", "report", customer_id, None, unpriced)
        lines.append(_of(day_lines.select(written.schema.names), None, channel).cast(written.schema))
    if customer_id is not None:
        there = {day for table in lines for day in table["billing_date"].to_pylist()}
        empty = [day for day in days if day not in there]
        nothing = {"customer_id": customer_id, "customer_name": known[customer_id], "channel": channel}
        lines.append(_lines_of_nothing(lake, nothing, empty, closed))
    return pa.concat_tables(lines), adjustments


def _lines_of_nothing(
    lake: Lake, whose: Mapping[str, object], days: Sequence[date], closed: Collection[date]
) -> pa.Table:
    """A line of no notification for each day, in the currency of the price list in force for the day."""
    currencies = currencies_of_days(lake, days)
    rows = [
        {
            **whose,
            "notifications": 0,
            "amount": Decimal(0),
            "billing_date": day,
            "currency": currencies[day],
            "status": "final" if day in closed else "provisional",
        }
        for day in days
    ]
    return pa.Table.from_pylist(rows, schema=_nullable("daily_billing"))


def statement(
    lake: Lake, settings: Settings, customer_id: int, month: date, day: date, at_hand: AtHand | None = None
) -> Statement:
    """The customer's month, whose first day is `month`, as it is on `day`. Raises Unknown; ValueError for a month that
    is still to come.

    What of an open day has no price is left out, and the day named.
    """
    if month > day:
        raise ValueError(f"{month:%Y-%m} has not begun")
    days = list(days_between(month, (month + 31 * _DAY).replace(day=1) - _DAY))
    past = [one for one in days if one <= day]
    unpriced: list[BillRefused] = []
    lines, adjustments = bills(lake, settings, past, customer_id, None, at_hand, unpriced)
    entries = billing_entries(lines.filter(pc.is_valid(lines["channel"])), adjustments)
    names = lines["customer_name"].to_pylist()
    return Statement(
        customer_id=customer_id,
        customer_name=names[-1] or "",
        month=month,
        entries=entries,
        open_days=tuple(days_still_open(lake, settings, days)),
        unpriced_days=tuple(sorted({refused.day for refused in unpriced})),
        currency=currencies_of_days(lake, past[-1:])[past[-1]],
    )


def days_still_open(lake: Lake, settings: Settings, days: Sequence[date]) -> list[date]:
    """Those of the days that are not closed and may still have a bill: all that are not counted past, and of the days
    before those that should be closed."""
    until = complete_until(lake, lake.table("minute_aggregates").watermark)
    not_closed = [day for day in days if day not in closed_days(lake)]
    if until is None:
        return not_closed
    due = set(open_days_that_should_be_closed(lake, settings))
    counted = until - settings.grace
    return [day for day in not_closed if day in due or day_bounds(day, settings.zone)[1] > counted]


def billed_days(lake: Lake, day: date, most: int = 31) -> list[date]:
    """The days whose bills somebody looks at on `day`: the newest closed ones, and the last calendar days, closed or
    not, `most` of each. A day that failed to close is among them."""
    closed = sorted(closed_days(lake))
    return sorted({*closed[-most:], *days_between(day - (most - 1) * _DAY, day)})


def newest_batch(lake: Lake) -> Batch | None:
    """The batch that was planned last, with what Kafka held beyond it then; None before the first."""
    ledger = lake.table("ingest_batches")
    return read_batch(lake, ledger, ledger.watermark) if ledger.watermark else None


def _replaced(rows: pa.Table, **values: object) -> pa.Table:
    for name, value in values.items():
        at = rows.schema.get_field_index(name)
        field = rows.schema.field(at)
        rows = rows.set_column(at, field, pa.repeat(pa.scalar(value, field.type), rows.num_rows))
    return rows


def _of(rows: pa.Table, customer_id: int | None, channel: str | None) -> pa.Table:
    if customer_id is not None:
        rows = rows.filter(pc.equal(rows["customer_id"], customer_id))
    if channel is not None:
        rows = rows.filter(pc.equal(pc.utf8_lower(rows["channel"]), channel.lower()))
    return rows


def _nullable(name: str) -> pa.Schema:
    """The table's columns, each allowed to be null: a line of nothing has no channel."""
    return pa.schema([field.with_nullable(True) for field in SCHEMAS[name].arrow])
