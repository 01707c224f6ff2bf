"""minute_aggregates and customer_panel: functions of silver. A batch adds its messages, and the watermark makes them
count once. Minutes that lost messages are counted again.

Belongs here: which minutes to recompute, and what the panel is made of. Doesn't: counting (sql/).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime

import pyarrow as pa
import pyarrow.compute as pc

from notif_assets.core.days import day_bounds, day_of
from notif_assets.lake import SCHEMAS, Lake, Scan, Table, until_committed
from notif_assets.lake.pieces import rows_having
from notif_assets.lake.staging import KeysByPartition, exchange, merge, rows_by_partition
from notif_assets.notifications.ledger import complete_until
from notif_assets.notifications.silver import messages_removed_by
from notif_assets.settings import Settings

_PAIR = ["customer_id", "channel"]
_KNOWN = ["customer_id", "customer_name", "channel", "last_event"]
_EMPTY_PANEL = SCHEMAS["customer_panel"].arrow.empty_table().select(_KNOWN)


@dataclass(frozen=True)
class Advance:
    """One advance of a table: the batches after `after` up to `through`, and the rows written for them."""

    after: int
    through: int
    rows: int


def advance_minutes(lake: Lake) -> Advance | None:
    """Advances minute_aggregates to the watermark of both silver tables; None if it is there already."""

    def attempt() -> Advance | None:
        aggregates, ledger = lake.table("minute_aggregates"), lake.table("ingest_batches")
        notifications = lake.table("notifications")
        after = aggregates.watermark
        through = min(notifications.watermark, lake.table("rejected_notifications").watermark)
        if through <= after:
            return None
        batches = (after + 1, through + 1)
        removed = _removed(lake, ledger, after, through)
        touched = lake.select("touched_minutes", {"added": notifications.scan(batch=batches), "removed": removed})
        if removed.num_rows:
            rows = count_minutes(lake, notifications, touched, through)
            exchange(aggregates, touched, rows, through)
            return Advance(after, through, rows.num_rows)

        def more(touched: KeysByPartition, before: pa.Table) -> pa.Table:
            added = notifications.scan(touched.keys(), batch=batches)
            return _minutes(lake, added, pa.concat_tables(touched.values()), before)

        return Advance(after, through, merge(aggregates, touched, more, through))

    return until_committed(attempt)


def count_minutes(lake: Lake, notifications: Table, touched: pa.Table, through: int) -> pa.Table:
    """The rows of minute_aggregates that `touched` names, counting batches up to `through`.

    `touched` has the columns of touched_minutes.sql. Files of other customers are not read.
    """
    wanted = {
        hour: rows["customer_id"].to_numpy() for hour, rows in rows_by_partition(notifications.schema, touched).items()
    }
    stored = notifications.scan_holding("customer_id", wanted, batch=(None, through + 1))
    return _minutes(lake, stored, touched, SCHEMAS["minute_aggregates"].arrow.empty_table())


def _minutes(lake: Lake, messages: Scan, touched: pa.Table, before: pa.Table) -> pa.Table:
    """The rows that `touched` names: the counts in `before` plus the messages."""
    return lake.select("minute_aggregates", {"notifications": messages, "touched": touched, "before": before})


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


def advance_panel(lake: Lake, settings: Settings) -> Advance | None:
    """Advances customer_panel to the watermark of minute_aggregates; None if it is there already."""

    def attempt() -> Advance | None:
        panel, aggregates = lake.table("customer_panel"), lake.table("minute_aggregates")
        after, through = panel.watermark, aggregates.watermark
        if through <= after:
            return None
        removed = _removed(lake, lake.table("ingest_batches"), after, through)
        panel_rows = lake.rows(panel.scan())
        known = panel_rows.select(_KNOWN)
        if removed.num_rows:
            known = _recheck_doubtful(lake, known, aggregates, removed)
        changed = aggregates.scan(batch=(after + 1, None))
        updated_at, day = panel_day(lake, settings, through)
        rows = lake.select(
            "customer_panel",
            {
                "known": lake.select("known_customers", {"panel": known, "minutes": changed}),
                "today": aggregates.scan(minute=day_bounds(day, settings.zone))
                if removed.num_rows or pc.unique(panel_rows["billing_date"]).to_pylist() != [day]
                else _day_counts(lake, settings, panel_rows, day, after, through),
            },
            billing_date=day,
            updated_at=updated_at,
        )
        panel.replace(rows, None, through)
        return Advance(after, through, rows.num_rows)

    return until_committed(attempt)


def _day_counts(lake: Lake, settings: Settings, panel_rows: pa.Table, day: date, after: int, through: int) -> pa.Table:
    """What the panel counts of the day, and what the batches after `after` up to `through` brought of it."""
    batches = (after + 1, through + 1)
    new_messages = lake.table("notifications").scan(event_datetime=day_bounds(day, settings.zone), batch=batches)
    counts = panel_rows.select([*_PAIR, "notifications"])
    more = lake.select("message_counts", {"notifications": new_messages}).select(counts.column_names)
    return pa.concat_tables([counts, more.cast(counts.schema)])


def _recheck_doubtful(lake: Lake, rows: pa.Table, aggregates: Table, removed: pa.Table) -> pa.Table:
    """The panel's rows, with customers read again whose newest event or name may come from a removed message.

    They are few: a duplicate is hardly ever the newest message of its customer and channel.
    """
    pairs = lake.select("doubtful_pairs", {"panel": rows, "removed": removed})
    doubtful = pc.is_in(rows["customer_id"], value_set=pairs["customer_id"])
    return pa.concat_tables([rows.filter(pc.invert(doubtful)), *_newest_minutes(lake, aggregates, pairs)])


def _newest_minutes(lake: Lake, aggregates: Table, pairs: pa.Table) -> Iterator[pa.Table]:
    """Newest event and name of each customer and channel asked for, none of which has an event after its `last_event`.

    Most are in the hour of their `last_event`. The search for the others goes through all hours, newest first.
    """
    hours = {(moment.date(), moment.hour) for moment in pairs["last_event"].to_pylist() if moment}
    found = _newest_in(lake, aggregates, hours, pairs)
    # These hours are no unbroken row: a pair found only in another pair's hour may have a newer minute in between.
    found = found.filter(pa.array(rows_having(_with_hour(found), _with_hour(pairs).select([*_PAIR, "hour"]))))
    yield found
    for group in _backwards(aggregates):
        pairs = pairs.filter(pa.array(~rows_having(pairs, found.select(_PAIR))))
        if not pairs.num_rows:
            return
        found = _newest_in(lake, aggregates, group, pairs)
        yield found


def _newest_in(lake: Lake, aggregates: Table, hours: Iterable[tuple[date, int]], pairs: pa.Table) -> pa.Table:
    """Newest event and name that each of the customers and channels asked for has in these hours."""
    held = aggregates.scan_holding("customer_id", dict.fromkeys(hours, pairs["customer_id"].to_numpy()))
    found = lake.select("known_customers", {"panel": _EMPTY_PANEL, "minutes": held}).select(_KNOWN)
    return found.filter(pa.array(rows_having(found, pairs.select(_PAIR))))


def _with_hour(rows: pa.Table) -> pa.Table:
    return rows.append_column("hour", pc.floor_temporal(rows["last_event"], unit="hour"))


def _backwards(aggregates: Table) -> Iterator[list[tuple[date, int]]]:
    """All hours that have minutes, newest first: 24, and twice as many each time."""
    hours: list[tuple[date, int]] = sorted(aggregates.scan().partitions, reverse=True)
    start, many = 0, 24
    while start < len(hours):
        yield hours[start : start + many]
        start, many = start + many, 2 * many


def panel_day(lake: Lake, settings: Settings, batch: int) -> tuple[datetime | None, date]:
    """Up to when all is counted at `batch`, and the billing day the panel then shows.

    Before the first catch-up nothing is complete, and the day is that of the plan itself.
    """
    updated_at = complete_until(lake, batch)
    ledger: Mapping[str, list[datetime]] = lake.select(
        "batch_ranges", {"batches": lake.table("ingest_batches").scan(batch=(batch, batch + 1))}
    ).to_pydict()
    return updated_at, day_of(updated_at or ledger["planned_at"][0], settings.zone)
