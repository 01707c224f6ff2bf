"""The recount of a day: all its messages, or those of the customers whose closed bill may lack something.

Belongs here: which customers these are, and which files are read to count them. Doesn't: what a bill does with the
counts (lines.py, adjustments.py), the counting itself (sql/).

A bill has a batch for each customer and channel: it counts their messages up to it. A minute has the newest batch that
it counts. New messages have newer batches. A closed day loses no message: it was deduplicated before it was counted,
and deduplicating a later day removes messages of later days alone.
"""

from datetime import date

import pyarrow as pa

from notif_assets.core.days import day_bounds, hour_partitions
from notif_assets.lake import Lake, Scan, Table
from notif_assets.notifications.ledger import deduplicated_through
from notif_assets.settings import Settings


def count_day(
    lake: Lake, settings: Settings, aggregates: Table, day: date, customers: pa.Table | None = None
) -> pa.Table:
    """The day's messages per customer and channel, as sql/day_counts.sql gives them; of `customers` (customer_id), if
    they are given, from files that may hold one of them."""
    bounds = day_bounds(day, settings.zone)
    minutes: Scan | pa.Table
    if customers is None:
        minutes = aggregates.scan(minute=bounds)
    else:
        wanted = dict.fromkeys(hour_partitions(*bounds), customers["customer_id"].to_numpy())
        held = aggregates.scan_holding("customer_id", wanted, minute=bounds)
        minutes = lake.select("minutes_of_customers", {"minutes": held, "customers": customers})
    return lake.select("day_counts", {"minutes": minutes})


def customers_to_recount(
    lake: Lake, settings: Settings, aggregates: Table, day: date, counted: int, billed: dict[str, pa.Table]
) -> pa.Table | None:
    """The customers (customer_id) of whom the closed day's bill may lack something; None if that can't be told.

    `counted` is the batch up to which the day's lines count, `billed` has the inputs of sql/customers_to_recount.sql
    but for the minutes. Of these, only files with newer batches than `counted` are read.
    """
    deduplicated = deduplicated_through(lake, counted + 1)
    if deduplicated is None or deduplicated < day:
        return None  # deduplication may have removed messages of the day since
    newer = aggregates.scan(minute=day_bounds(day, settings.zone), batch=(counted + 1, None))
    return lake.select("customers_to_recount", {**billed, "minutes": newer})
