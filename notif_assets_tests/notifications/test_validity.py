"""The verdict on every kind of message: a corpus, any bytes at all, and the same rules told by Python's json."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from notif_assets.notifications.validity import REASONS, REJECTION_COLUMNS, Limits, validate
from notif_assets_tests.streams import NOON, Bounds, fields, message, verdict

US = timedelta(microseconds=1)
GOOD = message()
SCHEMA = pa.schema(
    [
        ("value", pa.binary()),
        ("kafka_timestamp", pa.timestamp("us", "UTC")),
        ("ingested_at", pa.timestamp("us", "UTC")),
        ("place", pa.int64()),
    ]
)


def records(values: list[bytes | None], stamp: datetime | None = NOON, ingested_at: datetime = NOON) -> pa.Table:
    rows = [
        {"value": value, "kafka_timestamp": stamp, "ingested_at": ingested_at, "place": place}
        for place, value in enumerate(values)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def judged(values: list[bytes | None], **at: Any) -> list[dict[str, Any]]:
    """What judge says of each value, in order; a valid message has no reason."""
    valid, rejected = validate(records(values, **at))
    assert "value" not in valid.column_names
    places = valid["place"].to_pylist(), rejected["place"].to_pylist()
    assert list(places[0]) == sorted(places[0])
    assert list(places[1]) == sorted(places[1])
    verdicts = sorted(valid.to_pylist() + rejected.to_pylist(), key=lambda row: int(row["place"]))
    assert [row["place"] for row in verdicts] == list(range(len(values)))  # each exactly once
    for row in rejected.to_pylist():
        whole = values[row["place"]]
        assert row["value"] == (whole[:1024] if whole and row["reason"] == "oversized" else whole)
    return verdicts


def reason(value: bytes | None, **at: Any) -> str:
    (row,) = judged([value], **at)
    return str(row.get("reason", "valid"))


def with_number(text: bytes) -> bytes:
    return GOOD.replace(b'"customer_id": 1', b'"customer_id": ' + text)


def without(name: str) -> bytes:
    changes: dict[str, Any] = {name: ...}
    return message(**changes)


def with_payload(text: bytes) -> bytes:
    return GOOD.replace('"Olá"'.encode(), text)


def with_unknown(text: bytes) -> bytes:
    return GOOD[:-1] + b', "x": ' + text + b"}"


def first(text: bytes) -> bytes:
    return b"{" + text + b", " + GOOD[1:]


def nested(levels: int) -> bytes:
    """A message that nests so many levels, its own object counted."""
    return with_unknown(b"[" * (levels - 1) + b"]" * (levels - 1))


CORPUS: list[tuple[str, bytes | None, str]] = [
    ("good", GOOD, "valid"),
    ("white space around", b" \n\t" + GOOD + b"\r\n", "valid"),
    ("unknown field", with_unknown(b'{"a": [1, null]}'), "valid"),
    ("empty payload", message(payload=""), "valid"),
    ("emoji", message(payload="😀"), "valid"),
    ("emoji escaped", with_payload(b'"\\ud83d\\ude00"'), "valid"),
    ("NUL escaped", with_payload(b'"\\u0000"'), "valid"),
    ("key escaped", GOOD.replace(b"customer_id", b"customer\\u005fid"), "valid"),
    ("unknown number out of range", with_unknown(b"1e400"), "valid"),
    ("unknown integer of 30 digits", with_unknown(b"9" * 30), "valid"),
    ("unknown key twice", first(b'"x": 1, "x": 2'), "valid"),
    ("key twice, first of a wrong type", first(b'"customer_id": "z"'), "valid"),
    ("key twice, first an object", first(b'"payload": {"a": 1}'), "valid"),
    ("key twice, first out of range, beside 1e400", first(b'"customer_id": 0, "x": 1e400'), "valid"),
    ("key twice, first a number that is none", first(b'"customer_id": 1e400'), "valid"),
    ("largest customer_id", message(customer_id=2**63 - 1), "valid"),
    ("100 levels", nested(100), "valid"),
    ("many brackets in a string", message(payload='"[{\\' * 50_000), "valid"),
    ("15 MB", message(payload="x" * 15_000_000), "valid"),
    ("15 MB with brackets", message(payload="[" * 200 + "\n" * 7_000_000), "valid"),
    ("tombstone", None, "tombstone"),
    ("20 MB", message(payload="x" * 20_000_000), "oversized"),
    ("20 MB of no UTF-8", b"\xff" * 20_000_000, "oversized"),
    ("not UTF-8, known field", with_payload(b'"\xff"'), "not_utf8"),
    ("not UTF-8, unknown field", with_unknown(b'"\xff"'), "not_utf8"),
    ("not UTF-8, key", first(b'"\xff": 1'), "not_utf8"),
    ("not UTF-8 behind", GOOD + b"\xff", "not_utf8"),
    ("overlong", with_payload(b'"\xc0\xaf"'), "not_utf8"),
    ("surrogate as bytes", with_payload(b'"\xed\xa0\x80"'), "not_utf8"),
    ("UTF-16", GOOD.decode().encode("utf-16"), "not_utf8"),
    ("101 levels", nested(101), "too_deep"),
    ("2000 levels", nested(2_000), "too_deep"),
    ("200000 levels", nested(200_000), "too_deep"),
    ("200000 levels of objects", with_unknown(b'{"a":' * 200_000 + b"1" + b"}" * 200_000), "too_deep"),
    ("a string that never ends, after brackets", b"[" * 101 + b'"' + b'\\"' * 500_000, "too_deep"),
    ("as a schema registry's serializer writes it", b"\0\0\0\0\x07" + GOOD, "schema_registry_prefix"),
    ("with the id of a schema that is no UTF-8", b"\0\xff\xc8\0\x07" + GOOD, "schema_registry_prefix"),
    ("in Avro", b"\0\0\0\0\x07\x02\x0eAcme\xff", "schema_registry_prefix"),
    ("prefix alone", b"\0\0\0\0\x07", "not_json"),
    ("empty", b"", "not_json"),
    ("blank", b"  ", "not_json"),
    ("truncated", GOOD[:-5], "not_json"),
    ("truncated array", b"[1,", "not_json"),
    ("two documents", GOOD + GOOD, "not_json"),
    ("two lines", GOOD + b"\n" + GOOD, "not_json"),
    ("trailing garbage", GOOD + b" x", "not_json"),
    ("BOM", b"\xef\xbb\xbf" + GOOD, "not_json"),
    ("NaN", with_unknown(b"NaN"), "not_json"),
    ("Infinity", with_unknown(b"-Infinity"), "not_json"),
    ("leading zero", with_number(b"01"), "not_json"),
    ("lone surrogate escaped", with_payload(b'"\\ud800"'), "not_json"),
    ("lone low surrogate escaped, unknown field", with_unknown(b'"\\udc00"'), "not_json"),
    ("lone surrogate in a key", first(b'"\\ud800": 1'), "not_json"),
    ("raw control character", with_payload(b'"a\x01b"'), "not_json"),
    ("raw line break", with_payload(b'"a\nb"'), "not_json"),
    ("raw NUL", with_payload(b'"a\x00b"'), "not_json"),
    ("unknown escape", with_unknown(b'"\\q"'), "not_json"),
    ("single quotes", GOOD.replace(b'"', b"'"), "not_json"),
    ("trailing comma", GOOD[:-1] + b",}", "not_json"),
    ("comment", b"/**/" + GOOD, "not_json"),
    ("null", b"null", "not_an_object"),
    ("array", b"[1, 2]", "not_an_object"),
    ("array of 1e400", b"[1e400]", "not_an_object"),
    ("scalar", b'"x"', "not_an_object"),
    ("number", b"1", "not_an_object"),
    *((f"without {name}", without(name), "missing_field") for name in fields()),
    ("empty object", b"{}", "missing_field"),
    ("key in capitals", GOOD.replace(b"customer_id", b"Customer_ID"), "missing_field"),
    ("missing, beside 1e400", b'{"x": 1e400}', "missing_field"),
    ("payload object", message(payload={"a": 1}), "wrong_type"),
    ("payload null", message(payload=None), "wrong_type"),
    ("key twice, last of a wrong type", with_unknown(b'1, "customer_id": "z"'), "wrong_type"),
    *((f"customer_id {n!r}", with_number(n), "wrong_type") for n in (b"1.0", b"1e3", b'"1"', b"true", b"null", b"[]")),
    ("customer_id 1e400", with_number(b"1e400"), "wrong_type"),
    ("event a number", message(event_datetime=1580731200), "wrong_type"),
    *(
        (f"customer_id {n}", message(customer_id=n), "customer_id_out_of_range")
        for n in (0, -1, 2**63, 2**64, 10**30, -(2**63) - 1)
    ),
    ("customer_id -0", with_number(b"-0"), "customer_id_out_of_range"),
    *((f"{n} empty", message(**{n: ""}), "empty_field") for n in ("message_id", "customer_name", "channel")),
    ("channel over two lines", message(channel="What\nsapp"), "control_character"),
    (
        "channel with NUL, key twice",
        first(b'"customer_id": "z"').replace(b"Whatsapp", b"Whats\\u0000"),
        "control_character",
    ),
    ("a long id that holds a control character", message(message_id="x" * 9000 + "\x85"), "control_character"),
    ("a long name, then a channel with a tab", message(customer_name="x" * 8193, channel="\t"), "too_long"),
    ("a bad name of a bad time", message("never", channel="\n"), "control_character"),
]


@pytest.mark.parametrize(("value", "expected"), [pytest.param(v, e, id=name) for name, v, e in CORPUS])
def test_every_kind_of_message_has_its_reason(value: bytes | None, expected: str) -> None:
    assert reason(value) == expected


def test_of_an_oversized_value_length_hash_and_beginning_are_kept() -> None:
    value = message(payload="x" * 5_000)
    (valid, rejected) = validate(records([GOOD, value, None]), Limits(max_bytes=1_000))
    assert valid["place"].to_pylist() == [0]
    row = rejected.to_pylist()[0]
    assert row["value"] == value[:1024]
    assert row["detail"] == f"{len(value)} bytes, SHA-256 {hashlib.sha256(value).hexdigest()}"


def test_the_corpus_in_one_batch_has_the_same_verdicts() -> None:
    values = [value for _, value, _ in CORPUS if value is None or len(value) < 10**6]
    expected = [e for _, value, e in CORPUS if value is None or len(value) < 10**6]
    assert [row.get("reason", "valid") for row in judged(values)] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2020-02-03T12:00:00Z", NOON),
        ("2020-02-03t12:00:00z", NOON),
        ("2020-02-03 12:00:00Z", NOON),
        ("2020-02-03T09:00:00-03:00", NOON),
        ("2020-02-03T12:00:00+0000", NOON),
        ("2020-02-03T12:00:00-00:00", NOON),
        ("2020-02-04T11:59:00+23:59", NOON),
        ("2020-02-03T12:00:00.123Z", NOON + 123_000 * US),
        ("2020-02-03T12:00:00.000001Z", NOON + US),
        ("2020-02-03T12:00:00.1234567Z", NOON + 123_457 * US),
        ("2020-02-03T12:00:00.123456789Z", NOON + 123_457 * US),
        ("2020-02-03T11:59:59.9999999Z", NOON),
        *(
            (text, "bad_event_datetime")
            for text in (
                "",
                "2020-02-03",
                "2020-02-03T12:00:00",
                "2020-02-03T12:00Z",
                "2020-02-03T12Z",
                "20200203T120000Z",
                "2020-W06-1T12:00:00Z",
                "2020-02-03T12:00:60Z",
                "2016-12-31T23:59:60Z",
                "2020-02-03T24:00:00Z",
                "2020-02-03T12:60:00Z",
                "2020-02-30T12:00:00Z",
                "2019-02-29T12:00:00Z",
                "2020-13-01T12:00:00Z",
                "0000-01-01T00:00:00Z",
                "2020-02-03T12:00:00,5Z",
                "2020-02-03T12:00:00.Z",
                "2020-02-03T12:00:00+00",
                "2020-02-03T12:00:00+24:00",
                "2020-02-03T12:00:00+03:60",
                "2020-02-03T12:00:00+03:00:00",
                "2020-02-03T12:00:00Z ",
                " 2020-02-03T12:00:00Z",
                "2020-02-03T12:00:00Z\n",
                "+2020-02-03T12:00:00Z",
                "２020-02-03T12:00:00Z",
                "2020-02-03T12:00:00Z[UTC]",
                "1580731200",
                "now",
            )
        ),
        ("9999-12-31T23:59:59Z", "event_too_late"),
        ("9999-12-31T23:59:59-01:00", "event_too_late"),
        ("0001-01-01T00:00:00+01:00", "event_too_early"),
    ],
)
def test_every_shape_of_timestamp(text: str, expected: datetime | str) -> None:
    # Alone, and beside one that Arrow converts by the column.
    for others in ([], [GOOD], [GOOD, message("not a time")]):
        row = judged([message(text), *others])[0]
        assert row.get("reason", row["event_datetime"] if "reason" not in row else None) == expected


@pytest.mark.parametrize(
    ("lies", "expected"),
    [
        (timedelta(hours=24), "valid"),
        (timedelta(hours=24) + US, "event_too_late"),
        (-timedelta(days=400), "valid"),
        (-timedelta(days=400) - US, "event_too_early"),
    ],
)
def test_how_far_an_event_may_lie_from_its_kafka_timestamp(lies: timedelta, expected: str) -> None:
    value = message(NOON + lies)
    far = NOON + timedelta(days=1000)
    assert reason(value, ingested_at=far) == expected
    assert reason(value, stamp=None, ingested_at=NOON) == expected  # without one, ingested_at stands for it
    assert reason(value, stamp=None, ingested_at=far) == "event_too_early"


@pytest.mark.parametrize(
    ("stamp", "event", "expected"),
    [
        ("2014-12-31T23:59:59Z", "2015-01-01T00:00:00Z", "valid"),
        ("2014-12-31T23:59:59Z", "2014-12-31T23:59:59.999999Z", "event_too_early"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:05Z", "event_too_early"),
        ("1970-01-01T00:00:00Z", "1969-12-31T23:59:59.999999Z", "event_too_early"),
        ("2020-02-04T12:00:00Z", "2020-02-04T12:00:00Z", "valid"),
        ("2020-02-04T12:00:00Z", "2020-02-04T12:00:00.000001Z", "event_too_late"),
        ("2031-01-01T00:00:00Z", "2031-01-01T00:00:00Z", "event_too_late"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59-01:00", "event_too_late"),
    ],
)
def test_a_clock_is_not_believed_because_kafkas_agrees_with_it(stamp: str, event: str, expected: str) -> None:
    """The bills begin with 2015, and our own clock says NOON: what lies outside could never be billed."""
    assert reason(message(event), stamp=datetime.fromisoformat(stamp)) == expected


@pytest.mark.parametrize(
    ("stamp", "event", "expected"),
    [
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "valid"),
        ("1970-01-01T00:00:00Z", "1969-12-31T23:59:59.999999Z", "event_too_early"),
        ("9999-01-01T00:00:00Z", "9998-12-31T23:59:59.999999Z", "valid"),
        ("9999-01-01T00:00:00Z", "9999-01-01T00:00:00Z", "event_too_late"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59-01:00", "event_too_late"),
    ],
)
def test_by_the_earlier_rules_an_event_stays_within_the_calendar(stamp: str, event: str, expected: str) -> None:
    # Hours are counted from 1970, and every day needs one after it.
    valid, rejected = validate(records([message(event)], datetime.fromisoformat(stamp)), Limits(narrow=False))
    assert (rejected["reason"].to_pylist() or ["valid"]) == [expected]
    assert valid.num_rows + rejected.num_rows == 1


def test_the_first_billing_day_begins_where_its_zone_says() -> None:
    kiritimati = Limits(earliest=datetime(2014, 12, 31, 10, tzinfo=UTC))
    values: list[bytes | None] = [message("2014-12-31T10:00:00Z"), message("2014-12-31T09:59:59Z")]
    valid, rejected = validate(records(values, datetime(2015, 1, 1, tzinfo=UTC)), kiritimati)
    assert (valid["place"].to_pylist(), rejected["reason"].to_pylist()) == ([0], ["event_too_early"])


CONTROLS = ["\0", "\n", "\t", "\x1f", "\x7f", "\x80", "\x85", "\x9f"]


@pytest.mark.parametrize("field", ["message_id", "customer_name", "channel"])
@pytest.mark.parametrize("at", ["{}x", "x{}", "Olá {} x", "{}"])
def test_no_name_holds_a_control_character(field: str, at: str) -> None:
    """Unicode's category Cc, all 65 of them, and no other character."""
    every = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]
    others = [" ", "~", "\xa0", "\xad", "\u200b", "\u2028", "\ufeff", "º", "ª", "Â", "😀"]
    values = [message(**{field: at.format(character)}) for character in every + others]
    rows = judged(list(values))
    assert [row.get("reason", "valid") for row in rows] == ["control_character"] * 65 + ["valid"] * len(others)
    assert {row["detail"] for row in rows[:65]} == {field}
    assert [reason(message(**{field: at.format(character)})) for character in CONTROLS] == ["control_character"] * 8


