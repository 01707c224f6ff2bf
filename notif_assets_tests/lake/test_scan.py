"""A scan holds the rows that a plain filter holds, whatever files it skips."""

import tempfile
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notif_assets.lake import SCHEMAS, Lake
from notif_assets_tests.streams import NOON, in_order, rows_of

US = timedelta(microseconds=1)
SCHEMA = SCHEMAS["notifications"].arrow
# Around the edge of a millisecond, where Delta statistics end; around an hour, where partitions do.
instants = st.tuples(
    st.sampled_from([NOON, NOON - timedelta(hours=1), NOON + timedelta(hours=13)]),
    st.integers(-1, 1),
    st.sampled_from([0, 1, 998, 999]),
).map(lambda p: p[0] + p[1] * timedelta(milliseconds=1) + p[2] * US)


def notification(event: datetime, customer: int, offset: int, batch: int) -> dict[str, Any]:
    return {
        "batch": batch,
        "topic": "notifications",
        "customer_id": customer,
        "message_id": "m",
        "customer_name": "Acme",
        "channel": "SMS",
        "payload": "",
        "event_datetime": event,
        "kafka_partition": 0,
        "kafka_offset": offset,
        "kafka_timestamp": None,
        "ingested_at": NOON,
        "event_date": event.date(),
        "event_hour": event.hour,
    }


row = st.tuples(instants, st.integers(1, 3))
bound = st.none() | instants
batch_bound = st.none() | st.integers(0, 5)


@settings(max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(row, max_size=4), min_size=1, max_size=4), st.data())
def test_bounds_and_partitions_are_a_plain_filter(files: list[list[tuple[datetime, int]]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lake, table, rows, offset = Lake(Path(folder)), Lake(Path(folder)).table("notifications"), [], 0
        for batch, contents in enumerate(files, 1):
            new = [notification(event, customer, offset + n, batch) for n, (event, customer) in enumerate(contents)]
            offset += len(new)
            rows += new
            table.append(pa.Table.from_pylist(new, schema=SCHEMA), batch)
        assert in_order(rows_of(lake, "notifications")) == in_order(rows)
        table = lake.table("notifications")
        held = sorted({(r["event_date"], r["event_hour"]) for r in rows})
        for _ in range(6):
            bounds: dict[str, tuple[Any, Any]] = data.draw(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "event_datetime": st.tuples(bound, bound),
                        "batch": st.tuples(batch_bound, batch_bound),
                        "customer_id": st.tuples(batch_bound, batch_bound),
                        "event_date": st.tuples(st.just(date(2020, 2, 3)), st.none() | st.just(date(2020, 2, 4))),
                        "event_hour": st.tuples(st.none(), st.integers(0, 24)),
                        "message_id": st.tuples(st.just("m"), st.just("m'")),
                    },
                )
            )
            partitions = data.draw(st.none() | st.sets(st.sampled_from([*held, (date(2020, 1, 1), 0)])))
            scan = table.scan(partitions, **bounds)
            expected = [
                r
                for r in rows
                if (partitions is None or (r["event_date"], r["event_hour"]) in partitions)
                and all(
                    (low is None or r[c] >= low) and (high is None or r[c] < high) for c, (low, high) in bounds.items()
                )
            ]
            assert in_order(lake.rows(scan).to_pylist()) == in_order(expected)
            if partitions is not None:
                part = table.scan(**bounds).within(partitions)
                assert (part.files, part.partition_values) == (scan.files, scan.partition_values)
            assert scan.rows_at_most >= len(expected)
            assert {len(values) for values in scan.partition_values.values()} == {len(scan.files)}


def test_files_outside_the_bounds_are_not_read(lake: Lake) -> None:
    table = lake.table("notifications")
    for batch in range(1, 5):
        event = NOON + batch * timedelta(milliseconds=10)
        table.append(pa.Table.from_pylist([notification(event, 1, batch, batch)], schema=SCHEMA), batch)
    assert len(table.scan().files) == 4
    assert len(table.scan(batch=(2, 3)).files) == 1
    assert len(table.scan(event_datetime=(NOON + timedelta(milliseconds=30), None)).files) == 2
    assert len(table.scan(partitions=set()).files) == 0


