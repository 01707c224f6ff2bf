"""The panel's state at a moment: the day's counts of all customers, and the rest of what it keeps in memory.

Belongs here: when it is read again. Doesn't: what is kept of tables and answers (read_only.py), of hours (hours.py), of
rejected messages (rejected.py), of months (months.py); which rows a report holds (queries.py).
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from threading import Lock
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from notif_assets.billing.closed_days import closed_days
from notif_assets.core.days import day_start
from notif_assets.core.texts import fold_for_search
from notif_assets.lake import Lake, LakeError
from notif_assets.notifications import queries
from notif_assets.panel import memory
from notif_assets.panel.copy_state import ServingCopy
from notif_assets.panel.dagster_state import DagsterState
from notif_assets.panel.hours import Hours
from notif_assets.panel.measures import LakeMeasures
from notif_assets.panel.months import BOOKS, Months
from notif_assets.panel.read_only import PinnedLake, ReadOnlyLake
from notif_assets.panel.rejected import Rejected
from notif_assets.settings import Settings

_log = logging.getLogger("notif_assets.panel")
_POLL_SECONDS = 0.5
_GIVE_BACK_SECONDS = 5.0
_REJECTED = "rejected_notifications"
T = TypeVar("T")
Sort: TypeAlias = Literal["name", "id", "notifications", "last_event"]
_HOURS = 48
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
        self._index_by_id = {customer_id: index for index, customer_id in enumerate(ids[self._starts].tolist())}

    def __getitem__(self, customer_id: int) -> Customer:
        index = self._index_by_id[customer_id]
        start, *end = self._starts[index : index + 2].tolist()
        channels = self._rows.slice(start, end[0] - start if end else None).to_pylist()
        return Customer(
            customer_id,
            channels[0]["customer_name"],
            tuple(Channel(row["channel"], row["notifications"], row["last_event"]) for row in channels),
        )

    def __iter__(self) -> Iterator[int]:
        return iter(self._index_by_id)

    def __len__(self) -> int:
        return len(self._index_by_id)

    def per_channel(self) -> dict[str, int]:
        """The notifications of each channel, the most frequent first."""
        totals = self._rows.group_by("channel").aggregate([("notifications", "sum")])
        totals = totals.sort_by([("notifications_sum", "descending"), ("channel", "ascending")])
        return dict(zip(totals["channel"].to_pylist(), totals["notifications_sum"].to_pylist(), strict=True))

    def search(self, text: str, sort: Sort) -> list[int]:
        """The ids of the customers whose name holds `text`, whatever its case and accents, or whose id begins with it;
        sorted."""
        names = [fold_for_search(name) for name in self._rows["customer_name"].take(self._starts).to_pylist()]
        wanted = fold_for_search(text)
        found = [
            (customer_id, index)
            for customer_id, index in self._index_by_id.items()
            if wanted in names[index] or str(customer_id).startswith(wanted)
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
        return [customer_id for _, customer_id in sorted((order[index], customer_id) for customer_id, index in found)]

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


@dataclass(frozen=True)
class View:
    """What a page shows, all of it counted from the same batches: `lake` has the tables as they were then.

    `kept_hours`, `kept_months` and `rejected` are None if they could never be read, which the log tells: the customers'
    numbers go on.
    """

    lake: PinnedLake
    overview: Overview
    kept_hours: Hours | None
    kept_months: Months | None
    rejected: Rejected | None
    """The messages rejected since the beginning of yesterday, of UTC."""

    @property
    def hours(self) -> Hours:
        """The counts of the last 48 hours, and of today and yesterday, by minute of the newest two.

        Raises LakeError if they could never be read.
        """
        if self.kept_hours is None:
            raise LakeError("the hours of the last two days can't be read; the panel's log says why")
        return self.kept_hours

    @property
    def months(self) -> Months:
        """What the closed days of each month come to. Raises LakeError if it could never be read."""
        if self.kept_months is None:
            raise LakeError("the months' bills can't be read; the panel's log says why")
        return self.kept_months


class Panel:
    """The panel's view of a lake. Between `start` and `stop` a thread keeps it new."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.settings = settings
        self.clock = clock
        self.lake = ReadOnlyLake(settings)
        self.problem = ""
        """Why the customers' numbers can't be read, for /readyz; of hours and rejected messages the log tells."""
        self._beside: dict[str, str] = {}
        self._view: View | None = None
        self._refreshing = Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._refresh_loop, name="overview", daemon=True)
        self.side_executor = ThreadPoolExecutor(thread_name_prefix="beside")
        """For what a page asks while it asks something else: most questions keep only one processor busy."""
        self.dagster = DagsterState(self.side_executor)
        self.measures = LakeMeasures(self.side_executor)
        self.copy = ServingCopy(self.side_executor, settings)

    def start(self) -> None:
        """Starts refreshing."""
        self._thread.start()

    def stop(self) -> None:
        """Ends refreshing, and the engine."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()
        self.side_executor.shutdown()
        self.lake.close()

    @property
    def view(self) -> View:
        """The newest view; a page asks once. Raises LakeError if customer_panel can't be read."""
        known = self._view
        return known if known is not None and known.overview.day == self.today else self.refresh()

    @property
    def overview(self) -> Overview:
        """That of the newest view."""
        return self.view.overview

    @property
    def hours(self) -> Hours:
        """Those of the newest view."""
        return self.view.hours

    @property
    def rejected(self) -> Rejected | None:
        """Those of the newest view."""
        return self.view.rejected

    @property
    def today(self) -> date:
        """The billing day it is."""
        return queries.today(self.settings, self.clock())

    def refresh(self) -> View:
        """Reads again what changed, if all of it has come to the same batch, and what a new hour or day needs."""
        with self._refreshing:
            known = self._view
            lake = self._moment(known)
            self._view = View(
                lake,
                self._overview_at(lake, known),
                self._read_or_keep("hours", lambda: self._hours_at(lake, known), known.kept_hours if known else None),
                self._read_or_keep(
                    "months", lambda: self._months_at(lake, known), known.kept_months if known else None
                ),
                self._read_or_keep(
                    "rejected", lambda: self._rejected_at(lake, known), known.rejected if known else None
                ),
            )
            return self._view

    def _moment(self, known: View | None) -> PinnedLake:
        """The newest tables; while a batch is on its way through them, those of before it.

        customer_panel is opened first, for it is written last: what is opened after it is as new, or newer. The books
        wait for no batch.
        """
        tables = {name: self.lake.table(name) for name in ("customer_panel", "minute_aggregates", _REJECTED, *BOOKS)}
        shown = tables["customer_panel"].watermark
        older: tuple[str, ...] = ()
        if known and tables["minute_aggregates"].watermark > shown:
            older = "customer_panel", "minute_aggregates", _REJECTED
        elif known and tables[_REJECTED].watermark > shown:
            older = (_REJECTED,)
        return PinnedLake(self.lake, tables | {name: known.lake.table(name) for name in older if known})

    def _overview_at(self, lake: PinnedLake, known: View | None) -> Overview:
        day = self.today
        if known and known.overview.day == day and _is_same("customer_panel", lake, known.lake):
            return known.overview
        rows = queries.panel(lake, day)
        updated_at = pc.min(rows["updated_at"]).as_py()
        return Overview(lake.table("customer_panel").version, day, updated_at, Customers(rows))

    def _hours_at(self, lake: PinnedLake, known: View | None) -> Hours:
        hour = self.clock().replace(minute=0, second=0, microsecond=0)
        days = [self.today - timedelta(days=1), self.today]
        start = day_start(days[0], self.settings.zone).replace(minute=0)
        wanted = min(start, hour - (_HOURS - 1) * timedelta(hours=1)), hour - timedelta(hours=1)
        before = known.kept_hours if known else None
        if before and (before.since, before.by_minute) == wanted and before.is_current(lake.table("minute_aggregates")):
            return before
        hours = Hours(lake, *wanted, before)
        for day in set(days) - closed_days(lake):
            hours.bill(self.settings, day)  # now, or a page would wait for it
        return hours

    def _months_at(self, lake: PinnedLake, known: View | None) -> Months:
        before, today = known.kept_months if known else None, self.today
        return before if before and before.is_current(lake, today) else Months(lake, self.settings, today, before)

    def _rejected_at(self, lake: PinnedLake, known: View | None) -> Rejected:
        since = self.clock().date() - timedelta(days=1)
        before = known.rejected if known else None
        if known and before and before.since == since and _is_same(_REJECTED, lake, known.lake):
            return before
        return Rejected(lake, since, before)

    def _read_or_keep(self, name: str, read: Callable[[], T], before: T | None) -> T | None:
        """What `read` gives; what was known before where it can't be read, which the log tells once."""
        found: list[T] = []
        problem = self._problem_of(lambda: found.append(read()))
        if problem and problem != self._beside.get(name):
            _log.error("the lake can't be read: %s", problem)
        self._beside[name] = problem
        return found[0] if found else before

    def _refresh_loop(self) -> None:
        given_back = time.monotonic()
        while not self._ending.wait(_POLL_SECONDS):
            self.problem = self._problem_of(self.refresh)
            if time.monotonic() - given_back > _GIVE_BACK_SECONDS:
                memory.trim_memory()
                given_back = time.monotonic()

    def _problem_of(self, read: Callable[[], object]) -> str:
        try:
            read()
        except LakeError as error:
            return str(error)
        except Exception as error:  # the next refresh tries again; a page must not fail for it
            return type(error).__name__  # what it says may be anybody's data
        return ""


def _is_same(name: str, lake: Lake, other: Lake) -> bool:
    """Whether the table stands at the same version in both."""
    return lake.table(name).snapshot is other.table(name).snapshot
