"""Closing days and pricing them anew.

Belongs here: these commands' names, options, help, exit codes and what they print. Doesn't: any work: each calls the
functions or jobs that the assets use too. Libraries that a command does not need are not imported for it.
"""

from datetime import date
from typing import Any

import click

from notif_assets.cli.shared import DAY, existing_lake, open_runs
from notif_assets.settings import Settings


@click.command("close-day")
@click.argument("day", type=DAY, metavar="DATE")
@click.option("--to", "last", type=DAY, help="Close every day from DATE to this one.")
@click.pass_obj
def close_day(settings: Settings, day: date, last: date | None) -> None:
    """Close a day: its bill becomes final. On a closed day, write the adjustments that are due.

    What came late to a closed day and has no price in its list is named, and the exit code is 1; the rest is written.

    \b
    Example: notif-assets close-day 2020-02-03
             notif-assets close-day 2020-02-01 --to 2020-02-29
    """
    _bill(settings, day, last or day, {"must_close": True})


@click.command()
@click.option("--from", "day", required=True, type=DAY, help="First closed day.")
@click.option("--to", "last", required=True, type=DAY, help="Last closed day.")
@click.option("--reason", required=True, help="Why, for the record.")
@click.pass_obj
def reprice(settings: Settings, day: date, last: date, reason: str) -> None:
    """Price closed days with the current list. What that changes becomes adjustments.

    If the list has another currency, the old amounts are reversed in the old one and billed anew in the new.

    \b
    Example: notif-assets reprice --from 2020-02-01 --to 2020-02-03 --reason "contract of January"
    """
    _bill(settings, day, last, {"must_close": True, "reprice": True, "note": reason})


def _bill(settings: Settings, first: date, last: date, config: dict[str, Any]) -> None:
    from dagster import PartitionKeyRange

    from notif_assets.billing.closed_days import rejections_noted
    from notif_assets.billing.report_files import bill_sentence
    from notif_assets.core.days import days_between
    from notif_assets.defs.partitions import require_billed_days

    try:
        require_billed_days(settings, first, last)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    lake = existing_lake(settings)
    with open_runs(settings) as runs:
        runs.run("daily_billing_job", {"daily_billing": config}, PartitionKeyRange(str(first), str(last)))
    for day in days_between(first, last):
        click.echo(bill_sentence(lake, day))
        if rejected := rejections_noted(lake, settings, day):
            click.echo(f"Warning: {day}: {rejected}", err=True)
