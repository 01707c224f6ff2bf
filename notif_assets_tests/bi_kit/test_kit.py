"""The kit: what every tool gets, held to the catalogue and to golden files, and how it gets into a folder."""

import json
import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notif_assets.bi_kit import ServingCopy, files_of_kit, write_kit
from notif_assets.bi_kit.power_bi import relations_of
from notif_assets.bi_kit.superset import ARCHIVE
from notif_assets.bi_kit.views import View, ViewColumn, views
from notif_assets_tests.cli.deployment import ok, refusal
from notif_assets_tests.conftest import Deploy

GOLDEN = Path(__file__).parent / "golden"
ZONE = "America/Sao_Paulo"
COPY = ServingCopy("warehouse.example:5432", "serving")
DAY = date(2020, 2, 3)
ALL = views(ZONE, with_chatbot=True)


def kit(shown: tuple[View, ...] = ALL, copy: ServingCopy = COPY, day: date = DAY) -> dict[str, str]:
    """The kit's texts: all but the archive, whose files are held in test_superset.py."""
    return {path: text.decode() for path, text in files_of_kit(shown, copy, day).items() if path != ARCHIVE}


KIT = kit()
MODEL = "power_bi/notif.SemanticModel/definition"
GOLDEN_FILES = (
    "notif.pbids",
    f"{MODEL}/model.tmdl",
    f"{MODEL}/expressions.tmdl",
    f"{MODEL}/relationships.tmdl",
    f"{MODEL}/tables/customers.tmdl",
    f"{MODEL}/tables/daily_billing.tmdl",
    f"{MODEL}/tables/minute_aggregates.tmdl",
)


@pytest.mark.parametrize("path", GOLDEN_FILES)
def test_a_file_is_as_it_was(path: str) -> None:
    """What changes in the kit shows in a diff of golden/ (delete a file to renew it)."""
    golden = GOLDEN / Path(path).name
    if not golden.exists():
        golden.write_text(KIT[path], encoding="utf-8")
    assert KIT[path] == golden.read_text(encoding="utf-8")


def test_every_golden_file_is_compared() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {
        *(Path(path).name for path in GOLDEN_FILES),
        "superset",
        "cobranca-do-mes.sql",
    }


def table(name: str, files: dict[str, str] = KIT) -> str:
    return files[f"{MODEL}/tables/{name}.tmdl"]


@pytest.mark.parametrize("view", ALL, ids=lambda view: view.name)
def test_every_column_is_in_the_model_with_its_meaning(view: View) -> None:
    text = table(view.name)
    assert text.startswith(f"/// {view.meaning}\ntable {view.name}\n")
    for column in view.columns:
        assert f"\t/// {column.meaning}\n\tcolumn {column.name}\n" in text
        assert f"\t\tsourceColumn: {column.name}\n" in text
    assert text.count("\n\tcolumn ") == len(view.columns)


def test_a_new_column_appears_by_itself() -> None:
    new = ViewColumn("surcharge", pa.decimal128(18, 2), "what came on top")
    changed = tuple(replace(v, columns=(*v.columns, new)) if v.name == "daily_billing" else v for v in ALL)
    before, after = KIT, kit(changed)
    assert before.keys() == after.keys()
    told = [path for path in after if "surcharge" in after[path]]
    assert [path for path in after if after[path] != before[path]] == told
    assert f"{MODEL}/tables/daily_billing.tmdl" in told
    assert "\t/// what came on top\n\tcolumn surcharge\n\t\tdataType: decimal\n" in table("daily_billing", after)


def test_no_type_of_the_model_rounds() -> None:
    """Power BI's decimal has 4 decimals, a unit price has 6; counts are integers, money is no float."""
    kinds = {
        (view.name, column): kind
        for view in ALL
        for column, kind in re.findall(r"\tcolumn (\w+)\n\t\tdataType: (\w+)", table(view.name))
    }
    assert {kinds[view, "unit_price"] for view in ("daily_billing", "billing_adjustments", "prices")} == {"double"}
    assert kinds["daily_billing", "amount"] == kinds["billing_adjustments", "amount_delta"] == "decimal"
    assert kinds["invoices", "invoice"] == "decimal"
    assert kinds["minute_aggregates", "notifications"] == "int64"
    assert kinds["minute_aggregates", "minute_utc"] == kinds["daily_billing", "billing_date"] == "dateTime"


