"""An export: what it holds while it is read, and its end.

Belongs here: how a download is made. Doesn't: its rows (test_numbers.py), who may have it (test_access.py).
"""

from collections.abc import MutableMapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, BinaryIO

import anyio
import pyarrow as pa
import pytest

from notif_assets import queries
from notif_assets.panel.export import Download, rows_at_once, threads
from notif_assets_tests.cli.messages import ACME
from notif_assets_tests.panel.conftest import Asked, Served


@pytest.mark.parametrize("at_once", [1, 2, 7, 10**9])
def test_a_report_is_the_same_however_little_is_read_at_once(served: Served, at_once: int) -> None:
    with served.deployment.lake as lake:
        expected = served.deployment.rows("notifications")
        slices, _ = queries.detailed(lake, ACME, at_once=lambda: at_once)
        rows = pa.Table.from_batches(slices).to_pylist()
    assert [row["message_id"] for row in rows] == [
        row["message_id"]
        for row in sorted(expected, key=lambda row: (row["event_datetime"], row["message_id"]))
        if row["customer_id"] == ACME
    ]


@pytest.mark.parametrize("seconds_more", [0, 1, 29, 30, 59])
def test_a_minute_of_many_messages_is_read_in_parts(
    served: Served, monkeypatch: pytest.MonkeyPatch, asked: list[Asked], seconds_more: int
) -> None:
    """Two messages a second: parts of 10 are of five seconds, and the last ones begin behind the end of the period."""
    monkeypatch.setattr(queries, "_PART", 10)
    start = datetime(2020, 2, 3, 8, 0, 30, tzinfo=UTC)
    end = start + timedelta(minutes=3, seconds=seconds_more)
    with served.deployment.lake as lake:
        slices, _ = queries.detailed(lake, ACME, None, start, end, lambda: 25)
        found = pa.Table.from_batches(slices)["event_datetime"].to_pylist()
    read = [question.answer.num_rows for question in asked if question.name == "detailed"]
    assert found == [start + timedelta(seconds=n // 2) for n in range(2 * (180 + seconds_more))]
    assert sum(read) == len(found)
    assert max(read[1:]) <= 25  # the first one has the rest of a minute that began before the period


def test_many_exports_hold_no_more_than_a_few() -> None:
    async def visit() -> None:
        limiter, exports = threads(), [object() for _ in range(20)]
        alone = rows_at_once(limiter)
        for export in exports:
            limiter.acquire_on_behalf_of_nowait(export)
        assert 20 * rows_at_once(limiter) <= 2 * alone
        for export in exports:
            limiter.release_on_behalf_of(export)
        assert rows_at_once(limiter) == alone

    anyio.run(visit)


def test_a_client_that_goes_away_ends_the_writing() -> None:
    sent: list[MutableMapping[str, Any]] = []
    ended = []

    def write(out: BinaryIO) -> None:
        try:
            while True:
                out.write(b"a line\n")
        finally:
            ended.append(len(sent))

    async def visit() -> None:
        gone = anyio.Event()

        async def receive() -> MutableMapping[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)
            if len(sent) == 5:
                gone.set()

        limiter = threads()
        app = SimpleNamespace(state=SimpleNamespace(export_threads=limiter))
        with anyio.fail_after(30):
            await Download("name", "csv", write)({"type": "http", "method": "GET", "app": app}, receive, send)
        assert limiter.borrowed_tokens == 0

    anyio.run(visit)
    assert ended
    assert ended[0] < 10
