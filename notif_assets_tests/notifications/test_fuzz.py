"""The corpus of hostile messages, and a short while of fuzzing with a new seed each time."""

import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from notif_assets.notifications.validity import REASONS, validate
from notif_assets_tests.notifications import fuzz
from notif_assets_tests.notifications.test_validity import judged, reason

_NOT_OF_BYTES = {"duplicate", "duplicate_conflict"}


def test_the_corpus_has_its_verdicts_alone_and_together() -> None:
    corpus = fuzz.corpus()
    values = [value for _, value in corpus]
    expected = [verdict for verdict, _ in corpus]
    assert len(set(values)) == len(values) > 200
    assert [reason(value) for value in values] == expected
    assert [row.get("reason", "valid") for row in judged(values)] == expected
    backwards = [row.get("reason", "valid") for row in judged(values[::-1])]
    assert backwards[::-1] == expected
    assert {*expected} == {*REASONS, "valid"} - _NOT_OF_BYTES - {"oversized"}


def test_whatever_bytes_arrive_have_one_verdict_wherever_they_stand() -> None:
    seed = time.time_ns() % 2**32
    print(f"\nseed {seed} (python -m notif_assets_tests.notifications.fuzz --seed {seed} repeats it)")
    *_, outcome = fuzz.fuzz(seed, seconds=60)
    print(f"{outcome.inputs} inputs, {outcome.alone} of them alone too: {dict(outcome.verdicts.most_common())}")
    assert sum(outcome.verdicts.values()) == outcome.inputs
    assert {*outcome.verdicts} == {*REASONS, "valid"} - _NOT_OF_BYTES


Judge = Callable[..., tuple[pa.Table, pa.Table]]


def _loses_the_last(judge: Judge) -> Judge:
    def broken(records: pa.Table, *limits: Any) -> tuple[pa.Table, pa.Table]:
        valid, rejected = judge(records, *limits)
        return valid.slice(0, max(0, valid.num_rows - 1)), rejected

    return broken


def _says_it_twice(judge: Judge) -> Judge:
    def broken(records: pa.Table, *limits: Any) -> tuple[pa.Table, pa.Table]:
        valid, rejected = judge(records, *limits)
        return valid, pa.concat_tables([rejected, rejected.slice(0, 1)])

    return broken


def _depends_on_the_neighbours(judge: Judge) -> Judge:
    def broken(records: pa.Table, *limits: Any) -> tuple[pa.Table, pa.Table]:
        valid, rejected = judge(records, *limits)
        if valid.num_rows and records.num_rows > fuzz.BATCH:
            names = valid["payload"].combine_chunks().to_pylist()
            names[0] += "!"
            valid = valid.set_column(valid.schema.get_field_index("payload"), "payload", pa.array(names))
        return valid, rejected

    return broken


def _raises(judge: Judge) -> Judge:
    def broken(records: pa.Table, *limits: Any) -> tuple[pa.Table, pa.Table]:
        if b"\\u" in (records["value"][0].as_py() or b""):
            raise ValueError("an escape")
        return judge(records, *limits)

    return broken


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (_loses_the_last, "no verdict"),
        (_says_it_twice, "rejected twice"),
        (_depends_on_the_neighbours, "among others|by the plain rules"),
        (_raises, r"judge raises ValueError\('an escape'\)"),
    ],
)
def test_the_fuzzer_sees_what_it_is_there_for(
    change: Callable[[Judge], Judge], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz, "validate", change(validate))
    with pytest.raises(fuzz.Finding, match=rf"batch \d+ of seed 1: .*({found})"):
        for _ in fuzz.fuzz(1, inputs=40_000):
            pass
