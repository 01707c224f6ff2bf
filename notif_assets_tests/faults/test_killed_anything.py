"""Whatever is killed while messages flow, the system goes on by itself and every table is exact.

Belongs here: kill -9 of the processes of production, and of commands beside them, on one living deployment; a
supervisor starts the processes again, and nobody does anything else. Doesn't: kills of a command that is alone
(test_killed_ingest.py, test_killed_close.py).
"""

import random
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from datetime import time as clock
from importlib.resources import files

import dagster as dg
import pytest
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES

from notif_assets_tests.cli.deployment import ok, until
from notif_assets_tests.conftest import Deploy
from notif_assets_tests.faults.kills import FLOW, SMALL, a_seed, impatient, killed, until_committed, where_it_stands
from notif_assets_tests.faults.orphans import assert_maintenance_removes_orphans
from notif_assets_tests.faults.truth import assert_bills_add_up, assert_exact
from notif_assets_tests.instance.conductor import CODE, DAEMON, WEBSERVER, Conductor, Production, conducted

_ROUNDS_OF_A_DEPLOYMENT = 50  # everything ever sent is counted again in each round
_CHECK_EVERY = 10
_COMMITS = 15  # about as many as the traffic of a round causes


@pytest.mark.timeout(0)  # every wait has its own deadline; a soak takes as long as it takes
def test_whatever_is_killed_all_goes_on_by_itself_and_every_table_is_exact(
    deploy: Deploy, request: pytest.FixtureRequest
) -> None:
    rounds = request.config.getoption("--soak") or 10
    seed = a_seed()
    landed: Counter[str] = Counter()
    for first in range(0, rounds, _ROUNDS_OF_A_DEPLOYMENT):
        deployment = impatient(deploy(4, **SMALL, NOTIF_RUN_EVERY="1s", NOTIF_RETRY_AFTER="1s"))
        ok(deployment.call("import-prices", files("notif_assets") / "samples" / "prices-demo.csv"))
        with conducted(Production, deployment) as conductor:
            conductor.seed = seed + first * 10
            conductor.send(50)
            conductor.until_counted()  # before that no day can close
            for number in range(first, min(rounds, first + _ROUNDS_OF_A_DEPLOYMENT)):
                landed[_Round(conductor, seed, number).strike()] += 1
            assert_exact(deployment, conductor.truth)
            print(f"{assert_maintenance_removes_orphans(deployment)} files left behind, and removed by maintenance")
            assert_exact(deployment, conductor.truth, check=False)
    print(f"{rounds} kills; they landed:")
    for where, times in sorted(landed.items()):
        print(f"  {times:3d} × {where}")


class _Round:
    """One kill, chosen by the seed and its number alone, and what must hold after it."""

    def __init__(self, conductor: Conductor, seed: int, number: int) -> None:
        self.conductor = conductor
        self.deployment = conductor.deployment
        self.number = number
        self.chance = random.Random(f"{seed} {number}")
        today = datetime.now(UTC).date()
        self.days = [today - timedelta(days=back) for back in (6, 5, 4)]
        victims: list[tuple[str, Callable[[], None]]] = [
            ("run", self._run),
            ("daemon", lambda: conductor.kill(DAEMON)),
            ("webserver", lambda: conductor.kill(WEBSERVER)),
            ("code server, its runs live on", lambda: conductor.kill(CODE, alone=True)),
            ("code server with its runs", lambda: conductor.kill(CODE)),
            ("everything", conductor.kill),
            ("`ingest`", self._ingest),
            ("`close-day`", self._close_day),
        ]
        order = random.Random(f"{seed} {number // len(victims)}").sample(victims, len(victims))
        self.name, self.kill = order[number % len(victims)]

    def strike(self) -> str:
        """Kills, and waits until all is counted again; gives where the kill landed."""
        started = time.monotonic()
        for day in self.days:
            self.conductor.send(10, datetime.combine(day, clock(9), UTC))
        self.conductor.send(200)
        if not self.name.startswith("`"):
            self._moment()
        self.kill()
        where = where_it_stands(self.deployment)
        self.conductor.send(50)
        time.sleep(self.chance.uniform(0, 1))
        self.conductor.start()
        self.conductor.until_counted()
        assert_exact(self.deployment, self.conductor.truth, check=self.number % _CHECK_EVERY == _CHECK_EVERY - 1)
        if self.name == "`close-day`":
            ok(self.deployment.run(*self._closing))
            assert_bills_add_up(self.deployment, self.conductor.truth, self.days)
        until(self.conductor.answers, "the UI")
        seconds = time.monotonic() - started
        print(f"round {self.number}: {self.name}: {where}; {seconds:.0f} s", flush=True)
        return f"{self.name}: {where}"

    @property
    def _closing(self) -> tuple[object, ...]:
        return "close-day", self.days[0], "--to", self.days[-1]

    def _moment(self) -> None:
        """Anywhere: between a message's arrival and the start of its run, or between two commits of it."""
        if self.chance.random() < 0.4:
            time.sleep(self.chance.uniform(0, 8))
        else:
            end = time.monotonic() + 20
            until_committed(self.deployment, FLOW, self.chance.randint(1, _COMMITS), lambda: time.monotonic() > end)
            time.sleep(self.chance.uniform(0, 0.2))

    def _run(self) -> None:
        """The run in progress; if there is none any more, the next one as soon as it has a process."""

        def struck() -> bool:
            time.sleep(0.02)
            return any(map(self.conductor.kill_run, self._in_progress()))

        if not self._in_progress():
            self.conductor.send(50)
        until(struck, "the death of a run's process")

    def _in_progress(self) -> list[str]:
        filters = dg.RunsFilter(job_name="micro_batch", statuses=IN_PROGRESS_RUN_STATUSES)
        return [run.run_id for run in self.conductor.instance.get_runs(filters)]

    def _ingest(self) -> None:
        while not killed(
            self.deployment, FLOW, self.chance.randint(1, _COMMITS), self.chance.uniform(0, 0.2), "ingest"
        ):
            self.conductor.send(50)

    def _close_day(self) -> None:
        commits = self.chance.randint(1, 10)
        tables = (*FLOW, "daily_billing", "billing_days", "billing_adjustments")
        while not killed(self.deployment, tables, commits, self.chance.uniform(0, 0.2), *self._closing):
            for day in self.days:
                self.conductor.send(10, datetime.combine(day, clock(9), UTC))
