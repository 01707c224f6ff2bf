"""Answer files to chatbot_answers, and answers to reports: per day, and per flow over any hours.

Belongs here: which earlier answers an import replaces, the one path that consolidates answers, and an independent
calculation that checks it. Doesn't: reading a record of a file (parsing.py), which answer is the last (sql/), when it
runs (defs/assets/). Answers are personal data: nothing here logs one, and errors name positions only.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from notif_assets.chatbot.parsing import FIXED_COLUMNS, column_names, parse_answers
from notif_assets.core.days import days_between
from notif_assets.core.texts import BLANK_CHARACTERS, quote_odd
from notif_assets.inbox.listing import hour_of_file_name
from notif_assets.inbox.rows import ParsedFile
from notif_assets.inbox.source_files import MOST_BYTES, read_file, set_aside
from notif_assets.lake import SCHEMAS, Lake, Scan, sql_literal, until_committed
from notif_assets.lake.tables import Table

# The user's document, question 3: the report on hours 13 and 14 of 16 December 2019, flow by flow.
EXAMPLE_DAY = date(2019, 12, 16)
EXAMPLE_HOURS = (13, 14)
EXAMPLE_FLOWS = {
    "F1000": [
        "customer flow session first_answer_dt last_answer_dt name cpf delivery_confirmed",
        "C1000 F1000 S1000 2019-12-16T13:59:58 2019-12-16T14:00:01 maria 305.584.960-40 true",
        "C1000 F1000 S2000 2019-12-16T13:59:59 2019-12-16T14:00:00 joao 733.600.420-26 false",
    ],
    "F2000": [
        "customer flow session first_answer_dt last_answer_dt recomenda nota",
        "C2000 F2000 S3000 2019-12-16T13:59:59 2019-12-16T14:00:01 Simmmmmmm 9",
    ],
}


def source_file_of(answer_date: date, hour: int) -> str:
    """Where a file of answers belongs, under the inbox's `chatbot` folder; its name in every table.

    >>> source_file_of(date(2019, 12, 16), 7)
    'date=2019-12-16/hour=07.json'
    """
    return f"date={answer_date}/hour={hour:02}.json"


def files_by_hour(paths: Iterable[Path]) -> dict[int, Path]:
    """The files by their hours. Raises ValueError for a file of another name, and for two files of one hour."""
    hours: dict[int, Path] = {}
    for path in paths:
        other = hours.setdefault(hour_of_file_name(path.name), path)
        if other.absolute() != path.absolute():
            raise ValueError(
                f"two of the files are of one hour: {quote_odd(other)} and {quote_odd(path)}; one would "
                "replace the other"
            )
    return hours


def import_hours(
    lake: Lake,
    answer_date: date,
    paths: Mapping[int, Path],
    inside: Path | None = None,
    most: int = MOST_BYTES,
) -> ParsedFile:
    """Imports the files of these hours of one day: each replaces its hour's answers.

    Gives the answers that were taken and the records and values that were set aside. All answers taken come in one
    commit, after those set aside; importing again leaves the same rows. Raises FileRefused, before anything is
    written, if a file can't be taken, and ValueError if there is none. `inside` and `most` as for `opened`.
    """
    if not paths:
        raise ValueError("no file of answers to import")
    names = {hour: source_file_of(answer_date, hour) for hour in sorted(paths)}
    parsed = [
        parse_answers(read_file(paths[hour], inside, most), name, answer_date, hour) for hour, name in names.items()
    ]
    rows, rejected, gaps = (
        pa.concat_tables(getattr(file, part) for file in parsed) for part in ("rows", "rejected", "gaps")
    )
    set_aside(lake, names.values(), rejected)
    where = f"answer_date = {sql_literal(answer_date)} and hour in ({', '.join(map(sql_literal, names))})"
    collected = pa.concat_tables([SCHEMAS["chatbot_answers"].complete(rows), gaps])
    until_committed(lambda: lake.table("chatbot_answers").replace(collected, where))
    return ParsedFile(rows, rejected, gaps)


def sessions(lake: Lake, answers: pa.Table | Scan, customer: str | None = None, flow: str | None = None) -> pa.Table:
    """The one path that consolidates answers, for the table, the report and the check on the document's example.

    One row per session of `customer` and `flow` (None: all), with the columns of chatbot_reports. A question whose last
    answer was set aside has the value null, even if an earlier answer is valid.
    """
    return lake.select(
        "chatbot_reports",
        inputs={"answers": _complete(answers)},
        blank_characters=BLANK_CHARACTERS,
        customer=customer,
        flow=flow,
    )


def _complete(answers: pa.Table | Scan) -> pa.Table | Scan:
    return answers if isinstance(answers, Scan) else SCHEMAS["chatbot_answers"].complete(answers)


def replace_day(lake: Lake, answer_date: date) -> pa.Table:
    """Computes one day of chatbot_reports and commits it; gives its rows."""

    def attempt() -> pa.Table:
        # Opened before its input: a writer that read older answers loses the race.
        table = lake.table("chatbot_reports")
        rows = sessions(lake, _day(lake.table("chatbot_answers"), answer_date))
        table.replace(rows, where=f"answer_date = {sql_literal(answer_date)}")
        return rows

    return until_committed(attempt)


def _day(table: Table, answer_date: date) -> Scan:
    return table.scan(answer_date=(answer_date, answer_date + timedelta(days=1)))


def flow_tables(
    lake: Lake, first_hour: datetime, last_hour: datetime, customer: str | None = None, flow: str | None = None
) -> dict[str, pa.Table]:
    """The final table of each flow, over the answer files from `first_hour` to `last_hour`, both included.

    customer, flow, session, first_answer_dt, last_answer_dt, then a column per question in the order of first non-blank
    answers; a row per session by customer, flow, session. Only flows with a session in it, by name. The hours are those
    of the files' names (UTC); `customer` and `flow` of None mean all.
    """
    table = lake.table("chatbot_answers")
    first, last = ((moment.date(), moment.hour) for moment in (first_hour, last_hour))
    hours = {hour for hour in table.scan().partitions if first <= hour <= last}
    return flow_tables_of(lake, table.scan(partitions=hours), customer, flow)


def hours_without_answers(lake: Lake, first_hour: datetime, last_hour: datetime) -> list[datetime]:
    """The hours from `first_hour` to `last_hour`, both included, that have no answer in the lake."""
    stored = lake.table("chatbot_answers").scan().partitions
    number = (last_hour - first_hour) // timedelta(hours=1) + 1
    hours = (first_hour + n * timedelta(hours=1) for n in range(number))
    return [hour for hour in hours if (hour.date(), hour.hour) not in stored]


def days_without_answers(lake: Lake, first: date, last: date) -> list[date]:
    """The days from `first` to `last`, both included, that have no answer in the lake."""
    stored = {day for day, _ in lake.table("chatbot_answers").scan().partitions}
    return [day for day in days_between(first, last) if day not in stored]


def flow_tables_of(
    lake: Lake, answers: pa.Table | Scan, customer: str | None = None, flow: str | None = None
) -> dict[str, pa.Table]:
    """As flow_tables, of the answers given."""
    rows = sessions(lake, answers, customer, flow)
    keys = lake.select(
        "chatbot_flow_keys",
        inputs={"answers": _complete(answers)},
        blank_characters=BLANK_CHARACTERS,
        customer=customer,
        flow=flow,
    )
    keys_of: dict[str, list[str]] = {}
    for row in keys.to_pylist():
        keys_of.setdefault(row["flow"], []).append(row["key"])
    return {name: _pivot(rows.filter(pc.equal(rows["flow"], name)), flow_keys) for name, flow_keys in keys_of.items()}


def _pivot(rows: pa.Table, keys: Sequence[str]) -> pa.Table:
    columns = {name: rows[name] for name in FIXED_COLUMNS}
    for key, column in column_names(keys).items():
        columns[column] = pc.map_lookup(rows["answers"], pa.scalar(key), "first")
    return pa.table(columns)


def is_known(lake: Lake, customer: str | None, flow: str | None) -> bool:
    """Whether any hour has an answer, blank or not, of this customer and this flow (None: of any)."""
    answers = {"answers": lake.table("chatbot_answers").scan()}
    return bool(lake.select("chatbot_flow_known", inputs=answers, customer=customer, flow=flow).num_rows)


def example_flow_differences(lake: Lake) -> list[str]:
    """The document's flows whose table the deployed code doesn't reproduce from the document's files."""
    samples = files("notif_assets") / "samples"
    parsed = [
        parse_answers((samples / f"hour={hour:02}.json").read_bytes(), f"hour={hour:02}.json", EXAMPLE_DAY, hour)
        for hour in EXAMPLE_HOURS
    ]
    tables = flow_tables_of(lake, pa.concat_tables(file.rows for file in parsed))
    got = {flow: [" ".join(table.column_names), *map(_line, table.to_pylist())] for flow, table in tables.items()}
    return sorted(flow for flow in EXAMPLE_FLOWS.keys() | got.keys() if EXAMPLE_FLOWS.get(flow) != got.get(flow))


