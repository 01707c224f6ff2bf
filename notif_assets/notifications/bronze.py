"""raw_notifications: every record of the topic once, as received.

Belongs here: executing the batches of the ledger, exactly as planned. Doesn't: planning (ledger.py).
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

import pyarrow as pa

from notif_assets.errors import Refusal
from notif_assets.kafka.client import KafkaClient, OffsetsDeleted, OpenClient, TopicOffsets
from notif_assets.kafka.offsets import deleted_part
from notif_assets.lake import SCHEMAS, Lake, LakeError, until_committed
from notif_assets.lake.staging import append
from notif_assets.notifications.ledger import Batch, plan_from_kafka, read_batch, refuse_another_topic
from notif_assets.notifications.marks import found_in_bronze
from notif_assets.settings import Settings


class OffsetsLost(Refusal):
    """Kafka deleted offsets before they were read. Ingestion stops until a person accepts the loss."""


@dataclass(frozen=True)
class BronzeAdvance:
    """What one batch brought into bronze."""

    batch: Batch
    records: int
    value_bytes: int
    seconds: float


AdvanceBronze: TypeAlias = Callable[[Lake, OpenClient, Settings, str], Iterator[BronzeAdvance]]
"""Takes the batches of the run with that id, and gives each when it is done."""


def advance_bronze(lake: Lake, kafka: OpenClient, settings: Settings, run_id: str) -> Iterator[BronzeAdvance]:
    """Executes batches until everything is read, at most NOTIF_RUN_MESSAGES or NOTIF_RUN_SECONDS. Raises as
    advance_bronze_by_one."""
    started, records = time.monotonic(), 0
    with kafka() as client:
        while advance := advance_bronze_by_one(lake, client, settings, run_id):
            records += advance.records
            yield advance
            late = time.monotonic() - started > settings.run_seconds
            if not advance.batch.lag or records >= settings.run_messages or late:
                break


def advance_bronze_by_one(
    lake: Lake, client: KafkaClient, settings: Settings, run_id: str, *, even_if_quiet: bool = False
) -> BronzeAdvance | None:
    """Executes the batch that was planned and not executed, or else plans one and executes it; None if all is read.

    Raises OffsetsLost, PlanRefused, KafkaError, LakeError; whatever was committed by then stays good.
    """
    advance = execute_next_batch(lake, client)
    if advance is None and plan_from_kafka(lake, client, settings, run_id, even_if_quiet=even_if_quiet):
        advance = execute_next_batch(lake, client)
    return advance


def execute_next_batch(lake: Lake, client: KafkaClient) -> BronzeAdvance | None:
    """Executes the batch that was planned and not executed; None if there is none. Raises as advance_bronze_by_one."""

    def attempt() -> BronzeAdvance | None:
        started = time.monotonic()
        bronze, ledger = lake.table("raw_notifications"), lake.table("ingest_batches")
        if ledger.watermark < bronze.watermark:  # another plan of that number would span other offsets
            raise LakeError(
                f"ingest_batches ends at batch {ledger.watermark} and raw_notifications at {bronze.watermark}: the "
                "ledger has lost what was planned; restore ingest_batches from a backup"
            )
        if ledger.watermark == bronze.watermark:
            return None
        batch = read_batch(lake, ledger, bronze.watermark + 1)
        value_bytes = 0

        def weighed() -> Iterator[pa.Table]:
            nonlocal value_bytes
            for records in _read(lake, client, batch):
                value_bytes += records["value"].nbytes
                yield records

        note = {"ranges": {str(p): r for p, r in batch.ranges.items()}}
        records = append(bronze, weighed(), batch.number, note)
        return BronzeAdvance(batch, records, value_bytes, time.monotonic() - started)

    return until_committed(attempt)


def _read(lake: Lake, client: KafkaClient, batch: Batch) -> Iterator[pa.Table]:
    """The records of the batch's ranges, in pieces as Kafka gives them."""
    wanted = {p: (start, end) for p, (start, end) in batch.ranges.items() if start < end}
    if not wanted:
        return
    offsets = client.offsets()
    _recognize(lake, client, batch, offsets)  # another topic has other messages at these offsets
    wanted = _without_losses(lake, offsets, batch, wanted)
    try:
        for piece in client.read(wanted):
            yield _as_bronze(batch, piece)
    except OffsetsDeleted as error:  # between the check above and the read
        raise OffsetsLost(_loss_message(batch.number, {error.partition: (error.start, error.log_start)})) from error


