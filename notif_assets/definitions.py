"""The code location: assembles, decides nothing.

Belongs here: which assets, checks, jobs, schedules, sensors and resources there are. Doesn't: any of them (defs/).
`build_definitions(settings)` is what Dagster, the command line and the tests use; it opens nothing.
"""

import logging
from functools import cache, partial
from multiprocessing import parent_process

import dagster as dg

from notif_assets.defs.assets import billing, chatbot, inbox, invoices, notifications, serving
from notif_assets.defs.jobs import CHECKS, jobs_of
from notif_assets.defs.partitions import billed_days, billing_days
from notif_assets.defs.resources import resources_of
from notif_assets.defs.schedules import SCHEDULES, SERVING_SCHEDULES
from notif_assets.defs.sensors import SENSORS, SERVING_SENSORS
from notif_assets.instance.processes import end_at_sigterm, fork_run_processes, in_process_executor
from notif_assets.kafka.client import OpenClient
from notif_assets.lake import SCHEMAS
from notif_assets.notifications.bronze import AdvanceBronze, advance_bronze
from notif_assets.settings import Settings, unknown_variables


def build_definitions(
    settings: Settings, kafka: OpenClient | None = None, advance_bronze: AdvanceBronze = advance_bronze
) -> dg.Definitions:
    """The definitions of one deployment. `kafka` opens another client than the settings name (tests); `advance_bronze`
    is how a run gets its batches of the topic."""
    of_topic = {} if kafka is None else {"kafka": kafka, "impatient_kafka": kafka}
    has_copy = settings.serving_url is not None
    definitions = dg.Definitions(
        assets=dg.with_source_code_references(
            [
                notifications.kafka_topic,
                notifications.ingest_losses,
                notifications.raw_notifications,
                notifications.notifications,
                notifications.minute_aggregates,
                notifications.customer_panel,
                billing.price_file,
                billing.prices,
                billing.daily_billing,
                inbox.inbox,
                inbox.rejected_file_rows,
                invoices.invoices,
                invoices.invoice_window_averages,
                chatbot.chatbot_answers,
                chatbot.chatbot_reports,
                *([serving.copies(settings)] if has_copy else []),
            ]
        ),
        asset_checks=[*CHECKS, *([serving.copy_checks(settings)] if has_copy else [])],
        jobs=jobs_of(settings),
        schedules=[*SCHEDULES, *(SERVING_SCHEDULES if has_copy else [])],
        sensors=[*SENSORS, *(SERVING_SENSORS if has_copy else [])],
        resources=resources_of(settings, advance_bronze) | of_topic,
        executor=in_process_executor,
    )
    return definitions.map_asset_specs(func=partial(_deployed, settings))


def _deployed(settings: Settings, spec: dg.AssetSpec) -> dg.AssetSpec:
    """The spec, with the days that this deployment bills and where its table lies."""
    name = spec.key.to_user_string()
    if spec.partitions_def == billing_days:
        spec = spec.replace_attributes(partitions_def=billed_days(settings))
    return spec.merge_attributes(metadata={"dagster/uri": str(settings.lake / name)}) if name in SCHEMAS else spec


@dg.definitions
def defs() -> dg.Definitions:
    """What the code location loads, with the settings of the environment."""
    fork_run_processes()
    end_at_sigterm()
    _warn_of_unknown_variables()
    return build_definitions(Settings())


@cache
def _warn_of_unknown_variables() -> None:
    """Warns once in a code server, which loads the definitions several times. Each run loads them again."""
    if parent_process() is None:
        for sentence in unknown_variables():
            logging.getLogger(__name__).warning(sentence)
