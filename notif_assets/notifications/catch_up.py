"""All tables between Kafka and the panel, one after the other.

Belongs here: carrying what is planned through to the end, for callers that are not a micro-batch run of assets.
Doesn't: each table's step (bronze.py, silver.py, gold.py).
"""

from notif_assets.kafka.client import KafkaClient
from notif_assets.lake import Lake
from notif_assets.notifications import bronze, gold, silver
from notif_assets.settings import Settings


def execute_planned(lake: Lake, client: KafkaClient, settings: Settings) -> None:
    """Executes every batch that is planned, through to customer_panel; plans none."""
    while bronze.execute_next_batch(lake, client) is not None:
        pass
    advance_tables(lake, settings)


def advance_tables(lake: Lake, settings: Settings) -> None:
    """Advances every table after raw_notifications to its watermark."""
    for _ in silver.advance_silver(lake, settings):
        pass
    gold.advance_minutes(lake)
    gold.advance_panel(lake, settings)


def committed_ends(lake: Lake) -> dict[int, int]:
    """The offset of each partition up to which every table, customer_panel too, holds the topic."""
    batch = lake.table("customer_panel").watermark
    ends = lake.select("committed_ends", {"batches": lake.table("ingest_batches").scan()}, batch=batch)
    return dict(zip(ends["kafka_partition"].to_pylist(), ends["end_offset"].to_pylist(), strict=True))
