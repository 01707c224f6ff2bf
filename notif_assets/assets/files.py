"""What the assets of dropped files share: the rows that were set aside.

Belongs here: the asset rejected_file_rows, and how an import reports to it. Doesn't: setting rows aside (files/),
the inbox that files come from.
"""

import dagster as dg

from notif_assets.assets.catalogue import described, row_count
from notif_assets.core.files import ParsedFile
from notif_assets.files.dropped import count_by_reason
from notif_assets.lake import Lake

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
