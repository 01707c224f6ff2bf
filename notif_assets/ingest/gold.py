"""minute_aggregates and customer_panel: functions of silver, recomputed where a batch changed something.

Belongs here: which minutes to recompute, and what the panel is made of. Doesn't: counting (sql/).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

import pyarrow as pa

from notif_assets.core.days import day_bounds, day_of
from notif_assets.ingest.ledger import complete_until
from notif_assets.ingest.silver import messages_removed_by
from notif_assets.lake import SCHEMAS, Lake, Scan, Table, until_committed
from notif_assets.lake.staging import exchange, rows_by_partition
from notif_assets.settings import Settings


@dataclass(frozen=True)
class Advance:
    """How far a table came: the batches after `after` up to `through`, and the rows written for them."""

    after: int
    through: int
    rows: int


def take_minutes(lake: Lake) -> Advance | None:
    """Brings minute_aggregates up to what both silver tables hold; None if it is there already."""

    def attempt() -> Advance | None:
        aggregates, ledger = lake.table("minute_aggregates"), lake.table("ingest_batches")
        notifications = lake.table("notifications")
        after = aggregates.watermark
        through = min(notifications.watermark, lake.table("rejected_notifications").watermark)
        if through <= after:
            return None
        touched = lake.select(
            "touched_minutes",
            {
                "added": notifications.scan(batch=(after + 1, through + 1)),
                "removed": _removed(lake, ledger, after, through),
            },
        )
        rows = count_minutes(lake, notifications, touched, through)
        exchange(aggregates, touched, rows, through)
        return Advance(after, through, rows.num_rows)

    return until_committed(attempt)


def count_minutes(lake: Lake, notifications: Table, touched: pa.Table, through: int) -> pa.Table:
    """The rows of minute_aggregates that `touched` names, counting batches up to `through`.

    `touched` has the columns of touched_minutes.sql. Files of other customers are not read.
    """
    wanted = {
        hour: rows["customer_id"].to_numpy() for hour, rows in rows_by_partition(notifications.schema, touched).items()
    }
    stored = notifications.scan_holding("customer_id", wanted, batch=(None, through + 1))
    return lake.select("minute_aggregates", {"notifications": stored, "touched": touched})


def _removed(lake: Lake, ledger: Table, after: int, through: int) -> pa.Table:
    moved = moves_between(lake, ledger, after, through)
    schema = SCHEMAS["notifications"].arrow
    columns = pa.schema([schema.field(name) for name in ("customer_id", "channel", "event_datetime")])
    pieces = [messages_removed_by(lake, number).select(columns.names).cast(columns) for number in moved]
    return pa.concat_tables([columns.empty_table(), *pieces])


def moves_between(lake: Lake, ledger: Table, after: int, through: int) -> list[int]:
    """The dedup batches after `after` up to `through`: those that take rows out of silver."""
    batches = ledger.scan(batch=(after + 1, through + 1))
    numbers: list[int] = lake.select("dedup_batches", {"batches": batches})["batch"].to_pylist()
    return numbers


def take_panel(lake: Lake, settings: Settings) -> Advance | None:
    """Brings customer_panel up to minute_aggregates; None if it is there already."""

    def attempt() -> Advance | None:
        panel, aggregates = lake.table("customer_panel"), lake.table("minute_aggregates")
        after, through = panel.watermark, aggregates.watermark
        if through <= after:
            return None
        before_this = after
        if moves_between(lake, lake.table("ingest_batches"), after, through):
            after = 0  # a removed message may have been the only one of its customer and channel: look at all again
        changed = aggregates.scan(batch=(after + 1, None))
        before: Scan | pa.Table = panel.scan() if after else SCHEMAS["customer_panel"].arrow.empty_table()
        known = lake.select("known_customers", {"panel": before, "minutes": changed})
        updated_at, day = panel_day(lake, settings, through)
        start, end = day_bounds(day, settings.zone)
        rows = lake.select(
            "customer_panel",
            {"known": known, "today": aggregates.scan(minute=(start, end))},
            billing_date=day,
            updated_at=updated_at,
        )
        panel.replace(rows, None, through)
        return Advance(before_this, through, rows.num_rows)

    return until_committed(attempt)


def panel_day(lake: Lake, settings: Settings, batch: int) -> tuple[datetime | None, date]:
    """Up to when all is counted at `batch`, and the billing day the panel then shows.

    Before the first catch-up nothing is complete, and the day is that of the plan itself.
    """
    updated_at = complete_until(lake, batch)
    ledger: Mapping[str, list[datetime]] = lake.select(
        "batch_ranges", {"batches": lake.table("ingest_batches").scan(batch=(batch, batch + 1))}
    ).to_pydict()
    return updated_at, day_of(updated_at or ledger["planned_at"][0], settings.zone)
