"""What the panel reads: the newest snapshot of each table, and the counts of the day in memory.

Belongs here: when a table is opened again, what is kept between requests. Doesn't: which rows a report holds
(queries.py). Nothing is ever created or written: a table that does not exist is an empty one.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from threading import Lock

import pyarrow as pa

from notif_assets import queries
from notif_assets.lake import SCHEMAS, Lake, Schema, Table
from notif_assets.settings import Settings

_POLL_SECONDS = 0.5
LATE_AFTER = timedelta(minutes=3)
"""Counting normally lags by less than a minute; from here on a page says that its numbers are old."""


class _NoTable(Table):
    """A table that nobody has written yet."""

    def __init__(self, root: Path, schema: Schema) -> None:
        self.schema = schema
        self.path = root / schema.name

    @property
    def version(self) -> int:
        return -1

    @property
    def watermark(self) -> int:
        return 0

    def files(self) -> pa.Table:
        return pa.table({})


class ReadOnlyLake(Lake):
    """A lake whose handles are kept, and opened again when their table has a newer version."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.lake, memory=settings.panel_memory)
        self._tables: dict[str, Table] = {}
        self._opening = Lock()

    def table(self, name: str) -> Table:
        """The newest snapshot of the table; nobody may commit through it. Raises LakeError if it can't be opened."""
        known = self._tables.get(name)
        if known is not None and not known.superseded:
            return known
        with self._opening:
            known = self._tables.get(name)
            if known is None or known.superseded:
                schema = SCHEMAS[name]
                exists = any((self.root / name / "_delta_log").glob("*.json"))
                self._tables[name] = known = Table(self.root, schema) if exists else _NoTable(self.root, schema)
            return known


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


@dataclass(frozen=True)
class Overview:
    """All customers at one version of customer_panel: the messages of `day`, all of them counted up to `updated_at`."""

    version: int
    day: date
    updated_at: datetime | None
    customers: dict[int, Customer]

    def is_late(self, now: datetime) -> bool:
        """Whether the numbers are older than people expect."""
        return self.updated_at is None or now - self.updated_at > LATE_AFTER


def overview_of(rows: pa.Table, version: int, day: date) -> Overview:
    """The rows of `queries.panel`, by customer."""
    listed = sorted(rows.to_pylist(), key=itemgetter("customer_id", "channel"))
    customers = {
        customer_id: Customer(
            customer_id,
            channels[0]["customer_name"],
            tuple(Channel(row["channel"], row["notifications"], row["last_event"]) for row in channels),
        )
        for customer_id, group in groupby(listed, itemgetter("customer_id"))
        if (channels := list(group))
    }
    return Overview(
        version, day, min((row["updated_at"] for row in listed if row["updated_at"]), default=None), customers
    )


class Panel:
    """The panel's view of a lake. Between `start` and `stop` a thread keeps the overview new."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.settings = settings
        self.clock = clock
        self.lake = ReadOnlyLake(settings)
        self.problem = ""
        self._overview: Overview | None = None
        self._refreshing = Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._keep_new, name="overview", daemon=True)

    def start(self) -> None:
        """Starts refreshing."""
        self._thread.start()

    def stop(self) -> None:
        """Ends refreshing, and the engine."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()
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
                self._overview = known = overview_of(queries.panel(self.lake, day), table.version, day)
            return known

    def _keep_new(self) -> None:
        while not self._ending.wait(_POLL_SECONDS):
            try:
                self.refresh()
                self.problem = ""
            except Exception as error:  # told by /readyz, and tried again: a page must not die of a bad moment
                self.problem = str(error)
