"""`python -m bench.giants`: the memory that commands take when messages weigh what nobody expected.

Belongs here: mixtures of sizes, the commands that people run on each, the most memory that they took.
Doesn't: how fast anything is (__main__.py). The values compress well: Kafka bounds what lies on the wire, so a few
kilobytes there may be a gigabyte here.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from confluent_kafka import Producer

from bench.commands import run
from notif_assets.sandbox.broker import EmbeddedBroker

_BOUND = 800 * 10**6
_TOPIC = "giants"
_COMMANDS = (
    ("ingest", "--until-caught-up"),
    ("check",),
    ("report", "detailed", "--format", "csv", "--out", "detailed.csv"),
    ("rebuild", "notifications"),
    ("erase", "--customer", "2", "--yes"),
    ("maintain",),
)


@dataclass(frozen=True)
class Mixture:
    """Values to send, in rounds with an ingestion after each, so that one round misleads the plan of the next."""

    name: str
    codec: str
    rounds: tuple[Callable[[], Iterator[bytes]], ...]
    beyond: bool = False
    """Whether values are larger than a message may be: they must come through, in whatever memory it takes."""


def messages(number: int, payload_bytes: int, customer: int = 1) -> Callable[[], Iterator[bytes]]:
    """So many messages, each with a payload of so many bytes."""

    def values() -> Iterator[bytes]:
        payload = "x" * payload_bytes
        for place in range(number):
            yield json.dumps(
                {
                    "customer_id": customer,
                    "message_id": f"{payload_bytes}-{place}",
                    "customer_name": "Acme",
                    "channel": "Whatsapp",
                    "payload": payload,
                    "event_datetime": datetime.now(UTC).isoformat(),
                }
            ).encode()

    return values


MIXTURES = (
    Mixture("usual: 100,000 of 200 bytes", "lz4", (messages(100_000, 200),)),
    Mixture("20,000 tiny, then 30,000 of 50 kB", "lz4", (messages(20_000, 20), messages(30_000, 50_000))),
    Mixture(
        "1,000 tiny, then 4 of 100 MB, gzip'd", "gzip", (messages(1_000, 20), messages(4, 100_000_000)), beyond=True
    ),
    Mixture("1,000 tiny, then 48 valid of 14 MB, gzip'd", "gzip", (messages(1_000, 20), messages(48, 14_000_000))),
)


def main() -> None:
    """Runs every command on every mixture, prints the most memory of each, and the worst against the bound, which
    holds for messages of up to 16 MiB."""
    worst = 0
    for mixture in MIXTURES:
        peaks = []
        with tempfile.TemporaryDirectory() as folder, EmbeddedBroker(topic=_TOPIC, partitions=12) as broker:
            print(f"\n{mixture.name}")
            for values in mixture.rounds:
                _produce(broker.bootstrap, mixture.codec, values())
                peaks.append(_told(Path(folder), broker.bootstrap, _COMMANDS[0]))
            peaks += [_told(Path(folder), broker.bootstrap, command) for command in _COMMANDS[1:]]
        worst = worst if mixture.beyond else max(worst, *peaks)
    print(f"\nof messages up to 16 MiB the most was {worst / 10**6:.0f} MB\nratio {worst / _BOUND:.2f}")


def _told(home: Path, bootstrap: str, command: tuple[str, ...]) -> int:
    spent = run(home, {"NOTIF_KAFKA_BOOTSTRAP": bootstrap, "NOTIF_TOPIC": _TOPIC}, *command)
    print(
        f"  {' '.join(command):60} {spent.peak / 10**6:6.0f} MB  {spent.wall:6.1f} s"
        f"{'' if spent.code == 0 else f'  exit {spent.code}'}",
        flush=True,
    )
    return spent.peak


def _produce(bootstrap: str, codec: str, values: Iterator[bytes]) -> None:
    producer = Producer(
        {"bootstrap.servers": bootstrap, "compression.type": codec, "message.max.bytes": 10**9, "linger.ms": 5}
    )
    for number, value in enumerate(values):
        producer.produce(_TOPIC, value, partition=number % 12)
        if number % 100 == 0 or len(value) > 10**6:
            producer.flush()
    producer.flush()


if __name__ == "__main__":
    main()
