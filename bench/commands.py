"""One command of the project, run as people run it, and what it took.

Belongs here: the process, its clocks, its memory. Doesn't: which commands, and on what (the benchmarks).
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.usage import peak_of_all

_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Spent:
    """What a command took with the processes that it started: wall and CPU seconds, the most bytes in memory at once,
    and its exit code."""

    code: int
    wall: float
    cpu: float
    peak: int


def run(home: Path, settings: Mapping[str, str], *command: str) -> Spent:
    """Runs `notif-assets …` with a lake and a Dagster storage under `home`; its output is thrown away."""
    environment = os.environ | {
        "NOTIF_DATA": str(home / "data"),
        "DAGSTER_STORE": str(home / "store"),
        "DAGSTER_HOME": str(_ROOT),
        **settings,
    }
    began, before, most = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN), 0
    with subprocess.Popen(
        [sys.executable, "-m", "notif_assets", *command], cwd=home, env=environment, stdout=subprocess.DEVNULL
    ) as process:
        # What the system tells at the end counts this process too, of which it was a copy once.
        while process.poll() is None:
            with suppress(OSError):  # it ended since
                most = max(most, peak_of_all(process.pid))
            time.sleep(0.01)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Spent(process.returncode, time.monotonic() - began, cpu, most)
