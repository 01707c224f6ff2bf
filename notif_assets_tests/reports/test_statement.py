"""The monthly statement: what it says, and each format opened by another library.

Belongs here: statements made of rows. Doesn't: which rows a month has (cli/test_statement.py).
"""

import csv
import io
import os
import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import openpyxl
import pypdfium2
import pytest

from notif_assets.core.formats import StatementFormat
from notif_assets.reports import billing_entries, write_statement
from notif_assets.reports.statement import STATEMENT_SCHEMA, Statement
from notif_assets_tests.reports.test_reports import adjustment, bill, line

FEBRUARY = date(2020, 2, 1)
_SCREENSHOTS = os.environ.get("NOTIF_SCREENSHOTS")  # a folder: the picture of docs/ is taken anew


def day(number: int) -> date:
    return FEBRUARY.replace(day=number)


def statement(*rows: dict[str, Any], **other: Any) -> Statement:
    given = {"open_days": (), "unpriced_days": (), "currency": "BRL", "customer_name": "Acme", **other}
    return Statement(customer_id=7494212, month=FEBRUARY, entries=billing_entries(*bill(*rows)), **given)


def written(made: Statement, format: StatementFormat) -> bytes:
    out = io.BytesIO()
    write_statement(made, out, format)
    return out.getvalue()


def pages(made: Statement) -> list[str]:
    """The text of each page of the PDF."""
    paper = pypdfium2.PdfDocument(written(made, "pdf"))
    return [page.get_textpage().get_text_bounded() for page in paper]


PRICE, CENT = {"unit_price": Decimal("0.04")}, {"unit_price": Decimal("0.01")}
ROWS = (
    line("1000.00", "Whatsapp", 25000, billing_date=day(3), **PRICE),
    line("0.60", "SMS", 10, billing_date=day(3), unit_price=Decimal("0.06")),
    line("4.00", "Whatsapp", 100, billing_date=day(4), status="provisional", **PRICE),
    adjustment("1.24", 31, billing_date=day(3), **PRICE),
    adjustment("-20.00", -500, billing_date=day(3), reason="repriced", adjustment_id="a2", **PRICE),
    adjustment("5.00", 500, billing_date=day(3), reason="repriced", currency="USD", adjustment_id="a3", **CENT),
)
MIXED = statement(*ROWS, open_days=(day(4), day(5), day(29)), unpriced_days=(day(4),))


def test_what_it_says() -> None:
    assert (
        written(MIXED, "text").decode()
        == """\
Extrato Mensal

Cliente: Acme
Código: 7494212
Mês: 2020-02
Situação: provisória
Dias em aberto: 2020-02-04 a 2020-02-05, 2020-02-29
Sem preço ainda, não incluído: 2020-02-04
Cobranças: R$ 1004,60
Ajustes: R$ -18,76 e USD 5,00
Total: R$ 985,84 e USD 5,00

Por canal
Canal     Notificações      Valor
SMS                 10    R$ 0,60
Whatsapp         24631  R$ 985,24
Whatsapp           500   USD 5,00

Por dia
Data        Canal     Lançamento                   Notificações     Preço       Valor  Situação
2020-02-03  SMS       cobrança                               10   R$ 0,06     R$ 0,60  final
2020-02-03  Whatsapp  cobrança                            25000   R$ 0,04  R$ 1000,00  final
2020-02-03  Whatsapp  ajuste: mensagens atrasadas            31   R$ 0,04     R$ 1,24  final
2020-02-03  Whatsapp  ajuste: preço corrigido              -500   R$ 0,04   R$ -20,00  final
2020-02-03  Whatsapp  ajuste: preço corrigido               500  USD 0,01    USD 5,00  final
2020-02-04  Whatsapp  cobrança                              100   R$ 0,04     R$ 4,00  provisória
"""
    )


