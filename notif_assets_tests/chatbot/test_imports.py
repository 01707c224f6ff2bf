"""Chatbot answers and their reports: the document's tables, hostile files and any answers against plain Python."""

import gzip
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, date, datetime, timedelta
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notif_assets.chatbot.sessions import (
    days_that_differ,
    files_by_hour,
    flow_tables,
    import_hours,
    is_known,
    replace_day,
    source_file_of,
)
from notif_assets.defs.assets.chatbot import chatbot_answers, chatbot_reports, reports_equal_a_plain_calculation
from notif_assets.defs.assets.inbox import rejected_file_rows
from notif_assets.inbox.rows import FileRefused, ParsedFile
from notif_assets.inbox.source_files import rows_set_aside
from notif_assets.lake import Lake
from notif_assets.settings import Settings

DAY = date(2019, 12, 16)
HOUR = datetime(2019, 12, 16, tzinfo=UTC)
SAMPLES = [Path(str(files("notif_assets") / "samples" / f"hour={hour}.json")) for hour in (13, 14)]
FIXED = ["customer", "flow", "session", "first_answer_dt", "last_answer_dt"]


def import_answers(lake: Lake, day: date, paths: Sequence[Path]) -> ParsedFile:
    return import_hours(lake, day, files_by_hour(paths))


def at(seconds: int) -> datetime:
    return datetime(2019, 12, 16, 14, tzinfo=UTC) + timedelta(seconds=seconds)


def settings_of(tmp_path: Path) -> Settings:
    roots: dict[str, Any] = {f"{name}_root": tmp_path / name for name in ("lake", "inbox", "reports")}
    return Settings(**roots)


def run_answers(
    lake: Lake, tmp_path: Path, first: str, last: str | None = None, **paths: Path
) -> dg.ExecuteInProcessResult:
    """`paths` by hour, like h13=…; others come from the inbox."""
    config = {"files": {f"{DAY}-{hour[1:]}:00": str(path) for hour, path in paths.items()}}
    return dg.materialize(
        [rejected_file_rows, chatbot_answers],
        resources={"lake": lake, "settings": settings_of(tmp_path)},
        run_config={"ops": {"chatbot_answers": {"config": config}}},
        tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last or first},
        raise_on_error=False,
    )


def run_reports(lake: Lake, tmp_path: Path, day: str = str(DAY)) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [chatbot_answers, chatbot_reports, reports_equal_a_plain_calculation],
        selection=dg.AssetSelection.assets(chatbot_reports),
        resources={"lake": lake, "settings": settings_of(tmp_path)},
        partition_key=day,
        raise_on_error=False,
    )


