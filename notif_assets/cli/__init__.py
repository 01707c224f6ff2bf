"""`notif-assets`: the door for people and scripts.

Belongs here: names, options, help, exit codes, what is printed. Doesn't: any work; each command calls the functions or
jobs that the assets use too. Libraries that a command does not need are not imported for it.
"""

import os
import re
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast, get_args

import click
import pydantic
from pydantic_settings import SettingsError

from notif_assets.core.formats import Format, StatementFormat
from notif_assets.core.texts import printable
from notif_assets.core.windows import LONGEST_WINDOW, window_start
from notif_assets.errors import NotifError
from notif_assets.settings import Settings, unknown_variables

if TYPE_CHECKING:
    from dagster import ExecuteInProcessResult

    from notif_assets.instance.runs import Runs
    from notif_assets.lake import Lake
    from notif_assets.notifications.bronze import TakeBatches


def _date(text: str) -> date:
    """Raises ValueError for no date, and for the calendar's first and last, which in some zone don't begin or end."""
    day = date.fromisoformat(text)
    if not date.min < day < date.max:
        raise ValueError(text)
    return day


class _Day(click.ParamType[date]):
    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        if isinstance(value, date):
            return value
        try:
            return _date(value)
        except ValueError:
            self.fail(f"{value!r} is no date; write it as 2020-02-03", param, ctx)


class _Hour(click.ParamType[tuple[date, int | None]]):
    """A date (None as hour: all of it) or an hour of a date."""

    name = "date or hour"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[date, int | None]:
        if isinstance(value, tuple):
            return value
        try:
            if "T" in value:
                moment = datetime.strptime(value, "%Y-%m-%dT%H")  # noqa: DTZ007 - an hour of a calendar, not an instant
                return _date(str(moment.date())), moment.hour
            return _date(value), None
        except ValueError:
            self.fail(f"{value!r} is neither a date like 2019-12-16 nor an hour like 2019-12-16T13", param, ctx)


class _Month(click.ParamType[date]):
    name = "month"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        try:
            month = value if isinstance(value, date) else date.fromisoformat(f"{value}-01")
            window_start(month, LONGEST_WINDOW)
        except ValueError:
            self.fail(f"{value!r} is no month; write it as 2020-01", param, ctx)
        return month


DAY, HOUR, MONTH = _Day(), _Hour(), _Month()