def measures() -> dict[str, str]:
    """Each measure by its name, with its expression and properties."""
    texts = [text for path, text in KIT.items() if path.startswith(f"{MODEL}/tables/")]
    found = [m for text in texts for m in re.findall(r"\tmeasure '?([^'=\n]+?)'? =(.*?)\n\n(?=\t[/mcp])", text, re.S)]
    assert len(found) == len(dict(found))
    return dict(found)


MONEY = r"\[(amount|amount_delta)\]"


def test_money_of_several_currencies_is_never_added() -> None:
    of_money = {name: text for name, text in measures().items() if re.search(MONEY, text)}
    assert of_money.keys() == {"Valor das linhas", "Valor provisório", "Valor cobrado", "Valor dos ajustes"}
    for text in of_money.values():
        assert re.search(r"IF \( COUNTROWS \( _moedas \) = 1, .*SUM \(", text)
        for money in re.findall(rf"(\w+){MONEY}", text):
            assert f"DISTINCT ( {money[0]}[currency] )" in text
    assert "\tdiscourageImplicitMeasures\n" in KIT[f"{MODEL}/model.tmdl"]
    assert all("summarizeBy: sum" not in text for text in KIT.values())


def test_the_symbol_is_that_of_the_rows_currency() -> None:
    """R$ is no constant: it stands for BRL, and any other currency for itself."""
    for name, text in measures().items():
        if re.search(MONEY, text):
            assert 'IF ( _moeda = "BRL", "R$", _moeda )' in text.partition("formatStringDefinition")[2], name
        else:
            assert "R$" not in text, name
    columns = re.findall(r"formatString: (.*)", "".join(table(view.name) for view in ALL))
    assert not [format for format in columns if "$" in format]


def test_every_measure_says_what_it_means() -> None:
    for path, text in KIT.items():
        if path.startswith(f"{MODEL}/tables/"):
            assert len(re.findall(r"\t/// .+\n\tmeasure ", text)) == text.count("\tmeasure ")


def test_columns_that_measures_name_exist() -> None:
    columns = {(view.name, column.name) for view in ALL for column in view.columns}
    named = {name for text in measures().values() for name in re.findall(r"(\w+)\[(\w+)\]", text)}
    assert named
    assert named - columns == set()


def test_columns_that_queries_name_exist() -> None:
    """Those by which the tables of shared keys are made, and by which rows are refreshed."""
    known = {view.name: {column.name for column in view.columns} for view in ALL}
    for path, text in KIT.items():
        for name, body in re.findall(r'Item = "(\w+)"\]\}\[Data\](.*?)\tin\n', text, re.S):
            assert name in known, path
            wanted = set(re.findall(r"each \[(\w+)\]| and \[(\w+)\]|List\.Max\(\[(\w+)\]\)", body))
            assert {column for match in wanted for column in match if column} - known[name] == set(), path


def test_relations_lead_to_keys_that_are_there_once() -> None:
    model = KIT[f"{MODEL}/relationships.tmdl"]
    ends = re.findall(r"fromColumn: (\w+)\.(\w+)\n\ttoColumn: (\w+)\.(\w+)", model)
    assert len(ends) == sum(1 for view in ALL for _ in relations_of(view)) > 20
    for table_name, column, to_table, to_column in ends:
        assert f"\n\tcolumn {column}\n" in table(table_name)
        assert re.search(rf"\n\tcolumn {to_column}\n\t\tdataType: \w+\n\t\tisKey\n", table(to_table))
    assert ("minute_aggregates", "minute_local_date", "days", "date") in ends
    assert ("billing_adjustments", "currency", "currencies", "currency") in ends


def test_each_policy_s_query_reads_a_range() -> None:
    refreshed = {v.name: table(v.name) for v in ALL if "\trefreshPolicy\n" in table(v.name)}
    assert refreshed.keys() == {"minute_aggregates", "daily_billing", "billing_adjustments"}
    for text in refreshed.values():
        assert len(re.findall(r"each \[\w+\] >= .*RangeStart.* and \[\w+\] < .*RangeEnd", text)) == 2
    assert "[created_at_utc] >= RangeStart" in refreshed["billing_adjustments"]  # late ones are of old days


