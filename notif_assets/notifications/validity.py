"""What a valid notification is: the one definition, used by every engine.

Belongs here: the verdict on each message of the topic, from its bytes and its Kafka timestamp alone, and the fixed
list of reasons. Doesn't: duplicates (they need the messages that came before: sql/, duplicates.py).

A message has the same verdict alone and in any batch: each is decoded by itself, and what is done to whole columns
(UTF-8, time stamps) falls back to each message where the column as a whole does not pass.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from notif_assets.core.days import FIRST_DAY
from notif_assets.core.texts import CONTROL_CHARACTER

REASONS: Final[dict[str, str]] = {
    "tombstone": "the record has no value",
    "oversized": "the value is longer than NOTIF_MAX_MESSAGE_BYTES",
    "schema_registry_prefix": "the value begins as a schema registry's serializers write it, not as JSON",
    "not_utf8": "the value is not UTF-8",
    "too_deep": "the value nests deeper than 100 levels",
    "not_json": "the value is not one JSON document",
    "not_an_object": "the JSON is not an object",
    "missing_field": "a field is missing",
    "wrong_type": "a field has the wrong type",
    "empty_field": "message_id, customer_name or channel is empty",
    "control_character": "message_id, customer_name or channel holds a control character (Unicode Cc)",
    "too_long": "message_id, customer_name or channel is longer than 8192 bytes",
    "customer_id_out_of_range": "customer_id is not in 1 … 2⁶³−1",
    "bad_event_datetime": "event_datetime is not ISO 8601 with an offset",
    "event_too_early": "event_datetime lies too long before the Kafka timestamp, or before the first billing day",
    "event_too_late": "event_datetime lies too long after the Kafka timestamp or after our own clock",
    "duplicate": "the message was accepted before",
    "duplicate_conflict": "a message with the same id but another name, channel or payload was accepted before",
}

REPEATED: Final = frozenset({"duplicate", "duplicate_conflict"})
"""The reasons of messages that are accepted already: their rejection loses nothing."""

_PREFIX: Final = b"\0"
_PREFIX_BYTES: Final = 5  # with the id of the schema
_PREFIXED: Final = "byte 0 and a schema id come before the message: the producer must send JSON in UTF-8, without them"

MAX_DEPTH: Final = 100
"""A fixed limit: the decoder's own limit depends on the depth of the calling code."""

Buffer: TypeAlias = bytes | pa.Buffer

OVERSIZED_KEPT: Final = 1024
"""How many bytes rejected_notifications keeps of a value that is longer than NOTIF_MAX_MESSAGE_BYTES."""

MAX_NAME_BYTES: Final = 8192
"""Of message_id, customer_name and channel in UTF-8: keys, pages and bills hold them in memory, many at once."""

NAMES: Final = ("message_id", "customer_name", "channel")
"""The texts that later steps print on lines, write into lists of prices and compare as keys."""

NonEmpty = Annotated[str, msgspec.Meta(min_length=1)]
Instant = Annotated[datetime, msgspec.Meta(tz=True)]
CustomerId = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class Message(msgspec.Struct, gc=False):
    """The six fields of a message. event_datetime stays text here: whole columns of it are converted at once."""

    customer_id: CustomerId
    message_id: NonEmpty
    customer_name: NonEmpty
    channel: NonEmpty
    payload: str
    event_datetime: str


@dataclass(frozen=True)
class Limits:
    """What a deployment may set: bytes of a value, and how far an event may lie from its Kafka timestamp (either way)
    and ahead of `ingested_at`, our own clock; and the instant at which the first billing day begins in its zone.

    `narrow` is false for records that were judged before control characters, long names, events before the first
    billing day and events ahead of our own clock were refused: they keep the verdict that they got then.
    """

    max_bytes: int = 16 * 2**20
    max_age: timedelta = timedelta(days=400)
    max_lead: timedelta = timedelta(hours=24)
    earliest: datetime = datetime(FIRST_DAY.year, FIRST_DAY.month, FIRST_DAY.day, tzinfo=UTC)
    narrow: bool = True


@dataclass(frozen=True)
class Rejection:
    """Why a message is not accepted. `detail` says where to look and holds no value of the message."""

    reason: str
    detail: str = ""
    customer_id: int | None = None
    message_id: str | None = None


REJECTION_COLUMNS: Final = (
    pa.field("reason", pa.string()),
    pa.field("detail", pa.string()),
    pa.field("customer_id", pa.int64()),
    pa.field("message_id", pa.string()),
)