@contextmanager
def _one_line() -> Iterator[None]:
    """Turns what can go wrong by the world's doing into one clear line on standard error and exit code 1."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:  # which would print the usage above it
        command = error.ctx.command_path if error.ctx else "notif-assets"
        raise click.UsageError(printable(f"{error.format_message()} (see {command} --help)")) from None
    except click.ClickException as error:
        raise click.ClickException(printable(error.message)) from None
    except BrokenPipeError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except NotifError as error:
        raise click.ClickException(printable(str(error))) from None
    except Exception as error:
        # By name: few commands need the library.
        if any(kind.__name__ == "SQLAlchemyError" for kind in type(error).__mro__):
            what = str(error).splitlines()[0]
            raise click.ClickException(f"Dagster's storage (DAGSTER_STORE) can't be used: {what}") from None
        if isinstance(error, OSError):
            place = printable(os.fsdecode(error.filename or "the system"))
            raise click.ClickException(f"{place}: {error.strerror or error}") from None
        if isinstance(error, MemoryError):
            raise click.ClickException("the machine has no memory left for it: run it where there is more") from None
        raise


class _Group(click.Group):
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

    Settings come from the environment or .env (NOTIF_LAKE, NOTIF_KAFKA_BOOTSTRAP, …; see README).

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


def _lake(settings: Settings) -> "Lake":
    from notif_assets.lake import Lake

    return Lake(settings.lake, memory=settings.engine_memory)


def _existing_lake(settings: Settings) -> "Lake":
    """The lake for a reader, which creates nothing."""
    from notif_assets.lake import SCHEMAS

    lake = _lake(settings)
    if not lake.exists() and not any((settings.lake / name).is_dir() for name in SCHEMAS):
        raise click.ClickException(f"there is no lake at {settings.lake}: ingest or import first, or set NOTIF_LAKE")
    if lake.exists():
        lake.claim(topic=settings.topic, timezone=settings.timezone)  # a bill of other days would be another bill
    return lake


def open_runs(settings: Settings, take_batches: "TakeBatches | None" = None) -> "Runs":
    """Dagster jobs in this process, without warnings that tell a user nothing."""
    from notif_assets.instance.runs import Runs, hush

    hush()
    from notif_assets.definitions import build_definitions
    from notif_assets.notifications import bronze

    return Runs(settings, build_definitions(settings, take_batches=take_batches or bronze.take_batches))


# --- Kafka ------------------------------------------------------------------------------------------------------------


@main.command()
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


@main.command()
@click.option("--rate", default=1157, show_default=True, type=click.IntRange(1), help="Messages a second.")
@click.option("--seconds", default=10.0, show_default=True, type=click.FloatRange(0, min_open=True), help="How long.")
@click.option("--customers", default=5000, show_default=True, type=click.IntRange(1), help="How many customers.")
@click.option("--seed", type=int, help="The same seed gives the same message ids again.  [default: another each time]")
@click.pass_obj
def produce(settings: Settings, rate: int, seconds: float, customers: int, seed: int | None) -> None:
    """Send made-up traffic to the topic, with duplicates, late and broken messages, and tell what was sent.

    Every run sends new messages, unless --seed names that of another run.

    \b
    Example: notif-assets produce --rate 1157 --seconds 60
    """
    from notif_assets.sandbox.traffic import produce as send

    with _progress(int(rate * seconds), "produced") as advance:
        tally = send(settings, rate, seconds, customers, secrets.randbits(32) if seed is None else seed, advance)
    click.echo(
        f"produced {tally.produced}: {tally.accepted} to accept, {tally.duplicates} duplicates, "
        f"{tally.broken.total()} broken"
    )


@main.command()
@click.option("--until-caught-up", is_flag=True, help="Repeat until all that Kafka holds now is read.")
@click.pass_obj
def ingest(settings: Settings, until_caught_up: bool) -> None:
    """Run the micro-batch job here: from the topic to the panel, with its checks.

    The same code as the sensor's run. With --until-caught-up the next run's messages are read while one brings its own
    through the tables. Two at once do no harm.

    \b
    Example: notif-assets ingest --until-caught-up
    """
    from notif_assets.kafka.open import open_client
    from notif_assets.notifications.catch_up import committed_ends
    from notif_assets.notifications.ledger import dropped_before, dropped_before_text
    from notif_assets.notifications.read_ahead import ReadAhead

    lake = _lake(settings)
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
        open_runs(settings, ahead if until_caught_up else None) as runs,
        _progress(sum(goal.values()) - sum(begin.values()), "read") as advance,
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
    if is_first and (dropped := dropped_before(lake)):
        click.echo(dropped_before_text(dropped), err=True)
    _say_panel_state(lake, watermarks)


_SILVER = ("notifications", "rejected_notifications")


def _say_panel_state(lake: "Lake", before: Mapping[str, int]) -> None:
    """What came since these watermarks, and what there is in all."""
    from notif_assets.notifications.ledger import complete_until

    until = complete_until(lake, lake.table("customer_panel").watermark)
    accepted, rejected = (lake.table(name).scan().rows_at_most for name in _SILVER)
    new = [_rows_since(lake, name, before[name]) for name in _SILVER]
    state = f"complete up to {until:%Y-%m-%dT%H:%M:%SZ}" if until else "not caught up yet"
    click.echo(
        f"this run: {new[0]} notifications, {new[1]} rejected; "
        f"in all: {accepted} notifications, {rejected} rejected; {state}"
    )


def _rows_since(lake: "Lake", table: str, batch: int) -> int:
    newer = {"counted": lake.table(table).scan(batch=(batch + 1, None))}
    return int(lake.select("row_count", newer)["row_count"][0].as_py())


@main.command("accept-loss")
@click.option("--batch", required=True, type=click.IntRange(1), help="The batch that can't be read.")
@click.option("--by", default=lambda: os.environ.get("USER", "unknown"), help="Who accepts it.  [default: $USER]")
@click.pass_obj
def accept_loss(settings: Settings, batch: int, by: str) -> None:
    """Accept that Kafka deleted offsets of a batch before they were read; a lasting record, then ingestion goes on.

    \b
    Example: notif-assets accept-loss --batch 812
    """
    from notif_assets.kafka.open import open_client
    from notif_assets.notifications.bronze import accept_loss as accept

    try:
        with open_client(settings) as client:
            lost = accept(_existing_lake(settings), client, batch, by)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    if not lost:
        click.echo(f"batch {batch} has lost nothing that is not accepted already")
    for partition, (start, end) in lost.items():
        click.echo(f"batch {batch}, partition {partition}: offsets {start} to {end - 1} accepted as lost")


@main.command()
@click.option("--reason", required=True, help="The reason whose messages are tried again, e.g. event_too_early.")
@click.pass_obj
def readmit(settings: Settings, reason: str) -> None:
    """Try rejected messages again, after a rule or a setting changed.

    \b
    Example: NOTIF_MAX_EVENT_AGE=800d notif-assets readmit --reason event_too_early
    """
    from notif_assets.kafka.open import open_client
    from notif_assets.notifications.catch_up import execute_planned
    from notif_assets.notifications.ledger import plan_move
    from notif_assets.notifications.validity import REASONS

    if reason not in REASONS:
        raise click.BadParameter(f"{reason!r} is no reason; there are {', '.join(REASONS)}", param_hint="--reason")
    lake = _existing_lake(settings)
    number = plan_move(lake, "readmit", "readmit", readmit_reason=reason)
    if number is None:
        raise click.ClickException("nothing was ever ingested here")
    with open_client(settings) as client:
        execute_planned(lake, client, settings)
    readmitted = {"counted": lake.table("notifications").scan(batch=(number, number + 1))}
    back = lake.select("row_count", readmitted)["row_count"][0].as_py()
    click.echo(f"{back} messages readmitted as batch {number}; closed days get adjustments with close-day")


# --- billing ----------------------------------------------------------------------------------------------------------


@main.command("close-day")
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


@main.command()
@click.option("--from", "day", required=True, type=DAY, help="First closed day.")
@click.option("--to", "last", required=True, type=DAY, help="Last closed day.")
@click.option("--reason", required=True, help="Why, for the record.")
@click.pass_obj
def reprice(settings: Settings, day: date, last: date, reason: str) -> None:
    """Price closed days with the current list; what that changes becomes adjustments.

    If the list has another currency, the old amounts are reversed in the old one and billed anew in the new.

    \b
    Example: notif-assets reprice --from 2020-02-01 --to 2020-02-03 --reason "contract of January"
    """
    _bill(settings, day, last, {"must_close": True, "reprice": True, "note": reason})


def _bill(settings: Settings, first: date, last: date, config: dict[str, Any]) -> None:
    from dagster import PartitionKeyRange

    from notif_assets.billing.closed_days import currencies_of_days, losses_noted, rejections_noted
    from notif_assets.billing.report_files import bill_of
    from notif_assets.core.amounts import sums_of
    from notif_assets.core.days import FIRST_DAY
    from notif_assets.defs.partitions import billing_days
    from notif_assets.reports.text import amounts

    if last < first:
        raise click.ClickException(f"{last} is before {first}")
    for day in (first, last):
        if not billing_days.has_partition_key(str(day)):
            raise click.ClickException(f"{day} can't be billed: days go from {FIRST_DAY} to today")
    lake = _existing_lake(settings)
    with open_runs(settings) as runs:
        runs.run("daily_billing_job", {"daily_billing": config}, PartitionKeyRange(str(first), str(last)))
    day = first
    while day <= last:
        lines, adjustments = bill_of(lake, day)
        sent, total = sum(lines["notifications"].to_pylist()), sums_of(lines, "amount")
        billed = amounts(total or {currencies_of_days(lake, [day])[day]: Decimal(0)})
        text = f"{day} closed: {lines.num_rows} lines, {sent} notifications, {billed}"
        if adjustments.num_rows:
            text += f"; {adjustments.num_rows} adjustments, {amounts(sums_of(adjustments, 'amount_delta'))}"
        if losses := losses_noted(lake, day):
            text += f"; without what Kafka lost ({losses})"
        click.echo(text)
        if rejected := rejections_noted(lake, settings, day):
            click.echo(f"Warning: {day}: {rejected}", err=True)
        day += timedelta(days=1)


@main.command("import-prices")
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def import_prices(settings: Settings, file: Path) -> None:
    """Load a price list (CSV: customer_id,channel,unit_price,currency,valid_from,valid_to); it prices open days.

    A list is taken whole or not at all.

    \b
    Example: notif-assets import-prices prices.csv
    """
    from notif_assets.billing.prices import current_version
    from notif_assets.defs.partitions import billing_days, key_ranges

    _refuse_odd_names([file])
    lake = _lake(settings)
    with open_runs(settings) as runs:
        runs.run("prices_job", {"prices": {"file": str(file.absolute())}})
        lines = lake.rows(lake.table("daily_billing").scan()).select(["billing_date", "status"]).to_pylist()
        open_days = {str(row["billing_date"]) for row in lines if row["status"] == "provisional"}
        for days in key_ranges(billing_days, open_days):
            runs.run("daily_billing_job", partitions=days)
    click.echo(f"price list {current_version(lake)} prices open days from now on")


# --- files ------------------------------------------------------------------------------------------------------------


@main.command("import-invoices")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="FILE…")
@click.option("--forget", multiple=True, metavar="FILE", help="Take the import of a file of this name back.")
@click.pass_obj
def import_invoices(settings: Settings, files: tuple[Path, ...], forget: tuple[str, ...]) -> None:
    """Import invoice files (customer,account,month,invoice) and compute the averages that they change.

    CSV in UTF-8, CSV as Excel writes it in Brazil (semicolons, decimal comma, Windows-1252, 01/2020) or .xlsx, each
    also packed by gzip. A file replaces all earlier rows of every customer, account and month that it has, also those
    of another file: how many of which file is said. --forget takes the rows of a file out again; what they replaced
    does not come back, and a file that lies in the inbox has to be taken out there.

    Bad rows are set aside in rejected_file_rows and named; the exit code is 1 then. The month of their account has no
    average until it is imported whole.

    \b
    Example: notif-assets import-invoices invoices.csv
    """
    from notif_assets.inbox.dropped_files import names_of

    if files and forget:
        raise click.UsageError("import files and --forget others in two calls")
    if not files and not forget:
        raise click.UsageError("Missing argument 'FILE…', or --forget FILE to take an import back")
    _refuse_odd_names([*files, *map(Path, forget)])
    lake = _lake(settings)
    with open_runs(settings) as runs:
        config = {"files": [str(path.absolute()) for path in files], "forget": list(forget)}
        told = _metadata_of(runs.run("invoices_job", {"invoices": config}), "invoices")
        refreshed = _refresh_averages(runs, {*told["imported_months"], *told.get("months_in_part", ())})
    click.echo(f"{told['dagster/row_count']} invoices; averages of {refreshed} months are up to date")
    if forget:
        click.echo(
            f"{told['forgotten_rows']} rows of {', '.join(forget)} are forgotten; what they replaced is not back"
        )
    for line in told.get("replaced_rows", ()):
        click.echo(line)
    _tell_invoices_that_count_nowhere(lake)
    _name_rows_set_aside(lake, list(names_of(files).values()))


def _metadata_of(result: "ExecuteInProcessResult", asset: str) -> dict[str, Any]:
    """What a run told of an asset, as plain values."""
    events = result.get_asset_materialization_events()
    (told,) = (e.materialization.metadata for e in events if e.asset_key and e.asset_key.to_user_string() == asset)
    return {name: value.value for name, value in told.items()}


def _refresh_averages(runs: "Runs", imported_months: Iterable[str]) -> int:
    """Computes the months whose windows hold one of these; gives how many."""
    from notif_assets.defs.partitions import invoice_months, key_ranges
    from notif_assets.invoices.averages import months_affected

    months = [str(month) for month in months_affected(map(date.fromisoformat, imported_months))]
    ranges = key_ranges(invoice_months, months)
    with _progress(len(ranges), "averages") as advance:
        for done, reference_months in enumerate(ranges, 1):
            runs.run("invoice_averages_job", partitions=reference_months)
            advance(done)
    return len(months)


def _tell_invoices_that_count_nowhere(lake: "Lake") -> None:
    from notif_assets.invoices.averages import months_without_windows

    if never := ", ".join(str(month) for month in months_without_windows(lake)[:5]):
        click.echo(f"invoices of {never} count in no average: their windows have no date", err=True)


@main.command("import-answers")
@click.option("--date", "day", required=True, type=DAY, help="The day of the files.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE…")
@click.pass_obj
def import_answers(settings: Settings, day: date, files: tuple[Path, ...]) -> None:
    """Import the chatbot answers of some hours of a day (files named hour=HH.json) and compute the day's report.

    A file may be packed by gzip (hour=HH.json.gz); it replaces all answers of its hour. Bad records and values are set
    aside in rejected_file_rows and named; the exit code is 1 then. A question whose last answer was set aside has no
    answer in the report, whatever was answered before.

    \b
    Example: notif-assets import-answers --date 2019-12-16 hour=13.json hour=14.json
    """
    from dagster import PartitionKeyRange

    from notif_assets.chatbot.parsing import parse_answers
    from notif_assets.chatbot.sessions import hours_of, source_file_of
    from notif_assets.defs.partitions import answer_days, answer_hours, key_ranges
    from notif_assets.inbox.dropped_files import read_file
    from notif_assets.inbox.rows import FileRefused

    _refuse_odd_names(files)
    try:
        hours = {hour: str(path.absolute()) for hour, path in hours_of(files).items()}
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
        for some in ranges:
            runs.run("chatbot_answers_job", {"chatbot_answers": {"files": keys}}, some)
        runs.run("chatbot_reports_job", partitions=PartitionKeyRange(str(day), str(day)))
    lake = _lake(settings)
    click.echo(f"answers of {day}: {len(hours)} hours imported, the day's report is up to date")
    _name_rows_set_aside(lake, [source_file_of(day, hour) for hour in hours])


def _refuse_odd_names(files: Iterable[Path]) -> None:
    """Before a run is started: its configuration can't even hold such a name."""
    from notif_assets.core.texts import shown
    from notif_assets.inbox.dropped_files import odd_name

    for path in files:
        if why := odd_name(str(path)):
            raise click.ClickException(f"{shown(path)}: {why}; rename it")


