"""Files that people hand in.

Belongs here: these commands' names, options, help, exit codes and what they print. Doesn't: any work: each calls the
functions or jobs that the assets use too. Libraries that a command does not need are not imported for it.
"""

from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from notif_assets.cli.shared import DAY, lake_of, open_runs, progress_bar
from notif_assets.core.texts import escape_controls
from notif_assets.settings import Settings

if TYPE_CHECKING:
    from dagster import ExecuteInProcessResult

    from notif_assets.instance.runs import Runs
    from notif_assets.lake import Lake


@click.command("import-prices")
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def import_prices(settings: Settings, file: Path) -> None:
    """Load a price list, which prices open days. Its columns:
    customer_id,channel,unit_price,currency,valid_from,valid_to.

    A list is taken whole or not at all.

    \b
    Example: notif-assets import-prices prices.csv
    """
    from notif_assets.billing.prices import current_version
    from notif_assets.defs.partitions import billed_days, key_ranges

    _refuse_unusable_names([file])
    lake = lake_of(settings)
    with open_runs(settings) as runs:
        runs.run("prices_job", {"prices": {"file": str(file.absolute())}})
        lines = lake.rows(lake.table("daily_billing").scan()).select(["billing_date", "status"]).to_pylist()
        open_days = {str(row["billing_date"]) for row in lines if row["status"] == "provisional"}
        for days in key_ranges(billed_days(settings), open_days):
            runs.run("daily_billing_job", partitions=days)
    click.echo(f"price list {current_version(lake)} prices open days from now on")


@click.command("import-invoices")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="FILE…")
@click.option("--forget", multiple=True, metavar="FILE", help="Take the import of a file of this name back.")
@click.pass_obj
def import_invoices(settings: Settings, files: tuple[Path, ...], forget: tuple[str, ...]) -> None:
    """Import invoice files, and compute what they change.

    Their columns: customer,account,month,invoice. The averages that they change are computed again.

    CSV in UTF-8, CSV as Excel writes it in Brazil (semicolons, decimal comma, Windows-1252, 01/2020) or .xlsx, each
    also packed by gzip. A file replaces all earlier rows of every customer, account and month that it has, also those
    of another file: how many of which file is said. --forget takes the rows of a file out again; what they replaced
    does not come back, and a file that lies in the inbox has to be taken out there.

    Bad rows are set aside in rejected_file_rows and named; the exit code is 1 then. The month of their account has no
    average until it is imported whole.

    \b
    Example: notif-assets import-invoices invoices.csv
    """
    from notif_assets.inbox.source_files import unique_names

    if files and forget:
        raise click.UsageError("import files and --forget others in two calls")
    if not files and not forget:
        raise click.UsageError("Missing argument 'FILE…', or --forget FILE to take an import back")
    _refuse_unusable_names([*files, *map(Path, forget)])
    lake = lake_of(settings)
    with open_runs(settings) as runs:
        config = {"files": [str(path.absolute()) for path in files], "forget": list(forget)}
        metadata = _metadata_of(runs.run("invoices_job", {"invoices": config}), "invoices")
        refreshed = _refresh_averages(runs, {*metadata["imported_months"], *metadata.get("months_in_part", ())})
    click.echo(f"{metadata['dagster/row_count']} invoices; averages of {refreshed} months are up to date")
    if forget:
        click.echo(
            f"{metadata['forgotten_rows']} rows of {', '.join(forget)} are forgotten; what they replaced is not back"
        )
    for line in metadata.get("replaced_rows", ()):
        click.echo(line)
    _warn_of_uncounted_months(lake)
    _name_rows_set_aside(lake, list(unique_names(files).values()))


def _metadata_of(result: "ExecuteInProcessResult", asset: str) -> dict[str, Any]:
    """What a run told of an asset, as plain values."""
    events = result.get_asset_materialization_events()
    (metadata,) = (e.materialization.metadata for e in events if e.asset_key and e.asset_key.to_user_string() == asset)
    return {name: value.value for name, value in metadata.items()}


