"""How the partitioned assets are cut.

Belongs here: partition definitions, and ranges of their keys. Doesn't: what a partition holds (assets/), when it is
computed (schedules.py, sensors.py).
"""

from collections.abc import Iterable, Mapping
from datetime import date

import dagster as dg

from notif_assets.core.days import FIRST_DAY
from notif_assets.settings import Settings

# end_offset=1: the partition that is going on exists too, since files and questions may come before it ends.
# The days of all deployments; `billed_days` has those of one. A zone may be ahead of UTC.
billing_days = dg.DailyPartitionsDefinition(start_date=str(FIRST_DAY), end_offset=2)
invoice_months = dg.MonthlyPartitionsDefinition(start_date="2015-01-01", end_offset=1)
answer_hours = dg.HourlyPartitionsDefinition(start_date="2019-01-01-00:00", end_offset=1)
answer_days = dg.DailyPartitionsDefinition(start_date="2019-01-01", end_offset=1)

CUT_OF_JOBS: Mapping[str, dg.TimeWindowPartitionsDefinition | None] = {
    "micro_batch": None,
    "all_checks": None,
    "hourly_maintenance": None,
    "daily_maintenance": None,
    "prices_job": None,
    "serving_job": None,
    "serving_checks_job": None,
    "invoices_job": None,
    "daily_billing_job": billing_days,
    "invoice_averages_job": invoice_months,
    "chatbot_answers_job": answer_hours,
    "chatbot_reports_job": answer_days,
}
"""By what each job's runs are cut; None for a job of assets without partitions. Pruning keeps runs by it."""


def billed_days(settings: Settings) -> dg.DailyPartitionsDefinition:
    """The days that a deployment bills: from its first day to the day that goes on in its zone."""
    return dg.DailyPartitionsDefinition(str(settings.first_day), timezone=settings.timezone, end_offset=1)


def require_billed_days(settings: Settings, first: date, last: date) -> None:
    """Raises ValueError, with the sentence, unless these two days are a range that the deployment bills."""
    if last < first:
        raise ValueError(f"{last} is before {first}")
    for day in (first, last):
        if not billed_days(settings).has_partition_key(str(day)):
            raise ValueError(not_billed(str(day), settings))


def not_billed(key: str, settings: Settings) -> str:
    """Why a day is no partition of the deployment's bills."""
    return f"{key} can't be billed: days go from {settings.first_day} (NOTIF_FIRST_DAY) to today"


def closing_commands(days: Iterable[date]) -> list[str]:
    """The fewest commands that close these billing days, the newest first."""
    return [
        f"notif-assets close-day {keys.start}{f' --to {keys.end}' if keys.end != keys.start else ''}"
        for keys in reversed(key_ranges(billing_days, map(str, days)))
    ]


def key_ranges(partitions: dg.TimeWindowPartitionsDefinition, keys: Iterable[str]) -> list[dg.PartitionKeyRange]:
    """The fewest ranges that hold exactly those of `keys` that exist; a single-run materialization takes one range."""
    existing = sorted(
        (partitions.time_window_for_partition_key(key), key) for key in set(keys) if partitions.has_partition_key(key)
    )
    ranges: list[dg.PartitionKeyRange] = []
    end = None
    for window, key in existing:
        start = ranges.pop().start if window.start == end else key
        ranges.append(dg.PartitionKeyRange(start, key))
        end = window.end
    return ranges