def _name_rows_set_aside(lake: "Lake", source_files: list[str]) -> None:
    from notif_assets.inbox.dropped_files import rows_set_aside

    rows = rows_set_aside(lake, source_files).to_pylist()
    for row in rows[:20]:
        place = f"{printable(row['source_file'])}:{row['source_line']}"
        click.echo(f"{place}: {row['reason']}: {printable(row['detail'])}", err=True)
    if rows:
        raise click.ClickException(f"{len(rows)} rows were set aside, see the table rejected_file_rows")


# --- reports ----------------------------------------------------------------------------------------------------------


@main.group()
def report() -> None:
    """Print a report as text, CSV (also for Excel in Brazil), an Excel workbook, JSON or Parquet.

    \b
    Example: notif-assets report billing --date 2020-02-03 --format csv-br
    """


def _report_options(
    *names: str, formats: tuple[str, ...] = get_args(Format)
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options that reports share: --format and --out always, the others by name."""
    options = {
        "customer": click.option("--customer", type=int, help="Only this customer (id)."),
        "channel": click.option("--channel", help="Only this channel, in any case."),
        "from": click.option("--from", "first", type=HOUR, help="First day or hour, e.g. 2019-12-16T13."),
        "to": click.option("--to", "last", type=HOUR, help="Last day or hour, included."),
        "date": click.option("--date", "day", type=DAY, help="Only this day."),
    }

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(names):
            function = options[name](function)
        function = click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="To a file.")(function)
        return click.option("--format", "format", type=click.Choice(formats), default="text", show_default=True)(
            function
        )

    return decorate


def _write(out: Path | None, write: Callable[[BinaryIO], None]) -> None:
    """Standard output, or a file that is there whole or not at all.

    A terminal obeys control characters, which formats for programs keep: there they are escaped.
    """
    from notif_assets.inbox.dropped_files import publish
    from notif_assets.reports.terminal import Escaped

    if out is None:
        stream = sys.stdout.buffer
        write(cast("BinaryIO", Escaped(stream)) if sys.stdout.isatty() else stream)
        stream.flush()
    else:
        publish(out, write)


@report.command("panel")
@_report_options("customer", "channel")
@click.pass_obj
def report_panel(
    settings: Settings, customer: int | None, channel: str | None, format: Format, out: Path | None
) -> None:
    """Each customer's notifications of the day so far, and up to when all is counted.

    \b
    Example: notif-assets report panel --customer 1
    """
    from notif_assets.notifications import queries
    from notif_assets.reports import write_panel

    with _unknown():
        rows = queries.panel(_existing_lake(settings), queries.today(settings), customer, channel)
    _write(out, partial(write_panel, rows, format=format))
    if channel is not None or not rows.num_rows:
        known = rows.num_rows and any(moment is not None for moment in rows["last_event"].to_pylist())
        _say_if_empty(bool(known), _nothing("message", customer, channel, "was ever counted"))


@report.command("detailed")
@_report_options("customer", "channel", "date", "from", "to")
@click.pass_obj
def report_detailed(
    settings: Settings,
    customer: int | None,
    channel: str | None,
    day: date | None,
    first: tuple[date, int | None] | None,
    last: tuple[date, int | None] | None,
    format: Format,
    out: Path | None,
) -> None:
    """Every message, streamed; days and hours are those of NOTIF_TIMEZONE.

    \b
    Example: notif-assets report detailed --customer 1 --from 2020-02-03T14 --to 2020-02-03T15 --format csv
    """
    from notif_assets.notifications import queries
    from notif_assets.reports import write_detailed

    first, last = _period(day, first, last)
    start = _instant(settings, first, after=False) if first else None
    end = _instant(settings, last, after=True) if last else None
    with _unknown():
        batches, names = queries.detailed(_existing_lake(settings), customer, channel, start, end)
    number = 0

    def counted() -> Iterator[Any]:
        nonlocal number
        for batch in batches:
            number += batch.num_rows
            yield batch

    _write(out, partial(write_detailed, counted(), format=format, names=names))
    asked = " to ".join(dict.fromkeys(_shown_place(place) for place in (first, last) if place))
    _say_if_empty(bool(number), _nothing("message", customer, channel, f"of {asked} is there" if asked else "is there"))


@report.command("billing")
@_report_options("customer", "channel", "date", "from", "to")
@click.pass_obj
def report_billing(
    settings: Settings,
    customer: int | None,
    channel: str | None,
    day: date | None,
    first: tuple[date, int | None] | None,
    last: tuple[date, int | None] | None,
    format: Format,
    out: Path | None,
) -> None:
    """The bills of one day or of several; an open day is billed provisionally. A day without a bill is named on
    standard error.

    What has no price yet is left out and named, and the exit code is 1 then.

    \b
    Example: notif-assets report billing --date 2020-02-03
    """
    import pyarrow.compute as pc

    from notif_assets.billing import statements
    from notif_assets.billing.lines import BillRefused, published_bill_differs
    from notif_assets.core.days import days_between, stretches
    from notif_assets.reports import write_billing

    first, last = _period(day, first, last)
    if first is None or last is None:
        raise click.UsageError("say which days: --date, or --from and --to")
    days = list(days_between(first[0], last[0]))
    lake = _existing_lake(settings)
    _refuse_unless_published(published_bill_differs(lake))
    unpriced: list[BillRefused] = []
    with _unknown():
        lines, adjustments = statements.bills(lake, settings, days, customer, channel, unpriced=unpriced)
    if lines.num_rows or not unpriced:
        _write(out, partial(write_billing, lines, adjustments, format=format))
        there = {*lines["billing_date"].to_pylist(), *adjustments["billing_date"].to_pylist()}
        if customer is not None and channel is not None:  # then every day has a line, if only of nothing
            there = {*lines.filter(pc.greater(lines["notifications"], 0))["billing_date"].to_pylist()}
        missing = {*days} - there - {refused.day for refused in unpriced}
        asked = stretches(missing, timedelta(days=1), "%Y-%m-%d")
        _say_if_empty(not missing, f"no bill for {asked}: {_nothing('message', customer, channel, 'is counted then')}")
    if unpriced:
        raise click.ClickException(f"the report lacks what has no price: {'; '.join(map(str, unpriced))}")


@report.command("statement")
@_report_options(formats=get_args(StatementFormat))
@click.option("--customer", required=True, type=int, help="The customer (id).")
@click.option("--month", required=True, type=MONTH, help="The month, as 2020-02.")
@click.pass_obj
def report_statement(settings: Settings, customer: int, month: date, format: StatementFormat, out: Path | None) -> None:
    """A customer's month: the bill of each day and channel, adjustments, totals, and whether all of it is final.

    An adjustment stands with the day that it corrects. What has no price yet is left out and named, and the exit code
    is 1 then.

    \b
    Example: notif-assets report statement --customer 1 --month 2020-02 --format pdf --out 2020-02.pdf
    """
    from notif_assets.billing import statements
    from notif_assets.billing.lines import published_bill_differs
    from notif_assets.core.days import stretches
    from notif_assets.notifications import queries
    from notif_assets.reports import write_statement

    lake = _existing_lake(settings)
    _refuse_unless_published(published_bill_differs(lake))
    try:
        with _unknown():
            found = statements.statement(lake, settings, customer, month, queries.today(settings))
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    _write(out, partial(write_statement, found, format=format))
    nothing = _nothing("message", customer, None, "is counted then")
    _say_if_empty(bool(found.entries.num_rows), f"no bill in {month:%Y-%m}: {nothing}")
    if found.unpriced_days:
        days = stretches(found.unpriced_days, timedelta(days=1), "%Y-%m-%d")
        raise click.ClickException(
            f"the statement lacks what has no price on {days}: `notif-assets report billing` for these days names it"
        )


@report.command("invoice-averages")
@_report_options()
@click.option("--month", required=True, type=MONTH, help="The reference month: looks at the months before it.")
@click.option("--customer", help="Only this customer.")
@click.pass_obj
def report_invoice_averages(
    settings: Settings, month: date, customer: str | None, format: Format, out: Path | None
) -> None:
    """The average invoice per account over the 3 and the 6 months before a month.

    \b
    Example: notif-assets report invoice-averages --month 2020-01
    """
    import pyarrow.compute as pc

    from notif_assets.invoices.averages import averages_now, published_accounts_that_differ
    from notif_assets.reports import write_invoice_averages

    lake = _existing_lake(settings)
    _refuse_unless_published(published_accounts_that_differ(lake))
    rows = averages_now(lake, month)
    if not rows.num_rows:
        raise click.ClickException("no invoice was ever imported: `notif-assets import-invoices FILE`")
    if customer is not None:
        rows = rows.filter(pc.equal(rows["customer"], customer))
        if not rows.num_rows:
            raise click.ClickException(f"customer {customer} is not known: it has no invoice")
    _write(out, partial(write_invoice_averages, rows, format=format))


@report.command("chatbot")
@_report_options("date", "from", "to")
@click.option("--flow", help="Only this flow.")
@click.option("--customer", help="Only this customer.")
@click.pass_obj
def report_chatbot(
    settings: Settings,
    day: date | None,
    first: tuple[date, int | None] | None,
    last: tuple[date, int | None] | None,
    flow: str | None,
    customer: str | None,
    format: Format,
    out: Path | None,
) -> None:
    """The last answers of every session over the hours asked, a table per flow. Hours without answers, or of whole
    days the days without any, are named on standard error.

    \b
    Example: notif-assets report chatbot --from 2019-12-16T13 --to 2019-12-16T14 --flow F1000
    """
    from notif_assets.chatbot.sessions import (
        days_without_answers,
        flow_tables,
        hours_without_answers,
        is_known,
        published_flows_that_differ,
    )
    from notif_assets.core.days import stretches
    from notif_assets.reports import write_chatbot

    first, last = _period(day, first, last)
    if first is None or last is None:
        raise click.UsageError("say which hours: --from and --to, or --date")
    lake = _existing_lake(settings)
    _refuse_unless_published(published_flows_that_differ(lake))
    if not is_known(lake, customer, flow):
        asked = [f"customer {customer}"] * (customer is not None) + [f"flow {flow}"] * (flow is not None)
        raise click.ClickException(f"{' with '.join(asked) or 'chatbot'}: no answer was ever imported of it")
    start = datetime.combine(first[0], time(first[1] or 0), UTC)
    end = datetime.combine(last[0], time(23 if last[1] is None else last[1]), UTC)
    tables = flow_tables(lake, start, end, customer, flow)
    _write(out, partial(write_chatbot, list(tables.values()), format=format))
    if first[1] is None and last[1] is None:  # a day may well have hours without a file
        missing = stretches(days_without_answers(lake, first[0], last[0]), timedelta(days=1), "%Y-%m-%d")
    else:
        missing = stretches(hours_without_answers(lake, start, end), timedelta(hours=1), "%Y-%m-%dT%H")
    _say_if_empty(not missing, f"no answers of {missing}: no file of that time was ever imported, or it has none")
    _say_if_empty(bool(tables or missing), "no answer of that time is of what was asked")


def _nothing(what: str, customer: object, channel: str | None, rest: str) -> str:
    """A sentence on what there is none of."""
    from notif_assets.core.texts import shown

    whose = f" of customer {customer}" if customer is not None else ""
    return f"no {what}{whose}{f' of channel {shown(channel)}' if channel is not None else ''} {rest}"


def _say_if_empty(there: bool, sentence: str) -> None:
    """On standard error, for an empty report looks like one of something."""
    if not there:
        click.echo(sentence, err=True)


def _shown_place(place: tuple[date, int | None]) -> str:
    day, hour = place
    return str(day) if hour is None else f"{day}T{hour:02}"


def _period(
    day: date | None, first: tuple[date, int | None] | None, last: tuple[date, int | None] | None
) -> tuple[tuple[date, int | None] | None, tuple[date, int | None] | None]:
    if day is not None:
        if first or last:
            raise click.UsageError("--date stands alone; for a period use --from and --to")
        return (day, None), (day, None)
    if first and last and (last[0], 24 if last[1] is None else last[1]) < (first[0], first[1] or 0):
        raise click.UsageError("--to is before --from")
    return first, last


def _instant(settings: Settings, place: tuple[date, int | None], *, after: bool) -> datetime:
    """The beginning of a day or an hour in NOTIF_TIMEZONE, or the instant after its end; in UTC."""
    from notif_assets.core.days import day_bounds

    day, hour = place
    if hour is None:
        return day_bounds(day, settings.zone)[int(after)]
    start = datetime.combine(day, time(hour), settings.zone).astimezone(UTC)
    return start + timedelta(hours=int(after))


def _refuse_unless_published(differs: list[str]) -> None:
    """Code that would not reproduce the document's published example prints no report."""
    if differs:
        raise click.ClickException(f"the document's published example does not hold ({', '.join(differs)}): no report")


@contextmanager
def _unknown() -> Iterator[None]:
    from notif_assets.notifications.queries import Unknown

    try:
        yield
    except Unknown as error:
        raise click.ClickException(str(error)) from None


# --- the panel --------------------------------------------------------------------------------------------------------


@main.command()
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="Port to listen on.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0 is every one, and wants a proxy with TLS in front (docs/nginx.conf).",
)
@click.pass_obj
def panel(settings: Settings, port: int, host: str) -> None:
    """Serve the panel: customers' pages, the operator's page, and the API under /api/v1. Ctrl-C ends it.

    It only reads the lake. Who may see what is said by tokens; `notif-assets token` mints them.

    \b
    Example: notif-assets panel --port 8000
    """
    from notif_assets.instance.location import use_our_dagster
    from notif_assets.panel import memory

    memory.spare()  # before what follows imports pyarrow
    from notif_assets.panel.app import serve

    use_our_dagster(settings)
    with _panel_keys():
        serve(settings, host, port, lambda: click.echo(f"panel at http://{host}:{port}; Ctrl-C ends it"))


