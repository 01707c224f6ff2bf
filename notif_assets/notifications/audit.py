"""Invariants of the tables between Kafka and the panel. Each is recomputed in another way than the tables were.

Belongs here: findings, as plain sentences that say where to look; an empty list is a pass. Doesn't: when they are
checked (asset checks, closing a day).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from notif_assets.core.days import day_bounds
from notif_assets.core.texts import quote_odd
from notif_assets.lake import Lake, Scan
from notif_assets.lake.keys import files_without
from notif_assets.lake.staging import rows_by_partition
from notif_assets.notifications.gold import moves_between
from notif_assets.notifications.landings import all_land_once
from notif_assets.notifications.ledger import complete_until
from notif_assets.notifications.repeated import repeated_keys
from notif_assets.notifications.silver import messages_removed_by
from notif_assets.notifications.validity import REASONS, REPEATED
from notif_assets.settings import Settings

_BUCKET_ROWS = 4_000_000
_SLICE_RECORDS = 4_000_000
_MANY_OFFSETS = 50_000  # of a partition: of fewer the engine alone tells sooner
_REPLAY = "`notif-assets rebuild notifications` replays both tables from raw_notifications"
_FIRST_OF_ALL = (
    "notifications may have lost some: where `notif-assets check` finds offsets that are in no table, first "
    "`notif-assets rebuild notifications`, else "
)
_RESTORE = "restore the lake from a backup"
_FEW = 10  # rejected messages: no share of fewer is worth a word


def offsets_taken_once(lake: Lake, first: int, last: int) -> list[str]:
    """Batches from `first` to `last` whose records are not exactly the accepted plus the rejected ones.

    Each record lies within the batch's range, once, and once in notifications or rejected_notifications. Batches that
    moved rows afterwards are followed: what counts is where a record is now.
    """
    span = (first, last + 1)
    batches = lake.table("ingest_batches").scan(batch=span)
    reach = lake.select("offset_reach", {"batches": batches}).to_pylist()[0]
    offsets = (reach["first_offset"], reach["end_offset"])
    landed = {"batch": (first, None), "kafka_offset": offsets}
    inputs = {
        "batches": batches,
        "records": lake.table("raw_notifications").scan(batch=span),
        "accepted": lake.table("notifications").scan(**landed),
        "rejected": lake.table("rejected_notifications").scan(**landed),
    }
    if offsets[1] - offsets[0] > _MANY_OFFSETS and all_land_once(lake, **inputs):
        return []
    findings = lake.select("offset_findings", inputs)
    return [
        f"batch {row['batch']}, partition {row['kafka_partition']}: {row['places']} offsets {row['finding']}, "
        f"the first is {row['first_offset']}; {_REPLAY if row['silver_is_wrong'] else _RESTORE}"
        for row in findings.to_pylist()
    ]


def every_offset_once(lake: Lake, at_most: int = _SLICE_RECORDS) -> list[str]:
    """As offsets_taken_once, of every batch that bronze still holds, in slices of at most about so many offsets."""
    last = lake.table("rejected_notifications").watermark
    held = lake.table("raw_notifications").scan(batch=(None, last + 1))
    span = lake.select("batch_span", {"notifications": held})["first_batch"][0].as_py()
    if span is None:
        return []
    batches = lake.table("ingest_batches").scan(batch=(span, last + 1))
    sizes = lake.select("batch_sizes", {"batches": batches})
    found, first, offsets = [], span, 0
    for batch, size in zip(sizes["batch"].to_pylist(), sizes["offsets"].to_pylist(), strict=True):
        if offsets and offsets + size > at_most:
            found += offsets_taken_once(lake, first, batch - 1)
            first, offsets = batch, 0
        offsets += size
    return found + offsets_taken_once(lake, first, last)


def repeated_messages(lake: Lake, notifications: Scan) -> list[str]:
    """Messages (customer_id, message_id) that occur more than once in the given rows."""
    return _sentences(
        lake.select("repeated_messages", {"notifications": part, "repeated_hashes": hashes})
        for part, hashes in repeated_keys(lake, notifications)
    )


def _sentences(counts: Iterable[pa.Table]) -> list[str]:
    """One for each customer: how many of the messages are there twice, by counts (customer_id, messages) of parts."""
    found: Counter[int] = Counter()
    for rows in counts:
        found.update({row["customer_id"]: row["messages"] for row in rows.to_pylist()})
    return [f"customer {customer} has {messages} messages twice" for customer, messages in sorted(found.items())]


def repeated_in_hours(lake: Lake, after: int) -> list[str]:
    """Messages that are twice in one hour, of which batches after `after` brought at least one.

    Of what was there before, only these messages' keys are looked for, in files that may hold them.
    """
    notifications = lake.table("notifications")
    new = notifications.scan(batch=(after + 1, None))
    customers = rows_by_partition(notifications.schema, lake.select("customers_of_hours", {"messages": new}))
    wanted = {hour: rows["customer_id"].to_numpy() for hour, rows in customers.items()}
    before = notifications.scan_holding("customer_id", wanted, batch=(None, after + 1))
    hashes = lake.select("key_hashes", {"keys": replace(new, with_positions=True)})["key_hash"].to_numpy()
    before = before.without(files_without(before, hashes))
    buckets = 1 + new.rows_at_most // _BUCKET_ROWS
    return _sentences(
        lake.select("repeated_in_hours", {"new": new, "before": before}, buckets=buckets, bucket=bucket)
        for bucket in range(buckets)
    )


def minutes_that_differ(lake: Lake, after: int | None = None) -> list[str]:
    """Hours whose minutes do not add up to their messages, among those touched after batch `after` (None: all).

    Messages are counted up to the watermark of minute_aggregates, because another run may have advanced silver
    meanwhile. Hours from which a later batch removed duplicates are left to the check after that batch.
    """
    aggregates, notifications = lake.table("minute_aggregates"), lake.table("notifications")
    through = aggregates.watermark
    touched = notifications.scan(batch=(None if after is None else after + 1, None))
    hours = touched.partitions
    if after is None:
        hours |= aggregates.scan().partitions
    for number in moves_between(lake, lake.table("ingest_batches"), through, notifications.watermark):
        events = [event.astimezone(UTC) for event in messages_removed_by(lake, number)["event_datetime"].to_pylist()]
        hours -= {(event.date(), event.hour) for event in events}
    messages: Counter[tuple[Any, ...]] = Counter(dict.fromkeys(hours, 0))
    if through == notifications.watermark:  # the Delta log knows how many rows each file has
        messages.update(notifications.rows_of(hours))
    else:
        stored = notifications.scan(partitions=hours, batch=(None, through + 1))
        for row in lake.select("hour_messages", {"notifications": stored}).to_pylist():
            messages[row["event_date"], row["event_hour"]] = row["messages"]
    counted = lake.select("hour_counts", {"minutes": aggregates.scan(partitions=hours)}).to_pylist()
    minutes = {(row["event_date"], row["event_hour"]): row["notifications"] for row in counted}
    return [
        f"{day} {hour:02d}h: {messages[day, hour]} messages, {minutes.get((day, hour), 0)} in minute_aggregates; "
        f"{_FIRST_OF_ALL if messages[day, hour] < minutes.get((day, hour), 0) else ''}"
        f"`notif-assets rebuild minute_aggregates --from {day} --to {day}`"
        for day, hour in sorted(hours)
        if messages[day, hour] != minutes.get((day, hour), 0)
    ]


def panel_differences(lake: Lake, settings: Settings) -> list[str]:
    """Customers whose panel is not what notifications hold for the panel's day."""
    panel = lake.table("customer_panel")
    rows = lake.rows(panel.scan()).to_pylist()
    if not rows:
        return []
    start, end = day_bounds(rows[0]["billing_date"], settings.zone)
    messages = lake.table("notifications").scan(event_datetime=(start, end), batch=(None, panel.watermark + 1))
    counted = {
        (row["customer_id"], row["channel"]): row["notifications"]
        for row in lake.select("message_counts", {"notifications": messages}).to_pylist()
    }
    shown_counts = {(row["customer_id"], row["channel"]): row["notifications"] for row in rows if row["notifications"]}
    return [
        f"customer {customer}, {quote_odd(channel)}: the panel shows {shown_counts.get((customer, channel), 0)}, "
        f"notifications hold {counted.get((customer, channel), 0)}; `notif-assets rebuild customer_panel`"
        for customer, channel in sorted(shown_counts.keys() | counted.keys())
        if shown_counts.get((customer, channel), 0) != counted.get((customer, channel), 0)
    ]