def test_partition_values_come_from_the_log_and_not_from_paths(lake: Lake) -> None:
    event = NOON + timedelta(hours=12)
    table = lake.table("notifications")
    table.append(
        pa.Table.from_pylist([notification(e, 1, n, 1) for n, e in enumerate((NOON, event))], schema=SCHEMA), 1
    )
    found = {(r["event_date"], r["event_hour"]) for r in rows_of(lake, "notifications")}
    assert found == {(NOON.date(), 12), (event.date(), 0)}
    # The files themselves don't hold them.
    names = {name for path in table.scan().files for name in pq.read_schema(path).names}
    assert names.isdisjoint({"event_date", "event_hour"})


def test_an_empty_table_has_its_columns_and_types(lake: Lake) -> None:
    for name, schema in SCHEMAS.items():
        empty = lake.rows(lake.table(name).scan())
        assert empty.num_rows == 0
        assert [(f.name, f.type) for f in empty.schema] == [(f.name, f.type) for f in schema.arrow]


def test_every_type_comes_back_as_it_was_written(lake: Lake) -> None:
    row = notification(NOON + 123_457 * US, 2**63 - 1, 0, 1) | {"message_id": "a\x00'\"", "payload": "😀\n"}
    lake.table("notifications").append(pa.Table.from_pylist([row], schema=SCHEMA), 1)
    assert rows_of(lake, "notifications") == [row]


def test_a_snapshot_stays_what_it_was(lake: Lake) -> None:
    table = lake.table("notifications")
    table.append(pa.Table.from_pylist([notification(NOON, 1, 0, 1)], schema=SCHEMA), 1)
    before = lake.table("notifications")
    table.replace(pa.Table.from_pylist([notification(NOON, 2, 0, 2)], schema=SCHEMA), None, 2)
    assert [r["customer_id"] for r in lake.rows(before.scan()).to_pylist()] == [1]
    assert [r["customer_id"] for r in lake.rows(table.scan()).to_pylist()] == [2]


def test_a_lake_is_used_by_threads_and_after_close(lake: Lake) -> None:
    lake.table("notifications").append(pa.Table.from_pylist([notification(NOON, 1, 0, 1)], schema=SCHEMA), 1)
    with lake:
        assert len(rows_of(lake, "notifications")) == 1
    assert len(rows_of(lake, "notifications")) == 1
    streamed = lake.stream("message_counts", {"notifications": lake.table("notifications").scan()})
    assert [batch.to_pylist() for batch in streamed] == [[{"customer_id": 1, "channel": "SMS", "notifications": 1}]]


def test_a_bound_on_a_partition_column_skips_the_files_of_other_partitions(lake: Lake) -> None:
    table = lake.table("notifications")
    days = [NOON + timedelta(days=n) for n in range(5)]
    rows = [notification(day, 1, offset, 1) for offset, day in enumerate(days)]
    table.append(pa.Table.from_pylist(rows, schema=SCHEMA), 1)
    assert len(table.scan(event_date=(days[1].date(), days[3].date())).files) == 2


@settings(max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.lists(row, max_size=4), min_size=1, max_size=4),
    st.lists(st.integers(0, 4), max_size=3),
    st.booleans(),
)
def test_a_scan_of_files_that_may_hold_a_value_has_every_row_with_it(
    files: list[list[tuple[datetime, int]]], customers: list[int], elsewhere: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder))
        rows: list[dict[str, Any]] = []
        table = lake.table("notifications")
        for batch, contents in enumerate(files, 1):
            new = [notification(event, customer, len(rows) + n, batch) for n, (event, customer) in enumerate(contents)]
            rows += new
            table.append(pa.Table.from_pylist(new, schema=SCHEMA), batch)
        wanted: dict[tuple[Any, ...], np.ndarray[Any, np.dtype[np.int64]]] = {
            (r["event_date"], r["event_hour"]): np.array(customers, np.int64) for r in rows
        }
        if elsewhere:
            wanted = {(date(2020, 1, 1), 0): np.array(customers, np.int64)}
        scan = table.scan_holding("customer_id", wanted)
        held = lake.rows(scan).to_pylist()
        places = {(r["event_date"], r["event_hour"]) for r in held}
        assert places <= wanted.keys()
        expected = [r for r in rows if (r["event_date"], r["event_hour"]) in wanted and r["customer_id"] in customers]
        offsets = {r["kafka_offset"] for r in held}
        assert offsets.issuperset(r["kafka_offset"] for r in expected)
        if not customers:
            assert not scan.files