@main.command()
@click.option("--customer", type=click.IntRange(1, 2**63 - 1), help="For this customer (id).")
@click.option("--operator", is_flag=True, help="For an operator, who sees every customer.")
@click.option(
    "--days", type=click.FloatRange(0, 3650, min_open=True), help="How long.  [default: 30; of an operator 1]"
)
@click.option("--link", is_flag=True, help="The address that takes the token, instead of the token alone.")
@click.pass_obj
def token(settings: Settings, customer: int | None, operator: bool, days: float | None, link: bool) -> None:
    """Mint a token for the panel. It shows that customer's numbers, or everybody's, until it expires or is revoked.

    Standard error says until when it is good, and how to revoke it.

    \b
    Example: notif-assets token --customer 7494212 --days 30 --link
    """
    from notif_assets.panel.tokens import Keys

    if operator == (customer is not None):
        raise click.UsageError("say for whom: --customer ID or --operator")
    lasts = timedelta(days=days or (_OPERATOR_DAYS if operator else _CUSTOMER_DAYS))
    with _panel_keys():
        keys = Keys.of(settings)
        minted = keys.mint(customer, lasts)
    viewer = keys.viewer(minted)
    click.echo(f"{settings.panel_url}/entrar?t={minted}" if link else minted)
    click.echo(
        f"good until {viewer.expires:%Y-%m-%dT%H:%M:%SZ}; `notif-assets revoke --id {viewer.token}` ends it before",
        err=True,
    )
    if customer is not None and (why := _never_seen(settings, customer)):
        click.echo(f"Warning: customer {customer} was never seen ({why}): its page is empty until it is", err=True)


