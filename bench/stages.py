"""`python -m bench.stages [--messages N]`: each stage from the topic to the panel, without Dagster and checks.

Belongs here: the traffic, the runs to compare (each client, and no Kafka at all), the table that is printed. Doesn't:
one measured run (ingest.py, a process of its own, so that its peak memory is its own).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import pyarrow as pa
from confluent_kafka import Producer

from bench.ingest import SOURCES, STAGES
from notif_assets.kafka.client import SCHEMA, record_batch
from notif_assets.sandbox.broker import EmbeddedBroker
from notif_assets.sandbox.traffic import messages

# The embedded broker keeps 5 MiB a partition: as many of them as hold the whole traffic.
_MESSAGES_A_PARTITION = 30_000
_RATE = 1157  # messages a second of event time: 100 million a day
_CHUNK = 65_536


def main() -> None:
    """Makes the traffic, runs each source in a process of its own, prints a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.stages", description=__doc__)
    parser.add_argument("--messages", type=int, default=2_000_000)
    parser.add_argument("--sources", nargs="*", default=SOURCES, choices=SOURCES)
    arguments = parser.parse_args()
    partitions = max(12, -(-arguments.messages // _MESSAGES_A_PARTITION))
    with (
        tempfile.TemporaryDirectory(prefix="notif-assets-bench-") as folder,
        EmbeddedBroker(partitions=partitions) as broker,
    ):
        stored = Path(folder) / "messages.arrow"
        print(f"making {arguments.messages} messages in {partitions} partitions …", file=sys.stderr, flush=True)
        _make(arguments.messages, partitions, broker.bootstrap, stored)
        for source in arguments.sources:
            print(f"{source} …", file=sys.stderr, flush=True)
            command = [
                sys.executable,
                "-m",
                "bench.ingest",
                source,
                broker.bootstrap,
                str(stored),
                f"{folder}/{source}",
            ]
            run = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            _print(source, run)


def _make(number: int, partitions: int, bootstrap: str, stored: Path) -> None:
    """The same messages to the broker and to a file, dealt round to the partitions."""
    start = datetime.now(UTC) - timedelta(seconds=number / _RATE)
    producer = Producer(
        {"bootstrap.servers": bootstrap, "compression.type": "lz4", "linger.ms": 50, "batch.size": 262_144}
    )
    traffic = islice(messages(0, 5_000, start, _RATE), number)
    with pa.OSFile(str(stored), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        index = 0
        while chunk := list(islice(traffic, _CHUNK)):
            places = range(index, index + len(chunk))
            for place, message in zip(places, chunk, strict=True):
                producer.produce(
                    "notifications", message.value, partition=place % partitions, timestamp=message.timestamp
                )
                if place % 1_000 == 0:
                    producer.poll(0)
            producer.flush()
            batch = record_batch(
                [place % partitions for place in places],
                [place // partitions for place in places],
                [message.timestamp for message in chunk],
                [None] * len(chunk),
                [message.value for message in chunk],
            )
            writer.write_batch(batch)
            index += len(chunk)


def _print(source: str, run: dict[str, dict[str, float]]) -> None:
    messages = run["total"]["messages"]
    print(f"\n{source}: {messages:.0f} messages, peak memory {run['total']['peak_mb']:.0f} MB")
    print(f"{'stage':<42}{'messages/s':>12}{'CPU-s/million':>16}")
    for stage in (*STAGES, "total"):
        wall, cpu = run[stage]["wall"], run[stage]["cpu"]
        print(f"{stage:<42}{messages / wall:>12,.0f}{cpu / messages * 1e6:>16.2f}", flush=True)


if __name__ == "__main__":
    main()
