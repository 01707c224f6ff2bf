"""The state of a deployment on one screen: what exists, how far it is, what is missing, and the next command.

Belongs here: asking each part with a short patience, and the sentences. Doesn't: changing anything (nothing is
written, no lake is made or brought forward), proving numbers (`check`).
"""

import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from http.client import HTTPException
from pathlib import Path

import pyarrow.compute as pc

from notif_assets.billing.closed_days import closed_days, open_days_that_should_be_closed
from notif_assets.billing.lines import BillRefused, lines_of
from notif_assets.core.days import day_bounds
from notif_assets.core.texts import quote_odd
from notif_assets.defs.partitions import billing_days, closing_commands, key_ranges
from notif_assets.kafka.client import KafkaError
from notif_assets.kafka.open import open_client
from notif_assets.lake import Lake
from notif_assets.notifications import queries
from notif_assets.notifications.ledger import Backlog, backlog, complete_until
from notif_assets.notifications.silver import days_with_messages
from notif_assets.settings import Settings

_PATIENCE = 5.0  # seconds for each part to answer
_DAYS = 31  # the newest open ones, whose prices are looked for
_SHOWN = 3
_LATE = timedelta(minutes=3)
_DAEMON_GONE = timedelta(minutes=2)

Statement = tuple[str, str]
"""What a line is about, and what it says."""


@dataclass(frozen=True)
class Dagster:
    """Whether the UI answers at NOTIF_DAGSTER_URL, and when the daemon last gave a sign of life (None: never here)."""

    answers: bool
    daemon_at: datetime | None

    def is_running(self, now: datetime) -> bool:
        """Whether sensors and schedules do their work."""
        return self.daemon_at is not None and now - self.daemon_at < _DAEMON_GONE


@dataclass(frozen=True)
class Status:
    """The state of each part. `waiting` is None if Kafka could not be asked, and `kafka_problem` says why.

    `due` are the days that may close and have not, `not_yet` the other open ones; `unpriced` maps each channel without
    exactly one price to the open days that have it.
    """

    now: datetime
    lake: Path
    notifications: int | None
    rejected: int
    waiting: Backlog | None
    kafka_problem: str
    counted_until: datetime | None
    newest_minute: datetime | None
    due: Sequence[date]
    not_yet: Sequence[date]
    unpriced: Mapping[str, Sequence[date]]
    dagster: Dagster


def status(settings: Settings) -> Status:
    """Asks every part. Raises LakeError if there is a lake that can't be read."""
    now = datetime.now(UTC)
    with Lake(settings.lake, memory=settings.engine_memory) as lake:
        waiting, problem = _waiting(lake, settings)
        has_lake = lake.exists()
        open_days = _open_days(lake, settings, now)
        due = open_days_that_should_be_closed(lake, settings)
        return Status(
            now=now,
            lake=settings.lake,
            notifications=lake.table("notifications").scan().rows_at_most if has_lake else None,
            rejected=lake.table("rejected_notifications").scan().rows_at_most,
            waiting=waiting,
            kafka_problem=problem,
            counted_until=complete_until(lake, lake.table("customer_panel").watermark),
            newest_minute=_newest_minute(lake),
            due=due,
            not_yet=[day for day in open_days if day not in due],
            unpriced=_unpriced(lake, settings, [*due, *open_days]),
            dagster=Dagster(_is_reachable(settings.dagster_url), _daemon_at()),
        )


def _waiting(lake: Lake, settings: Settings) -> tuple[Backlog | None, str]:
    try:
        with open_client(
            settings.model_copy(update={"kafka_timeout": min(_PATIENCE, settings.kafka_timeout)})
        ) as kafka:
            return backlog(lake, kafka), ""
    except KafkaError as error:
        return None, str(error)


def _open_days(lake: Lake, settings: Settings, now: datetime) -> list[date]:
    """Days with messages that are not closed, up to today."""
    closed, today = closed_days(lake), queries.today(settings, now)
    return [day for day in days_with_messages(lake.table("notifications"), settings) if day not in closed | {today}] + [
        today
    ]


def _newest_minute(lake: Lake) -> datetime | None:
    newest: datetime | None = pc.max(lake.rows(lake.table("customer_panel").scan())["last_event"]).as_py()
    return newest and newest.replace(second=0, microsecond=0)


def _unpriced(lake: Lake, settings: Settings, days: Sequence[date]) -> dict[str, list[date]]:
    """The channels that have not exactly one price, of the newest of these days."""
    found: dict[str, list[date]] = {}
    for day in sorted(set(days))[-_DAYS:]:
        refused: list[BillRefused] = []
        lines_of(lake, settings, day, "provisional", "status", unpriced=refused)
        for channel in dict.fromkeys(channel for one in refused for channel in one.channels):
            found.setdefault(channel, []).append(day)
    return found


def _is_reachable(url: str) -> bool:
    with suppress(OSError, HTTPException), urllib.request.urlopen(f"{url}/server_info", timeout=_PATIENCE) as answer:  # noqa: S310 - http(s), as the settings ensure
        return bool(answer.status == 200)
    return False


