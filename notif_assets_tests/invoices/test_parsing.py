"""Invoice files: the document's file, every refusal by its name, and any hostile file against plain Python."""

import csv
import io
from datetime import date, datetime
from decimal import Decimal
from importlib.resources import files

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notif_assets.inbox.rows import REJECTED_SCHEMA, FileRefused
from notif_assets.invoices.parsing import INVOICE_COLUMNS, INVOICES_SCHEMA, parse_invoices

HEADER = b"customer,account,month,invoice\n"


def one(line: bytes) -> tuple[str, str]:
    """Reason and detail of a file with one bad line between two good ones, which must stay."""
    parsed = parse_invoices(HEADER + b"C,A,2019-07-01,1\n" + line + b"\nC,A,2019-08-01,2\n", "f.csv")
    assert parsed.rows["source_line"].to_pylist() == [2, 4]
    (bad,) = parsed.rejected.to_pylist()
    assert (bad["source_file"], bad["source_line"]) == ("f.csv", 3)
    return bad["reason"], bad["detail"]


def test_the_documents_file() -> None:
    parsed = parse_invoices((files("notif_assets") / "samples" / "invoices.csv").read_bytes(), "invoices.csv")
    assert (parsed.rows.schema, parsed.rejected.schema) == (INVOICES_SCHEMA, REJECTED_SCHEMA)
    assert (parsed.rows.num_rows, parsed.rejected.num_rows) == (15, 0)
    last = ("C2000", "A2100", date(2019, 12, 1), Decimal("92000.00"), "invoices.csv", 16)
    assert tuple(parsed.rows.to_pylist()[-1].values()) == last


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "blank_line"),
        (b" \t\r", "blank_line"),
        (b'C,A"B,2019-07-01,1', "stray_quote"),
        (b'C,"A,2019-07-01,1', "stray_quote"),
        (b'C,"A"B,2019-07-01,1', "stray_quote"),
        (b"C,A,2019-07-01", "missing_cell"),
        (b"C,A,2019-07-01,1,", "extra_cell"),
        (b"C,A,2019-07-01,1.000,00", "extra_cell"),
        (b",A,2019-07-01,1", "empty_field"),
        (b'C,"",2019-07-01,1', "empty_field"),
        (b"C,A,2019-07-01,", "empty_field"),
        (b"C,A,2019-07-02,1", "bad_month"),
        (b"C,A,2019-13-01,1", "bad_month"),
        (b"C,A,2019-07,1", "bad_month"),
        (b"C,A,20190701,1", "bad_month"),
        (b"C,A,0000-01-01,1", "bad_month"),
        ("C,A,٢٠١٩-07-01,1".encode(), "bad_month"),
        (b"C,A,2019-07-01,1e3", "bad_number"),
        (b"C,A,2019-07-01,NaN", "bad_number"),
        (b'C,A,2019-07-01,"1,000"', "bad_number"),
        (b"C,A,2019-07-01,+1", "bad_number"),
        (b"C,A,2019-07-01,.5", "bad_number"),
        (b"C,A,2019-07-01, 5", "bad_number"),
        ("C,A,2019-07-01,٣".encode(), "bad_number"),
        (b"C,A,2019-07-01,1.505", "bad_number"),
        (b"C,A,2019-07-01,10000000000000", "bad_number"),
        (b"C,A,2019-07-01," + b"9" * 5000, "bad_number"),
        (b"C,A\xff,2019-07-01,1", "not_utf8"),
    ],
)
def test_a_bad_line_is_set_aside_by_name_and_costs_no_other(line: bytes, reason: str) -> None:
    assert one(line)[0] == reason


def test_blanks_around_names_make_no_other_account() -> None:
    data = " customer,account\t,month,\u00a0invoice\nC,A,2019-07-01,1\n C ,\u3000A\t,2019-07-01,2\n"
    parsed = parse_invoices(data.encode(), "f.csv")
    assert [(row["customer"], row["account"]) for row in parsed.rows.to_pylist()] == [("C", "A")] * 2
    assert one(b" ,A,2019-07-01,1")[0] == "empty_field"
    assert one("C,\u00a0,2019-07-01,1".encode())[0] == "empty_field"


def test_a_number_out_of_bounds_says_which_bound() -> None:
    assert "more than 2 decimals" in one(b"C,A,2019-07-01,1.500")[1]
    assert "more than 13 digits" in one(b"C,A,2019-07-01,-10000000000000.00")[1]


