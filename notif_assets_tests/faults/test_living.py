"""Faults of a living deployment that kill nothing: everybody at once, a run cancelled in the UI, a slot that a dead
process holds, a full disk. Each time the daemon goes on by itself, and every table is exact.

Belongs here: the three processes of production. Doesn't: kills at random moments (test_killed_anything.py).
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial

import dagster as dg
import pytest
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES

from notif_assets_tests.cli.deployment import ended, killed_at_the_end, ok, until
from notif_assets_tests.conftest import Deploy
from notif_assets_tests.faults.disks import Disk, disk
from notif_assets_tests.faults.kills import FLOW, SMALL, impatient, killed, until_committed
from notif_assets_tests.faults.orphans import assert_maintenance_removes_orphans
from notif_assets_tests.faults.truth import assert_exact, assert_nothing_wrong_so_far
from notif_assets_tests.instance.conductor import DAEMON, Conductor, Production, conducted

pytestmark = pytest.mark.timeout(600)
POOL = "notifications"


@pytest.fixture(scope="module")
def small(deploy: Deploy) -> Iterator[tuple[Conductor, Disk]]:
    """A conductor whose lake has a disk of its own."""
    deployment = impatient(deploy(4, **SMALL, NOTIF_RUN_EVERY="1s", NOTIF_RETRY_AFTER="1s"))
    with disk(deployment.lake.root, 64) as its_disk, conducted(Production, deployment) as running:
        yield running, its_disk


@pytest.fixture
def conductor(small: tuple[Conductor, Disk]) -> Iterator[Conductor]:
    """Afterwards nobody holds a slot who does not run, and what was left behind goes with maintenance."""
    running, _ = small
    yield running
    until(lambda: _holders(running) <= _in_progress(running), "the freeing of the slots")
    assert_maintenance_removes_orphans(running.deployment)
    assert_exact(running.deployment, running.truth)


def _holders(conductor: Conductor) -> set[str]:
    time.sleep(0.2)
    return set(conductor.instance.event_log_storage.get_concurrency_info(POOL).active_run_ids)


def _in_progress(conductor: Conductor) -> set[str]:
    filters = dg.RunsFilter(statuses=IN_PROGRESS_RUN_STATUSES)
    return {run.run_id for run in conductor.instance.get_runs(filters)}


def _is_over(conductor: Conductor, run_id: str) -> bool:
    time.sleep(0.02)
    return conductor.run(run_id).is_finished


def _was_started_twice(conductor: Conductor, run_id: str) -> bool:
    """Both daemons took it from the queue: Dagster ends the second process, and calls the run of the first failed."""
    return any("Ignoring a duplicate run" in entry.message for entry in conductor.instance.all_logs(run_id))


def test_two_daemons_two_ingests_a_run_by_hand_and_maintain_at_once(conductor: Conductor) -> None:
    deployment = conductor.deployment
    with ExitStack() as opened:
        opened.callback(conductor.kill, "another daemon")
        conductor.start_another("another daemon", DAEMON)
        ok(deployment.call("ingest", "--until-caught-up"))  # there is a lake for `maintain`
        for _ in range(2):
            conductor.send(400, datetime.now(UTC) - timedelta(hours=5))
            commands = (["ingest", "--until-caught-up"], ["ingest", "--until-caught-up"], ["maintain"])
            processes = [opened.enter_context(killed_at_the_end(deployment.start(*c))) for c in commands]
            by_hand = conductor.launch("micro_batch")
            conductor.send(200)
            for process in processes:
                ok(ended(process))
            assert conductor.until_finished(by_hand) == dg.DagsterRunStatus.SUCCESS or _was_started_twice(
                conductor, by_hand
            )
            conductor.until_counted()
            assert_exact(deployment, conductor.truth, check=False)


def test_a_run_that_is_cancelled_in_the_ui_costs_nothing(conductor: Conductor) -> None:
    for more in (0, 5):
        run_id = conductor.send_until_taken(300)
        until_committed(conductor.deployment, FLOW, more, partial(_is_over, conductor, run_id))
        answer = conductor.graphql("mutation($id: String!) { terminateRun(runId: $id) { __typename } }", id=run_id)[
            "terminateRun"
        ]
        status = conductor.until_finished(run_id)
        assert answer["__typename"] != "TerminateRunSuccess" or status == dg.DagsterRunStatus.CANCELED
        assert_nothing_wrong_so_far(conductor.deployment)
        conductor.until_counted()
        assert_exact(conductor.deployment, conductor.truth, check=False)


def test_a_slot_that_a_killed_command_holds_is_given_back(conductor: Conductor) -> None:
    deployment = conductor.deployment
    conductor.kill(DAEMON)
    until(lambda: not _in_progress(conductor), "the end of the last run")
    conductor.send(200)
    # The first commit of a command is inside its first step; between two steps it holds no slot.
    assert killed(deployment, FLOW, 1, 0, "ingest", "--until-caught-up")
    (dead,) = _holders(conductor)
    assert conductor.run(dead).status == dg.DagsterRunStatus.STARTED
    conductor.start()
    conductor.until_counted()
    assert conductor.run(dead).status == dg.DagsterRunStatus.FAILURE
    assert dead not in _holders(conductor)


def test_a_full_disk_stops_the_runs_until_there_is_space_again(
    conductor: Conductor, small: tuple[Conductor, Disk]
) -> None:
    _, its_disk = small
    failed = len(conductor.runs("micro_batch", dg.DagsterRunStatus.FAILURE))
    its_disk.fill(but=0)
    conductor.send(200)
    conductor.until_run("micro_batch", dg.DagsterRunStatus.FAILURE, already=failed + 1)
    its_disk.free()
    conductor.until_counted()
