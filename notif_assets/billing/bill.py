"""The bill of a day: provisional until the day closes, final then, corrected by adjustments ever after.

Belongs here: what a day's bill is, when it may close, what must hold before anything of it is written, and the order
of commits that a killed run can't spoil. Doesn't: the arithmetic (sql/), where a day begins (core/days.py), reports.
"""

import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from notif_assets.billing.price_list import price_list_cell
from notif_assets.billing.prices import (
    currencies,
    ensure_prices,
    packaged_prices,
    price_list,
    prices_in_force,
    with_currency,
)
from notif_assets.billing.recount import count_day, customers_to_recount
from notif_assets.core.amounts import sums_of
from notif_assets.core.days import day_bounds, day_of
from notif_assets.core.texts import shown
from notif_assets.errors import Refusal
from notif_assets.kafka.client import KafkaClient
from notif_assets.lake import SCHEMAS, Lake, Scan, Table, literal, only, until_committed
from notif_assets.notifications.audit import accepted_losses, much_rejected, offsets_taken_once, repeated_messages
from notif_assets.notifications.catch_up import execute_planned
from notif_assets.notifications.ledger import complete_until, deduplicated_through, plan_move
from notif_assets.reports import write_billing
from notif_assets.settings import Settings

Status = Literal["provisional", "final"]
Gate = Literal["every_channel_has_one_price", "bill_equals_messages_times_price"]

PUBLISHED_BILL = """\
Relatório de Cobrança

Cliente: Acme
Notificações Whatsapp: 25000
Valor: R$ 1000,00
Data: 2020-02-03
"""
"""The user's document, "Relatório de Cobrança"."""

_CENT = Decimal("0.01")
_LATELY = timedelta(hours=6)


class NotClosable(Refusal):
    """The day can't close yet; the message says until when everything is counted and until when it must be."""


class BillRefused(Refusal):
    """The bill would be wrong, so nothing of it was written. `findings` has a plain sentence for each reason;
    `channels` are those without exactly one price."""

    def __init__(self, day: date, gate: Gate, findings: list[str], channels: Sequence[str] = ()) -> None:
        more = f" … and {len(findings) - 5} more" if len(findings) > 5 else ""
        super().__init__(f"{day} can't be billed: {'; '.join(findings[:5])}{more}")
        self.day, self.gate, self.findings, self.channels = day, gate, findings, channels


@dataclass(frozen=True)
class Billed:
    """What one call did to one day's bill."""

    day: date
    status: Status
    lines: int
    notifications: int
    amount: Decimal
    currency: str
    """Of `amount`: a day's lines are priced by one list, which has one currency."""
    adjustments: int
    adjusted: Mapping[str, Decimal]
    """What the adjustments come to in each currency."""
    closed_now: bool
    accepted_losses: str | None
    held: tuple[str, ...] = ()
    """What of the closed day is not billed, for it has no price: a sentence for each channel, with the way out."""
    rejected: str | None = None


def bill_day(
    lake: Lake, settings: Settings, client: KafkaClient, day: date, run_id: str, *, whole: bool = True
) -> Billed:
    """Brings the day's bill up to date: closes it if it may close, else writes provisional lines; a closed day gets
    the adjustments that are due and can be priced, see close_day. Raises BillRefused before anything is written."""
    if not is_closed(lake, day):
        try:
            return close_day(lake, settings, client, day, run_id)
        except NotClosable:
            return _write_provisional(lake, settings, day, run_id)
    return close_day(lake, settings, client, day, run_id, whole=whole)


