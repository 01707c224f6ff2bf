"""What closing a day leaves for people: `billing/DATE.txt|csv|parquet` under NOTIF_REPORTS, and a sentence.

Belongs here: which rows a day's files hold and where they go, what the sentence says. Doesn't: the files' layout
(reports/).
"""

from datetime import date
from decimal import Decimal
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from notif_assets.billing.adjustments import adjustments_of
from notif_assets.billing.closed_days import currencies_of_days, losses_noted
from notif_assets.core.amounts import sum_column_by_currency
from notif_assets.core.formats import REPORT_FILES, SUFFIX
from notif_assets.lake import Lake
from notif_assets.reports import write_billing
from notif_assets.reports.files import write_atomically
from notif_assets.reports.text import amounts


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


def bill_sentence(lake: Lake, day: date) -> str:
    """What the closed day came to: lines, notifications, money by currency, adjustments, what Kafka lost."""
    lines, adjustments = bill_of(lake, day)
    sent = pc.sum(lines["notifications"]).as_py() or 0
    total = sum_column_by_currency(lines, "amount") or {currencies_of_days(lake, [day])[day]: Decimal(0)}
    sentence = f"{day} closed: {lines.num_rows} lines, {sent} notifications, {amounts(total)}"
    if adjustments.num_rows:
        delta = amounts(sum_column_by_currency(adjustments, "amount_delta"))
        sentence += f"; {adjustments.num_rows} adjustments, {delta}"
    if losses := losses_noted(lake, day):
        sentence += f"; without what Kafka lost ({losses})"
    return sentence
