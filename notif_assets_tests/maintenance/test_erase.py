"""Erasure and retention of payloads: nothing personal is left, every verdict and count is."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notif_assets.lake import SCHEMAS, Lake
from notif_assets.maintenance.attribution import is_of
from notif_assets.maintenance.erase import count_unattributable, erase
from notif_assets.maintenance.maintain import maintain
from notif_assets.maintenance.rebuild import rebuild
from notif_assets.maintenance.redacted_values import CONFLICTING_NAME, NAME, blank_records
from notif_assets.maintenance.redaction import PERSONAL, blank_old
from notif_assets.notifications import bronze, catch_up
from notif_assets.notifications.validity import Limits, oversized, validate
from notif_assets.settings import Settings
from notif_assets_tests.maintenance.world import START, World, bad_values, message
from notif_assets_tests.streams import MemoryLog, Record, rows_of

NOW = datetime.now(UTC)
TEXT = ("segredo", "Cliente 3")


def holding(world: World, *words: str) -> set[str]:
    """The tables that hold one of the words in any row."""
    return {name for name in SCHEMAS for row in world.rows(name) if any(word in str(row) for word in words)}


def counts(world: World) -> dict[str, Any]:
    """Everything that a bill or a proof counts."""
    money = ("notifications", "notifications_delta", "amount", "amount_delta")
    return {
        "places": world.places(),
        "reasons": sorted(
            (r["kafka_partition"], r["kafka_offset"], r["reason"]) for r in world.rows("rejected_notifications")
        ),
        "sums": {n: [sum(row.get(c, 0) for row in world.rows(n)) for c in money] for n in PERSONAL},
        "rows": {name: content.rows for name, content in world.contents().items()},
        "watermarks": world.watermarks(),
    }


def add_bills_and_answers(world: World) -> None:
    day, now = START.date(), NOW
    line = {"billing_date": day, "channel": "SMS", "unit_price": Decimal("0.04"), "price_version": "v", "run_id": "r"}
    line |= {"through_batch": 1, "currency": "BRL", "status": "final", "computed_at": now, "created_at": now}
    for customer in (3, 4):
        line |= {"customer_id": customer, "customer_name": f"Cliente {customer}", "reason": "late"}
        line |= {
            "notifications": 5,
            "amount": Decimal("0.20"),
            "notifications_delta": 1,
            "amount_delta": Decimal("0.04"),
        }
        line |= {"adjustment_id": str(customer)}
        for name in ("daily_billing", "billing_adjustments"):
            world.lake.table(name).append(pa.Table.from_pylist([line], schema=SCHEMAS[name].arrow))
        answer = {"answer_date": day, "hour": 3, "customer": str(customer), "flow": "F", "session": "S", "key": "nome"}
        answer |= {"timestamp": START, "value": f"segredo Cliente {customer}", "source_file": "f", "position": 1}
        report = {"answer_date": day, "customer": str(customer), "flow": "F", "session": "S", "first_answer_dt": START}
        report |= {"last_answer_dt": START, "answers": [("nome", f"Cliente {customer}")]}
        for name, row in (("chatbot_answers", answer), ("chatbot_reports", report)):
            world.lake.table(name).append(pa.Table.from_pylist([row], schema=SCHEMAS[name].arrow))


def test_erase_leaves_nothing_of_one_customer_and_all_of_the_others(world: World) -> None:
    add_bills_and_answers(world)
    before = counts(world)
    others = {
        n: [r for r in world.rows(n) if r.get("customer_id") in (1, 2, 4, 5) or r.get("customer") == "4"]
        for n in PERSONAL
    }
    assert holding(world, "Cliente 3") == set(PERSONAL)

    changed = erase(world.lake, world.settings, 3)
    assert all(changed[name] for name in PERSONAL)
    assert counts(world) == before
    assert holding(world, "Cliente 3") == set()
    for name in PERSONAL:
        kept = [r for r in world.rows(name) if r.get("customer_id") in (1, 2, 4, 5) or r.get("customer") == "4"]
        assert sorted(map(str, kept)) == sorted(map(str, others[name]))
    payloads = {r["customer_id"]: r["payload"] for r in world.rows("notifications")}
    assert payloads[3] == ""
    assert payloads[4].startswith("segredo")
    raw = [r for r in world.rows("raw_notifications") if r["value"] and is_of(r["value"], 3)]
    assert len(raw) > 90
    assert not any(b"segredo" in row["value"] or row["key"] for row in raw)

    assert set(erase(world.lake, world.settings, 3).values()) == {0}
    world.send(20, START + timedelta(hours=41))
    world.ingest()
    world.require_exact()


def test_silver_rebuilt_from_erased_bronze_has_the_same_verdicts(world: World) -> None:
    for customer in (2, 3, 4):
        erase(world.lake, world.settings, customer)
    before = world.contents()
    rebuild(world.lake, world.settings, "notifications")
    assert world.contents() == before
    for name in ("minute_aggregates", "customer_panel"):
        rebuild(world.lake, world.settings, name)
    assert world.contents() == before


def test_what_is_kept_of_an_oversized_message_goes_though_it_does_not_say_whose_it_is(lake: Lake) -> None:
    """Its first KiB, and its hash, which would prove what somebody guesses of the rest."""
    log, settings = MemoryLog(1), Settings(max_message_bytes=2_000)
    for customer in (3, 4):
        fields = {"payload": f"segredo {customer} " * 300, "customer_id": customer}
        log.produce(Record(json.dumps(fields).encode()))
    bronze.advance_bronze_by_one(lake, log, settings, "run")
    catch_up.advance_tables(lake, settings)
    before = rows_of(lake, "rejected_notifications")
    assert [(row["reason"], row["customer_id"], len(row["value"])) for row in before] == [("oversized", None, 1024)] * 2
    erase(lake, settings, 3)
    for _ in range(2):
        erased, other = rows_of(lake, "rejected_notifications")
        assert other == before[1]
        whole = rows_of(lake, "raw_notifications")[0]["value"]
        assert whole == b" " * len(whole)
        assert (erased["value"], erased["detail"]) == (b" " * 1024, oversized(whole).detail)
        rebuild(lake, settings, "notifications")


def test_an_unknown_customer_changes_nothing(world: World) -> None:
    before = {name: world.lake.table(name).version for name in SCHEMAS}
    assert set(erase(world.lake, world.settings, 77).values()) == {0}
    assert {name: world.lake.table(name).version for name in SCHEMAS} == before


def test_the_archive_is_erased_too(world: World, tmp_path: Path) -> None:
    from notif_assets.lake import Lake

    archive = Lake(tmp_path / "archive")
    rows = world.lake.rows(world.lake.table("raw_notifications").scan())
    archive.table("raw_notifications").append(rows)
    settings = world.settings.model_copy(update={"archive": archive.root})
    changed = erase(world.lake, settings, 3)
    assert changed["archive"] == changed["raw_notifications"] > 0
    left = archive.rows(archive.table("raw_notifications").scan())
    assert sorted(map(str, left.to_pylist())) == sorted(map(str, world.rows("raw_notifications")))


def test_payloads_older_than_the_retention_are_blanked_once(world: World) -> None:
    add_bills_and_answers(world)
    settings = world.settings.model_copy(update={"payload_days": 11})
    cut = NOW.date() - timedelta(days=11)
    before = counts(world)
    changed = blank_old(world.lake, settings, NOW)
    assert changed["raw_notifications"] == changed["rejected_notifications"] == 0  # they came today
    for row in world.rows("notifications"):
        assert (row["payload"] == "" and row["customer_name"] == NAME) == (row["event_date"] < cut)
    for row in world.rows("minute_aggregates"):
        assert (row["customer_name"] == NAME) == (row["event_date"] < cut)
    for name, column in (("daily_billing", "billing_date"), ("chatbot_answers", "answer_date")):
        for row in world.rows(name):
            assert ("Cliente" in str(row)) == (row[column] >= cut)
    assert counts(world) == before
    versions = {name: world.lake.table(name).version for name in SCHEMAS}
    assert set(blank_old(world.lake, settings, NOW).values()) == {0}
    assert {name: world.lake.table(name).version for name in SCHEMAS} == versions
    world.log.send(0, message(70_000, START), NOW)
    world.ingest()
    assert blank_old(world.lake, settings, NOW)["notifications"] == 1
    world.require_exact()


def test_maintain_years_later_leaves_no_payload_and_the_same_verdicts(world: World) -> None:
    add_bills_and_answers(world)
    settings = world.settings.model_copy(update={"payload_days": 30})
    before = counts(world)
    maintain(world.lake, settings, NOW + timedelta(days=800))
    assert counts(world) == before
    assert holding(world, *TEXT, "Cliente") == set()
    contents = world.contents()
    assert not any(blank_old(world.lake, settings, NOW + timedelta(days=800)).values())
    rebuild(world.lake, world.settings, "rejected_notifications")
    assert world.contents() == contents


def verdicts(values: list[bytes | None]) -> list[tuple[Any, ...]]:
    at = pa.array([START] * len(values), pa.timestamp("us", "UTC"))
    records = pa.table(
        {"value": pa.array(values, pa.binary()), "kafka_timestamp": at, "ingested_at": at, "place": range(len(values))}
    )
    found = [
        (r["place"], r["reason"], r["customer_id"], r["message_id"]) for r in validate(records, LIMITS)[1].to_pylist()
    ]
    return sorted(found)


LIMITS = Limits(max_bytes=4000)


def blanked(values: list[bytes | None], conflicting: bool = False) -> list[bytes | None]:
    at = pa.array([START] * len(values), pa.timestamp("us", "UTC"))
    records = pa.table({"value": pa.array(values, pa.binary()), "kafka_timestamp": at, "ingested_at": at})
    found: list[bytes | None] = blank_records(records, pa.array([conflicting] * len(values)), LIMITS)[0].to_pylist()
    return found


def test_every_bad_value_keeps_its_verdict_and_loses_its_words() -> None:
    values = bad_values(START)
    after = blanked(values)
    assert verdicts(after) == verdicts(values)
    assert not any(word.encode() in value for value in after if value for word in TEXT)
    assert [value is None for value in after] == [value is None for value in values]
    assert blanked(after) == after


def test_a_conflict_stays_one() -> None:
    (after,) = blanked([message(1, START)], conflicting=True)
    assert after is not None
    assert CONFLICTING_NAME.encode() in after
    assert blanked([after]) == [after]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["customer_id", "message_id", "customer_name", "channel", "payload", "event_datetime", "other"]
        ),
        json_values,
    ),
    st.integers(0, 60),
)
def test_any_message_keeps_its_verdict(fields: dict[str, Any], cut: int) -> None:
    for value in (message(1, START, **fields), message(1, START, **fields)[:-cut] if cut else b""):
        (after,) = blanked([value])
        if after is not None:
            assert verdicts([after]) == verdicts([value])
        assert blanked([after]) == [after]


@pytest.mark.parametrize(
    ("value", "mine"),
    [
        (b'{"customer_id": 37}', True),
        (b'{"customer_id": "37"}', True),
        (b'{"customer_id": 37, "payload": ', True),
        (b'{"customer_id": 371}', False),
        (b'{"customer_id": 371, "payload": ', False),
        (b'{"customer_id": 3, "payload": "37"}', False),
        (b'{"customer_id": 37, "customer_id": 38}', False),
        (b"37", False),
        (None, False),
        (b'{"customer_id": 37.0}', True),
        (b'{"customer_id": 3.7e1}', True),
        (b'{"customer_id": " 037 "}', True),
        (b'{"customer_id": "37.0"}', True),
        (b'{"customer_id": [37]}', True),
        (b'{"customer_id": {"id": "37"}}', True),
        (b'{"customer": 37}', True),
        (b'{"customerId": 37}', True),
        (b'{"data": {"customer_id": 37}}', True),
        (b'[{"customer_id": 37}]', True),
        (b'{"customer_id": null, "data": [[{"customer_id": 37.0}]]}', True),
        (b'{"customer_id": 37, "customer_id": null}', True),
        (b'{"body": "{\\"customer_id\\": 37}"}', True),
        (b'{"customer\\u005fid": 37, "x": ', True),
        (b'{"customer_id": "\\u0033\\u0037", ', True),
        (b'{"customer_id"37, "x": 1}', True),
        (b'\xff{"customer_id": 3.7e1}', True),
        (b"\0\0\0\0\7" + b'{"customer_id": 37}', True),
        (b'{"customer_id": 37', False),  # it may have been 371
        (b'{"customer_id": 38, "about": {"customer_id": 37}}', False),
        (b'{"customer_id": 37.5}', False),
        (b'{"customer_id": 9007199254740993.0, "x": 37}', False),
        (b'{"customer_id": true}', False),
        (b'{"order_id": 37}', False),
        (b'{"customer_id": 1e999999999}', False),
    ],
)
def test_whose_message_it_is(value: bytes | None, mine: bool) -> None:
    assert is_of(value, 37) == mine


@given(
    st.integers(1, 2**63 - 1),
    st.sampled_from(
        ["{0}", "{0}.0", "{0}.000", "{0}e0", '"{0}"', '" {0} "', '"00{0}"', "[{0}]", '{{"id": {0}}}', "[[{0}.0]]"]
    ),
    st.sampled_from(
        [
            '{{"customer_id": {0}}}',
            '{{"a": [{{"customer_id": {0}}}]}}',
            '[1, {{"Customer-Id": {0}}}]',
            '{{"customer_id": {0}, "payload":',
        ]
    ),
)
def test_an_id_is_found_however_it_is_written_and_no_other(customer_id: int, spelled: str, around: str) -> None:
    value = around.format(spelled.format(customer_id)).encode()
    assert is_of(value, customer_id)
    assert not any(is_of(value, other) for other in (customer_id - 1, customer_id + 1, customer_id // 10) if other)


def test_a_rejected_record_without_an_id_is_found_by_key_name_and_message(tmp_path: Path) -> None:
    world = World(tmp_path)
    lake, settings = world.lake, world.settings
    theirs: list[tuple[bytes | None, bytes | None]] = [
        (b"37", b'{"payload": "segredo"}'),
        (bytes(7) + b"\x25", b"segredo"),
        (None, b'{"customer_name": "CLIENTE 37", "payload": "segredo"}'),
        (None, b'"Cliente 37"'),
        (None, b'{"customer_name": "Cliente 37", "payload": "segredo'),
        (None, b'{"message_id": "m37", "payload": "segredo"}'),
        (None, b'[{"message_id": "m37"}, "segredo"]'),
        (None, b'{"customer_id": 37.0, "payload": "segredo"}'),
    ]
    others: list[tuple[bytes | None, bytes | None]] = [
        (b"38", b'{"customer_name": "Cliente 37", "payload": "de 38"}'),
        (None, b'{"customer_id": "38", "message_id": "m37", "payload": "de 38"}'),
        (b"37", message(38, NOW, 38, payload="de 38")),
    ]
    nobodys: list[tuple[bytes | None, bytes | None]] = [
        (None, b'{"payload": "de quem?"}'),
        (b"key", b"de quem?"),
        (None, b'{"customer_id": 38'),
        (None, b'{"payload": ""}'),
        (None, None),
        (None, b""),
    ]
    for key, value in [(b"37", message(37, NOW, 37)), *theirs, *others, *nobodys]:
        world.log.send(0, value, NOW, key)
    world.ingest()
    before = rows_of(lake, "raw_notifications")
    assert count_unattributable(lake, settings) == 3 + 5  # and those that only the name or the message tells
    erase(lake, settings, 37)
    for name in ("raw_notifications", "rejected_notifications"):
        erased = [str(row["value"]) for row in rows_of(lake, name) if row["kafka_offset"] <= len(theirs)]
        assert not any(word in value for value in erased for word in ("segredo", "Cliente 37", "CLIENTE 37"))
    after = {row["kafka_offset"]: row for row in rows_of(lake, "raw_notifications")}
    kept = [row for row in before if row["kafka_offset"] > len(theirs)]
    assert [after[row["kafka_offset"]] for row in kept] == kept
    assert count_unattributable(lake, settings) == 3
    assert set(erase(lake, settings, 37).values()) == {0}
