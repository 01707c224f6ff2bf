"""The life of a day's bill: provisional until the day closes, then final, then corrected by adjustments.

Belongs here: when a day may close, what must hold before its rows are written, and an order of commits that survives a
killed run. Doesn't: what is on the bill (lines.py, adjustments.py), where a day begins (core/days.py),
reports.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa

from notif_assets.billing.adjustments import adjustments_of, billed_so_far, is_not_zero, write_adjustments
from notif_assets.billing.closed_days import (
    closed_days,
    currencies_of_days,
    day_scan,
    is_closed,
    losses_noted,
    newest_row,
    rejections_noted,
    rows_of_day,
)
from notif_assets.billing.lines import BillRefused, Status, lines_of, refuse_unpriced, wrong_lines
from notif_assets.billing.prices import ensure_prices, price_list, with_currency
from notif_assets.core.amounts import sum_column_by_currency
from notif_assets.core.days import day_bounds
from notif_assets.errors import Refusal
from notif_assets.lake import SCHEMAS, Lake, sql_literal, until_committed
from notif_assets.notifications.audit import accepted_losses, offsets_taken_once, repeated_messages
from notif_assets.notifications.deduplication import is_deduplicated
from notif_assets.notifications.ledger import complete_until
from notif_assets.settings import Settings


class NotClosable(Refusal):
    """The day can't close yet. The message says up to when everything is counted, and up to when it must be."""


@dataclass(frozen=True)
class Billed:
    """What one call did to one day's bill."""

    day: date
    status: Status
    lines: int
    notifications: int
    amount: Decimal
    currency: str
    """The currency of `amount`: one price list, with one currency, prices a day's lines."""
    adjustments: int
    adjusted: Mapping[str, Decimal]
    """The sum of the adjustments in each currency."""
    closed_now: bool
    accepted_losses: str | None
    held: tuple[str, ...] = ()
    """A sentence for each channel of the closed day that is not billed for lack of a price, with the remedy."""
    rejected: str | None = None


def bill_day(lake: Lake, settings: Settings, day: date, run_id: str, *, whole: bool = True) -> Billed:
    """Brings the day's bill up to date: closes it if it may close, else writes provisional lines; a closed day gets
    the adjustments that are due and can be priced, see close_day. Raises BillRefused before anything is written."""
    if not is_closed(lake, day):
        try:
            return close_day(lake, settings, day, run_id)
        except NotClosable:
            return _write_provisional(lake, settings, day, run_id)
    return close_day(lake, settings, day, run_id, whole=whole)


def close_day(lake: Lake, settings: Settings, day: date, run_id: str, *, whole: bool = True) -> Billed:
    """Closes the day, or writes the adjustments that are due if it is closed. Raises NotClosable, BillRefused.

    A day that was not deduplicated does not close (notifications/deduplication.py). On a closed day a channel without a
    price does not delay the others: the result says what is held. A closed day is counted whole, or only for the
    customers whose bill may lack something (recount.py). Both give the same unless the day's minutes were repaired.
    """
    closed_now = False
    if not is_closed(lake, day):
        _require_complete(lake, settings, day)
        _require_deduplicated(lake, day)
        ensure_prices(lake)
        closed_now = until_committed(lambda: _close(lake, settings, day, run_id))
    written, held = until_committed(lambda: write_adjustments(lake, settings, day, run_id, whole))
    rejected = rejections_noted(lake, settings, day) if closed_now else None
    return _billed(lake, day, "final", written, closed_now, held, rejected)


def reprice(lake: Lake, settings: Settings, day: date, note: str, run_id: str) -> Billed:
    """Prices the closed day with the current price list. The differences become adjustments.

    Raises NotClosable if the day is not closed, BillRefused if the list can't price what is billed already. A held
    channel that has no price in this list stays held.
    """
    version = ensure_prices(lake)

    def attempt() -> None:
        days = lake.table("billing_days")
        rows = rows_of_day(lake, days, day)
        if not rows:
            raise NotClosable(
                f"{day} is open: open days take the current prices anyway, `close-day {day}` when it ends"
            )
        newest = newest_row(rows)
        billed = billed_so_far(lake, day, adjustments_of(lake, day))
        refuse_unpriced(lake, day, billed.filter(is_not_zero(billed)), version, price_list(lake, version))
        if newest["price_version"] == version:
            return
        row = {**newest, "status": "repriced", "price_version": version, "note": note, "run_id": run_id}
        row["closed_at"] = max(datetime.now(UTC), newest["closed_at"])
        days.append(pa.Table.from_pylist([row], schema=SCHEMAS["billing_days"].arrow))

    until_committed(attempt)
    return close_day(lake, settings, day, run_id)


