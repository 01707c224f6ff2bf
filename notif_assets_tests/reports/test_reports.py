"""The reports: the document's own examples byte for byte, hostile values, and each format read back."""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, get_args

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notif_assets.core.formats import Format
from notif_assets.reports import (
    BILLING_SCHEMA,
    DETAILED_SCHEMA,
    INVOICE_AVERAGES_SCHEMA,
    PANEL_SCHEMA,
    plain,
    workbook,
    write_billing,
    write_chatbot,
    write_detailed,
    write_invoice_averages,
    write_panel,
)
from notif_assets.reports.text import brazilian, money, visible

DAY = date(2020, 2, 3)
NOON = datetime(2020, 2, 3, 15, tzinfo=UTC)


def golden(name: str) -> str:
    return (Path(__file__).parent / "golden" / name).read_text(encoding="utf-8")


def written(write: Callable[..., None], *arguments: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    *data, format = arguments
    write(*data, out, format, **options)
    return out.getvalue()


def text_of(write: Callable[..., None], *arguments: Any, **options: Any) -> str:
    return written(write, *arguments, **options).decode()


# The user's document


def panel_row(channel: str | None = "Whatsapp", notifications: int = 5000, **other: Any) -> dict[str, Any]:
    row = {"billing_date": DAY, "customer_id": 7494212, "customer_name": "Acme", "last_event": NOON, "updated_at": NOON}
    return {**row, "channel": channel, "notifications": notifications, **other}


def panel_of(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), PANEL_SCHEMA)


LINES = pa.schema([field for field in BILLING_SCHEMA if field.name not in ("adjustment_id", "reason")])
ADJUSTMENTS = pa.schema(
    [
        ("adjustment_id", pa.string()),
        ("billing_date", pa.date32()),
        ("customer_id", pa.int64()),
        ("customer_name", pa.string()),
        ("channel", pa.string()),
        ("notifications_delta", pa.int64()),
        ("unit_price", pa.decimal128(18, 6)),
        ("amount_delta", pa.decimal128(18, 2)),
        ("price_version", pa.string()),
        ("currency", pa.string()),
        ("reason", pa.string()),
        ("through_batch", pa.int64()),
        ("run_id", pa.string()),
        ("created_at", pa.timestamp("us", "UTC")),
    ]
)


def line(
    amount: str = "1000.00", channel: str | None = "Whatsapp", notifications: int = 25000, **other: Any
) -> dict[str, Any]:
    row = {"billing_date": DAY, "customer_id": 7494212, "customer_name": "Acme", "currency": "BRL", "status": "final"}
    return {**row, "channel": channel, "notifications": notifications, "amount": Decimal(amount), **other}


def adjustment(amount: str, notifications: int, **other: Any) -> dict[str, Any]:
    row = {
        "billing_date": DAY,
        "customer_id": 7494212,
        "customer_name": "Acme",
        "channel": "Whatsapp",
        "currency": "BRL",
        "reason": "late",
    }
    delta = {"notifications_delta": notifications, "amount_delta": Decimal(amount), "created_at": NOON}
    return {**row, **delta, "adjustment_id": "a1", **other}


def bill(*rows: dict[str, Any]) -> tuple[pa.Table, pa.Table]:
    lines = [row for row in rows if "amount" in row]
    adjustments = [row for row in rows if "amount_delta" in row]
    return pa.Table.from_pylist(lines, LINES), pa.Table.from_pylist(adjustments, ADJUSTMENTS)


def messages_of(rows: Iterable[tuple[Any, ...]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(
        [dict(zip(DETAILED_SCHEMA.names, row, strict=True)) for row in rows], DETAILED_SCHEMA
    )


def at(milliseconds: int) -> datetime:
    return datetime(2020, 2, 3, 14, 0, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)


WELCOME = "Olá XXXXX, seja muito bem-vindo! Precisa de alguma ajuda?"
UNKNOWN = "Não identificamos a sua última mensagem. Por favor, entre em contato"
DOCUMENT_MESSAGES = messages_of(
    [
        (7494212, "5B81FF24A1", "Acme", "Whatsapp", WELCOME, at(1)),
        (7494212, "A61D178E73", "Acme", "Whatsapp", UNKNOWN, at(99)),
    ]
)
DOCUMENT_AVERAGES = pa.table(
    [
        ["C2000", "C1000", "C1000", "C1000"],
        ["A2100", "A1100", "A1300", "A1200"],
        pa.array([Decimal("55400.00"), Decimal("56333.33"), None, Decimal("50666.66")], pa.decimal128(18, 2)),
        pa.array([None, Decimal("41416.66"), None, None], pa.decimal128(18, 2)),
    ],
    schema=INVOICE_AVERAGES_SCHEMA,
)


def chat(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                **row,
                "first_answer_dt": datetime.fromisoformat(row["first_answer_dt"]).replace(tzinfo=UTC),
                "last_answer_dt": datetime.fromisoformat(row["last_answer_dt"]).replace(tzinfo=UTC),
            }
            for row in rows
        ]
    )


