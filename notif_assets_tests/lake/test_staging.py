"""Rows that come in pieces: one commit, files whose row groups a reader can hold, and no value in any statistic."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from notif_assets.lake import Lake, LostRace, staging
from notif_assets.lake.staging import append, stage
from notif_assets_tests.lake.test_pieces import records
from notif_assets_tests.streams import losses, rows_of


def test_pieces_and_their_watermark_are_one_commit(lake: Lake) -> None:
    table = lake.table("raw_notifications")
    assert append(table, [records(1, 2), records(3, first=2)], 5, {"ranges": {}}) == 3
    assert lake.table("raw_notifications").watermark == 5
    assert lake.table("raw_notifications").version == 1
    assert [row["kafka_offset"] for row in rows_of(lake, "raw_notifications")] == [0, 1, 2]
    assert append(lake.table("raw_notifications"), [], 6) == 0
    assert lake.table("raw_notifications").watermark == 6


def test_a_lost_race_commits_nothing(lake: Lake) -> None:
    lake.table("raw_notifications").create()
    late = lake.table("raw_notifications")
    append(lake.table("raw_notifications"), [records(1)], 1)
    with pytest.raises(LostRace):
        append(late, [records(2)], 1)
    assert len(rows_of(lake, "raw_notifications")) == 1


def test_pieces_that_end_in_an_error_leave_no_file(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "_APPENDED_AT_ONCE", 5_000)  # two files by then

    def some() -> object:
        yield records(9_000)
        yield records(9_000, first=1)
        yield records(9_000, first=2)
        assert len([*lake.table("raw_notifications").path.rglob("*.parquet")]) == 2
        raise RuntimeError("Kafka went away")

    lake.table("raw_notifications").create()
    with pytest.raises(RuntimeError, match="went away"):
        append(lake.table("raw_notifications"), some(), 1)  # type: ignore[arg-type]
    assert list(lake.table("raw_notifications").path.rglob("*.parquet")) == []


def test_a_row_group_is_bounded_by_bytes_and_a_file_too(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "_GROUP_BYTES", 5_000)
    monkeypatch.setattr(staging, "_FILE_BYTES", 20_000)
    append(lake.table("raw_notifications"), [records(*[2_000] * 10, *[10] * 10, 9_000)], 1)
    files = [pq.ParquetFile(path) for path in lake.table("raw_notifications").scan().files]
    assert len(files) > 1
    groups = [file.read_row_group(n) for file in files for n in range(file.num_row_groups)]
    assert all(group.num_rows == 1 or group.nbytes <= 5_000 for group in groups)
    assert sum(group.num_rows for group in groups) == 21


def test_no_statistic_holds_a_value_or_a_payload(lake: Lake) -> None:
    secret = b"for your eyes only"
    rows = records(1, 2).set_column(6, "value", pa.array([secret, secret * 1000], pa.binary()))
    append(lake.table("raw_notifications"), [rows.select(records(1).schema.names)], 1)
    log = lake.table("raw_notifications").path / "_delta_log"
    assert all(secret not in entry.read_bytes() for entry in log.iterdir() if entry.is_file())
    (path,) = map(Path, lake.table("raw_notifications").scan().files)
    metadata = pq.read_metadata(path)
    for number in range(metadata.num_columns):
        column = metadata.row_group(0).column(number)
        if column.path_in_schema in {"key", "value"}:
            assert column.statistics is None
            assert not column.has_dictionary_page
        elif column.path_in_schema != "kafka_timestamp":  # which is null here
            assert column.statistics.has_min_max
    footer = path.read_bytes()[-int.from_bytes(path.read_bytes()[-8:-4], "little") - 8 :]
    assert secret not in footer


def test_a_table_has_its_log_before_its_first_file(tmp_path: Path) -> None:
    with Lake(tmp_path) as lake:
        stage(lake.table("ingest_losses"), (), losses(1).to_batches(), 10)
        assert (lake.table("ingest_losses").version, lake.table("ingest_losses").files().num_rows) == (0, 0)


def test_only_a_column_of_which_values_come_again_has_a_dictionary(lake: Lake) -> None:
    append(lake.table("raw_notifications"), [records(*[10] * 3_000)], 1)
    (path,) = lake.table("raw_notifications").scan().files
    group = pq.read_metadata(path).row_group(0)
    columns = {column.path_in_schema: column for column in map(group.column, range(group.num_columns))}
    assert columns["topic"].has_dictionary_page
    assert not columns["kafka_offset"].has_dictionary_page
    assert columns["kafka_offset"].statistics.has_min_max