def _daemon_at() -> datetime | None:
    """Nothing is created where Dagster never ran."""
    from notif_assets.instance.existing import existing_instance

    with existing_instance() as instance:
        signs = [one.timestamp for one in instance.get_daemon_heartbeats().values()] if instance else []
    return datetime.fromtimestamp(max(signs), UTC) if signs else None


# --- what it says -----------------------------------------------------------------------------------------------------


def status_lines(status: Status, settings: Settings) -> Iterator[Statement]:
    """A line for each part, and one for each command that comes next."""
    yield "lake", _lake_sentence(status)
    yield "topic", f"{settings.topic} at {settings.kafka_bootstrap}"
    yield "lag now", _lag_sentence(status)
    yield "counted", _counted_sentence(status)
    yield "open days", _open_days_sentence(status, settings)
    yield "prices", _prices_sentence(status)
    yield "Dagster", _dagster_sentence(status, settings)
    for position, step in enumerate(_next_steps(status)):
        yield "" if position else "next", step


def _lake_sentence(status: Status) -> str:
    if status.notifications is None:
        return f"none yet at {status.lake}"
    return f"{status.lake}: {status.notifications} notifications, {status.rejected} rejected"


def _lag_sentence(status: Status) -> str:
    if status.waiting is None:
        return f"unknown: {status.kafka_problem}"
    if status.waiting.contradicts:
        return "unknown: Kafka holds less than was taken, or it is another topic"
    half_done = f"; {status.waiting.unfinished} batches are taken and not counted yet" * bool(status.waiting.unfinished)
    return f"{status.waiting.lag} messages{half_done}"


def _counted_sentence(status: Status) -> str:
    newest = f"; newest minute with messages {_moment(status.newest_minute)}" if status.newest_minute else ""
    if status.counted_until is None:
        return f"nothing is complete yet{newest}"
    return f"everything up to {_moment(status.counted_until)}, {_ago(status.now - status.counted_until)}{newest}"


def _open_days_sentence(status: Status, settings: Settings) -> str:
    sentences = []
    if status.due:
        priced = " once they have prices" if status.unpriced else ""
        sentences.append(f"{len(status.due)} may close{priced} ({_ranges(status.due)})")
    for day in status.not_yet[-_SHOWN:]:
        closes = day_bounds(day, settings.zone)[1] + settings.grace
        why = "closes after" if status.now < closes else "waits until all is counted up to"
        sentences.append(f"{day} {why} {_moment(closes)}")
    return "; ".join(sentences)


def _prices_sentence(status: Status) -> str:
    if not status.unpriced:
        return "none is missing for the open days"
    missing = [f"{quote_odd(channel)} ({len(days)} days)" for channel, days in sorted(status.unpriced.items())]
    more = f" and {len(missing) - _SHOWN} more channels" if len(missing) > _SHOWN else ""
    return f"missing for {', '.join(missing[:_SHOWN])}{more}"


def _dagster_sentence(status: Status, settings: Settings) -> str:
    ui = f"the UI {'answers' if status.dagster.answers else 'does not answer'} at {settings.dagster_url}"
    if status.dagster.daemon_at is None:
        return f"{ui}; no daemon ever ran here"
    ago = _ago(status.now - status.dagster.daemon_at)
    return f"{ui}; the daemon {'lives' if status.dagster.is_running(status.now) else 'was last seen'} ({ago})"


def _next_steps(status: Status) -> list[str]:
    """The commands that help, most urgent first. What a living daemon does by itself is not told to people."""
    steps = []
    by_itself = status.dagster.is_running(status.now)
    if status.waiting is None:
        steps.append("start Kafka, or set NOTIF_KAFKA_BOOTSTRAP; `notif-assets broker` is one to try things with")
    elif status.waiting.contradicts or (not by_itself and _is_behind(status, status.waiting)):
        steps.append("notif-assets ingest --until-caught-up")
    if status.unpriced:
        steps.append("notif-assets import-prices FILE")
    if status.due and not by_itself:
        steps += closing_commands(status.due)[:_SHOWN]
    if not by_itself:
        steps.append("make ui, or `dagster dev`: its sensors and schedules do all of this by themselves")
    return steps or ["nothing"]


def _is_behind(status: Status, waiting: Backlog) -> bool:
    old = status.counted_until is None or status.now - status.counted_until > _LATE
    return bool(waiting.lag or waiting.unfinished or old)


def _ranges(days: Sequence[date]) -> str:
    """Newest first."""
    ranges = [
        key_range.start if key_range.start == key_range.end else f"{key_range.start} to {key_range.end}"
        for key_range in reversed(key_ranges(billing_days, map(str, days)))
    ]
    return ", ".join(ranges[:_SHOWN]) + (f" and {len(ranges) - _SHOWN} more ranges" if len(ranges) > _SHOWN else "")


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _ago(passed: timedelta) -> str:
    """
    >>> _ago(timedelta(seconds=34)), _ago(timedelta(hours=30))
    ('34 s ago', '30 h ago')
    """
    seconds = max(0, int(passed.total_seconds()))
    size, unit = next(
        (size, unit)
        for size, unit in ((86400, "days"), (3600, "h"), (60, "min"), (1, "s"))
        if seconds >= 2 * size or size == 1
    )
    return f"{seconds // size} {unit} ago"
