"""The daily bill: prices, lines, closed days and their corrections.

Belongs here: the assets, the gates that stop a bill before it is written, the checks that look at it again.
Doesn't: what a bill is and when a day may close (billing/), when it is run (schedules.py).
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from notif_assets.billing import audit, closing
from notif_assets.billing.adjustments import held_sentence, unpriced_late_messages
from notif_assets.billing.audit import closed_days_that_differ
from notif_assets.billing.closed_days import (
    FirstDayMoved,
    days_before_first_billing_day,
    is_closed,
    open_days_that_should_be_closed,
    require_first_day,
)
from notif_assets.billing.lines import BillRefused, example_bill_differences
from notif_assets.billing.price_list import parse_price_list
from notif_assets.billing.prices import ensure_prices, load_prices
from notif_assets.billing.report_files import write_bill_files
from notif_assets.defs.assets.notifications import findings_result
from notif_assets.defs.assets.specs import OWNERS, column_lineage, described, row_count
from notif_assets.defs.partitions import billing_days as billing_days_of
from notif_assets.defs.partitions import closing_commands, not_billed
from notif_assets.inbox.rows import FileRefused
from notif_assets.inbox.source_files import read_file
from notif_assets.instance.alerts import last_evaluation
from notif_assets.instance.run_tags import first_key_of
from notif_assets.kafka.client import KafkaError, OpenClient
from notif_assets.kafka.offsets import PlanRefused
from notif_assets.lake import Lake
from notif_assets.notifications.bronze import OffsetsLost
from notif_assets.notifications.deduplication import deduplicate
from notif_assets.reports.text import amounts
from notif_assets.settings import Settings

POOL = "billing"
BILLED_EVERY = timedelta(hours=1)
"""How often the schedule closes what may close: a day open for less is not late."""
TABLES = ("daily_billing", "billing_days", "billing_adjustments")
GATES = {
    "published_bill_holds": "The deployed code gives the document's bill: 25000 WhatsApp notifications, R$ 1000,00.",
    "every_channel_has_one_price": "Every customer and channel of the day has exactly one price.",
    "bill_equals_messages_times_price": "The lines are the day's messages times the price, and the day's inputs hold.",
}

price_file = dg.AssetSpec(
    "price_file",
    description="The price list as finance keeps it: a CSV file, imported whole.",
    group_name="sources",
    kinds={"csv"},
    owners=OWNERS,
)


class PriceFile(dg.Config):
    """Which price list a run imports."""

    file: str = Field(default="", description="Absolute path of a CSV; none: the packaged list, if there is none yet.")


@dg.asset(**described("prices"), deps=[price_file], code_version="1", pool=POOL)
def prices(config: PriceFile, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult[None]:
    try:
        if config.file:
            path = Path(config.file)
            version = load_prices(lake, parse_price_list(read_file(path), path.name))
        else:
            version = ensure_prices(lake)
    except FileRefused as refused:
        raise dg.Failure(f"No price was changed. {refused}", allow_retries=False) from None
    return dg.MaterializeResult(metadata={"dagster/row_count": row_count(lake, "prices"), "price_version": version})


class Billing(dg.Config):
    """How a run bills its days."""

    must_close: bool = Field(
        default=False, description="Fail if a day can't close yet, instead of billing it provisionally."
    )
    reprice: bool = Field(default=False, description="From here on the current price list prices these closed days.")
    note: str = Field(default="", description="Why the days are priced anew.")
    days: list[str] = Field(
        default=[],
        description="Of the closed days only these (YYYY-MM-DD), and of them only the customers of whom the bill may "
        "lack something; none: every day of the run's partitions, counted whole.",
    )


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            "daily_billing", deps=["minute_aggregates", prices], code_version="1", **described("daily_billing")
        ),
        dg.AssetSpec("billing_days", deps=["daily_billing"], code_version="1", **described("billing_days")),
        dg.AssetSpec(
            "billing_adjustments",
            # Not daily_billing as well: reached on two ways, its partitions look unlike those of the others to Dagster,
            # which then, depending on the order of its sets, refuses a backfill.
            deps=["billing_days", "minute_aggregates", prices],
            code_version="1",
            **described("billing_adjustments"),
        ),
    ],
    partitions_def=billing_days_of,
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=[
        dg.AssetCheckSpec(name, asset="daily_billing", blocking=True, description=text) for name, text in GATES.items()
    ],
    pool=POOL,
)
def daily_billing(
    context: dg.AssetExecutionContext,
    config: Billing,
    lake: dg.ResourceParam[Lake],
    settings: dg.ResourceParam[Settings],
    kafka: dg.ResourceParam[OpenClient],
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]:
    lake.claim(topic=settings.topic, timezone=settings.timezone)
    _refuse_days_before_the_first(context.run, lake, settings)
    found: dict[str, list[str]] = {name: [] for name in GATES}
    found["published_bill_holds"] = example_bill_differences(lake)
    waiting: list[str] = []
    held: list[str] = []
    if not any(found.values()):
        days = [date.fromisoformat(key) for key in sorted(context.partition_keys)]
        if not config.reprice:  # which is for closed days
            _deduplicate(lake, settings, kafka, days, context.run.run_id)
        for day in days:
            if config.days and str(day) not in config.days and is_closed(lake, day):
                continue
            try:
                held += _bill(context, config, lake, settings, day)
            except BillRefused as refused:  # the other days are still billed
                found[refused.gate].append(str(refused))
            except closing.NotClosable as not_yet:
                waiting.append(str(not_yet))
    results = [
        dg.AssetCheckResult(
            check_name=name,
            asset_key="daily_billing",
            passed=not findings,
            description="; ".join(findings) or None,
            metadata={"findings": findings, "look_at": "daily_billing, prices"},
        )
        for name, findings in found.items()
    ]
    refused_days = [sentence for findings in found.values() for sentence in findings]
    if refused_days or waiting:
        yield from results
        raise dg.Failure("; ".join([*refused_days, *waiting, *held]), allow_retries=False)
    for name in TABLES:
        yield dg.MaterializeResult(asset_key=name)
    yield from results
    for sentence in held:
        context.log.warning(sentence)
    if held and config.must_close:  # the days were asked for by a person; to others the hourly check tells it
        raise dg.Failure("; ".join(held), allow_retries=False)


def _refuse_days_before_the_first(run: dg.DagsterRun, lake: Lake, settings: Settings) -> None:
    """Before Dagster is asked for the run's days, which would say it in its own words."""
    try:
        require_first_day(lake, settings)
    except FirstDayMoved as moved:
        raise dg.Failure(str(moved), allow_retries=False) from None
    first = first_key_of(run.tags)
    if first and first < str(settings.first_day):
        raise dg.Failure(not_billed(first, settings), allow_retries=False)