_CUSTOMER_DAYS, _OPERATOR_DAYS = 30.0, 1.0


def _never_seen(settings: Settings, customer: int) -> str:
    """Why a customer is not known, if it isn't. Nothing is created."""
    from notif_assets.lake import LakeError
    from notif_assets.notifications.queries import Unknown, customer_names

    with _lake(settings) as lake:
        try:
            if not lake.exists():
                return f"there is no lake at {settings.lake}"
            customer_names(lake, customer)
        except Unknown:
            return "no message of it was counted"
        except LakeError as error:
            return str(error)
    return ""


class _Moment(click.ParamType[datetime]):
    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
            if moment.tzinfo is None or moment > datetime.now(UTC):
                raise ValueError(value)
        except ValueError:
            self.fail(f"{value!r} is no moment of the past; write it as 2026-02-03T14:00:00Z", param, ctx)
        return moment


@main.command()
@click.option("--id", "token_id", help="The token of this id, which `token` said when it minted it.")
@click.option("--token", "text", help="This token, or the link with it; - reads it from standard input.")
@click.option("--customer", type=click.IntRange(1, 2**63 - 1), help="All tokens of this customer (id).")
@click.option("--operators", is_flag=True, help="All tokens of all operators.")
@click.option("--issued-before", "before", type=_Moment(), help="Of all, those issued before then.  [default: now]")
@click.pass_obj
def revoke(
    settings: Settings,
    token_id: str | None,
    text: str | None,
    customer: int | None,
    operators: bool,
    before: datetime | None,
) -> None:
    """End tokens of the panel before their time: one, or all of a customer or of the operators up to a moment.

    It is written into the lake's folder; every panel on that lake refuses them from the next second on, for good.

    \b
    Example: notif-assets revoke --customer 7494212
             notif-assets revoke --id 5f0c2a9be1d64c37
    """
    from notif_assets.panel.revoked import revoke_issued_before, revoke_token

    if sum((token_id is not None, text is not None, customer is not None, operators)) != 1:
        raise click.UsageError("say what: one of --id, --token, --customer and --operators")
    if before is not None and customer is None and not operators:
        raise click.UsageError("--issued-before goes with --customer or --operators")
    lake = _existing_lake(settings)
    if customer is not None or operators:
        moment = before or datetime.now(UTC)
        revoke_issued_before(lake.root, customer, moment)
        whose = f"customer {customer}" if customer is not None else "operators"
        click.echo(f"tokens of {whose} that were issued before {moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ} are revoked")
    else:
        name = token_id or _id_of_token(settings, text or "")
        revoke_token(lake.root, name)
        click.echo(f"token {name} is revoked")


