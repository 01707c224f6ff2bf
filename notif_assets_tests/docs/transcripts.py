"""Transcripts in documents: what was typed, what was printed, and whether it is still so.

Belongs here: finding transcripts, running their commands in a deployment of their own, comparing what they print.
Doesn't: which documents have some (test_transcripts.py).

A transcript is a block fenced as `console`. A line that begins with `$ ` is a command, what follows is its output. Only
`notif-assets …` is run; other commands are for the reader. One that ends with ` &` goes on until the document ends, on
a free port. All blocks of a document run in one deployment, in their order.

What varies is compared by its form: times of day, durations (`3.2 s`, `4 min`), ports of 127.0.0.1 and tokens. Dates
near the day of the document are moved as if it had been written today, and so is `--month` with the month of that day;
others stand as they are. Beyond that:

- `…` stands for any text of a line, and alone on a line for any lines;
- `<!-- written on 2026-11-28 -->` at the document's top is the day of its transcripts;
- `<!-- numbers vary -->` before a block compares its numbers by their form, and blanks however many;
- `<!-- not run: WHY -->` before a block leaves it out.

Run as a program it puts what the commands print today into the documents, where they show something else.
"""

import contextlib
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from notif_assets_tests.cli.deployment import ROOT, Deployment, a_free_port, killed_at_the_end, until
from notif_assets_tests.docs.pointers import documents

_BLOCK = re.compile(r"(?:^<!-- (?P<note>[^\n]*) -->\n+)?^```console\n(?P<body>.*?)^```", re.M | re.S)
_TYPED = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", re.M)
_WRITTEN = re.compile(r"^<!-- written on (\d{4}-\d\d-\d\d) -->$", re.M)
_NEAR = timedelta(days=45)
_DATE = r"\d{4}-\d\d-\d\d"

# What varies, and the form that it is compared by. The first that fits counts.
_FORMS = (
    (r"(?<![\w-])\d{1,2}:\d\d(?::\d\d(?:\.\d+)?)?(?![\w:])", r"\d{1,2}:\d\d(?::\d\d(?:\.\d+)?)?"),
    (r"(?<=T)\d\d:\d\d:\d\d(?:\.\d+)?(?=Z|[+-]\d\d:\d\d)", r"\d\d:\d\d:\d\d(?:\.\d+)?"),
    (r"(?<![\w.])\d+(?:[.,]\d+)?(?= (?:ms|s|min|h|seconds|minutes)\b)", r"\d+(?:[.,]\d+)?"),
    (r"(?<=127\.0\.0\.1:)\d+", r"\d+"),
    (r"\beyJ[\w.-]+", r"eyJ[\w.-]+"),
)
_NUMBER = (r"(?<![\w.])-?\d+(?:[.,]\d+)*(?!\w)", r"-?\d+(?:[.,]\d+)*")
_BLANKS = (r" {2,}", r" +")


@dataclass(frozen=True)
class Step:
    """One command and what it printed; `line` is where it is in the document, `span` where its output is."""

    line: int
    span: tuple[int, int]
    command: str
    output: str
    numbers_vary: bool

    @property
    def is_run(self) -> bool:
        """Whether it is a command of this project."""
        return "notif-assets" in self.command.split()[:1] or bool(
            re.match(r"(?:NOTIF_\w+=\S+ )+notif-assets", self.command)
        )


def steps_of(text: str) -> list[Step]:
    """The commands of a document's transcripts, in order."""
    steps: list[Step] = []
    for block in _BLOCK.finditer(text):
        note = block["note"] or ""
        if not note.startswith("not run:"):
            steps += _steps(text, block)
    return steps


def _steps(text: str, block: re.Match[str]) -> Iterator[Step]:
    """The commands of one block; none of them reaches into the next one, or into what follows the block."""
    for typed in _TYPED.finditer(text, block.start("body"), block.end("body")):
        output = typed[2].rstrip("\n")
        line = text.count("\n", 0, typed.start()) + 1
        span = (typed.start(2), typed.start(2) + len(output))
        yield Step(line, span, typed[1].replace("\\\n", " "), output, block["note"] == "numbers vary")


def day_of(text: str) -> date | None:
    """The day that a document's transcripts are of; None where it doesn't say."""
    written = _WRITTEN.search(text)
    return date.fromisoformat(written[1]) if written else None


def moved(text: str, written: date | None, today: date) -> str:
    """The text with its dates moved as far as today is from the day that it was written on, if they are near that."""
    if written is None:
        return text

    def move(match: re.Match[str]) -> str:
        try:
            day = date.fromisoformat(match[0])
        except ValueError:
            return match[0]
        return str(day + (today - written)) if abs(day - written) <= _NEAR else match[0]

    text = re.sub(rf"(?<!\d){_DATE}(?!\d)", move, text)
    return re.sub(rf"(?<=--month ){written:%Y-%m}\b", f"{today:%Y-%m}", text)


