"""The state of a deployment on one screen, and the next command.

Belongs here: the sentences of `status`. Doesn't: asking the parts (deployment/status.py).
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta

from notif_assets.core.days import day_bounds
from notif_assets.core.texts import quote_odd
from notif_assets.defs.partitions import billing_days, closing_commands, key_ranges
from notif_assets.deployment.status import Status
from notif_assets.notifications.ledger import Backlog
from notif_assets.serving.copying import CopyState
from notif_assets.settings import Settings

_SHOWN = 3
_LATE = timedelta(minutes=3)

Statement = tuple[str, str]
"""What a line is about, and what it says."""


def status_lines(status: Status, settings: Settings) -> Iterator[Statement]:
    """A line for each part, and one for each command that comes next."""
    yield "lake", _lake_sentence(status)
    yield "topic", f"{settings.topic} at {settings.kafka_bootstrap}"
    yield "lag now", _lag_sentence(status)
    yield "counted", _counted_sentence(status)
    yield "open days", _open_days_sentence(status, settings)
    yield "prices", _prices_sentence(status)
    if status.copy is not None:
        yield "copy", _copy_sentence(status, status.copy)
    yield "Dagster", _dagster_sentence(status, settings)
    for index, step in enumerate(_next_steps(status)):
        yield "" if index else "next", step


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


def _copy_sentence(status: Status, copy: CopyState) -> str:
    if copy.problem:
        return f"unknown: {copy.problem}"
    if copy.counted_until is None:
        return "nothing is copied yet"
    return f"everything up to {_moment(copy.counted_until)}, {_ago(status.now - copy.counted_until)}"


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
