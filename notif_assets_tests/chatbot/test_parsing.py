"""Answer files: the document's files, every refusal by its name, and any hostile file against plain Python."""

import json
import sys
from datetime import UTC, date, datetime
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notif_assets.chatbot.parsing import ANSWERS_SCHEMA, FIXED_COLUMNS, column_names, parse_answers
from notif_assets.core.texts import BLANK_CHARACTERS
from notif_assets.inbox.listing import hour_of_file_name
from notif_assets.inbox.rows import REJECTED_SCHEMA, FileRefused, ParsedFile

DAY = date(2019, 12, 16)
GOOD = {"customer": "C", "flow": "F", "session": "S", "timestamp": "2019-12-16T13:59:58+00:00", "content": {"k": "v"}}


def parse(data: bytes) -> ParsedFile:
    return parse_answers(data, "hour=13.json", DAY, 13)


def parse_records(*records: object) -> ParsedFile:
    """One record per line, from line 2 on."""
    return parse(("[\n" + ",\n".join(map(json.dumps, records)) + "\n]\n").encode())


def test_the_documents_file() -> None:
    parsed = parse((files("notif_assets") / "samples" / "hour=13.json").read_bytes())
    assert (parsed.rows.schema, parsed.rejected.schema) == (ANSWERS_SCHEMA, REJECTED_SCHEMA)
    assert (parsed.rows.num_rows, parsed.rejected.num_rows) == (5, 0)
    moment = datetime(2019, 12, 16, 13, 59, 59, tzinfo=UTC)
    last = (DAY, 13, "C1000", "F1000", "S2000", moment, "cpf", "733.600.420-26", "hour=13.json", 5)
    assert tuple(parsed.rows.to_pylist()[-1].values()) == last


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (None, "not_an_object"),
        ([GOOD], "not_an_object"),
        ("secret", "not_an_object"),
        ({**GOOD, "customer": 1}, "wrong_type"),
        ({**GOOD, "session": None}, "wrong_type"),
        ({**GOOD, "flow": "\ud800"}, "wrong_type"),
        ({**GOOD, "flow": ""}, "empty_field"),
        ({**GOOD, "content": []}, "wrong_type"),
        ({**GOOD, "content": "secret"}, "wrong_type"),
        ({**GOOD, "timestamp": 1576504798}, "wrong_type"),
        ({**GOOD, "timestamp": "2031-01-01T00:00:00Z"}, "too_late"),
        ({**GOOD, "timestamp": "2019-12-17T14:00:00.000001Z"}, "too_late"),
        ({**GOOD, "timestamp": "9999-12-31T23:59:59Z"}, "too_late"),
        ({**GOOD, "timestamp": "2019-12-16T13:59:58"}, "bad_timestamp"),
        ({**GOOD, "timestamp": "2019-02-30T13:59:58Z"}, "bad_timestamp"),
        ({**GOOD, "timestamp": "0001-01-01T00:00:00+01:00"}, "bad_timestamp"),
        ({**GOOD, "timestamp": "secret"}, "bad_timestamp"),
        ({name: GOOD[name] for name in GOOD if name != "content"}, "missing_field"),
        ({name: GOOD[name] for name in GOOD if name != "session"}, "missing_field"),
    ],
)
def test_a_bad_record_is_set_aside_by_name_and_costs_no_other(record: object, reason: str) -> None:
    parsed = parse_records(GOOD, record, GOOD)
    (bad,) = parsed.rejected.to_pylist()
    assert (bad["reason"], bad["source_line"], bad["source_file"]) == (reason, 3, "hour=13.json")
    assert "secret" not in bad["detail"]
    assert parsed.rows.num_rows == 2