@pytest.mark.parametrize("number", ["0", "-0.00", "-1234.5", "007.10", "9999999999999.99", "-9999999999999.99"])
def test_zero_and_negative_invoices_are_good(number: str) -> None:
    parsed = parse_invoices(HEADER + f"C,A,2019-07-01,{number}".encode(), "f.csv")
    assert parsed.rows["invoice"].to_pylist() == [Decimal(number)]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf\r\n", "empty"),
        (b"\nC,A,2019-07-01,1\n", "header can't be read: the line is blank"),
        (b"customer,month\n", "missing: account, invoice"),
        (b"customer;account;month\n", "separated by commas or semicolons; missing: invoice"),
        (b"customer,account,month,invoice,month\n", "more than once: month"),
        (b'customer,account,month,"invoice\n', "header can't be read"),
        (HEADER + b"C,A,2019-07-01,\x00\n", "NUL"),
        (HEADER.decode().encode("utf-16"), "NUL"),
    ],
)
def test_a_file_that_is_no_invoice_file_is_refused_whole(data: bytes, why: str) -> None:
    with pytest.raises(FileRefused, match=why) as refused:
        parse_invoices(data, "f.csv")
    assert str(refused.value).startswith("f.csv")
    assert "\n" not in str(refused.value)


def test_a_header_alone_is_a_file_without_invoices() -> None:
    assert parse_invoices(HEADER, "f.csv").rows.num_rows == 0


# Any file. Good lines are written by Python's csv, whose reader must agree; a bad line is bad in one known way.

cell = st.text(st.sampled_from('aé 日",;=-\r\t\u2028\ufeff'), min_size=1, max_size=5)
month = st.dates(date(1, 1, 1), date(9999, 12, 1)).map(lambda day: day.replace(day=1))
amount = st.integers(-(10**15) + 1, 10**15 - 1).map(lambda cents: Decimal(cents).scaleb(-2))
named = cell.filter(str.strip)
good = st.tuples(named, named, month.filter(lambda day: date(1, 6, 1) <= day <= date(9999, 6, 1)), amount)
bad = st.sampled_from(
    [
        (b"", "blank_line"),
        (b'"', "stray_quote"),
        (b'C,"A,2019-07-01,1,x,y', "stray_quote"),
        (b"\xc3", "not_utf8"),
        (b"C", "missing_cell"),
        (b",,,,,,,", "extra_cell"),
        (b",,,,,", "empty_field"),
        (b"9999-07-01,9999-07-01,9999-07-01,9999-07-01,9999-07-01,9999-07-01", "bad_month"),
        (b"0001-05-01,0001-05-01,0001-05-01,0001-05-01,0001-05-01,0001-05-01", "bad_month"),
    ]
)


@given(
    st.permutations([*INVOICE_COLUMNS, "note", "note"]),
    st.lists(good | bad, max_size=15),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.booleans(),
)
def test_any_file_against_plain_python(
    header: list[str], lines: list[tuple[object, ...]], end: str, bom: bool, ended: bool
) -> None:
    def written(cells: dict[str, str]) -> str:
        out = io.StringIO()
        csv.writer(out, lineterminator="", quoting=csv.QUOTE_ALL).writerow([cells.get(name, '",') for name in header])
        return out.getvalue()

    encoded, rows, rejected = [",".join(header).encode()], [], []
    for number, line in enumerate(lines, start=2):
        if len(line) == 2:
            raw, reason = line
            assert isinstance(raw, bytes)
            encoded.append(raw)
            rejected.append((number, reason))
        else:
            encoded.append(written(dict(zip(INVOICE_COLUMNS, map(str, line), strict=True))).encode())
            rows.append((str(line[0]).strip(), str(line[1]).strip(), *line[2:], "f.csv", number))
    # A blank last line is one only if a line break follows it.
    data = end.encode().join(encoded) + (end.encode() if ended or not encoded[-1] else b"")

    parsed = parse_invoices((b"\xef\xbb\xbf" if bom else b"") + data, "f.csv")
    assert [tuple(row.values()) for row in parsed.rows.to_pylist()] == rows
    assert [(row["source_line"], row["reason"]) for row in parsed.rejected.to_pylist()] == rejected


