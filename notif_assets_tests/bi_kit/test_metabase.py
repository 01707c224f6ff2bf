"""The questions for Metabase: every view with what its columns mean, and variables as Metabase has them."""

import re
from dataclasses import replace

import pyarrow as pa
import pytest

from notif_assets.bi_kit.metabase import files
from notif_assets.bi_kit.views import View, ViewColumn
from notif_assets_tests.bi_kit.test_kit import ALL, GOLDEN

FILES = files(ALL)
QUESTIONS = {path: text for path, text in FILES.items() if path.startswith("metabase/questions/")}


def test_a_question_is_as_it_was() -> None:
    golden = GOLDEN / "cobranca-do-mes.sql"
    if not golden.exists():
        golden.write_text(FILES["metabase/questions/cobranca-do-mes.sql"], encoding="utf-8")
    assert FILES["metabase/questions/cobranca-do-mes.sql"] == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("view", ALL, ids=lambda view: view.name)
def test_every_view_has_a_query_that_says_what_its_columns_mean(view: View) -> None:
    lines = FILES[f"metabase/views/{view.name}.sql"].splitlines()
    told = [re.fullmatch(r'    "(\w+)",? -- (.*)', line) for line in lines[3:-1]]
    assert [(match[1], match[2]) for match in told if match] == [(c.name, c.meaning) for c in view.columns]
    assert lines[:3] == [f"-- {view.name}", f"-- {view.meaning}", "select"]


def test_a_new_column_is_in_its_view_s_query() -> None:
    new = ViewColumn("surcharge", pa.int64(), "what came on top")
    changed = tuple(replace(v, columns=(*v.columns, new)) if v.name == "prices" else v for v in ALL)
    after = files(changed)
    assert [path for path in after if after[path] != FILES[path]] == ["metabase/views/prices.sql"]
    assert '"surcharge" -- what came on top' in after["metabase/views/prices.sql"]


@pytest.mark.parametrize("path", QUESTIONS)
def test_a_question_has_a_title_and_says_its_variables(path: str) -> None:
    title, meaning, *rest = QUESTIONS[path].splitlines()
    assert re.fullmatch(r"-- \w.*", title)
    assert re.fullmatch(r"-- .*\.", meaning)
    variables = set(re.findall(r"\{\{(\w+)\}\}", QUESTIONS[path]))
    told = set(re.findall(r"\b[a-z_]+\b(?= (?:and|\()|,)|(?<=and )[a-z_]+", rest[0])) if variables else set()
    assert variables <= told, told
    assert all("[[and" in line for line in rest if "{{" in line)  # without a value the condition is left out