@pytest.mark.parametrize("value", [None, 1, 0.5, True, {"a": "b"}, ["secret"], "secret\ud83d", "\udc00"])
def test_a_value_that_is_no_text_costs_only_its_pair(value: object) -> None:
    parsed = parse_records(GOOD, {**GOOD, "content": {"a": "1", "b": value, "c": "\u0000 "}}, GOOD)
    assert [(row["key"], row["value"], row["position"]) for row in parsed.rows.to_pylist()] == [
        ("k", "v", 1),
        ("a", "1", 2),
        ("c", "\u0000 ", 4),
        ("k", "v", 5),
    ]
    (bad,) = parsed.rejected.to_pylist()
    assert (bad["reason"], bad["source_line"]) == ("value_not_text", 3)
    assert "secret" not in bad["detail"]


def test_a_number_of_any_length_costs_only_its_pair() -> None:
    digits = "9" * (sys.get_int_max_str_digits() + 1)
    parsed = parse(json.dumps([GOOD, {**GOOD, "content": {"a": "digits"}}]).replace('"digits"', digits).encode())
    assert (parsed.rows.num_rows, parsed.rejected["reason"].to_pylist()) == (1, ["value_not_text"])


def test_half_an_emoji_in_a_key_costs_only_its_pair() -> None:
    parsed = parse_records({**GOOD, "content": {"\ud83d": "1", "\U0001f600": "\U0001f600"}})
    assert parsed.rows["key"].to_pylist() == ["\U0001f600"]
    assert parsed.rejected["reason"].to_pylist() == ["value_not_text"]


def test_pairs_of_a_bad_record_count_and_a_repeated_key_holds_its_last_value() -> None:
    bad = {**GOOD, "customer": "", "content": {"a": "1", "b": "2"}}
    repeated = json.dumps(GOOD).replace('"v"}', '"v", "k": "w"}').replace('"customer"', '"customer": 1, "customer"')
    parsed = parse(f"[{json.dumps(bad)}, {repeated}]".encode())
    assert [(row["value"], row["position"]) for row in parsed.rows.to_pylist()] == [("w", 3)]


def test_moments_become_utc_and_the_line_is_where_the_record_begins() -> None:
    moved = json.dumps({**GOOD, "timestamp": "2019-12-16T22:00:00.1234-03:00"}, indent=2)
    parsed = parse(f"\ufeff\r\n[ {moved}\r\n , \n\n  7,\n8]\n".encode())
    assert parsed.rows["timestamp"].to_pylist() == [datetime(2019, 12, 17, 1, 0, 0, 123400, tzinfo=UTC)]
    end = 2 + moved.count("\n")
    assert parsed.rejected["source_line"].to_pylist() == [end + 3, end + 4]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b'{"customer": "secret"}', "not a JSON array"),
        (b"secret", "not a JSON array"),
        (b"[", "not JSON"),
        (b"[1 secret]", "not JSON"),
        (b"[1,]", "not JSON"),
        (b"[]]", "not JSON"),
        (b"[\n\n{secret}]", r"not JSON \(line 3\)"),
        (b"[NaN]", "not JSON"),
        (b'["secret\n"]', "not JSON"),
        (b'["\xff"]', "not UTF-8"),
        ('["secret"]'.encode("utf-16"), "not UTF-8"),
        (
            b"[1,\n" + b"[" * 10**5 + b"]" * 10**5 + b"]",
            r"nested too deeply to read \(the record that begins in line 2\)",
        ),
    ],
)
def test_a_file_that_is_no_array_is_refused_whole(data: bytes, why: str) -> None:
    with pytest.raises(FileRefused, match=why) as refused:
        parse(data)
    assert str(refused.value).startswith("hour=13.json: ")
    assert "secret" not in str(refused.value)
    assert refused.value.__context__ is None  # an error of the JSON reader holds the whole text


def test_an_hour_without_answers_is_no_error() -> None:
    assert parse(b"[ ]\n").rows.num_rows == 0
    assert parse_records({**GOOD, "content": {}}).rejected.num_rows == 0


# Any file. The oracle reads it with json.loads and judges each record with its own few lines.

