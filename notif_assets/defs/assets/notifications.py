"""From the topic to the panel: the micro-batch's assets, each with its checks.

Belongs here: the assets, what stops the next one, what the UI shows of them: counts and times, never a message.
Doesn't: what a batch does to a table (notifications/), what is looked for (notifications/audit.py), when a run starts
(sensors.py).
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg

from notif_assets.defs.assets.specs import OWNERS, column_lineage, described, row_count
from notif_assets.kafka.client import KafkaError, OpenClient
from notif_assets.kafka.offsets import PlanRefused
from notif_assets.lake import Lake
from notif_assets.maintenance.compaction import OPEN_FILES, compact, merge_open_files
from notif_assets.notifications import audit, bronze, gold, silver
from notif_assets.notifications.ledger import complete_until, deleted_before, deleted_before_text
from notif_assets.settings import Settings

POOL = "notifications"
FRESH = timedelta(minutes=3)
"""A panel older than this is late: it is promised to the minute, and a run may fail and be repeated once."""

kafka_topic = dg.AssetSpec(
    "kafka_topic",
    description="The Kafka topic of the notifications, about 100 million a day.",
    group_name="sources",
    kinds={"kafka"},
    owners=OWNERS,
)
ingest_losses = dg.AssetSpec("ingest_losses", deps=[kafka_topic], **described("ingest_losses"))


@dg.multi_asset(
    specs=[
        dg.AssetSpec("ingest_batches", deps=[kafka_topic], code_version="1", **described("ingest_batches")),
        dg.AssetSpec(
            "raw_notifications",
            deps=["ingest_batches", "ingest_losses", kafka_topic],
            code_version="1",
            **described("raw_notifications"),
        ),
    ],
    pool=POOL,
)
def raw_notifications(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    settings: dg.ResourceParam[Settings],
    kafka: dg.ResourceParam[OpenClient],
    advance_bronze: dg.ResourceParam[bronze.AdvanceBronze],
) -> Iterator[dg.MaterializeResult[None]]:
    lake.claim(topic=settings.topic, timezone=settings.timezone)
    records, value_bytes, batches, lag, seconds = 0, 0, 0, 0, 0.0
    deleted: dict[int, int] = {}
    try:
        for advance in advance_bronze(lake, kafka, settings, context.run.run_id):
            batches += 1
            records += advance.records
            value_bytes += advance.value_bytes
            seconds += advance.seconds
            lag = advance.batch.lag
            if advance.batch.number == 1:
                deleted = deleted_before(lake)
    except (KafkaError, PlanRefused, bronze.OffsetsLost) as error:
        raise dg.Failure(str(error)) from None
    compact(lake, "ingest_batches", datetime.now(UTC), fewest=OPEN_FILES)
    about: dict[str, int] = {"dagster/row_count": row_count(lake, "ingest_batches"), "batches": batches, "lag": lag}
    if deleted:
        context.log.warning(deleted_before_text(deleted))
        about["offsets_dropped_before"] = sum(deleted.values())
    yield dg.MaterializeResult(asset_key="ingest_batches", metadata=about)
    yield dg.MaterializeResult(
        asset_key="raw_notifications",
        metadata={
            "dagster/row_count": row_count(lake, "raw_notifications"),
            "messages": records,
            "bytes": value_bytes,
            "seconds": round(seconds, 3),
            "messages_per_second": round(records / seconds) if seconds else 0,
            "lag": lag,
        },
    )


@dg.multi_asset(
    specs=[
        dg.AssetSpec("notifications", deps=["raw_notifications"], code_version="1", **described("notifications")),
        dg.AssetSpec(
            "rejected_notifications",
            deps=["raw_notifications", "notifications"],
            code_version="1",
            **described("rejected_notifications"),
        ),
    ],
    check_specs=[
        dg.AssetCheckSpec(
            "most_of_a_run_is_accepted",
            asset="rejected_notifications",
            description="No run rejects more than half of what it reads: it is told at once when a format changes.",
        )
    ],
    pool=POOL,
)
def notifications(
    lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    started = time.monotonic()
    before = {name: lake.table(name).watermark for name in ("notifications", "rejected_notifications")}
    for _ in silver.advance_silver(lake, settings):
        pass
    merge_open_files(lake, "notifications", datetime.now(UTC))
    seconds = time.monotonic() - started
    accepted = lake.select(
        "row_count", {"counted": lake.table("notifications").scan(batch=(before["notifications"] + 1, None))}
    )
    rejected = lake.select(
        "rejected_counts",
        {"rejected": lake.table("rejected_notifications").scan(batch=(before["rejected_notifications"] + 1, None))},
    )
    yield dg.MaterializeResult(
        asset_key="notifications",
        metadata={
            "dagster/row_count": row_count(lake, "notifications"),
            "messages": accepted["row_count"][0].as_py(),
            "seconds": round(seconds, 3),
        },
    )
    reasons = {row["reason"]: row["messages"] for row in rejected.to_pylist()}
    yield dg.MaterializeResult(
        asset_key="rejected_notifications",
        metadata={
            "dagster/row_count": row_count(lake, "rejected_notifications"),
            "rejected": sum(reasons.values()),
            "reasons": reasons,
        },
    )
    read = accepted["row_count"][0].as_py() + sum(reasons.values())
    found = audit.rejection_findings(reasons, read, max(settings.max_rejected, 0.5), "of one run")
    result = findings_result(found, "rejected_notifications", severity=dg.AssetCheckSeverity.WARN)
    yield result._replace(check_name="most_of_a_run_is_accepted", asset_key=dg.AssetKey("rejected_notifications"))


@dg.asset(
    **described("minute_aggregates"), deps=["notifications", "rejected_notifications"], code_version="1", pool=POOL
)
def minute_aggregates(lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult[None]:
    started = time.monotonic()
    advance = gold.advance_minutes(lake)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": row_count(lake, "minute_aggregates"),
            "minutes_written": advance.rows if advance else 0,
            "seconds": round(time.monotonic() - started, 3),
            **column_lineage("minute_aggregates"),
        }
    )


@dg.asset(
    **described("customer_panel"),
    deps=[minute_aggregates, "notifications"],
    code_version="1",
    pool=POOL,
    # Dagster judges by the run, the check panel_is_fresh by the data: a run that counts nothing new is no news.
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=4 * FRESH, warn_window=FRESH),
)
def customer_panel(lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[None]:
    gold.advance_panel(lake, settings)
    panel = lake.table("customer_panel")
    until = complete_until(lake, panel.watermark)
    metadata: dict[str, dg.MetadataValue | int | float] = {"dagster/row_count": row_count(lake, "customer_panel")}
    if until is not None:
        metadata["updated_at"] = dg.MetadataValue.timestamp(until)
        metadata["seconds_behind"] = round((datetime.now(UTC) - until).total_seconds(), 1)
    return dg.MaterializeResult(metadata=metadata)


def findings_result(
    findings: list[str],
    where: str,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    **metadata: int,
) -> dg.AssetCheckResult:
    """A check's result from what was found: a plain sentence for each, and the table where to look."""
    return dg.AssetCheckResult(
        passed=not findings,
        severity=severity,
        description="; ".join(findings[:3]) if findings else None,
        metadata={"findings": findings[:20], "findings_in_all": len(findings), "look_at": where, **metadata},
    )


