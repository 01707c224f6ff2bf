"""Pieces hold the rows that a plain filter holds, each once and in order, and never more bytes than they may."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notif_assets.lake import SCHEMAS, Lake, LakeError
from notif_assets.lake.pieces import bytes_of_rows, coalesce, cut_rows, pieces, pieces_having, rows_having, values_at
from notif_assets.lake.staging import append
from notif_assets_tests.streams import NOON

SCHEMA = SCHEMAS["raw_notifications"].arrow


def record(offset: int, size: int, batch: int = 1, partition: int = 0) -> dict[str, Any]:
    return {
        "batch": batch,
        "topic": "notifications",
        "kafka_partition": partition,
        "kafka_offset": offset,
        "kafka_timestamp": None,
        "key": None,
        "value": bytes([offset % 251]) * size,
        "ingested_at": NOON,
        "ingest_date": NOON.date(),
    }


def records(*sizes: int, batch: int = 1, first: int = 0) -> pa.Table:
    return pa.Table.from_pylist([record(first + n, size, batch) for n, size in enumerate(sizes)], schema=SCHEMA)


sizes = st.lists(st.sampled_from([0, 1, 10, 400, 3_000]), max_size=12)


@settings(max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(sizes, min_size=1, max_size=3), st.sampled_from([100, 1_000, 5_000]), st.none() | st.integers(1, 3))
def test_pieces_are_the_rows_and_bounded(batches: list[list[int]], most: int, only: int | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lake, expected = Lake(Path(folder)), []
        for number, of_batch in enumerate(batches, 1):
            rows = records(*of_batch, batch=number, first=100 * number)
            append(lake.table("raw_notifications"), cut_rows(rows, 2_000), number)
            expected += [row for row in rows.to_pylist() if only in (None, number)]
        bounds: dict[str, Any] = {} if only is None else {"batch": (only, only + 1)}
        found = list(pieces(lake.table("raw_notifications").scan(**bounds), most=most))
        read = [row for piece in found for row in piece.to_pylist()]
        assert sorted(read, key=lambda row: row["batch"]) == expected  # files come in any order, their rows do not
        for piece in found:
            assert piece.num_rows == 1 or min(piece.nbytes, bytes_of_rows(piece).sum()) <= most


@settings(max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(sizes, min_size=1, max_size=3), st.data())
def test_values_are_found_at_their_places_in_any_order(batches: list[list[int]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder))
        for number, of_batch in enumerate(batches, 1):
            rows = records(*of_batch, batch=number, first=100 * number)
            append(lake.table("raw_notifications"), cut_rows(rows, 2_000), number)
        scan = replace(lake.table("raw_notifications").scan(batch=(1, 3)), with_positions=True)
        placed = lake.rows(scan)
        assert placed.num_rows == sum(map(len, batches[:2]))
        asked = data.draw(st.permutations(range(placed.num_rows)))[: data.draw(st.integers(0, 12))]
        some = placed.take(pa.array(asked, pa.int64()))
        assert values_at(scan, "value", some["file"], some["row"]).to_pylist() == some["value"].to_pylist()


def test_rows_beyond_the_bounds_of_a_scan_are_left_out_of_a_file(lake: Lake) -> None:
    both = pa.concat_tables([records(1, 2), records(3, batch=2, first=2), records(4, batch=3, first=3)])
    append(lake.table("raw_notifications"), [both], 3)
    for bounds, offsets in (((2, 3), [2]), ((None, 2), [0, 1]), ((2, None), [2, 3]), ((4, None), [])):
        scan = lake.table("raw_notifications").scan(batch=bounds)
        assert [row["kafka_offset"] for piece in pieces(scan) for row in piece.to_pylist()] == offsets


def test_a_part_of_the_columns_comes_without_the_others(lake: Lake) -> None:
    append(lake.table("raw_notifications"), [records(3, 4, batch=7)], 7)
    scan = lake.table("raw_notifications").scan(batch=(7, 8))
    (piece,) = pieces(scan, ["kafka_offset", "ingest_date"])
    assert piece.to_pylist() == [{"kafka_offset": n, "ingest_date": NOON.date()} for n in (0, 1)]


def test_a_column_that_a_file_lacks_is_null(lake: Lake) -> None:
    append(lake.table("raw_notifications"), [records(3)], 1)
    (path,) = (file for file in lake.table("raw_notifications").scan().files)
    older = pq.ParquetFile(path).read().drop_columns(["key"])
    pq.write_table(older, path)
    (piece,) = pieces(lake.table("raw_notifications").scan())
    assert piece["key"].to_pylist() == [None]
    assert piece.schema == SCHEMA


def test_a_file_that_is_gone_is_told(lake: Lake) -> None:
    append(lake.table("raw_notifications"), [records(3)], 1)
    scan = lake.table("raw_notifications").scan()
    Path(scan.files[0]).unlink()
    with pytest.raises(LakeError, match="can't be read"):
        list(pieces(scan))


def test_small_pieces_are_gathered_and_none_is_lost() -> None:
    some = [records(10), records(20), records(9_000), records(1)]
    gathered = list(coalesce(some, 2_000))
    assert [piece.num_rows for piece in gathered] == [2, 1, 1]
    assert pa.concat_tables(gathered).equals(pa.concat_tables(some))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3))), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)))
)
@settings(max_examples=50, derandomize=True)
def test_rows_having_a_key_are_those_that_a_set_says(rows: list[tuple[int, int]], keys: list[tuple[int, int]]) -> None:
    def table(pairs: list[tuple[int, int]]) -> pa.Table:
        columns = np.array(pairs, np.int64).reshape(-1, 2)
        return pa.table({"a": columns[:, 0], "b": columns[:, 1]})

    assert rows_having(table(rows), table(keys)).tolist() == [row in keys for row in rows]


def test_no_keys_read_nothing(lake: Lake) -> None:
    append(lake.table("raw_notifications"), [records(3)], 1)
    scan = lake.table("raw_notifications").scan()
    keys = pa.table({"kafka_offset": pa.array([0], pa.int64())})
    assert [piece.num_rows for piece in pieces_having(scan, keys, ["batch"])] == [1]
    Path(scan.files[0]).unlink()
    assert list(pieces_having(scan, keys.slice(0, 0))) == []


def test_row_groups_that_hold_no_key_are_not_read(lake: Lake) -> None:
    """Of a file in the order of its offsets, a place costs the reading of one row group."""
    append(lake.table("raw_notifications"), [records(*[10] * 100_000)], 1)
    scan = lake.table("raw_notifications").scan()
    sought = pa.table({"kafka_partition": pa.array([0, 1], pa.int32()), "kafka_offset": [70_000, 10]})
    read = list(pieces(scan, ["kafka_offset"], keys=sought))
    assert sum(map(len, read)) <= 32_768
    assert 70_000 in pa.concat_tables(read)["kafka_offset"].to_pylist()
    found = list(pieces_having(scan, sought, ["kafka_offset"]))
    assert [piece["kafka_offset"].to_pylist() for piece in found] == [[70_000]]
    assert not list(pieces(scan, ["kafka_offset"], keys=sought.slice(1)))
