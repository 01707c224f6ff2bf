"""Invoice files: the document's file, every refusal by its name, and any hostile file against plain Python."""

import csv
import io
from datetime import date
from decimal import Decimal
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notif_assets.core.files import REJECTED_SCHEMA, FileRefused
from notif_assets.core.invoices import INVOICE_COLUMNS, INVOICES_SCHEMA, parse_invoices

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
        (b"customer;account;month;invoice\n", "comma separated; missing: customer"),
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
