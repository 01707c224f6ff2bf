"""`python -m bench.freshness [--minutes N] [--copy]`: how long after it was produced a message is counted in
customer_panel, and with --copy how long until the serving copy in PostgreSQL shows it.

Belongs here: a demo that runs for a while, the age of every message at the commit that counted it, what that age is
made of, the memory of all processes of Dagster meanwhile, and their CPU in the second half, each run's included. What
the broker and the traffic take is told apart. Doesn't: speed (__main__.py).

Ages come from what is in the tables: the time in the message's Kafka record, and the time of the first commit of
customer_panel whose watermark has the message's batch. Of the copy a reader asks every quarter of a second.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from threading import Event, Thread
from typing import TypeVar

import dagster as dg
import numpy as np
import numpy.typing as npt
import psycopg

from bench.usage import cpu, memory
from notif_assets.lake import Lake
from notif_assets_tests.cli.deployment import processes_of
from notif_assets_tests.postgres import a_server

T = TypeVar("T")

_SAMPLE_SECONDS = 2.0
_DEMO = 0
"""For the process that has the broker and makes the traffic, in place of its id."""
_ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Runs the demo, then prints a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.freshness", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=int, default=1157)
    parser.add_argument("--copy", action="store_true", help="with a serving copy in a PostgreSQL on this machine")
    arguments = parser.parse_args()
    with ExitStack() as opened:
        folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="notif-assets-freshness-"))
        data = Path(folder) / "demo"
        shown = _Shown(opened.enter_context(a_server()).create_database("copy")) if arguments.copy else None
        command = [sys.executable, "-m", "notif_assets.sandbox.demo", "--for", str(arguments.minutes * 60)]
        command += [
            "--rate",
            str(arguments.rate),
            "--data",
            str(data),
            "--port",
            "3999",
            "--panel-port",
            "8999",
            "--kafka-port",
            "9999",
        ]
        command += ["--serving-url", shown.url] if shown else []
        used, spent = [], []
        began = time.monotonic()
        with shown or nullcontext(), subprocess.Popen(command, cwd=_ROOT) as demo:
            while demo.poll() is None:
                used.append(sum(size.pss for size in _of_each(data / "dagster", memory).values()))
                of_system = _of_each(data / "dagster", cpu)
                with suppress(OSError):  # it ended
                    spent.append((time.monotonic() - began, {**of_system, _DEMO: cpu(demo.pid)} if of_system else {}))
                time.sleep(_SAMPLE_SECONDS)
        if demo.returncode:
            sys.exit("the demo failed")
        _print_ages(data, shown)
        sizes = np.array([sample for sample in used if sample]) / 2**20
        _print_cpu(spent, arguments.minutes * 60)
        told = f"median {np.median(sizes):.0f} MiB, most {sizes.max():.0f} MiB"
        print(f"\nmemory of all Dagster processes (PSS): {told}")


def _print_cpu(spent: list[tuple[float, dict[int, float]]], seconds: float) -> None:
    """CPU seconds a minute of the processes that live through the second half of the traffic, and of their runs; apart
    from them what the broker and the traffic take."""
    half = [(at, of_process) for at, of_process in spent if seconds / 2 <= at <= seconds and of_process]
    if len(half) < 2:
        return
    (start, before), (end, after) = half[0], half[-1]
    used = {pid: 60 * (after[pid] - before[pid]) / (end - start) for pid in before.keys() & after.keys()}
    others = used.pop(_DEMO)
    system = sum(used.values())
    print(f"\nCPU of all processes, second half: {system:.1f} CPU-s a minute, {system / 60:.2f} core")
    print(f"apart from that the broker and the traffic: {others:.1f} CPU-s a minute")


class _Shown:
    """When a reader of the copy first saw each version of customer_panel."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.at: dict[int, float] = {}
        self._ended = Event()
        self._thread = Thread(target=self._look)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        query = "select version from serving.watermarks where table_name = 'customer_panel'"
        with psycopg.connect(self.url, autocommit=True) as connection:
            while not self._ended.wait(0.25):
                with suppress(psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
                    for (version,) in connection.execute(query):
                        self.at.setdefault(version, time.time())


def _print_ages(data: Path, shown: _Shown | None) -> None:
    with Lake(data / "lake") as lake:
        messages = lake.rows(lake.table("notifications").scan()).select(["batch", "kafka_timestamp"])
        ledger = lake.rows(lake.table("ingest_batches").scan()).to_pylist()
    batch = messages["batch"].to_numpy()
    sent = messages["kafka_timestamp"].cast("int64").to_numpy() / 1e6
    planned = {row["batch"]: row["planned_at"].timestamp() for row in ledger}
    runs = {row["batch"]: row["run_id"] for row in ledger}
    commits = list(_commits(data / "lake" / "customer_panel"))
    last = max(watermark for _, watermark, _ in commits)
    counted = _by_batch({watermark: moment for _, watermark, moment in commits}, last)
    versions = {version: watermark for version, watermark, _ in commits}
    visible = {versions[version]: moment for version, moment in (shown.at if shown else {}).items() if version >= 0}
    os.environ |= {"DAGSTER_HOME": str(_ROOT), "DAGSTER_STORE": str(data / "dagster")}
    created, started = {}, {}
    with dg.DagsterInstance.get() as instance:
        for record in instance.get_run_records(dg.RunsFilter(job_name="micro_batch")):
            created[record.dagster_run.run_id] = record.create_timestamp.timestamp()
            started[record.dagster_run.run_id] = record.start_time or 0.0

    def at(times: dict[int, float]) -> npt.NDArray[np.float64]:
        by_batch: npt.NDArray[np.float64] = np.array([times.get(number, np.nan) for number in range(last + 1)])[batch]
        return by_batch

    def of_run(times: dict[str, float]) -> dict[int, float]:
        return {number: times[run] for number, run in runs.items() if run in times}

    moments = [sent, at(of_run(created)), at(of_run(started)), at(planned), at(counted)]
    stages = (
        "waiting for the sensor's tick",
        "queue, start of the process",
        "loading, asking Kafka",
        "work to the panel",
    )
    print(f"\n{len(sent)} messages in {len(created)} runs; seconds")
    print(f"{'':<32}{'p50':>8}{'p95':>8}{'p99':>8}{'most':>8}")
    for name, start, end in [
        *zip(stages, moments, moments[1:], strict=False),
        ("produced → counted", sent, moments[-1]),
        *([("produced → in PostgreSQL", sent, at(_by_batch(visible, last)))] if visible else []),
    ]:
        ages = (end - start)[~np.isnan(end - start)]
        print(f"{name:<32}{''.join(f'{np.percentile(ages, p):>8.1f}' for p in (50, 95, 99, 100))}")


def _by_batch(moments: dict[int, float], last: int) -> dict[int, float]:
    """When each batch is there: with the first of these that is as far, or further."""
    found: dict[int, float] = {}
    for number in range(last, 0, -1):
        moment = moments.get(number, found.get(number + 1))
        if moment is not None:
            found[number] = moment
    return found


def _commits(table: Path) -> Iterator[tuple[int, int, float]]:
    """The version, the watermark and the time of every commit of a table."""
    for entry in sorted((table / "_delta_log").glob("*.json")):
        watermark = moment = None
        for line in entry.read_text().splitlines():
            action = json.loads(line)
            watermark = action.get("txn", {}).get("version", watermark)
            moment = action.get("commitInfo", {}).get("timestamp", moment)
        if watermark is not None and moment is not None:
            yield int(entry.stem), watermark, moment / 1000


def _of_each(store: Path, ask: Callable[[int], T]) -> dict[int, T]:
    """What `ask` says of each of the processes that work on this storage of Dagster."""
    found = {}
    for process in processes_of(store):
        with suppress(OSError):  # it ended
            found[process] = ask(process)
    return found


if __name__ == "__main__":
    main()
