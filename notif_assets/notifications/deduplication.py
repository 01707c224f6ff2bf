"""Removes duplicates from days before they close.

Belongs here: planning and executing it, and whether a day is deduplicated. Doesn't: which of several
messages counts (duplicates.py), how rows move (silver.py).
"""

from datetime import date

from notif_assets.kafka.client import KafkaClient
from notif_assets.lake import Lake
from notif_assets.notifications.catch_up import execute_planned
from notif_assets.notifications.ledger import deduplicated_through, plan_move
from notif_assets.settings import Settings


def deduplicate(lake: Lake, client: KafkaClient, settings: Settings, through: date, run_id: str) -> None:
    """Deduplicates every day up to `through`, in every table up to the panel; does nothing if that is done already.

    Kafka is only asked if a batch was planned that no run has executed yet. Raises KafkaError, PlanRefused,
    OffsetsLost.
    """
    plan_move(lake, run_id, "dedup", dedup_through=through)
    execute_planned(lake, client, settings)


def is_deduplicated(lake: Lake, day: date) -> bool:
    """Whether minute_aggregates counts no message of the day twice."""
    through = deduplicated_through(lake, lake.table("minute_aggregates").watermark + 1)
    return through is not None and through >= day
