"""Killing a command at a random moment of its work, not of its start.

Belongs here: starting, waiting for the first sign of work, kill -9, what the dead leave in Dagster's storage. Doesn't:
which command, and what must hold afterwards (the tests).
"""

import os
import signal
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing

from notif_assets_tests.cli.deployment import Deployment, ended, killed_at_the_end, ok, until


def a_seed() -> int:
    """A new seed every time, printed; SOAK_SEED in the environment repeats an old one."""
    seed = int(os.environ.get("SOAK_SEED", time.time_ns() % 2**32))
    print(f"\nseed {seed} (SOAK_SEED={seed} repeats the traffic and the delays)")
    return seed


def killed(deployment: Deployment, tables: Sequence[str], commits: int, delay: float, *command: object) -> bool:
    """Starts a command and kills it `delay` seconds after its `commits`-th commit to `tables`, all counted together.

    Counting commits puts the moment inside the work however busy the machine is; the delay puts it anywhere between two
    of them. False if the command ended, well, before.
    """
    seen = {name: deployment.commits(name) for name in tables}
    goal = sum(seen.values()) + commits
    root = deployment.lake.root
    with killed_at_the_end(deployment.start(*command)) as process:

        def ended_or_came_so_far() -> bool:
            for name in tables:
                while (root / name / "_delta_log" / f"{seen[name]:020}.json").exists():
                    seen[name] += 1
            return sum(seen.values()) >= goal or process.poll() is not None

        until(ended_or_came_so_far, f"commit {commits}")
        time.sleep(delay)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        answer = ended(process)
    if answer.code == -signal.SIGKILL:
        return True
    ok(answer)
    return False


def unfinished_runs(deployment: Deployment) -> int:
    """How many runs Dagster's storage shows as going on: with no process alive, those of the dead."""
    with closing(sqlite3.connect(deployment.home / "dagster" / "history" / "runs.db")) as runs:
        (count,) = runs.execute("select count(*) from runs where status = 'STARTED'").fetchone()
    return int(count)
