"""From the topic to the panel: ingestion, and what a person decides about it.

Belongs here: these commands' names, options, help, exit codes and what they print. Doesn't: any work: each calls the
functions or jobs that the assets use too. Libraries that a command does not need are not imported for it.
"""

import os
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import click

from notif_assets.cli.shared import existing_lake, lake_of, open_runs, progress_bar
from notif_assets.settings import Settings

if TYPE_CHECKING:
    from notif_assets.lake import Lake


@click.command()
@click.option("--until-caught-up", is_flag=True, help="Repeat until all that Kafka holds now is read.")
@click.pass_obj
def ingest(settings: Settings, until_caught_up: bool) -> None:
    """Bring new messages from the topic to the panel. This is the micro-batch job, with its checks.

    The same code as the sensor's run. With --until-caught-up the next run's messages are read while one brings its own
    through the tables. Two at once do no harm.

    \b
    Example: notif-assets ingest --until-caught-up
    """
    from notif_assets.kafka.open import open_client
    from notif_assets.kafka.process_client import ProcessClient
    from notif_assets.notifications.catch_up import committed_ends
    from notif_assets.notifications.ledger import deleted_before, deleted_before_text
    from notif_assets.notifications.read_ahead import ReadAhead

    lake = lake_of(settings)
    with open_client(settings) as client:
        goal = {p: bounds.end for p, bounds in client.offsets().partitions.items()}
    begin = committed_ends(lake) if settings.lake.is_dir() else {}
    is_first = not settings.lake.is_dir() or not lake.table("ingest_batches").watermark
    watermarks = {name: lake.table(name).watermark if settings.lake.is_dir() else 0 for name in _SILVER}

    def missing() -> int:
        ends = committed_ends(lake)
        return sum(max(0, end - ends.get(partition, begin.get(partition, 0))) for partition, end in goal.items())

    with (
        ReadAhead() as ahead,
        (
            open_runs(settings, ahead, partial(ProcessClient, settings)) if until_caught_up else open_runs(settings)
        ) as runs,
        progress_bar(sum(goal.values()) - sum(begin.values()), "read") as advance,
    ):
        idle = 0
        while True:
            before = missing()
            runs.run("micro_batch")
            left = missing()
            advance(sum(goal.values()) - sum(begin.values()) - left)
            if not left or not until_caught_up:
                break
            idle = idle + 1 if left == before else 0
            if idle == 5:
                raise click.ClickException(
                    f"{left} messages are left and five runs brought none; see the runs in Dagster"
                )
    if is_first and (deleted := deleted_before(lake)):
        click.echo(deleted_before_text(deleted), err=True)
    _print_panel_state(lake, watermarks)


_SILVER = ("notifications", "rejected_notifications")


def _print_panel_state(lake: "Lake", before: Mapping[str, int]) -> None:
    """What came since these watermarks, and what there is in all."""
    from notif_assets.notifications.ledger import complete_until

    until = complete_until(lake, lake.table("customer_panel").watermark)
    accepted, rejected = (lake.table(name).scan().rows_at_most for name in _SILVER)
    new = [_rows_of_batches(lake, name, before[name] + 1, None) for name in _SILVER]
    state = f"complete up to {until:%Y-%m-%dT%H:%M:%SZ}" if until else "not caught up yet"
    click.echo(
        f"this run: {new[0]} notifications, {new[1]} rejected; "
        f"in all: {accepted} notifications, {rejected} rejected; {state}"
    )


def _rows_of_batches(lake: "Lake", table: str, first: int, end: int | None) -> int:
    """How many rows of a table the batches from `first` to before `end` (None: all newer ones) brought."""
    rows = {"counted": lake.table(table).scan(batch=(first, end))}
    return int(lake.select("row_count", rows)["row_count"][0].as_py())


@click.command("accept-loss")
@click.option("--batch", required=True, type=click.IntRange(1), help="The batch that can't be read.")
@click.option("--by", default=lambda: os.environ.get("USER", "unknown"), help="Who accepts it.  [default: $USER]")
@click.pass_obj
def accept_loss(settings: Settings, batch: int, by: str) -> None:
    """Accept offsets that Kafka deleted before they were read. It is a lasting record; then ingestion goes on.

    \b
    Example: notif-assets accept-loss --batch 812
    """
    from notif_assets.kafka.open import open_client
    from notif_assets.notifications.bronze import accept_loss as accept

    try:
        with open_client(settings) as client:
            lost = accept(existing_lake(settings), client, batch, by)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    if not lost:
        click.echo(f"batch {batch} has lost nothing that is not accepted already")
    for partition, (start, end) in lost.items():
        click.echo(f"batch {batch}, partition {partition}: offsets {start} to {end - 1} accepted as lost")


@click.command()
@click.option("--reason", required=True, help="The reason whose messages are tried again, e.g. event_too_early.")
@click.pass_obj
def readmit(settings: Settings, reason: str) -> None:
    """Try rejected messages again after a rule changed.

    \b
    Example: NOTIF_MAX_EVENT_AGE=800d notif-assets readmit --reason event_too_early
    """
    from notif_assets.kafka.open import open_client
    from notif_assets.notifications.catch_up import execute_planned
    from notif_assets.notifications.ledger import plan_move
    from notif_assets.notifications.validity import REASONS

    if reason not in REASONS:
        raise click.BadParameter(f"{reason!r} is no reason; there are {', '.join(REASONS)}", param_hint="--reason")
    lake = existing_lake(settings)
    number = plan_move(lake, "readmit", "readmit", readmit_reason=reason)
    if number is None:
        raise click.ClickException("nothing was ever ingested here")
    with open_client(settings) as client:
        execute_planned(lake, client, settings)
    back = _rows_of_batches(lake, "notifications", number, number + 1)
    click.echo(f"{back} messages readmitted as batch {number}; closed days get adjustments with close-day")