def unaccepted_losses(lake: Lake) -> list[str]:
    """Offsets that Kafka deleted before they were read, without those whose loss was accepted."""
    rows = lake.select(
        "unaccepted_losses",
        {"batches": lake.table("ingest_batches").scan(), "losses": lake.table("ingest_losses").scan()},
    )
    return [
        f"batch {row['batch']}, partition {row['kafka_partition']}: offsets {row['start_offset']} to "
        f"{row['end_offset'] - 1} were deleted by Kafka before they were read; restore them, or "
        f"`notif-assets accept-loss --batch {row['batch']}`"
        for row in rows.to_pylist()
    ]


def accepted_losses(lake: Lake, start: datetime, end: datetime) -> list[str]:
    """Accepted losses of records that may have reached Kafka between `start` and `end`."""
    inputs = {"batches": lake.table("ingest_batches").scan(), "losses": lake.table("ingest_losses").scan()}
    return [
        f"batch {row['batch']}, partition {row['kafka_partition']}: offsets {row['start_offset']} to "
        f"{row['end_offset'] - 1}, accepted by {row['accepted_by']}"
        for row in lake.select("accepted_losses", inputs, start=start, end=end).to_pylist()
    ]


def much_rejected(lake: Lake, settings: Settings, start: datetime, end: datetime, when: str) -> list[str]:
    """Whether a noticeable share of the messages that were ingested in [start, end) was rejected; `when` names it.

    Reads one column of what was rejected then: records are counted by what the Delta log knows of their files.
    """
    rejected = lake.table("rejected_notifications")
    planned = lake.rows(lake.table("ingest_batches").scan(planned_at=(start, end)))["batch"]
    if not len(planned):
        return []
    batches = pc.min_max(planned).as_py()
    span = (batches["min"], min(batches["max"], rejected.watermark) + 1)
    reasons = lake.select("rejected_counts", {"rejected": rejected.scan(batch=span)}).to_pylist()
    records = _records(lake, span)
    if not records:
        return []  # the archive has these records
    return rejection_findings({row["reason"]: row["messages"] for row in reasons}, records, settings.max_rejected, when)


