"""Invoice files to invoices, and invoices to averages.

Belongs here: which earlier invoices an import replaces, the one path that computes averages, and the truth about them
told another way. Doesn't: reading a line of a file (core/invoices.py), the arithmetic (sql/), when it runs (assets/).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from functools import partial
from importlib.resources import files
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from notif_assets.core.answers import BLANK_CHARACTERS
from notif_assets.core.files import REJECTED_SCHEMA, FileRefused, ParsedFile
from notif_assets.core.formats import REPORT_FILES, SUFFIX
from notif_assets.core.invoices import INVOICES_SCHEMA, parse_invoices
from notif_assets.core.windows import has_windows, window_start
from notif_assets.files.dropped import publish, read_file, set_aside
from notif_assets.lake import Lake, Scan, literal, until_committed
from notif_assets.reports import write_invoice_averages

# The user's document, "Resultado esperado" of question 2: reference month January 2020, averages in cents.
PUBLISHED_MONTH = date(2020, 1, 1)
PUBLISHED = {
    ("C1000", "A1100"): (56333_33, 41416_66),
    ("C1000", "A1200"): (50666_66, None),
    ("C1000", "A1300"): (None, None),
    ("C2000", "A2100"): (55400_00, None),
}


def import_invoices(lake: Lake, paths: Sequence[Path], refused: list[FileRefused] | None = None) -> ParsedFile:
    """Imports the files as if one by one: each replaces all earlier rows of every (customer, account, month) it has.

    Gives the rows that were taken and those that were set aside. All rows taken come in one commit, after those set
    aside; importing again leaves the same rows. Raises FileRefused, before anything is written, if a file can't be
    taken, or puts it into `refused` and goes on with the others; raises ValueError if there is none.
    """
    if not paths:
        raise ValueError("no file of invoices to import")
    parsed: list[tuple[Path, ParsedFile]] = []
    for path in paths:
        try:
            parsed.append((path, parse_invoices(read_file(path), path.name)))
        except FileRefused as why:
            if refused is None:
                raise
            refused.append(why)
    if not parsed:
        return ParsedFile(INVOICES_SCHEMA.empty_table(), REJECTED_SCHEMA.empty_table())
    imported, *later = (file.rows for _, file in parsed)
    for rows in later:
        imported = _merged(lake, imported, rows)

    rejected = pa.concat_tables({path: file.rejected for path, file in parsed}.values())
    set_aside(lake, {path.name for path, _ in parsed}, rejected)
    if imported.num_rows:
        until_committed(partial(_replace_months, lake, imported))
    return ParsedFile(imported, rejected)


def _merged(lake: Lake, earlier: pa.Table | Scan, imported: pa.Table) -> pa.Table:
    inputs = {"earlier": earlier, "imported": imported}
    return lake.select("invoices", inputs, blank_characters=BLANK_CHARACTERS)


def _replace_months(lake: Lake, imported: pa.Table) -> None:
    table = lake.table("invoices")
    months = months_of(imported)
    earlier = table.scan(month=(months[0], months[-1] + timedelta(days=1)))
    rows = _merged(lake, earlier, imported)
    table.replace(rows, where=f"month >= {literal(months[0])} and month <= {literal(months[-1])}")


def months_of(invoices: pa.Table) -> list[date]:
    """The months that the invoices are of, in order."""
    return sorted(pc.unique(invoices["month"]).to_pylist())


def months_affected(months: Iterable[date]) -> list[date]:
    """The reference months whose 6-month window holds one of `months`: the six after each. A month at the end of the
    calendar has none: an earlier version took such months.

    >>> months_affected([date(2019, 11, 1)])[::5]
    [datetime.date(2019, 12, 1), datetime.date(2020, 5, 1)]
    """
    return sorted({_months_after(month, n) for month in months if has_windows(month) for n in range(1, 7)})


def _months_after(month: date, n: int) -> date:
    elapsed = month.year * 12 + month.month - 1 + n
    return date(elapsed // 12, elapsed % 12 + 1, 1)


def months_without_windows(lake: Lake) -> list[date]:
    """The months of invoices that no average can count, for their windows have no date."""
    return [month for month in months_of(lake.rows(lake.table("invoices").scan())) if not has_windows(month)]


def materialized_months(lake: Lake) -> list[date]:
    """The reference months that invoice_window_averages holds."""
    values = lake.table("invoice_window_averages").scan().partition_values["reference_month"]
    return sorted({month for month in values if isinstance(month, date)})


def months_to_refresh(lake: Lake, imported: Iterable[date]) -> list[date]:
    """The reference months to compute after invoices of these months came: those they affect, and those already there.

    Those already there may lack a new account: every account that has an invoice has a row in every month.
    """
    return sorted({*months_affected(imported), *materialized_months(lake)})


def averages(lake: Lake, invoices: pa.Table | Scan, reference_month: date) -> pa.Table:
    """The one path that computes averages, for the table, the report and the check on the published example."""
    return lake.select(
        "invoice_window_averages",
        inputs={"invoices": invoices},
        reference_month=reference_month,
        start_3=window_start(reference_month, 3),
        start_6=window_start(reference_month, 6),
    )


def averages_now(lake: Lake, reference_month: date) -> pa.Table:
    """The averages of the invoices as they are now: what `report invoice-averages` shows."""
    return averages(lake, lake.table("invoices").scan(), reference_month)


def replace_averages(lake: Lake, reference_month: date) -> pa.Table:
    """Computes one month of invoice_window_averages and commits it; gives its rows."""

    def attempt() -> pa.Table:
        table = lake.table("invoice_window_averages")  # opened before its input: who read older invoices loses the race
        rows = averages_now(lake, reference_month)
        table.replace(rows, where=f"reference_month = {literal(reference_month)}")
        return rows

    return until_committed(attempt)


def publish_averages(rows: pa.Table, reference_month: date, reports: Path) -> list[Path]:
    """Writes the month's report files, `invoice-averages/YYYY-MM.txt|csv|parquet` under `reports`."""
    paths = []
    for format in REPORT_FILES:
        path = reports / "invoice-averages" / f"{reference_month:%Y-%m}.{SUFFIX[format]}"
        publish(path, partial(write_invoice_averages, rows, format=format))
        paths.append(path)
    return paths


