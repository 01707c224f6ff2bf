"""Invoices, and each account's averages over the 3 and the 6 months before a reference month.

Belongs here: the assets, the checks that guard them, what the UI shows of them. Doesn't: reading files and replacing
rows (invoices/averages.py), the arithmetic (invoices/sql/), the calendar (core/windows.py).
"""

import math
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import dagster as dg
import pyarrow as pa
from pydantic import Field

from notif_assets.core.texts import escape_markdown
from notif_assets.defs.assets.inbox import difference_result, inbox, report_set_aside
from notif_assets.defs.assets.specs import described, row_count
from notif_assets.defs.partitions import invoice_months
from notif_assets.inbox.listing import invoice_files
from notif_assets.inbox.rows import FileRefused
from notif_assets.inbox.source_files import count_by_reason
from notif_assets.invoices.averages import (
    complete_accounts,
    example_account_differences,
    forget_invoices,
    import_invoices,
    months_that_differ,
    replace_averages,
    write_average_files,
)
from notif_assets.lake import Lake
from notif_assets.settings import Settings


class InvoiceFiles(dg.Config):
    """Which invoice files a run imports."""

    files: list[str] = Field(
        default=[],
        description="Absolute paths, imported in this order; none: every file of the inbox's invoices, oldest first.",
    )
    forget: list[str] = Field(
        default=[],
        description="Names of files whose imports are taken back, as source_file has them; then nothing is imported.",
    )


@dg.asset(**described("invoices"), deps=[inbox], code_version="2", pool="invoices")
def invoices(
    context: dg.AssetExecutionContext,
    config: InvoiceFiles,
    lake: dg.ResourceParam[Lake],
    settings: dg.ResourceParam[Settings],
) -> Iterator[dg.MaterializeResult[None]]:
    if config.forget:
        yield _forget(lake, config.forget)
        return
    paths = [Path(path) for path in config.files] or _inbox(settings)
    if not paths:
        raise dg.Failure(f"No invoice file in {settings.inbox / 'invoices'}, and none was given.", allow_retries=False)
    refused: list[FileRefused] = []
    try:
        # The files of the inbox came one by one, so that none of them waits for another; a list is taken as a whole.
        imported = import_invoices(
            lake, paths, None if config.files else refused, _folder(settings), settings.max_file_bytes
        )
    except FileRefused as error:
        raise dg.Failure(f"Nothing was imported. {error}", allow_retries=False) from None
    complete_accounts(lake)
    report_set_aside(context, lake, imported.rejected)
    for replaced in imported.replaced:
        context.log.warning(str(replaced))
    yield dg.MaterializeResult(
        metadata={
            "dagster/row_count": row_count(lake, "invoices"),
            "imported_rows": imported.imported_rows,
            "imported_months": [str(month) for month in imported.months],
            "months_in_part": [str(month) for month in imported.months_in_part],
            "rejected_rows": imported.rejected.num_rows,
            "rejected_rows_by_reason": count_by_reason(imported.rejected),
            "replaced_rows": [str(replaced) for replaced in imported.replaced],
            "preview": dg.MetadataValue.md(preview(imported.preview)),
        }
    )
    if refused:
        raise dg.Failure(f"The other files were imported. {' '.join(map(str, refused))}", allow_retries=False)


def _forget(lake: Lake, names: list[str]) -> dg.MaterializeResult[None]:
    try:
        forgotten, months = forget_invoices(lake, names)
    except ValueError as error:
        raise dg.Failure(f"Nothing was forgotten: {error}", allow_retries=False) from None
    complete_accounts(lake)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": row_count(lake, "invoices"),
            "forgotten_rows": forgotten,
            "imported_months": [str(month) for month in months],
        }
    )


def _folder(settings: Settings) -> Path:
    return settings.inbox / "invoices"


def preview(rows: pa.Table) -> str:
    """The first rows as a table in Markdown, each text as the file has it: "007", and what looks like markup."""
    first = rows.slice(0, 5)
    for index, field in enumerate(first.schema):
        if pa.types.is_string(field.type):
            escaped = pa.array([escape_markdown(text) for text in first[field.name].to_pylist()], pa.string())
            first = first.set_column(index, field, escaped)
    return str(first.to_pandas().to_markdown(index=False, disable_numparse=True))


def _inbox(settings: Settings) -> list[Path]:
    return [file.path for file in invoice_files(_folder(settings), math.inf, settings.max_file_bytes)[0]]


def example_averages_gate(lake: Lake) -> dg.AssetCheckResult:
    """The deployed code still gives the document's averages for the document's invoices."""
    wrong = example_account_differences(lake)
    return dg.AssetCheckResult(
        check_name="published_averages_hold", passed=not wrong, metadata={"accounts_that_differ": wrong}
    )


@dg.asset(
    **described("invoice_window_averages"),
    deps=[invoices],
    partitions_def=invoice_months,
    backfill_policy=dg.BackfillPolicy.single_run(),
    code_version="2",
    pool="invoices",
    check_specs=[
        dg.AssetCheckSpec(
            "published_averages_hold",
            asset="invoice_window_averages",
            blocking=True,
            description="The deployed code gives the document's averages for the document's invoices.",
        )
    ],
)
def invoice_window_averages(
    context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]:
    gate = example_averages_gate(lake)
    if not gate.passed:  # before the commit: a check that runs after it could not take the rows back
        yield gate
        raise dg.Failure("The document's averages do not hold, nothing was written.", allow_retries=False)

    for key in context.partition_keys:
        month = date.fromisoformat(key)
        rows = replace_averages(lake, month)
        written = write_average_files(rows, month, settings.reports)
        context.add_asset_metadata(
            {
                "dagster/partition_row_count": rows.num_rows,
                "accounts_without_3_months": rows["avg_invoices_last_3_months"].null_count,
                "accounts_without_6_months": rows["avg_invoices_last_6_months"].null_count,
                "reports": [str(path) for path in written],
            },
            partition_key=key,
        )
    yield dg.MaterializeResult(check_results=[gate])


@dg.asset_check(
    asset=invoice_window_averages,
    description="Every account with an invoice has its row in every month, and the averages equal a plain Python sum.",
)
def averages_equal_a_plain_calculation(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    return difference_result(months_that_differ(lake), lake.table("invoices"), "invoice_window_averages")