def _records(lake: Lake, span: tuple[int, int]) -> int:
    """How many records bronze holds of the batches of `span`."""
    bronze = lake.table("raw_notifications")
    scan, files = bronze.scan(batch=span), bronze.files()
    if not scan.files:
        return 0
    within = pc.and_(pc.greater_equal(files["min.batch"], span[0]), pc.less(files["max.batch"], span[1]))
    whole = files.filter(pc.fill_null(within, False))
    paths = {f"{bronze.path}/{name}" for name in whole["path"].to_pylist()}
    parts = lake.select("row_count", {"counted": scan.without(paths)})["row_count"][0].as_py()
    return int(parts + (pc.sum(whole["num_records"]).as_py() or 0))


def rejection_findings(reasons: Mapping[str, int], records: int, bound: float, when: str) -> list[str]:
    """A sentence if more than the share `bound` of the records was rejected, other than as a duplicate; else none.

    >>> rejection_findings({"not_json": 30, "duplicate": 500}, 600, 0.05, "of the last hour")
    []
    """
    missing = {reason: number for reason, number in reasons.items() if reason not in REPEATED}
    number = sum(missing.values())
    if number < _FEW or number <= bound * records:
        return []
    most = max(missing, key=lambda reason: (missing[reason], reason))
    return [
        f"{number} of {records} messages {when} were rejected ({number / max(records, number):.1%}), "
        f"{missing[most]} of them as {most}: {REASONS.get(most, 'an older reason')}; "
        "see reason and detail in rejected_notifications, "
        "correct what is sent and send it again, or, where a rule or setting was wrong, change it and "
        f"`notif-assets readmit --reason {most}`"
    ]


def behind_by(lake: Lake, now: datetime) -> timedelta | None:
    """How far customer_panel is behind `now`, judged by its data; None while nothing is complete."""
    until = complete_until(lake, lake.table("customer_panel").watermark)
    return None if until is None else now - until