def last_closable_day(lake: Lake, settings: Settings, days: Collection[date]) -> date | None:
    """The last open day of these whose messages are all counted; None if there is none."""
    until, closed = _complete_until(lake), closed_days(lake)
    ready = (day for day in days if until is not None and until >= _required_until(settings, day))
    return max((day for day in ready if day not in closed), default=None)


def _complete_until(lake: Lake) -> datetime | None:
    until = complete_until(lake, lake.table("minute_aggregates").watermark)
    # A time in the future comes from a clock that was wrong.
    return None if until is None else min(until, datetime.now(UTC))


def _required_until(settings: Settings, day: date) -> datetime:
    return day_bounds(day, settings.zone)[1] + settings.grace


def _require_complete(lake: Lake, settings: Settings, day: date) -> None:
    until, needed = _complete_until(lake), _required_until(settings, day)
    if until is None or until < needed:
        seen = (
            f"all messages are counted up to {until:%Y-%m-%dT%H:%M:%S%z}" if until else "not all messages are counted"
        )
        raise NotClosable(
            f"{day} can't close yet: {seen}, and it must be so past {needed:%Y-%m-%dT%H:%M:%S%z} (the day's end plus "
            "NOTIF_GRACE); ingest until then (`notif-assets ingest --until-caught-up`), then close it again"
        )


def _require_deduplicated(lake: Lake, day: date) -> None:
    if not is_deduplicated(lake, day):
        raise NotClosable(
            f"{day} can't close yet: messages may be counted twice; `notif-assets close-day {day}` mends it"
        )


def _close(lake: Lake, settings: Settings, day: date, run_id: str) -> bool:
    """Writes the final lines, then the closed day. True if this call closed it."""
    billing, days = lake.table("daily_billing"), lake.table("billing_days")
    if rows_of_day(lake, days, day):
        return False
    lines = lake.rows(day_scan(billing, day))
    through = lines["through_batch"][0].as_py() if lines.num_rows else 0
    if "final" not in lines["status"].to_pylist():
        lines, through = lines_of(lake, settings, day, "final", run_id)
        _refuse_wrong_inputs(lake, settings, day, lines, through)
        billing.replace(lines, f"billing_date = {sql_literal(day)}")
    start, end = day_bounds(day, settings.zone)
    # Final lines without a closed day: a run was killed in between. They were visible, so they become the closed bill.
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
        # The record keeps the losses of the time when the day's messages arrived.
        "note": "; ".join(accepted_losses(lake, start, end + settings.grace)) or None,
    }
    days.append(pa.Table.from_pylist([row], schema=SCHEMAS["billing_days"].arrow))
    return True


def _refuse_wrong_inputs(lake: Lake, settings: Settings, day: date, lines: pa.Table, through: int) -> None:
    """Proves the inputs of the bill for this day, whether or not checks ran before."""
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
        if is_closed(lake, day) or "final" in lake.rows(day_scan(billing, day))["status"].to_pylist():
            return  # another process is closing it
        lines, _ = lines_of(lake, settings, day, "provisional", run_id)
        billing.replace(lines, f"billing_date = {sql_literal(day)}")

    until_committed(attempt)
    return _billed(lake, day, "provisional", SCHEMAS["billing_adjustments"].arrow.empty_table(), False)


def _billed(
    lake: Lake,
    day: date,
    status: Status,
    written: pa.Table,
    closed_now: bool,
    held: tuple[str, ...] = (),
    rejected: str | None = None,
) -> Billed:
    lines = lake.rows(day_scan(lake.table("daily_billing"), day))
    return Billed(
        day=day,
        status=status,
        lines=lines.num_rows,
        notifications=sum(lines["notifications"].to_pylist()),
        amount=sum(lines["amount"].to_pylist(), Decimal(0)),
        currency=lines["currency"][0].as_py() if lines.num_rows else currencies_of_days(lake, [day])[day],
        adjustments=written.num_rows,
        adjusted=sum_column_by_currency(with_currency(lake, written), "amount_delta"),
        closed_now=closed_now,
        accepted_losses=losses_noted(lake, day),
        held=held,
        rejected=rejected,
    )
