"""Invoices, chatbot answers and price lists: the document's files, and what bad ones get.

Belongs here: the import commands and the reports upon them. Doesn't: each way a row can be bad (invoices/, chatbot/).
"""

import csv
import json
import os
from importlib.resources import files
from pathlib import Path

import pytest

from notif_assets_tests.cli.deployment import Answer, Deployment, golden, ok, parquet, refusal
from notif_assets_tests.conftest import Deploy

SAMPLES = Path(str(files("notif_assets") / "samples"))
HEADER = "customer,account,month,invoice\n"
HOURS = ("--from", "2019-12-16T13", "--to", "2019-12-16T14")


@pytest.fixture(scope="module")
def imported(deploy: Deploy) -> Deployment:
    """The document's files, imported twice."""
    deployment = deploy(1)
    answers = ("import-answers", "--date", "2019-12-16", SAMPLES / "hour=13.json", SAMPLES / "hour=14.json")
    said = [ok(deployment.run("import-invoices", SAMPLES / "invoices.csv")).text, ok(deployment.run(*answers)).text]
    assert said[0].startswith("15 invoices; averages of ")
    assert said[1] == "answers of 2019-12-16: 2 hours imported, the day's report is up to date\n"
    ok(deployment.call(*answers))
    ok(deployment.call("import-invoices", SAMPLES / "invoices.csv"))
    return deployment


def test_the_averages_are_the_documents(imported: Deployment) -> None:
    report = ("report", "invoice-averages", "--month", "2020-01")
    assert ok(imported.run(*report)).text == golden("invoice-averages.txt")
    assert ok(imported.call(*report, "--format", "csv")).text == golden("invoice-averages.csv")
    as_json = json.loads(ok(imported.call(*report, "--format", "json")).out)
    assert as_json[1] == {
        "customer": "C1000",
        "account": "A1200",
        "avg_invoices_last_3_months": "50666.66",
        "avg_invoices_last_6_months": None,
    }
    table = parquet(ok(imported.call(*report, "--format", "parquet")).out)
    assert table["account"].to_pylist() == ["A1100", "A1200", "A1300", "A2100"]
    published = imported.home / "data" / "reports" / "invoice-averages"
    assert (published / "2020-01.txt").read_text() == golden("invoice-averages.txt")
    one = ok(imported.call(*report, "--customer", "C2000", "--format", "csv")).text.splitlines()
    assert one[1:] == ["C2000,A2100,55400.00,"]


def test_the_chatbot_report_is_the_documents(imported: Deployment) -> None:
    assert ok(imported.run("report", "chatbot", *HOURS)).text == golden("chatbot.txt")
    of_flow = ("report", "chatbot", *HOURS, "--flow", "F1000")
    assert ok(imported.call(*of_flow, "--format", "csv")).text == golden("chatbot-F1000.csv")
    with_header = list(csv.DictReader(golden("chatbot-F1000.csv").splitlines()))
    assert json.loads(ok(imported.call(*of_flow, "--format", "json")).out) == with_header
    table = parquet(ok(imported.call(*of_flow, "--format", "parquet")).out)
    assert table["name"].to_pylist() == ["maria", "joao"]
    one_hour = ok(imported.call("report", "chatbot", "--from", "2019-12-16T14", "--to", "2019-12-16T14")).text
    assert "maria" not in one_hour
    assert "305.584.960-40" in one_hour


def test_importing_twice_does_no_harm(imported: Deployment) -> None:
    assert len(imported.rows("invoices")) == 15
    assert len(imported.rows("chatbot_answers")) == 10
    assert imported.rows("rejected_file_rows") == []
    ok(imported.call("check"))


def test_who_is_not_known_is_an_error(imported: Deployment) -> None:
    assert "flow F9: no answer was ever imported" in refusal(imported.run("report", "chatbot", *HOURS, "--flow", "F9"))
    both = imported.call("report", "chatbot", *HOURS, "--flow", "F2000", "--customer", "C1000")
    assert "customer C1000 with flow F2000: no answer was ever imported of it" in refusal(both)
    month = ("report", "invoice-averages", "--month", "2020-01")
    assert "customer C9 is not known" in refusal(imported.run(*month, "--customer", "C9"))
    quiet = ("report", "chatbot", "--date", "2019-12-17", "--flow", "F1000")
    answer = imported.call(*quiet)  # known, and silent that day
    assert (answer.code, answer.text) == (0, "")
    assert answer.err == "no answers of 2019-12-17: no file of that time was ever imported, or it has none\n"