def rows_of(lake: Lake, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = lake.rows(lake.table(name).scan()).to_pylist()
    return sorted(rows, key=repr)


def answer(
    content: dict[str, Any], session: str = "S", customer: str = "C", flow: str = "F", second: int = 0
) -> dict[str, Any]:
    timestamp = at(second).isoformat()
    return {"customer": customer, "flow": flow, "session": session, "timestamp": timestamp, "content": content}


def hour_file(folder: Path, hour: int, records: Sequence[Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"hour={hour:02}.json"
    path.write_text(json.dumps(list(records)), encoding="utf-8")
    return path


def whole_day(lake: Lake, **filters: str) -> dict[str, pa.Table]:
    return flow_tables(lake, HOUR, HOUR + timedelta(hours=23), **filters)


# The document


def test_document_through_the_assets(lake: Lake, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox" / "chatbot" / "date=2019-12-16"
    inbox.mkdir(parents=True)
    (inbox / "hour=13.json").write_bytes(SAMPLES[0].read_bytes())
    result = run_answers(lake, tmp_path, "2019-12-16-13:00", "2019-12-16-14:00", h14=SAMPLES[1])
    counts = {
        event.partition: event.materialization.metadata["dagster/partition_row_count"].value
        for event in result.get_asset_materialization_events()
        if event.asset_key == chatbot_answers.key
    }
    assert counts == {"2019-12-16-13:00": 5, "2019-12-16-14:00": 5}

    checks = {check.check_name: check.passed for check in run_reports(lake, tmp_path).get_asset_check_evaluations()}
    assert checks == {"published_chatbot_holds": True, "reports_equal_a_plain_calculation": True}
    assert [tuple(row.values()) for row in rows_of(lake, "chatbot_reports")] == [
        (
            DAY,
            "C1000",
            "F1000",
            "S1000",
            at(-2),
            at(1),
            [("name", "maria"), ("cpf", "305.584.960-40"), ("delivery_confirmed", "true")],
        ),
        (
            DAY,
            "C1000",
            "F1000",
            "S2000",
            at(-1),
            at(0),
            [("name", "joao"), ("cpf", "733.600.420-26"), ("delivery_confirmed", "false")],
        ),
        (DAY, "C2000", "F2000", "S3000", at(-1), at(1), [("recomenda", "Simmmmmmm"), ("nota", "9")]),
    ]

    tables = flow_tables(lake, HOUR.replace(hour=13), HOUR.replace(hour=14))
    assert list(tables) == ["F1000", "F2000"]
    assert tables["F1000"].column_names == [*FIXED, "name", "cpf", "delivery_confirmed"]
    assert [tuple(row.values()) for row in tables["F1000"].to_pylist()] == [
        ("C1000", "F1000", "S1000", at(-2), at(1), "maria", "305.584.960-40", "true"),
        ("C1000", "F1000", "S2000", at(-1), at(0), "joao", "733.600.420-26", "false"),
    ]
    assert tables["F2000"].column_names == [*FIXED, "recomenda", "nota"]
    assert [tuple(row.values()) for row in tables["F2000"].to_pylist()] == [
        ("C2000", "F2000", "S3000", at(-1), at(1), "Simmmmmmm", "9")
    ]


class NinesAreBlankLake(Lake):
    """A lake that takes another character for blank, as somebody's next version might."""

    def select(self, name: str, inputs: Any, **parameters: object) -> pa.Table:
        return super().select(name, inputs, **parameters | {"blank_characters": "9"})


def test_nothing_is_written_when_the_published_example_fails(lake: Lake, tmp_path: Path) -> None:
    import_answers(lake, DAY, SAMPLES)
    result = run_reports(NinesAreBlankLake(lake.root), tmp_path)
    assert not result.success
    (gate,) = result.get_asset_check_evaluations()
    assert (gate.check_name, gate.passed) == ("published_chatbot_holds", False)
    assert gate.metadata["flows_that_differ"].value == ["F2000"]
    assert not (lake.root / "chatbot_reports").exists()


# Imports


def test_importing_twice_leaves_the_same_rows(lake: Lake) -> None:
    import_answers(lake, DAY, SAMPLES)
    first = rows_of(lake, "chatbot_answers")
    assert import_answers(lake, DAY, SAMPLES[:1]).rows.num_rows == 5
    assert rows_of(lake, "chatbot_answers") == first
    assert len(first) == 10


def test_an_hour_is_replaced_and_may_become_empty(lake: Lake, tmp_path: Path) -> None:
    import_answers(lake, DAY, SAMPLES)
    import_answers(lake, DAY + timedelta(days=1), SAMPLES[:1])
    import_answers(lake, DAY, [hour_file(tmp_path, 13, [])])
    assert [(row["answer_date"].day, row["hour"]) for row in rows_of(lake, "chatbot_answers")] == [(16, 14)] * 5 + [
        (17, 13)
    ] * 5
    replace_day(lake, DAY)
    import_answers(lake, DAY, [hour_file(tmp_path, 14, [answer({"q": "\u00a0"})])])
    assert days_that_differ(lake, 31) == [DAY, DAY + timedelta(days=1)]
    for day in (DAY, DAY + timedelta(days=1)):
        replace_day(lake, day)
    assert days_that_differ(lake, 31) == []
    assert {row["answer_date"] for row in rows_of(lake, "chatbot_reports")} == {DAY + timedelta(days=1)}


@pytest.mark.parametrize("content", [b"", b"{}", b"[{", b"[]]", b"\xff\xfe"])
def test_a_refused_file_leaves_nothing(lake: Lake, tmp_path: Path, content: bytes) -> None:
    bad = tmp_path / "hour=15.json"
    bad.write_bytes(content)
    with pytest.raises(FileRefused, match=r"hour=15\.json"):
        import_answers(lake, DAY, [*SAMPLES, bad])
    with pytest.raises(FileRefused, match=r"hour=16\.json"):
        import_answers(lake, DAY, [*SAMPLES, tmp_path / "hour=16.json"])
    with pytest.raises(ValueError, match=r"hour=HH\.json"):
        import_answers(lake, DAY, [*SAMPLES, tmp_path / "hour=24.json"])
    result = run_answers(lake, tmp_path, "2019-12-16-14:00", "2019-12-16-15:00", h14=SAMPLES[1], h15=bad)
    assert "Nothing of 2019-12-16 was imported" in result.failure_data_for_node("chatbot_answers").error.message  # type: ignore[union-attr]
    assert not lake.root.exists()


def test_an_hour_without_a_file_fails_and_keeps_what_is_there(lake: Lake, tmp_path: Path) -> None:
    import_answers(lake, DAY, SAMPLES)
    assert not run_answers(lake, tmp_path, "2019-12-16-13:00", "2019-12-16-14:00", h14=SAMPLES[1]).success
    assert len(rows_of(lake, "chatbot_answers")) == 10


def test_bad_values_are_set_aside_and_no_answer_is_told(
    lake: Lake, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = "305-SEGREDO"
    records = [
        answer({"q": secret, "n": 7, secret: [secret]}),
        {"customer": secret, "flow": secret},
        secret,
        answer({"ok": secret}),
    ]
    path = hour_file(tmp_path, 13, records)
    result = run_answers(lake, tmp_path, "2019-12-16-13:00", h13=path)
    reports = run_reports(lake, tmp_path)
    rejected = rows_set_aside(lake, [source_file_of(DAY, 13)])
    assert [tuple(row.values())[:3] for row in rejected.to_pylist()] == [
        ("date=2019-12-16/hour=13.json", 1, reason)
        for reason in ("value_not_text", "value_not_text", "missing_field", "not_an_object")
    ]
    told = [event.materialization.metadata for event in result.get_asset_materialization_events()]
    assert [metadata["rejected_rows"].value for metadata in told] == [4, 4]
    assert whole_day(lake)["F"].to_pylist()[0]["ok"] == secret
    seen = [rejected.to_pylist(), result.all_events, reports.all_events, *capfd.readouterr()]
    assert "SEGREDO" not in repr(seen)

    import_answers(lake, DAY, [hour_file(tmp_path, 13, [])])  # mended
    assert rows_of(lake, "rejected_file_rows") == []


def _import_again_and_again(root: Path, paths: list[Path]) -> None:
    for path in paths:
        import_answers(Lake(root), DAY, [path])
        replace_day(Lake(root), DAY)


def test_two_processes_importing_at_once_lose_nothing(lake: Lake, tmp_path: Path) -> None:
    paths = [hour_file(tmp_path, hour, [answer({f"q{hour}": "yes", "bad": 1})]) for hour in range(12)]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as processes:
        list(processes.map(partial(_import_again_and_again, lake.root), [paths[:6], paths[6:]]))
    answers = rows_of(lake, "chatbot_answers")
    assert sorted(row["hour"] for row in answers if row["set_aside"] is None) == [*range(12)]
    assert {(row["key"], row["value"]) for row in answers if row["set_aside"]} == {("bad", "")}
    assert len(rows_of(lake, "rejected_file_rows")) == 12
    (session,) = rows_of(lake, "chatbot_reports")
    assert dict(session["answers"]) == {**{f"q{hour}": "yes" for hour in range(12)}, "bad": None}
    assert days_that_differ(lake, 31) == []


# What was set aside


def one_session(lake: Lake) -> dict[str, Any]:
    replace_day(lake, DAY)
    assert days_that_differ(lake, 31) == []
    (row,) = whole_day(lake)["F"].to_pylist()
    return {name: value for name, value in row.items() if name not in FIXED[:3]}


def test_an_answer_that_was_set_aside_hides_the_one_before_it_and_its_moment_counts(lake: Lake, tmp_path: Path) -> None:
    good, bad = answer({"nota": "2", "nome": "ana"}), answer({"nota": 9}, second=600)
    import_answers(lake, DAY, [hour_file(tmp_path, 13, [good]), hour_file(tmp_path, 14, [bad])])
    want = {"first_answer_dt": at(0), "last_answer_dt": at(600), "nota": None, "nome": "ana"}
    assert one_session(lake) == want
    import_answers(lake, DAY, [hour_file(tmp_path, 15, [answer({"nota": "3"}, second=601)])])
    assert one_session(lake) == {**want, "last_answer_dt": at(601), "nota": "3"}  # a later one holds again
    import_answers(lake, DAY, [hour_file(tmp_path, 15, []), hour_file(tmp_path, 14, [answer({"nota": "9"})])])
    assert one_session(lake) == {**want, "last_answer_dt": at(0), "nota": "9"}


@pytest.mark.parametrize("odd", [{"timestamp": "2019-12-16"}, {"timestamp": 5}, {"timestamp": "2031-01-01T00:00:00Z"}])
def test_where_the_time_is_not_known_no_answer_to_that_question_is(
    lake: Lake, tmp_path: Path, odd: dict[str, Any]
) -> None:
    records = [answer({"nota": "2"}), answer({"nota": "9"}) | odd, answer({"nota": "3", "nome": "ana"}, second=5)]
    import_answers(lake, DAY, [hour_file(tmp_path, 13, records)])
    assert one_session(lake) == {"first_answer_dt": at(0), "last_answer_dt": at(5), "nota": None, "nome": "ana"}


@pytest.mark.parametrize("value", [None, "  "])
def test_what_is_no_answer_hides_none(lake: Lake, tmp_path: Path, value: object) -> None:
    import_answers(lake, DAY, [hour_file(tmp_path, 13, [answer({"nota": "2"}), answer({"nota": value}, second=5)])])
    assert one_session(lake) == {"first_answer_dt": at(0), "last_answer_dt": at(0), "nota": "2"}


def test_two_files_of_one_hour_are_refused_by_name(lake: Lake, tmp_path: Path) -> None:
    paths = [hour_file(tmp_path / name, 13, [answer({"a": name})]) for name in ("m1", "m2")]
    with pytest.raises(ValueError, match=r"m1/hour=13\.json and .*m2/hour=13\.json; one would replace the other"):
        import_answers(lake, DAY, paths)
    packed = tmp_path / "m1" / "Hour=13.json.gz"
    packed.write_bytes(gzip.compress(paths[0].read_bytes()))
    with pytest.raises(ValueError, match="of one hour"):
        import_answers(lake, DAY, [paths[0], packed])
    assert import_answers(lake, DAY, [packed]).rows["value"].to_pylist() == ["m1"]


# Reports


def test_blank_is_what_str_strip_leaves_nothing_of(lake: Lake, tmp_path: Path) -> None:
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF]
    blanks = [c for c in characters if not c.strip()]
    odd = ["\u200b", "\u2060", "\ufeff", "\x00", "\u180e", "e\u0301", " x\u00a0", "0"]
    records = [answer({"q": c * 2}, f"blank {n}") for n, c in enumerate(blanks)]
    records += [answer({"q": value}, f"odd {n}") for n, value in enumerate(odd)]
    records += [answer({"q": "".join(blanks)}, "blank"), answer({"q": ""}, "empty")]
    import_answers(lake, DAY, [hour_file(tmp_path, 0, records)])
    got = {row["session"]: row["q"] for row in whole_day(lake)["F"].to_pylist()}
    assert got == {f"odd {n}": value for n, value in enumerate(odd)}


def test_ties_go_to_the_later_file_across_midnight(lake: Lake, tmp_path: Path) -> None:
    import_answers(lake, DAY, [hour_file(tmp_path, 23, [answer({"first": "a", "q": "before"})])])
    import_answers(lake, DAY + timedelta(days=1), [hour_file(tmp_path, 0, [answer({"q": "after", "last": "b"})])])
    midnight = flow_tables(lake, HOUR.replace(hour=23), HOUR + timedelta(days=1))["F"]
    assert midnight.column_names == [*FIXED, "first", "q", "last"]
    assert midnight.to_pylist()[0]["q"] == "after"
    assert whole_day(lake)["F"].to_pylist()[0]["q"] == "before"


def test_a_table_is_asked_by_customer_and_flow(lake: Lake, tmp_path: Path) -> None:
    records = [
        answer({"theirs": "1", "both": "2"}, customer="C1"),
        answer({"mine": "3", "both": "4"}, customer="C2"),
        answer({"other": "5"}, customer="C2", flow="f"),
        answer({"never": " "}, customer="C3", flow="quiet"),
    ]
    import_answers(lake, DAY, [hour_file(tmp_path, 0, records)])
    assert list(whole_day(lake)) == ["F", "f"]
    assert whole_day(lake, customer="C2")["F"].column_names == [*FIXED, "mine", "both"]
    assert list(whole_day(lake, customer="C2", flow="f")) == ["f"]
    assert whole_day(lake, customer="C3") == {}
    assert flow_tables(lake, HOUR.replace(hour=1), HOUR.replace(hour=2)) == {}
    assert [is_known(lake, *asked) for asked in [("C3", None), ("C3", "F"), ("c2", None), (None, "quiet")]] == [
        True,
        False,
        False,
        True,
    ]


def test_the_plain_calculation_finds_what_is_wrong(lake: Lake, tmp_path: Path) -> None:
    import_answers(lake, DAY, SAMPLES)
    rows = replace_day(lake, DAY)
    lake.table("chatbot_reports").replace(rows.slice(1), where=f"answer_date = '{DAY}'")
    (check,) = dg.materialize(
        [chatbot_answers, chatbot_reports, reports_equal_a_plain_calculation],
        selection=dg.AssetSelection.checks(reports_equal_a_plain_calculation),
        resources={"lake": lake, "settings": settings_of(tmp_path)},
    ).get_asset_check_evaluations()
    assert (check.passed, check.metadata["differ"].value) == (False, [str(DAY)])


value = st.sampled_from(["", " ", "\t\n", "\u00a0", "\u2028\u3000", "sim", " sim ", "n\u00e3o\n", "=1", "a'b\"c"])
key = st.sampled_from(
    ["name", "Name", "NAME", "flow", "Session", "answer_flow", " customer ", "q'\"$1", "", "timestamp"]
)
record = st.builds(
    answer,
    content=st.dictionaries(key, value, max_size=4),
    session=st.sampled_from(["S1", "s1"]),
    customer=st.sampled_from(["C1", "C2"]),
    flow=st.sampled_from(["F1", "f1"]),
    second=st.integers(-1, 1),
)
Hour = tuple[int, int]  # days after DAY, hour
hours = st.tuples(st.integers(0, 1), st.sampled_from([0, 13, 23]))
imports = st.lists(st.tuples(hours, st.lists(record, max_size=12)), min_size=1, max_size=5)


class Session:
    """One session, told answer by answer, in any order."""

    def __init__(self) -> None:
        self.first: dict[str, Any] = {}
        self.last: dict[str, Any] = {}
        self.values: dict[str, str] = {}

    def tell(self, key: str, value: str, when: Any) -> None:
        if key not in self.first or when < self.first[key]:
            self.first[key] = when
        if key not in self.last or when > self.last[key]:
            self.last[key], self.values[key] = when, value


def told(held: dict[Hour, list[dict[str, Any]]], first: Hour, last: Hour) -> dict[tuple[str, str, str], Session]:
    sessions: dict[tuple[str, str, str], Session] = {}
    for hour, records in held.items():
        if first <= hour <= last:
            pairs = [(r, k, v) for r in records for k, v in r["content"].items()]
            for position, (r, k, v) in enumerate(pairs):
                if v.strip():
                    session = sessions.setdefault((r["customer"], r["flow"], r["session"]), Session())
                    session.tell(k, v, (datetime.fromisoformat(r["timestamp"]), hour, position))
    return sessions


def expected_columns(keys: Sequence[str]) -> list[str]:
    """Every key under its own name but those that look like a fixed column; the drawn ones need one or two prefixes."""
    renamed = {"Session": "answer_Session", " customer ": "answer_ customer "}
    renamed["flow"] = "answer_answer_flow" if "answer_flow" in keys else "answer_flow"
    return [renamed.get(key, key) for key in keys]


@settings(max_examples=40)
@given(imports, hours, hours, st.sampled_from([None, "C2"]))
def test_any_answers_against_plain_python(
    files: list[tuple[Hour, list[dict[str, Any]]]], first: Hour, last: Hour, customer: str | None
) -> None:
    held: dict[Hour, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder) / "lake")
        for (day, hour), records in files:
            import_answers(lake, DAY + timedelta(days=day), [hour_file(Path(folder), hour, records)])
            held[day, hour] = records

        begin, end = (HOUR + timedelta(days=day, hours=hour) for day, hour in (first, last))
        tables = flow_tables(lake, begin, end, customer)
        sessions = {s: told for s, told in told(held, first, last).items() if customer in (None, s[0])}
        assert sorted(tables) == sorted({flow for _, flow, _ in sessions})
        for flow, table in tables.items():
            of_flow = {s: session for s, session in sorted(sessions.items()) if s[1] == flow}
            begun: dict[str, Any] = {}
            for session in of_flow.values():
                for k, when in session.first.items():
                    begun[k] = min(when, begun.get(k, when))
            keys = sorted(begun, key=lambda k: begun[k])
            assert table.column_names == [*FIXED, *expected_columns(keys)]
            assert [tuple(row.values()) for row in table.to_pylist()] == [
                (
                    *s,
                    min(session.first.values())[0],
                    max(session.last.values())[0],
                    *(session.values.get(k) for k in keys),
                )
                for s, session in of_flow.items()
            ]

        for day in (0, 1):
            replace_day(lake, DAY + timedelta(days=day))
        assert {
            ((row["answer_date"] - DAY).days, row["customer"], row["flow"], row["session"]): row["answers"]
            for row in rows_of(lake, "chatbot_reports")
        } == {
            (day, *s): [(k, session.values[k]) for k in sorted(session.first, key=lambda k: session.first[k])]
            for day in (0, 1)
            for s, session in told(held, (day, 0), (day, 23)).items()
        }
        assert days_that_differ(lake, 31) == []


def test_an_hour_of_the_inbox_that_is_refused_is_told_until_it_is_taken(lake: Lake, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox" / "chatbot" / f"date={DAY}"
    inbox.mkdir(parents=True)
    for name in ("hour=13.json", "hour=14.json"):
        (inbox / name).write_text("no JSON")
    assert not run_answers(lake, tmp_path, f"{DAY}-13:00", f"{DAY}-14:00").success
    told = {
        (row["source_file"][-12:], row["source_line"], row["reason"]) for row in rows_of(lake, "rejected_file_rows")
    }
    assert told == {("hour=13.json", 0, "file_refused"), ("hour=14.json", 0, "file_refused")}
    for sample in SAMPLES:
        (inbox / sample.name).write_bytes(sample.read_bytes())
    assert run_answers(lake, tmp_path, f"{DAY}-13:00", f"{DAY}-14:00").success
    assert rows_of(lake, "rejected_file_rows") == []
