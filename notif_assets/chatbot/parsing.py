"""Chatbot answer files: JSON bytes in, one row per answer out; and the names of a flow's columns.

Belongs here: what an answer is, why a record or a value isn't one, what counts as blank, how keys become columns.
Doesn't: which answer is the last (sql/), opening files and partitions (defs/assets/chatbot.py).

The standard library reads the JSON, not msgspec. It gives the position where each record begins. Half a surrogate pair
(an emoji that a chat client cut in two) makes one value invalid here; msgspec would refuse the whole file.
"""

import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, NoReturn

import msgspec
import pyarrow as pa

from notif_assets.inbox.rows import FileRefused, ParsedFile, RowRefused, rejected_table, table_of

ANSWERS_SCHEMA = pa.schema(
    [
        ("answer_date", pa.date32()),
        ("hour", pa.int32()),
        ("customer", pa.string()),
        ("flow", pa.string()),
        ("session", pa.string()),
        ("timestamp", pa.timestamp("us", "UTC")),
        ("key", pa.string()),
        ("value", pa.string()),
        ("source_file", pa.string()),
        ("position", pa.int64()),
    ]
)
"""value is as received, blank or not. position counts the file's key-value pairs from 1, those set aside too."""

GAPS_SCHEMA = pa.schema([*ANSWERS_SCHEMA, ("set_aside", pa.string())])
"""Questions whose answer was set aside, with the reason; value is empty. For a value that is not text, `timestamp` is
the time of the answer. For other reasons that time is unknown, and `timestamp` is the file's hour.
"""

FIXED_COLUMNS = ("customer", "flow", "session", "first_answer_dt", "last_answer_dt")

_LATEST = timedelta(days=1, hours=1)
"""Counted from the beginning of a file's hour. An answer dated later would stay its session's last one."""

_SESSION = ("customer", "flow", "session")
_TEXTS = (*_SESSION, "timestamp")
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


def parse_answers(data: bytes, source_file: str, answer_date: date, hour: int) -> ParsedFile:
    """The answers of one file (ANSWERS_SCHEMA), a JSON array of objects, and what was set aside.

    A record needs customer, flow, session (non-empty texts), timestamp (ISO 8601 with an offset, a day after the file's
    hour at the latest) and content (an object); other fields are ignored, a repeated key's last value holds. A bad
    record is set aside whole; a value that is no text costs only its own pair. source_line is the line where the record
    begins. The gaps are the set-aside answers whose session and question are known. A null is not an answer.

    Raises FileRefused when the file is empty, not UTF-8, not JSON, nested too deeply to read, or no array.
    """
    begins = datetime(answer_date.year, answer_date.month, answer_date.day, hour, tzinfo=UTC)
    rows: list[tuple[Any, ...]] = []
    gaps: list[tuple[Any, ...]] = []
    rejected: list[tuple[int, RowRefused]] = []
    position = 0
    for line, record in _records(data, source_file):
        content = record.get("content") if isinstance(record, dict) else None
        first = position + 1
        position += len(content) if isinstance(content, dict) else 0
        try:
            customer, flow, session, timestamp, pairs = _record(record)
            if timestamp - begins > _LATEST:
                raise RowRefused("too_late", "timestamp: more than a day after the hour of the file")
        except RowRefused as why:
            rejected.append((line, why))
            gaps += ((answer_date, hour, *gap) for gap in _gaps_of(record, begins, why.reason, source_file, first))
            continue
        for index, (key, value) in enumerate(pairs.items(), start=first):
            question = (answer_date, hour, customer, flow, session, timestamp, key)
            if text_problem := _text_problem(key, value):
                rejected.append((line, RowRefused("value_not_text", f"pair {index} of the file: {text_problem}")))
                if value is not None and _is_unicode(key):
                    gaps.append((*question, "", source_file, index, "value_not_text"))
            else:
                rows.append((*question, value, source_file, index))
    taken, missing = table_of(rows, ANSWERS_SCHEMA), table_of(gaps, GAPS_SCHEMA)
    return ParsedFile(taken, rejected_table(source_file, rejected), missing)


def _text_problem(key: str, value: object) -> str | None:
    if not isinstance(value, str):
        return "the value is no text"
    return None if _is_unicode(key) and _is_unicode(value) else "half a surrogate pair"


