"""Proving the lake, keeping it small, repairing it, and forgetting a customer.

Belongs here: these commands' names, options, help, exit codes and what they print. Doesn't: any work: each calls the
functions or jobs that the assets use too. Libraries that a command does not need are not imported for it.
"""

from datetime import UTC, date, datetime

import click

from notif_assets.cli.shared import DAY, existing_lake, open_runs
from notif_assets.core.texts import escape_controls
from notif_assets.settings import Settings


@click.command()
@click.option("--all/--lately", "everything", default=True, help="Everything there is (the default), or what is new.")
@click.pass_obj
def check(settings: Settings, everything: bool) -> None:
    """Prove the lake: every file, check and example. The examples are those of the published document. Exit code 1 if
    one fails.

    A damaged file is named with what repairs its table; then nothing else is looked at. With --lately no data file is
    read for its own sake, and of offsets and closed days what changed since the last look, what did not hold then and
    a part of history is counted again, as the daemon does every hour.

    \b
    Example: notif-assets check --lately
    """
    from notif_assets.deployment.proof import prove
    from notif_assets.maintenance.integrity import find_broken_files

    lake = existing_lake(settings)
    broken = 0
    for table, finding in find_broken_files(lake) if everything else ():
        click.echo(f"FAIL {table}: {escape_controls(finding)}")
        broken += 1
    if broken:
        raise click.ClickException(f"{broken} files of the lake are damaged: repair them, then check again")
    with open_runs(settings) as runs:
        verdicts = prove(lake, runs, everything=everything)
    for one in verdicts:
        outcome = "ok  " if one.passed else "FAIL" if one.is_error else "warn"
        click.echo(f"{outcome} {one.check}{'' if one.passed else ': ' + escape_controls(one.finding)}")
    if failed := [one for one in verdicts if one.is_error and not one.passed]:
        raise click.ClickException(f"{len(failed)} of {len(verdicts)} checks failed")


@click.command()
@click.pass_obj
def maintain(settings: Settings) -> None:
    """Keep the lake small over months. Compaction of closed hours and days, vacuum, log clean-up, retention. Old runs
    leave Dagster's storage too, but for the newest 1000 of each job; of bills, averages and chatbot the newest 200,
    and the last one that computed a day, month or hour.

    \b
    Example: notif-assets maintain
    """
    from notif_assets.maintenance.maintain import maintain as run

    for line in run(existing_lake(settings), settings, datetime.now(UTC)):
        click.echo(line)
    with open_runs(settings) as runs:
        from notif_assets.defs.partitions import CUT_OF_JOBS

        click.echo(f"{runs.prune(CUT_OF_JOBS)} old runs deleted")


@click.command()
@click.argument("table")
@click.option("--from", "first", type=DAY, help="First day.")
@click.option("--to", "last", type=DAY, help="Last day, included.")
@click.pass_obj
def rebuild(settings: Settings, table: str, first: date | None, last: date | None) -> None:
    """Compute a derived table again from its source. Books and received tables are refused.

    \b
    Example: notif-assets rebuild minute_aggregates --from 2020-02-03 --to 2020-02-03
    """
    from notif_assets.maintenance.rebuild import rebuild as run

    try:
        run(existing_lake(settings), settings, table, first, last)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{table} is rebuilt")


@click.command()
@click.option("--customer", required=True, type=click.IntRange(1), help="The customer's id.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.pass_obj
def erase(settings: Settings, customer: int, yes: bool) -> None:
    """Blank a customer's payloads and names, never counts. In every table. The next maintain after the retention of
    7 days removes the files that held them.

    Rejected messages that name the customer in any way are found too; how many name nobody at all is told.

    \b
    Example: notif-assets erase --customer 7494212 --yes
    """
    from notif_assets.maintenance.erase import count_unattributable
    from notif_assets.maintenance.erase import erase as run

    if not yes:
        click.confirm(f"Blank every payload and name of customer {customer}? This can't be undone", abort=True)
    lake = existing_lake(settings)
    for table, rows in run(lake, settings, customer).items():
        click.echo(f"{table}: {rows} rows blanked")
    click.echo(
        f"{count_unattributable(lake, settings)} rejected messages name no customer, so whose they are can't be told; "
        "NOTIF_PAYLOAD_DAYS blanks them in time"
    )
