"""The state of a deployment: what exists, how far it is, what is missing.

Belongs here: asking each part with a short patience. Doesn't: changing anything (nothing is written, no lake is made
or brought forward), proving numbers (proof.py), the sentences about it (cli/overview.py).
"""

import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from http.client import HTTPException
from pathlib import Path

import pyarrow.compute as pc

from notif_assets.billing.closed_days import closed_days, open_days_that_should_be_closed
from notif_assets.billing.lines import BillRefused, lines_of
from notif_assets.instance.existing import existing_instance
from notif_assets.kafka.client import KafkaError
from notif_assets.kafka.open import open_client
from notif_assets.lake import Lake
from notif_assets.notifications import queries
from notif_assets.notifications.ledger import Backlog, backlog, complete_until
from notif_assets.notifications.silver import days_with_messages
from notif_assets.serving.copying import CopyState, read_state
from notif_assets.settings import Settings

_PATIENCE = 5.0  # seconds for each part to answer
_DAYS = 31  # the newest open ones, whose prices are looked for
_DAEMON_GONE = timedelta(minutes=2)


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
    exactly one price to the open days that have it. `copy` is None where NOTIF_SERVING_URL is not set.
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
    copy: CopyState | None
    dagster: Dagster


def ask_status(settings: Settings) -> Status:
    """Asks every part, each for at most five seconds. Raises LakeError if there is a lake that can't be read."""
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
            copy=read_state(settings) if settings.serving_url else None,
            dagster=Dagster(_is_reachable(settings.dagster_url), daemon_at()),
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


def daemon_at() -> datetime | None:
    """Nothing is created where Dagster never ran."""
    with existing_instance() as instance:
        signs = [one.timestamp for one in instance.get_daemon_heartbeats().values()] if instance else []
    return datetime.fromtimestamp(max(signs), UTC) if signs else None
