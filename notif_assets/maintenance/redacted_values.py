"""What is left of personal data once it is blanked: pure functions, from bytes to bytes and from column to column.

Belongs here: the words that replace names, and how a message loses payload and name but keeps its verdict. Doesn't:
which rows are blanked (redaction.py).

A rebuild of silver from blanked records must reach the same verdicts: valid stays valid, a duplicate stays a duplicate,
a conflict stays a conflict, and every rejected message keeps its reason.
"""

import re
from typing import Any, Final

import msgspec
import pyarrow as pa

from notif_assets.core.texts import CONTROL_CHARACTER
from notif_assets.maintenance.attribution import has_text
from notif_assets.notifications.validity import (
    MAX_DEPTH,
    MAX_NAME_BYTES,
    OVERSIZED_KEPT,
    Limits,
    Message,
    oversized,
    validate,
)

NAME: Final = "apagado"
"""Replaces a name: an empty name would make a message invalid."""

CONFLICTING_NAME: Final = "apagado (conflito)"
"""Replaces the name of a message rejected as a conflict, so that it still differs from the first one."""

ANSWER: Final = "apagado"
"""Replaces a chatbot answer: a blank answer would remove its session from the reports."""

_REPLACEMENTS: Final[dict[str, bytes | None]] = {
    "schema_registry_prefix": bytes(6),
    "not_utf8": b"\xff",
    "too_deep": b"[" * (MAX_DEPTH + 1),
    "not_json": b"apagado",
    "not_an_object": b"[]",
}
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def is_blank(value: bytes | None) -> bool:
    """Whether a record holds no personal data: it is empty, or already blanked."""
    if value in _REPLACEMENTS.values() or not has_text(value):
        return True
    return value is not None and value == _blanked(value, len(value), conflicting=False)


def blank_records(records: pa.Table, conflicting: pa.ChunkedArray, limits: Limits) -> tuple[pa.Array, pa.Array]:
    """The records' values without payloads and names, and the detail of the verdict on them (null where accepted).

    `records` needs value, kafka_timestamp and ingested_at; `conflicting` says which were rejected as
    duplicate_conflict. A value that can't be blanked without another verdict becomes null.
    """
    before = _verdicts(records, limits)
    values = [
        _blanked(value, limits.max_bytes, conflict)
        for value, conflict in zip(records["value"].to_pylist(), conflicting.to_pylist(), strict=True)
    ]
    after = _verdicts(_with_values(records, values), limits)
    for replacements in (_REPLACEMENTS, {}):
        off = [index for index, verdict in enumerate(after) if verdict[:3] != before[index][:3]]
        for index in off:
            values[index] = replacements.get(before[index][0] or "")
        if off:
            after = _verdicts(_with_values(records, values), limits)
    return pa.array(values, pa.binary()), pa.array([verdict[3] for verdict in after], pa.string())


def _blanked(value: bytes | None, max_bytes: int, conflicting: bool) -> bytes | None:
    """The message without payload and name; null for what is no JSON."""
    if value is None:
        return None
    if len(value) > max_bytes:  # an oversized value must stay oversized; its content is not read
        return b" " * len(value)
    try:
        document = msgspec.json.decode(value)
        # Unknown fields may hold personal data, so they are removed.
        fields = Message.__struct_fields__ if isinstance(document, dict) else ()
        return msgspec.json.encode({f: _field(f, document[f], conflicting) for f in fields if f in document})
    except (*_UNDECODABLE, OverflowError):
        return None


def blank_oversized(details: pa.ChunkedArray) -> tuple[pa.Array, pa.Array]:
    """What rejected_notifications keeps of oversized messages once they are blanked: the first bytes and the details.

    `details` says how long each value was; it is ignored where it says no length (another reason's). The outcome is
    the verdict on as many spaces, which is what raw_notifications holds then.
    """
    values, blanked = [], []
    for detail in details.to_pylist():
        length = re.match(r"(\d+) bytes", detail)
        values.append(b" " * min(int(length[1]), OVERSIZED_KEPT) if length else None)
        blanked.append(oversized(b" " * int(length[1])).detail if length else detail)
    return pa.array(values, pa.binary()), pa.array(blanked, pa.string())


def _field(name: str, value: Any, conflicting: bool) -> Any:
    if isinstance(value, dict | list):
        return type(value)()
    if name == "customer_id" and isinstance(value, str):
        return value if value.isdecimal() else ""
    if name == "payload":
        return "" if isinstance(value, str) else value and type(value)()
    if name == "customer_name" and value:
        if not isinstance(value, str):
            return type(value)()
        return _replacement(value, CONFLICTING_NAME if conflicting or value.strip() == CONFLICTING_NAME else NAME)
    return value


def _replacement(name: str, word: str) -> str:
    """The word, with the same fault as the name (a control character, too long), so that the verdict stays the same."""
    if CONTROL_CHARACTER.search(name):
        word += "\n"
    return word.ljust(MAX_NAME_BYTES + 1) if len(name.encode()) > MAX_NAME_BYTES else word


Verdict = tuple[str | None, int | None, str | None, str | None]


def _verdicts(records: pa.Table, limits: Limits) -> list[Verdict]:
    """Reason, customer, message and detail of each record, in their order; all None for a valid one."""
    wanted = records.select(["value", "kafka_timestamp", "ingested_at"])
    wanted = wanted.append_column("place", pa.array(range(records.num_rows), pa.int64()))
    found: list[Verdict] = [(None, None, None, None)] * records.num_rows
    for row in (
        validate(wanted, limits)[1].select(["place", "reason", "customer_id", "message_id", "detail"]).to_pylist()
    ):
        found[row["place"]] = (row["reason"], row["customer_id"], row["message_id"], row["detail"])
    return found


def _with_values(records: pa.Table, values: list[bytes | None]) -> pa.Table:
    return records.set_column(records.schema.get_field_index("value"), "value", pa.array(values, pa.binary()))