def _id_of_token(settings: Settings, text: str) -> str:
    from notif_assets.panel.tokens import Keys, TokenRefused

    whole = sys.stdin.readline() if text == "-" else text
    with _panel_keys():
        keys = Keys.of(settings)
    try:
        return keys.viewer(whole.strip().rpartition("/entrar?t=")[2]).token
    except TokenRefused:
        raise click.ClickException("no token of this panel's key, or one that has expired already") from None


@contextmanager
def _panel_keys() -> Iterator[None]:
    from notif_assets.panel.tokens import KeyRefused

    try:
        yield
    except KeyRefused as error:
        raise click.ClickException(str(error)) from None


# --- upkeep -----------------------------------------------------------------------------------------------------------


@main.command()
@click.pass_obj
def status(settings: Settings) -> None:
    """Tell on one screen how the whole stands, and which command comes next. Nothing is written.

    Lake, topic, lag now, newest counted minute, open days and why, missing prices, whether Dagster can be reached.

    \b
    Example: notif-assets status
    """
    from notif_assets.cli.overview import status as ask
    from notif_assets.cli.overview import told
    from notif_assets.instance.location import use_our_dagster

    use_our_dagster(settings)
    for name, sentence in told(ask(settings), settings):
        click.echo(f"{name:<11}{sentence}")


