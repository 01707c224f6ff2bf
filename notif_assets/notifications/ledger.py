"""The ledger of batches: the ranges of each are written here before anything is read.

Belongs here: planning, what the ledger says of a batch, and up to when a table is complete. Doesn't: executing a
batch (bronze.py, silver.py, gold.py), which offsets a range gets (kafka/offsets.py).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import pyarrow as pa

from notif_assets.kafka.client import KafkaClient, TopicOffsets
from notif_assets.kafka.offsets import PlanRefused, next_offsets, plan_ranges
from notif_assets.lake import SCHEMAS, Lake, Scan, Table, until_committed
from notif_assets.notifications.marks import (
    NO_RECORD,
    Marks,
    columns_of,
    found_in_bronze,
    marks_after,
    marks_of,
    recognized,
)
from notif_assets.settings import Settings

Kind = Literal["kafka", "readmit", "dedup"]

QUIET = timedelta(minutes=1)
"""After this long without new messages an empty batch is planned, so that quiet hours become complete too."""

_BATCHES_BACK = 64  # looked at first; three runs are about as many

# Assumed size of a message before any is known: the first batch must fit in memory.
_UNKNOWN_BYTES = 16 * 1024


@dataclass(frozen=True)
class Batch:
    """One batch of the ledger.

    `ranges` maps each partition to [start, end), all empty unless its kind is kafka; `lag` counts the offsets that
    Kafka held beyond them when the batch was planned. `marks` are of what was taken before it, see marks.py.
    """

    number: int
    kind: Kind
    topic: str
    topic_id: str | None
    planned_at: datetime
    ranges: Mapping[int, tuple[int, int]]
    marks: Marks
    lag: int
    dedup_through: date | None
    readmit_reason: str | None

    @property
    def offsets(self) -> int:
        """How many offsets the batch spans."""
        return sum(end - start for start, end in self.ranges.values())


def read_batch(lake: Lake, ledger: Table, number: int) -> Batch:
    """The batch `number` as it was planned."""
    rows = lake.select("batch_ranges", {"batches": ledger.scan(batch=(number, number + 1))}).to_pylist()
    first = rows[0]
    return Batch(
        number=number,
        kind=first["kind"],
        topic=first["topic"],
        topic_id=first["topic_id"],
        planned_at=first["planned_at"],
        ranges={row["kafka_partition"]: (row["start_offset"], row["end_offset"]) for row in rows},
        marks=marks_of(rows),
        lag=sum(row["log_end_offset"] - row["end_offset"] for row in rows),
        dedup_through=first["dedup_through"],
        readmit_reason=first["readmit_reason"],
    )


def plan_from_kafka(lake: Lake, client: KafkaClient, settings: Settings, run_id: str, *, even_if_quiet: bool) -> bool:
    """Plans the next batch from what Kafka holds now. False if there is nothing to plan.

    An all-empty batch is planned after a quiet minute, or at once if `even_if_quiet` asks for proof that all was read.
    Raises PlanRefused if Kafka contradicts the ledger, and KafkaError if it can't be asked.
    """

    def attempt() -> bool:
        ledger = lake.table("ingest_batches")
        last = _last_rows(lake, ledger)
        # The time is taken before the request to Kafka: everything that existed then is in the answer.
        now = max([datetime.now(UTC), *(row["planned_at"] for row in last)])
        offsets = client.offsets()
        logs, ledger_ends = offsets.partitions, _ledger_ends(last)
        first = next_offsets(ledger_ends, logs)
        marks: Marks = {}
        if last:
            number = last[0]["batch"]
            marks = found_in_bronze(lake, marks_after(lake, last), number)
            refuse_another_topic(number, last[0]["topic_id"], client, marks, ledger_ends, offsets)
        planned = plan_ranges(first, logs, _limit(lake, settings))
        nothing_new = all(start == end for start, end in planned.values())
        if nothing_new and not even_if_quiet and last and now - last[0]["planned_at"] < QUIET:
            return False
        rows = [
            {
                "batch": ledger.watermark + 1,
                "kind": "kafka",
                "topic": offsets.topic,
                "topic_id": offsets.topic_id or (last[0]["topic_id"] if last else None),
                "kafka_partition": partition,
                "log_start_offset": logs[partition].start,
                "start_offset": start,
                "end_offset": end,
                "log_end_offset": logs[partition].end,
                "planned_at": now,
                "run_id": run_id,
                **columns_of(marks.get(partition, NO_RECORD)),
            }
            for partition, (start, end) in planned.items()
        ]
        _commit(ledger, rows, {"ranges": {str(p): r for p, r in planned.items()}})
        return True

    return until_committed(attempt)


def refuse_another_topic(
    batch: int,
    topic_id: str | None,
    client: KafkaClient,
    marks: Marks,
    ledger_ends: Mapping[int, int],
    offsets: TopicOffsets,
) -> None:
    """Raises PlanRefused if the topic is not the one that `batch` was planned on: by its id, where the broker tells
    ids, and by the records that were taken (`marks`, up to the offsets `taken`)."""
    refuse_another_id(batch, topic_id, offsets)
    matched = recognized(client, marks, ledger_ends, offsets)
    if topic_id is None and offsets.topic_id and any(ledger_ends.values()) and not matched:
        # A broker that learns to tell ids has the records that were taken.
        raise PlanRefused(
            f"topic {offsets.topic} has an id now, and had none when batch {batch} was planned, and none of the "
            "messages that were taken is there: it is another topic; ingest it into a lake of its own (NOTIF_LAKE)"
        )


def refuse_another_id(batch: int, topic_id: str | None, offsets: TopicOffsets) -> None:
    """Raises PlanRefused if the topic had an id when `batch` was planned, and has another one or none now."""
    if topic_id and not offsets.topic_id:
        raise PlanRefused(
            f"topic {offsets.topic} had an id when batch {batch} was planned, and this broker tells none: it is "
            "another cluster; point NOTIF_KAFKA_BOOTSTRAP at the one that this lake was read from"
        )
    if topic_id and topic_id != offsets.topic_id:
        raise PlanRefused(
            f"topic {offsets.topic} is not the one that batch {batch} was planned on: it was deleted and made anew; "
            "ingest the new one into a lake of its own (NOTIF_LAKE)"
        )


def deleted_before(lake: Lake) -> dict[int, int]:
    """How many offsets of each partition Kafka had dropped before the lake's first batch was planned, where any."""
    first = lake.table("ingest_batches").scan(batch=(1, 2))
    rows = lake.select("batch_ranges", {"batches": first}).to_pylist()
    return {row["kafka_partition"]: row["log_start_offset"] for row in rows if row["log_start_offset"]}