@pytest.mark.parametrize("field", ["message_id", "customer_name", "channel"])
def test_no_name_is_longer_than_pages_and_bills_carry(field: str) -> None:
    values = [message(**{field: text}) for text in ("x" * 8192, "x" * 8193, "é" * 4096, "é" * 4096 + "x", "x" * 10**6)]
    rows = judged(list(values))
    assert [row.get("reason", "valid") for row in rows] == ["valid", "too_long", "valid", "too_long", "too_long"]
    assert [row.get("detail") for row in rows if "reason" in row] == [field] * 3


def test_a_payload_may_hold_what_a_name_may_not() -> None:
    assert reason(message(payload="".join(CONTROLS) + "x" * 5000)) == "valid"


def test_what_was_judged_by_the_earlier_rules_keeps_its_verdict() -> None:
    values = [
        message(channel="What\nsapp"),
        message(customer_name="x" * 9000),
        message(event_datetime="2031-01-01T00:00:00Z"),
    ]
    table = records(list(values), datetime(2031, 1, 1, tzinfo=UTC))
    assert validate(table, Limits(max_age=timedelta(days=9999), narrow=False))[0].num_rows == 3
    assert validate(table, Limits(max_age=timedelta(days=9999)))[0].num_rows == 0


def test_limits_are_settings() -> None:
    table = records([GOOD, message(NOON + timedelta(hours=2)), message(NOON - timedelta(hours=2)), GOOD + b" " * 500])
    tight = Limits(max_bytes=len(GOOD) + 100, max_age=timedelta(hours=1), max_lead=timedelta(hours=1))
    valid, rejected = validate(table, tight)
    assert valid["place"].to_pylist() == [0]
    assert rejected["reason"].to_pylist() == ["event_too_late", "event_too_early", "oversized"]