def published_accounts_that_differ(lake: Lake) -> list[str]:
    """The document's accounts whose averages the deployed code doesn't reproduce from the document's invoices."""
    sample = parse_invoices((files("notif_assets") / "samples" / "invoices.csv").read_bytes(), "invoices.csv").rows
    got = _cents_by_account(averages(lake, sample, PUBLISHED_MONTH))
    return sorted(key[1] for key in PUBLISHED.keys() | got.keys() if key not in got or got[key] != PUBLISHED.get(key))


def months_that_differ(lake: Lake) -> list[date]:
    """The materialized months that an independent calculation in plain Python finds wrong, in missing accounts too."""
    history: dict[tuple[str, str], dict[date, int]] = defaultdict(lambda: defaultdict(int))
    for row in lake.rows(lake.table("invoices").scan()).to_pylist():
        history[row["customer"], row["account"]][row["month"]] += int(row["invoice"] * 100)
    table = lake.table("invoice_window_averages")
    wrong = []
    for month in materialized_months(lake):
        got = lake.rows(table.scan(partitions={(month,)}))
        want = {account: (_average(cents, month, 3), _average(cents, month, 6)) for account, cents in history.items()}
        if _cents_by_account(got) != want or got.num_rows != len(want):
            wrong.append(month)
    return wrong


def _average(cents: dict[date, int], reference_month: date, months: int) -> int | None:
    window = [cents.get(_months_after(reference_month, -back)) for back in range(1, months + 1)]
    present = [value for value in window if value is not None]
    if len(present) < months:
        return None
    total = sum(present)
    return total // months if total >= 0 else -(-total // months)  # towards zero


def _cents_by_account(rows: pa.Table) -> dict[tuple[str, str], tuple[int | None, int | None]]:
    def cents(name: str) -> list[int | None]:
        return [None if value is None else int(value * 100) for value in rows[name].to_pylist()]

    keys = zip(rows["customer"].to_pylist(), rows["account"].to_pylist(), strict=True)
    pairs = zip(cents("avg_invoices_last_3_months"), cents("avg_invoices_last_6_months"), strict=True)
    return dict(zip(keys, pairs, strict=True))
