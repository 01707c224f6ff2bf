"""`python -m bench.panel [--messages N] [--data DIR]`: the panel beside ingestion, over a day of 20 million messages.

Belongs here: the lake (traffic.py's messages over the last 24 hours, ingested as always but in large batches),
ingestion that goes on at 1,157 messages a second, the panel as a process, and what a client of it measures. Doesn't:
speed of ingestion (__main__.py), age of a message (freshness.py).
"""

import argparse
import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from itertools import islice
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from bench.usage import Memory, memory
from notif_assets.billing.price_list import parse_price_list
from notif_assets.billing.prices import load_prices
from notif_assets.kafka.client import Ranges, RecordMark, TopicOffsets, first_two_marks, record_batch
from notif_assets.kafka.offsets import Log
from notif_assets.lake import Lake
from notif_assets.maintenance.maintain import maintain
from notif_assets.notifications import bronze
from notif_assets.notifications.catch_up import advance_tables, committed_ends
from notif_assets.notifications.silver import days_with_messages
from notif_assets.panel.tokens import Keys
from notif_assets.sandbox.traffic import ACME, Message, messages
from notif_assets.settings import Settings
from notif_assets_tests.books import close_day

_CUSTOMERS = 5_000
_PORT = 8_999
_CONNECTIONS = 50
_RATE = 1_157  # messages a second, while the panel is measured
_PAST_BATCH = 250_000  # several files an hour, which compaction merges and sorts
_BATCH_SECONDS = 15.0
_UNCOMPACTED = timedelta(minutes=95)  # what lies in small files still, at the least, just before an hourly compaction
_PRICES = files("notif_assets") / "samples" / "prices-demo.csv"


class Topic:
    """One partition that grows; what was read is forgotten."""

    def __init__(self, end: int) -> None:
        """The topic holds nothing, from offset `end` on."""
        self._chunks: list[tuple[int, pa.RecordBatch]] = []
        self.start = self.end = end

    def append(self, records: list[tuple[bytes | None, int]]) -> None:
        values, moments = zip(*records, strict=True)
        number = len(records)
        offsets = list(range(self.end, self.end + number))
        batch = record_batch([0] * number, offsets, list(moments), [None] * number, list(values))
        self._chunks.append((self.end, batch))
        self.end += number

    def offsets(self) -> TopicOffsets:
        return TopicOffsets("notifications", None, {0: Log(self.start, self.end)})

    def first_records(self, ranges: Ranges) -> dict[int, list[RecordMark]]:
        return first_two_marks(self._pieces(*ranges[0]), ranges)

    def read(self, ranges: Ranges) -> Iterator[pa.RecordBatch]:
        start, end = ranges[0]
        self._chunks = [(first, chunk) for first, chunk in self._chunks if first + chunk.num_rows >= start]
        yield from self._pieces(start, end)

    def _pieces(self, start: int, end: int) -> Iterator[pa.RecordBatch]:
        for first, chunk in self._chunks:
            low, high = max(0, start - first), min(chunk.num_rows, end - first)
            if low < high:
                yield chunk.slice(low, high - low)


def _build(settings: Settings, number: int) -> None:
    """Fills the lake with `number` messages of the last 24 hours, the last ones as micro-batches leave them, and closes
    the days before today."""
    in_large_batches = settings.model_copy(update={"batch_messages": _PAST_BATCH, "batch_bytes": 2**30})
    start, rate = datetime.now(UTC) - timedelta(hours=24), number / 86_400
    past = messages(0, _CUSTOMERS, start, rate)
    with Lake(settings.lake, memory="4GB") as lake:
        topic = Topic(0)
        _ingest_until(
            lake, topic, number - int(rate * _UNCOMPACTED.total_seconds()), past, _PAST_BATCH, in_large_batches
        )
        load_prices(lake, parse_price_list(_PRICES.read_bytes(), _PRICES.name))
        _maintain(lake, settings)  # before the days close, each of which would read thousands of small files
        today = datetime.now(settings.zone).date()
        for day in reversed([day for day in days_with_messages(lake.table("notifications"), settings) if day < today]):
            print(f"closing {day}", file=sys.stderr, flush=True)
            close_day(lake, settings, topic, day, "bench")  # type: ignore[arg-type]
        _maintain(lake, settings)
        _ingest_until(lake, topic, number, past, int(rate * _BATCH_SECONDS), settings)


def _ingest_until(lake: Lake, topic: Topic, end: int, past: Iterator[Message], batch: int, settings: Settings) -> None:
    while topic.end < end:
        topic.append([(one.value, one.timestamp) for one in islice(past, min(batch, end - topic.end))])
        _take(lake, topic, settings)
        print(f"{topic.end} messages ingested", file=sys.stderr, flush=True)


