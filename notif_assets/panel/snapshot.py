"""What the panel knows at a moment: all customers' counts of the day, and what else it keeps in memory.

Belongs here: when it is read again. Doesn't: what is kept of tables and answers (read_only.py), of hours (hours.py), of
rejected messages (rejected.py); which rows a report holds (queries.py).
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from threading import Lock
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from notif_assets import queries
from notif_assets.core.days import day_start
from notif_assets.core.texts import searched
from notif_assets.ingest.truth import closed_days
from notif_assets.lake import LakeError
from notif_assets.panel import memory
from notif_assets.panel.dagster_state import DagsterState
from notif_assets.panel.hours import Hours
from notif_assets.panel.read_only import ReadOnlyLake
from notif_assets.panel.rejected import Rejected
from notif_assets.settings import Settings

_log = logging.getLogger("notif_assets.panel")
_POLL_SECONDS = 0.5
_GIVE_BACK_SECONDS = 5.0
Sort: TypeAlias = Literal["name", "id", "notifications", "last_event"]
CHART_HOURS = 48
LATE_AFTER = timedelta(minutes=3)
"""Counting normally lags by less than a minute; from here on a page says that its numbers are old."""


@dataclass(frozen=True)
class Channel:
    """A customer's count of one channel on the day of the overview."""

    name: str
    notifications: int
    last_event: datetime | None


@dataclass(frozen=True)
class Customer:
    """A customer as the panel shows it."""

    customer_id: int
    name: str
    channels: tuple[Channel, ...]

    @property
    def notifications(self) -> int:
        """Of all channels."""
        return sum(channel.notifications for channel in self.channels)

    @property
    def last_event(self) -> datetime | None:
        """The newest message of any channel and day."""
        return max((channel.last_event for channel in self.channels if channel.last_event), default=None)


class Customers(Mapping[int, Customer]):
    """All customers by id, from the rows of `queries.panel`.

    Each is made when it is asked for: making thousands of them at every commit would hold up all requests meanwhile.
    """

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows.sort_by([("customer_id", "ascending"), ("channel", "ascending")])
        ids = self._rows["customer_id"].to_numpy()
        self._starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]][: len(ids)])
        self._places = {customer_id: place for place, customer_id in enumerate(ids[self._starts].tolist())}

    def __getitem__(self, customer_id: int) -> Customer:
        place = self._places[customer_id]
        start, *end = self._starts[place : place + 2].tolist()
        channels = self._rows.slice(start, end[0] - start if end else None).to_pylist()
        return Customer(
            customer_id,
            channels[0]["customer_name"],
            tuple(Channel(row["channel"], row["notifications"], row["last_event"]) for row in channels),
        )

    def __iter__(self) -> Iterator[int]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def per_channel(self) -> dict[str, int]:
        """The notifications of each channel, the most frequent first."""
        totals = self._rows.group_by("channel").aggregate([("notifications", "sum")])
        totals = totals.sort_by([("notifications_sum", "descending"), ("channel", "ascending")])
        return dict(zip(totals["channel"].to_pylist(), totals["notifications_sum"].to_pylist(), strict=True))

    def search(self, text: str, sort: Sort) -> list[int]:
        """The ids of the customers whose name holds `text`, whatever its case and accents, or whose id begins with it;
        sorted."""
        names = [searched(name) for name in self._rows["customer_name"].take(self._starts).to_pylist()]
        wanted = searched(text)
        found = [
            (customer_id, place)
            for customer_id, place in self._places.items()
            if wanted in names[place] or str(customer_id).startswith(wanted)
        ]
        order: Sequence[Any]
        match sort:
            case "id":
                return sorted(customer_id for customer_id, _ in found)
            case "name":
                order = names
            case "notifications":
                order = self._greatest_first(np.add, self._rows["notifications"])
            case "last_event":
                order = self._greatest_first(
                    np.maximum, pc.fill_null(self._rows["last_event"].cast(pa.int64()), -(2**62))
                )
        return [customer_id for _, customer_id in sorted((order[place], customer_id) for customer_id, place in found)]

    def _greatest_first(self, of_channels: np.ufunc, values: pa.ChunkedArray) -> list[int]:
        """Per customer what its channels' values come to, negated."""
        return (-of_channels.reduceat(values.to_numpy(), self._starts)).tolist() if len(self) else []