@dg.asset_check(
    asset="ingest_batches",
    description="No offset was deleted by Kafka before it was read, unless somebody accepted it.",
)
def nothing_lost(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    return findings_result(audit.unaccepted_losses(lake), "ingest_batches, ingest_losses")


@dg.asset_check(
    asset="rejected_notifications",
    additional_deps=["notifications", "raw_notifications", "ingest_batches"],
    blocking=True,
    description="Every record of raw_notifications is once in notifications or in rejected_notifications "
    "(all batches that minute_aggregates has not taken, and the newest one).",
)
def every_offset_once(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    first, last = _pending_batches(lake, "minute_aggregates", "rejected_notifications")
    return findings_result(audit.offsets_taken_once(lake, first, last), "raw_notifications", batches=last - first + 1)


@dg.asset_check(
    asset="notifications",
    blocking=True,
    description="No (customer_id, message_id) is twice in an hour (all hours that minute_aggregates has not taken).",
)
def each_message_once(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    first, _ = _pending_batches(lake, "minute_aggregates", "notifications")
    return findings_result(audit.repeated_in_hours(lake, first - 1), "notifications")


@dg.asset_check(
    asset=minute_aggregates,
    additional_deps=["notifications"],
    blocking=True,
    description="The minutes of an hour add up to its messages (all hours that customer_panel has not taken).",
)
def minutes_equal_messages(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    first, _ = _pending_batches(lake, "customer_panel", "minute_aggregates")
    return findings_result(audit.minutes_that_differ(lake, first - 1), "minute_aggregates")


@dg.asset_check(
    asset=customer_panel,
    additional_deps=["notifications"],
    description="Each customer's panel is what notifications hold for the day.",
)
def panel_equals_messages(lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    return findings_result(audit.panel_differences(lake, settings), "customer_panel")


@dg.asset_check(asset=customer_panel, description="Everything up to a few minutes ago is counted, judged by the data.")
def panel_is_fresh(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    behind = audit.behind_by(lake, datetime.now(UTC))
    return dg.AssetCheckResult(
        passed=behind is not None and behind <= FRESH,
        severity=dg.AssetCheckSeverity.WARN,
        description=None if behind is not None else "nothing is complete yet: the first catch-up is not done",
        metadata={} if behind is None else {"seconds_behind": round(behind.total_seconds(), 1)},
    )


@dg.asset_check(
    asset="rejected_notifications",
    additional_deps=["raw_notifications", "ingest_batches"],
    description="Few of the messages of the last hour and the last day are rejected (NOTIF_MAX_REJECTED; duplicates "
    "are not counted).",
)
def few_are_rejected(lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    now = datetime.now(UTC)
    found: list[str] = []
    for since, when in ((timedelta(hours=1), "of the last hour"), (timedelta(days=1), "of the last day")):
        found = found or audit.much_rejected(lake, settings, now - since, now + timedelta(minutes=1), when)
    return findings_result(found, "rejected_notifications")


def _pending_batches(lake: Lake, consumer: str, table: str) -> tuple[int, int]:
    """The batches that `consumer` has not taken of `table`, however many runs they came in; at least the newest."""
    last = lake.table(table).watermark
    return min(lake.table(consumer).watermark + 1, max(last, 1)), last


CHECKS = [
    nothing_lost,
    every_offset_once,
    each_message_once,
    minutes_equal_messages,
    panel_equals_messages,
    panel_is_fresh,
    few_are_rejected,
]
