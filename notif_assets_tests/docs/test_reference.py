"""docs/reference/ says what the code says.

Belongs here: holding each page to its generator, and the generator to the code. Doesn't: what the pages say
(reference.py).
"""

from pathlib import Path
from typing import get_args

import pytest

from notif_assets.cli import main
from notif_assets.inbox.rows import MEANINGS, Reason
from notif_assets.lake.catalogue import SCHEMAS
from notif_assets.notifications.validity import REASONS
from notif_assets.settings import Settings
from notif_assets_tests.docs.reference import FOLDER, PAGES, commands, write


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_what_the_code_says(name: str) -> None:
    written = (FOLDER / name).read_text(encoding="utf-8") if (FOLDER / name).exists() else ""
    assert written == PAGES[name](), f"docs/reference/{name} is not what the code says: `make docs` writes it anew"


def test_every_page_is_written_by_code() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(PAGES)


def test_writing_gives_the_pages(tmp_path: Path) -> None:
    write(tmp_path / "reference")
    assert {path.name: path.read_text() for path in (tmp_path / "reference").iterdir()} == {
        name: page() for name, page in PAGES.items()
    }


def test_no_setting_table_command_or_reason_is_left_out() -> None:
    pages = {name: page() for name, page in PAGES.items()}
    assert all(f"| `{name}` |" in pages["settings.md"] for name in Settings.variables())
    assert all(f"\n### {name}\n" in pages["tables.md"] for name in SCHEMAS)
    assert all(f"| `{c.name}` |" in pages["tables.md"] for schema in SCHEMAS.values() for c in schema.columns)
    assert all(f"\n## {' '.join(path)}\n" in pages["cli.md"] for path, _ in commands(main))
    assert all(f"| `{reason}` |" in pages["reasons.md"] for reason in (*REASONS, *MEANINGS))


def test_every_setting_says_what_it_means() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_every_reason_of_a_row_has_a_meaning() -> None:
    assert set(MEANINGS) == set(get_args(Reason))
