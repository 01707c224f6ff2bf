"""`python -m bench [--messages N] [--peer spark]`: the command that people run, on Apache Kafka, with either client.

Belongs here: the traffic, the runs of `ingest --until-caught-up`, alternating, what they are held against. Doesn't: one
stage's cost (stages.py), how old a message gets (freshness.py).

The limits are what this machine reads of the same topic if nothing else is done, and what decoding alone takes: no
ingestion is faster. The last line says how many times as fast as the peer the faster client is; without a peer, how
much of the first limit it reaches.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from statistics import median

import msgspec
from confluent_kafka import Producer

from bench.commands import Spent, run
from bench.spark import run_peer
from notif_assets.kafka.offsets import plan_ranges
from notif_assets.kafka.open import open_client
from notif_assets.lake import Lake
from notif_assets.notifications.validity import Message
from notif_assets.sandbox.traffic import messages
from notif_assets.settings import Settings
from notif_assets_tests.kafka.apache.broker import ApacheKafka

_TOPIC = "notifications"
_PARTITIONS = 12
_CUSTOMERS = 5_000
_CLIENTS = ("confluent", "kafka-python")
_TABLES = ("raw_notifications", "notifications", "rejected_notifications", "minute_aggregates", "customer_panel")


def main() -> None:
    """Makes the traffic, runs each client in turns, prints each run, the medians, the limits and the ratio."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--messages", type=int, default=2_000_000)
    parser.add_argument("--hours", type=float, default=4, help="of event time that the messages lie in")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", choices=["spark"], help="a Spark Structured Streaming job on the same topic as well")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="notif-assets-bench-") as folder,
        ApacheKafka(Path(folder) / "kafka") as kafka,
    ):
        kafka.start()
        kafka.create_topic(_TOPIC, _PARTITIONS)
        print(f"{arguments.messages} messages of {arguments.hours:g} hours in {_PARTITIONS} partitions …", flush=True)
        _produce(kafka.bootstrap, arguments.messages, arguments.hours)
        spent: dict[str, list[Spent]] = {client: [] for client in _CLIENTS}
        rows: set[tuple[int, ...]] = set()
        for number in range(arguments.rounds):
            for client in _CLIENTS:
                home = Path(folder) / f"{client}-{number}"
                home.mkdir()
                known = {
                    "NOTIF_KAFKA_BOOTSTRAP": kafka.bootstrap,
                    "NOTIF_TOPIC": _TOPIC,
                    "NOTIF_KAFKA_CLIENT": client,
                }
                one = run(home, known, "ingest", "--until-caught-up")
                spent[client].append(one)
                rows.add(_rows(home))
                print(_line(client, arguments.messages, one, _bytes(home)), flush=True)
            if arguments.peer:
                home = Path(folder) / f"spark-{number}"
                home.mkdir()
                one, counted = run_peer(home, kafka.bootstrap, _TOPIC)
                spent.setdefault("spark", []).append(one)
                print(f"{_line('spark', arguments.messages, one, _bytes(home))}; rows {counted}", flush=True)
        limit = _most_read(kafka.bootstrap, arguments.messages)
        best = 0.0
        print("\nmedians")
        for client, runs in spent.items():
            speed = arguments.messages / median(one.wall for one in runs)
            if client == "spark":
                limit = speed
            else:
                best = max(best, speed)
            print(f"  {client:<14}{speed:>10,.0f} msg/s {_cpu(runs, arguments.messages):>8.2f} CPU-s per million")
        print(f"rows of {', '.join(_TABLES)}: {'the same in every run' if len(rows) == 1 else rows}")
        print(f"ratio {best / limit:.2f}")


def _cpu(runs: list[Spent], number: int) -> float:
    return median(one.cpu for one in runs) / number * 1e6


def _line(name: str, number: int, spent: Spent, size: int) -> str:
    return (
        f"  {name:<14}{number / spent.wall:>10,.0f} msg/s {spent.cpu / number * 1e6:>8.2f} CPU-s per million "
        f"{spent.peak / 10**6:>6.0f} MB, {size / number:.0f} bytes a message"
        + (f", exit {spent.code}" if spent.code else "")
    )


def _produce(bootstrap: str, number: int, hours: float) -> None:
    rate = number / (hours * 3600)
    producer = Producer(
        {"bootstrap.servers": bootstrap, "compression.type": "lz4", "linger.ms": 50, "batch.size": 262_144}
    )
    start = datetime.now(UTC) - timedelta(hours=hours)
    for place, message in enumerate(islice(messages(0, _CUSTOMERS, start, rate), number)):
        producer.produce(_TOPIC, message.value, partition=place % _PARTITIONS, timestamp=message.timestamp)
        if place % 1_000 == 0:
            producer.poll(0)
        if place % 50_000 == 0:
            producer.flush()
    producer.flush()


def _rows(home: Path) -> tuple[int, ...]:
    """How many rows each table has."""
    with Lake(home / "data" / "lake") as lake:
        return tuple(lake.table(name).scan().rows_at_most for name in _TABLES)


def _bytes(home: Path) -> int:
    return sum(path.stat().st_size for path in home.rglob("*.parquet"))


def _most_read(bootstrap: str, number: int) -> float:
    """Messages a second that the client gives if nothing is done with them; prints what decoding alone takes too."""
    settings = Settings(kafka_bootstrap=bootstrap, topic=_TOPIC, kafka_client="confluent")
    values: list[bytes | None] = []

    def reading() -> None:
        with open_client(settings) as client:
            logs = client.offsets().partitions
            at = {partition: log.start for partition, log in logs.items()}
            while at != {partition: log.end for partition, log in logs.items()}:
                some = plan_ranges(at, logs, settings.batch_messages)
                for batch in client.read(some):
                    if len(values) < 200_000:
                        values.extend(batch["value"].to_pylist())
                at = {partition: end for partition, (_, end) in some.items()}

    def decoding() -> None:
        decode = msgspec.json.Decoder(Message).decode
        for value in values:
            try:
                decode(value or b"")
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue

    print("\nlimits")
    speed = _limit("reading alone", number, reading)
    _limit("decoding alone", len(values), decoding)
    return speed


def _limit(name: str, number: int, step: Callable[[], None]) -> float:
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"  {name:<14}{number / wall:>10,.0f} msg/s {cpu / number * 1e6:>8.2f} CPU-s per million", flush=True)
    return number / wall


if __name__ == "__main__":
    main()