@dataclass(frozen=True)
class Overview:
    """All customers at one version of customer_panel: the messages of `day`, all of them counted up to `updated_at`."""

    version: int
    day: date
    updated_at: datetime | None
    customers: Customers

    def is_late(self, now: datetime) -> bool:
        """Whether the numbers are older than people expect."""
        return self.updated_at is None or now - self.updated_at > LATE_AFTER


class Panel:
    """The panel's view of a lake. Between `start` and `stop` a thread keeps the overview new."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.settings = settings
        self.clock = clock
        self.lake = ReadOnlyLake(settings)
        self.problem = ""
        """Why the customers' numbers can't be read, for /readyz; of hours and rejected messages the log tells."""
        self._beside: dict[str, str] = {}
        self._overview: Overview | None = None
        self._hours: Hours | None = None
        self._rejected: Rejected | None = None
        self._refreshing, self._summing, self._rejecting = Lock(), Lock(), Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._keep_new, name="overview", daemon=True)
        self.beside = ThreadPoolExecutor(thread_name_prefix="beside")
        """For what a page asks while it asks something else: most questions keep only one processor busy."""
        self.dagster = DagsterState(self.beside)

    def start(self) -> None:
        """Starts refreshing."""
        self._thread.start()

    def stop(self) -> None:
        """Ends refreshing, and the engine."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()
        self.beside.shutdown()
        self.lake.close()

    @property
    def overview(self) -> Overview:
        """The newest overview. Raises LakeError if the table can't be read."""
        known = self._overview
        return known if known is not None and known.day == self.today else self.refresh()

    @property
    def today(self) -> date:
        """The billing day it is."""
        return queries.today(self.settings, self.clock())

    def refresh(self) -> Overview:
        """Reads customer_panel again if it has a newer version, or if a new day has begun."""
        with self._refreshing:
            table, day, known = self.lake.table("customer_panel"), self.today, self._overview
            if known is None or (known.version, known.day) != (table.version, day):
                rows = queries.panel(self.lake, day)
                updated_at = pc.min(rows["updated_at"]).as_py()
                self._overview = known = Overview(table.version, day, updated_at, Customers(rows))
            return known

    @property
    def hours(self) -> Hours:
        """The counts of the last 48 hours, and of today and yesterday, by minute of the newest two; as of the newest
        refreshing."""
        return self._hours or self._refresh_hours()

    def _refresh_hours(self) -> Hours:
        now = self.clock()
        hour = now.replace(minute=0, second=0, microsecond=0)
        days = [self.today - timedelta(days=1), self.today]
        start = day_start(days[0], self.settings.zone).replace(minute=0)
        since = min(start, hour - (CHART_HOURS - 1) * timedelta(hours=1))
        with self._summing:
            known = self._hours
            wanted = since, hour - timedelta(hours=1)
            if known is None or known.table.superseded or (known.since, known.by_minute) != wanted:
                known = Hours(self.lake, *wanted, known)
                for day in set(days) - closed_days(self.lake):
                    known.bill(self.settings, day)  # now, or a page would wait for it
                self._hours = known
            return known

    @property
    def rejected(self) -> Rejected | None:
        """The messages rejected since the beginning of yesterday, of UTC; as of the newest refreshing.

        None if they could never be read, which the log tells: the customers' numbers go on.
        """
        with suppress(LakeError):
            return self._rejected or self._refresh_rejected()
        return None

    def _refresh_rejected(self) -> Rejected:
        since = self.clock().date() - timedelta(days=1)
        with self._rejecting:
            known = self._rejected
            if known is None or known.table.superseded or known.since != since:
                self._rejected = known = Rejected(self.lake, since, known)
            return known

    def _keep_new(self) -> None:
        given_back = time.monotonic()
        while not self._ending.wait(_POLL_SECONDS):
            self.problem = self._problem_of(self.refresh)
            for beside in (self._refresh_hours, self._refresh_rejected):
                problem = self._problem_of(beside)
                if problem and problem != self._beside.get(beside.__name__):
                    _log.error("the lake can't be read: %s", problem)
                self._beside[beside.__name__] = problem
            if time.monotonic() - given_back > _GIVE_BACK_SECONDS:
                memory.give_back()
                given_back = time.monotonic()

    def _problem_of(self, read: Callable[[], object]) -> str:
        try:
            read()
        except LakeError as error:
            return str(error)
        except Exception as error:  # tried again: a page must not die of a bad moment
            return type(error).__name__  # what it says may be anybody's data
        return ""
