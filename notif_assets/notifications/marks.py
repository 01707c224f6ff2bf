"""Marks: the newest record read of each partition, by which the ledger recognizes its topic.

Belongs here: finding these records in raw_notifications, and comparing them with the records at their offsets in Kafka.
Doesn't: storing them (ledger.py), reading records of Kafka (kafka/).

A topic's offsets say nothing of its content: a log that lost its end grows again over the same offsets, and so does a
topic that was deleted and made anew. What was read there is then no longer what is there, and what came since would
never be read. So each plan carries a mark of the newest record taken from each partition, and Kafka must still have it.

What can't be told: a partition of which Kafka's retention deleted the record, or compaction, has no mark to compare,
nor has one that never brought a record. Retention deletes the oldest first, so all that was taken is then gone.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from notif_assets.kafka.client import KafkaClient, RecordMark, TopicOffsets, digest
from notif_assets.kafka.offsets import PlanRefused
from notif_assets.lake import Lake, Scan
from notif_assets.lake.tables import DataFile

NO_RECORD = RecordMark(-1, None, None)
"""The mark of a partition without a record so far."""

Marks = Mapping[int, RecordMark | None]
"""By partition; None: not known, raw_notifications must be asked."""

# A longer value is not hashed: its mark is its offset and its timestamp.
_MOST_BYTES = 64 * 1024
# What maintenance/redacted_values.py leaves of a name, and of values without fields.
_BLANKED_NAME = "apagado"
_BLANKED_VALUES = (b"", b"\xff", b"apagado")


def marks_of(rows: Iterable[Mapping[str, Any]]) -> dict[int, RecordMark | None]:
    """The marks that a batch of the ledger carries: of what was taken before it."""
    return {
        row["kafka_partition"]: None
        if row["taken_offset"] is None
        else RecordMark(row["taken_offset"], row["taken_timestamp"], row["taken_hash"])
        for row in rows
    }


def columns_of(mark: RecordMark | None) -> dict[str, Any]:
    """A mark as the ledger's columns."""
    if mark is None:
        return {"taken_offset": None, "taken_timestamp": None, "taken_hash": None}
    return {"taken_offset": mark.offset, "taken_timestamp": mark.timestamp, "taken_hash": mark.digest}


def marks_after(lake: Lake, last: list[dict[str, Any]]) -> dict[int, RecordMark | None]:
    """The marks of what was taken up to the end of the ledger's newest batch, of which `last` are the rows.

    A partition that the batch brought nothing of keeps its mark. If the batch is not read yet, the mark of a partition
    that it takes something of is not known.
    """
    marks: dict[int, RecordMark | None] = marks_of(last)
    taking = {row["kafka_partition"] for row in last if row["start_offset"] < row["end_offset"]}
    if not taking:
        return marks
    number, bronze = last[0]["batch"], lake.table("raw_notifications")
    if bronze.watermark < number:
        return marks | dict.fromkeys(taking)
    # Bronze may have been archived since: an older mark would make what the batch took look like a message behind it.
    return marks | dict.fromkeys(taking) | _newest(lake, bronze.scan(batch=(number, number + 1)))


def found_in_bronze(lake: Lake, marks: Marks, through: int) -> dict[int, RecordMark | None]:
    """The marks, with those that are not known looked up in raw_notifications up to batch `through`, newest files
    first. A lake of which the ledger had no marks needs this once.

    They stay unknown while somebody else still reads batches up to `through`: what bronze has by then is older.
    """
    unknown = {partition for partition, mark in marks.items() if mark is None}
    found: dict[int, RecordMark] = {}
    bronze = lake.table("raw_notifications")
    if bronze.watermark < through:
        return dict(marks)
    files = sorted(bronze.data_files() if unknown else [], key=_newest_batch)
    while files and unknown:
        group = [files.pop()]
        while files and _newest_batch(files[-1]) >= min(file.bounds("batch")[0] or 0 for file in group):
            group.append(files.pop())  # batches that lie in several files are looked at together
        marked = _newest(lake, bronze.scan_files(group, batch=(None, through + 1)))
        found |= {partition: mark for partition, mark in marked.items() if partition in unknown}
        unknown -= found.keys()
    return {partition: found.get(partition, NO_RECORD) if mark is None else mark for partition, mark in marks.items()}


def _newest_batch(file: DataFile) -> int:
    newest: int = file.bounds("batch")[1] or 0
    return newest


def _newest(lake: Lake, records: Scan) -> dict[int, RecordMark]:
    """The mark of the newest record of each partition among those of the scan."""
    newest = lake.select("newest_records", {"records": records})
    if not newest.num_rows:
        return {}
    rows = lake.select("marked_records", {"records": records, "newest": newest}, most_bytes=_MOST_BYTES)
    return {row["kafka_partition"]: _mark(row) for row in rows.to_pylist()}


def _mark(row: Mapping[str, Any]) -> RecordMark:
    known = _is_unredacted(row["value"])
    return RecordMark(row["kafka_offset"], row["kafka_timestamp"], digest(row["key"], row["value"]) if known else None)


def _is_unredacted(value: bytes | None) -> bool:
    """Whether a value of bronze is certainly what Kafka gave: upkeep may have blanked it since."""
    if value is None:
        return False
    try:
        document = msgspec.json.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return value.strip() not in _BLANKED_VALUES and not value.startswith(b"[[")
    if not isinstance(document, dict):
        return False
    payload, name = document.get("payload"), document.get("customer_name")
    named = isinstance(name, str) and name != "" and not name.startswith(_BLANKED_NAME)
    return named or (isinstance(payload, str) and payload != "")


def recognized(client: KafkaClient, marks: Marks, ledger_ends: Mapping[int, int], offsets: TopicOffsets) -> int:
    """Of how many partitions Kafka still has the marked record; `taken` is the end of what was taken of each.

    Raises PlanRefused if Kafka has another record at the offset of a mark, or one behind it that was not there when
    what lies before the end was taken.
    """
    ranges = {
        partition: (mark.offset, ledger_ends[partition])
        for partition, mark in marks.items()
        if mark is not None and mark.offset >= 0 and _is_held(offsets, partition, mark.offset, ledger_ends[partition])
    }
    matched = 0
    for partition, found in client.first_records(ranges).items() if ranges else ():
        mark = marks[partition]
        assert mark is not None
        if found and found[0].is_of(mark):
            matched += 1
            found = found[1:]
        if found:
            raise PlanRefused(
                f"partition {partition} of topic {offsets.topic} has another message at offset {found[0].offset} than "
                "the one that was taken there: its log lost what was taken and grew again, or the topic was deleted "
                "and made anew; ingest what it holds now into a lake of its own (NOTIF_LAKE)"
            )
    return matched


def _is_held(offsets: TopicOffsets, partition: int, offset: int, end: int) -> bool:
    log = offsets.partitions.get(partition)
    return log is not None and log.start <= offset and end <= log.end