@given(st.lists(st.text(st.sampled_from('CA,"2019-070.\r é\x85'), max_size=24), max_size=8))
def test_every_line_is_accounted_for_once_and_judged_alone(lines: list[str]) -> None:
    parsed = parse_invoices(HEADER + "".join(f"{line}\n" for line in lines).encode(), "f.csv")
    accounted = parsed.rows["source_line"].to_pylist() + parsed.rejected["source_line"].to_pylist()
    assert sorted(accounted) == list(range(2, len(lines) + 2))
    alone = [parse_invoices(HEADER + f"{line}\n".encode(), "f.csv").rejected["reason"].to_pylist() for line in lines]
    assert [reason for reasons in alone for reason in reasons] == parsed.rejected["reason"].to_pylist()


# As Excel writes it in Brazil: semicolons.

SEMICOLONS = b"customer;account;month;invoice\n"


def amounts(data: bytes) -> list[Decimal]:
    parsed = parse_invoices(data, "f.csv")
    assert parsed.rejected.num_rows == 0, parsed.rejected.to_pylist()
    return list(parsed.rows["invoice"].to_pylist())


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1234,56", "1234.56"),
        ("1.234,56", "1234.56"),
        ("-1.234.567,8", "-1234567.8"),
        ("1.234.567", "1234567"),
        ("1234", "1234"),
        ("1234.56", "1234.56"),
        ("0,5", "0.5"),
    ],
)
def test_a_decimal_comma(cell: str, value: str) -> None:
    assert amounts(SEMICOLONS + f"C;A;2020-01-01;{cell}\n".encode()) == [Decimal(value)]


@pytest.mark.parametrize(
    "cell", ["1.234", "1,234", "-1.234", "1,234.56", "1.23,45", "12.3456,7", "1234,567", "R$ 5", ",5"]
)
def test_a_number_that_can_be_misread_is_set_aside(cell: str) -> None:
    parsed = parse_invoices(SEMICOLONS + f"C;A;2020-01-01;{cell}\n".encode(), "f.csv")
    assert parsed.rejected["reason"].to_pylist() == ["bad_number"]
    assert parsed.gaps.to_pylist() == [{"customer": "C", "account": "A", "month": date(2020, 1, 1)}]


@given(amount, st.booleans())
def test_any_amount_as_brazil_writes_it(value: Decimal, dots: bool) -> None:
    text = (f"{value:,.2f}" if dots else f"{value:.2f}").translate(str.maketrans(",.", ".,"))
    assert amounts(SEMICOLONS + f"C;A;2020-01-01;{text}\n".encode()) == [value]


def test_a_file_of_excels_in_brazil() -> None:
    text = (
        "sep=;\r\nConta antiga;Customer; ACCOUNT ;Month;Invoice\r\n"
        ";José Açaí;São;01/2020;1.234,56\r\n;C;A;01/12/2019;7\r\n;;;;\r\n"
    )
    parsed = parse_invoices(text.encode("cp1252"), "f.csv")
    assert [tuple(row.values())[:4] for row in parsed.rows.to_pylist()] == [
        ("José Açaí", "São", date(2020, 1, 1), Decimal("1234.56")),
        ("C", "A", date(2019, 12, 1), Decimal("7.00")),
    ]
    assert parsed.rows["source_line"].to_pylist() == [3, 4]
    assert parsed.rejected.num_rows == 0
    for encoding in ("utf-8", "utf-8-sig"):
        assert parse_invoices(text.encode(encoding), "f.csv").rows == parsed.rows


def test_a_code_page_is_not_guessed_at() -> None:
    line = "São;A;01/2020;1\nC;A;01/2020;2\n"
    for data in (line.encode("cp850"), line.encode("mac-roman"), "São;Jo".encode() + line.encode("cp1252")):
        parsed = parse_invoices(SEMICOLONS + data, "f.csv")
        assert parsed.rejected["reason"].to_pylist() == ["not_utf8"]
        assert parsed.rows["customer"].to_pylist() == ["C"]
    parsed = parse_invoices(HEADER + "São,A,01/2020,1\nC,A,01/2020,2\n".encode("cp1252"), "f.csv")  # not Brazil's
    assert parsed.rows["customer"].to_pylist() == ["C"]


