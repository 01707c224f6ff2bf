"""Hashes beside rows: they leave out files, and never one that holds a key."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notif_assets.lake import Lake, LakeError, Scan, keys, pieces
from notif_assets.lake.keys import COLUMN, files_without
from notif_assets.maintenance.compaction import OPEN_FILES, compact, merge_open_files
from notif_assets.maintenance.redaction import blank_rows
from notif_assets.notifications import audit, bronze, catch_up
from notif_assets.notifications.silver import key_hashes
from notif_assets.settings import Settings
from notif_assets_tests.conftest import Asked
from notif_assets_tests.maintenance.test_maintain import LATER
from notif_assets_tests.streams import NOON, MemoryLog, Oracle, assert_tables, rows_of, sent

Key = tuple[int, str]
some_keys = st.lists(st.tuples(st.integers(1, 3), st.text("ab/1", min_size=1, max_size=3)), max_size=8)


def take(lake: Lake, log: MemoryLog, *sought: Key) -> None:
    """A batch of messages with these keys."""
    log.produce(*(sent(NOON, customer_id=customer, message_id=message) for customer, message in sought))
    bronze.advance_bronze_by_one(lake, log, Settings(), "run", even_if_quiet=True)
    catch_up.advance_tables(lake, Settings())


def hashes_of(lake: Lake, sought: list[Key]) -> np.ndarray:
    customers, messages = [customer for customer, _ in sought], [message for _, message in sought]
    columns = [range(len(sought)), pa.array(customers, pa.int64()), pa.array(messages, pa.string())]
    return key_hashes(lake, pa.table(columns, ["row", "customer_id", "message_id"]))


@settings(max_examples=25, deadline=None)
@given(st.lists(some_keys, min_size=1, max_size=4), some_keys, st.booleans())
def test_a_file_that_holds_a_key_is_never_left_out(
    batches: list[list[Key]], sought: list[Key], few_marks: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder, Lake(Path(folder)) as lake:
        patch.setattr(keys, "_MOST_BITS", 2 if few_marks else 2**23)
        log = MemoryLog(1)
        for batch in batches:
            take(lake, log, *batch)
        scan = lake.table("notifications").scan()
        left_out = files_without(scan, hashes_of(lake, sought))
        for file in scan.files:
            rows = lake.rows(scan.without(set(scan.files) - {file})).to_pylist()
            held = {(row["customer_id"], row["message_id"]) for row in rows}
            assert (file in left_out) == held.isdisjoint(sought)


def test_no_reader_sees_the_hashes_and_closed_hours_have_none(lake: Lake) -> None:
    log = MemoryLog(1)
    for number in range(3):
        take(lake, log, (1, f"{number}"))
    files = lake.table("notifications").scan().files
    assert all(COLUMN in pq.read_schema(path).names for path in files)
    assert COLUMN not in lake.table("notifications").schema.arrow.names
    assert COLUMN not in rows_of(lake, "notifications")[0]
    compact(lake, "notifications", LATER)
    (file,) = lake.table("notifications").scan().files
    assert COLUMN not in pq.read_schema(file).names
    take(lake, log, (1, "1"), (1, "new"))  # what a file without hashes holds is found
    assert_tables(lake, Oracle(log))


def test_hashes_of_another_engine_s_version_say_nothing(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    log = MemoryLog(1)
    monkeypatch.setattr(keys, "COLUMN", "_key_hash_0.0.0")
    take(lake, log, (1, "a"))
    monkeypatch.undo()
    scan = lake.table("notifications").scan()
    assert files_without(scan, hashes_of(lake, [(2, "b")])) == set()
    take(lake, log, (1, "a"))
    assert_tables(lake, Oracle(log))


def test_a_batch_looks_into_the_files_that_hold_its_keys(lake: Lake, asked: list[Asked]) -> None:
    """And so does the check on it, of which the deduplication knows nothing."""
    log = MemoryLog(1)
    for number in range(6):
        take(lake, log, *((customer, f"{number}") for customer in range(1, 4)))
    del asked[:]
    take(lake, log, (1, "2"), (1, "new"), (2, "newer"))
    assert audit.repeated_in_hours(lake, lake.table("notifications").watermark - 1) == []
    files = {
        (question.name, name): len(question.inputs[name].files)
        for question in asked
        for name in ("stored", "before")
        if isinstance(question.inputs.get(name), Scan)
    }
    assert files == {
        ("duplicate_arrivals", "stored"): 1,
        ("originals", "stored"): 2,
        ("repeated_in_hours", "before"): 0,
    }
    assert_tables(lake, Oracle(log))


def test_the_hashes_of_a_file_are_read_once(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """By all batches of a process and by the checks after them, of files with hashes and without; the oldest go."""
    read: list[str] = []

    def opened(path: str) -> pq.ParquetFile:
        read.append(path)
        return pieces.open_data_file(path)

    monkeypatch.setattr(keys, "open_data_file", opened)
    log = MemoryLog(1)
    for number in range(5):
        take(lake, log, (1, f"{number}"), (2, f"{number}"))
        assert audit.repeated_in_hours(lake, number) == []
    files = lake.table("notifications").scan().files
    assert sorted(read) == sorted(files[1:])  # the newest, which comes first, was there for no batch yet

    monkeypatch.setattr(keys, "_CACHE_BYTES", 0)
    for times in (1, 2):
        del read[:]
        take(lake, log, (1, f"again {times}"))
        assert sorted(read) == sorted(files if times == 1 else lake.table("notifications").scan().files[1:])


def test_an_open_hour_s_files_are_put_together_with_their_hashes(lake: Lake) -> None:
    log = MemoryLog(1)
    for number in range(OPEN_FILES - 1):
        take(lake, log, (1, f"{number}"), (2, f"{number}"))
    assert merge_open_files(lake, "notifications", NOON) == 0
    take(lake, log, (1, "last"))
    before, watermark = rows_of(lake, "notifications"), lake.table("notifications").watermark
    assert merge_open_files(lake, "notifications", NOON) == OPEN_FILES
    (file,) = lake.table("notifications").scan().files
    assert COLUMN in pq.read_schema(file).names
    assert pq.read_table(file, columns=["batch"])["batch"].to_pylist() == sorted(row["batch"] for row in before)
    assert lake.table("notifications").watermark == watermark
    assert merge_open_files(lake, "notifications", NOON) == 0
    take(lake, log, (1, "3"), (1, "more"))
    assert_tables(lake, Oracle(log))
    assert files_without(lake.table("notifications").scan(), hashes_of(lake, [(9, "none")])) >= {file}


def test_files_with_and_without_hashes_go_together_without(lake: Lake) -> None:
    log = MemoryLog(1)
    for number in range(OPEN_FILES):
        take(lake, log, (1 + number % 2, f"{number}"))
    blank_rows(lake, lake, "notifications", lambda rows: pa.compute.equal(rows["customer_id"], 1), Settings())
    with_hashes = [COLUMN in pq.read_schema(path).names for path in lake.table("notifications").scan().files]
    assert 0 < sum(with_hashes) < OPEN_FILES
    assert merge_open_files(lake, "notifications", NOON) == OPEN_FILES
    (file,) = lake.table("notifications").scan().files
    assert COLUMN not in pq.read_schema(file).names
    take(lake, log, (1, "2"), (2, "3"))
    assert len(rows_of(lake, "notifications")) == OPEN_FILES


def test_a_file_that_is_gone_is_told(lake: Lake) -> None:
    log = MemoryLog(1)
    take(lake, log, (1, "a"))
    scan = lake.table("notifications").scan()
    Path(scan.files[0]).unlink()
    with pytest.raises(LakeError, match=r"notifications.*can't be read; `notif-assets check`"):
        files_without(scan, hashes_of(lake, [(1, "a")]))
