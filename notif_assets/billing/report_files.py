"""The files that closing a day leaves for people: `billing/DATE.txt|csv|parquet` under NOTIF_REPORTS.

Belongs here: which rows a day's files hold and where they go. Doesn't: their layout (reports/).
"""

from datetime import date
from functools import partial
from pathlib import Path

import pyarrow as pa

from notif_assets.billing.adjustments import adjustments_of
from notif_assets.core.formats import REPORT_FILES, SUFFIX
from notif_assets.lake import Lake
from notif_assets.reports import write_billing
from notif_assets.reports.files import write_atomically


def bill_of(lake: Lake, day: date) -> tuple[pa.Table, pa.Table]:
    """The day's lines as they are in the lake, and its adjustments, each with its currency."""
    return lake.rows(lake.table("daily_billing").scan(partitions={(day,)})), adjustments_of(lake, day)


def write_bill_files(lake: Lake, day: date, reports: Path) -> list[Path]:
    """Writes the day's files. They replace those of an earlier state of its bill."""
    lines, adjustments = bill_of(lake, day)
    paths = []
    for format in REPORT_FILES:
        path = reports / "billing" / f"{day}.{SUFFIX[format]}"
        write_atomically(path, partial(write_billing, lines, adjustments, format=format))
        paths.append(path)
    return paths
