"""Which customer a record names: pure functions, from bytes to ids and texts.

Belongs here: every way in which a record may name a customer. Doesn't: which records are searched (erase.py), what is
left of a blanked one (redacted_values.py).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

_DECODED_BYTES: Final = 16 * 2**20  # decoding a longer value would take gigabytes
_SEARCHED_BYTES: Final = 2**20  # how much of a value that is not JSON is searched for names
_LONGEST: Final = 8_192  # characters of a name or a message id
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_IDS = range(1, 2**63)
_decode = msgspec.json.Decoder(float_hook=Decimal).decode  # a float would confuse neighbouring long ids

_ESCAPED = re.compile(rb"\\+u00([0-7][0-9a-fA-F])")
# Possessive: a number that is cut off by the end of the value does not count.
_ID = re.compile(rb"(?is)customer[\W_]?id\W{0,20}?([+-]?\d++(?:\.\d++)?+(?:e[+-]?\d++)?+)(?=.)")
_MESSAGE_ID = re.compile(rb'(?is)message[\W_]?id\W{1,20}?"((?:[^"\\]++|\\.)*+)"')
_TEXT = re.compile(rb'"((?:[^"\\]++|\\.)*+)"', re.DOTALL)


@dataclass(frozen=True)
class Named:
    """What a record names: customer ids. Without any: its texts, which may include a customer's name, and message
    ids."""

    ids: frozenset[int]
    texts: frozenset[str] = field(default_factory=frozenset)
    message_ids: frozenset[str] = field(default_factory=frozenset)


def is_of(value: bytes | None, customer_id: int) -> bool:
    """Whether the value of a record names the customer by id, valid or not."""
    return value is not None and customer_id in named_in(value).ids


def named_in(value: bytes) -> Named:
    """What the value names. A valid customer_id decides alone: the message is that customer's, even if it mentions
    others. Otherwise every id in it counts: 101.0, "101", in a list, nested, in text that is not JSON."""
    try:
        if len(value) > _DECODED_BYTES:
            raise msgspec.DecodeError
        document = _decode(value)
    except _UNDECODABLE:
        return _named_in_bytes(value)
    own_id = document.get("customer_id") if isinstance(document, dict) else None
    if isinstance(own_id, int) and id_of(own_id):
        return Named(frozenset({own_id}))
    scalars = list(_scalars(document))
    ids = {found for role, scalar in scalars if role == "id" and (found := id_of(scalar))}
    texts = [(role, scalar) for role, scalar in scalars if isinstance(scalar, str) and len(scalar) <= _LONGEST]
    return Named(
        _ids_in_bytes(value) | ids,
        frozenset(text for _, text in texts),
        frozenset(text for role, text in texts if role == "message"),
    )


def id_of(scalar: Any) -> int | None:
    """The customer's id that a value of JSON or a text spells; None for no such number.

    >>> id_of(101), id_of(Decimal("1.01e2")), id_of(" 0101 "), id_of(True), id_of("101.5"), id_of("1e999999999")
    (101, 101, 101, None, None, None)
    """
    if isinstance(scalar, bool) or not isinstance(scalar, int | Decimal | str):
        return None
    try:
        number = Decimal(scalar.strip()[:64] if isinstance(scalar, str) else scalar)
    except InvalidOperation:
        return None
    if not number.is_finite() or number.adjusted() > 20 or number != number.to_integral_value():
        return None
    return int(number) if int(number) in _IDS else None


def id_of_key(key: bytes | None) -> int | None:
    """The customer's id that a record's key is, as text or as Kafka's own serializers write an integer.

    >>> id_of_key(b"101"), id_of_key(bytes(7) + b"e"), id_of_key(b"key"), id_of_key(None)
    (101, 101, None, None)
    """
    if key is None:
        return None
    if len(key) in (4, 8) and key[0] == 0:
        return int.from_bytes(key) or None
    try:
        return id_of(key.decode().strip('"'))
    except UnicodeDecodeError:
        return None


def has_text(value: bytes | None) -> bool:
    """Whether there is any text or number in the value."""
    try:
        return value is not None and any(
            scalar not in (None, "", True, False) for _, scalar in _scalars(_decode(value))
        )
    except _UNDECODABLE:
        return bool(value and value.strip(b" \0"))


def _scalars(document: Any) -> Iterator[tuple[str, Any]]:
    """Every text, number and the like, with what its field's name makes of it: id, message or nothing."""
    waiting = [("", document)]
    while waiting:
        role, node = waiting.pop()
        if isinstance(node, dict):
            waiting += [(_role(name, role), inner) for name, inner in node.items()]
        elif isinstance(node, list):
            waiting += [(role, inner) for inner in node]
        else:
            yield role, node


def _role(name: str, outer: str) -> str:
    match re.sub("[^a-z]", "", name.lower()):
        case "customerid" | "customer":
            return "id"
        case "id":
            return outer
        case "messageid":
            return "message"
    return ""


def _named_in_bytes(value: bytes) -> Named:
    beginning = value[:_SEARCHED_BYTES]
    texts = {_text(found[1]) for found in _TEXT.finditer(beginning)}
    if len(value) <= _LONGEST:
        texts.add(_text(value.strip()))
    messages = (_text(found[1]) for found in _MESSAGE_ID.finditer(beginning))
    return Named(_ids_in_bytes(value), frozenset(t for t in texts if len(t) <= _LONGEST), frozenset(messages))


def _ids_in_bytes(value: bytes) -> frozenset[int]:
    plain = _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), value)
    spelled = (id_of(found[1].decode()) for found in _ID.finditer(plain))
    return frozenset(found for found in spelled if found)


def _text(inner: bytes) -> str:
    """The text of a JSON string, or the raw text if it is not valid JSON."""
    try:
        return str(msgspec.json.decode(b'"' + inner + b'"'))
    except _UNDECODABLE:
        return inner.decode("utf-8", "replace")