_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_decode = msgspec.json.Decoder(Message).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_TIMESTAMP = pa.timestamp("us", "UTC")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The range in which the tables count hours and days, for any Kafka timestamp: [1970, 9999).
_US = timedelta(microseconds=1)
_END = (datetime(9999, 1, 1, tzinfo=UTC) - _EPOCH) // _US
# The shapes that Arrow and msgspec parse alike. msgspec parses all others.
_COMMON_SHAPE = (
    r"^(19|20)[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
    r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)
# Possessive, and the closing quote optional: a string that never ends costs its length once, not squared.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_SLICE = 8_192


def validate(records: pa.Table, limits: Limits = Limits()) -> tuple[pa.Table, pa.Table]:
    """Splits records into valid messages and rejected ones; every record is in exactly one of the two.

    `records` needs the columns value (binary), kafka_timestamp and ingested_at (timestamp[us, UTC]); its other
    columns are carried along. Valid rows lose `value` and gain the six message fields (event_datetime as a
    timestamp in UTC), rejected ones gain REJECTION_COLUMNS and keep of an oversized value its first KiB. Both keep the
    order of `records`.
    """
    slices = [
        _validate_slice(records.slice(start, _SLICE).combine_chunks(), limits)
        for start in range(0, max(records.num_rows, 1), _SLICE)
    ]
    return pa.concat_tables(valid for valid, _ in slices), pa.concat_tables(rejected for _, rejected in slices)


def _validate_slice(records: pa.Table, limits: Limits) -> tuple[pa.Table, pa.Table]:
    records, rejections = _cut_oversized(records, limits)
    _reject_by_bytes(records["value"], rejections)
    messages, indices = _decoded(records["value"].to_pylist(), rejections)
    instants = _instants([m.event_datetime for m in messages])
    fields = {
        "customer_id": pa.array([m.customer_id for m in messages], pa.int64()),
        "message_id": pa.array([m.message_id for m in messages], pa.string()),
        "customer_name": pa.array([m.customer_name for m in messages], pa.string()),
        "channel": pa.array([m.channel for m in messages], pa.string()),
        "payload": pa.array([m.payload for m in messages], pa.string()),
        "event_datetime": instants,
    }
    times = records.select(["kafka_timestamp", "ingested_at"]).take(pa.array(indices, pa.int64()))
    early, late = _too_early_or_late(instants, times, limits)
    wrong = pc.or_(pc.is_null(instants), pc.or_(early, late)).combine_chunks()
    unfit = _unfit_names(fields) if limits.narrow else {}
    if unfit or pc.any(wrong).as_py():
        off = sorted({*unfit, *pc.indices_nonzero(wrong).to_pylist()})
        for at in off:
            known = (messages[at].customer_id, messages[at].message_id)
            if at in unfit:
                rejection = Rejection(*unfit[at], *known)
            elif not instants[at].is_valid:
                rejection = Rejection("bad_event_datetime", REASONS["bad_event_datetime"], *known)
            else:
                reason = "event_too_early" if early[at].as_py() else "event_too_late"
                rejection = Rejection(reason, REASONS[reason], *known)
            rejections[indices[at]] = rejection
        good = pa.array(np.delete(np.arange(len(messages)), off))
        indices = np.delete(np.array(indices), off).tolist()
        fields = {name: column.take(good) for name, column in fields.items()}

    valid = records.drop_columns(["value"])
    if len(indices) < records.num_rows:
        valid = valid.take(pa.array(indices, pa.int64()))
    for name, column in fields.items():
        valid = valid.append_column(name, column)
    order = sorted(rejections)
    rejected = records.take(pa.array(order, pa.int64()))
    for field in REJECTION_COLUMNS:
        rejected = rejected.append_column(
            field, pa.array([getattr(rejections[index], field.name) for index in order], field.type)
        )
    return valid, rejected


