"""The books as tests write them: a day is deduplicated first if it may close, as a run does.

Belongs here: what a run of the bill does, without Dagster. Doesn't: what is then in the tables.
"""

from datetime import date

from notif_assets.billing import closing
from notif_assets.billing.closing import Billed
from notif_assets.kafka.client import KafkaClient
from notif_assets.lake import Lake
from notif_assets.notifications.deduplication import deduplicate
from notif_assets.settings import Settings


def close_day(
    lake: Lake, settings: Settings, client: KafkaClient, day: date, run_id: str, *, whole: bool = True
) -> Billed:
    _deduplicate(lake, settings, client, day, run_id)
    return closing.close_day(lake, settings, day, run_id, whole=whole)


def bill_day(lake: Lake, settings: Settings, client: KafkaClient, day: date, run_id: str) -> Billed:
    _deduplicate(lake, settings, client, day, run_id)
    return closing.bill_day(lake, settings, day, run_id)


def _deduplicate(lake: Lake, settings: Settings, client: KafkaClient, day: date, run_id: str) -> None:
    if closing.last_closable_day(lake, settings, [day]):
        deduplicate(lake, client, settings, day, run_id)