def close_day(
    lake: Lake, settings: Settings, client: KafkaClient, day: date, run_id: str, *, whole: bool = True
) -> Billed:
    """Closes the day, or writes the adjustments that are due if it is closed. Raises NotClosable, BillRefused.

    On a closed day a channel without a price holds up no other: the outcome says what is held. Kafka is only asked if
    a batch was planned that nobody has executed yet. A closed day is counted whole, or only of the customers of whom
    its bill may lack something (recount.py): that is the same unless somebody repaired the day's minutes.
    """
    closed_now = False
    if not is_closed(lake, day):
        _require_complete(lake, settings, day)
        ensure_prices(lake)
        through = deduplicated_through(lake)
        if through is None or through < day:
            plan_move(lake, run_id, "dedup", dedup_through=day)
        execute_planned(lake, client, settings)
        closed_now = until_committed(lambda: _close(lake, settings, day, run_id))
    written, held = until_committed(lambda: _adjust(lake, settings, day, run_id, whole))
    rejected = rejections_noted(lake, settings, day) if closed_now else None
    return _billed(lake, day, "final", written, closed_now, held, rejected)


def reprice(lake: Lake, settings: Settings, client: KafkaClient, day: date, note: str, run_id: str) -> Billed:
    """From here on the current price list prices the closed day; what that changes becomes adjustments.

    Raises NotClosable if the day is not closed, BillRefused if the list can't price what is billed already. What was
    held and has no price in this list either stays held.
    """
    version = ensure_prices(lake)

    def attempt() -> None:
        days = lake.table("billing_days")
        rows = _rows_of(lake, days, day)
        if not rows:
            raise NotClosable(
                f"{day} is open: open days take the current prices anyway, `close-day {day}` when it ends"
            )
        newest = _newest(rows)
        billed = _billed_so_far(lake, day, adjustments_of(lake, day))
        _refuse_unpriced(lake, day, billed.filter(_not_nothing(billed)), version, price_list(lake, version))
        if newest["price_version"] == version:
            return
        row = {**newest, "status": "repriced", "price_version": version, "note": note, "run_id": run_id}
        row["closed_at"] = max(datetime.now(UTC), newest["closed_at"])
        days.append(pa.Table.from_pylist([row], schema=SCHEMAS["billing_days"].arrow))

    until_committed(attempt)
    return close_day(lake, settings, client, day, run_id)


def adjustments_of(lake: Lake, day: date) -> pa.Table:
    """The day's adjustments, each with its currency."""
    return with_currency(lake, lake.rows(_day_scan(lake.table("billing_adjustments"), day)))


def losses_noted(lake: Lake, day: date) -> str | None:
    """What was lost, with somebody's consent, when the messages of the closed day came; None if nothing was."""
    rows = _rows_of(lake, lake.table("billing_days"), day)
    return next((row["note"] for row in rows if row["status"] == "final"), None)


def rejections_noted(lake: Lake, settings: Settings, day: date) -> str | None:
    """That many of the messages which came since the day began, until a day after it may close, were rejected; None
    if few were. Of which day a rejected message is can't be told."""
    start, end = day_bounds(day, settings.zone)
    until = end + settings.grace + timedelta(days=1)
    found = much_rejected(lake, settings, start, until, f"that came from {day} on")
    return found[0] if found else None


def is_closed(lake: Lake, day: date) -> bool:
    """Whether the day is closed."""
    return bool(_rows_of(lake, lake.table("billing_days"), day))


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
    nothing is written. `counted` is for who has the day's counts at hand, as sql/day_counts.sql gives them. Raises
    BillRefused for a channel without exactly one price; or puts it into `unpriced`, and gives the other lines.
    """
    version, listed = prices_in_force(lake)
    counts, through = _recount(lake, settings, day, customer_id, counted)
    try:
        prices = _refuse_unpriced(lake, day, counts, version, listed)
    except BillRefused as refused:
        if unpriced is None:
            raise
        unpriced.append(refused)
        prices, _ = _priced(lake, day, counts, listed)
    return _lines(lake, counts, prices, day, version, status, through, run_id), through


def _lines(
    lake: Lake, counts: pa.Table, prices: pa.Table, day: date, version: str, status: Status, through: int, run_id: str
) -> pa.Table:
    """The one path from counts to lines, for the bill, the report and the check on the published example."""
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


def published_bill_differs(lake: Lake) -> list[str]:
    """Where the deployed code does not give the document's bill: 25000 WhatsApp notifications → R$ 1000,00."""
    counts = pa.table(
        {"customer_id": [1], "customer_name": ["Acme"], "channel": ["Whatsapp"], "notifications": [25_000]}
    )
    day = date(2020, 2, 3)
    prices = lake.select("unit_prices", {"pairs": counts, "prices": packaged_prices()}, day=day)
    lines = _lines(lake, counts, prices, day, "published", "final", 0, "published")
    written = io.BytesIO()
    write_billing(lines, with_currency(lake, SCHEMAS["billing_adjustments"].arrow.empty_table()), written, "text")
    return (
        [] if written.getvalue().decode() == PUBLISHED_BILL else ["the document's bill of 25000 notifications differs"]
    )


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
            found.append(f"customer {key[0]}, {shown(key[1])}: billed {line['notifications']}, sent {expected}")
        amount = (line["notifications"] * line["unit_price"]).quantize(_CENT, ROUND_HALF_UP)
        if line["amount"] != amount:
            found.append(f"customer {key[0]}, {shown(key[1])}: amount {line['amount']}, should be {amount}")
    for (customer, channel), n in counted.items():
        found.append(f"customer {customer}, {shown(channel)}: sent {n}, not billed")
    return found