def is_as_shown(printed: str, shown: str, numbers_vary: bool = False) -> bool:
    """Whether an output is what a document shows.

    >>> is_as_shown("at 127.0.0.1:20601 after 11 s", "at 127.0.0.1:9092 after 3.2 s")
    True
    >>> is_as_shown("11 lines", "10 lines"), is_as_shown("11 lines", "10 lines", numbers_vary=True)
    (False, True)
    >>> is_as_shown("first of all\\n1\\n2\\nlast", "first …\\n…\\nlast")
    True
    """
    forms = [*_FORMS, *([_NUMBER, _BLANKS] if numbers_vary else [])]
    lines = (r"(?:.*\n)*" if line == "…" else _pattern_of(line, forms) + r"\n" for line in shown.split("\n"))
    return re.fullmatch("".join(lines), printed + "\n") is not None


def _pattern_of(line: str, forms: list[tuple[str, str]]) -> str:
    """A regular expression for the lines that differ from this one only in what varies."""
    parts, at = [], 0
    for match in re.finditer("|".join(f"({form})" for form, _ in forms), line):
        assert match.lastindex
        parts += [re.escape(line[at : match.start()]), forms[match.lastindex - 1][1]]
        at = match.end()
    return "".join([*parts, re.escape(line[at:])]).replace("…", ".*")


def run(document: Path, home: Path) -> list[str]:
    """Runs a document's transcripts in a deployment under `home`; gives a text for each command that printed otherwise.

    `home` must be empty, or hold `dagster`, a storage of Dagster's.
    """
    return [
        f"{document.name}:{step.line}: $ {step.command}\n--- the document, its dates moved\n{wanted}\n"
        f"--- printed (`make transcripts` puts it there)\n{printed}\n---"
        for step, wanted, printed in _differences(document.read_text(encoding="utf-8"), home)
    ]


def renewed(text: str, home: Path) -> str:
    """A document's text with what its commands print today, where that is not as it is shown; dates moved back.

    What was cut short by `…` comes whole, to be cut again.
    """
    written, today = day_of(text), datetime.now(UTC).date()
    for step, _, printed in reversed([*_differences(text, home)]):
        start, end = step.span
        output = moved(printed, today if written else None, written or today)
        text = text[:start] + output + ("" if step.output else "\n") + text[end:]
    return text


def _differences(text: str, home: Path) -> Iterator[tuple[Step, str, str]]:
    """(the command, what it should print today, what it printed) of each one that printed otherwise."""
    today = datetime.now(UTC).date()
    written = day_of(text)
    (home / "notif_assets").symlink_to(ROOT / "notif_assets")
    deployment = Deployment(home, f"127.0.0.1:{a_free_port()}", "notifications", 12)
    with contextlib.ExitStack() as going_on:
        for step in steps_of(text):
            if not step.is_run:
                continue
            wanted = moved(step.output, written, today)
            printed = _printed(deployment, moved(step.command, written, today), wanted, going_on)
            if not is_as_shown(printed, wanted, step.numbers_vary):
                yield step, wanted, printed


def _printed(deployment: Deployment, command: str, wanted: str, going_on: contextlib.ExitStack) -> str:
    words = shlex.split(command)
    changes = {}
    while "=" in words[0]:
        name, _, changes[name] = words.pop(0).partition("=")
    arguments = words[1:]
    if arguments[-1] != "&":
        answer = deployment.run(*arguments, **changes)
        return (answer.text + answer.err).rstrip("\n")
    port = a_free_port()
    arguments = list(_without_port(arguments[:-1]))
    if arguments[0] == "broker":
        deployment.bootstrap = f"127.0.0.1:{port}"
    process = deployment.start(*arguments, "--port", port, **changes)
    going_on.enter_context(killed_at_the_end(process))
    lines = wanted.count("\n") + 1
    until(lambda: process.poll() is not None or process.printed().count("\n") >= lines, f"the output of {command}", 60)
    return "\n".join(process.printed().splitlines()[:lines])


def _without_port(arguments: list[str]) -> Iterator[str]:
    left = iter(arguments)
    for word in left:
        if word == "--port":
            next(left)
        else:
            yield word


def lines_that_differ(document: Path, homes: Iterator[Path]) -> list[str]:
    """As run; once more if midnight passed meanwhile, which makes yesterday of today."""
    while True:
        began = datetime.now(UTC).date()
        differences = run(document, next(homes))
        if not differences or datetime.now(UTC).date() == began:
            return differences
        time.sleep(1)


def main(paths: list[str]) -> None:
    """Renews the documents of these paths; without one, all that have transcripts of `notif-assets`."""
    chosen = [Path(path) for path in paths] or [path for path in documents() if "docs" in path.parts]
    for path in chosen:
        text = path.read_text(encoding="utf-8")
        if any(step.is_run for step in steps_of(text)):
            with tempfile.TemporaryDirectory() as home:
                path.write_text(renewed(text, Path(home)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
