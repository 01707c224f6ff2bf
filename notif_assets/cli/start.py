"""Trying it: a broker, traffic, and where everything stands.

Belongs here: these commands' names, options, help, exit codes and what they print. Doesn't: any work: each calls the
functions or jobs that the assets use too. Libraries that a command does not need are not imported for it.
"""

import secrets

import click

from notif_assets.cli.shared import progress_bar
from notif_assets.settings import Settings


@click.command()
@click.option("--port", default=9092, show_default=True, help="Port on 127.0.0.1.")
@click.option("--topic", help="Topic to create.  [default: NOTIF_TOPIC]")
@click.option("--partitions", default=12, show_default=True, type=click.IntRange(1, 1000), help="Its partitions.")
@click.pass_obj
def broker(settings: Settings, port: int, topic: str | None, partitions: int) -> None:
    """Run the embedded broker in the foreground, until Ctrl-C. In memory: it keeps about 5 MiB a partition.

    \b
    Example: notif-assets broker --port 9092
    """
    from notif_assets.sandbox.broker import serve

    name = topic or settings.topic
    ready = f"topic {name}, {partitions} partitions; Ctrl-C ends it"
    serve(port, name, partitions, lambda started: click.echo(f"broker at {started.bootstrap}, {ready}"))


@click.command()
@click.option("--rate", default=1157, show_default=True, type=click.IntRange(1), help="Messages a second.")
@click.option("--seconds", default=10.0, show_default=True, type=click.FloatRange(0, min_open=True), help="How long.")
@click.option("--customers", default=5000, show_default=True, type=click.IntRange(1), help="How many customers.")
@click.option("--seed", type=int, help="The same seed gives the same message ids again.  [default: another each time]")
@click.pass_obj
def produce(settings: Settings, rate: int, seconds: float, customers: int, seed: int | None) -> None:
    """Send made-up traffic to the topic. It has duplicates, late and broken messages; what was sent is told.

    Every run sends new messages, unless --seed names that of another run.

    \b
    Example: notif-assets produce --rate 1157 --seconds 60
    """
    from notif_assets.sandbox.traffic import produce as send

    with progress_bar(int(rate * seconds), "produced") as advance:
        tally = send(settings, rate, seconds, customers, secrets.randbits(32) if seed is None else seed, advance)
    click.echo(
        f"produced {tally.produced}: {tally.accepted} to accept, {tally.duplicates} duplicates, "
        f"{tally.broken.total()} broken"
    )


@click.command()
@click.pass_obj
def status(settings: Settings) -> None:
    """Tell how the whole stands and what comes next. One screen. Nothing is written.

    Lake, topic, lag now, newest counted minute, open days and why, missing prices, the serving copy if there is
    one, whether Dagster can be reached.

    \b
    Example: notif-assets status
    """
    from notif_assets.cli.overview import status_lines
    from notif_assets.deployment.status import ask_status
    from notif_assets.instance.location import set_instance_environment

    set_instance_environment(settings)
    for name, sentence in status_lines(ask_status(settings), settings):
        click.echo(f"{name:<11}{sentence}")