def _too_early_or_late(instants: pa.Array, times: pa.Table, limits: Limits) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Which instants are too early, and which too late; a null is neither."""
    events = pc.cast(instants, pa.int64())
    clock = pc.cast(times["ingested_at"], pa.int64())
    lead = pc.subtract(events, pc.coalesce(pc.cast(times["kafka_timestamp"], pa.int64()), clock))
    max_lead = limits.max_lead // _US
    earliest = (limits.earliest - _EPOCH) // _US if limits.narrow else 0
    early = pc.or_(pc.less(lead, -(limits.max_age // _US)), pc.less(events, earliest))
    late = pc.or_(pc.greater(lead, max_lead), pc.greater_equal(events, _END))
    if limits.narrow:  # a producer's clock that is wrong gives wrong Kafka timestamps too
        late = pc.or_(late, pc.greater(pc.subtract(events, clock), max_lead))
    return pc.fill_null(early, False), pc.fill_null(late, False)


def _unfit_names(fields: dict[str, pa.Array]) -> dict[int, tuple[str, str]]:
    """The places of names that later steps can't carry, each with the reason and the first field that it holds of.

    Whole columns are looked at first: most have no such byte at all.
    """
    found: dict[int, tuple[str, str]] = {}
    for name in NAMES:
        texts = fields[name]
        if _may_hold_control_characters(texts):
            for index, text in enumerate(texts.to_pylist()):
                if CONTROL_CHARACTER.search(text):
                    found.setdefault(index, ("control_character", name))
        length = pc.binary_length(texts)
        if (pc.max(length).as_py() or 0) > MAX_NAME_BYTES:
            for index in pc.indices_nonzero(pc.greater(length, MAX_NAME_BYTES)).to_pylist():
                found.setdefault(index, ("too_long", name))
    return found


def _may_hold_control_characters(texts: pa.Array) -> bool:
    """By the bytes: those below 0x20 and 0x7F are control characters, and U+0080 to U+009F begin with 0xC2."""
    _, offsets, data = texts.buffers()
    if data is None or not len(texts):
        return False
    text = np.frombuffer(data, np.uint8)[: np.frombuffer(offsets, np.int32)[len(texts)]]
    if text.size and (text.min() < 0x20 or (text == 0x7F).any()):
        return True
    after = np.flatnonzero(text[:-1] == 0xC2) + 1
    return bool((text[after] < 0xA0).any())


def _decoded(values: list[bytes], rejections: dict[int, Rejection]) -> tuple[list[Message], list[int]]:
    """The messages among the values but those rejected already, and their places; adds the other rejections.

    Each value is decoded by itself, in one loop that Python does not see: it stops at a value that is no message, which
    gets its second look, and goes on after it.
    """
    messages: list[Message] = []
    skipped: list[int] = []
    for index in rejections:
        values[index] = b""
    coming = iter(values)
    while True:
        try:
            messages.extend(map(_decode, coming))
            break
        except _UNDECODABLE:
            index = len(messages) + len(skipped)
            if index not in rejections:
                outcome = _decode_by_field(values[index])
                if isinstance(outcome, Message):
                    messages.append(outcome)
                    continue
                rejections[index] = outcome
            skipped.append(index)
    if not skipped:
        return messages, list(range(len(values)))
    return messages, np.delete(np.arange(len(values)), skipped).tolist()


def _cut_oversized(records: pa.Table, limits: Limits) -> tuple[pa.Table, dict[int, Rejection]]:
    """The records with values that are too long cut to their first KiB, and the rejections of these, by place.

    Nothing else looks at such a value: it may be hundreds of megabytes. Its hash finds it in raw_notifications.
    """
    values = records["value"]
    too_long = pc.fill_null(pc.greater(pc.binary_length(values), limits.max_bytes), False)
    found = {}
    for index in pc.indices_nonzero(too_long).to_pylist():
        found[index] = oversized(values[index].as_buffer())
    if found:
        cut = pc.if_else(too_long, pc.binary_slice(values, 0, OVERSIZED_KEPT), values)
        records = records.set_column(records.schema.get_field_index("value"), "value", cut)
    return records, found


def oversized(value: Buffer) -> Rejection:
    """The verdict on a value that is longer than it may be: how long it is, and its hash."""
    return Rejection("oversized", f"{len(memoryview(value))} bytes, SHA-256 {hashlib.sha256(value).hexdigest()}")


def _reject_by_bytes(values: pa.ChunkedArray, found: dict[int, Rejection]) -> None:
    """Adds what is wrong with a value before it is decoded, by place: none, prefixed, not UTF-8, too deep."""
    for index in pc.indices_nonzero(pc.is_null(values)).to_pylist():
        found[index] = Rejection("tombstone")
    length = pc.fill_null(pc.binary_length(values), 0)
    prefixed = pc.and_(pc.greater(length, _PREFIX_BYTES), pc.fill_null(pc.starts_with(values, _PREFIX), False))
    for index in pc.indices_nonzero(prefixed).to_pylist():
        found.setdefault(index, Rejection("schema_registry_prefix", _PREFIXED))
    for index in _not_utf8(values):
        found.setdefault(index, Rejection("not_utf8"))
    # Brackets are counted first, in strings too, so that the exact depth is asked of few.
    for index in np.flatnonzero(_brackets(_one_chunk(values)) > MAX_DEPTH).tolist():
        if index not in found and _depth(values[index].as_py()) > MAX_DEPTH:
            found[index] = Rejection("too_deep", f"more than {MAX_DEPTH} levels")


def _one_chunk(values: pa.ChunkedArray) -> pa.BinaryArray:
    return values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()  # which copies even a single chunk


def _brackets(values: pa.BinaryArray) -> npt.NDArray[np.int64]:
    """How many [ and { each value holds, null: 0. Searching substrings takes far longer."""
    _, offsets, data = values.buffers()
    ends = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    if data is None or not len(values):
        return np.zeros(len(values), np.int64)
    text = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]]
    opened = np.concatenate([np.flatnonzero(text == bracket) for bracket in b"[{"])
    return np.bincount(np.searchsorted(ends - ends[0], opened, side="right") - 1, minlength=len(values))


def _not_utf8(values: pa.ChunkedArray) -> list[int]:
    """The places of values that are not UTF-8; they are looked at one by one only if the whole column is not."""
    try:
        values.cast(pa.string())
    except pa.ArrowInvalid:
        return [index for index, value in enumerate(values.to_pylist()) if value is not None and not _is_utf8(value)]
    return []


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _depth(value: bytes) -> int:
    """How deep the JSON nests, brackets in strings not counted."""
    deepest = depth = 0
    for byte in _STRING.sub(b"", value):
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def _decode_by_field(value: bytes) -> Message | Rejection:
    """A repeated key's last value holds, so a message whose *earlier* value was wrong is decoded again, by field."""
    try:
        msgspec.json.decode(value, type=msgspec.Raw)
    except _UNDECODABLE as error:
        return Rejection("not_json", str(error) if isinstance(error, msgspec.MsgspecError) else "")
    try:
        fields = _decode_fields(value)
    except msgspec.ValidationError:
        return Rejection("not_an_object")
    document = {name: _any_value(fields[name]) for name in Message.__struct_fields__ if name in fields}
    try:
        return msgspec.convert(document, Message)
    except msgspec.ValidationError as error:
        return _diagnosis(document, str(error))


def _any_value(value: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(value)
    except msgspec.ValidationError:  # a number like 1e400: JSON, but of no type that a field has
        return None


def _diagnosis(document: dict[str, Any], error: str) -> Rejection:
    customer_id, message_id = document.get("customer_id"), document.get("message_id")
    whole = isinstance(customer_id, int) and not isinstance(customer_id, bool)
    in_range = whole and 1 <= customer_id < 2**63  # type: ignore[operator]
    known = (customer_id if in_range else None, message_id if isinstance(message_id, str) else None)
    for name in Message.__struct_fields__:
        if name not in document:
            return Rejection("missing_field", name, *known)
    for name in Message.__struct_fields__:
        if not (whole if name == "customer_id" else isinstance(document[name], str)):
            return Rejection("wrong_type", name, *known)
    if not in_range:
        return Rejection("customer_id_out_of_range", "customer_id", *known)
    for name in NAMES:
        if not document[name]:
            return Rejection("empty_field", name, *known)
    return Rejection("wrong_type", error, *known)


def _instants(texts: list[str]) -> pa.Array:
    """ISO 8601 texts with an offset → timestamp[us, UTC]; null for anything else."""
    column = pa.array(texts, pa.string())
    common = pc.match_substring_regex(column, _COMMON_SHAPE)
    try:
        instants = pc.if_else(common, column, None).cast(_TIMESTAMP)
    except pa.ArrowInvalid:  # 30 February and the like
        return pa.array([_microseconds(text) for text in texts], pa.int64()).cast(_TIMESTAMP)
    others = pc.indices_nonzero(pc.invert(common)).to_pylist()
    if not others:
        return instants
    parsed = pa.array([_microseconds(texts[at]) for at in others], pa.int64()).cast(_TIMESTAMP)
    return pc.replace_with_mask(instants, pc.invert(common), parsed)


def _microseconds(text: str) -> int | None:
    try:
        instant = msgspec.convert(text, Instant)
    except msgspec.ValidationError:
        return None
    return (instant - _EPOCH) // _US
