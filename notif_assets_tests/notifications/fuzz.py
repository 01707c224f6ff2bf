"""`python -m notif_assets_tests.notifications.fuzz --inputs N`: whatever bytes arrive, each message has one verdict.

Belongs here: making hostile messages out of the corpus, and what must hold of the verdicts on them. Doesn't: what the
verdict on a given message is (test_validity.py, and the corpus itself).

Every input is judged twice, each time in a batch with other neighbours at another place, and held against the rules
as plain Python tells them; some are judged alone too. A batch is made from the seed and its own number, so a finding is
repeated by --seed and, to come to it at once, --first with the number of the batch before.
"""

import argparse
import re
import time
from ast import literal_eval
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from random import Random

import pyarrow as pa

from notif_assets.notifications.validity import Limits, validate
from notif_assets_tests.streams import NOON, Bounds, fields, message, verdict

CORPUS = Path(__file__).parent / "corpus.txt"
BATCH = 6_000
_ALONE = 20  # of each batch
_NEIGHBOURS = 500
_MAX_BYTES = 10_000
_LIMITS, _BOUNDS = Limits(max_bytes=_MAX_BYTES), Bounds(max_bytes=_MAX_BYTES)
_SCHEMA = pa.schema(
    [
        ("value", pa.binary()),
        ("kafka_timestamp", pa.timestamp("us", "UTC")),
        ("ingested_at", pa.timestamp("us", "UTC")),
        ("place", pa.int64()),
    ]
)
_OURS = NOON + timedelta(hours=1)  # our own clock when the messages are taken
_STAMPS: tuple[datetime | None, ...] = (
    *[NOON] * 12,
    None,
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC),
    NOON + timedelta(days=399),
    NOON - timedelta(hours=25),
    datetime(2015, 1, 2, tzinfo=UTC),
    NOON + timedelta(hours=30),
    NOON + timedelta(milliseconds=1),
)
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|[A-Za-z]+|\s+|.', re.DOTALL)
_TOKENS = (
    *(b'"%s"' % name.encode() for name in fields()),
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b" ", b"\t", b"\r\n", b"\0", b"/**/", b"//", b"\xef\xbb\xbf"),
    *(b"null", b"true", b"false", b"NaN", b"Infinity", b"-Infinity", b"nul", b"True", b"None", b"{}", b"[]", b'""'),
    *(b"0", b"-0", b"00", b"1", b"-1", b"1.0", b"1.", b".5", b"1e2", b"1E+2", b"1e", b"+1", b"0x1", b"1_0", b"1e400"),
    *(b"9223372036854775807", b"9223372036854775808", b"-9223372036854775809", b"18446744073709551616", b"9" * 40),
    *(b'"\\ud800"', b'"\\udc00"', b'"\\ud83d\\ude00"', b'"\\u0000"', b'"\\u00"', b'"\\x41"', b'"\\/"', b'"\x7f"'),
    *(b'"\\n"', b'"a\\u0085"', b'"\xc2\x80"', b'"\xc2\xa0"', b'"%s"' % (b"x" * 8193)),
    *(b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\xf0\x9f\x98\x80"', b'"\xe2\x80\xa8"', b'"\xc3\xa9"'),
    *(
        b'"\x01"',
        b'"\n"',
        b'"customer\\u005fid"',
        b'"Customer_ID"',
        b'"a\\"b"',
        b'"\\\\"',
        b"'x'",
        b'"%s"' % b"x" * 400,
    ),
    *(
        b'"%s"' % text
        for text in (
            b"2020-02-03T12:00:00Z",
            b"2020-02-03t12:00:00.1234567z",
            b"2020-02-03 09:00:00.999999999-03:00",
            b"2020-02-30T12:00:00Z",
            b"2020-02-29T23:59:59.999999+23:59",
            b"2020-02-03T12:00:60Z",
            b"2020-02-03T12:00:00",
            b"2020-02-03T12:00:00+0545",
            b"2020-02-04T12:00:00.000001Z",
            b"2020-02-04T13:00:00.000001Z",
            b"2018-12-30T12:00:00Z",
            b"2014-12-31T23:59:59.999999Z",
            b"2015-01-01T00:00:00Z",
            b"1969-12-31T23:59:59.9999999Z",
            b"9999-12-31T23:59:59-23:59",
            b"0001-01-01T00:00:00+23:59",
            b"0000-01-01T00:00:00Z",
            "２０２０-02-03T12:00:00Z".encode(),
        )
    ),
)
_LETTERS = b'01234567890123456789:-+.,TtZz \\"{}[]eEu/\x00\x1f\x7f'

