"""The serving copy: tables of the lake in PostgreSQL, for tools that speak SQL.

Belongs here: these commands' names, options, help, exit codes and what they print. Doesn't: any work: each calls the
functions that the assets use too. Libraries that a command does not need are not imported for it.
"""

from datetime import UTC, datetime
from pathlib import Path

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


@click.command("bi-kit")
@click.option(
    "--out", "folder", required=True, type=click.Path(path_type=Path, file_okay=False), help="The folder to write to."
)
@click.option("--server", help="The copy's host:port, as the tools' users reach it.  [default: of NOTIF_SERVING_URL]")
@click.option("--database", help="Its database.  [default: of NOTIF_SERVING_URL]")
@click.option("--user", default="notif_bi", show_default=True, help="A user who may read its views.")
@click.pass_obj
def bi_kit(settings: Settings, folder: Path, server: str | None, database: str | None, user: str) -> None:
    """Write files for Power BI, Superset and Metabase.

    Models, dashboards and questions over the serving copy in PostgreSQL.

    No file has a password: each tool asks for it. docs/bi.md says how each tool takes its files. Files of
    an older kit are replaced; a Power BI report that is there already stays.

    \b
    Example: notif-assets bi-kit --out bi --server warehouse.example:5432 --database serving
    """
    from notif_assets.bi_kit import files_of_kit, find_copy, write_kit
    from notif_assets.bi_kit.views import views

    copy = find_copy(settings, server, database, user)
    shown = views(settings.timezone, with_chatbot=settings.serving_chatbot)
    written = write_kit(folder, files_of_kit(shown, copy, datetime.now(UTC).date()))
    click.echo(f"{len(written)} files in {folder}, for the serving copy at {copy.server}/{copy.database}")
