"""A small world for the tests of this room: a topic in memory, a lake fed from it, and what the lake holds.

Belongs here: making that world. Doesn't: what maintenance must leave of it (the tests).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from notif_assets.kafka.client import SCHEMA, Ranges, RecordMark, TopicOffsets, first_two_marks
from notif_assets.kafka.offsets import Log
from notif_assets.lake import SCHEMAS, Lake
from notif_assets.maintenance.fingerprint import Fingerprint, fingerprint_of
from notif_assets.notifications import bronze, catch_up
from notif_assets.notifications.ledger import plan_move
from notif_assets.settings import Settings

START = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=12)


@dataclass
class MemoryLog:
    """A topic of two partitions in memory; a KafkaClient."""

    records: dict[int, list[tuple[datetime, bytes | None, bytes | None]]] = field(
        default_factory=lambda: {0: [], 1: []}
    )

    def send(self, partition: int, value: bytes | None, at: datetime, key: bytes | None = b"key") -> None:
        self.records[partition].append((at, key, value))

    def offsets(self) -> TopicOffsets:
        return TopicOffsets("notifications", None, {p: Log(0, len(r)) for p, r in self.records.items()})

    def read(self, ranges: Ranges) -> Iterator[pa.RecordBatch]:
        for partition, (start, end) in ranges.items():
            rows = [
                {
                    "kafka_partition": partition,
                    "kafka_offset": offset,
                    "kafka_timestamp": at,
                    "key": key,
                    "value": value,
                }
                for offset, (at, key, value) in enumerate(self.records[partition][start:end], start)
            ]
            yield from pa.Table.from_pylist(rows, schema=SCHEMA).to_batches()

    def first_records(self, ranges: Ranges) -> dict[int, list[RecordMark]]:
        return first_two_marks(self.read(ranges), ranges)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass


def message(number: int, at: datetime, customer: int = 0, **other: Any) -> bytes:
    """A valid message."""
    customer = customer or number % 5 + 1
    fields: dict[str, Any] = {
        "customer_id": customer,
        "message_id": f"m{number}",
        "customer_name": f"Cliente {customer}",
        "channel": ("Whatsapp", "SMS")[number % 2],
        "payload": f"segredo {number}",
        "event_datetime": at.isoformat(timespec="milliseconds"),
    }
    return json.dumps(fields | other, ensure_ascii=False).encode()


def bad_values(at: datetime) -> list[bytes | None]:
    """One value for each way to be rejected, most of them telling the customer's name."""
    deep = message(900, at, 3).rstrip(b"}") + b',"x":' + b"[" * 101 + b"]" * 101 + b"}"
    return [
        None,
        b"",
        b"\xff" + message(901, at, 3),
        deep,
        message(902, at, 3)[:-9],
        b"\0\0\0\0\x07" + message(913, at, 3),
        b'"Cliente 3"',
        b'{"customer_id": 3, "payload": "segredo"}',
        message(903, at, 3, payload={"segredo": "Cliente 3"}),
        message(904, at, 3, customer_id="3"),
        message(905, at, 3, customer_id=3 * 10**30),
        message(906, at, 3, customer_name=""),
        message(907, at, 3, customer_name=["Cliente 3"], phone="segredo"),
        message(908, at, 3, event_datetime="ontem"),
        message(909, at - timedelta(days=500), 3),
        message(910, at + timedelta(days=3), 3),
        message(911, at, 3, payload="segredo" * 2000),
        b"segredo" * 2000,
        message(913, at, 3, customer_name="Cliente\n3"),
        message(914, at, 3, customer_name="Cliente 3" * 1000),
        message(915, at, 3, customer_name="Cliente 3\x85" * 200, channel="What\0"),
        message(916, at - timedelta(days=9999), 3),
        message(912, at, 3, phone="segredo", nested={"customer_name": "Cliente 3"}),
    ]