def test_only_a_day_that_is_the_first_in_brazil_is_a_month() -> None:
    for cell in ("12/01/2020", "13/2020", "1/2020", "00/2020", "02/12/2020"):
        parsed = parse_invoices(SEMICOLONS + f"C;A;{cell};1\n".encode(), "f.csv")
        assert parsed.rejected["reason"].to_pylist() == ["bad_month"], cell
    assert one(b"C,A,01/12/2020,1")[0] == "bad_month"  # separated by commas it may be January


def test_other_files_are_refused_with_the_cause_and_the_way() -> None:
    for data, why in (
        (SEMICOLONS.decode().encode("utf-16"), "Unicode text.*save it as CSV UTF-8"),
        (b"\xd0\xcf\x11\xe0" + bytes(600), "an old Excel workbook .*: save it as .xlsx"),
        (b"PK\x03\x04" + bytes(600), "no Excel workbook that can be read"),
        (b"a|b\n", "separated by commas or semicolons; missing: customer"),
    ):
        with pytest.raises(FileRefused, match=why):
            parse_invoices(data, "f.csv")


def test_a_line_without_end_costs_itself_only() -> None:
    assert one(b"C,A," + b"x" * 3_000_000)[0] == "line_too_long"


def test_a_file_of_nothing_but_bad_lines_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notif_assets.invoices.parsing._MOST_REJECTED", 3)
    with pytest.raises(FileRefused, match="more than 3 lines can't be taken, line 2 for one: bad_number"):
        parse_invoices(HEADER + b"C,A,2020-01-01,x\n" * 4, "f.csv")


# Workbooks


def workbook(*rows: list[object], formats: dict[str, str] | None = None, more: list[str] | None = None) -> bytes:
    book = openpyxl.Workbook()
    sheet = book.active
    for row in rows:
        sheet.append(row)
    for place, shown_as in (formats or {}).items():
        sheet[place].number_format = shown_as
    if more:
        book.create_sheet("more").append(more)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def day_of_excel(year: int, month: int, day: int) -> datetime:
    return datetime(year, month, day)  # noqa: DTZ001 - a workbook knows no zones


NAMES: list[object] = ["Customer", "account", "MONTH", "invoice", "note"]


def test_a_workbook() -> None:
    data = workbook(
        NAMES,
        ["C", "A", day_of_excel(2020, 1, 1), 1234.56],
        [None],
        ["C", 42, date(2020, 2, 1), 0.1 + 0.2],
        ["C", 7, "03/2020", "1.234,56"],
        ["C", "A", "01/04/2020", -3],
        ["C", "A", day_of_excel(2020, 1, 2), 1],
        ["C", "A", day_of_excel(2020, 1, 1), 1.005],
        ["C", 10**15, day_of_excel(2020, 1, 1), 1],
        [None, "A", day_of_excel(2020, 1, 1), 1],
        formats={"B5": "00000"},
        more=["nothing"],
    )
    parsed = parse_invoices(data, "f.xlsx")
    assert [tuple(row.values()) for row in parsed.rows.to_pylist()] == [
        ("C", "A", date(2020, 1, 1), Decimal("1234.56"), "f.xlsx", 2),
        ("C", "42", date(2020, 2, 1), Decimal("0.30"), "f.xlsx", 4),
        ("C", "00007", date(2020, 3, 1), Decimal("1234.56"), "f.xlsx", 5),
        ("C", "A", date(2020, 4, 1), Decimal("-3.00"), "f.xlsx", 6),
    ]
    assert [(row["source_line"], row["reason"]) for row in parsed.rejected.to_pylist()] == [
        (7, "bad_month"),
        (8, "bad_number"),
        (9, "bad_number"),
        (10, "empty_field"),
    ]


def test_a_workbook_whose_sheet_is_not_known_is_refused() -> None:
    with pytest.raises(FileRefused, match="has no sheet whose first line names the columns customer, account"):
        parse_invoices(workbook(["a", "b"]), "f.xlsx")
    with pytest.raises(FileRefused, match="has several sheets whose first line"):
        parse_invoices(workbook(NAMES, more=[str(name) for name in NAMES]), "f.xlsx")


@given(st.lists(amount, max_size=20))
def test_any_amounts_of_a_workbook(values: list[Decimal]) -> None:
    rows = [["C", "A", day_of_excel(2020, 1, 1), float(value)] for value in values if abs(value) < 10**12]
    assert amounts(workbook(NAMES, *rows)) == [value for value in values if abs(value) < 10**12]
