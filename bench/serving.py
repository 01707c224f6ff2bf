"""`python -m bench.serving [--rows N] [--batches N]`: what the serving copy in PostgreSQL costs.

Belongs here: a first load of minutes beside a plain COPY of the same rows, from a file, into a table with the same
columns and key; the CPU of what follows each micro-batch of an hour that fills. Doesn't: Dagster, which starts a run
for each of these, and the rest of a micro-batch (hour.py).

PostgreSQL is Debian's, on this machine, with its own settings but for `fsync`, which is off: disks are not compared.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import numpy as np
import psycopg
import pyarrow as pa
from pydantic import SecretStr

from bench.hour import RATE, SECONDS, Growing, take
from notif_assets.lake import SCHEMAS, Lake
from notif_assets.sandbox.traffic import messages
from notif_assets.serving.copying import serve
from notif_assets.settings import Settings
from notif_assets_tests.postgres import Server, a_server, binaries

_PIECE_ROWS = 1_000_000
_OF_A_MINUTE = 4_000
_BLOCK = 2**20


def main() -> None:
    """Prints rows a second of both loads with their ratio, then the CPU of each batch's copy."""
    parser = argparse.ArgumentParser(prog="python -m bench.serving", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--batches", type=int, default=40)
    arguments = parser.parse_args()
    if binaries() is None:
        sys.exit("no PostgreSQL: apt-get install postgresql")
    with (
        tempfile.TemporaryDirectory(prefix="notif-assets-bench-") as folder,
        a_server(max_wal_size="2GB") as server,
    ):
        _first_load(Path(folder), server, arguments.rows)
        _batches(Path(folder), server, arguments.batches)


def _first_load(folder: Path, server: Server, rows: int) -> None:
    url = server.create_database("first")
    settings = Settings(data=folder / "first", serving_url=SecretStr(url))
    with Lake(settings.lake) as lake:
        for piece in _minutes(rows):
            lake.table("minute_aggregates").append(piece)
        began, before = time.monotonic(), time.process_time()
        serve(lake, settings)
        seconds = time.monotonic() - began
    ours = rows / seconds
    print(f"serve: {ours:,.0f} rows/s, {time.process_time() - before:.1f} CPU-s of the client", flush=True)
    plain = rows / _plain_copy(url, folder / "rows.csv")
    print(f"plain COPY: {plain:,.0f} rows/s")
    print(f"ratio {ours / plain:.2f}", flush=True)


def _minutes(rows: int) -> Iterator[pa.Table]:
    """Minutes of many customers, hour after hour."""
    start = np.datetime64("2026-01-01T00:00:00", "us")
    for first in range(0, rows, _PIECE_ROWS):
        place = np.arange(first, min(first + _PIECE_ROWS, rows))
        minute = start + (place // _OF_A_MINUTE) * np.timedelta64(60_000_000, "us")
        customer = place % _OF_A_MINUTE
        instants = pa.array(minute).cast(pa.timestamp("us", "UTC"))
        columns = {
            "batch": pa.array(place // _OF_A_MINUTE + 1),
            "customer_id": pa.array(1_000_000 + customer),
            "customer_name": pa.array([f"Farmácia Popular {number}" for number in customer]),
            "channel": pa.array(np.where(place % 3, "Whatsapp", "Push")),
            "minute": instants,
            "notifications": pa.array(place % 17 + 1),
            "first_event": instants,
            "last_event": pa.array(minute + np.timedelta64(59_123_000, "us")).cast(pa.timestamp("us", "UTC")),
            "event_date": pa.array(minute.astype("datetime64[D]")),
            "event_hour": pa.array((place // _OF_A_MINUTE // 60 % 24).astype(np.int32)),
        }
        yield pa.table(columns).cast(SCHEMAS["minute_aggregates"].arrow)


def _plain_copy(url: str, file: Path) -> float:
    """Seconds of a COPY of all rows from a file into a table with the same columns and indexes."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.cursor()
        with file.open("wb") as written, cursor.copy("copy serving.minute_aggregates to stdout (format csv)") as told:
            for row in told:
                written.write(row)
        connection.execute("drop view bi.minute_aggregates")
        connection.execute("create table plain (like serving.minute_aggregates including all)")
        connection.execute("drop table serving.minute_aggregates")
        began = time.monotonic()
        with file.open("rb") as read, cursor.copy("copy plain from stdin (format csv)") as copy:
            while block := read.read(_BLOCK):
                copy.write(block)
        return time.monotonic() - began


def _batches(folder: Path, server: Server, batches: int) -> None:
    url = server.create_database("batches")
    settings = Settings(data=folder / "batches", serving_url=SecretStr(url))
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    traffic, topic = messages(0, 5_000, start, RATE), Growing()
    client, walls, moved = [], [], []
    with Lake(settings.lake) as lake:
        for _ in range(batches):
            topic.grow(traffic)
            take(lake, topic, settings, start)
            began, ours = time.monotonic(), time.process_time()
            copied = serve(lake, settings)
            walls.append(time.monotonic() - began)
            client.append(time.process_time() - ours)
            moved.append(sum(table.came for table in copied))
    some = slice(batches // 4, None)
    print(
        f"a batch of {RATE * SECONDS} messages: {median(moved[some]):,.0f} rows, {median(client[some]):.2f} CPU-s of "
        f"the client (most {max(client[some]):.2f}), "
        f"{median(walls[some]):.2f} s"
    )


if __name__ == "__main__":
    main()
