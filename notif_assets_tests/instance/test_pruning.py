"""What old and dead runs leave in Dagster's storage, and that it goes.

Belongs here: pruning on the repository's own dagster.yaml, locks across real processes and kill -9, slots of the dead.
Doesn't: when a sensor looks for the dead (test_sensors.py), what a killed command leaves in the lake (faults/).
"""

import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage
from sqlalchemy import select

from notif_assets.defs.partitions import CUT_OF_JOBS, billed_days, billing_days
from notif_assets.instance import pruning
from notif_assets.instance.processes import PROCESS, fail_orphaned_runs, hold_process_lock, is_alive
from notif_assets.instance.pruning import prune_runs
from notif_assets.instance.run_tags import range_tags
from notif_assets_tests.cli.deployment import ROOT, killed_at_the_end, ok
from notif_assets_tests.conftest import Deploy
from notif_assets_tests.faults.kills import killed
from notif_assets_tests.faults.truth import Truth, assert_exact
from notif_assets_tests.instance.daemon import Daemon

# --- old runs ---------------------------------------------------------------------------------------------------------


def left_behind(daemon: Daemon) -> dict[str, set[str]]:
    """The runs of which each place in Dagster's storage holds something."""
    events = daemon.instance.event_log_storage
    assert isinstance(events, SqliteEventLogStorage)
    with events.index_connection() as connection:
        checks = {row[0] for row in connection.execute(select(AssetCheckExecutionsTable.c.run_id))}
    runs = {run.run_id for run in daemon.instance.get_runs()}
    shards = Path(events.path_for_shard("x")).parent
    return {
        "runs": runs,
        "events": {path.name.split(".")[0] for path in shards.iterdir()} - {"index"},
        "checks": checks,
        "logs": {path.name for path in daemon.store.rglob("*") if path.name.count("-") == 4 and path.is_dir()},
    }


def test_of_the_runs_that_come_every_minute_only_the_newest_are_kept(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "_CHUNK", 1)
    runs = [daemon.run("micro_batch").run_id for _ in range(3)]
    maintenance = daemon.run("hourly_maintenance").run_id
    bill = daemon.bill("2020-02-03").run_id
    going_on = daemon.stuck("micro_batch", "STARTED").run_id
    before = left_behind(daemon)
    assert before["runs"] == before["events"] == {*runs, bill, maintenance, going_on}
    assert before["logs"] == {*runs, bill, maintenance}
    assert before["checks"] == {*runs, bill, going_on}

    assert prune_runs(daemon.instance, CUT_OF_JOBS, keep=1) == 2
    gone = set(runs[:2])
    assert left_behind(daemon) == {place: held - gone for place, held in before.items()}

    records = daemon.instance.get_asset_records([dg.AssetKey(name) for name in ("customer_panel", "daily_billing")])
    newest = [record.asset_entry.last_materialization for record in records]
    assert {event.run_id for event in newest if event} == {runs[-1], bill}
    assert daemon.instance.get_materialized_partitions(dg.AssetKey("daily_billing")) == {"2020-02-03"}
    assert prune_runs(daemon.instance, CUT_OF_JOBS, keep=1) == 0


def test_of_partitioned_runs_the_newest_that_succeeded_of_each_partition_is_kept(daemon: Daemon) -> None:
    first, second = daemon.bill("2020-02-03"), daemon.bill("2020-02-04")
    both = daemon.bill("2020-02-03", "2020-02-04")
    again = daemon.bill("2020-02-04")
    other = daemon.bill("2020-02-05")
    going_on = daemon.stuck("daily_billing_job", "STARTED")
    before = left_behind(daemon)
    assert prune_runs(daemon.instance, CUT_OF_JOBS, keep_partitioned=5) == 0
    assert prune_runs(daemon.instance, CUT_OF_JOBS, keep_partitioned=4) == 1
    assert left_behind(daemon) == {place: held - {first.run_id} for place, held in before.items()}
    assert prune_runs(daemon.instance, CUT_OF_JOBS, keep_partitioned=0) == 1
    kept = {run.run_id for run in (both, again, other, going_on)}
    assert left_behind(daemon)["runs"] == kept, second.run_id
    materialized = daemon.instance.get_materialized_partitions(dg.AssetKey("daily_billing"))
    assert materialized == {"2020-02-03", "2020-02-04", "2020-02-05"}
    assert prune_runs(daemon.instance, CUT_OF_JOBS, keep_partitioned=0) == 0