def _gaps_of(
    record: object, begins: datetime, reason: str, source_file: str, first: int
) -> Iterator[tuple[str, str, str, datetime, str, str, str, int, str]]:
    """The answers of a record that is set aside whole, without date and hour; `first` is its position."""
    if not isinstance(record, dict) or not isinstance(record.get("content"), dict):
        return
    session = [record.get(name) for name in _SESSION]
    if any(not isinstance(text, str) or not text or not _is_unicode(text) for text in session):
        return
    customer, flow, name = map(str, session)
    for index, (key, value) in enumerate(record["content"].items(), start=first):
        if _is_unicode(key) and value is not None and not (isinstance(value, str) and not value.strip()):
            yield customer, flow, name, begins, key, "", source_file, index, reason


def _record(record: object) -> tuple[str, str, str, datetime, dict[str, object]]:
    if not isinstance(record, dict):
        raise RowRefused("not_an_object", "want an object with customer, flow, session, timestamp and content")
    for field in (*_TEXTS, "content"):
        if field not in record:
            raise RowRefused("missing_field", f"{field} is missing")
    for field in _TEXTS:
        value = record[field]
        if not isinstance(value, str) or not _is_unicode(value):
            raise RowRefused("wrong_type", f"{field} is no text")
        if not value:
            raise RowRefused("empty_field", f"{field} is empty")
    if not isinstance(record["content"], dict):
        raise RowRefused("wrong_type", "content is no object")
    try:
        moment = msgspec.convert(record["timestamp"], _Moment).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):  # the year 1 or 9999, moved past its end by its offset
        raise RowRefused(
            "bad_timestamp", "timestamp: want ISO 8601 with an offset, like 2019-12-16T13:59:58+00:00"
        ) from None
    return record["customer"], record["flow"], record["session"], moment, record["content"]


def _is_unicode(text: str) -> bool:
    """False for text with half a surrogate pair: JSON can escape it, UTF-8 can't hold it."""
    return text.isascii() or not re.search("[\ud800-\udfff]", text)


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError


_LF = "\n"
_SPACE = re.compile(r"[ \t\r\n]*")


def _records(data: bytes, source_file: str) -> Iterator[tuple[int, object]]:
    """The elements of the top-level array, each with the physical line (from 1) where it begins."""
    # No number is used. float accepts any number of digits; int would refuse long ones.
    read = json.JSONDecoder(parse_int=float, parse_constant=_refuse_constant).raw_decode
    text, at, line, counted = "", 0, 1, 0
    try:
        text = data.decode("utf-8-sig")
        at = _skip_space(text, 0)
        if at < len(text) and text[at] == "[":
            at = _skip_space(text, at + 1)
            more = text[at : at + 1] != "]"
            while more:
                line, counted = line + text.count("\n", counted, at), at
                record, at = read(text, at)
                yield line, record
                at = _skip_space(text, at)
                more = text[at : at + 1] == ","
                at = _skip_space(text, at + 1) if more else at
            if text[at : at + 1] == "]" and _skip_space(text, at + 1) == len(text):
                return
            problem = f"not JSON (line {text.count(_LF, 0, at) + 1})"
        else:
            problem = "empty" if at == len(text) else "not a JSON array at the top level"
    except UnicodeDecodeError:
        problem = "not UTF-8"
    except RecursionError:
        problem = f"nested too deeply to read (the record that begins in line {line})"
    except ValueError as error:
        index = error.pos if isinstance(error, json.JSONDecodeError) else at
        problem = f"not JSON (line {text.count(_LF, 0, index) + 1})"
    # Raised outside the handler, so that no chained error holds the file's text.
    raise FileRefused(f"{source_file}: {problem}; want a JSON array of objects, in UTF-8")


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match  # the pattern also matches an empty text
    return match.end()


def column_names(keys: Sequence[str]) -> dict[str, str]:
    """Each key's column in a flow's table, in the order of `keys`: the key itself, unless it looks like a fixed column.

    A key that equals a fixed column's name, ignoring case and blanks around it, becomes `answer_<key>`. It is prefixed
    again while that is another key. Names are unique, and every other key stays as it is.

    >>> column_names(["cpf", "Customer", "answer_Customer"])
    {'cpf': 'cpf', 'Customer': 'answer_answer_Customer', 'answer_Customer': 'answer_Customer'}
    """
    names: dict[str, str] = {}
    taken = set(keys)
    for key in keys:
        name = key
        if key.strip().casefold() in FIXED_COLUMNS:
            # No two of these are equal: without their prefixes they are different keys, and no key begins with a
            # prefix.
            name = f"answer_{key}"
            while name in taken:
                name = f"answer_{name}"
        names[key] = name
    return names