def _require_complete(lake: Lake, settings: Settings, day: date) -> None:
    aggregates = lake.table("minute_aggregates")
    until = complete_until(lake, aggregates.watermark)
    needed = day_bounds(day, settings.zone)[1] + settings.grace
    if until is not None:
        until = min(until, datetime.now(UTC))  # of a time that is yet to come a clock told that was wrong then
    if until is None or until < needed:
        seen = (
            f"all messages are counted up to {until:%Y-%m-%dT%H:%M:%S%z}" if until else "not all messages are counted"
        )
        raise NotClosable(
            f"{day} can't close yet: {seen}, and it must be so past {needed:%Y-%m-%dT%H:%M:%S%z} (the day's end plus "
            "NOTIF_GRACE); ingest until then (`notif-assets ingest --until-caught-up`), then close it again"
        )


def _close(lake: Lake, settings: Settings, day: date, run_id: str) -> bool:
    """Writes the final lines, then the closed day. True if this call closed it."""
    billing, days = lake.table("daily_billing"), lake.table("billing_days")
    if _rows_of(lake, days, day):
        return False
    lines = lake.rows(_day_scan(billing, day))
    through = lines["through_batch"][0].as_py() if lines.num_rows else 0
    if "final" not in lines["status"].to_pylist():
        lines, through = lines_of(lake, settings, day, "final", run_id)
        _refuse_wrong_inputs(lake, settings, day, lines, through)
        billing.replace(lines, f"billing_date = {literal(day)}")
    start, end = day_bounds(day, settings.zone)
    # Final lines without a closed day: a run was killed in between. They were visible, so they are what is closed.
    row = {
        "billing_date": day,
        "status": "final",
        "through_batch": through,
        "price_version": lines["price_version"][0].as_py() if lines.num_rows else ensure_prices(lake),
        "lines": lines.num_rows,
        "notifications": sum(lines["notifications"].to_pylist()),
        "amount": sum(lines["amount"].to_pylist(), Decimal(0)),
        "closed_at": datetime.now(UTC),
        "run_id": run_id,
        # What was lost when the day's messages came stays on its bill.
        "note": "; ".join(accepted_losses(lake, start, end + settings.grace)) or None,
    }
    days.append(pa.Table.from_pylist([row], schema=SCHEMAS["billing_days"].arrow))
    return True


def _refuse_wrong_inputs(lake: Lake, settings: Settings, day: date, lines: pa.Table, through: int) -> None:
    """What the bill stands on is proved for this day, whatever checks ran or did not run before."""
    start, end = day_bounds(day, settings.zone)
    findings = wrong_lines(lake, settings, day, lines, through)
    findings += repeated_messages(lake, lake.table("notifications").scan(event_datetime=(start, end)))
    batches = lake.select(
        "batch_span", {"notifications": lake.table("notifications").scan(event_datetime=(start, end))}
    )
    first, last = (batches[name][0].as_py() for name in ("first_batch", "last_batch"))
    if first is not None:
        findings += offsets_taken_once(lake, first, min(last, through))
    if findings:
        raise BillRefused(day, "bill_equals_messages_times_price", findings)