def _maintain(lake: Lake, settings: Settings) -> None:
    for line in maintain(lake, settings, datetime.now(UTC)):
        print(line, file=sys.stderr)


def _ingest(settings: Settings) -> None:
    """Ingests messages of now, as long as it lives."""
    with Lake(settings.lake, memory=settings.engine_memory) as lake:
        topic = Topic(committed_ends(lake)[0])
        present = messages(int(time.time()), _CUSTOMERS, datetime.now(UTC), _RATE)
        while True:
            began = time.monotonic()
            topic.append([(one.value, one.timestamp) for one in islice(present, int(_RATE * _BATCH_SECONDS))])
            _take(lake, topic, settings)
            time.sleep(max(0.0, _BATCH_SECONDS - (time.monotonic() - began)))


def _take(lake: Lake, topic: Topic, settings: Settings) -> None:
    lake.claim(topic=settings.topic, timezone=settings.timezone)
    while sum(committed_ends(lake).values()) < topic.end:
        bronze.advance_bronze_by_one(lake, topic, settings, "bench")  # type: ignore[arg-type]
        advance_tables(lake, settings)


@contextmanager
def _process(*command: str, **options: object) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def main() -> None:
    """Builds the lake, starts the panel, prints what a client sees."""
    parser = argparse.ArgumentParser(prog="python -m bench.panel", description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000_000)
    parser.add_argument("--seconds", type=float, default=30, help="of requests at 200 a second")
    parser.add_argument("--data", type=Path, help="a folder that keeps the lake; what it holds is not built again")
    parser.add_argument("--ingest", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.ingest:
        _ingest(Settings(data=asked.ingest))
    with tempfile.TemporaryDirectory(prefix="notif-assets-panel-") as folder:
        data = asked.data or Path(folder)
        built = data / "built"
        if not built.exists():
            _build(Settings(data=data), asked.messages)
            built.touch()
        environment = os.environ | {"NOTIF_DATA": str(data), "NOTIF_PANEL_EXPORTS": "100000"}
        with (
            _process("-m", "bench.panel", "--ingest", str(data)),
            (data / "panel.log").open("w") as log,
            _process("-m", "notif_assets", "panel", "--port", str(_PORT), env=environment, stderr=log) as panel,
        ):
            assert panel.stdout
            assert "panel at" in panel.stdout.readline()
            time.sleep(2 * _BATCH_SECONDS)  # ingestion has started too
            _measure(data, panel.pid, asked.seconds)


def _measure(data: Path, pid: int, seconds: float) -> None:
    settings = Settings(data=data)
    keys = Keys.of(settings)
    operator = {"Authorization": f"Bearer {keys.mint(None, timedelta(days=1))}"}
    client = httpx.Client(base_url=f"http://127.0.0.1:{_PORT}", headers=operator, timeout=120)
    with Lake(settings.lake) as lake:
        known = lake.rows(lake.table("customer_panel").scan())["customer_id"].unique().to_pylist()
    print(f"{len(known)} customers, memory of the panel {memory(pid)}")

    times = asyncio.run(_at_rate(known, operator, 200, seconds))
    _row("panel as JSON, 200 requests/s, ms", [1000 * t for t in times])
    _row("a customer's page, ms", [1000 * _timed(client, f"/clientes/{i}") for i in random.Random(1).sample(known, 60)])
    _row("Acme's page, ms", [1000 * _timed(client, f"/clientes/{ACME}") for _ in range(20)])
    _row("the operator's page, ms", [1000 * _timed(client, "/operador") for _ in range(20)])
    _row("commit → in the API, s", _delays(client, settings, 6))

    before = memory(pid)
    for format in ("csv", "text", "parquet"):
        first, whole, rows = _export(client, format)
        print(f"export of Acme as {format:<8} first byte {first:.2f} s, {rows / whole:,.0f} rows/s, {rows:,} rows")
    print(f"memory of the panel before {before}, after {memory(pid)}")
    _crowd([f"Bearer {keys.mint(None, timedelta(days=1))}" for _ in range(20)], pid)
    _gone(client, operator)


async def _at_rate(known: list[int], headers: dict[str, str], rate: int, seconds: float) -> list[float]:
    """Requests at fixed moments, each timed from the moment it was due, whatever the ones before it took.

    Written to connections by hand: a client of the usual kind costs more of these processors than the panel does.
    """
    chance, connections = random.Random(2), asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]()
    for _ in range(_CONNECTIONS):
        connections.put_nowait(await asyncio.open_connection("127.0.0.1", _PORT))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())

    async def one(due: float) -> float:
        reader, writer = connection = await connections.get()
        path = f"/api/v1/customers/{chance.choice(known)}/panel"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert head.startswith("http/1.1 200 "), head
        await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r\n")[0]))
        connections.put_nowait(connection)
        return time.monotonic() - due

    begin = time.monotonic() + 0.5
    asked: list[Awaitable[float]] = []
    for number in range(int(rate * seconds)):
        due = begin + number / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        asked.append(asyncio.create_task(one(due)))
    taken = list(await asyncio.gather(*asked))
    while not connections.empty():
        connections.get_nowait()[1].close()
    return taken