def test_hours_and_days_without_answers_are_named(imported: Deployment) -> None:
    never = "no file of that time was ever imported, or it has none\n"
    answer = imported.call("report", "chatbot", "--from", "2019-12-16T12", "--to", "2019-12-16T17", "--flow", "F1000")
    assert (answer.code, answer.err) == (0, f"no answers of 2019-12-16T12, 2019-12-16T15 to 2019-12-16T17: {never}")
    assert "maria" in answer.text
    ok(imported.call("report", "chatbot", "--date", "2019-12-16"))
    answer = imported.call("report", "chatbot", "--from", "2019-12-14", "--to", "2019-12-17")
    assert answer.err == f"no answers of 2019-12-14 to 2019-12-15, 2019-12-17: {never}"


def _set_aside(answer: Answer, *expected: str) -> None:
    """Each bad row named by file and line, then how many there are."""
    assert answer.code == 1
    lines = answer.err.splitlines()
    assert lines[-1] == f"Error: {len(expected)} rows were set aside, see the table rejected_file_rows"
    assert len(lines) == len(expected) + 1, answer.err
    for line, start in zip(lines, expected, strict=False):
        assert line.startswith(start), (line, start)


def test_bad_invoices_are_set_aside_and_named_good_ones_are_taken(deploy: Deploy) -> None:
    deployment = deploy(1)
    (deployment.home / "bad.csv").write_text(
        "customer,account,month,invoice\n"
        "C1,A1,2019-12-01,10.50\n"
        "C1,A1,2019-13-01,10\n"
        "C1,A1,2019-11-01,ten\n"
        "C1,A1,2019-11-01,1.234\n"
        "\n"
        'C1,"A1,2019-11-01,7\n'
        "C1,A1,2019-11-15,7\n"
        "C1,A1,2019-11-01\n"
        ",A1,2019-11-01,7\n"
        "C1,A2,2019-12-01,-3\n"
    )
    expected = (
        "bad.csv:3: bad_month: ",
        "bad.csv:4: bad_number: ",
        "bad.csv:5: bad_number: invoice: more than 2 decimals",
        "bad.csv:6: blank_line: ",
        "bad.csv:7: stray_quote: ",
        "bad.csv:8: bad_month: ",
        "bad.csv:9: missing_cell: ",
        "bad.csv:10: empty_field: ",
    )
    _set_aside(deployment.run("import-invoices", "bad.csv"), *expected)
    _set_aside(deployment.call("import-invoices", "bad.csv"), *expected)
    invoices = sorted((row["account"], str(row["invoice"]), row["source_line"]) for row in deployment.rows("invoices"))
    assert invoices == [("A1", "10.50", 2), ("A2", "-3.00", 11)]
    aside = sorted((row["source_line"], row["reason"]) for row in deployment.rows("rejected_file_rows"))
    assert [line for line, _ in aside] == [3, 4, 5, 6, 7, 8, 9, 10]
    averages = ok(deployment.call("report", "invoice-averages", "--month", "2020-01", "--format", "csv")).text
    assert averages.splitlines()[1:] == ["C1,A1,,", "C1,A2,,"]

    (deployment.home / "bad.csv").write_text("customer,account,month,invoice\nC1,A1,2019-11-01,7\n")
    ok(deployment.call("import-invoices", "bad.csv"))
    assert deployment.rows("rejected_file_rows") == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"customer,account,month\nC1,A1,2019-12-01\n", "missing: invoice"),
        (b"", "empty; want a header line customer,account,month,invoice"),
        (b"PK\x03\x04\0\0", "not a CSV file in UTF-8"),
        (b"customer,account,month,invoice,invoice\n", "names a column more than once: invoice"),
        (None, "can't be read: No such file or directory"),
    ],
)
def test_a_file_that_is_no_invoice_file_is_refused_whole(
    imported: Deployment, content: bytes | None, said: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "refused.csv").write_bytes(content)
    before = imported.files()
    files = (SAMPLES / "invoices.csv", tmp_path / "refused.csv")  # the good one is not taken either
    line = refusal(imported.call("import-invoices", *files))
    assert line.startswith("Error: Nothing was imported. ")
    assert "refused.csv" in line
    assert said in line
    assert imported.files() == before


def test_a_refused_file_as_a_process(deploy: Deploy) -> None:
    deployment = deploy(1)
    (deployment.home / "refused.csv").write_text("customer,account,month\n")
    line = refusal(deployment.run("import-invoices", "refused.csv"))
    assert line.startswith("Error: Nothing was imported. refused.csv: its first line must name the columns")
    assert deployment.files() == {}