Input = tuple[bytes | None, datetime | None]


class Finding(AssertionError):
    """A rule is broken; the message says by which input."""


@dataclass
class Outcome:
    """What was tried, and the verdicts by reason."""

    inputs: int = 0
    batches: int = 0
    alone: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)


def corpus() -> list[tuple[str, bytes | None]]:
    """Every message of the corpus with its verdict at NOON."""
    lines = CORPUS.read_text(encoding="ascii").splitlines()
    found = [line.split(" ", 1) for line in lines if line and not line.startswith("#")]
    return [(expected, literal_eval(value)) for expected, value in found]


def fuzz(seed: int, inputs: int | None = None, seconds: float | None = None, first: int = 0) -> Iterator[Outcome]:
    """Tries batches until there were as many inputs, or for so long; gives the sums after each. Raises Finding."""
    seeds = [_TOKEN.findall(value) for _, value in corpus() if value]
    seeds += [_TOKEN.findall(message())] * (len(seeds))
    outcome, stop = Outcome(), None if seconds is None else time.monotonic() + seconds
    before: Sequence[Input] = ()
    while (inputs is None or outcome.inputs < inputs) and (stop is None or time.monotonic() < stop):
        number = first + outcome.batches
        chance = Random(f"{seed}/{number}")
        size = chance.choice((1, 7, BATCH, BATCH, BATCH, BATCH, 2 * BATCH))
        batch = [(_hostile(chance, seeds), chance.choice(_STAMPS)) for _ in range(size)]
        try:
            outcome.verdicts.update(_verdicts(chance, batch, before))
        except Finding as finding:
            raise Finding(f"batch {number} of seed {seed}: {finding}") from finding.__cause__
        outcome.batches += 1
        outcome.inputs += size
        outcome.alone += min(size, _ALONE)
        before = batch[:_NEIGHBOURS]
        yield outcome


def _verdicts(chance: Random, batch: Sequence[Input], neighbours: Sequence[Input]) -> list[str]:
    """The verdict on each input of the batch, the same wherever it stands."""
    told = _judged(chance, batch)
    for (value, stamp), found in zip(batch, told, strict=True):
        try:
            plain = verdict(value, stamp, _BOUNDS, _OURS)
        except BaseException as error:
            raise Finding(f"{value!r} at {stamp}: the plain rules raise {error!r}") from error
        if found != (plain if isinstance(plain, str) else tuple(plain.values())):
            raise Finding(f"{value!r} at {stamp}: judged {found}, by the plain rules {plain}")
    moved = list(range(len(batch) + len(neighbours)))
    chance.shuffle(moved)
    everything = [*batch, *neighbours]
    again = _judged(chance, [everything[at] for at in moved])
    for at, found in zip(moved, again, strict=True):
        if at < len(batch) and found != told[at]:
            raise Finding(f"{batch[at]!r}: judged {told[at]}, and {found} among others")
    for at in chance.sample(range(len(batch)), min(_ALONE, len(batch))):
        (alone,) = _judged(chance, [batch[at]])
        if alone != told[at]:
            raise Finding(f"{batch[at]!r}: judged {told[at]}, and {alone} alone")
    return [found if isinstance(found, str) else "valid" for found in told]


def _judged(chance: Random, batch: Sequence[Input]) -> list[str | tuple[object, ...]]:
    """The reason, or the fields, of each input, once each; the table has chunks as a scan would give it."""
    table = pa.table(
        [
            pa.array([value for value, _ in batch], pa.binary()),
            pa.array([stamp for _, stamp in batch], _SCHEMA.field("kafka_timestamp").type),
            pa.repeat(pa.scalar(_OURS, _SCHEMA.field("ingested_at").type), len(batch)),
            pa.array(range(len(batch))),
        ],
        schema=_SCHEMA,
    )
    cuts = sorted(chance.choices(range(len(batch) + 1), k=chance.choice((0, 0, 1, 3))))
    table = pa.concat_tables(table.slice(start, end - start) for start, end in pairwise([0, *cuts, len(batch)]))
    try:
        valid, rejected = validate(table, _LIMITS)
    except BaseException as error:
        if len(batch) == 1:
            raise Finding(f"{batch[0]!r}: judge raises {error!r}") from error
        half = len(batch) // 2  # to name the one that it is
        _judged(chance, batch[:half])
        _judged(chance, batch[half:])
        raise Finding(f"judge raises {error!r} on these {len(batch)} together only") from error
    found: list[str | tuple[object, ...] | None] = [None] * len(batch)
    for place, reason in zip(rejected["place"].to_pylist(), rejected["reason"].to_pylist(), strict=True):
        if found[place] is not None:
            raise Finding(f"{batch[place]!r}: rejected twice")
        found[place] = reason
    columns = [valid[name].to_pylist() for name in fields()]
    for place, row in zip(valid["place"].to_pylist(), zip(*columns, strict=True), strict=True):
        if found[place] is not None:
            raise Finding(f"{batch[place]!r}: accepted, and {found[place]}")
        found[place] = row
    if None in found:
        raise Finding(f"{batch[found.index(None)]!r}: no verdict")
    return found  # type: ignore[return-value]