words = st.sampled_from(["", "C", "S é", "\n", "a\x00", "\ud83d", "customer"])
anything = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)
stamps = st.sampled_from(["2019-12-16T13:59:58Z", "2019-12-16T10:59:58.5-03:00", "2019-12-16", "x", 7])
record = st.fixed_dictionaries(
    {
        "customer": words | anything,
        "flow": st.just("F"),
        "session": st.just("S"),
        "timestamp": stamps,
        "content": st.dictionaries(words, words | anything, max_size=3) | anything,
    },
    optional={"extra": anything},
)


def text(value: object) -> bool:
    return isinstance(value, str) and "\ud83d" not in value


@given(st.lists(record | anything, max_size=8), st.sampled_from([None, 0, 2]))
def test_any_file_against_plain_python(records: list[Any], indent: int | None) -> None:
    data = json.dumps(records, indent=indent)
    rows, rejected, position = [], 0, 0
    for each in records:
        content = each.get("content") if isinstance(each, dict) else None
        stamp = each.get("timestamp") if isinstance(each, dict) else None
        whole = (
            isinstance(content, dict)
            and isinstance(stamp, str)
            and "T" in stamp
            and all(text(each.get(name)) and each[name] for name in ("customer", "flow", "session"))
        )
        rejected += not whole
        for key, value in content.items() if isinstance(content, dict) else ():
            position += 1
            if whole and text(key) and text(value):
                rows.append((each["customer"], datetime.fromisoformat(str(stamp)), key, value, position))
            elif whole:
                rejected += 1
    parsed = parse(data.encode())
    columns = ("customer", "timestamp", "key", "value", "position")
    assert [tuple(row[name] for name in columns) for row in parsed.rows.to_pylist()] == rows
    assert parsed.rejected.num_rows == rejected


# Names


def test_hour_of_file_name() -> None:
    assert [hour_of_file_name(f"hour={hour:02}.json") for hour in range(24)] == list(range(24))
    assert [hour_of_file_name(f"HOUR={hour}.Json.GZ") for hour in range(24)] == list(range(24))


@pytest.mark.parametrize(
    "name",
    [
        "hour=24.json",
        "hour=007.json",
        "hour=7.json.zip",
        "hour=13.json\n",
        "hour=13.csv",
        "x/hour=13.json",
        "hour=١٣.json",
    ],
)
def test_another_file_name_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=r"hour=HH\.json"):
        hour_of_file_name(name)


def test_blank_characters_are_those_that_strip_removes() -> None:
    assert set(BLANK_CHARACTERS) == {char for char in map(chr, range(sys.maxunicode + 1)) if not char.strip()}


def test_keys_that_look_like_fixed_columns_move_aside() -> None:
    keys = ["cpf", "CPF", "customer", " Flow\n", "answer_customer", "answer_answer_customer"]
    assert list(column_names(keys).items()) == [
        ("cpf", "cpf"),
        ("CPF", "CPF"),
        ("customer", "answer_answer_answer_customer"),
        (" Flow\n", "answer_ Flow\n"),
        ("answer_customer", "answer_customer"),
        ("answer_answer_customer", "answer_answer_customer"),
    ]


@given(
    st.lists(
        st.sampled_from(["a", *FIXED_COLUMNS, "Customer", " flow", "answer_flow", "answer_ flow", "answer_answer_flow"])
    )
)
def test_column_names_are_unique_and_none_looks_fixed(keys: list[str]) -> None:
    names = column_names(keys)
    assert list(names) == list(dict.fromkeys(keys))
    assert len(set(names.values())) == len(names)
    assert not any(name.strip().casefold() in FIXED_COLUMNS for name in names.values())


def test_a_record_may_be_dated_a_day_after_its_hour_and_long_before_it() -> None:
    moments = ["2019-12-17T14:00:00Z", "2019-12-17T11:00:00-03:00", "0001-01-01T00:00:00Z", "2019-12-16T00:00:00Z"]
    parsed = parse_records(*({**GOOD, "timestamp": moment} for moment in moments))
    assert (parsed.rows.num_rows, parsed.rejected.num_rows) == (4, 0)