def test_a_run_that_failed_covers_no_partition(daemon: Daemon) -> None:
    good = daemon.bill("2020-02-03")
    failed = daemon.stuck("daily_billing_job", "FAILURE")
    daemon.instance.add_run_tags(failed.run_id, range_tags(dg.PartitionKeyRange("2020-02-03", "2020-02-03")))
    assert prune_runs(daemon.instance, CUT_OF_JOBS, keep_partitioned=0) == 0
    newer = daemon.bill("2020-02-03")
    assert prune_runs(daemon.instance, CUT_OF_JOBS, keep_partitioned=0) == 2
    assert {run.run_id for run in daemon.instance.get_runs()} == {newer.run_id} != {good.run_id}


def test_every_job_is_pruned_by_its_partitions(daemon: Daemon) -> None:
    graph = daemon.repository.asset_graph
    for job in daemon.repository.get_all_jobs():
        if not job.name.startswith("__"):
            cut = {graph.get(key).partitions_def for key in job.asset_layer.executable_asset_keys}
            pruned_by = CUT_OF_JOBS[job.name]  # bills by the days of all deployments, this one's among them
            known = billed_days(daemon.settings) if pruned_by == billing_days else pruned_by
            assert cut - {None} == {known} - {None}, job.name


# --- dead processes ---------------------------------------------------------------------------------------------------

_LIVES = (
    "import sys; from pathlib import Path; from notif_assets.instance.processes import hold_process_lock\n"
    "with hold_process_lock(Path(sys.argv[1])) as name:\n    print(name, flush=True)\n    sys.stdin.read()\n"
)
_SAYS_SO = (
    "import sys, dagster as dg; from notif_assets.instance.processes import hold_lock_until_exit\n"
    "with dg.DagsterInstance.get() as instance:\n"
    "    for run_id in sys.argv[1:] * 2:\n        hold_lock_until_exit(instance, instance.get_run_by_id(run_id))\n"
    "print('said', flush=True)\nsys.stdin.read()\n"
)


def test_a_process_is_alive_until_it_ends_however_it_ends(tmp_path: Path) -> None:
    for end in (signal.SIGKILL, None):
        with (
            subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", _LIVES, tmp_path],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            ) as process,
            killed_at_the_end(process),
        ):
            assert process.stdout is not None
            name = process.stdout.readline().decode().strip()
            assert is_alive(tmp_path, name)
            assert is_alive(tmp_path, name), "looking does not take the lock away"
            if end:
                process.send_signal(end)
                process.wait(20)
            else:
                process.communicate(timeout=20)
        assert not is_alive(tmp_path, name)
    with hold_process_lock(tmp_path) as name:
        assert is_alive(tmp_path, name)
    assert not is_alive(tmp_path, name)
    assert not is_alive(tmp_path / "elsewhere", name)


def test_runs_of_the_dead_end_and_give_their_slots_back(daemon: Daemon) -> None:
    pools = daemon.instance.event_log_storage
    for pool in ("billing", "notifications"):
        pools.initialize_concurrency_limit_to_default(pool)
    with hold_process_lock(daemon.store) as living:
        dead = [daemon.stuck(job, "STARTED", "dead") for job in ("micro_batch", "daily_billing_job")]
        others = [
            daemon.stuck("invoices_job", "STARTED", living),
            daemon.stuck("invoices_job", "STARTED"),
            daemon.stuck("invoices_job", "STARTED", "dead", launched=True),  # a copied tag
        ]
        over = daemon.stuck("micro_batch", "SUCCESS", "dead")
        assert pools.claim_concurrency_slot("notifications", dead[0].run_id, "a step").is_claimed
        assert pools.claim_concurrency_slot("billing", others[0].run_id, "a step").is_claimed
        (daemon.store / "processes" / "dead").touch()
        assert set(fail_orphaned_runs(daemon.instance, daemon.store)) == {run.run_id for run in dead}
        assert not (daemon.store / "processes" / "dead").exists()
        assert {daemon.status(run) for run in dead} == {"FAILURE"}
        assert {daemon.status(run) for run in others} == {"STARTED"}
        assert daemon.status(over) == "SUCCESS"
        assert pools.get_concurrency_info("notifications").active_slot_count == 0
        assert pools.get_concurrency_info("billing").active_run_ids == {others[0].run_id}
        assert fail_orphaned_runs(daemon.instance, daemon.store) == []