def test_what_could_be_told_of_a_broken_message_is_kept() -> None:
    rows = judged(
        [message(payload=1), message(customer_id="x"), message("never", customer_id=7), message(message_id=3), b"[]"]
    )
    assert [(row["customer_id"], row["message_id"]) for row in rows] == [
        (1, "m"),
        (None, "m"),
        (7, "m"),
        (1, None),
        (None, None),
    ]


def test_no_records_at_all() -> None:
    valid, rejected = validate(records([]))
    assert (valid.num_rows, rejected.num_rows) == (0, 0)
    assert [rejected.schema.field(column.name) for column in REJECTION_COLUMNS] == list(REJECTION_COLUMNS)


# --- any message ----------------------------------------------------------------------------------------------------

SECRET = "Zq9"  # in every free text, and nowhere else
text = st.text(max_size=4).map(lambda t: SECRET + t)
digits = st.integers(0, 99).map("{:02}".format)
stamps = st.one_of(
    st.datetimes(datetime(2018, 6, 1), datetime(2020, 3, 1)).map(lambda t: t.isoformat() + "Z"),  # noqa: DTZ001
    st.tuples(
        st.sampled_from(["2020-02-03", "2019-02-29", "2020-02-30", "1969-12-31", "9999-12-31", "0001-01-01"]),
        st.sampled_from(["T", " ", "t", ""]),
        digits,
        st.sampled_from([":", ""]),
        digits,
        digits,
        st.sampled_from(["", ".5", ".123456", ".1234565", ".9999999", ".", ",5"]),
        st.sampled_from(["Z", "z", "+00:00", "-03:00", "+0545", "+23:59", "-24:00", "", " Z"]),
    ).map(lambda p: f"{p[0]}{p[1]}{p[2]}{p[3]}{p[4]}:{p[5]}{p[6]}{p[7]}"),
    text,
)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**65), 2**65), st.floats(), text, stamps),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2),
    max_leaves=4,
)
names = st.sampled_from(list(fields()))


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Something like a message: fields changed, left out, repeated; then perhaps bytes cut, put in or changed."""
    pairs = [(name, value) for name, value in fields(draw(stamps)).items() if draw(st.integers(0, 19))]
    for _ in range(draw(st.integers(0, 2))):
        value = draw(st.one_of(anything, st.sampled_from([0, -1, 2**63, 1.0, 1e3, "1", True, "", 1e400])))
        pairs.insert(draw(st.integers(0, len(pairs))), (draw(names | text), value))
    body = ", ".join(f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=draw(st.booleans()))}" for k, v in pairs)
    data = ("{" + body.replace("Infinity", "1e400") + "}").encode(errors="surrogatepass")
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(data)))
        drop, put = (
            draw(st.integers(0, 3)),
            draw(st.binary(max_size=2) | st.sampled_from([b"{", b'"', b"\\", b"]" * 60])),
        )
        data = data[:at] + put * draw(st.sampled_from([1, 1, 101])) + data[at + drop :]
    return data


values = st.one_of(documents(), documents(), st.binary(max_size=40), st.none())


@settings(max_examples=400, derandomize=True)
@given(values)
def test_the_verdict_is_that_of_a_plain_reading_of_the_rules(value: bytes | None) -> None:
    (row,) = judged([value])
    expected = verdict(value, NOON)
    if isinstance(expected, str):
        assert row.get("reason") == expected
        assert expected in REASONS
        assert SECRET not in row["detail"]
    else:
        assert {name: row[name] for name in expected} == expected


@settings(max_examples=150, derandomize=True)
@given(st.lists(values, min_size=1, max_size=12), st.data())
def test_the_verdict_is_the_same_alone_and_in_any_batch(batch: list[bytes | None], data: st.DataObject) -> None:
    alone = [judged([value])[0] | {"place": place} for place, value in enumerate(batch)]
    assert judged(batch) == alone
    cuts = sorted(data.draw(st.lists(st.integers(0, len(batch)), max_size=3)))
    spans = zip([0, *cuts], [*cuts, len(batch)], strict=True)
    # Cut into chunks, and into slices that share one buffer.
    chunked = pa.concat_tables(records(batch).slice(start, end - start) for start, end in spans)
    for table in (chunked, pa.concat_tables([records([GOOD, None]), chunked]).slice(2)):
        valid, rejected = validate(table)
        rows = sorted(valid.to_pylist() + rejected.to_pylist(), key=lambda row: int(row["place"]))
        assert rows == alone


@settings(max_examples=300, derandomize=True)
@given(st.binary(max_size=200))
@example(b'"' * 101)
@example(b"[" * 101 + b'"\\')
def test_any_bytes_have_exactly_one_verdict(value: bytes) -> None:
    assert reason(value) in {*REASONS, "valid"}


def test_long_batches_are_judged_in_pieces_that_nobody_sees() -> None:
    batch = [message(message_id=str(n)) if n % 3 else b"{" for n in range(20_000)]
    expected = ["valid" if n % 3 else "not_json" for n in range(20_000)]
    assert [row.get("reason", "valid") for row in judged(list(batch))] == expected


def test_the_oracles_bounds_are_the_defaults() -> None:
    limits, bounds = Limits(), Bounds()
    names = ("max_bytes", "max_age", "max_lead", "earliest")
    assert [getattr(limits, name) for name in names] == [getattr(bounds, name) for name in names]
    assert datetime(2020, 2, 3, 12, tzinfo=UTC) == NOON
