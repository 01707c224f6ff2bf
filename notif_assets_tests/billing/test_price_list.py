"""Price lists: taken whole or not at all, and named by their content."""

from datetime import date
from decimal import Decimal
from importlib.resources import files

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notif_assets.billing.price_list import PRICE_LIST_SCHEMA, parse_price_list, price_list_cell, price_version
from notif_assets.core.texts import quote_odd
from notif_assets.inbox.rows import FileRefused

HEADER = b"customer_id,channel,unit_price,currency,valid_from,valid_to\n"


def sample(name: str) -> pa.Table:
    return parse_price_list((files("notif_assets") / "samples" / name).read_bytes(), name)


def test_the_packaged_list_prices_whatsapp_as_the_document_does() -> None:
    prices = sample("prices.csv")
    assert prices.schema == PRICE_LIST_SCHEMA
    assert [tuple(row.values()) for row in prices.to_pylist()] == [
        (None, "Whatsapp", Decimal("0.04"), "BRL", None, None)
    ]
    assert sample("prices-demo.csv").num_rows > 1


def test_a_customers_own_price_with_dates_and_columns_in_any_order() -> None:
    data = (
        b"note,valid_to,valid_from,currency,unit_price,channel,customer_id\n,2020-02-01,2020-01-01,BRL,0,SMS,7494212\n"
    )
    (row,) = parse_price_list(data, "p.csv").to_pylist()
    assert tuple(row.values()) == (7494212, "SMS", Decimal(0), "BRL", date(2020, 1, 1), date(2020, 2, 1))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "p.csv:3: blank_line"),
        ("0,W,1,BRL,,", "p.csv:3: bad_number: customer_id"),
        ("1.5,W,1,BRL,,", "bad_number: customer_id"),
        (f"{2**63},W,1,BRL,,", "bad_number: customer_id"),
        ("9" * 5000 + ",W,1,BRL,,", "bad_number: customer_id"),
        (",,1,BRL,,", "empty_field: channel"),
        (",W,,BRL,,", "empty_field: unit_price"),
        (",W,-0.01,BRL,,", "unit_price: want zero or more"),
        (",W,0.0000001,BRL,,", "more than 6 decimals"),
        (",W,1000000000000,BRL,,", "too large"),
        (",W,1,R$,,", "bad_currency"),
        (",W,1,USD,,", "one currency"),
        (",W,1,BRL,2020-02-30,", "bad_date"),
        (",W,1,BRL,2020-02-01,2020-02-01", "valid_from must be before"),
    ],
)
def test_one_bad_row_refuses_the_list_and_is_named(line: str, why: str) -> None:
    with pytest.raises(FileRefused) as refused:
        parse_price_list(HEADER + f",W,1,BRL,,\n{line}\n,S,1,BRL,,\n".encode(), "p.csv")
    assert why in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_only_the_first_bad_rows_are_listed() -> None:
    with pytest.raises(FileRefused) as refused:
        parse_price_list(HEADER + b"x\n" * 25, "p.csv")
    assert len(str(refused.value).splitlines()) == 21
    assert str(refused.value).endswith("and 5 more")


@pytest.mark.parametrize("data", [b"", HEADER, b"channel,unit_price\nW,1\n"])
def test_a_list_without_prices_or_columns_is_refused(data: bytes) -> None:
    with pytest.raises(FileRefused, match=r"p\.csv"):
        parse_price_list(data, "p.csv")


day = st.dates(date(2020, 1, 1), date(2020, 1, 3)) | st.none()
price = st.tuples(
    st.none() | st.integers(1, 3),
    st.sampled_from(["Whatsapp", "SMS", "", "null", 'a"b']),
    st.integers(0, 3).map(lambda n: Decimal(n).scaleb(-6)),
    st.sampled_from(["BRL", "USD"]),
    day,
    day,
)


def table(rows: list[tuple[object, ...]]) -> pa.Table:
    return pa.Table.from_pylist(
        [dict(zip(PRICE_LIST_SCHEMA.names, row, strict=True)) for row in rows], PRICE_LIST_SCHEMA
    )


@given(st.lists(price, max_size=6).flatmap(lambda rows: st.tuples(st.just(rows), st.permutations(rows))))
def test_the_version_does_not_depend_on_row_order(
    lists: tuple[list[tuple[object, ...]], list[tuple[object, ...]]],
) -> None:
    one, other = lists
    extra = table(other).append_column("loaded_at", pa.array(range(len(other))))
    assert price_version(table(one)) == price_version(extra)


@given(st.lists(price, max_size=3), st.lists(price, max_size=3))
def test_lists_that_differ_have_different_versions(
    one: list[tuple[object, ...]], other: list[tuple[object, ...]]
) -> None:
    assert (price_version(table(one)) == price_version(table(other))) == (
        sorted(map(repr, one)) == sorted(map(repr, other))
    )


def test_a_price_has_one_version_however_it_is_spelt() -> None:
    spelt = [parse_price_list(HEADER + f",W,{price},BRL,,\n".encode(), "p") for price in ("0.04", "0.040000", "00.040")]
    assert len({price_version(prices) for prices in spelt}) == 1
    assert price_version(sample("prices.csv")) == "809559d963857433"


def test_blanks_around_a_customer_or_a_channel_do_not_count() -> None:
    (row,) = parse_price_list((HEADER.decode() + " 7 , SMS\u00a0,1,BRL,,\n").encode(), "p.csv").to_pylist()
    assert (row["customer_id"], row["channel"]) == (7, "SMS")


@pytest.mark.parametrize("cell", ['"""\\q"""', '"""\\ud800"""', '"""a""b"""', '"""\t"""'])
def test_a_quoted_channel_is_a_json_string(cell: str) -> None:
    with pytest.raises(FileRefused):
        parse_price_list(f"{HEADER.decode()},{cell},1,BRL,,\n".encode(), "p.csv")


@given(st.text(min_size=1))
def test_a_list_can_name_every_channel(channel: str) -> None:
    (row,) = parse_price_list(f"{HEADER.decode()},{price_list_cell(channel)},1,BRL,,\n".encode(), "p.csv").to_pylist()
    assert row["channel"] == channel
    assert quote_odd(channel).isprintable()


def test_a_list_as_excel_writes_it_in_brazil_is_the_same_list() -> None:
    header = "customer_id,channel,unit_price,currency,valid_from,valid_to\n"
    plain = parse_price_list((header + "7,Ligação,0.04,BRL,2020-01-31,\n,SMS,1234.5,BRL,,\n").encode(), "f.csv")
    text = header.replace(",", ";") + "7;Ligação;0,04;BRL;31/01/2020;\n;SMS;1.234,5;BRL;;\n"
    assert parse_price_list(text.encode("cp1252"), "f.csv") == plain
    with pytest.raises(FileRefused, match=r"f\.csv:2: bad_number: unit_price: can be read in two ways"):
        parse_price_list((header.replace(",", ";") + ";SMS;1.234;BRL;;\n").encode(), "f.csv")