def _deduplicate(lake: Lake, settings: Settings, kafka: OpenClient, days: list[date], run_id: str) -> None:
    """Once for all days that may close: a batch that moves rows costs a round through all tables."""
    through = closing.last_closable_day(lake, settings, days)
    if through is None:
        return
    try:
        with kafka() as client:
            deduplicate(lake, client, settings, through, run_id)
    except (KafkaError, PlanRefused, OffsetsLost) as error:
        raise dg.Failure(str(error)) from None


def _bill(context: dg.AssetExecutionContext, config: Billing, lake: Lake, settings: Settings, day: date) -> list[str]:
    """Bills one day; gives what is held of it. Raises BillRefused, NotClosable."""
    if config.reprice:
        billed = closing.reprice(lake, settings, day, config.note, context.run.run_id)
    elif config.must_close:
        billed = closing.close_day(lake, settings, day, context.run.run_id)
    else:
        billed = closing.bill_day(lake, settings, day, context.run.run_id, whole=not config.days)
    reports = write_bill_files(lake, day, settings.reports) if billed.status == "final" else []
    numbers: dict[str, dict[str, Any]] = {
        "daily_billing": {
            **column_lineage("daily_billing"),
            "dagster/partition_row_count": billed.lines,
            "notifications": billed.notifications,
            f"amount_{billed.currency}": float(billed.amount),  # for the plot; the table has the decimal
            "status": billed.status,
            "reports": [str(path) for path in reports],
        },
        "billing_days": {"dagster/partition_row_count": int(billed.status == "final")}
        | ({"accepted_losses": billed.accepted_losses} if billed.accepted_losses else {})
        | ({"rejected": billed.rejected} if billed.rejected else {}),
        "billing_adjustments": {"adjustments_written": billed.adjustments}
        | {f"adjusted_amount_{currency}": float(amount) for currency, amount in billed.adjusted.items()},
    }
    for name, metadata in numbers.items():
        context.add_asset_metadata(metadata, asset_key=name, partition_key=str(day))
    context.log.info(
        "%s: %s, %d lines, %d notifications, %s; %d adjustments%s",
        day,
        billed.status,
        billed.lines,
        billed.notifications,
        amounts({billed.currency: billed.amount}),
        billed.adjustments,
        f", {amounts(billed.adjusted)}" if billed.adjusted else "",
    )
    if billed.rejected:
        context.log.warning("%s: %s", day, billed.rejected)
    return [held_sentence(day, billed.held)] if billed.held else []