@main.command()
@click.option("--all/--lately", "everything", default=True, help="Everything there is (the default), or what is new.")
@click.pass_obj
def check(settings: Settings, everything: bool) -> None:
    """Read every data file, run every asset check, and the document's published examples. Exit code 1 if one fails.

    A damaged file is named with what repairs its table; then nothing else is looked at. With --lately no data file is
    read for its own sake, and of offsets and closed days what changed since the last look, what did not hold then and
    a part of history is counted again, as the daemon does every hour.

    \b
    Example: notif-assets check --lately
    """
    from notif_assets.billing.lines import published_bill_differs
    from notif_assets.chatbot.sessions import published_flows_that_differ
    from notif_assets.defs.assets.billing import BOUNDED
    from notif_assets.invoices.averages import published_accounts_that_differ
    from notif_assets.maintenance.integrity import damage
    from notif_assets.notifications.audit import every_offset_once

    lake = _existing_lake(settings)
    damaged = 0
    for table, finding in damage(lake) if everything else ():
        click.echo(f"FAIL {table}: {printable(finding)}")
        damaged += 1
    if damaged:
        raise click.ClickException(f"{damaged} files of the lake are damaged: repair them, then check again")
    results: list[tuple[str, bool, bool, str]] = [
        (f"{asset}.{name}", not wrong, True, ", ".join(map(str, wrong)))
        for asset, name, wrong in (
            ("daily_billing", "published_bill_holds", published_bill_differs(lake)),
            ("invoice_window_averages", "published_averages_hold", published_accounts_that_differ(lake)),
            ("chatbot_reports", "published_chatbot_holds", published_flows_that_differ(lake)),
        )
    ]
    if everything:  # the check of that name looks at what is new
        offsets = every_offset_once(lake)
        more = [f"… and {len(offsets) - 5} more"] if len(offsets) > 5 else []
        sentence = "; ".join(offsets[:5] + more)
        results.append(("rejected_notifications.every_offset_ever_once", not offsets, True, sentence))
    with open_runs(settings) as runs:
        config = {f"{key.asset_key.to_user_string()}_{key.name}": {"everything": everything} for key in BOUNDED}
        run = runs.attempt("all_checks", config)
    results += [
        (
            f"{result.asset_key.to_user_string()}.{result.check_name}",
            result.passed,
            result.severity.value == "ERROR",
            result.description or "see the run",
        )
        for result in run.get_asset_check_evaluations()
    ]
    results += [(name, False, True, reason) for name, reason in runs.checks_not_made(run).items()]
    failed = 0
    for name, passed, is_error, description in sorted(results):
        verdict = "ok  " if passed else "FAIL" if is_error else "warn"
        failed += not passed and is_error
        click.echo(f"{verdict} {name}{'' if passed else ': ' + printable(description)}")
    if failed:
        raise click.ClickException(f"{failed} of {len(results)} checks failed")