def _write_provisional(lake: Lake, settings: Settings, day: date, run_id: str) -> Billed:
    def attempt() -> None:
        billing = lake.table("daily_billing")
        if is_closed(lake, day) or "final" in lake.rows(_day_scan(billing, day))["status"].to_pylist():
            return  # somebody is closing it right now
        lines, _ = lines_of(lake, settings, day, "provisional", run_id)
        billing.replace(lines, f"billing_date = {literal(day)}")

    until_committed(attempt)
    return _billed(lake, day, "provisional", SCHEMAS["billing_adjustments"].arrow.empty_table(), False)


def _adjust(lake: Lake, settings: Settings, day: date, run_id: str, whole: bool) -> tuple[pa.Table, tuple[str, ...]]:
    """Writes what is due for a closed day and has a price; gives the rows, and what is held."""
    adjustments = lake.table("billing_adjustments")
    due, held = _due(lake, settings, day, adjustments, run_id, whole=whole)
    if due.num_rows:
        adjustments.append(due)
    return due, held


def _billed_so_far(lake: Lake, day: date, adjustments: pa.Table, lines: pa.Table | None = None) -> pa.Table:
    """What each customer and channel was billed for the day in each currency, by its lines (read unless given) and
    these adjustments, as adjustments_of has them."""
    lines = lake.rows(_day_scan(lake.table("daily_billing"), day)) if lines is None else lines
    return lake.select("billed_so_far", {"lines": lines, "adjustments": adjustments})


def _not_nothing(billed: pa.Table) -> pa.ChunkedArray:
    return pc.or_(pc.not_equal(billed["notifications"], 0), pc.not_equal(billed["amount"], Decimal(0)))


def _due(
    lake: Lake, settings: Settings, day: date, adjustments: Table, run_id: str, *, whole: bool = False
) -> tuple[pa.Table, tuple[str, ...]]:
    """The adjustments that a closed day lacks: the recount × price less everything billed for it. And what it lacks
    too, but has no price for: a sentence for each channel. `whole` as in close_day."""
    closed = _rows_of(lake, lake.table("billing_days"), day)
    version = _newest(closed)["price_version"]
    aggregates, listed = lake.table("minute_aggregates"), price_list(lake, version)
    lines = lake.rows(_day_scan(lake.table("daily_billing"), day))
    before = with_currency(lake, lake.rows(_day_scan(adjustments, day)))
    billed = _billed_so_far(lake, day, before, lines)
    customers = None
    if not whole:
        books = {"lines": lines, "adjustments": before, "unit_prices": _unit_prices(lake, day, billed, listed)}
        counted_by_lines = min(row["through_batch"] for row in closed)
        customers = customers_to_recount(lake, settings, aggregates, day, counted_by_lines, books)
    if customers is not None:
        if not customers.num_rows:
            return adjustments.schema.arrow.empty_table(), ()
        billed = billed.filter(pc.is_in(billed["customer_id"], value_set=customers["customer_id"]))
    counts, through = count_day(lake, settings, aggregates, day, customers), aggregates.watermark
    pairs = lake.select("billed_pairs", {"counts": counts, "billed": billed})
    prices, unpriced = _priced(lake, day, pairs, listed)
    held = _differing(unpriced, counts, billed)
    counted = max([row["through_batch"] for row in closed] + before["through_batch"].to_pylist())
    due = lake.select(
        "billing_adjustments",
        {
            "counts": counts,
            "billed": billed,
            "unit_prices": prices,
            "readmitted": _readmitted(lake, settings, day, counted),
        },
        billing_date=day,
        price_version=version,
        through_batch=through,
        run_id=run_id,
        created_at=datetime.now(UTC),
    )
    remedy = (
        "this day is closed, so import a list that has exactly one (`notif-assets import-prices FILE`), and then "
        f'`notif-assets reprice --from {day} --to {day} --reason "a price for them"`'
    )
    return due, tuple(_unpriced_channels(held, version, remedy))


