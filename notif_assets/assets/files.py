"""What the assets of dropped files share: the rows that were set aside, and how a difference is reported.

Belongs here: the asset rejected_file_rows, how an import reports to it, the result of a check on what is computed from
imported rows. Doesn't: setting rows aside (files/), the inbox that files come from.
"""

from datetime import UTC, date, datetime, timedelta

import dagster as dg

from notif_assets.assets.catalogue import OWNERS, described, row_count
from notif_assets.core.files import ParsedFile
from notif_assets.files.dropped import count_by_reason
from notif_assets.lake import Lake
from notif_assets.lake.tables import Table

SETTLING = timedelta(minutes=10)
"""What is computed from imported rows may lack them for so long: it is another run that computes it."""

inbox = dg.AssetSpec(
    "inbox",
    description="The folder NOTIF_INBOX, whose new and changed files sensors import: invoices/*.csv, "
    "chatbot/date=YYYY-MM-DD/hour=HH.json.",
    group_name="sources",
    kinds={"csv", "json"},
    owners=OWNERS,
)

# Two assets write it, invoices and chatbot_answers, so neither can own it: both report what they added.
rejected_file_rows = dg.AssetSpec(
    "rejected_file_rows", deps=["invoices", "chatbot_answers"], **described("rejected_file_rows")
)


def report_set_aside(context: dg.AssetExecutionContext, lake: Lake, imported: ParsedFile) -> None:
    """Tells Dagster, and whoever reads the log, what an import set aside; counts and reasons only."""
    metadata = {
        "rejected_rows": imported.rejected.num_rows,
        "rejected_rows_by_reason": count_by_reason(imported.rejected),
        "dagster/row_count": row_count(lake, rejected_file_rows.key.to_user_string()),
    }
    context.log_event(dg.AssetMaterialization(rejected_file_rows.key, metadata=metadata))
    if imported.rejected.num_rows:
        context.log.warning("%d rows were set aside; see rejected_file_rows", imported.rejected.num_rows)


def difference_result(wrong: list[date], imported: Table, what: str) -> dg.AssetCheckResult:
    """A check's result: `wrong` partitions fail it, or warn while rows of `imported` are but minutes old."""
    due = bool(wrong) and imported.changed_since(datetime.now(UTC) - SETTLING)
    reason = "due, since rows were imported minutes ago" if due else "not what its imported rows give: materialize it"
    return dg.AssetCheckResult(
        passed=not wrong,
        severity=dg.AssetCheckSeverity.WARN if due else dg.AssetCheckSeverity.ERROR,
        description=f"{what} of {', '.join(map(str, wrong[:3]))} is {reason}" if wrong else None,
        metadata={"differ": [str(day) for day in wrong]},
    )
