"""Upkeep as Dagster runs it: the lake and Dagster's own storage, every hour and every day.

Belongs here: ops, for upkeep makes no asset. Doesn't: the work (maintenance/, pruning.py), when it runs (schedules.py).
"""

from datetime import UTC, datetime

import dagster as dg

from notif_assets.defs.partitions import CUT_OF_JOBS
from notif_assets.instance.pruning import prune_runs
from notif_assets.lake import Lake
from notif_assets.maintenance.maintain import compact_tables
from notif_assets.maintenance.maintain import maintain as maintain_lake
from notif_assets.settings import Settings

POOL = "upkeep"


@dg.op(pool=POOL, out=dg.Out(dg.Nothing), description="Merges the small files of hours and days that have gone quiet.")
def compact(context: dg.OpExecutionContext, lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]) -> None:
    _log_lines(context, compact_tables(lake, settings, datetime.now(UTC), context.log.info))


@dg.op(
    pool=POOL,
    out=dg.Out(dg.Nothing),
    description="Retention, compaction, vacuum and log clean-up of every table.",
)
def maintain(
    context: dg.OpExecutionContext, lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]
) -> None:
    _log_lines(context, maintain_lake(lake, settings, datetime.now(UTC), context.log.info))


@dg.op(ins={"maintained": dg.In(dg.Nothing)}, description="Deletes what old runs left in Dagster's storage.")
def prune(context: dg.OpExecutionContext) -> None:
    _log_lines(context, [f"{prune_runs(context.instance, CUT_OF_JOBS)} old runs deleted"])


def _log_lines(context: dg.OpExecutionContext, lines: list[str]) -> None:
    for line in lines:
        context.log.info(line)