def deleted_before_text(deleted: Mapping[int, int]) -> str:
    """The sentence for people; of many partitions the first few."""
    sentences = [f"partition {partition}: offsets 0 to {end - 1}" for partition, end in sorted(deleted.items())]
    more = f"; and {len(sentences) - 5} more partitions" if len(sentences) > 5 else ""
    return (
        f"Kafka had dropped {sum(deleted.values())} offsets before this lake began ({'; '.join(sentences[:5])}{more}): "
        "their messages are not in it"
    )


@dataclass(frozen=True)
class Backlog:
    """What a run would find to do: offsets that no batch has taken, batches that customer_panel lacks, and how long ago
    the newest batch was planned (None: never)."""

    lag: int
    unfinished: int
    since_plan: timedelta | None

    @property
    def contradicts(self) -> bool:
        """Whether Kafka holds less than was taken, or another topic; a run will refuse and say why."""
        return self.lag < 0


def backlog(lake: Lake, client: KafkaClient) -> Backlog:
    """Compares Kafka with the ledger, and the ledger with the panel; writes nothing. Raises KafkaError, LakeError."""
    ledger = lake.table("ingest_batches")
    last = _last_rows(lake, ledger)
    offsets = client.offsets()  # read after the ledger, or offsets that another run reads meanwhile would seem lost
    logs = offsets.partitions
    try:
        if last:
            refuse_another_id(last[0]["batch"], last[0]["topic_id"], offsets)
        lag = sum(logs[partition].end - start for partition, start in next_offsets(_ledger_ends(last), logs).items())
    except PlanRefused:
        lag = -1
    return Backlog(
        lag=lag,
        unfinished=ledger.watermark - lake.table("customer_panel").watermark,
        since_plan=datetime.now(UTC) - last[0]["planned_at"] if last else None,
    )


