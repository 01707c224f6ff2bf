"""The serving copy: tables of the lake in PostgreSQL, for tools that speak SQL.

Belongs here: this command's name, options, help, exit codes and what it prints. Doesn't: any work: it calls the
functions that the assets use too. Libraries that a command does not need are not imported for it.
"""

import click

from notif_assets.cli.shared import existing_lake
from notif_assets.settings import Settings


@click.command()
@click.option("--rebuild", is_flag=True, help="Load every table anew, whatever the copy holds.")
@click.pass_obj
def serve(settings: Settings, rebuild: bool) -> None:
    """Bring the copy in PostgreSQL to where the lake is. NOTIF_SERVING_URL says where. Nothing in the lake changes.

    Only rows that changed are copied, each table in a transaction of its own: readers see a whole version, and a killed
    command leaves nothing behind. Tools read the views of schema bi; the role notif_bi may read them and nothing else.
    The daemon does the same by itself. With --rebuild readers keep the old rows until the new ones are all there.

    \b
    Example: notif-assets serve
    """
    from notif_assets.serving.copying import Copied
    from notif_assets.serving.copying import serve as run

    def tell(copied: Copied) -> None:
        rows = f"{copied.came} rows came, {copied.went} went"
        click.echo(f"{copied.table}: version {copied.version}, {rows}")

    if not run(existing_lake(settings), settings, anew=rebuild, tell=tell):
        click.echo("the copy is where the lake is")
