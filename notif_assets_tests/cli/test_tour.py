"""The whole way on the document's day: ingest, close, and every report of notifications in every format.

Belongs here: what the commands print of one deployment that nothing disturbs. Doesn't: corrections (test_books.py),
files (test_files.py), refusals.
"""

import csv
import io
import json
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import openpyxl
import pytest
from deltalake import DeltaTable

from notif_assets.core.formats import Format
from notif_assets_tests.cli.deployment import Deployment, golden, ok, parquet, refusal
from notif_assets_tests.cli.messages import ACME, PADARIA, day_of_acme, notification
from notif_assets_tests.conftest import Deploy

FORMATS = get_args(Format)
DAY = ("--date", "2020-02-03")
HOUR = ("--from", "2020-02-03T14", "--to", "2020-02-03T14")


@pytest.fixture(scope="module")
def tour(deploy: Deploy) -> Deployment:
    """The document's day, ingested and closed, by real processes; one more customer had its only message before."""
    deployment = deploy(4)
    before = datetime(2020, 2, 2, 12, tzinfo=UTC)
    deployment.send([notification(before, "1", customer_id=PADARIA, customer_name="Padaria"), *day_of_acme()])
    said = ok(deployment.run("ingest", "--until-caught-up")).text
    counts = "25001 notifications, 0 rejected; "
    moment = r"complete up to \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\n"
    assert re.fullmatch(f"this run: {counts}in all: {counts}{moment}", said)
    said = ok(deployment.run("close-day", "2020-02-02", "--to", "2020-02-03")).text
    assert said == (
        "2020-02-02 closed: 1 lines, 1 notifications, R$ 0,04\n"
        "2020-02-03 closed: 1 lines, 25000 notifications, R$ 1000,00\n"
    )
    return deployment


def test_what_was_produced_is_what_was_accepted_and_rejected(deploy: Deploy) -> None:
    deployment = deploy(4)
    said = ok(deployment.call("produce", "--rate", 5000, "--seconds", 1, "--seed", 2)).text
    produced, accepted, duplicates, broken = map(int, re.findall(r"\d+", said))
    said = ok(deployment.run("ingest", "--until-caught-up")).text
    counts = f"{accepted} notifications, {duplicates + broken} rejected; "
    assert said.startswith(f"this run: {counts}in all: {counts}complete up to ")
    assert produced == accepted + duplicates + broken
    batches = len(deployment.rows("ingest_batches"))
    again = ok(deployment.call("ingest", "--until-caught-up")).text
    assert again.startswith(f"this run: 0 notifications, 0 rejected; in all: {counts}complete up to ")
    # The same messages once more: what came now is told apart from what is there.
    ok(deployment.call("produce", "--rate", 5000, "--seconds", 1, "--seed", 2))
    again = ok(deployment.call("ingest", "--until-caught-up")).text
    assert again.startswith(f"this run: 0 notifications, {produced} rejected; in all: {accepted} notifications, ")
    # At most one more batch, an empty one, in each of the 4 partitions.
    assert len(deployment.rows("ingest_batches")) - batches in (4, 8)
    assert len(deployment.rows("raw_notifications")) == 2 * produced
    # Today's bill can't be had while a channel has no price, and is provisional then.
    today = ("--date", deployment.rows("customer_panel")[0]["billing_date"], "--customer", ACME)
    assert "has no price" in refusal(deployment.call("report", "billing", *today))


def test_producing_again_brings_new_messages(deploy: Deploy) -> None:
    deployment = deploy(2)
    accepted = 0
    for _ in range(2):
        said = ok(deployment.call("produce", "--rate", 1000, "--seconds", 1)).text
        accepted += int(re.findall(r"\d+", said)[1])
        assert (
            ok(deployment.call("ingest", "--until-caught-up"))
            .text.partition("in all: ")[2]
            .startswith(f"{accepted} notifications, ")
        )


def test_the_bill_is_the_documents(tour: Deployment) -> None:
    bill = golden("billing.txt")
    assert ok(tour.run("report", "billing", *DAY, "--customer", ACME)).text == bill
    assert ok(tour.run("report", "billing", *DAY)).text == bill
    published = tour.home / "data" / "reports" / "billing"
    assert (published / "2020-02-03.txt").read_text() == bill
    assert {path.name for path in published.iterdir()} == {
        f"2020-02-0{day}.{suffix}" for day in (2, 3) for suffix in ("txt", "csv", "parquet")
    }


