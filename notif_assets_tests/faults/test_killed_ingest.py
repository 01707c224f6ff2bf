"""`ingest` is killed at random moments of its work, over and over, while traffic goes on: the tables stay exact.

Belongs here: kill -9 of real `ingest` processes. Doesn't: crashes injected between two commits (notifications/), races.
"""

import random
import signal
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from notif_assets_tests.cli.deployment import Deployment, ended, ok, until
from notif_assets_tests.conftest import Deploy
from notif_assets_tests.faults.kills import FLOW, LEVEL, SMALL, a_seed, killed, unfinished_runs, where_it_stands
from notif_assets_tests.faults.truth import Truth, assert_exact, assert_nothing_wrong_so_far

_COMMITS = 20  # about as many as the traffic between two kills causes
_CATCH_UP_EVERY = 20  # or what is left to the end would take longer than a command may


@pytest.mark.timeout(0)  # every process has its own deadline; a soak takes as long as it takes
def test_killed_at_random_moments_and_run_again_every_table_is_exact(
    deploy: Deploy, request: pytest.FixtureRequest
) -> None:
    rounds = request.config.getoption("--soak") or 3
    seed = a_seed()
    chance = random.Random(seed)
    deployment, truth = deploy(4, **SMALL), Truth()
    start = datetime.now(UTC) - timedelta(minutes=5)

    landed: Counter[str] = Counter()
    kills = finished = 0
    while kills < rounds:
        if kills and kills % _CATCH_UP_EVERY == 0:
            ok(deployment.run("ingest", "--until-caught-up"))
        truth.send(deployment, seed + kills + finished + 1, 250, start)
        where = _killed_at_work(deployment, chance.randint(1, _COMMITS), chance.uniform(0, 0.2))
        if where is None:
            finished += 1
            assert finished < 2 * rounds, "the processes end before they are killed"
        else:
            kills += 1
            landed[where] += 1
        assert_nothing_wrong_so_far(deployment)
    assert unfinished_runs(deployment) > 0  # and they blocked nobody
    ok(deployment.run("ingest", "--until-caught-up"))

    print(f"{kills} kills, {finished} processes ended before theirs; kills landed:")
    for where, times in landed.most_common():
        print(f"  {times:3d} × {where}")
    assert_exact(deployment, truth)
    assert sum(times for where, times in landed.items() if where != LEVEL) >= rounds // 5


def _killed_at_work(deployment: Deployment, commits: int, delay: float) -> str | None:
    """Starts `ingest`, kills it `delay` seconds after so many commits, and says which tables were behind then.

    None if the process ended before.
    """
    before = {name: deployment.table(name)[0] for name in FLOW}
    if not killed(deployment, FLOW, commits, delay, "ingest", "--until-caught-up"):
        return None
    assert all(deployment.table(name)[0] >= before[name] for name in FLOW)
    return where_it_stands(deployment)


def test_interrupted_it_says_so_in_one_line_and_runs_again(deploy: Deploy) -> None:
    deployment, truth = deploy(2, **SMALL), Truth()
    truth.send(deployment, 5, 600, datetime.now(UTC) - timedelta(minutes=5))
    process = deployment.start("ingest", "--until-caught-up")
    until(lambda: deployment.commits("raw_notifications") > 2, "the second batch")
    process.send_signal(signal.SIGINT)
    answer = ended(process)
    assert (answer.code, answer.err.strip()) == (1, "Aborted!")
    ok(deployment.run("ingest", "--until-caught-up"))
    assert_exact(deployment, truth)