class RecountScope(dg.Config):
    """Which closed days a check recounts."""

    everything: bool = Field(
        default=False,
        description="Look at every closed day, not only at what changed, what did not hold and a part of history.",
    )


RECOUNT = dg.AssetCheckKey(dg.AssetKey("daily_billing"), "closed_days_equal_their_recount")
LATE_PRICES = dg.AssetCheckKey(dg.AssetKey("billing_adjustments"), "every_late_message_has_one_price")
_STATE_KEY = "memory"


@dg.asset_check(
    asset="daily_billing",
    name=RECOUNT.name,
    additional_deps=["billing_adjustments", "minute_aggregates"],
    description="Lines + adjustments of a closed day are its messages, counted now, times the price in force. The days "
    "that changed are counted, those that did not hold, and a part of history: all of it within 24 days.",
)
def closed_days_equal_their_recount(
    context: dg.AssetCheckExecutionContext,
    config: RecountScope,
    lake: dg.ResourceParam[Lake],
    settings: dg.ResourceParam[Settings],
) -> dg.AssetCheckResult:
    before = None if config.everything else _previous_state(context.instance, RECOUNT, lake)
    hour, batch = audit.epoch_hour(datetime.now(UTC)), lake.table("minute_aggregates").watermark
    closed, corrected = audit.closed_and_corrected(lake, before)
    days = audit.days_to_count(closed, corrected, before, hour)
    found = closed_days_that_differ(lake, settings, days)
    result = findings_result(
        [sentence for sentences in found.values() for sentence in sentences],
        "daily_billing, billing_adjustments",
        days_counted=len(days),
        days_closed=len(closed),
    )
    return _with_state(result, audit.next_state(before, hour, days, found.keys(), batch))


def _previous_state(instance: dg.DagsterInstance, check: dg.AssetCheckKey, lake: Lake) -> audit.AuditState | None:
    """What the newest look of a check left; None if it left nothing, or looked at a lake that was restored since."""
    found = last_evaluation(instance, check)
    memory = found.metadata.get(_STATE_KEY) if found else None
    known = audit.AuditState.of(memory.data) if isinstance(memory, dg.JsonMetadataValue) else None
    return known if known and known.batch <= lake.table("minute_aggregates").watermark else None


def _with_state(result: dg.AssetCheckResult, memory: audit.AuditState) -> dg.AssetCheckResult:
    return result._replace(metadata={**result.metadata, _STATE_KEY: dg.MetadataValue.json(memory.as_json())})


@dg.asset_check(
    asset="billing_days", description="Every day whose end plus NOTIF_GRACE is counted past by an hour, is closed."
)
def every_closed_day_is_present(
    lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]
) -> dg.AssetCheckResult:
    days = open_days_that_should_be_closed(lake, settings, since=BILLED_EVERY)
    never = days_before_first_billing_day(lake, settings)
    commands = [f"`{command}`" for command in closing_commands(days)]
    more = f" … and {len(commands) - 3} more ranges" if len(commands) > 3 else ""
    return dg.AssetCheckResult(
        passed=not days,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(days)} days are open: {', '.join(commands[:3])}{more}" if days else None,
        metadata={
            "open_days": [str(day) for day in days[-31:]],
            "open_days_in_all": len(days),
            "days_that_no_bill_takes": [str(day) for day in never[:31]],
        },
    )


@dg.asset_check(
    asset="billing_adjustments",
    name=LATE_PRICES.name,
    additional_deps=["daily_billing", "minute_aggregates"],
    description="Every message that came after its day was closed has exactly one price, so that it can be billed.",
)
def every_late_message_has_one_price(
    context: dg.AssetCheckExecutionContext,
    config: RecountScope,
    lake: dg.ResourceParam[Lake],
    settings: dg.ResourceParam[Settings],
) -> dg.AssetCheckResult:
    before = None if config.everything else _previous_state(context.instance, LATE_PRICES, lake)
    after, recheck = (before.batch, before.failing) if before else (0, ())
    found, batch = unpriced_late_messages(lake, settings, after, recheck)
    result = findings_result([found[day] for day in sorted(found)], "billing_adjustments, prices")
    memory = audit.AuditState(audit.epoch_hour(datetime.now(UTC)), failing=found.keys(), batch=batch)
    return _with_state(result, memory)


CHECKS = [closed_days_equal_their_recount, every_closed_day_is_present, every_late_message_has_one_price]
BOUNDED = (RECOUNT, LATE_PRICES)
"""The checks that look at a part of what there is, unless `everything` asks for more."""
