"""That every record is where it belongs is told of many by little: the answer is that of the query that names them."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from notif_assets.lake import Lake
from notif_assets.notifications.landings import all_land_once

PLACE = pa.schema([("kafka_partition", pa.int32()), ("kafka_offset", pa.int64())])
RECORD = pa.schema([("batch", pa.int64()), *PLACE])
RANGE = pa.schema([("batch", pa.int64()), PLACE.field(0), ("start_offset", pa.int64()), ("end_offset", pa.int64())])

Place = tuple[int, int]
places = st.tuples(st.integers(0, 2), st.integers(0, 9))
# Batches 1 and 2 take offsets 2 to 5 and 5 to 8 of the partitions 0 and 2.
RANGES = [(batch, partition, start, start + 3) for batch, start in ((1, 2), (2, 5)) for partition in (0, 2)]
RECORDS = [(batch, partition, offset) for batch, partition, start, end in RANGES for offset in range(start, end)]


def table(schema: pa.Schema, rows: list[tuple[int, ...]]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema=schema)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    left=st.sets(st.integers(0, 11), max_size=1),
    more_records=st.lists(st.tuples(st.integers(1, 3), *[st.integers(0, 2), st.integers(0, 9)]), max_size=1),
    rejected=st.sets(st.integers(0, 11), max_size=3),
    missing=st.sets(st.integers(0, 11), max_size=1),
    more_landed=st.lists(places, max_size=2),
)
@example(left=set(), more_records=[], rejected={0, 5}, missing=set(), more_landed=[(1, 3), (0, 8)])
@example(left=set(), more_records=[], rejected=set(), missing={3}, more_landed=[(0, 2)])
@example(left=set(), more_records=[(2, 0, 2)], rejected=set(), missing=set(), more_landed=[])
def test_the_answer_is_that_of_the_query(
    left: set[int],
    more_records: list[tuple[int, int, int]],
    rejected: set[int],
    missing: set[int],
    more_landed: list[Place],
) -> None:
    records = [record for number, record in enumerate(RECORDS) if number not in left] + more_records
    landed = {number: (partition, offset) for number, (_, partition, offset) in enumerate(RECORDS)}
    accepted = [place for number, place in landed.items() if number not in rejected | missing | left] + more_landed
    inputs = {
        "batches": table(RANGE, list(RANGES)),
        "records": table(RECORD, list(records)),
        "accepted": table(PLACE, list(accepted)),
        "rejected": table(PLACE, [landed[number] for number in rejected - missing - left]),
    }
    with TemporaryDirectory() as folder, Lake(Path(folder)) as lake:
        assert all_land_once(lake, **inputs) == (lake.select("offset_findings", inputs).num_rows == 0)


def test_no_batches_are_no_answer(lake: Lake) -> None:
    none = {"records": table(RECORD, []), "accepted": table(PLACE, []), "rejected": table(PLACE, [])}
    assert not all_land_once(lake, batches=table(RANGE, []), **none)