def test_what_an_ended_run_kept_of_a_pool_is_given_back_after_a_while(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slot, or a place in the queue for it; by the time that the run ended at, in whatever zone the storage is."""
    pools = daemon.instance.event_log_storage
    pools.initialize_concurrency_limit_to_default("notifications")
    holds, waits, going_on = (daemon.stuck("micro_batch", "STARTED") for _ in range(3))
    assert pools.claim_concurrency_slot("notifications", holds.run_id, "a step").is_claimed
    for waiting in (waits, going_on):
        assert not pools.claim_concurrency_slot("notifications", waiting.run_id, "a step").is_claimed
    for over in (holds, waits):
        daemon.instance.report_run_failed(over)
    fail_orphaned_runs(daemon.instance, daemon.store)
    assert pools.get_concurrency_run_ids() == {holds.run_id, waits.run_id, going_on.run_id}
    later = time.time() + 31  # free_slots_after_run_end_seconds, and one more
    monkeypatch.setattr("notif_assets.instance.processes.time.time", lambda: later)
    fail_orphaned_runs(daemon.instance, daemon.store)
    assert pools.get_concurrency_run_ids() == {going_on.run_id}
    assert pools.claim_concurrency_slot("notifications", going_on.run_id, "a step").is_claimed


def test_a_launched_run_lives_as_long_as_the_process_that_says_so(daemon: Daemon) -> None:
    """Also one that was given the tags of another run; and a command's run keeps the name of the command."""
    launched = daemon.stuck("micro_batch", "STARTED", "dead", launched=True)
    command = daemon.stuck("micro_batch", "STARTED", "a command")
    with (
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _SAYS_SO, launched.run_id, command.run_id],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process,
        killed_at_the_end(process),
        hold_process_lock(daemon.store, "a command"),
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == b"said\n"
        tags = {run.run_id: run.tags[PROCESS] for run in daemon.instance.get_runs()}
        assert tags == {launched.run_id: launched.run_id, command.run_id: "a command"}
        assert fail_orphaned_runs(daemon.instance, daemon.store) == []
        process.kill()
        process.wait(20)
        assert fail_orphaned_runs(daemon.instance, daemon.store) == [launched.run_id]


def test_a_run_that_started_and_never_said_where_it_lives_is_dead_a_minute_later(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed with whoever launched it, in the moment between its start and the first thing that it does."""
    silent = daemon.stuck("daily_billing_job", "STARTING", launched=True)
    waiting = daemon.stuck("micro_batch", "STARTING", launched=True)
    began = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, silent.job_name)
    daemon.instance.report_dagster_event(began, silent.run_id, timestamp=time.time() - 50)
    assert fail_orphaned_runs(daemon.instance, daemon.store) == []
    now = time.time()
    monkeypatch.setattr("notif_assets.instance.processes.time.time", lambda: now + 20)
    with hold_process_lock(daemon.store, silent.run_id):  # it says so now
        assert fail_orphaned_runs(daemon.instance, daemon.store) == []
    assert fail_orphaned_runs(daemon.instance, daemon.store) == [silent.run_id]
    assert (daemon.status(silent), daemon.status(waiting)) == ("FAILURE", "STARTING")


def test_a_run_that_ends_while_somebody_looks_is_left_as_it_ended(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last thing a process does is to end its run, the next is to let go of its lock."""
    run = daemon.stuck("micro_batch", "STARTED", "mine")

    def ends(folder: Path, name: str) -> bool:
        daemon.instance.report_run_canceled(run)
        return is_alive(folder, name)

    monkeypatch.setattr("notif_assets.instance.processes.is_alive", ends)
    assert fail_orphaned_runs(daemon.instance, daemon.store) == []
    assert daemon.status(run) == "CANCELED"


@pytest.mark.timeout(300)
def test_a_killed_ingest_blocks_nobody(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment, truth = deploy(2, NOTIF_BATCH_MESSAGES="60"), Truth()
    truth.send(deployment, 7, 200, datetime.now(UTC) - timedelta(minutes=5))
    assert killed(deployment, ["raw_notifications"], 2, 0, "ingest", "--until-caught-up")
    (process,) = (deployment.home / "dagster" / "processes").iterdir()
    monkeypatch.setenv("DAGSTER_HOME", str(ROOT))
    monkeypatch.setenv("DAGSTER_STORE", str(deployment.home / "dagster"))
    with dg.DagsterInstance.get() as instance:
        (run,) = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        assert run.tags[PROCESS] == process.name
        pool = instance.event_log_storage.get_concurrency_info("notifications")
        assert pool.active_run_ids == {run.run_id}
        ok(deployment.run("ingest", "--until-caught-up"))
        after = instance.get_run_by_id(run.run_id)
        assert after is not None
        assert after.status == dg.DagsterRunStatus.FAILURE
        assert instance.event_log_storage.get_concurrency_info("notifications").active_slot_count == 0
    assert list((deployment.home / "dagster" / "processes").iterdir()) == []
    assert_exact(deployment, truth)