@pytest.fixture
def flows() -> list[pa.Table]:
    return [chat(*csv.DictReader(io.StringIO(golden("chatbot-F1000.csv")))), chat(F2000)]


F2000 = {
    "customer": "C2000",
    "flow": "F2000",
    "session": "S3000",
    "first_answer_dt": "2019-12-16T13:59:59",
    "last_answer_dt": "2019-12-16T14:00:01",
    "recomenda": "Simmmmmmm",
    "nota": "9",
}


def test_the_documents_panel() -> None:
    assert text_of(write_panel, panel_of(panel_row()), "text") == golden("panel.txt")


def test_the_documents_detailed_report() -> None:
    assert text_of(write_detailed, [DOCUMENT_MESSAGES], "text", names={7494212: "Acme"}) == golden("detailed.txt")
    assert text_of(write_detailed, [DOCUMENT_MESSAGES], "csv") == golden("detailed.csv")
    assert text_of(write_detailed, [DOCUMENT_MESSAGES], "json") == golden("detailed.json")


def test_the_documents_bill() -> None:
    assert text_of(write_billing, *bill(line()), "text") == golden("billing.txt")


def test_the_documents_averages() -> None:
    assert text_of(write_invoice_averages, DOCUMENT_AVERAGES, "text") == golden("invoice-averages.txt")
    assert text_of(write_invoice_averages, DOCUMENT_AVERAGES, "csv") == golden("invoice-averages.csv")
    first = json.loads(written(write_invoice_averages, DOCUMENT_AVERAGES, "json"))[1]
    assert list(first.items())[2:] == [("avg_invoices_last_3_months", "50666.66"), ("avg_invoices_last_6_months", None)]


def test_the_documents_flows(flows: list[pa.Table]) -> None:
    assert text_of(write_chatbot, flows, "text") == golden("chatbot.txt")
    assert text_of(write_chatbot, flows[:1], "csv") == golden("chatbot-F1000.csv")
    both = json.loads(written(write_chatbot, flows, "json"))
    assert [(row["name"], row["nota"]) for row in both] == [("maria", None), ("joao", None), (None, "9")]
    assert json.loads(written(write_chatbot, [], "json")) == []


# Layout


def test_panel_has_a_block_per_customer_whatsapp_first_seconds_only() -> None:
    late = datetime(2020, 2, 3, 15, 0, 59, 999999, tzinfo=UTC)
    rows = panel_of(
        panel_row("SMS", 2, updated_at=late),
        panel_row("Email", 1, updated_at=late),
        panel_row(updated_at=late, customer_name="Acme nova", last_event=NOON + timedelta(microseconds=1)),
        panel_row(None, 0, customer_id=1, customer_name="Nova", last_event=None, updated_at=late),
    )
    assert text_of(write_panel, rows, "text") == (
        "Painel de Notificações\n"
        "Cliente: Nova\nNotificações Whatsapp: 0\nÚltima atualização: 2020-02-03T15:00:59+00:00\n"
        "\n"
        "Cliente: Acme nova\nNotificações Whatsapp: 5000\nNotificações Email: 1\nNotificações SMS: 2\n"
        "Última atualização: 2020-02-03T15:00:59+00:00\n"
    )
    first = json.loads(written(write_panel, rows, "json"))[0]
    assert first == {
        "billing_date": "2020-02-03",
        "customer_id": 1,
        "customer_name": "Nova",
        "channel": None,
        "notifications": 0,
        "last_event": None,
        "updated_at": "2020-02-03T15:00:59.999999+00:00",
    }


