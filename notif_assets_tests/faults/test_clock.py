"""The system's clock is put back, between commands and in the middle of one: no number changes, and nothing is called
complete that is not.

Belongs here: real commands in processes whose clock is put (clock.c; it takes a C compiler). Doesn't: time
that only passes (schedules, sensors).
"""

import os
import random
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import pytest

from notif_assets.notifications.ledger import complete_until
from notif_assets_tests.cli.deployment import Deployment, ended, killed_at_the_end, ok, refusal
from notif_assets_tests.conftest import Deploy
from notif_assets_tests.faults.kills import FLOW, SMALL, a_seed, until_committed
from notif_assets_tests.faults.truth import Truth, assert_bills_add_up, assert_exact

_SOURCE = Path(__file__).with_name("clock.c")
_DEMO = files("notif_assets") / "samples" / "prices-demo.csv"


class Clock:
    """The clock of the commands that are started with `settings`; put while they run."""

    def __init__(self, folder: Path, library: Path) -> None:
        self._file = folder / "clock"
        self.put(timedelta(0))
        self.settings = {"LD_PRELOAD": str(library), "CLOCK_FILE": str(self._file)}

    def put(self, off: timedelta) -> None:
        """As far off the true time as that."""
        draft = self._file.with_suffix(".draft")
        draft.write_text(f"{off.total_seconds():.0f}")
        draft.rename(self._file)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What clock.c makes."""
    compiler = shutil.which("cc")
    if compiler is None and "CI" not in os.environ:
        pytest.skip("needs a C compiler")
    made = tmp_path_factory.mktemp("clock") / "clock.so"
    subprocess.run([str(compiler), "-shared", "-fPIC", "-o", made, _SOURCE, "-ldl", "-lpthread"], check=True)
    return made


@pytest.fixture
def clock(tmp_path: Path, library: Path) -> Clock:
    return Clock(tmp_path, library)


def planned(deployment: Deployment) -> list[datetime]:
    """When each batch was planned, in the order of the batches."""
    return [moment for _, moment in sorted({(r["batch"], r["planned_at"]) for r in deployment.rows("ingest_batches")})]


def assert_truthful(deployment: Deployment, sent: list[tuple[datetime, int]]) -> None:
    """What is called complete is there: all that was sent by then."""
    with deployment.lake as lake:
        panel = lake.table("customer_panel")
        until = complete_until(lake, panel.watermark)
    assert until is not None
    assert until <= datetime.now(UTC)
    taken = len(deployment.rows("notifications")) + len(deployment.rows("rejected_notifications"))
    assert taken >= max((count for moment, count in sent if moment <= until), default=0)


def test_a_clock_that_is_put_back_changes_no_number(deploy: Deploy, clock: Clock) -> None:
    chance = random.Random(a_seed())
    deployment, truth = deploy(4, **SMALL), Truth()
    sent: list[tuple[datetime, int]] = []
    start = datetime.now(UTC) - timedelta(minutes=5)
    true, back = timedelta(0), -timedelta(hours=chance.randint(1, 60))
    far = -timedelta(days=chance.randint(30, 300))
    for seed, (before, within) in enumerate([(true, back), (back, far), (far, far), (back, true), (true, true)]):
        truth.send(deployment, seed, 150, start)
        sent.append((datetime.now(UTC), truth.produced))
        clock.put(before)
        with killed_at_the_end(deployment.start("ingest", "--until-caught-up", **clock.settings)) as process:
            until_committed(deployment, FLOW, chance.randint(1, 10), lambda: process.poll() is not None)
            clock.put(within)
            ok(ended(process))
        assert all(earlier <= later for earlier, later in pairwise(planned(deployment)))
        assert_truthful(deployment, sent)
        assert_exact(deployment, truth, check=False, fresh=False)  # by a clock that is behind, so is the panel
    assert_exact(deployment, truth)


def test_days_close_and_prices_hold_by_a_clock_that_was_put_back(deploy: Deploy, clock: Clock) -> None:
    deployment, truth = deploy(2), Truth()
    day = (datetime.now(UTC) - timedelta(days=3)).replace(hour=12)
    truth.send(deployment, 1, 200, day)
    ok(deployment.call("ingest", "--until-caught-up"))
    ok(deployment.call("import-prices", files("notif_assets") / "samples" / "prices.csv"))
    clock.put(-timedelta(days=1))
    imported = ok(deployment.run("import-prices", _DEMO, **clock.settings)).text
    ok(deployment.run("close-day", day.date(), **clock.settings))
    assert_bills_add_up(deployment, truth, [day.date()])  # by the list that was loaded last
    assert deployment.rows("billing_days")[0]["price_version"] in imported
    truth.send(deployment, 2, 100, day)
    clock.put(-timedelta(days=2))
    ok(deployment.run("ingest", "--until-caught-up", **clock.settings))
    ok(deployment.run("close-day", day.date(), **clock.settings))
    assert_bills_add_up(deployment, truth, [day.date()])
    assert_exact(deployment, truth)


def test_a_clock_that_was_ahead_closes_no_day_early_once_it_is_put_right(deploy: Deploy, clock: Clock) -> None:
    deployment, truth = deploy(2), Truth()
    today = datetime.now(UTC)
    ok(deployment.call("import-prices", _DEMO))
    truth.send(deployment, 1, 100, today - timedelta(minutes=1))
    clock.put(timedelta(days=2))
    ok(deployment.run("ingest", "--until-caught-up", **clock.settings))
    line = refusal(deployment.call("close-day", today.date()))
    assert f"{today:%Y-%m-%d} can't close yet: all messages are counted up to " in line
    truth.send(deployment, 2, 100, today - timedelta(minutes=1))
    ok(deployment.call("ingest", "--until-caught-up"))
    assert all(earlier <= later for earlier, later in pairwise(planned(deployment)))
    assert len(deployment.rows("notifications")) == len(truth.accepted)
