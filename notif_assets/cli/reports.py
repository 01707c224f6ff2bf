"""What people read.

Belongs here: these commands' names, options, help, exit codes and what they print. Doesn't: any work: each calls the
functions or jobs that the assets use too. Libraries that a command does not need are not imported for it.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast, get_args

import click

from notif_assets.cli.shared import DAY, HOUR, MONTH, existing_lake
from notif_assets.core.formats import Format, StatementFormat
from notif_assets.settings import Settings


@click.group()
def report() -> None:
    """Print a report, or write it to a file. As text, CSV (also for Excel in Brazil), an Excel workbook, JSON or
    Parquet.

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
    from notif_assets.reports.files import write_atomically
    from notif_assets.reports.terminal import Escaped

    if out is None:
        stream = sys.stdout.buffer
        write(cast("BinaryIO", Escaped(stream)) if sys.stdout.isatty() else stream)
        stream.flush()
    else:
        write_atomically(out, write)


@report.command("panel")
@_report_options("customer", "channel")
@click.pass_obj
def report_panel(
    settings: Settings, customer: int | None, channel: str | None, format: Format, out: Path | None
) -> None:
    """Each customer's notifications of the day so far. It says up to when all is counted.

    \b
    Example: notif-assets report panel --customer 1
    """
    from notif_assets.notifications import queries
    from notif_assets.reports import write_panel

    with _unknown():
        rows = queries.panel(existing_lake(settings), queries.today(settings), customer, channel)
    _write(out, partial(write_panel, rows, format=format))
    if channel is not None or not rows.num_rows:
        known = rows.num_rows and any(moment is not None for moment in rows["last_event"].to_pylist())
        _warn_if_empty(bool(known), _empty_sentence("message", customer, channel, "was ever counted"))


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
    """Every message, streamed. Days and hours are those of NOTIF_TIMEZONE.

    \b
    Example: notif-assets report detailed --customer 1 --from 2020-02-03T14 --to 2020-02-03T15 --format csv
    """
    from notif_assets.notifications import queries
    from notif_assets.reports import write_detailed

    first, last = _period(day, first, last)
    start = _instant(settings, first, after=False) if first else None
    end = _instant(settings, last, after=True) if last else None
    with _unknown():
        batches, names = queries.detailed(existing_lake(settings), customer, channel, start, end)
    number = 0

    def counted() -> Iterator[Any]:
        nonlocal number
        for batch in batches:
            number += batch.num_rows
            yield batch

    _write(out, partial(write_detailed, counted(), format=format, names=names))
    period = " to ".join(dict.fromkeys(_format_day_or_hour(bound) for bound in (first, last) if bound))
    _warn_if_empty(
        bool(number), _empty_sentence("message", customer, channel, f"of {period} is there" if period else "is there")
    )


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
    """The bills of one day or of several. An open day is billed provisionally. A day without a bill is named on
    standard error.

    What has no price yet is left out and named, and the exit code is 1 then.

    \b
    Example: notif-assets report billing --date 2020-02-03
    """
    import pyarrow.compute as pc

    from notif_assets.billing import statements
    from notif_assets.billing.lines import BillRefused, example_bill_differences
    from notif_assets.core.days import days_between, format_ranges
    from notif_assets.reports import write_billing

    first, last = _period(day, first, last)
    if first is None or last is None:
        raise click.UsageError("say which days: --date, or --from and --to")
    days = list(days_between(first[0], last[0]))
    lake = existing_lake(settings)
    _refuse_unless_examples_hold(example_bill_differences(lake))
    unpriced: list[BillRefused] = []
    with _unknown():
        lines, adjustments = statements.bills(lake, settings, days, customer, channel, unpriced=unpriced)
    if lines.num_rows or not unpriced:
        _write(out, partial(write_billing, lines, adjustments, format=format))
        billed = {*lines["billing_date"].to_pylist(), *adjustments["billing_date"].to_pylist()}
        if customer is not None and channel is not None:  # then every day has a line, if only of nothing
            billed = {*lines.filter(pc.greater(lines["notifications"], 0))["billing_date"].to_pylist()}
        missing = {*days} - billed - {refused.day for refused in unpriced}
        missing_days = format_ranges(missing, timedelta(days=1), "%Y-%m-%d")
        _warn_if_empty(
            not missing,
            f"no bill for {missing_days}: {_empty_sentence('message', customer, channel, 'is counted then')}",
        )
    if unpriced:
        raise click.ClickException(f"the report lacks what has no price: {'; '.join(map(str, unpriced))}")


