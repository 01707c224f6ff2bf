"""The corrections of closed days: lines + adjustments = the recount, always.

Belongs here: which days and channels are due, what each is owed, and what is held because it has no price. Doesn't: the
arithmetic (sql/), the lines of the bill (lines.py).
"""

from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from notif_assets.billing.closed_days import closed_rows, day_scan, newest_row, rows_of_day
from notif_assets.billing.lines import priced, unit_prices_of, unpriced_channels
from notif_assets.billing.prices import price_list, with_currency
from notif_assets.billing.recount import count_day, customers_to_recount
from notif_assets.core.days import day_bounds, day_of
from notif_assets.lake import Lake, Scan, Table
from notif_assets.settings import Settings

_RECENT = timedelta(hours=6)


def adjustments_of(lake: Lake, day: date) -> pa.Table:
    """The day's adjustments, each with its currency."""
    return with_currency(lake, lake.rows(day_scan(lake.table("billing_adjustments"), day)))


def write_adjustments(
    lake: Lake, settings: Settings, day: date, run_id: str, whole: bool
) -> tuple[pa.Table, tuple[str, ...]]:
    """Writes the priced adjustments that a closed day lacks. Returns the rows, and a sentence for each held channel."""
    adjustments = lake.table("billing_adjustments")
    due, held = _adjustments_due(lake, settings, day, adjustments, run_id, whole=whole)
    if due.num_rows:
        adjustments.append(due)
    return due, held


def billed_so_far(lake: Lake, day: date, adjustments: pa.Table, lines: pa.Table | None = None) -> pa.Table:
    """What each customer and channel was billed for the day in each currency, by its lines (read unless given) and
    these adjustments, as adjustments_of has them."""
    lines = lake.rows(day_scan(lake.table("daily_billing"), day)) if lines is None else lines
    return lake.select("billed_so_far", {"lines": lines, "adjustments": adjustments})


def is_not_zero(billed: pa.Table) -> pa.ChunkedArray:
    return pc.or_(pc.not_equal(billed["notifications"], 0), pc.not_equal(billed["amount"], Decimal(0)))


def _adjustments_due(
    lake: Lake, settings: Settings, day: date, adjustments: Table, run_id: str, *, whole: bool = False
) -> tuple[pa.Table, tuple[str, ...]]:
    """The adjustments that a closed day lacks: recount × price, minus everything billed for it. Also a sentence for
    each channel that has no price and is held. `whole` as in close_day."""
    closed = rows_of_day(lake, lake.table("billing_days"), day)
    version = newest_row(closed)["price_version"]
    aggregates, listed = lake.table("minute_aggregates"), price_list(lake, version)
    lines = lake.rows(day_scan(lake.table("daily_billing"), day))
    before = with_currency(lake, lake.rows(day_scan(adjustments, day)))
    billed = billed_so_far(lake, day, before, lines)
    customers = None
    if not whole:
        books = {"lines": lines, "adjustments": before, "unit_prices": unit_prices_of(lake, day, billed, listed)}
        counted_by_lines = min(row["through_batch"] for row in closed)
        customers = customers_to_recount(lake, settings, aggregates, day, counted_by_lines, books)
    if customers is not None:
        if not customers.num_rows:
            return adjustments.schema.arrow.empty_table(), ()
        billed = billed.filter(pc.is_in(billed["customer_id"], value_set=customers["customer_id"]))
    counts, through = count_day(lake, settings, aggregates, day, customers), aggregates.watermark
    pairs = lake.select("billed_pairs", {"counts": counts, "billed": billed})
    prices, unpriced = priced(lake, day, pairs, listed)
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
    return due, tuple(unpriced_channels(held, version, remedy))


def _differing(unpriced: list[dict[str, Any]], counts: pa.Table, billed: pa.Table) -> list[dict[str, Any]]:
    """The rows whose count differs from what was billed. The others owe nothing at any price."""
    if not unpriced:
        return []
    sent, paid = (notifications_by_pair(table) for table in (counts, billed))
    keys = [(row["customer_id"], row["channel"]) for row in unpriced]
    return [row for row, key in zip(unpriced, keys, strict=True) if sent.get(key, 0) != paid.get(key, 0)]


def notifications_by_pair(rows: pa.Table) -> dict[tuple[int, str], int]:
    """The notifications of each customer and channel, summed over currencies."""
    found: dict[tuple[int, str], int] = {}
    for row in rows.select(["customer_id", "channel", "notifications"]).to_pylist():
        key = row["customer_id"], row["channel"]
        found[key] = found.get(key, 0) + row["notifications"]
    return found


def unpriced_late_messages(
    lake: Lake, settings: Settings, after: int = 0, recheck: Collection[date] = ()
) -> tuple[dict[date, str], int]:
    """What the closed days can't bill of the messages that came after they closed: a sentence for each such day, among
    those that batches after `after` changed and the days `again`. Also the batch up to which that is the whole answer.

    A day is counted only if one of these messages has no price of its own.
    """
    aggregates, adjustments = lake.table("minute_aggregates"), lake.table("billing_adjustments")
    days = _days_changed(lake, settings, aggregates, after) | set(recheck)
    found: dict[date, str] = {}
    for day, rows in closed_rows(lake).items():
        if day not in days:
            continue
        closed_through = min(row["through_batch"] for row in rows)
        since = max(closed_through, 0 if day in recheck else after)
        late = aggregates.scan(minute=day_bounds(day, settings.zone), batch=(since + 1, None))
        if late.files and _has_unpriced_pair(lake, day, late, newest_row(rows)["price_version"]):
            _, held = _adjustments_due(lake, settings, day, adjustments, "")
            found |= {day: held_sentence(day, held)} if held else {}
    return found, aggregates.watermark


def _has_unpriced_pair(lake: Lake, day: date, minutes: Scan, version: str) -> bool:
    """Whether a customer and channel of the day's minutes has not exactly one price in that list."""
    pairs = lake.select("pairs_of_minutes", {"minutes": minutes})
    return bool(priced(lake, day, pairs, price_list(lake, version))[1])


def _days_changed(lake: Lake, settings: Settings, aggregates: Table, after: int) -> set[date]:
    """The days of the minutes that batches after `after` changed."""
    changed = lake.select("changed_minutes", {"minutes": aggregates.scan(batch=(after + 1, None))})["minute"]
    return {day_of(minute, settings.zone) for minute in changed.to_pylist()}


def held_sentence(day: date, held: Sequence[str]) -> str:
    """One sentence on the held adjustments of a closed day."""
    return f"{day} is closed, and messages that came late are not billed: {'; '.join(held)}"


def days_with_adjustments_due(lake: Lake, settings: Settings, after: int) -> tuple[list[date], int]:
    """The closed days whose bill lacks an adjustment, among those that batches after `after` changed; nothing is
    written. Also the batch up to which that is the whole answer. What has no price is not due: a check tells of it.
    Days closed or repriced lately are looked at whatever changed: a run that was killed may have left the adjustments.
    """
    aggregates = lake.table("minute_aggregates")
    closed = {day: newest_row(rows)["closed_at"] for day, rows in closed_rows(lake).items()}
    recently_closed = {day for day, moment in closed.items() if moment > datetime.now(UTC) - _RECENT}
    days = _days_changed(lake, settings, aggregates, after) | recently_closed
    adjustments = lake.table("billing_adjustments")
    due = [
        day
        for day in sorted(days & closed.keys())
        if _adjustments_due(lake, settings, day, adjustments, "")[0].num_rows
    ]
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
