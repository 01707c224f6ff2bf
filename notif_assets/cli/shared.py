"""What several commands share: types of parameters, opening the lake and Dagster, progress, output.

Belongs here: helpers that more than one section of the commands uses. Doesn't: commands, and any work on data.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import click

from notif_assets.core.windows import LONGEST_WINDOW, window_start
from notif_assets.settings import Settings

if TYPE_CHECKING:
    from notif_assets.instance.runs import Runs
    from notif_assets.kafka.client import OpenClient
    from notif_assets.lake import Lake
    from notif_assets.notifications.bronze import AdvanceBronze


def date_of(text: str) -> date:
    """Raises ValueError for no date, and for the calendar's first and last, which in some zone don't begin or end."""
    day = date.fromisoformat(text)
    if not date.min < day < date.max:
        raise ValueError(text)
    return day


class DayType(click.ParamType[date]):
    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        if isinstance(value, date):
            return value
        try:
            return date_of(value)
        except ValueError:
            self.fail(f"{value!r} is no date; write it as 2020-02-03", param, ctx)


class HourType(click.ParamType[tuple[date, int | None]]):
    """A date (None as hour: all of it) or an hour of a date."""

    name = "date or hour"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[date, int | None]:
        if isinstance(value, tuple):
            return value
        try:
            if "T" in value:
                moment = datetime.strptime(value, "%Y-%m-%dT%H")  # noqa: DTZ007 - an hour of a calendar, not an instant
                return date_of(str(moment.date())), moment.hour
            return date_of(value), None
        except ValueError:
            self.fail(f"{value!r} is neither a date like 2019-12-16 nor an hour like 2019-12-16T13", param, ctx)


class MonthType(click.ParamType[date]):
    name = "month"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        try:
            month = value if isinstance(value, date) else date.fromisoformat(f"{value}-01")
            window_start(month, LONGEST_WINDOW)
        except ValueError:
            self.fail(f"{value!r} is no month; write it as 2020-01", param, ctx)
        return month


DAY, HOUR, MONTH = DayType(), HourType(), MonthType()


def lake_of(settings: Settings) -> "Lake":
    from notif_assets.lake import Lake

    return Lake(settings.lake, memory=settings.engine_memory)


def existing_lake(settings: Settings) -> "Lake":
    """The lake for a reader, which creates nothing."""
    from notif_assets.lake import SCHEMAS

    lake = lake_of(settings)
    if not lake.exists() and not any((settings.lake / name).is_dir() for name in SCHEMAS):
        raise click.ClickException(f"there is no lake at {settings.lake}: ingest or import first, or set NOTIF_LAKE")
    if lake.exists():
        lake.claim(topic=settings.topic, timezone=settings.timezone)  # a bill of other days would be another bill
    return lake


def open_runs(
    settings: Settings, advance_bronze: "AdvanceBronze | None" = None, kafka: "OpenClient | None" = None
) -> "Runs":
    """Dagster jobs in this process, without warnings that tell a user nothing; see build_definitions."""
    from notif_assets.instance.runs import Runs, silence_beta_warnings

    silence_beta_warnings()
    from notif_assets.definitions import build_definitions
    from notif_assets.notifications import bronze

    return Runs(settings, build_definitions(settings, kafka, advance_bronze or bronze.advance_bronze))


@contextmanager
def progress_bar(total: int, label: str) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, at a terminal; gives what to call with how much is done."""
    if not sys.stderr.isatty() or total <= 0:
        yield lambda _: None
        return
    with click.progressbar(length=total, label=label, file=sys.stderr) as bar:
        yield lambda done: bar.update(done - bar.pos)