# --- hostile messages -----------------------------------------------------------------------------------------------


def _hostile(chance: Random, seeds: Sequence[list[bytes]]) -> bytes | None:
    """A message of the corpus with a few tokens, then perhaps a few bytes, changed."""
    luck = chance.random()
    if luck < 0.002:
        return None
    if luck < 0.02:
        return chance.randbytes(int(chance.expovariate(0.05)))
    tokens = list(chance.choice(seeds))
    for _ in range(chance.choice((0, 1, 1, 1, 1, 2, 3))):
        _change_token(chance, tokens, seeds)
    value = b"".join(tokens)
    if luck < 0.1:
        for _ in range(chance.choice((1, 1, 3))):
            value = _change_bytes(chance, value)
    return value


def _change_token(chance: Random, tokens: list[bytes], seeds: Sequence[list[bytes]]) -> None:
    at = int(chance.random() * len(tokens))
    what = chance.random()
    if not tokens or what < 0.1:
        tokens.insert(at, chance.choice(_TOKENS))
    elif what < 0.35:
        tokens[at] = chance.choice(_TOKENS)
    elif what < 0.75:
        # Mostly of texts and numbers: what lies between them is quickly no JSON any more.
        solid = [i for i, token in enumerate(tokens) if len(token) > 1]
        at = chance.choice(solid) if solid else at
        quote = b'"' if tokens[at][:1] == b'"' and chance.random() < 0.9 else b""
        inner = tokens[at][len(quote) : len(tokens[at]) - len(quote)]
        tokens[at] = quote + _change_bytes(chance, inner) + quote
    elif what < 0.82:
        del tokens[at]
    elif what < 0.88:
        other = int(chance.random() * len(tokens))
        tokens[at], tokens[other] = tokens[other], tokens[at]
    elif what < 0.93:  # the same field again, perhaps with another value
        end = at + chance.randint(1, 6)
        tokens[end:end] = tokens[at:end]
    elif what < 0.97:  # the end of another one
        other_tokens = chance.choice(seeds)
        tokens[at:] = other_tokens[int(chance.random() * len(other_tokens)) :]
    else:
        levels = chance.choice((1, 3, 97, 98, 99, 100, 101, 300))
        opening, closing = chance.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"[", b""), (b"", b"]"), (b'"[', b'"')))
        tokens[at] = opening * levels + tokens[at] + closing * levels


def _change_bytes(chance: Random, value: bytes) -> bytes:
    at = int(chance.random() * (len(value) + 1))
    what = chance.random()
    put = _LETTERS[int(chance.random() * len(_LETTERS))] if chance.random() < 0.98 else int(chance.random() * 256)
    drop = 1 if what < 0.6 else 0 if what < 0.75 else chance.randint(1, 4)
    return value[:at] + (bytes((put,)) if what < 0.8 else b"") + value[at + drop :]


def main() -> None:
    """Fuzzes, and says after every ten seconds how far it is."""
    parser = argparse.ArgumentParser(prog="python -m notif_assets_tests.notifications.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--first", type=int, default=0, help="the number of the first batch")
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    began = told = time.monotonic()
    for outcome in fuzz(asked.seed, inputs=asked.inputs, first=asked.first):
        if time.monotonic() - told > 10:
            told = time.monotonic()
            print(f"{told - began:6.0f} s {outcome.inputs:>11,} inputs", flush=True)
    print(f"{outcome.inputs:,} inputs in {outcome.batches:,} batches, {outcome.alone:,} of them alone too, no finding:")
    for reason, number in outcome.verdicts.most_common():
        print(f"{number:>12,}  {reason}")


if __name__ == "__main__":
    main()
