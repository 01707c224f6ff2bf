"""The disk gets full or read-only while the lake is written: one clear line, nothing half-committed, and all goes on.

Belongs here: real disks (disks.py), through the command line. Doesn't: places that can't be a lake (cli/).
"""

import itertools
import random
from datetime import UTC, datetime, timedelta
from importlib.resources import files

import pytest

from notif_assets_tests.cli.deployment import Answer, ended, killed_at_the_end, ok, refusal
from notif_assets_tests.conftest import Deploy
from notif_assets_tests.faults.disks import disk
from notif_assets_tests.faults.kills import FLOW, SMALL, a_seed, until_committed, where_it_stands
from notif_assets_tests.faults.orphans import assert_maintenance_removes_orphans
from notif_assets_tests.faults.truth import Truth, assert_bills_add_up, assert_exact, assert_nothing_wrong_so_far

_LEFT = (0, 5_000, 20_000, 40_000, 80_000, 120_000)


def _last_line(answer: Answer) -> str:
    """Ours, of a command that refused: a thread of delta-rs that was writing may have told of its own end before."""
    assert answer.code == 1, answer
    return answer.err.strip().splitlines()[-1]


def test_a_full_disk_costs_one_line_and_nothing_that_was_committed(deploy: Deploy) -> None:
    chance = random.Random(a_seed())
    deployment, truth = deploy(4, **SMALL), Truth()
    start = datetime.now(UTC) - timedelta(minutes=5)
    with disk(deployment.lake.root, 16) as small:
        stood = set()
        for seed, left in enumerate(_LEFT):
            truth.send(deployment, seed, 250, start)
            small.fill(but=left and left + chance.randint(-4096, 4096))
            line = refusal(deployment.call("ingest", "--until-caught-up"))
            assert "No space left on device" in line, line
            if deployment.lake.exists():
                assert_nothing_wrong_so_far(deployment)
                stood.add(where_it_stands(deployment))
            small.free()
            ok(deployment.call("ingest", "--until-caught-up"))
            assert_exact(deployment, truth, check=False)
        assert len(stood) > 1, stood
        print(f"{assert_maintenance_removes_orphans(deployment)} files were left behind")
        assert_exact(deployment, truth)


def test_a_full_disk_while_a_day_is_closed(deploy: Deploy) -> None:
    deployment, truth = deploy(4), Truth()
    day = (datetime.now(UTC) - timedelta(days=3)).replace(hour=12)
    with disk(deployment.lake.root, 16) as small:
        ok(deployment.call("import-prices", files("notif_assets") / "samples" / "prices-demo.csv"))
        for seed, late in itertools.product(range(2), (False, True)):
            truth.send(deployment, 2 * seed + late, 200, day)
            ok(deployment.call("ingest", "--until-caught-up"))
            small.fill(but=(0, 12_000)[seed])
            assert "No space left on device" in refusal(deployment.call("close-day", day.date()))
            small.free()
            ok(deployment.call("close-day", day.date()))
            assert_bills_add_up(deployment, truth, [day.date()])
        assert_exact(deployment, truth)


def test_a_lake_that_becomes_read_only_can_still_be_read(deploy: Deploy) -> None:
    chance = random.Random(a_seed())
    deployment, truth = deploy(4, **SMALL), Truth()
    with disk(deployment.lake.root, 16) as small:
        ok(deployment.call("ingest", "--until-caught-up"))
        for seed in range(3):
            truth.send(deployment, seed, 300, datetime.now(UTC) - timedelta(minutes=5))
            with killed_at_the_end(deployment.start("ingest", "--until-caught-up")) as process:
                until_committed(deployment, FLOW, chance.randint(1, 15), lambda: process.poll() is not None)
                small.read_only()
                answer = ended(process)
            assert "Read-only file system" in _last_line(answer)
            assert_nothing_wrong_so_far(deployment)
            for command in (["report", "panel"], ["report", "detailed"], ["check"]):
                answer = deployment.call(*command)
                assert answer.code == 0, answer
            for command in (["maintain"], ["rebuild", "minute_aggregates"], ["ingest"]):
                assert "Read-only file system" in refusal(deployment.call(*command))
            small.writable()
            ok(deployment.call("ingest", "--until-caught-up"))
            assert_exact(deployment, truth, check=False)
        assert_maintenance_removes_orphans(deployment)
        assert_exact(deployment, truth)


@pytest.mark.parametrize("left", [0, 60_000, 250_000])
def test_a_full_disk_that_holds_dagster_s_storage_too(deploy: Deploy, left: int) -> None:
    deployment, truth = deploy(2, **SMALL), Truth()
    with disk(deployment.home / "disk", 48) as small:
        deployment.settings |= {"DAGSTER_STORE": str(small.place / "dagster"), "NOTIF_LAKE": str(small.place / "lake")}
        (deployment.home / "data").mkdir()
        (deployment.home / "data" / "lake").symlink_to(small.place / "lake")
        truth.send(deployment, 1, 100, datetime.now(UTC) - timedelta(minutes=5))
        ok(deployment.run("ingest", "--until-caught-up"))
        truth.send(deployment, 2, 250, datetime.now(UTC) - timedelta(minutes=5))
        small.fill(but=left)
        answer = deployment.run("ingest", "--until-caught-up")
        line = _last_line(answer)
        assert line.startswith("Error: "), answer
        assert "Traceback" not in answer.err, answer
        assert answer.err.strip() == line or "panicked at" in answer.err, answer
        assert_nothing_wrong_so_far(deployment)
        small.free()
        ok(deployment.run("ingest", "--until-caught-up"))
        assert_exact(deployment, truth)
