"""The group of all commands, by section, and how an error becomes one line.

Belongs here: what holds of every command. Doesn't: the commands, which stand in a module for each section.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import click
import pydantic
from pydantic_settings import SettingsError

from notif_assets.cli import bills, files, ingest, panel, reports, serving, start, upkeep
from notif_assets.core.texts import escape_controls
from notif_assets.errors import NotifError
from notif_assets.settings import Settings, unknown_variables


@contextmanager
def _one_line() -> Iterator[None]:
    """Turns expected errors into one clear line on standard error and exit code 1."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:  # which would print the usage above it
        command = error.ctx.command_path if error.ctx else "notif-assets"
        raise click.UsageError(escape_controls(f"{error.format_message()} (see {command} --help)")) from None
    except click.ClickException as error:
        raise click.ClickException(escape_controls(error.message)) from None
    except BrokenPipeError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except NotifError as error:
        raise click.ClickException(escape_controls(str(error))) from None
    except Exception as error:
        # By name: few commands need the library.
        if any(kind.__name__ == "SQLAlchemyError" for kind in type(error).__mro__):
            cause = str(error).splitlines()[0]
            raise click.ClickException(f"Dagster's storage (DAGSTER_STORE) can't be used: {cause}") from None
        if isinstance(error, OSError):
            path = escape_controls(os.fsdecode(error.filename or "the system"))
            raise click.ClickException(f"{path}: {error.strerror or error}") from None
        if isinstance(error, MemoryError):
            raise click.ClickException("the machine has no memory left for it: run it where there is more") from None
        raise


class _Group(click.Group):
    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by what people want; the first line of each is whole."""
        width = max(len(command.name or "") for commands in _SECTIONS.values() for command in commands)
        for title, commands in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{c.name or '':<{width}}", c.get_short_help_str(limit=80)) for c in commands])

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> click.Context:
        with _one_line():
            return super().make_context(info_name, args, *rest, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _one_line():
            return super().invoke(ctx)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="notif-assets")
@click.pass_context
def main(ctx: click.Context) -> None:
    """From Kafka notifications and files to panels, reports and bills that can be proved.

    Settings come from the environment or .env (NOTIF_LAKE, NOTIF_KAFKA_BOOTSTRAP, …; see docs/reference/settings.md).

    \b
    Example, on the embedded broker:
      notif-assets broker &
      notif-assets produce --rate 1000 --seconds 10
      notif-assets ingest --until-caught-up
      notif-assets report panel
    """
    try:
        ctx.obj = Settings()
    except pydantic.ValidationError as error:
        problems = "; ".join(
            f"NOTIF_{'_'.join(str(part) for part in problem['loc']).upper().removeprefix('NOTIF_')}: {problem['msg']}"
            for problem in error.errors()
        )
        raise click.ClickException(problems) from None
    except SettingsError as error:  # JSON that is none; its cause would show the value
        name = re.search(r'field "(\w+)"', str(error))
        raise click.ClickException(f"NOTIF_{name[1].upper() if name else '…'}: want JSON") from None
    if ctx.obj.engine != "duckdb":
        raise click.ClickException("NOTIF_ENGINE: only duckdb is built so far")
    for sentence in unknown_variables():
        click.echo(f"Warning: {sentence}", err=True)


# In the order of `--help`.
_SECTIONS: Mapping[str, Sequence[click.Command]] = {
    "Start": (
        start.status,
        start.broker,
        start.produce,
    ),
    "Ingest": (
        ingest.ingest,
        ingest.readmit,
        ingest.accept_loss,
    ),
    "Files": (
        files.import_prices,
        files.import_invoices,
        files.import_answers,
    ),
    "Bills": (
        bills.close_day,
        bills.reprice,
    ),
    "Reports": (reports.report,),
    "Panel": (
        panel.panel,
        panel.token,
        panel.revoke,
    ),
    "Serving copy": (
        serving.serve,
        serving.bi_kit,
    ),
    "Upkeep": (
        upkeep.check,
        upkeep.maintain,
        upkeep.rebuild,
        upkeep.erase,
    ),
}
for _commands in _SECTIONS.values():
    for _command in _commands:
        main.add_command(_command)
