"""What counts as a pointer, and where one may begin.

Belongs here: texts with pointers of each kind, dead and alive. Doesn't: the repository's own texts (test_tidy.py).
"""

from pathlib import Path

import pytest

from notif_assets_tests.docs.pointers import (
    ROOT,
    Text,
    anchors_of,
    commands_in,
    exists,
    links_in,
    modules_in,
    paths_in,
    settings_in,
    spans_in,
    targets_in,
    texts,
)


def _text(text: str, suffix: str = ".md") -> Text:
    return Text(ROOT / f"a{suffix}", 1, text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("the arithmetic (sql/), see bill.py", ["sql/", "bill.py"]),
        ("in notif_assets/samples/prices.csv", ["notif_assets/samples/prices.csv"]),
        ("in notif_assets_tests/faults, and docs/", ["notif_assets_tests/faults", "docs/"]),
        ("every sql/rejected_*.sql or <room>/sql/<name>.sql", ["sql/rejected_*.sql", "<room>/sql/<name>.sql"]),
        ("a price list prices.csv, and/or hour=HH.json", []),
        ("duckdb.sql(question), pyspark.sql.functions", []),
        ("https://example.com/docs/page.md and /etc/nginx/nginx.conf", []),
        ("billing/DATE.txt, date=2019-12-16/hour=13.json", []),
    ],
)
def test_paths(text: str, found: list[str]) -> None:
    assert [path for _, path in paths_in(_text(text))] == found


@pytest.mark.parametrize(
    ("path", "named_in", "there"),
    [
        ("closing.py", "notif_assets/billing/prices.py", True),
        ("sql/unit_prices.sql", "notif_assets/billing/prices.py", True),
        ("billing/sql/unit_prices.sql", "notif_assets/panel/pages.py", True),
        ("sql/unit_prices.sql", "notif_assets/panel/pages.py", False),
        ("sql/rejected_*.sql", "notif_assets/notifications/silver.py", True),
        ("sql/nothing_*.sql", "notif_assets/notifications/silver.py", False),
        ("ledger.py", "notif_assets/cli/bills.py", True),  # the only one
        ("parsing.py", "notif_assets/cli/bills.py", False),  # one of two
        ("parsing.py", "notif_assets/invoices/averages.py", True),
        ("sql/", "docs/architecture.md", True),
        ("sql/", "notif_assets/core/days.py", False),
        ("nowhere.py", "README.md", False),
    ],
)
def test_where_a_path_may_begin(path: str, named_in: str, there: bool) -> None:
    assert exists(path, ROOT / named_in) is there


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("call `notif-assets check --lately`", [["check", "--lately"]]),
        ("Example: NOTIF_TOPIC=some notif-assets ingest", [["ingest"]]),
        ("$ notif-assets produce --rate 5 && notif-assets ingest", [["produce", "--rate", "5"], ["ingest"]]),
        ("    Example: notif-assets maintain\n", [["maintain"]]),
        ("this is what notif-assets does", []),
    ],
)
def test_commands(text: str, found: list[list[str]]) -> None:
    assert [words for _, words in commands_in(_text(text))] == found


def test_the_other_kinds() -> None:
    text = _text("NOTIF_LAKE and NOTIF_… by `make demo FOR=90`; to make sure, `python -m bench.hour`, [it](a/b.md#c)")
    assert [name for _, name in settings_in(text)] == ["NOTIF_LAKE"]
    assert [target for _, target in targets_in(text)] == ["demo"]
    assert [module for _, module in modules_in(text)] == ["bench.hour"]
    assert list(links_in(text)) == [("a.md:1", "a/b.md", "c")]
    assert [span for _, span in spans_in(text)] == ["make demo FOR=90", "python -m bench.hour"]


def test_a_place_is_the_line_of_the_file() -> None:
    text = _text("```text\n[no](link.md)\n```\n\n[a](link.md)")
    assert list(links_in(text)) == [("a.md:5", "link.md", "")]


def test_anchors(tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    document.write_text("# How it's `made`: 3 steps\n\n```\n# no heading\n```\n## ingest_batches\n")
    assert anchors_of(document) == {"how-its-made-3-steps", "ingest_batches"}


def test_every_kind_of_text_is_read() -> None:
    suffixes = {text.file.suffix for text in texts()}
    assert {".py", ".md", ".sql", ".yaml", ".toml", ".conf", ""} <= suffixes
