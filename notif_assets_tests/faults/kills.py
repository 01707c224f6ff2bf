"""Killing a command at a random moment of its work, not of its start.

Belongs here: starting, waiting for the first sign of work, kill -9, a Dagster that looks after its runs every other
second, what the dead leave in its storage. Doesn't: which command, and what must hold afterwards (the tests).
"""

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import pairwise

from notif_assets_tests.cli.deployment import ROOT, Deployment, ended, killed_at_the_end, ok, until

FLOW = (
    "ingest_batches",
    "raw_notifications",
    "notifications",
    "rejected_notifications",
    "minute_aggregates",
    "customer_panel",
)
SMALL = {"NOTIF_BATCH_MESSAGES": "60", "NOTIF_RUN_MESSAGES": "240"}
"""Many commits, several runs a process."""
LEVEL = "no table behind another"

_IMPATIENT = {
    "start_timeout_seconds": 30,
    "poll_interval_seconds": 2,
    "free_slots_after_run_end_seconds": 2,
}


def impatient(deployment: Deployment) -> Deployment:
    """The deployment with a dagster.yaml that differs in how often Dagster looks after its runs."""
    text = (ROOT / "dagster.yaml").read_text()
    for name, seconds in _IMPATIENT.items():
        before, _, after = text.partition(f"{name}: ")
        text = f"{before}{name}: {seconds}\n{after.partition(chr(10))[2]}"
    home = deployment.home / "dagster-home"
    home.mkdir()
    (home / "dagster.yaml").write_text(text)
    deployment.settings["DAGSTER_HOME"] = str(home)
    return deployment


def where_it_stands(deployment: Deployment) -> str:
    """Which tables are behind the one before them."""
    marks = {name: deployment.table(name)[0] for name in FLOW}
    behind = [later for earlier, later in pairwise(FLOW) if marks[earlier] > marks[later]]
    return f"behind the table before it: {', '.join(behind)}" if behind else LEVEL


def a_seed() -> int:
    """A new seed every time, printed; SOAK_SEED in the environment repeats an old one."""
    seed = int(os.environ.get("SOAK_SEED", time.time_ns() % 2**32))
    print(f"\nseed {seed} (SOAK_SEED={seed} repeats the traffic and the delays)")
    return seed


def until_committed(
    deployment: Deployment, tables: Sequence[str], commits: int, over: Callable[[], bool] = lambda: False
) -> None:
    """Waits for the `commits`-th commit from now to `tables`, all counted together, or until it is `over`.

    Counting commits puts a moment inside the work however busy the machine is.
    """
    seen = {name: deployment.commits(name) for name in tables}
    goal = sum(seen.values()) + commits
    root = deployment.lake.root

    def came_so_far() -> bool:
        for name in tables:
            while (root / name / "_delta_log" / f"{seen[name]:020}.json").exists():
                seen[name] += 1
        return sum(seen.values()) >= goal or over()

    until(came_so_far, f"commit {commits}")


def killed(deployment: Deployment, tables: Sequence[str], commits: int, delay: float, *command: object) -> bool:
    """Starts a command and kills it `delay` seconds after its `commits`-th commit to `tables`: the delay puts the
    moment anywhere between two of them. False if the command ended, well, before.
    """
    with killed_at_the_end(deployment.start(*command)) as process:
        until_committed(deployment, tables, commits, lambda: process.poll() is not None)
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