def test_the_detailed_report_is_the_documents(tour: Deployment) -> None:
    assert ok(tour.run("report", "detailed", *HOUR)).text == golden("detailed.txt")
    assert ok(tour.call("report", "detailed", *HOUR, "--format", "csv")).text == golden("detailed.csv")
    assert ok(tour.call("report", "detailed", *HOUR, "--format", "json")).text == golden("detailed.json")
    whole = list(csv.reader(ok(tour.call("report", "detailed", *DAY, "--format", "csv")).text.splitlines()))[1:]
    assert len(whole) == 25_000
    assert whole == sorted(whole, key=lambda row: (int(row[0]), row[5], row[1]))


def test_the_panel_shows_the_day_so_far(deploy: Deploy) -> None:
    deployment = deploy(2)
    now = datetime.now(UTC)
    deployment.send(notification(now, f"{n}") for n in range(5000))
    ok(deployment.run("ingest"))
    shown = ok(deployment.run("report", "panel", "--customer", ACME)).text
    (row,) = json.loads(ok(deployment.call("report", "panel", "--format", "json")).out)
    at = datetime.fromisoformat(row["updated_at"]).replace(microsecond=0)
    count = 5000 if date.fromisoformat(row["billing_date"]) == now.date() else 0  # run at midnight
    assert shown == golden("panel.txt").replace("5000", str(count)).replace("2020-02-03T15:00:00+00:00", at.isoformat())
    assert timedelta(0) <= datetime.now(UTC) - at < timedelta(minutes=5)
    assert (row["notifications"], row["customer_id"], row["channel"]) == (count, ACME, "Whatsapp")


@pytest.mark.parametrize("report", [("panel",), ("detailed", *HOUR), ("billing", *DAY)], ids=lambda report: report[0])
def test_every_format_says_the_same_and_a_file_holds_what_is_printed(
    tour: Deployment, report: tuple[str, ...], tmp_path: Path
) -> None:
    printed = {format: ok(tour.call("report", *report, "--format", format)).out for format in FORMATS}
    for format, expected in printed.items():
        out = tmp_path / "sub" / f"report.{format}"
        assert ok(tour.call("report", *report, "--format", format, "--out", out)).out == b""
        assert out.read_bytes() == expected
    table = parquet(printed["parquet"])
    as_csv: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(printed["csv"].decode())))
    as_json = json.loads(printed["json"])
    assert table.num_rows == len(as_csv) == len(as_json) > 0
    assert table.column_names == list(as_csv[0]) == list(as_json[0])
    for plain, typed in zip(as_csv, as_json, strict=True):
        assert plain == {name: "" if value is None else str(value) for name, value in typed.items()}
    assert [row["customer_id"] for row in as_json] == table["customer_id"].to_pylist()
    of_brazil = list(csv.reader(io.StringIO(printed["csv-br"].decode("utf-8-sig")), delimiter=";"))
    sheet = openpyxl.load_workbook(io.BytesIO(printed["xlsx"])).active
    assert of_brazil[0] == [cell.value for cell in next(sheet.iter_rows())] == table.column_names
    assert len(of_brazil) == sheet.max_row == 1 + table.num_rows


def test_a_report_as_a_process_in_parquet(tour: Deployment) -> None:
    bill = parquet(ok(tour.run("report", "billing", *DAY, "--format", "parquet")).out)
    assert (bill["notifications"].to_pylist(), [str(a) for a in bill["amount"].to_pylist()]) == ([25000], ["1000.00"])