def test_rows_for_programs_and_spreadsheets_end_with_a_total_of_each_currency() -> None:
    rows = list(csv.DictReader(io.StringIO(written(MIXED, "csv").decode())))
    assert list(rows[0]) == STATEMENT_SCHEMA.names
    assert [(row["entry"], row["amount"], row["currency"], row["status"]) for row in rows] == [
        ("line", "0.60", "BRL", "final"),
        ("line", "1000.00", "BRL", "final"),
        ("adjustment", "1.24", "BRL", "final"),
        ("adjustment", "-20.00", "BRL", "final"),
        ("adjustment", "5.00", "USD", "final"),
        ("line", "4.00", "BRL", "provisional"),
        ("total", "985.84", "BRL", "provisional"),
        ("total", "5.00", "USD", "provisional"),
    ]
    for currency in ("BRL", "USD"):
        of_currency = [row for row in rows if row["currency"] == currency]
        assert sum(Decimal(row["amount"]) for row in of_currency[:-1]) == Decimal(of_currency[-1]["amount"])
    of_brazil = csv.DictReader(io.StringIO(written(MIXED, "csv-br").decode("utf-8-sig")), delimiter=";")
    assert [row["amount"] for row in of_brazil] == [row["amount"].replace(".", ",") for row in rows]
    sheet = openpyxl.load_workbook(io.BytesIO(written(MIXED, "xlsx"))).active
    header, *cells = sheet.iter_rows(values_only=True)
    assert header == tuple(STATEMENT_SCHEMA.names)
    assert [row[header.index("amount")] for row in cells] == [float(row["amount"]) for row in rows]


def test_a_month_without_messages_has_a_total_of_nothing() -> None:
    nothing = statement(currency="USD")
    assert written(nothing, "text").decode().endswith("Situação: final\nCobranças: USD 0,00\nTotal: USD 0,00\n")
    assert "Total: USD 0,00" in pages(nothing)[0]
    (row,) = csv.DictReader(io.StringIO(written(nothing, "csv").decode()))
    assert (row["entry"], row["amount"], row["currency"], row["status"]) == ("total", "0.00", "USD", "final")


def test_paper_says_what_the_text_says() -> None:
    (page,) = pages(MIXED)
    for told in written(MIXED, "text").decode().splitlines():
        for cell in told.split("  "):
            assert cell.strip() in page, cell


def test_paper_has_as_many_pages_as_it_takes_each_with_the_header() -> None:
    rows = [line("1.00", channel, 25, billing_date=day(n), **PRICE) for n in range(1, 30) for channel in "ABCD"]
    found = pages(statement(*rows))
    assert len(found) > 2
    assert all("Lançamento" in page for page in found)
    assert [f"7494212 · 2020-02 · {n}/{len(found)}" in page for n, page in enumerate(found, 1)] == [True] * len(found)
    assert sum(page.count("R$ 1,00") for page in found) == len(rows)
    if _SCREENSHOTS:
        paper = pypdfium2.PdfDocument(written(MIXED, "pdf"))
        paper[0].render(scale=1.2).to_pil().crop((0, 0, 714, 560)).save(Path(_SCREENSHOTS) / "statement.png")


def test_paper_holds_odd_names_and_long_numbers_uncut() -> None:
    largest = "9999999999999999.99"
    row = line(largest, 'Canal "x"\n' * 50, 2**60, billing_date=day(3), unit_price=Decimal("999999999999.999999"))
    (page,) = pages(statement(row, customer_name="Łódź 日本 😀\n" + "A" * 8000))
    assert "Cliente: Łódź \\u65e5\\u672c \\u1f600\\nAAA" in page.replace("\r\n", " ")
    assert page.count("A" * 20) < 20
    assert page.count("R$ 9999999999999999,99") >= 2
    assert str(2**60) in page
    assert "R$ 999999999999,999999" in page


@pytest.mark.parametrize("format", get_args(StatementFormat))
def test_the_same_statement_is_the_same_file(format: StatementFormat) -> None:
    assert written(MIXED, format) == written(MIXED, format)


def test_what_makes_paper_and_workbooks_is_imported_where_it_is_needed() -> None:
    """The panel has little memory, and most of its processes' life nobody asks for either."""
    program = "import sys, notif_assets.panel.app; print(*{name.partition('.')[0] for name in sys.modules})"
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert not {"fpdf", "xlsxwriter", "fontTools", "PIL", "openpyxl"} & set(told.stdout.split())
