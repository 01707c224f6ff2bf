"""Old runs leave Dagster's storage: at one every twenty seconds they would fill a disk within months.

Belongs here: which runs may go, and all that a run leaves behind. Doesn't: the lake (upkeep/).
"""

from pathlib import Path

import dagster as dg
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

KEEP = 1_000

UNPARTITIONED = ("micro_batch", "all_checks", "hourly_maintenance", "daily_maintenance")
"""The jobs that run often. Jobs of partitioned assets are kept: with its run a partition's materialization goes, and it
would look as if it had never been computed."""

_CHUNK = 200


def prune_runs(instance: dg.DagsterInstance, keep: int = KEEP) -> int:
    """Deletes the ended runs of UNPARTITIONED jobs but the newest `keep` of each; gives how many."""
    deleted = 0
    for job in UNPARTITIONED:
        filters = dg.RunsFilter(job_name=job, statuses=FINISHED_STATUSES)
        newest = instance.get_run_records(filters, limit=keep)
        if len(newest) < keep:
            continue
        cursor = newest[-1].dagster_run.run_id
        while runs := instance.get_run_records(filters, limit=_CHUNK, cursor=cursor):
            for record in runs:
                delete_run(instance, record.dagster_run.run_id)
            deleted += len(runs)
    return deleted


def delete_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Deletes a run and what Dagster's own `delete_run` leaves: check evaluations, the event file, compute logs."""
    instance.delete_run(run_id)
    events = instance.event_log_storage
    if isinstance(events, SqlEventLogStorage):
        with events.index_connection() as connection:
            checks = AssetCheckExecutionsTable
            connection.execute(checks.delete().where(checks.c.run_id == run_id))
    if isinstance(events, SqliteEventLogStorage):
        for suffix in ("", "-shm", "-wal"):
            Path(f"{events.path_for_shard(run_id)}{suffix}").unlink(missing_ok=True)
    instance.compute_log_manager.delete_logs(prefix=[run_id])