@main.command()
@click.pass_obj
def maintain(settings: Settings) -> None:
    """Keep the lake flat: compaction of closed hours and days, vacuum, log clean-up, retention. Old runs leave
    Dagster's storage too, but for the newest 1000 of each job; of bills, averages and chatbot the newest 200, and the
    last one that computed a day, month or hour.

    \b
    Example: notif-assets maintain
    """
    from notif_assets.maintenance.maintain import maintain as run

    for line in run(_existing_lake(settings), settings, datetime.now(UTC)):
        click.echo(line)
    with open_runs(settings) as runs:
        from notif_assets.defs.partitions import CUT_OF_JOBS

        click.echo(f"{runs.prune(CUT_OF_JOBS)} old runs deleted")


@main.command()
@click.argument("table")
@click.option("--from", "first", type=DAY, help="First day.")
@click.option("--to", "last", type=DAY, help="Last day, included.")
@click.pass_obj
def rebuild(settings: Settings, table: str, first: date | None, last: date | None) -> None:
    """Compute a derived table again from the table before it. Books and received tables are refused.

    \b
    Example: notif-assets rebuild minute_aggregates --from 2020-02-03 --to 2020-02-03
    """
    from notif_assets.maintenance.rebuild import rebuild as run

    try:
        run(_existing_lake(settings), settings, table, first, last)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{table} is rebuilt")


@main.command()
@click.option("--customer", required=True, type=click.IntRange(1), help="The customer's id.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.pass_obj
def erase(settings: Settings, customer: int, yes: bool) -> None:
    """Blank a customer's payloads and names in every table, never counts. The next maintain after the retention of
    7 days removes the files that held them.

    Rejected messages that name the customer in any way are found too; how many name nobody at all is told.

    \b
    Example: notif-assets erase --customer 7494212 --yes
    """
    from notif_assets.maintenance.erase import erase as run
    from notif_assets.maintenance.erase import of_nobody

    if not yes:
        click.confirm(f"Blank every payload and name of customer {customer}? This can't be undone", abort=True)
    lake = _existing_lake(settings)
    for table, rows in run(lake, settings, customer).items():
        click.echo(f"{table}: {rows} rows blanked")
    click.echo(
        f"{of_nobody(lake, settings)} rejected messages name no customer, so whose they are can't be told; "
        "NOTIF_PAYLOAD_DAYS blanks them in time"
    )


@contextmanager
def _progress(total: int, label: str) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, at a terminal; gives what to call with how much is done."""
    if not sys.stderr.isatty() or total <= 0:
        yield lambda _: None
        return
    with click.progressbar(length=total, label=label, file=sys.stderr) as bar:
        yield lambda done: bar.update(done - bar.pos)
