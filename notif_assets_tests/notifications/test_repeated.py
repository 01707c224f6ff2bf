"""Keys that come more than once: all of them are found, and for that each row is read once."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notif_assets.lake import SCHEMAS, Lake
from notif_assets.notifications.repeated import repeated_keys
from notif_assets.notifications.silver import key_hashes
from notif_assets_tests.streams import NOON

Key = tuple[int, str]
SCHEMA = SCHEMAS["notifications"].arrow


def store(lake: Lake, batch: int, keys: list[Key]) -> None:
    """Messages with these keys, as a file."""
    rows = [
        {
            "batch": batch,
            "topic": "notifications",
            "customer_id": customer,
            "message_id": message,
            "customer_name": "Acme",
            "channel": "Whatsapp",
            "payload": "",
            "event_datetime": NOON,
            "kafka_partition": 0,
            "kafka_offset": 1_000 * batch + number,
            "ingested_at": NOON,
            "event_date": NOON.date(),
            "event_hour": NOON.hour,
        }
        for number, (customer, message) in enumerate(keys)
    ]
    lake.table("notifications").append(pa.Table.from_pylist(rows, schema=SCHEMA), batch)


keys_of_files = st.lists(
    st.lists(st.tuples(st.sampled_from([1, 2, 3, 2**62]), st.text("ab", min_size=1, max_size=3)), max_size=9),
    max_size=3,
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(keys_of_files, st.sampled_from([1, 2, 5, 1_000]))
def test_all_are_found_and_hardly_another(files: list[list[Key]], most: int) -> None:
    with TemporaryDirectory() as folder, Lake(Path(folder)) as lake:
        for batch, keys in enumerate(files, 1):
            store(lake, batch, keys)
        found: Counter[Key] = Counter()
        for part, hashes in repeated_keys(lake, lake.table("notifications").scan(), most):
            rows = lake.rows(part).sort_by([("customer_id", "ascending"), ("message_id", "ascending")])
            keys = rows.select(["customer_id", "message_id"]).append_column("row", pa.array(range(len(rows))))
            having = np.isin(key_hashes(lake, keys), hashes["key_hash"].to_numpy())
            found.update((row["customer_id"], row["message_id"]) for row in rows.filter(pa.array(having)).to_pylist())
        counts = Counter(key for keys in files for key in keys)
        assert found == Counter({key: number for key, number in counts.items() if number > 1})


@pytest.mark.parametrize("most", [60, 150, 1_000])
def test_each_row_is_read_once_however_many_there_are(lake: Lake, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    for batch in range(1, 4):
        store(lake, batch, [(1 + number % 10, f"{batch} {number}") for number in range(100 * batch)])
    read = []
    stream = lake.stream

    def noted(name: str, *arguments: Any) -> Iterator[pa.RecordBatch]:
        for batch in stream(name, *arguments):
            read.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(lake, "stream", noted)
    assert not list(repeated_keys(lake, lake.table("notifications").scan(), most))
    assert sum(read) == 600