def _differing(unpriced: list[dict[str, Any]], counts: pa.Table, billed: pa.Table) -> list[dict[str, Any]]:
    """Those whose count is not what was billed; the others owe nothing, whatever their price."""
    if not unpriced:
        return []
    sent, paid = (_notifications_of(table) for table in (counts, billed))
    keys = [(row["customer_id"], row["channel"]) for row in unpriced]
    return [row for row, key in zip(unpriced, keys, strict=True) if sent.get(key, 0) != paid.get(key, 0)]


def _notifications_of(rows: pa.Table) -> dict[tuple[int, str], int]:
    """The notifications of each customer and channel; of what was billed, those of all currencies."""
    found: dict[tuple[int, str], int] = {}
    for row in rows.select(["customer_id", "channel", "notifications"]).to_pylist():
        key = row["customer_id"], row["channel"]
        found[key] = found.get(key, 0) + row["notifications"]
    return found


def late_messages_without_a_price(
    lake: Lake, settings: Settings, after: int = 0, again: Collection[date] = ()
) -> tuple[dict[date, str], int]:
    """What the closed days can't bill of the messages that came after they closed: a sentence for each such day, among
    those that batches after `after` changed and the days `again`. Also the batch up to which that is the whole answer.

    A day is counted only if one of these messages has no price of its own.
    """
    aggregates, adjustments = lake.table("minute_aggregates"), lake.table("billing_adjustments")
    days = _days_changed(lake, settings, aggregates, after) | set(again)
    found: dict[date, str] = {}
    for day, rows in closed_rows(lake).items():
        if day not in days:
            continue
        closed_through = min(row["through_batch"] for row in rows)
        since = max(closed_through, 0 if day in again else after)
        late = aggregates.scan(minute=day_bounds(day, settings.zone), batch=(since + 1, None))
        if late.files and _some_without_a_price(lake, day, late, _newest(rows)["price_version"]):
            _, held = _due(lake, settings, day, adjustments, "")
            found |= {day: held_sentence(day, held)} if held else {}
    return found, aggregates.watermark


def _some_without_a_price(lake: Lake, day: date, minutes: Scan, version: str) -> bool:
    """Whether a customer and channel of the day's minutes has not exactly one price in that list."""
    pairs = lake.select("pairs_of_minutes", {"minutes": minutes})
    return bool(_priced(lake, day, pairs, price_list(lake, version))[1])


def _days_changed(lake: Lake, settings: Settings, aggregates: Table, after: int) -> set[date]:
    """The days of the minutes that batches after `after` changed."""
    changed = lake.select("changed_minutes", {"minutes": aggregates.scan(batch=(after + 1, None))})["minute"]
    return {day_of(minute, settings.zone) for minute in changed.to_pylist()}


def held_sentence(day: date, held: Sequence[str]) -> str:
    """What is held of a closed day, in one sentence."""
    return f"{day} is closed, and messages that came late are not billed: {'; '.join(held)}"


def days_with_adjustments_due(lake: Lake, settings: Settings, after: int) -> tuple[list[date], int]:
    """The closed days whose bill lacks an adjustment, among those that batches after `after` changed; nothing is
    written. Also the batch up to which that is the whole answer. What has no price is not due: a check tells of it.
    Days closed or repriced lately are looked at whatever changed: a run that was killed may have left the adjustments.
    """
    aggregates = lake.table("minute_aggregates")
    closed = {day: _newest(rows)["closed_at"] for day, rows in closed_rows(lake).items()}
    lately = {day for day, moment in closed.items() if moment > datetime.now(UTC) - _LATELY}
    days = _days_changed(lake, settings, aggregates, after) | lately
    adjustments = lake.table("billing_adjustments")
    due = [day for day in sorted(days & closed.keys()) if _due(lake, settings, day, adjustments, "")[0].num_rows]
    return due, aggregates.watermark