def _line(row: dict[str, Any]) -> str:
    return " ".join(f"{cell:%Y-%m-%dT%H:%M:%S}" if isinstance(cell, datetime) else str(cell) for cell in row.values())


def days_that_differ(lake: Lake, newest: int) -> list[date]:
    """The days of chatbot_reports that an independent calculation in plain Python finds wrong or missing.

    It checks the `newest` days written last, in either table.
    """
    answers, reports = lake.table("chatbot_answers"), lake.table("chatbot_reports")
    wrong = []
    for day in _last_written_days((answers, reports), newest):
        want = consolidate(lake.rows(_day(answers, day)).to_pylist())
        got = lake.rows(_day(reports, day)).to_pylist()
        by_session = {
            (row["customer"], row["flow"], row["session"]): (
                row["first_answer_dt"],
                row["last_answer_dt"],
                list(row["answers"]),
            )
            for row in got
        }
        if by_session != want or len(got) != len(want):
            wrong.append(day)
    return sorted(wrong)


def _last_written_days(tables: Iterable[Table], newest: int) -> list[date]:
    written: dict[date, Any] = {}
    for table in tables:
        files_of = table.files()
        if files_of.num_rows:
            days, times = files_of["partition.answer_date"].to_pylist(), files_of["modification_time"].to_pylist()
            for day, time in zip(days, times, strict=True):
                written[day] = max(time, written.get(day, time))
    return sorted(written, key=lambda day: (written[day], day), reverse=True)[:newest]


Consolidated = dict[tuple[str, str, str], tuple[datetime, datetime, list[tuple[str, str | None]]]]


def consolidate(answers: Iterable[dict[str, Any]]) -> Consolidated:
    """The last non-blank answers of each session, without SQL: first and last moment, and (key, value) in order.

    The value is None where the last answer was set aside. A set-aside answer of unknown time counts as the last one.
    """
    collected: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in sorted(answers, key=_order_key):
        if row["set_aside"] or row["value"].strip():
            collected.setdefault((row["customer"], row["flow"], row["session"]), []).append(row)
    found: Consolidated = {}
    for session, rows in collected.items():
        times = [row["timestamp"] for row in rows if not _has_no_time(row)]
        if times:
            last = {row["key"]: None if row["set_aside"] else row["value"] for row in rows}
            found[session] = (times[0], times[-1], list(last.items()))
    return found


def _has_no_time(answer: dict[str, Any]) -> bool:
    return answer["set_aside"] not in (None, "value_not_text")


def _order_key(answer: dict[str, Any]) -> tuple[Any, ...]:
    return (_has_no_time(answer), *(answer[name] for name in ("timestamp", "answer_date", "hour", "position")))
