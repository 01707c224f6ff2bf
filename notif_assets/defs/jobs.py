"""The jobs: which assets one run materializes together.

Belongs here: selections. Doesn't: when they run (schedules.py, sensors.py), what they do (assets/).
"""

import dagster as dg

from notif_assets.defs.assets import billing, chatbot, inbox, invoices, maintenance, notifications
from notif_assets.instance.private import AssetJob
from notif_assets.settings import Settings

MICRO_BATCH = dg.AssetSelection.assets(
    "ingest_batches",
    "raw_notifications",
    "notifications",
    "rejected_notifications",
    "minute_aggregates",
    "customer_panel",
)
BILLING = dg.AssetSelection.assets("daily_billing", "billing_days", "billing_adjustments")

# After a power cut the run stays STARTED with its slot until this fails it; without it nothing would resume.
_BOUNDED = {"dagster/max_runtime": "600"}
_BOUNDED_OF_A_YEAR = {"dagster/max_runtime": "7200"}  # one run may import a year of hourly files

micro_batch = dg.define_asset_job(
    "micro_batch",
    # All but the checks that count what a whole day brought: with a run every few seconds that would be most of it.
    MICRO_BATCH - dg.AssetSelection.checks(notifications.panel_equals_messages, notifications.few_are_rejected),
    # First in the queue, for it is to be fresh; not repeated by Dagster, for the sensor starts the next one.
    tags=_BOUNDED | {"dagster/priority": "10", "dagster/max_retries": "0"},
    description="From the topic to the panel.",
)
daily_billing_job = dg.define_asset_job(
    "daily_billing_job",
    BILLING | dg.AssetSelection.checks_for_assets("daily_billing", "billing_days"),
    tags={"dagster/max_runtime": "3600"},
    description="Closes the days that may close, bills the others provisionally, corrects the closed ones.",
)
prices_job = dg.define_asset_job("prices_job", dg.AssetSelection.assets("prices"), tags=_BOUNDED)
_WITH_CHECK = dg.AssetSelection.checks(inbox.no_rows_are_set_aside)
invoices_job = dg.define_asset_job("invoices_job", _WITH_CHECK | dg.AssetSelection.assets("invoices"), tags=_BOUNDED)
invoice_averages_job = dg.define_asset_job(
    "invoice_averages_job", dg.AssetSelection.assets("invoice_window_averages"), tags=_BOUNDED_OF_A_YEAR
)
chatbot_answers_job = dg.define_asset_job(
    "chatbot_answers_job", _WITH_CHECK | dg.AssetSelection.assets("chatbot_answers"), tags=_BOUNDED_OF_A_YEAR
)
chatbot_reports_job = dg.define_asset_job(
    "chatbot_reports_job", dg.AssetSelection.assets("chatbot_reports"), tags=_BOUNDED_OF_A_YEAR
)
CHECKS = [
    *notifications.CHECKS,
    *billing.CHECKS,
    inbox.every_file_is_taken,
    inbox.no_rows_are_set_aside,
    invoices.averages_equal_a_plain_calculation,
    chatbot.reports_equal_a_plain_calculation,
]
all_checks = dg.define_asset_job(
    "all_checks",
    dg.AssetSelection.checks(*CHECKS),
    description="Every asset check that looks at what is in the lake; gates run with their assets.",
)

_COPY = dg.AssetSelection.groups("serving")
serving_job = dg.define_asset_job(
    "serving_job",
    _COPY.without_checks(),
    # A first load takes minutes; the sensor starts the next one, so Dagster repeats none.
    tags={"dagster/max_runtime": "14400", "dagster/max_retries": "0"},
    description="Brings the serving copy in PostgreSQL to where the lake is.",
)
serving_checks_job = dg.define_asset_job(
    "serving_checks_job",
    _COPY - _COPY.without_checks(),
    tags={"dagster/max_runtime": "3600"},
    description="Holds the serving copy to the lake.",
)


@dg.job(tags={"dagster/max_runtime": "3600"}, description="Small files of quiet hours become few; old runs go.")
def hourly_maintenance() -> None:
    maintenance.prune(maintenance.compact())


@dg.job(tags={"dagster/max_runtime": "14400"}, description="Retention, compaction, vacuum, log clean-up, old runs.")
def daily_maintenance() -> None:
    maintenance.prune(maintenance.maintain())


JOBS: list[dg.JobDefinition | AssetJob] = [
    micro_batch,
    daily_billing_job,
    prices_job,
    invoices_job,
    invoice_averages_job,
    chatbot_answers_job,
    chatbot_reports_job,
    all_checks,
    hourly_maintenance,
    daily_maintenance,
]
SERVING_JOBS: list[dg.JobDefinition | AssetJob] = [serving_job, serving_checks_job]
"""Those of the serving copy, where there is one."""


def jobs_of(settings: Settings) -> list[dg.JobDefinition | AssetJob]:
    """The jobs of one deployment."""
    return JOBS if settings.serving_url is None else [*JOBS, *SERVING_JOBS]
