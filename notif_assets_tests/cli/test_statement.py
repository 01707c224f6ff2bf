"""A customer's monthly statement: which entries it has, and when it is final.

Belongs here: the command on a real lake. Doesn't: how a statement is written (reports/test_statement.py).
"""

import csv
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pypdfium2
import pytest

from notif_assets_tests.cli.deployment import Deployment, ok, refusal
from notif_assets_tests.cli.messages import ACME, PADARIA, notification
from notif_assets_tests.conftest import Deploy

NOON = datetime(2020, 2, 3, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def _statement(*more: object) -> tuple[object, ...]:
    return ("report", "statement", "--customer", ACME, "--month", "2020-02", *more)


@pytest.fixture(scope="module")
def office(deploy: Deploy) -> Deployment:
    """A closed day of February with a late message, another day that is not closed yet, and one of March."""
    deployment = deploy(1)
    deployment.send(notification(NOON, f"{n}") for n in range(100))
    deployment.send([notification(NOON, "other", customer_id=PADARIA, customer_name="Padaria")])
    ok(deployment.call("ingest", "--until-caught-up"))
    ok(deployment.call("close-day", "2020-02-03"))
    deployment.send(
        [notification(NOON, "late"), notification(NOON + DAY, "open"), notification(NOON + 30 * DAY, "march")]
    )
    ok(deployment.call("ingest", "--until-caught-up"))
    ok(deployment.call("close-day", "2020-02-03"))
    return deployment


def test_a_month_has_its_days_adjustments_and_total_and_is_final_once_all_of_it_is_closed(office: Deployment) -> None:
    head = "Extrato Mensal\n\nCliente: Acme\nCódigo: 7494212\nMês: 2020-02\nSituação: "
    said = ok(office.run(*_statement())).text
    assert said.startswith(head + "provisória\nDias em aberto: 2020-02-04 a 2020-02-29\nCobranças: R$ 4,04\n")
    assert said.splitlines()[-3:] == [
        "2020-02-03  Whatsapp  cobrança                              100  R$ 0,04  R$ 4,00  final",
        "2020-02-03  Whatsapp  ajuste: mensagens atrasadas             1  R$ 0,04  R$ 0,04  final",
        "2020-02-04  Whatsapp  cobrança                                1  R$ 0,04  R$ 0,04  provisória",
    ]
    ok(office.call("close-day", "2020-02-04", "--to", "2020-02-29"))
    said = ok(office.call(*_statement())).text
    assert said.startswith(head + "final\nCobranças: R$ 4,04\nAjustes: R$ 0,04\nTotal: R$ 4,08\n")
    (march,) = [row for row in _rows(office, "2020-03") if row["entry"] == "line"]
    assert (march["billing_date"], march["status"]) == ("2020-03-04", "provisional")


def _rows(office: Deployment, month: str) -> list[dict[str, str]]:
    printed = ok(office.call("report", "statement", "--customer", ACME, "--month", month, "--format", "csv")).text
    return list(csv.DictReader(io.StringIO(printed)))


def test_paper_goes_to_a_file(office: Deployment, tmp_path: Path) -> None:
    path = tmp_path / "2020-02.pdf"
    assert ok(office.run(*_statement("--format", "pdf", "--out", path))).out == b""
    assert "Cliente: Acme" in pypdfium2.PdfDocument(path)[0].get_textpage().get_text_bounded()


def test_what_there_is_no_statement_of(office: Deployment) -> None:
    future = ("report", "statement", "--customer", ACME, "--month", "9000-01")
    assert refusal(office.call(*future)) == "Error: 9000-01 has not begun"
    unknown = ("report", "statement", "--customer", 1, "--month", "2020-02")
    assert "customer 1 is not known" in refusal(office.call(*unknown))
    quiet = office.call("report", "statement", "--customer", ACME, "--month", "2020-01")
    assert (quiet.code, quiet.err) == (0, f"no bill in 2020-01: no message of customer {ACME} is counted then\n")
    assert quiet.text.endswith("Situação: final\nCobranças: R$ 0,00\nTotal: R$ 0,00\n")


def test_what_has_no_price_is_left_out_and_named(deploy: Deploy) -> None:
    deployment = deploy(1)
    deployment.send([notification(NOON, "priced"), notification(NOON, "unpriced", channel="Pombo")])
    ok(deployment.call("ingest", "--until-caught-up"))
    answer = deployment.call(*_statement())
    assert "the statement lacks what has no price on 2020-02-03" in refusal(answer)
    assert "Sem preço ainda, não incluído: 2020-02-03\nCobranças: R$ 0,04\n" in answer.text
