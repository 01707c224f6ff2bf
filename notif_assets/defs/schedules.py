"""What runs by the clock: bills, averages, checks, upkeep.

Belongs here: when, and which partitions are due then. Doesn't: what a run does (assets/), what runs because something
happened (sensors.py). A tick asks the data what is due, so it also starts what was missed while nothing ran.
"""

from datetime import UTC, date, datetime

import dagster as dg

from notif_assets.billing.closed_days import open_days_that_should_be_closed
from notif_assets.core.days import day_of, days_between
from notif_assets.defs.jobs import (
    all_checks,
    daily_billing_job,
    daily_maintenance,
    hourly_maintenance,
    invoice_averages_job,
    serving_checks_job,
)
from notif_assets.defs.partitions import billed_days, invoice_months, key_ranges
from notif_assets.instance.run_tags import range_tags
from notif_assets.lake import Lake, LakeError
from notif_assets.settings import Settings

_RUNNING = dg.DefaultScheduleStatus.RUNNING
_MOST_DAYS = 31  # asked for in one tick; what is left comes with later ones


@dg.schedule(
    job=daily_billing_job,
    cron_schedule="5 * * * *",
    default_status=_RUNNING,
    description="Closes every day that may close, yesterday once NOTIF_GRACE is past, and bills today provisionally.",
)
def bills(lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]) -> list[dg.RunRequest] | dg.SkipReason:
    if not lake.exists():
        return dg.SkipReason("nothing was ingested yet")
    try:
        due = open_days_that_should_be_closed(lake, settings)
    except LakeError as error:
        return dg.SkipReason(str(error))
    now = datetime.now(UTC)
    today = day_of(now, settings.zone)
    # The days that are over but wait for their grace, or for Kafka, are billed provisionally as today is.
    waiting = days_between(due[-1], today) if due and (today - due[-1]).days < _MOST_DAYS else [today]
    ranges = key_ranges(billed_days(settings), map(str, {*waiting, *_days_of_tick(due, int(now.timestamp()) // 3600)}))
    return [dg.RunRequest(run_key=key_range.start, tags=range_tags(key_range)) for key_range in ranges]


def _days_of_tick(due: list[date], tick: int) -> list[date]:
    """At most 31 of the days: the newest always, and of the others some in each tick, so that days that can't close
    keep no other from closing."""
    newest, others = due[-3:], due[:-3]
    pieces = [others[at : at + _MOST_DAYS - 3] for at in range(0, len(others), _MOST_DAYS - 3)]
    return [*newest, *(pieces[tick % len(pieces)] if pieces else [])]


@dg.schedule(
    job=invoice_averages_job,
    cron_schedule="0 2 1 * *",
    default_status=_RUNNING,
    description="The averages before the month that begins.",
)
def monthly_averages(
    context: dg.ScheduleEvaluationContext, lake: dg.ResourceParam[Lake]
) -> dg.RunRequest | dg.SkipReason:
    try:
        if not lake.table("invoices").watermark:
            return dg.SkipReason("no invoice was ever imported")
    except LakeError as error:
        return dg.SkipReason(str(error))
    # By the calendar of the cron: west of it the last day goes on, and it is not the month that ends which is due.
    month = context.scheduled_execution_time.astimezone(UTC).date().replace(day=1)
    (keys,) = key_ranges(invoice_months, [str(month)])
    return dg.RunRequest(tags=range_tags(keys))


checks = dg.ScheduleDefinition(
    name="checks",
    job=all_checks,
    cron_schedule="20 * * * *",
    default_status=_RUNNING,
    description="Every asset check that looks at what is in the lake.",
)
compaction = dg.ScheduleDefinition(
    name="compaction",
    job=hourly_maintenance,
    cron_schedule="35 0-3,5-23 * * *",
    default_status=_RUNNING,
    description="Small files of quiet hours and days become few.",
)
maintenance = dg.ScheduleDefinition(
    name="maintenance",
    job=daily_maintenance,
    cron_schedule="35 4 * * *",
    default_status=_RUNNING,
    description="Retention, compaction, vacuum, log clean-up, old runs.",
)
serving_checks = dg.ScheduleDefinition(
    name="serving_checks",
    job=serving_checks_job,
    cron_schedule="50 * * * *",
    default_status=_RUNNING,
    description="Holds the serving copy to the lake.",
)

SERVING_SCHEDULES = [serving_checks]
"""Those of the serving copy, where there is one."""
SCHEDULES = [bills, monthly_averages, checks, compaction, maintenance]