def test_bill_with_channels_adjustments_and_an_open_day() -> None:
    entries = bill(
        line("0.18", "SMS", 3),
        line("0.05", "Email", 10),
        line(status="provisional"),
        adjustment("-1.50", -37),
        adjustment("0.50", 12, adjustment_id="a2"),
        adjustment("0.04", 1, customer_id=9000000, customer_name="Tardia"),
    )
    assert text_of(write_billing, *entries, "text") == golden("billing-adjusted.txt")
    rows = list(csv.DictReader(io.StringIO(text_of(write_billing, *entries, "csv"))))
    assert [(row["channel"], row["amount"], row["status"], row["reason"]) for row in rows] == [
        ("Email", "0.05", "final", ""),
        ("SMS", "0.18", "final", ""),
        ("Whatsapp", "1000.00", "provisional", ""),
        ("Whatsapp", "-1.50", "adjustment", "late"),
        ("Whatsapp", "0.50", "adjustment", "late"),
        ("Whatsapp", "0.04", "adjustment", "late"),
    ]
    assert list(rows[0]) == BILLING_SCHEMA.names


def test_bill_of_a_customer_without_messages_and_of_another_currency() -> None:
    text = text_of(
        write_billing, *bill(line("0.00", None, 0), line("12345.60", customer_id=8000000, currency="USD")), "text"
    )
    assert "Cliente: Acme\nNotificações Whatsapp: 0\nValor: R$ 0,00\nData: 2020-02-03\n\n" in text
    assert "Valor: USD 12345,60\n" in text


def test_each_currency_has_a_bill_of_its_own() -> None:
    entries = bill(
        line("0.50", currency="USD", notifications=5),
        adjustment("-0.50", -5, currency="USD"),
        adjustment("2.50", 5, adjustment_id="a2"),
        adjustment("0.02", 1, customer_id=8000000, currency="EUR"),
    )
    text = text_of(write_billing, *entries, "text")
    assert [row for row in text.splitlines() if row.startswith(("Valor", "Ajustes"))] == [
        "Valor: R$ 0,00",
        "Ajustes: R$ 2,50",
        "Valor: USD 0,50",
        "Ajustes: USD -0,50",
        "Valor: EUR 0,00",
        "Ajustes: EUR 0,02",
    ]
    rows = json.loads(written(write_billing, *entries, "json"))
    assert [(row["currency"], row["amount"]) for row in rows] == [
        ("BRL", "2.50"),
        ("USD", "0.50"),
        ("USD", "-0.50"),
        ("EUR", "0.02"),
    ]


def test_nothing_to_report_is_a_title_or_a_header() -> None:
    assert text_of(write_panel, panel_of(), "text") == "Painel de Notificações\n"
    assert text_of(write_billing, *bill(), "text") == "Relatório de Cobrança\n"
    assert text_of(write_detailed, [], "text") == "Relatório Detalhado de Notificações\n"
    assert text_of(write_detailed, [], "csv") == ",".join(DETAILED_SCHEMA.names) + "\n"
    assert text_of(write_detailed, [], "json") == "[]\n"
    assert pq.read_table(io.BytesIO(written(write_detailed, [], "parquet"))).schema == DETAILED_SCHEMA


def test_hostile_names_stay_in_their_line() -> None:
    name = "Acme\r\nValor: R$ 0,00\u2028\x1b[2J\u202e\x85"
    shown = r"Acme\r\nValor: R$ 0,00\u2028\u001b[2J\u202e\u0085"
    text = text_of(write_billing, *bill(line(customer_name=name, channel=name)), "text")
    assert text.splitlines()[2:4] == [f"Cliente: {shown}", f"Notificações {shown}: 25000"]
    messages = messages_of([(1, name, name, name, name + '"', at(0))])
    assert text_of(write_detailed, [messages], "text").splitlines()[2:7] == [
        f"= Cliente: {shown} =",
        "",
        f"Mensagem ID: {shown}",
        f'Payload: "{shown}\\""',
        "Data hora: 2020-02-03T14:00:01.000+00:00",
    ]


def test_blanked_names_and_payloads_are_shown_as_nothing_and_null() -> None:
    messages = messages_of([(1, "M", None, "Whatsapp", None, at(0))])
    assert "= Cliente:  =\n\nMensagem ID: M\nPayload: null\n" in text_of(write_detailed, [messages], "text")