def test_bad_answers_are_set_aside_and_named_good_ones_are_taken(deploy: Deploy) -> None:
    deployment = deploy(1)
    good = {"customer": "C1", "flow": "F1", "session": "S1", "timestamp": "2019-12-16T13:00:00+00:00"}
    records = [
        {**good, "content": {"name": "ana", "age": 7, "none": None, "list": ["x"], "mood": "boa"}},
        "text",
        {**good, "content": ["no", "object"]},
        {**good, "session": 5, "content": {"a": "b"}},
        {**good, "timestamp": "2019-12-16", "content": {"a": "b"}},
        {"customer": "C1", "content": {}},
    ]
    text = "[\n" + ",\n".join(json.dumps(record) for record in records) + "\n]\n"
    (deployment.home / "hour=13.json").write_text(text)
    name = "date=2019-12-16/hour=13.json"
    expected = (
        *[f"{name}:2: value_not_text: pair {pair} of the file: the value is no text" for pair in (2, 3, 4)],
        f"{name}:3: not_an_object: ",
        f"{name}:4: wrong_type: content is no object",
        f"{name}:5: wrong_type: session is no text",
        f"{name}:6: bad_timestamp: ",
        f"{name}:7: missing_field: flow is missing",
    )
    answer = deployment.run("import-answers", "--date", "2019-12-16", "hour=13.json")
    _set_aside(answer, *expected)
    assert len(deployment.rows("rejected_file_rows")) == len(expected)
    report = ok(deployment.call("report", "chatbot", "--date", "2019-12-16", "--format", "csv")).text
    assert report.splitlines() == [
        "customer,flow,session,first_answer_dt,last_answer_dt,name,mood",
        "C1,F1,S1,2019-12-16T13:00:00,2019-12-16T13:00:00,ana,boa",
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("hour=15.json", b"customer,flow\n", "not a JSON array at the top level"),
        ("hour=15.json", b'{"customer": "C1"}', "not a JSON array at the top level"),
        ("hour=15.json", b'[{"customer": "C1"},\n', "not JSON (line 2)"),
        ("hour=15.json", b"", "empty; want a JSON array of objects"),
        ("hour=15.json", b'["\xe3"]', "not UTF-8"),
        ("hour=24.json", b"[]", "want a file named hour=HH.json with HH from 00 to 23, got 'hour=24.json'"),
        ("hour=15.json", None, "hour=15.json: can't be read: No such file or directory"),
    ],
)
def test_a_file_that_is_no_file_of_answers_is_refused_whole(
    imported: Deployment, name: str, content: bytes | None, said: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    before = imported.files()
    command = ("import-answers", "--date", "2019-12-16", SAMPLES / "hour=13.json", tmp_path / name)
    assert said in refusal(imported.call(*command))
    assert imported.files() == before
    if content is not None and name == "hour=15.json":  # also where both hours go into one run
        (tmp_path / "hour=14.json").write_bytes(content)
        command = (*command[:-1], tmp_path / "hour=14.json")
        assert said in refusal(imported.call(*command))
        assert imported.files() == before


def test_answers_of_an_impossible_day(imported: Deployment) -> None:
    for day in ("2018-12-31", "2999-01-01"):
        command = ("import-answers", "--date", day, SAMPLES / "hour=13.json")
        assert f"{day} has no answers: days go from 2019-01-01 to today" in refusal(imported.call(*command))


def test_a_price_list_with_a_bad_row_is_refused_whole(deploy: Deploy) -> None:
    deployment = deploy(1)
    (deployment.home / "prices.csv").write_text(
        "customer_id,channel,unit_price,currency,valid_from,valid_to\n,Whatsapp,0.05,BRL,,\n,SMS,cheap,BRL,,\n"
    )
    line = refusal(deployment.run("import-prices", "prices.csv"))
    assert line.startswith("Error: No price was changed. prices.csv:3: bad_number: unit_price: ")
    assert deployment.files() == {}
    assert "can't be read: No such file or directory" in refusal(deployment.call("import-prices", "none.csv"))


def test_a_name_that_no_table_can_hold_is_refused_in_one_line_that_shows_it(deploy: Deploy, tmp_path: Path) -> None:
    deployment = deploy(1)
    odd = tmp_path / os.fsdecode(b"fatura\xe7.csv")
    odd.write_text("customer,account,month,invoice\n")
    lines = tmp_path / "two\nlines.csv"
    lines.write_text("customer,account,month,invoice\n")
    answers = tmp_path / os.fsdecode(b"\xe7") / "hour=13.json"
    for command in (["import-invoices"], ["import-prices"], ["import-answers", "--date", "2019-12-16"]):
        assert 'fatura\\udce7.csv": its name is not UTF-8; rename it' in refusal(deployment.run(*command, odd))
        assert 'two\\nlines.csv": its name holds a control character' in refusal(deployment.run(*command, lines))
    assert "its name is not UTF-8" in refusal(deployment.run("import-answers", "--date", "2019-12-16", answers))


def test_two_files_of_one_hour_are_refused_by_name(deploy: Deploy, tmp_path: Path) -> None:
    paths = [tmp_path / name / "hour=15.json" for name in ("m1", "m2")]
    for path in paths:
        path.parent.mkdir()
        path.write_text("[]")
    deployment = deploy(1)
    told = refusal(deployment.run("import-answers", "--date", "2019-12-16", *paths))
    assert f"two of the files are of one hour: {paths[0]} and {paths[1]}" in told
    assert deployment.run("import-answers", "--date", "2019-12-16", paths[0], paths[0]).code == 0


def test_two_files_of_one_name_are_both_taken_and_named_apart(deploy: Deploy, tmp_path: Path) -> None:
    deployment = deploy(1)
    for year, lines in {
        "2019": "C1,A1,2019-10-01,10\nC1,A1,2019-11-01,1.234,56\n",
        "2020": "C1,A2,2019-12-01,30\n",
    }.items():
        (tmp_path / year).mkdir()
        (tmp_path / year / "invoices.csv").write_text(HEADER + lines)
    paths = [tmp_path / year / "invoices.csv" for year in ("2019", "2020")]
    _set_aside(deployment.call("import-invoices", *paths), "2019/invoices.csv:3: extra_cell: ")
    assert {row["source_file"] for row in deployment.rows("invoices")} == {"2019/invoices.csv", "2020/invoices.csv"}


def test_what_is_replaced_is_said_and_an_import_is_taken_back(deploy: Deploy) -> None:
    deployment = deploy(1)
    months = "".join(f"C1,A1,2019-{month}-01,100\n" for month in (10, 11, 12))
    (deployment.home / "invoices.csv").write_text(HEADER + months)
    (deployment.home / "notes.csv").write_text(HEADER + "C1,A1,2019-12-01,-30\n")
    averages = ("report", "invoice-averages", "--month", "2020-01", "--format", "csv")
    ok(deployment.call("import-invoices", "invoices.csv"))
    said = ok(deployment.call("import-invoices", "notes.csv")).text.splitlines()
    assert said == ["3 invoices; averages of 6 months are up to date", "notes.csv replaces 1 rows of invoices.csv"]
    assert ok(deployment.call(*averages)).text.splitlines()[1:] == ["C1,A1,56.66,"]
    said = ok(deployment.run("import-invoices", "--forget", "notes.csv")).text.splitlines()
    assert said[1] == "1 rows of notes.csv are forgotten; what they replaced is not back"
    assert ok(deployment.call(*averages)).text.splitlines()[1:] == ["C1,A1,,"]
    ok(deployment.call("import-invoices", "invoices.csv"))
    assert ok(deployment.call(*averages)).text.splitlines()[1:] == ["C1,A1,100.00,"]
    refused = refusal(deployment.call("import-invoices", "--forget", "notes.csv"))
    assert "nothing of a file named notes.csv is in the lake; files there: invoices.csv" in refused
    assert "or --forget FILE to take an import back" in deployment.call("import-invoices").err
    ok(deployment.call("check"))


def test_a_month_that_is_known_in_part_has_no_average_and_check_knows(deploy: Deploy) -> None:
    deployment = deploy(1)
    months = "".join(f"C1,A1,2019-{month}-01,100\n" for month in (10, 11, 12))
    (deployment.home / "a.csv").write_text(HEADER + months + 'C1,A1,2019-12-01,"1.200,00"\n')
    _set_aside(deployment.call("import-invoices", "a.csv"), "a.csv:5: bad_number: ")
    report = ("report", "invoice-averages", "--month", "2020-01", "--format", "csv")
    assert ok(deployment.call(*report)).text.splitlines()[1:] == ["C1,A1,,"]
    said = ok(deployment.call("check")).text
    assert "warn rejected_file_rows.no_rows_are_set_aside: 1 rows are set aside, of a.csv (1)" in said
    assert "ok   invoice_window_averages.averages_equal_a_plain_calculation" in said
    (deployment.home / "a.csv").write_text(HEADER + months + "C1,A1,2019-12-01,1200\n")
    ok(deployment.call("import-invoices", "a.csv"))
    assert ok(deployment.call(*report)).text.splitlines()[1:] == ["C1,A1,500.00,"]
    assert "ok   rejected_file_rows.no_rows_are_set_aside" in ok(deployment.call("check")).text


def test_a_month_without_windows_stops_no_later_import(deploy: Deploy, tmp_path: Path) -> None:
    deployment = deploy(1)
    header = "customer,account,month,invoice\n"
    (tmp_path / "a.csv").write_text(header + "C1,A1,2019-10-01,100\nC1,A9,9999-12-01,1\n")
    (tmp_path / "b.csv").write_text(header + "C1,A1 ,2019-11-01,100\n")
    _set_aside(deployment.run("import-invoices", tmp_path / "a.csv"), "a.csv:3: bad_month: ")
    assert ok(deployment.call("import-invoices", tmp_path / "b.csv")).text.startswith("2 invoices; ")
    ok(deployment.call("rebuild", "invoice_window_averages"))
    assert refusal(deployment.call("report", "invoice-averages", "--month", "0001-06"))