def test_a_known_customer_without_messages(tour: Deployment) -> None:
    assert ok(tour.run("report", "billing", *DAY, "--customer", PADARIA)).text == (
        "Relatório de Cobrança\n\nCliente: Padaria\nNotificações Whatsapp: 0\nValor: R$ 0,00\nData: 2020-02-03\n"
    )
    panel = ok(tour.run("report", "panel", "--customer", PADARIA)).text
    assert panel.startswith("Painel de Notificações\nCliente: Padaria\nNotificações Whatsapp: 0\nÚltima atualização: ")
    never = ok(tour.call("report", "billing", "--date", "2020-02-01", "--customer", PADARIA)).text
    assert "Valor: R$ 0,00\nData: 2020-02-01\n" in never


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (("billing", "--date", "2020-02-01"), "no bill for 2020-02-01: no message is counted then\n"),
        (
            ("billing", "--from", "2020-01-31", "--to", "2020-02-05", "--channel", "whatsapp"),
            "no bill for 2020-01-31 to 2020-02-01, 2020-02-04 to 2020-02-05: "
            "no message of channel whatsapp is counted then\n",
        ),
        (
            ("billing", *DAY, "--customer", str(ACME), "--channel", "Fax"),
            f"no bill for 2020-02-03: no message of customer {ACME} of channel Fax is counted then\n",
        ),
        (("panel", "--channel", "Fax"), "no message of channel Fax was ever counted\n"),
        (
            ("panel", "--customer", str(PADARIA), "--channel", "SMS"),
            f"no message of customer {PADARIA} of channel SMS was ever counted\n",
        ),
        (("detailed", "--channel", "Fax"), "no message of channel Fax is there\n"),
        (
            ("detailed", *DAY, "--customer", str(PADARIA)),
            f"no message of customer {PADARIA} of 2020-02-03 is there\n",
        ),
        (
            ("detailed", "--from", "2020-02-03T15", "--to", "2020-02-04"),
            "no message of 2020-02-03T15 to 2020-02-04 is there\n",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_an_empty_report_says_so(tour: Deployment, report: tuple[str, ...], said: str) -> None:
    for format in FORMATS:
        answer = tour.call("report", *report, "--format", format)
        assert (answer.code, answer.err) == (0, said)


def test_a_channel_s_case_does_not_count(tour: Deployment) -> None:
    for report in (("panel",), ("detailed", *HOUR), ("billing", *DAY)):
        exact = ok(tour.call("report", *report, "--channel", "Whatsapp"))
        assert ok(tour.call("report", *report, "--channel", "wHATSAPP")).out == exact.out
        assert ok(tour.call("report", *report, "--channel", "whatsapp", "--customer", ACME)).out != b""


@pytest.mark.parametrize("report", [("panel",), ("detailed",), ("billing", *DAY)], ids=lambda report: report[0])
def test_an_unknown_customer_is_an_error_and_leaves_no_file(
    tour: Deployment, report: tuple[str, ...], tmp_path: Path
) -> None:
    out = tmp_path / "report"
    for customer in (1, -1, 2**70):
        answer = tour.call("report", *report, "--customer", customer, "--out", out)
        assert f"customer {customer} is not known" in refusal(answer)
        assert not out.exists()
    assert refusal(tour.run("report", *report, "--customer", 1))


def test_closing_again_changes_nothing(tour: Deployment) -> None:
    books = ("daily_billing", "billing_days", "billing_adjustments", "prices")
    before = {name: tour.commits(name) for name in books}
    said = ok(tour.call("close-day", "2020-02-03")).text
    assert said == "2020-02-03 closed: 1 lines, 25000 notifications, R$ 1000,00\n"
    assert {name: tour.commits(name) for name in books} == before


def test_all_checks_pass_until_a_table_is_damaged(deploy: Deploy) -> None:
    deployment = deploy(2)
    deployment.send(notification(datetime.now(UTC) - timedelta(minutes=5), f"{n}") for n in range(50))
    ok(deployment.run("ingest", "--until-caught-up"))
    said = ok(deployment.run("check")).text
    assert "ok   rejected_notifications.every_offset_once\n" in said
    assert "ok   daily_billing.published_bill_holds\n" in said
    assert "FAIL" not in said

    DeltaTable(str(deployment.lake.root / "minute_aggregates")).delete()
    answer = deployment.run("check")
    assert re.fullmatch(r"Error: \d+ of \d+ checks failed", refusal(answer))
    assert answer.code == 1
    assert re.search(r"^FAIL minute_aggregates\.minutes_equal_messages: .*50 messages, 0 in", answer.text, re.M)
    # No check is missing because another one failed: what stands on that says so.
    assert [line.split()[1].rstrip(":") for line in said.splitlines()] == [
        line.split()[1].rstrip(":") for line in answer.text.splitlines()
    ]

    ok(deployment.call("rebuild", "minute_aggregates"))
    ok(deployment.call("check"))