def test_columns_stay_aligned_beside_wide_and_combining_characters() -> None:
    rows = chat({**F2000, "session": "日本", "nota": "a\tb"}, {**F2000, "session": "e\u0301", "nota": "x"})
    header, *lines = text_of(write_chatbot, [rows], "text").splitlines()
    assert header.startswith("customer  flow   session  first_answer_dt")
    assert [line.split("F2000  ")[1].split("2019")[0] for line in lines] == ["e\u0301        ", "日本     "]
    assert [line.rsplit("  ", 1)[1] for line in lines] == ["x", r"a\tb"]


def test_brazilian_numbers() -> None:
    assert [brazilian(Decimal(n)) for n in ("0", "-0.05", "1234567.8")] == ["0,00", "-0,05", "1.234.567,80"]
    assert [money(Decimal(n), "BRL") for n in ("-1", "1234567.8")] == ["R$ -1,00", "R$ 1234567,80"]


@given(st.text())
def test_visible_text_is_one_line(text: str) -> None:
    assert len(visible(text).splitlines()) <= 1


# Any rows, read back by Python's own csv and json, and by pyarrow's Parquet

moments = st.integers(0, 10**16).map(lambda us: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us))
ODD = ("", "'", "\x00", 'a"b', "a,b", "a;b", "a\r\nb", "=\n,", "é=1", "-", "--1", "+1+1", "+(1", "-1\n", "-1.5;=x")
NUMBERS = ("+55", "-1", "-1.234,56", "+5511999990000", "+55 (11) 99999-0000")
FORMULAS = ("=1+1", "@x", "\tx", "\rx", "\nx", "\r\n=1", "＝1", "＋1", "－1", "＠x")
HIDDEN = ("a;=1", "a; @x", "a\n=1", "a\r\n+x", " =1", "\ufeff=1", "\u00a0-x", "\u200b@x", "\x01=1")
texts = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from([*ODD, *NUMBERS, *FORMULAS, *HIDDEN])
message = st.tuples(st.integers(1, 4), texts, texts, texts, texts | st.none(), moments)
messages = st.lists(message, max_size=12).map(lambda rows: sorted(rows, key=lambda row: (row[0], row[5], row[1])))


def iso(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds" if moment.microsecond % 1000 else "milliseconds")


def is_plain_number(text: str) -> bool:
    """Whether a spreadsheet only reads a number or a phone number there."""
    digits = text[1:].replace(",", ".").split(".")
    if text[0] in "+-" and all(part.isascii() and part.isdigit() for part in digits):
        return True
    return text[0] == "+" and {*text[1:]} <= {*"0123456789 ().-"} and text[1] in "0123456789(" and text[-1].isdigit()


UNSEEN = "\u00ad\u061c\u180e\ufeff" + "".join(
    map(chr, (*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070)))
)
BEFORE = UNSEEN + "".join(c for c in map(chr, range(0x10000)) if c.isspace() or unicodedata.category(c) == "Cc")


def is_formula(text: str) -> bool:
    """Whether a spreadsheet may run what begins there."""
    begun = text.lstrip(BEFORE)
    if not begun or begun[0] not in "=+-@＝＋－＠":
        return False
    return not (text[0] in "+-" and len(text) > 1 and is_plain_number(text))


def expected_cell(cell: str | None) -> str:
    """The cell, told without a regular expression: guarded part by part, as a reader that separates by ; sees it."""
    parts = re.split("([;\r\n])", cell or "")
    told = "".join("'" + part if part and is_formula(part) else part for part in parts)
    return "'" + told if cell and cell[0] in "\t\r\n" and not told.startswith("'") else told