def _refresh_averages(runs: "Runs", imported_months: Iterable[str]) -> int:
    """Computes the months whose windows hold one of these; gives how many."""
    from notif_assets.defs.partitions import invoice_months, key_ranges
    from notif_assets.invoices.averages import months_affected

    months = [str(month) for month in months_affected(map(date.fromisoformat, imported_months))]
    ranges = key_ranges(invoice_months, months)
    with progress_bar(len(ranges), "averages") as advance:
        for done, reference_months in enumerate(ranges, 1):
            runs.run("invoice_averages_job", partitions=reference_months)
            advance(done)
    return len(months)


def _warn_of_uncounted_months(lake: "Lake") -> None:
    from notif_assets.invoices.averages import months_without_windows

    if never := ", ".join(str(month) for month in months_without_windows(lake)[:5]):
        click.echo(f"invoices of {never} count in no average: their windows have no date", err=True)


@click.command("import-answers")
@click.option("--date", "day", required=True, type=DAY, help="The day of the files.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE…")
@click.pass_obj
def import_answers(settings: Settings, day: date, files: tuple[Path, ...]) -> None:
    """Import chatbot answers by the hour, and report their day.

    The files are named hour=HH.json.

    A file may be packed by gzip (hour=HH.json.gz); it replaces all answers of its hour. Bad records and values are set
    aside in rejected_file_rows and named; the exit code is 1 then. A question whose last answer was set aside has no
    answer in the report, whatever was answered before.

    \b
    Example: notif-assets import-answers --date 2019-12-16 hour=13.json hour=14.json
    """
    from dagster import PartitionKeyRange

    from notif_assets.chatbot.parsing import parse_answers
    from notif_assets.chatbot.sessions import files_by_hour, source_file_of
    from notif_assets.defs.partitions import answer_days, answer_hours, key_ranges
    from notif_assets.inbox.rows import FileRefused
    from notif_assets.inbox.source_files import read_file

    _refuse_unusable_names(files)
    try:
        hours = {hour: str(path.absolute()) for hour, path in files_by_hour(files).items()}
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    if not answer_days.has_partition_key(str(day)):
        raise click.ClickException(f"{day} has no answers: days go from 2019-01-01 to today")
    keys = {f"{day}-{hour:02}:00": path for hour, path in hours.items()}
    ranges = key_ranges(answer_hours, keys)
    if len(ranges) > 1:  # each is a run of its own: what would be refused must be so before the first of them
        try:
            for hour, path in hours.items():
                data = read_file(Path(path), most=settings.max_file_bytes)
                parse_answers(data, source_file_of(day, hour), day, hour)
        except FileRefused as refused:
            raise click.ClickException(f"Nothing of {day} was imported. {refused}") from None
    with open_runs(settings) as runs:
        for key_range in ranges:
            runs.run("chatbot_answers_job", {"chatbot_answers": {"files": keys}}, key_range)
        runs.run("chatbot_reports_job", partitions=PartitionKeyRange(str(day), str(day)))
    lake = lake_of(settings)
    click.echo(f"answers of {day}: {len(hours)} hours imported, the day's report is up to date")
    _name_rows_set_aside(lake, [source_file_of(day, hour) for hour in hours])


def _refuse_unusable_names(files: Iterable[Path]) -> None:
    """Before a run is started: its configuration can't even hold such a name."""
    from notif_assets.core.texts import quote_odd
    from notif_assets.inbox.source_files import name_problem

    for path in files:
        if why := name_problem(str(path)):
            raise click.ClickException(f"{quote_odd(path)}: {why}; rename it")


def _name_rows_set_aside(lake: "Lake", source_files: list[str]) -> None:
    from notif_assets.inbox.source_files import rows_set_aside

    rows = rows_set_aside(lake, source_files).to_pylist()
    for row in rows[:20]:
        location = f"{escape_controls(row['source_file'])}:{row['source_line']}"
        click.echo(f"{location}: {row['reason']}: {escape_controls(row['detail'])}", err=True)
    if rows:
        raise click.ClickException(f"{len(rows)} rows were set aside, see the table rejected_file_rows")