def plan_move(
    lake: Lake,
    run_id: str,
    kind: Literal["readmit", "dedup"],
    *,
    dedup_through: date | None = None,
    readmit_reason: str | None = None,
) -> int | None:
    """Plans a batch that moves rows between tables and reads nothing; gives its number, None if nothing ever came or
    the days are deduplicated already.

    It keeps the time of the batch before it: Kafka was not asked, so the tables are not complete any further.
    """

    def attempt() -> int | None:
        ledger = lake.table("ingest_batches")
        last = _last_rows(lake, ledger)
        if kind == "dedup" and dedup_through is not None:
            known = deduplicated_through(lake)
            if known is not None and dedup_through <= known:
                return None
        marks = marks_after(lake, last) if last else {}
        rows = [
            {
                **row,
                **columns_of(marks[row["kafka_partition"]]),
                "batch": ledger.watermark + 1,
                "kind": kind,
                "start_offset": row["end_offset"],
                "run_id": run_id,
                "dedup_through": dedup_through,
                "readmit_reason": readmit_reason,
            }
            for row in last
        ]
        if not rows:
            return None
        _commit(ledger, rows, {"kind": kind})
        return ledger.watermark

    return until_committed(attempt)


def complete_until(lake: Lake, batch: int) -> datetime | None:
    """The instant up to which a table that holds batches up to `batch` is complete; None before the first catch-up.

    The ledger is read backwards, further and further until every partition has its answer. Plans are in order of time,
    so a batch before has no newer one, and what was caught up lately costs the same however long the ledger is.
    """
    for batches in _backwards(lake.table("ingest_batches"), batch + 1, None):
        found = lake.select("complete_until", {"batches": batches}, batch=batch)["complete_until"]
        answer: datetime | None = found[0].as_py()
        if answer is not None:
            return answer
    return None


def deduplicated_through(lake: Lake, before_batch: int | None = None) -> date | None:
    """The last day free of duplicates according to the batches before `before_batch` (None: all); None if none is.

    Deduplication goes in order of date, so the newest such batch says it.
    """
    ledger = lake.table("ingest_batches")
    end = ledger.watermark + 1 if before_batch is None else before_batch
    for batches in _backwards(ledger, end, end):
        found = lake.select("deduplicated_through", {"batches": batches})["deduplicated_through"]
        answer: date | None = found[0].as_py()
        if answer is not None:
            return answer
    return None


def _backwards(ledger: Table, before: int, end: int | None) -> Iterator[Scan]:
    """The batches up to `end` (exclusive; None: all newer ones): with the newest before `before`, then with twice as
    many more, and so on up to all."""
    first, many = before, _BATCHES_BACK
    while True:
        first, many = max(1, first - many), 2 * many
        yield ledger.scan(batch=(first, end))
        if first == 1:
            return


def _ledger_ends(last: list[dict[str, Any]]) -> dict[int, int]:
    return {row["kafka_partition"]: row["end_offset"] for row in last}


def _last_rows(lake: Lake, ledger: Table) -> list[dict[str, Any]]:
    last = ledger.watermark
    rows: list[dict[str, Any]] = lake.select(
        "batch_ranges", {"batches": ledger.scan(batch=(last, last + 1))}
    ).to_pylist()
    return rows


def _limit(lake: Lake, settings: Settings) -> int:
    """Offsets a batch may span, so that it holds about NOTIF_BATCH_BYTES, judged by the batch before."""
    bronze = lake.table("raw_notifications")
    newest = bronze.scan(batch=(bronze.watermark, bronze.watermark + 1))
    size = lake.select("value_size", {"records": newest})["bytes"][0].as_py() or _UNKNOWN_BYTES
    return max(1, min(settings.batch_messages, int(settings.batch_bytes // size)))


def _commit(ledger: Table, rows: list[dict[str, Any]], note: Mapping[str, Any]) -> None:
    ledger.append(pa.Table.from_pylist(rows, schema=SCHEMAS["ingest_batches"].arrow), rows[0]["batch"], note)
