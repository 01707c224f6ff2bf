"""Deletes old runs from Dagster's storage: a run every twenty seconds would fill a disk within months.

Belongs here: which runs may be deleted, and everything that a run leaves behind. Doesn't: the lake (maintenance/).
"""

from collections.abc import Mapping
from pathlib import Path

import dagster as dg
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

from notif_assets.instance.private import FINISHED_STATUSES
from notif_assets.instance.run_tags import keys_of

KEEP = 1_000
"""Runs kept of each job without partitions: a few hours of micro-batches, or years of price lists."""
KEEP_PARTITIONED = 200
"""Runs kept of each job with partitions, successful or not."""

_CHUNK = 200


def prune_runs(
    instance: dg.DagsterInstance,
    cut_of_jobs: Mapping[str, dg.TimeWindowPartitionsDefinition | None],
    keep: int = KEEP,
    keep_partitioned: int = KEEP_PARTITIONED,
) -> int:
    """Deletes ended runs of these jobs, each given with the partitions of its assets; gives how many it deleted.

    Of a job without partitions the newest `keep` runs stay. Of a partitioned one the newest `keep_partitioned` stay,
    and the newest successful run of each partition: deleting a run deletes its materializations, and the partition
    would look as if it had never been computed.
    """
    deleted = 0
    for job, partitions in cut_of_jobs.items():
        covered: set[str] = set()
        for index, run in enumerate(_ended_runs(instance, job)):
            keys = set() if partitions is None else keys_of(partitions, run.tags)
            if index >= (keep if partitions is None else keep_partitioned) and covered >= keys:
                delete_run(instance, run.run_id)
                deleted += 1
            elif run.status == dg.DagsterRunStatus.SUCCESS:
                covered |= keys
    return deleted


def _ended_runs(instance: dg.DagsterInstance, job: str) -> list[dg.DagsterRun]:
    """The ended runs of a job, newest first."""
    filters = dg.RunsFilter(job_name=job, statuses=FINISHED_STATUSES)
    found: list[dg.DagsterRun] = []
    while runs := instance.get_runs(filters, limit=_CHUNK, cursor=found[-1].run_id if found else None):
        found += runs
    return found


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
