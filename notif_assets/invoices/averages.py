"""Invoice files to invoices, and invoices to averages.

Belongs here: which earlier invoices an import replaces, undoing an import, the one path that computes averages, and an
independent calculation that checks it. Doesn't: reading a line of a file (parsing.py), the arithmetic (sql/), when it
runs (defs/assets/).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from notif_assets.core.formats import REPORT_FILES, SUFFIX
from notif_assets.core.texts import BLANK_CHARACTERS, quote_odd
from notif_assets.core.windows import has_windows, window_start
from notif_assets.inbox.rows import REJECTED_SCHEMA, FileRefused
from notif_assets.inbox.source_files import (
    MOST_BYTES,
    open_source,
    record_refusal,
    rows_set_aside,
    set_aside,
    unique_names,
)
from notif_assets.invoices.parsing import GAPS_SCHEMA, INVOICES_SCHEMA, invoice_pieces, parse_invoices
from notif_assets.lake import SCHEMAS, Lake, Scan, sql_literal, until_committed
from notif_assets.lake.catalogue import Column, Schema
from notif_assets.lake.engine import Input
from notif_assets.lake.staging import append, stage
from notif_assets.lake.tables import DataFile, Table
from notif_assets.reports import write_invoice_averages
from notif_assets.reports.files import write_atomically

# The user's document, "Resultado esperado" of question 2: reference month January 2020, averages in cents.
EXAMPLE_MONTH = date(2020, 1, 1)
EXAMPLE_AVERAGES = {
    ("C1000", "A1100"): (56333_33, 41416_66),
    ("C1000", "A1200"): (50666_66, None),
    ("C1000", "A1300"): (None, None),
    ("C2000", "A2100"): (55400_00, None),
}


_SCHEMA = SCHEMAS["invoices"]
_FILE_INDEX = Column(
    "place", pa.int32(), "which of the files of an import, from 0: a later one replaces what an earlier one says"
)
_STAGED = Schema(
    "imported",
    "The invoices of the files of one import, all of them, before they are in the lake.",
    "received",
    (*(column for column in _SCHEMA.columns if column.since == 1), _FILE_INDEX),
    statistics=("month",),
)
_GAPS = pa.schema([*GAPS_SCHEMA, ("source_file", pa.string()), ("place", pa.int32())])
_PREVIEW = 5


@dataclass(frozen=True)
class Replaced:
    """How many invoices of an earlier file a new file replaced; of its own earlier import, those that changed."""

    by: str
    of: str
    rows: int

    def __str__(self) -> str:
        return f"{self.by} replaces {self.rows} rows of {self.of}"


@dataclass(frozen=True)
class Imported:
    """The result of an import: number of rows, months, the first rows; rows set aside, with their months where known;
    and the rows that it replaced."""

    imported_rows: int
    months: list[date]
    months_in_part: list[date]
    preview: pa.Table
    rejected: pa.Table
    replaced: list[Replaced]


def import_invoices(
    lake: Lake,
    paths: Sequence[Path],
    refused: list[FileRefused] | None = None,
    inside: Path | None = None,
    most: int = MOST_BYTES,
) -> Imported:
    """Imports the files as if one by one: each replaces all earlier rows of every (customer, account, month) it has.

    Where a line was set aside, the other rows of its account and month are marked, and have no average until a file
    replaces them. All rows taken come in one commit, after the lines set aside; importing again leaves the same rows.
    Memory is bounded, whatever the size of a file. Raises FileRefused, before anything is written, if a file can't be
    taken, or puts it into `refused` and goes on with the others; raises ValueError if there is none. `inside` and
    `most` as for `opened`.
    """
    if not paths:
        raise ValueError("no file of invoices to import")
    with TemporaryDirectory() as folder:
        parsed: list[_Parsed] = []
        for path, name in unique_names(paths).items():
            try:
                parsed.append(_parse(path, name, len(parsed), Path(folder), inside, most))
            except FileRefused as why:
                if refused is None:
                    raise
                refused.append(why)
                record_refusal(lake, name, why)
        rejected = pa.concat_tables([REJECTED_SCHEMA.empty_table(), *(file.rejected for file in parsed)])
        if parsed:
            set_aside(lake, [file.name for file in parsed], rejected)
        months = set[date]().union(*(file.months for file in parsed))
        in_part = set[date]().union(*(file.gaps["month"].to_pylist() for file in parsed))
        touched = sorted(months | in_part)
        replaced = until_committed(partial(_replace, lake, parsed, touched)) if touched else []
    preview = pa.concat_tables([INVOICES_SCHEMA.empty_table(), *(file.preview for file in parsed)]).slice(0, _PREVIEW)
    row_count = sum(file.imported_rows for file in parsed)
    return Imported(row_count, sorted(months), sorted(in_part), preview, rejected, replaced)


@dataclass(frozen=True)
class _Parsed:
    """A parsed file: its rows are in a Parquet file, the rest in memory."""

    name: str
    rows: Path
    imported_rows: int
    months: set[date]
    preview: pa.Table
    rejected: pa.Table
    gaps: pa.Table


def _parse(path: Path, name: str, file_index: int, folder: Path, inside: Path | None, most: int) -> _Parsed:
    staged = folder / f"{file_index}.parquet"
    row_count, months = 0, set[date]()
    preview, rejected, gaps = (schema.empty_table() for schema in (INVOICES_SCHEMA, REJECTED_SCHEMA, GAPS_SCHEMA))
    with open_source(path, inside, most) as data, pq.ParquetWriter(staged, _STAGED.arrow, compression="zstd") as writer:
        for piece in invoice_pieces(data, name):
            writer.write_table(_with_file_index(piece.rows, file_index).cast(_STAGED.arrow))
            preview = preview if row_count else piece.rows.slice(0, _PREVIEW)
            row_count += piece.rows.num_rows
            months.update(pc.unique(piece.rows["month"]).to_pylist())
            rejected = pa.concat_tables([rejected, piece.rejected])
            gaps = pa.concat_tables([gaps, piece.gaps])
    names = pa.array([name] * gaps.num_rows, pa.string())
    return _Parsed(
        name,
        staged,
        row_count,
        months,
        preview,
        rejected,
        _with_file_index(gaps.append_column("source_file", names), file_index),
    )


def _with_file_index(rows: pa.Table, file_index: int) -> pa.Table:
    return rows.append_column(_FILE_INDEX.name, pa.array([file_index] * rows.num_rows, _FILE_INDEX.type))


def _replace(lake: Lake, parsed: Sequence[_Parsed], months: Sequence[date]) -> list[Replaced]:
    table = lake.table("invoices")
    old = _files_of(table, months)
    imported = Scan(
        _STAGED, tuple(str(file.rows) for file in parsed), {}, {}, sum(file.imported_rows for file in parsed)
    )
    inputs: dict[str, Input] = {"earlier": table.scan_files(old), "imported": imported}
    replaced = lake.select("invoices_replaced", inputs, blank_characters=BLANK_CHARACTERS).to_pylist()
    inputs["gaps"] = pa.concat_tables([_GAPS.empty_table(), *(file.gaps for file in parsed)])
    _exchange(table, old, lake.stream("invoices", inputs, blank_characters=BLANK_CHARACTERS))
    return [Replaced(**row) for row in replaced]


def _files_of(table: Table, months: Sequence[date]) -> list[DataFile]:
    """The data files that may hold rows of these months."""
    wanted = [str(month) for month in months]
    found = []
    for file in table.data_files():
        first, last = file.bounds("month")
        if first is None or last is None or any(first <= month <= last for month in wanted):
            found.append(file)
    return found


def _exchange(table: Table, old: Sequence[DataFile], rows: Iterable[pa.RecordBatch]) -> None:
    """Replaces data files by these rows, in one commit. Raises LostRace."""
    typed = (batch for some in rows for batch in pa.Table.from_batches([some]).cast(_SCHEMA.arrow).to_batches())
    with table.writing():
        new = stage(table, (), typed, _SCHEMA.file_rows)
    if old or new:
        table.swap(old, new, table.watermark + 1)


def forget_invoices(lake: Lake, names: Sequence[str]) -> tuple[int, list[date]]:
    """Undoes the imports of files with these names: their rows, their set-aside rows, and the gaps that these left.

    Returns the number of rows, and the months that changed. Rows that they replaced do not return. Raises ValueError if
    the lake knows nothing of one of the names.
    """
    known = lake.select("invoice_files", {"invoices": lake.table("invoices").scan()})
    aside = rows_set_aside(lake, names)
    imported_names = {*known["source_file"].to_pylist(), *aside["source_file"].to_pylist()}
    for name in names:
        if name not in imported_names:
            some = ", ".join(map(quote_odd, sorted(imported_names)[:10])) or "none"
            raise ValueError(f"nothing of a file named {quote_odd(name)} is in the lake; files there: {some}")
    forgotten = pa.table({"source_file": pa.array(names, pa.string())})
    outcome = until_committed(partial(_forget, lake, forgotten))
    set_aside(lake, names, REJECTED_SCHEMA.empty_table())
    return outcome


def _forget(lake: Lake, forgotten: pa.Table) -> tuple[int, list[date]]:
    table = lake.table("invoices")
    found = lake.select("invoices_of_files", {"invoices": table.scan(), "forgotten": forgotten})
    months = found["month"].to_pylist()
    old = _files_of(table, months)
    if old:
        inputs: dict[str, Input] = {"earlier": table.scan_files(old), "forgotten": forgotten}
        _exchange(table, old, lake.stream("invoices_without_files", inputs))
    return sum(found["rows"].to_pylist()), months


def invoices_in_part(lake: Lake) -> dict[str, int]:
    """How many accounts and months are incomplete, by the file that had a set-aside line of them."""
    found = lake.select("invoice_files", {"invoices": lake.table("invoices").scan()})
    return {row["source_file"]: row["in_part"] for row in found.to_pylist() if row["in_part"]}


def months_of(lake: Lake) -> list[date]:
    """The months of all invoices, in order."""
    found = lake.select("invoice_months", {"invoices": lake.table("invoices").scan()})
    return list(found["month"].to_pylist())


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
    """The months of invoices that no average counts, because their windows lie outside the calendar."""
    return [month for month in months_of(lake) if not has_windows(month)]


def materialized_months(lake: Lake) -> list[date]:
    """The reference months that invoice_window_averages holds."""
    values = lake.table("invoice_window_averages").scan().partition_values["reference_month"]
    return sorted({month for month in values if isinstance(month, date)})


def complete_accounts(lake: Lake) -> list[date]:
    """Completes the accounts of each materialized month: adds an empty row for a new account, and removes the rows of
    accounts without an invoice. It computes no average. Returns the months that changed."""
    return until_committed(partial(_complete_accounts, lake))


def _complete_accounts(lake: Lake) -> list[date]:
    table = lake.table("invoice_window_averages")
    inputs: dict[str, Input] = {"averages": table.scan(), "invoices": lake.table("invoices").scan()}
    off = lake.select("invoice_window_accounts", inputs)
    months: list[date] = off["reference_month"].to_pylist()
    orphaned = off.filter(pc.greater(off["gone"], 0))["reference_month"].to_pylist()
    if orphaned:
        rows = lake.select("invoice_window_accounts_kept", {**inputs, "averages": _of_months(table, orphaned)})
        table.replace(rows, where=f"reference_month in ({', '.join(map(sql_literal, orphaned))})")
        return sorted({*months, *_complete_accounts(lake)})
    if months:
        rows_of_months = lake.stream("invoice_window_accounts_missing", {**inputs, "months": off})
        append(table, (pa.Table.from_batches([batch]) for batch in rows_of_months))
    return months


def _of_months(table: Table, months: Iterable[date]) -> Scan:
    return table.scan(partitions={(month,) for month in months})


def averages(lake: Lake, invoices: pa.Table | Scan, reference_month: date) -> pa.Table:
    """The one path that computes averages, for the table, the report and the check on the document's example."""
    return lake.select(
        "invoice_window_averages",
        inputs={"invoices": invoices if isinstance(invoices, Scan) else _SCHEMA.complete(invoices)},
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
        # Opened before its input: a writer that read older invoices loses the race.
        table = lake.table("invoice_window_averages")
        rows = averages_now(lake, reference_month)
        table.replace(rows, where=f"reference_month = {sql_literal(reference_month)}")
        return rows

    return until_committed(attempt)


def write_average_files(rows: pa.Table, reference_month: date, reports: Path) -> list[Path]:
    """Writes the month's report files, `invoice-averages/YYYY-MM.txt|csv|parquet` under `reports`."""
    paths = []
    for format in REPORT_FILES:
        path = reports / "invoice-averages" / f"{reference_month:%Y-%m}.{SUFFIX[format]}"
        write_atomically(path, partial(write_invoice_averages, rows, format=format))
        paths.append(path)
    return paths


def example_account_differences(lake: Lake) -> list[str]:
    """The document's accounts whose averages the deployed code doesn't reproduce from the document's invoices."""
    sample = parse_invoices((files("notif_assets") / "samples" / "invoices.csv").read_bytes(), "invoices.csv").rows
    got = _cents_by_account(averages(lake, sample, EXAMPLE_MONTH))
    return sorted(
        key[1]
        for key in EXAMPLE_AVERAGES.keys() | got.keys()
        if key not in got or got[key] != EXAMPLE_AVERAGES.get(key)
    )


def months_that_differ(lake: Lake) -> list[date]:
    """The materialized months that an independent calculation in plain Python finds wrong, missing accounts
    included."""
    history: dict[tuple[str, str], dict[date, int]] = defaultdict(lambda: defaultdict(int))
    in_part = set()
    for row in lake.rows(lake.table("invoices").scan()).to_pylist():
        account = row["customer"], row["account"]
        history[account][row["month"]] += int(row["invoice"] * 100)
        if row["set_aside"] is not None:
            in_part.add((account, row["month"]))
    for account, month in in_part:
        del history[account][month]
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