@pytest.mark.parametrize("format", ["csv", "csv-br"])
@given(rows=messages)
def test_csv_reads_back_and_no_cell_is_a_formula(format: str, rows: list[tuple[Any, ...]]) -> None:
    data = text_of(write_detailed, [messages_of(rows)], format)
    if format == "csv-br":
        assert data.startswith("\ufeff")
        data = data[1:]
    delimiter = ";" if format == "csv-br" else ","
    got = list(csv.reader(io.StringIO(data, newline=""), strict=True, delimiter=delimiter))
    assert got[0] == DETAILED_SCHEMA.names
    assert got[1:] == [[str(row[0]), *map(expected_cell, row[1:5]), iso(row[5])] for row in rows]


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        (";=1+1", ";'=1+1"),
        ("a; @x", "a;' @x"),
        ("\n=1", "'\n'=1"),
        ("a\r\n=1", "a\r\n'=1"),
        (" =1", "' =1"),
        ("\ufeff=1", "'\ufeff=1"),
        ("＝1+1", "'＝1+1"),
        ("+5511999990000", "+5511999990000"),
        ("+55 (11) 99999-0000;-42", "+55 (11) 99999-0000;-42"),
        ("-1.234,56", "-1.234,56"),
        ("-1+1", "'-1+1"),
        ("-42 + cmd|' /C calc'!A0", "'-42 + cmd|' /C calc'!A0"),
        ("-", "'-"),
        ("oi, @maria = 2; três", "oi, @maria = 2; três"),
    ],
)
def test_what_a_spreadsheet_would_run_is_guarded_and_nothing_else(text: str, cell: str) -> None:
    assert plain.guarded(text) == expected_cell(text) == cell


def test_csv_for_brazil_has_semicolons_and_decimal_commas() -> None:
    entries = bill(line("1234.50", "a;b", unit_price=Decimal("0.04")), adjustment("-1.50", -37))
    data = written(write_billing, *entries, "csv-br").decode()
    header, first, second = data.removeprefix("\ufeff").splitlines()
    assert header.split(";")[:3] == ["billing_date", "customer_id", "customer_name"]
    assert first.startswith('2020-02-03;7494212;Acme;"a;b";25000;0,040000;1234,50;BRL;') or second.startswith(
        '2020-02-03;7494212;Acme;"a;b";25000;0,040000;1234,50;BRL;'
    )
    assert ";-37;;-1,50;BRL;" in data


# Workbooks, read back by another library


def sheets_of(data: bytes) -> list[list[tuple[Any, ...]]]:
    book = openpyxl.load_workbook(io.BytesIO(data))
    assert all(cell.data_type != "f" for sheet in book for row in sheet.iter_rows() for cell in row)
    return [list(sheet.iter_rows(values_only=True)) for sheet in book]


@given(messages)
def test_workbooks_read_back_and_no_cell_is_a_formula(rows: list[tuple[Any, ...]]) -> None:
    def seen(cell: Any) -> Any:
        cell = re.sub("[\ufffe\uffff]", "\ufffd", cell or "")
        escaped = "".join(f"_x{ord(c):04X}_" if c < " " and c not in "\t\n" else c for c in cell)
        return escaped or None

    def moment(when: datetime) -> datetime | str:
        return iso(when) if when.microsecond % 1000 else when.replace(tzinfo=None)

    (sheet,) = sheets_of(written(write_detailed, [messages_of(rows)], "xlsx"))
    assert sheet[0] == tuple(DETAILED_SCHEMA.names)
    got = [[cell or None for cell in row] for row in sheet[1:]]
    assert got == [[row[0], *map(seen, row[1:5]), moment(row[5])] for row in rows]


def test_a_workbook_holds_a_value_exactly_or_as_text() -> None:
    rows = pa.table(
        {
            "id": [999_999_999_999_999, 2**63 - 1, None],
            "amount": pa.array([Decimal("-1234.50"), Decimal("9999999999999999.99"), None], pa.decimal128(18, 2)),
            "day": pa.array([date(2020, 2, 3), date(1850, 1, 1), None]),
            "text": ["x" * 40_000, "\ufffe=1", ""],
        }
    )
    out = io.BytesIO()
    workbook.write_xlsx(rows.schema, rows.to_batches(), out)
    (header, first, second, third) = sheets_of(out.getvalue())[0]
    assert header == ("id", "amount", "day", "text")
    assert first[:3] == (999_999_999_999_999, -1234.5, datetime(2020, 2, 3))  # noqa: DTZ001 - as Excel has it
    assert len(first[3]) == 32_767
    assert first[3].endswith("x… (cut)")
    assert second == (str(2**63 - 1), "9999999999999999.99", "1850-01-01", "\ufffd=1")
    assert third[:3] == (None, None, None)


