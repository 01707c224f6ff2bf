"""The five questions of README.md, typed as they stand there, in an empty folder: what is printed is what it shows.

Belongs here: reading the transcript, running it, what may differ from one day to the next; how long README.md is.
Doesn't: the transcripts of docs/ (docs/test_transcripts.py), anything that README.md does not say (test_tour.py).

Days are moved to today, and times of day may be any; `…` stands for anything, alone on a line for lines. The
broker gets a port of its own, for 9092 may be taken.
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


README = (ROOT / "README.md").read_text(encoding="utf-8")


def questions() -> str:
    """The README's section."""
    section = re.search(r"^## Five questions\n(.*?)^## ", README, re.M | re.S)
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
        lines.append("…" if line == "…" else wanted)
    return "\n".join(lines).replace("\n…\n", "\n(.*\n)*").replace("\n…", "(\n.*)*")


def test_a_first_visit_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_the_five_questions_are_answered_as_the_readme_shows(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    if not timedelta(minutes=2) < now - datetime.combine(now.date(), datetime.min.time(), UTC) < timedelta(hours=23.9):
        pytest.skip("the questions are of one day, and midnight is near")
    port = a_free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NOTIF_", "DAGSTER_"))}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "NOTIF_KAFKA_BOOTSTRAP": f"127.0.0.1:{port}",
    }
    shutil.copytree(ROOT / "notif_assets" / "samples", tmp_path / "notif_assets" / "samples")
    broker, *others = steps(moved_to(now.date(), questions()).replace(":9092", f":{port}"))
    assert broker.command == "notif-assets broker &"
    process = subprocess.Popen(
        ["notif-assets", "broker", "--port", str(port)], cwd=tmp_path, env=environment, stdout=subprocess.PIPE
    )
    with killed_at_the_end(process):
        assert process.stdout
        assert process.stdout.readline().decode().strip() == broker.shown
        reports = [step.command.split()[2] for step in others if step.command.startswith("notif-assets report ")]
        assert reports == ["panel", "detailed", "billing", "invoice-averages", "chatbot"]
        for step in others:
            done = subprocess.run(
                step.command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True
            )
            assert (done.returncode, done.stderr) == (0, ""), step.command
            said = "\n".join(line.rstrip() for line in done.stdout.rstrip("\n").splitlines())
            assert re.fullmatch(pattern(step.shown), said), (
                f"$ {step.command}\n{said}\n--- the README shows\n{step.shown}"
            )
