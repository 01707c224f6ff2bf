"""Every transcript of a document is what the commands print today.

Belongs here: which documents are run, and that a difference is noticed. Doesn't: the notation and
running (transcripts.py).
"""

import itertools
import re
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from notif_assets_tests.docs.pointers import ROOT, documents
from notif_assets_tests.docs.transcripts import day_of, is_as_shown, lines_that_differ, moved, renewed, run, steps_of

ELSEWHERE = {ROOT / "README.md"}
"""Documents whose transcripts another test runs."""


def _shown(document: Path) -> tuple[tuple[str, str, bool], ...]:
    """What a document types and shows, whatever its language."""
    steps = steps_of(document.read_text(encoding="utf-8"))
    return tuple((step.command, step.output, step.numbers_vary) for step in steps if step.is_run)


DOCUMENTS = [path for path in documents() if path not in ELSEWHERE and _shown(path)]
DIFFERENT = {_shown(path): path for path in reversed(DOCUMENTS)}.values()
"""Of documents that show the same in several languages, one is run."""


def _homes(folder: Path, storage: Path) -> Iterator[Path]:
    for number in itertools.count():
        home = folder / str(number)
        home.mkdir()
        shutil.copytree(storage, home / "dagster")
        yield home


@pytest.mark.parametrize("document", DIFFERENT, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_transcripts_of_the_document(document: Path, tmp_path: Path, storage: Path) -> None:
    if differences := lines_that_differ(document, _homes(tmp_path, storage)):
        pytest.fail("\n".join(differences), pytrace=False)


def test_the_tour_is_run_and_shows_the_same_in_both_languages() -> None:
    english, portuguese = ROOT / "docs" / "tour.md", ROOT / "docs" / "tour.pt.md"
    assert english in DIFFERENT
    assert _shown(english) == _shown(portuguese)


def test_a_document_whose_transcripts_have_dates_says_when_it_was_written() -> None:
    undated = []
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        if day_of(text) is None and re.search(r"\d{4}-\d\d-\d\d", str(_shown(path))):
            undated.append(path.name)
    assert undated == []


def test_a_difference_is_told_with_both_texts(tmp_path: Path, storage: Path) -> None:
    document = tmp_path / "document.md"
    document.write_text(
        "# It\n\n```console\n$ notif-assets token\nNothing at all\n\n$ notif-assets --version\n…\n```\n"
    )
    (difference,) = run(document, next(_homes(tmp_path, storage)))
    assert difference.startswith("document.md:4: $ notif-assets token\n")
    assert "Nothing at all" in difference
    assert "say for whom: --customer ID or --operator" in difference


def test_a_document_is_renewed_where_it_differs(tmp_path: Path, storage: Path) -> None:
    text = (
        "<!-- written on 2026-11-28 -->\n\n```console\n"
        "$ notif-assets token\nNothing\n\n$ notif-assets --version\n…\n\n"
        "$ notif-assets report panel --customer 1\n```\n\n"
        "```console\n$ notif-assets rebuild x\nError: …\n```\nThe end.\n"
    )
    homes = _homes(tmp_path, storage)
    new = renewed(text, next(homes))
    assert "$ notif-assets token\nError: say for whom: --customer ID or --operator (see" in new
    assert "$ notif-assets --version\n…\n\n" in new
    assert re.search(r"--customer 1\nError: there is no lake at .*\n```\n\n```console", new)
    assert new.endswith("$ notif-assets rebuild x\nError: …\n```\nThe end.\n")


def test_steps_are_found_and_noted() -> None:
    text = (
        "<!-- not run: needs a cluster -->\n\n```console\n$ notif-assets check\n```\n"
        "<!-- numbers vary -->\n\n```console\n$ make kafka &\nready\n\n"
        "$ NOTIF_TOPIC=a notif-assets produce \\\n    --rate 5\nsent 5\n```\n"
    )
    first, second = steps_of(text)
    assert (first.command, first.is_run, first.output) == ("make kafka &", False, "ready")
    assert second.command.split() == ["NOTIF_TOPIC=a", "notif-assets", "produce", "--rate", "5"]
    assert (second.output, second.numbers_vary) == ("sent 5", True)


def test_dates_near_the_document_move_with_it() -> None:
    text = "closed 2026-11-27, of 2019-12-16 and 2026-13-99"
    assert moved(text, date(2026, 11, 28), date(2027, 3, 1)) == "closed 2027-02-28, of 2019-12-16 and 2026-13-99"
    assert moved(text, None, date(2027, 3, 1)) == text
    assert moved("--month 2026-11, --month 2020-01", date(2026, 11, 28), date(2027, 3, 1)) == (
        "--month 2027-03, --month 2020-01"
    )


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("up to 2026-11-28T05:01:02Z", "up to 2026-11-28T23:59:59Z", True),
        ("at 2026-11-28T05:01:02.123+00:00", "at 2026-11-28T23:59:59.001+00:00", True),
        ("at 2026-11-28T05:01:02+00:00", "at 2026-11-29T05:01:02+00:00", False),
        ("R$ 0,04", "R$ 0,05", False),
        ("a  b", "a   b", False),
        ("ok   one\n…", "ok   one\nok   two\nwarn three", True),
        ("ok   one\n…", "FAIL one\nok   two", False),
        ("…\nok   two", "ok   one\nok   two", True),
        ("link t=eyJhbGciOi…", "link t=eyJhbGciOiJIUzI1NiJ9.eyJhdWQ.x_y-z", True),
    ],
)
def test_what_varies_is_compared_by_its_form(shown: str, printed: str, same: bool) -> None:
    assert is_as_shown(printed, shown) is same