def test_rows_beyond_a_sheet_go_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbook, "_SHEET_ROWS", 4)
    rows = messages_of([(1, f"M{n}", "Acme", "Whatsapp", "x", at(n)) for n in range(8)])
    sheets = sheets_of(written(write_detailed, [rows], "xlsx"))
    assert [len(sheet) for sheet in sheets] == [4, 4, 3]
    assert {sheet[0] for sheet in sheets} == {tuple(DETAILED_SCHEMA.names)}
    assert [row[1] for sheet in sheets for row in sheet[1:]] == [f"M{n}" for n in range(8)]


to_microseconds = st.datetimes()
to_milliseconds = st.datetimes().map(lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000))


@given(
    st.lists(to_milliseconds) | st.lists(to_microseconds) | st.lists(to_milliseconds | st.none()),
    st.booleans(),
    st.booleans(),
)
def test_a_moment_is_what_isoformat_says(column: list[datetime | None], milliseconds: bool, offset: bool) -> None:
    def expected(moment: datetime) -> str:
        digits = "microseconds" if moment.microsecond % 1000 else "milliseconds"
        digits = digits if moment.microsecond or milliseconds else "seconds"
        return moment.isoformat(timespec=digits) + ("+00:00" if offset else "")

    stored = pa.array(column, pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
    texts = plain.moments(stored, milliseconds=milliseconds, offset=offset).to_pylist()
    assert texts == [moment and expected(moment) for moment in column]


def test_csv_guards_column_names_but_never_numbers() -> None:
    data = text_of(write_chatbot, [chat({**F2000, "=cmd,x": "-1"})], "csv")
    header, row = csv.reader(io.StringIO(data))
    assert (header[-1], row[-1]) == ("'=cmd,x", "-1")
    assert ",-1.50," in text_of(write_billing, *bill(adjustment("-1.50", -37)), "csv")


@given(messages)
def test_json_reads_back(rows: list[tuple[Any, ...]]) -> None:
    got = json.loads(written(write_detailed, [messages_of(rows)], "json"))
    assert got == [dict(zip(DETAILED_SCHEMA.names, (*row[:5], iso(row[5])), strict=True)) for row in rows]


@given(messages)
def test_parquet_reads_back(rows: list[tuple[Any, ...]]) -> None:
    batch = messages_of(rows)
    file = pq.ParquetFile(io.BytesIO(written(write_detailed, [batch], "parquet")))
    assert file.read() == pa.Table.from_batches([batch])
    if rows:
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"


@given(messages, st.lists(st.integers(0, 12)), st.sampled_from(get_args(Format)))
def test_batches_do_not_show(rows: list[tuple[Any, ...]], cuts: list[int], format: str) -> None:
    whole = messages_of(rows)
    edges = sorted([0, *(min(cut, len(rows)) for cut in cuts), len(rows)])
    split = [whole.slice(start, end - start) for start, end in pairwise(edges)]
    assert written(write_detailed, split, format) == written(write_detailed, [whole], format)


@pytest.mark.parametrize("format", ["text", "csv", "json", "parquet"])
def test_detailed_is_streamed(format: str) -> None:
    """What was written grows while batches are still to come, and no batch is taken before the last was used."""
    payload = "".join(chr(0x4E00 + n * 7919 % 20000) for n in range(2000))
    batch = messages_of([(1, f"M{n}", "Acme", "Whatsapp", payload[n:], at(n)) for n in range(500)])
    out, seen = io.BytesIO(), []

    def batches(count: int) -> Iterable[pa.RecordBatch]:
        for _ in range(count):
            seen.append(out.tell())
            yield batch

    write: Callable[[Iterable[pa.RecordBatch], BinaryIO, Any], None] = write_detailed
    write(batches(120), out, format)
    assert len(set(seen)) > 2
    assert seen[-1] > 0


def test_batches_larger_than_a_piece_and_of_other_string_types() -> None:
    rows = [(1, f"M{n:06}", "Acme", "Whatsapp", "x", at(n)) for n in range(40_000)]
    batch = messages_of(rows)
    views = batch.set_column(4, "payload", batch["payload"].cast(pa.string_view()))
    assert len(text_of(write_detailed, [views], "csv").splitlines()) == 40_001
    assert len(json.loads(written(write_detailed, [views], "json"))) == 40_000
    assert pq.read_table(io.BytesIO(written(write_detailed, [views], "parquet"))).num_rows == 40_000
