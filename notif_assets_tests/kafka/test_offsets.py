"""Ranges: exact, without gap, within the limit, and no partition forgotten."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notif_assets.kafka.offsets import Log, PlanRefused, deleted_part, next_offsets, plan_ranges

log = st.tuples(st.integers(0, 100), st.integers(0, 100)).map(lambda ends: Log(min(ends), max(ends)))
logs = st.dictionaries(st.integers(0, 5), log, min_size=1, max_size=6)
limits = st.integers(1, 250)


def test_the_first_batch_begins_where_kafka_does_and_a_new_partition_at_0() -> None:
    assert next_offsets({}, {0: Log(7, 9), 1: Log(0, 0)}) == {0: 7, 1: 0}
    assert next_offsets({0: 9}, {0: Log(7, 9), 1: Log(5, 8)}) == {0: 9, 1: 0}  # 0 to 4 of partition 1 count as lost


@pytest.mark.parametrize(
    ("found", "why"),
    [({}, "partition 0 is gone"), ({0: Log(0, 8)}, "ends at offset 8, though offsets up to 9 were taken")],
)
def test_kafka_with_less_than_was_taken_is_another_topic(found: dict[int, Log], why: str) -> None:
    with pytest.raises(PlanRefused, match=why):
        next_offsets({0: 9}, found | {1: Log(0, 50)})


@given(logs, limits, st.data())
def test_ranges_begin_at_what_was_not_taken_and_never_pass_the_end(
    found: dict[int, Log], limit: int, data: st.DataObject
) -> None:
    taken = {p: data.draw(st.integers(0, log.end)) for p, log in found.items()}
    planned = plan_ranges(taken, found, limit)
    assert list(planned) == sorted(found)
    waiting = spanned = 0
    for p, (start, end) in planned.items():
        assert start == taken[p]
        assert max(start, found[p].start) <= end <= found[p].end or end == start
        spanned += end - max(start, min(found[p].start, end))
        waiting += found[p].end - max(start, found[p].start)
    assert spanned == min(limit, waiting)  # lost offsets cost nothing, and nothing waits without need


@given(logs, limits)
def test_batch_after_batch_takes_every_offset_once(found: dict[int, Log], limit: int) -> None:
    taken: dict[int, int] = {}
    read: dict[int, list[int]] = {p: [] for p in found}
    for _ in range(1_000):
        planned = plan_ranges(next_offsets(taken, found), found, limit)
        if taken and all(start == end for start, end in planned.values()):
            break
        for p, (start, end) in planned.items():
            read[p] += range(start, end)
            taken[p] = end
    assert read == {p: list(range(log.start, log.end)) for p, log in found.items()}


@given(logs, st.integers(6, 250))
def test_a_partition_with_little_does_not_wait_for_one_with_much(found: dict[int, Log], limit: int) -> None:
    planned = plan_ranges({p: log.start for p, log in found.items()}, found, limit)
    share = limit // len(found)
    for p, (start, end) in planned.items():
        assert end - start >= min(share, found[p].end - found[p].start)


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
def test_lost_is_what_a_set_says(start: int, length: int, log_start: int) -> None:
    gone = [offset for offset in range(start, start + length) if offset < log_start]
    assert deleted_part(start, start + length, log_start) == ((gone[0], gone[-1] + 1) if gone else None)