def _as_bronze(batch: Batch, piece: pa.RecordBatch) -> pa.Table:
    """The columns of raw_notifications for records of the batch."""
    read = pa.Table.from_batches([piece])
    constants = {
        "batch": pa.scalar(batch.number, pa.int64()),
        "topic": pa.scalar(batch.topic),
        "ingested_at": pa.scalar(batch.planned_at, pa.timestamp("us", "UTC")),
        "ingest_date": pa.scalar(batch.planned_at.date()),
    }
    for name, value in constants.items():
        read = read.append_column(name, pa.repeat(value, read.num_rows))
    return read.select(SCHEMAS["raw_notifications"].arrow.names)


def _recognize(lake: Lake, client: KafkaClient, batch: Batch, offsets: TopicOffsets) -> None:
    ledger_ends = {partition: start for partition, (start, _) in batch.ranges.items()}
    # The plan may lack marks: the batch before was not read yet when it was made.
    marks = found_in_bronze(lake, batch.marks, batch.number - 1)
    refuse_another_topic(batch.number, batch.topic_id, client, marks, ledger_ends, offsets)


def _without_losses(
    lake: Lake, offsets: TopicOffsets, batch: Batch, wanted: Mapping[int, tuple[int, int]]
) -> dict[int, tuple[int, int]]:
    """The ranges without accepted losses. Raises OffsetsLost for other losses."""
    accepted = _accepted(lake, batch.number)
    remaining = {p: (max(start, min(accepted.get(p, start), end)), end) for p, (start, end) in wanted.items()}
    missing = _losses(offsets, remaining)
    if missing:
        raise OffsetsLost(_loss_message(batch.number, missing))
    return remaining


def _losses(offsets: TopicOffsets, wanted: Mapping[int, tuple[int, int]]) -> dict[int, tuple[int, int]]:
    partitions = offsets.partitions
    found = {p: deleted_part(start, end, partitions[p].start) for p, (start, end) in wanted.items() if p in partitions}
    return {p: loss for p, loss in found.items() if loss}


def _accepted(lake: Lake, batch: int) -> dict[int, int]:
    rows = lake.rows(lake.table("ingest_losses").scan(batch=(batch, batch + 1))).to_pylist()
    ends: dict[int, int] = {}
    for row in rows:
        ends[row["kafka_partition"]] = max(row["end_offset"], ends.get(row["kafka_partition"], 0))
    return ends


def _loss_message(batch: int, missing: Mapping[int, tuple[int, int]]) -> str:
    ranges = "; ".join(f"partition {p}: offsets {start} to {end - 1}" for p, (start, end) in sorted(missing.items()))
    return (
        f"Kafka deleted offsets of batch {batch} before they were read ({ranges}). They can't be had back from Kafka; "
        f"`notif-assets accept-loss --batch {batch}` records the loss and lets ingestion go on"
    )


def accept_loss(lake: Lake, client: KafkaClient, number: int, accepted_by: str) -> dict[int, tuple[int, int]]:
    """Records that the offsets which Kafka no longer holds of batch `number` are lost; gives what was recorded.

    Raises ValueError if the batch was never planned or is already read.
    """

    def attempt() -> dict[int, tuple[int, int]]:
        losses, ledger = lake.table("ingest_losses"), lake.table("ingest_batches")
        if not 0 < number <= ledger.watermark:
            raise ValueError(f"batch {number} was never planned; the newest is {ledger.watermark}")
        if number <= lake.table("raw_notifications").watermark:
            raise ValueError(f"batch {number} was read, it lost nothing that could still be accepted")
        batch, accepted, offsets = read_batch(lake, ledger, number), _accepted(lake, number), client.offsets()
        _recognize(lake, client, batch, offsets)
        wanted = {p: (max(start, accepted.get(p, start)), end) for p, (start, end) in batch.ranges.items()}
        missing = _losses(offsets, wanted)
        if missing:
            now = datetime.now(UTC)
            rows = [
                {
                    "batch": number,
                    "kafka_partition": partition,
                    "start_offset": start,
                    "end_offset": end,
                    "accepted_by": accepted_by,
                    "accepted_at": now,
                }
                for partition, (start, end) in sorted(missing.items())
            ]
            losses.append(pa.Table.from_pylist(rows, schema=SCHEMAS["ingest_losses"].arrow))
        return missing

    return until_committed(attempt)