@given(st.dates(date(2015, 1, 1), date(2200, 12, 31)))
def test_the_first_load_is_the_month_before_and_this_one(day: date) -> None:
    text = kit((), day=day)[f"{MODEL}/expressions.tmdl"]
    first, end = (date(*map(int, found)) for found in re.findall(r"#datetime\((\d+), (\d+), (\d+), 0, 0, 0\)", text))

    assert (first.day, end.day) == (1, 1)
    assert [d.year * 12 + d.month - day.year * 12 - day.month for d in (first, end)] == [-1, 1]


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"])))
def test_names_of_servers_break_no_file(name: str) -> None:
    files = kit((), ServingCopy(name, name))
    details = json.loads(files["notif.pbids"])["connections"][0]["details"]
    assert details["address"] == {"server": name, "database": name}
    quoted = name.replace('"', '""')
    assert f'\nexpression Server = "{quoted}" meta [' in files[f"{MODEL}/expressions.tmdl"]


def test_identifiers_are_those_of_every_kit_and_each_is_of_one_thing() -> None:
    other = kit(copy=ServingCopy("another.example", "copy"), day=date(2026, 1, 1))
    tags = re.findall(r"lineageTag: (\S+)|^relationship (\S+)", "".join(KIT.values()), re.M)
    assert len(tags) == len(set(tags)) > 100
    assert re.findall(r"lineageTag: (\S+)|^relationship (\S+)", "".join(other.values()), re.M) == tags


def test_every_json_of_the_project_is_one() -> None:
    read = [
        json.loads(text) for path, text in KIT.items() if Path(path).suffix in (".json", ".pbip", ".pbir", ".pbism")
    ]
    assert len(read) >= 6
    assert all(value["$schema"].startswith("https://developer.microsoft.com/json-schemas/") for value in read)


def test_writing_again_replaces_all_but_a_report(tmp_path: Path) -> None:
    files = files_of_kit(ALL, COPY, DAY)
    assert len(write_kit(tmp_path / "kit", files)) == len(files)
    own = tmp_path / "kit" / "power_bi" / "notif.Report" / "definition" / "report.json"
    own.write_text("mine")
    stale = tmp_path / "kit" / "notif.pbids"
    stale.write_text("old")
    again = write_kit(tmp_path / "kit", files)
    assert own.read_text() == "mine"
    assert stale.read_bytes() == files["notif.pbids"]
    assert again
    assert not [path for path in again if "notif.Report" in path.parts]


def test_the_command_writes_the_kit(deploy: Deploy) -> None:
    deployment = deploy(1)
    asked = ("bi-kit", "--out", "kit", "--server", COPY.server, "--database", COPY.database)
    said = ok(deployment.call(*asked)).text
    written = {str(p.relative_to(deployment.home / "kit")) for p in (deployment.home / "kit").rglob("*") if p.is_file()}
    assert written == {*kit(views("UTC", with_chatbot=False)), ARCHIVE}
    assert said == f"{len(written)} files in kit, for the serving copy at warehouse.example:5432/serving\n"
    assert f"{len(written) - 6} files" in ok(deployment.call(*asked)).text


def test_where_the_copy_is_comes_from_its_setting_without_its_password(deploy: Deploy) -> None:
    deployment = deploy(1)
    url = "postgresql://writer:hunter2@db.example/copy%20of?sslmode=verify-full"
    said = ok(deployment.call("bi-kit", "--out", "kit", NOTIF_SERVING_URL=url, NOTIF_SERVING_CHATBOT="true")).text
    assert said.endswith("for the serving copy at db.example:5432/copy of\n")
    written = b"".join(path.read_bytes() for path in (deployment.home / "kit").rglob("*") if path.is_file())
    assert b"hunter2" not in written
    assert b"writer" not in written
    assert b"table chatbot_reports\n" in written
    asked = ("bi-kit", "--out", "kit", "--server", "other:1")
    assert "other:1/copy of" in ok(deployment.call(*asked, NOTIF_SERVING_URL=url)).text


def test_without_a_place_there_is_no_kit(deploy: Deploy) -> None:
    deployment = deploy(1)
    said = refusal(deployment.call("bi-kit", "--out", "kit", "--database", "serving"))
    assert said == "Error: where is the serving copy? Say --server and --database, or set NOTIF_SERVING_URL"
    assert not (deployment.home / "kit").exists()


def test_a_folder_that_is_a_file_is_refused(deploy: Deploy) -> None:
    deployment = deploy(1)
    (deployment.home / "kit").write_text("")
    assert "'kit' is a file" in refusal(deployment.call("bi-kit", "--out", "kit"))