def _timed(client: httpx.Client, path: str) -> float:
    began = time.perf_counter()
    client.get(path).raise_for_status()
    return time.perf_counter() - began


def _delays(client: httpx.Client, settings: Settings, number: int) -> list[float]:
    """How long after a commit of customer_panel the API answers with it."""
    log = settings.lake / "customer_panel" / "_delta_log"
    delays: list[float] = []
    version = client.get(f"/api/v1/customers/{ACME}/panel").json()["table_version"]
    while len(delays) < number:
        told = client.get(f"/api/v1/customers/{ACME}/panel").json()["table_version"]
        if told > version:
            delays.append(time.time() - (log / f"{told:020}.json").stat().st_mtime)
            version = told
        time.sleep(0.02)
    return delays


def _export(client: httpx.Client, format: str) -> tuple[float, float, int]:
    """Seconds to the first byte and to the last, and rows."""
    began = time.perf_counter()
    first, pieces = 0.0, []
    with client.stream("GET", f"/api/v1/customers/{ACME}/messages/export?format={format}") as answer:
        answer.raise_for_status()
        for piece in answer.iter_raw():
            first = first or time.perf_counter() - began
            pieces.append(piece)
    whole = time.perf_counter() - began
    return first, whole, _rows(b"".join(pieces), format)


def _rows(report: bytes, format: str) -> int:
    if format == "csv":
        many_lines_a_row = pa_csv.ParseOptions(newlines_in_values=True)
        return sum(map(len, pa_csv.open_csv(pa.BufferReader(report), parse_options=many_lines_a_row)))
    return report.count(b"\nMensagem ID") if format == "text" else pq.read_metadata(pa.BufferReader(report)).num_rows


def _crowd(tokens: list[str], pid: int, seconds: float = 40) -> None:
    """An export of each of these viewers at once, all of them read slowly."""
    number = len(tokens)
    stop, got = time.monotonic() + seconds, [0] * number

    def read(which: int) -> None:
        with (
            httpx.Client(
                base_url=f"http://127.0.0.1:{_PORT}", headers={"Authorization": tokens[which]}, timeout=120
            ) as client,
            client.stream("GET", f"/api/v1/customers/{ACME}/messages/export") as answer,
        ):
            for piece in answer.iter_raw():
                got[which] += len(piece)
                if time.monotonic() > stop:
                    return
                time.sleep(0.05)

    readers = [threading.Thread(target=read, args=(which,)) for which in range(number)]
    for reader in readers:
        reader.start()
    most = Memory(0, 0)
    while any(reader.is_alive() for reader in readers):
        most = max(most, memory(pid))
        time.sleep(0.5)
    for reader in readers:
        reader.join()
    print(
        f"{number} slow exports at once: {sum(got) / 2**20:.0f} MiB sent, the least {min(got) / 2**20:.1f} MiB, ",
        end="",
    )
    print(f"memory of the panel at most {most}")


def _gone(client: httpx.Client, headers: dict[str, str]) -> None:
    """How soon the panel stops working for a client that went away."""
    with httpx.stream(
        "GET", f"http://127.0.0.1:{_PORT}/api/v1/customers/{ACME}/messages/export", headers=headers, timeout=60
    ) as answer:
        next(answer.iter_raw())
    left = time.monotonic()
    while "notif_panel_exports_in_progress 0.0" not in client.get("/metrics").text:
        time.sleep(0.05)
    print(f"a client that went away: its export ended within {time.monotonic() - left:.2f} s")


def _row(name: str, values: list[float]) -> None:
    p50, p95, p99, most = np.percentile(values, (50, 95, 99, 100))
    print(f"{name:<38} p50 {p50:.2f}  p95 {p95:.2f}  p99 {p99:.2f}  most {most:.2f}")


if __name__ == "__main__":
    main()