class World:
    """A lake, its settings, and the topic it is fed from."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.log = MemoryLog()
        roots: dict[str, Any] = {"data": root, "lake_root": root / "lake", "max_message_bytes": 12_000}
        self.settings = Settings(**(roots | settings))
        self.lake = Lake(self.settings.lake)
        self.sent = 0

    def send(self, count: int, at: datetime, step: timedelta = timedelta(seconds=30)) -> None:
        """`count` messages from `at` on, each tenth sent twice."""
        for n in range(count):
            moment = at + n * step
            value = message(self.sent, moment)
            self.log.send(self.sent % 2, value, moment, str(self.sent % 5 + 1).encode())
            if n % 10 == 9:
                self.log.send(self.sent % 2, value, moment)
            self.sent += 1

    def ingest(self) -> None:
        """One batch of all there is, through to the panel."""
        bronze.advance_bronze_by_one(self.lake, self.log, self.settings, "test", even_if_quiet=True)
        catch_up.advance_tables(self.lake, self.settings)

    def fill(self) -> None:
        """Several days with everything: duplicates in and across batches, conflicts, late and bad messages, moves."""
        for hour in range(0, 60, 6):
            at = START + timedelta(hours=hour)
            self.send(40, at)
            if hour == 12:
                for value in bad_values(at):
                    self.log.send(0, value, at)
            if hour == 18:
                self.log.send(1, message(1, START + timedelta(seconds=30), payload="outro segredo"), at)
                self.log.send(1, message(900_000, START + timedelta(hours=1)), at)  # late
            if hour == 24:
                self.log.send(1, message(2, START + timedelta(minutes=61), customer=3), at)  # another hour: a duplicate
                self.log.send(1, message(3, START + timedelta(minutes=62), payload="terceiro"), at)  # and a conflict
            self.ingest()
        plan_move(self.lake, "test", "dedup", dedup_through=(START + timedelta(days=1)).date())
        self.finish()
        plan_move(self.lake, "test", "readmit", readmit_reason="duplicate_conflict")
        self.finish()
        self.send(40, START + timedelta(hours=30))
        self.ingest()

    def finish(self) -> None:
        """Executes what is planned."""
        catch_up.execute_planned(self.lake, self.log, self.settings)

    def contents(self, *names: str) -> dict[str, Fingerprint]:
        """What each table holds."""
        lake = self.lake
        return {name: fingerprint_of(lake, lake.table(name).scan()) for name in names or SCHEMAS}

    def watermarks(self) -> dict[str, int]:
        """Where each table stands."""
        return {name: self.lake.table(name).watermark for name in SCHEMAS}

    def files(self, name: str) -> int:
        """How many data files the table has."""
        return len(self.lake.table(name).data_files())

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The table's rows."""
        found: list[dict[str, Any]] = self.lake.rows(self.lake.table(name).scan()).to_pylist()
        return found

    def places(self) -> list[tuple[int, int]]:
        """Partition and offset of every row of silver, sorted: each offset must be there once."""
        return sorted(
            (row["kafka_partition"], row["kafka_offset"])
            for name in ("notifications", "rejected_notifications")
            for row in self.rows(name)
        )

    def require_exact(self) -> None:
        """Every offset once in bronze and in silver, and minutes that add up."""
        everything = sorted((p, o) for p, records in self.log.records.items() for o in range(len(records)))
        assert self.places() == everything
        by_key: dict[tuple[int, str, datetime], int] = {}
        for row in self.rows("notifications"):
            key = row["customer_id"], row["channel"], row["event_datetime"].replace(second=0, microsecond=0)
            by_key[key] = by_key.get(key, 0) + 1
        minutes = {
            (r["customer_id"], r["channel"], r["minute"]): r["notifications"] for r in self.rows("minute_aggregates")
        }
        assert minutes == by_key


def days(first: date, count: int) -> list[date]:
    """`count` days from `first` on."""
    return [first + timedelta(days=n) for n in range(count)]


def by_reason(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many rows have each reason."""
    found: dict[str, int] = {}
    for row in rows:
        found[row["reason"]] = found.get(row["reason"], 0) + 1
    return found