def _readmitted(lake: Lake, settings: Settings, day: date, counted: int) -> pa.Table:
    """Messages of the day per customer and channel that a readmit batch after `counted` brought back."""
    start, end = day_bounds(day, settings.zone)
    return lake.select(
        "readmitted_counts",
        {
            "notifications": lake.table("notifications").scan(event_datetime=(start, end), batch=(counted + 1, None)),
            "batches": lake.table("ingest_batches").scan(batch=(counted + 1, None)),
        },
    )


def _recount(
    lake: Lake, settings: Settings, day: date, customer_id: int | None = None, counted: pa.Table | None = None
) -> tuple[pa.Table, int]:
    """The day counted anew from minute_aggregates, unless it is already, and the batch up to which that counts."""
    aggregates = lake.table("minute_aggregates")
    if counted is None:
        minutes = aggregates.scan(minute=day_bounds(day, settings.zone), customer_id=only(customer_id))
        counted = lake.select("day_counts", {"minutes": minutes})
    return counted, aggregates.watermark


def _refuse_unpriced(lake: Lake, day: date, pairs: pa.Table, version: str, listed: pa.Table) -> pa.Table:
    """The unit price of each customer and channel of `pairs`. Raises BillRefused naming those without exactly one."""
    prices, unpriced = _priced(lake, day, pairs, listed)
    if unpriced:
        remedy = "import a list that has exactly one (`notif-assets import-prices FILE`)"
        channels = sorted({row["channel"] for row in unpriced})
        sentences = _unpriced_channels(unpriced, version, remedy)
        raise BillRefused(day, "every_channel_has_one_price", sentences, channels)
    return prices


def _priced(lake: Lake, day: date, pairs: pa.Table, listed: pa.Table) -> tuple[pa.Table, list[dict[str, Any]]]:
    """The unit price of each customer and channel of `pairs` that has exactly one; and the others."""
    prices = _unit_prices(lake, day, pairs, listed)
    one = pc.equal(prices["prices_found"], 1)
    return prices.filter(one), prices.filter(pc.invert(one)).to_pylist()


def _unit_prices(lake: Lake, day: date, pairs: pa.Table, listed: pa.Table) -> pa.Table:
    """How many prices each customer and channel of `pairs` has on the day, and the price of those that have one."""
    return lake.select("unit_prices", {"pairs": pairs, "prices": listed}, day=day)


def _unpriced_channels(unpriced: Iterable[dict[str, Any]], version: str, remedy: str) -> list[str]:
    """A sentence for each channel without exactly one price, and the remedy."""
    channels: dict[tuple[str, int], list[int]] = {}
    for row in unpriced:
        channels.setdefault((row["channel"], row["prices_found"]), []).append(row["customer_id"])
    return [
        f"channel {shown(channel)} has {'no price' if found == 0 else f'{found} prices'} in list {version} "
        f"(customer {customers[0]}{f' and {len(customers) - 1} more' if len(customers) > 1 else ''}): {remedy}"
        + (f"; a list names this channel as {price_list_cell(channel)}" if shown(channel) != channel else "")
        for (channel, found), customers in sorted(channels.items())
    ]


def _rows_of(lake: Lake, table: Table, day: date) -> list[dict[str, Any]]:
    return [row for row in lake.rows(table.scan()).to_pylist() if row["billing_date"] == day]


def closed_rows(lake: Lake) -> dict[date, list[dict[str, Any]]]:
    """The rows of billing_days by day: of each closed day the one that closed it, and one for each time it was priced
    anew."""
    closed: dict[date, list[dict[str, Any]]] = {}
    for row in lake.rows(lake.table("billing_days").scan()).to_pylist():
        closed.setdefault(row["billing_date"], []).append(row)
    return closed


