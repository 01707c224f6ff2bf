"""What the assets of dropped files share: the rows that were set aside, and how a difference is reported.

Belongs here: the asset rejected_file_rows, how an import reports to it, the result of a check on what is computed from
imported rows. Doesn't: setting rows aside (inbox/), the inbox that files come from.
"""

import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pyarrow as pa

from notif_assets.core.texts import quote_odd
from notif_assets.defs.assets.specs import OWNERS, described, row_count
from notif_assets.defs.partitions import answer_hours
from notif_assets.inbox.listing import InboxFile, answer_files, invoice_files
from notif_assets.inbox.source_files import count_by_reason
from notif_assets.invoices.averages import invoices_in_part
from notif_assets.lake import Lake
from notif_assets.lake.tables import Table
from notif_assets.settings import Settings

RECOMPUTE_TIME = timedelta(minutes=10)
"""How long a computed table may lack imported rows: another run computes it."""

inbox = dg.AssetSpec(
    "inbox",
    description="The folder NOTIF_INBOX, whose new and changed files sensors import: invoices/*.csv|xlsx, "
    "chatbot/date=YYYY-MM-DD/hour=HH.json, each also with .gz.",
    group_name="sources",
    kinds={"csv", "json", "excel"},
    owners=OWNERS,
)

# Two assets write it, invoices and chatbot_answers, so neither can own it: both report what they added.
rejected_file_rows = dg.AssetSpec(
    "rejected_file_rows", deps=["invoices", "chatbot_answers"], **described("rejected_file_rows")
)


def report_set_aside(context: dg.AssetExecutionContext, lake: Lake, rejected: pa.Table) -> None:
    """Reports to Dagster and the log what an import set aside; counts and reasons only."""
    metadata = {
        "rejected_rows": rejected.num_rows,
        "rejected_rows_by_reason": count_by_reason(rejected),
        "dagster/row_count": row_count(lake, rejected_file_rows.key.to_user_string()),
    }
    context.log_event(dg.AssetMaterialization(rejected_file_rows.key, metadata=metadata))
    if rejected.num_rows:
        context.log.warning("%d rows were set aside; see rejected_file_rows", rejected.num_rows)


@dg.asset_check(
    asset=rejected_file_rows.key,
    additional_deps=["invoices", "chatbot_answers"],
    description="No line or record of a file is set aside, and no account's month is known only in part.",
)
def no_rows_are_set_aside(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    rejected = Counter(lake.rows(lake.table("rejected_file_rows").scan())["source_file"].to_pylist())
    in_part = invoices_in_part(lake)
    sentences = []
    if rejected:
        sentences.append(
            f"{sum(rejected.values())} rows are set aside, of {_counted(rejected)}: mend the file and import it again"
        )
    if in_part:
        sentences.append(
            f"{sum(in_part.values())} months of accounts have no average, since a line was set aside of "
            f"{_counted(in_part)}: import them whole, or take the file back with `import-invoices --forget FILE`"
        )
    return dg.AssetCheckResult(
        passed=not sentences,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(sentences) or None,
        metadata={"rejected_rows": sum(rejected.values()), "months_in_part": sum(in_part.values())},
    )


def _counted(by_file: Mapping[str, int]) -> str:
    """The files with the most, and how many each."""
    most = sorted(by_file.items(), key=lambda entry: (-entry[1], entry[0]))
    return ", ".join(f"{quote_odd(name)} ({n})" for name, n in most[:5]) + (" …" if len(most) > 5 else "")


@dg.asset_check(
    asset=inbox.key, description="Every file of the inbox has a name and a place from which it is imported."
)
def every_file_is_taken(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    skipped = skipped_files(settings)
    return dg.AssetCheckResult(
        passed=not skipped,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"not taken: {first_few(skipped)}" if skipped else None,
        metadata={"not_taken": skipped[:100]},
    )


def skipped_files(settings: Settings) -> list[str]:
    """Every file of the inbox that is not imported, with the reason."""
    invoices = invoice_files(settings.inbox / "invoices", time.time(), settings.max_file_bytes)[1]
    answers = answer_files_by_key(settings, time.time())[1]
    return [f"invoices/{line}" for line in invoices] + [f"chatbot/{line}" for line in answers]


def answer_files_by_key(settings: Settings, now: float) -> tuple[dict[str, InboxFile], list[str]]:
    """The files of answers in the inbox by their partition, and why the others are not taken."""
    accepted, skipped = answer_files(settings.inbox / "chatbot", now, settings.max_file_bytes)
    by_key = {f"{day}-{hour:02}:00": file for (day, hour), file in accepted.items()}
    odd = [key for key in by_key if not answer_hours.has_partition_key(key)]
    folder = settings.inbox / "chatbot"
    skipped = skipped + [
        f"{quote_odd(by_key.pop(key).path.relative_to(folder))} (hours go from 2019-01-01 to now)" for key in odd
    ]
    return by_key, sorted(skipped)


def first_few(skipped: list[str]) -> str:
    """The first of them, and how many more there are."""
    more = f" … and {len(skipped) - 10} more" if len(skipped) > 10 else ""
    return ", ".join(skipped[:10]) + more


def difference_result(wrong: list[date], imported: Table, what: str) -> dg.AssetCheckResult:
    """A check's result: `wrong` partitions fail it, or warn while rows of `imported` are but minutes old."""
    due = bool(wrong) and imported.changed_since(datetime.now(UTC) - RECOMPUTE_TIME)
    reason = "due, since rows were imported minutes ago" if due else "not what its imported rows give: materialize it"
    return dg.AssetCheckResult(
        passed=not wrong,
        severity=dg.AssetCheckSeverity.WARN if due else dg.AssetCheckSeverity.ERROR,
        description=f"{what} of {', '.join(map(str, wrong[:3]))} is {reason}" if wrong else None,
        metadata={"differ": [str(day) for day in wrong]},
    )
