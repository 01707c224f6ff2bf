"""The tour of the README, typed as it stands there, in an empty folder: what is printed is what the README shows.

Belongs here: reading the transcript, running it, what may differ from one day to the next. Doesn't: anything that the
README does not say (test_tour.py).

Days are moved to today, times of day may be any, and so may counts of what came late, for that depends on the hour;
`…` stands for anything, alone on a line for lines. The broker gets a port of its own, for 9092 may be taken.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from notif_assets_tests.cli.deployment import ROOT, a_free_port, killed_at_the_end

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_NEAR = timedelta(days=60)


@dataclass(frozen=True)
class Step:
    """A command of the transcript, and the lines that it prints there."""

    command: str
    shown: str


def tour() -> str:
    """The README's section."""
    whole = (ROOT / "README.md").read_text(encoding="utf-8")
    section = re.search(r"^## A tour.*?\n(.*?)^## ", whole, re.M | re.S)
    assert section
    return section[1]


def moved_to(today: date, text: str) -> str:
    """The text with its days moved so that its today is ours; days long ago stay."""
    shown = re.search(r"complete up to ([0-9-]{10})T", text)
    assert shown
    before = date.fromisoformat(shown[1])

    def moved(found: re.Match[str]) -> str:
        day = date.fromisoformat(found[0])
        return str(day + (today - before)) if abs(day - before) < _NEAR else found[0]

    return _DAY.sub(moved, text)


def steps(text: str) -> Iterator[Step]:
    """The commands of all transcripts in the text, in order."""
    for block in re.findall(r"^```console\n(.*?)^```", text, re.M | re.S):
        for step in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, shown = step.partition("\n")
            yield Step(command, shown.rstrip("\n"))


def pattern(shown: str) -> str:
    """A regular expression of what the command may print.

    >>> bool(re.fullmatch(pattern("a …\\n…\\nz 1\\n…"), "a b\\nz 1"))
    True
    >>> bool(re.fullmatch(pattern("a\\n…\\nz"), "a\\nb\\nc"))
    False
    """
    lines = []
    for line in shown.splitlines():
        wanted = re.escape(line).replace("…", ".*")
        wanted = re.sub(r"T\d\d:\d\d:\d\d(\\\.\d+)?", lambda _: r"T\d\d:\d\d:\d\d(\.\d+)?", wanted)
        if " closed: " in line or line.startswith("warn "):
            what, colon, counts = wanted.partition(":")
            wanted = what + colon + re.sub(r"\d+", lambda _: r"\d+", counts)
        lines.append("…" if line == "…" else wanted)
    return "\n".join(lines).replace("\n…\n", "\n(.*\n)*").replace("\n…", "(\n.*)*")


def test_the_tour_prints_what_the_readme_shows(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    if not timedelta(minutes=2) < now - datetime.combine(now.date(), datetime.min.time(), UTC) < timedelta(hours=23.9):
        pytest.skip("the tour speaks of one day, and midnight is near")
    port = a_free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NOTIF_", "DAGSTER_"))}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "NOTIF_KAFKA_BOOTSTRAP": f"127.0.0.1:{port}",
    }
    shutil.copytree(ROOT / "notif_assets" / "samples", tmp_path / "notif_assets" / "samples")
    broker, *others = steps(moved_to(now.date(), tour()).replace(":9092", f":{port}"))
    assert broker.command == "notif-assets broker &"
    process = subprocess.Popen(
        ["notif-assets", "broker", "--port", str(port)], cwd=tmp_path, env=environment, stdout=subprocess.PIPE
    )
    with killed_at_the_end(process):
        assert process.stdout
        assert process.stdout.readline().decode().strip() == broker.shown
        assert len(others) > 10
        for step in others:
            done = subprocess.run(
                step.command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True
            )
            assert (done.returncode, done.stderr) == (0, ""), step.command
            said = "\n".join(line.rstrip() for line in done.stdout.rstrip("\n").splitlines())
            assert re.fullmatch(pattern(step.shown), said), (
                f"$ {step.command}\n{said}\n--- the README shows\n{step.shown}"
            )