@report.command("statement")
@_report_options(formats=get_args(StatementFormat))
@click.option("--customer", required=True, type=int, help="The customer (id).")
@click.option("--month", required=True, type=MONTH, help="The month, as 2020-02.")
@click.pass_obj
def report_statement(settings: Settings, customer: int, month: date, format: StatementFormat, out: Path | None) -> None:
    """The bill of a customer's month.

    It has each day and channel, adjustments, totals, and whether all of it is final.

    An adjustment stands with the day that it corrects. What has no price yet is left out and named, and the exit code
    is 1 then.

    \b
    Example: notif-assets report statement --customer 1 --month 2020-02 --format pdf --out 2020-02.pdf
    """
    from notif_assets.billing import statements
    from notif_assets.billing.lines import example_bill_differences
    from notif_assets.core.days import format_ranges
    from notif_assets.notifications import queries
    from notif_assets.reports import write_statement

    lake = existing_lake(settings)
    _refuse_unless_examples_hold(example_bill_differences(lake))
    try:
        with _unknown():
            found = statements.statement(lake, settings, customer, month, queries.today(settings))
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    _write(out, partial(write_statement, found, format=format))
    nothing = _empty_sentence("message", customer, None, "is counted then")
    _warn_if_empty(bool(found.entries.num_rows), f"no bill in {month:%Y-%m}: {nothing}")
    if found.unpriced_days:
        days = format_ranges(found.unpriced_days, timedelta(days=1), "%Y-%m-%d")
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
    """Average invoices over the 3 and 6 months before.

    \b
    Example: notif-assets report invoice-averages --month 2020-01
    """
    import pyarrow.compute as pc

    from notif_assets.invoices.averages import averages_now, example_account_differences
    from notif_assets.reports import write_invoice_averages

    lake = existing_lake(settings)
    _refuse_unless_examples_hold(example_account_differences(lake))
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
    """The last answers of every session, a table per flow. Hours without answers, or of whole
    days the days without any, are named on standard error.

    \b
    Example: notif-assets report chatbot --from 2019-12-16T13 --to 2019-12-16T14 --flow F1000
    """
    from notif_assets.chatbot.sessions import (
        days_without_answers,
        example_flow_differences,
        flow_tables,
        hours_without_answers,
        is_known,
    )
    from notif_assets.core.days import format_ranges
    from notif_assets.reports import write_chatbot

    first, last = _period(day, first, last)
    if first is None or last is None:
        raise click.UsageError("say which hours: --from and --to, or --date")
    lake = existing_lake(settings)
    _refuse_unless_examples_hold(example_flow_differences(lake))
    if not is_known(lake, customer, flow):
        filters = [f"customer {customer}"] * (customer is not None) + [f"flow {flow}"] * (flow is not None)
        raise click.ClickException(f"{' with '.join(filters) or 'chatbot'}: no answer was ever imported of it")
    start = datetime.combine(first[0], time(first[1] or 0), UTC)
    end = datetime.combine(last[0], time(23 if last[1] is None else last[1]), UTC)
    tables = flow_tables(lake, start, end, customer, flow)
    _write(out, partial(write_chatbot, list(tables.values()), format=format))
    if first[1] is None and last[1] is None:  # a day may well have hours without a file
        missing = format_ranges(days_without_answers(lake, first[0], last[0]), timedelta(days=1), "%Y-%m-%d")
    else:
        missing = format_ranges(hours_without_answers(lake, start, end), timedelta(hours=1), "%Y-%m-%dT%H")
    _warn_if_empty(not missing, f"no answers of {missing}: no file of that time was ever imported, or it has none")
    _warn_if_empty(bool(tables or missing), "no answer of that time is of what was asked")


def _empty_sentence(what: str, customer: object, channel: str | None, rest: str) -> str:
    """A sentence on what there is none of."""
    from notif_assets.core.texts import quote_odd

    of_customer = f" of customer {customer}" if customer is not None else ""
    return f"no {what}{of_customer}{f' of channel {quote_odd(channel)}' if channel is not None else ''} {rest}"


def _warn_if_empty(has_rows: bool, sentence: str) -> None:
    """On standard error, for an empty report looks like one of something."""
    if not has_rows:
        click.echo(sentence, err=True)


def _format_day_or_hour(day_or_hour: tuple[date, int | None]) -> str:
    day, hour = day_or_hour
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


def _instant(settings: Settings, day_or_hour: tuple[date, int | None], *, after: bool) -> datetime:
    """The beginning of a day or an hour in NOTIF_TIMEZONE, or the instant after its end; in UTC."""
    from notif_assets.core.days import day_bounds

    day, hour = day_or_hour
    if hour is None:
        return day_bounds(day, settings.zone)[int(after)]
    start = datetime.combine(day, time(hour), settings.zone).astimezone(UTC)
    return start + timedelta(hours=int(after))


def _refuse_unless_examples_hold(differs: list[str]) -> None:
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