def _newest(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of a day's rows of billing_days the one whose price list is in force."""
    return max(rows, key=lambda row: row["closed_at"])


def _day_scan(table: Table, day: date) -> Scan:
    return table.scan(partitions={(day,)})


def _billed(
    lake: Lake,
    day: date,
    status: Status,
    written: pa.Table,
    closed_now: bool,
    held: tuple[str, ...] = (),
    rejected: str | None = None,
) -> Billed:
    lines = lake.rows(_day_scan(lake.table("daily_billing"), day))
    return Billed(
        day=day,
        status=status,
        lines=lines.num_rows,
        notifications=sum(lines["notifications"].to_pylist()),
        amount=sum(lines["amount"].to_pylist(), Decimal(0)),
        currency=lines["currency"][0].as_py() if lines.num_rows else currencies_of_days(lake, [day])[day],
        adjustments=written.num_rows,
        adjusted=sums_of(with_currency(lake, written), "amount_delta"),
        closed_now=closed_now,
        accepted_losses=losses_noted(lake, day),
        held=held,
        rejected=rejected,
    )


def currencies_of_days(lake: Lake, days: Collection[date]) -> dict[date, str]:
    """The currency of the price list in force for each day: of a closed day its newest list, else the current one."""
    closed = {day: rows for day, rows in closed_rows(lake).items() if day in days}
    versions = {day: _newest(rows)["price_version"] for day, rows in closed.items()}
    known = currencies(lake)
    current = prices_in_force(lake)[1]["currency"][0].as_py()
    return {day: known[versions[day]] if day in versions else current for day in days}


def closed_days_that_differ(
    lake: Lake, settings: Settings, days: Collection[date] | None = None
) -> dict[date, list[str]]:
    """Closed days whose lines and adjustments are not the messages of the day times the price in force, with a sentence
    for each line; among `days` (None: all).

    Counts the messages themselves, up to the batch that the bill counted. Late messages that no adjustment has taken
    yet are not a difference: they are due, or held because they have no price.
    """
    found: dict[date, list[str]] = {}
    for day, rows in sorted(closed_rows(lake).items()):
        if days is not None and day not in days:
            continue
        adjustments = adjustments_of(lake, day)
        through = max([row["through_batch"] for row in rows] + adjustments["through_batch"].to_pylist())
        start, end = day_bounds(day, settings.zone)
        messages = lake.table("notifications").scan(event_datetime=(start, end), batch=(None, through + 1))
        counts = lake.select("message_counts", {"notifications": messages})
        billed = _billed_so_far(lake, day, adjustments)
        pairs = lake.select("billed_pairs", {"counts": counts, "billed": billed})
        version = _newest(rows)["price_version"]
        prices = lake.select("unit_prices", {"pairs": pairs, "prices": price_list(lake, version)}, day=day)
        if sentences := _wrongly_billed(counts, billed, prices):
            found[day] = [f"{day}, {sentence}" for sentence in sentences]
    return found


def _wrongly_billed(counts: pa.Table, billed: pa.Table, prices: pa.Table) -> list[str]:
    """The customers and channels that were not billed their count times the price, in the price's currency and in no
    other; a sentence for each. What is held, because it has no price, is left to the check on that."""
    sent, paid = _notifications_of(counts), _notifications_of(billed)
    amounts: dict[tuple[int, str], dict[str, tuple[int, Decimal]]] = {}
    for row in billed.filter(_not_nothing(billed)).to_pylist():
        of_pair = amounts.setdefault((row["customer_id"], row["channel"]), {})
        of_pair[row["currency"]] = row["notifications"], row["amount"]
    found = []
    for row in prices.to_pylist():
        key = (row["customer_id"], row["channel"])
        n, is_priced = sent.get(key, 0), row["prices_found"] == 1
        if not is_priced and paid.get(key, 0) != n:
            continue
        due = (n * row["unit_price"]).quantize(_CENT, ROUND_HALF_UP) if is_priced else None
        if amounts.get(key, {}) != ({row["currency"]: (n, due)} if n else {}):
            got = ", ".join(f"{amount} {currency}" for currency, (_, amount) in sorted(amounts.get(key, {}).items()))
            owed = f"{due} {row['currency']}" if is_priced else "which there is no price"
            found.append(f"customer {key[0]}, {key[1]}: billed {paid.get(key, 0)} for {got or 0}, sent {n} for {owed}")
    return found
