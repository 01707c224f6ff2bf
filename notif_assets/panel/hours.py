"""Recent counts of all customers in memory: per hour, and per minute in the newest hours. Without them a page of two
days would read fifty files, and hundreds for hours that are not compacted yet.

Belongs here: which hours are kept, when one is counted again, a customer's part of them. Doesn't: what a page makes of
them (pages.py).
"""

from collections.abc import Collection, Iterable
from datetime import UTC, date, datetime, time, timedelta
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from notif_assets.billing.lines import BillRefused, lines_of
from notif_assets.core.days import day_bounds, hour_partitions
from notif_assets.lake import Lake, Table, bounds_of_value
from notif_assets.lake.engine import Input
from notif_assets.panel.read_only import copied
from notif_assets.settings import Settings

_HOUR = timedelta(hours=1)
_MINUTE = 60_000_000  # microseconds
_SCHEMA = pa.schema(
    [
        ("customer_id", pa.int64()),
        ("channel", pa.string()),
        ("notifications", pa.int64()),
        ("minute", pa.timestamp("us", "UTC")),
    ]
)
_AS_MINUTES = ["minute", "channel", "notifications"]


class RowsByCustomer:
    """Rows sorted by customer_id, and where each customer's are."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows
        self._customers = rows["customer_id"].to_numpy()

    def of(self, customer_id: int | None) -> pa.Table:
        """The rows of one customer, or (None) of all."""
        if customer_id is None:
            return self.rows
        start, end = np.searchsorted(self._customers, (customer_id, customer_id + 1))
        return self.rows.slice(start, end - start)


class Hours:
    """minute_aggregates from the hour `since` on, at one version, summed per hour; from `by_minute` on as they are."""

    def __init__(self, lake: Lake, since: datetime, by_minute: datetime, before: "Hours | None" = None) -> None:
        """Counts each hour whose files are others than `before`."""
        self.since = since
        self.by_minute = by_minute
        self.table: Table = lake.table("minute_aggregates")
        self._lake = lake
        self._files: dict[tuple[date, int], set[str]] = {}
        self._sums: dict[tuple[date, int], RowsByCustomer] = {}
        self._minutes: dict[tuple[date, int], RowsByCustomer] = {}
        self._totals: dict[tuple[date, int], pa.Table] = {}
        self._lines: dict[tuple[date, int], RowsByCustomer | None] = {}
        self._billing = Lock()
        scan = self.table.scan(minute=(since, None))
        for hour, file in zip(zip(*scan.partition_values.values(), strict=True), scan.files, strict=True):
            self._files.setdefault(hour, set()).add(file)
        for hour, files in self._files.items():
            if before and before._files.get(hour) == files:
                self._sums[hour], self._totals[hour] = before._sums[hour], before._totals[hour]
                if _start(hour) >= by_minute and hour in before._minutes:
                    self._minutes[hour] = before._minutes[hour]
            else:
                self._count(hour, scan.within({hour}))

    def is_current(self, table: Table) -> bool:
        """Whether it was counted from this version of minute_aggregates."""
        return self.table.snapshot is table.snapshot

    def _count(self, hour: tuple[date, int], minutes: Input) -> None:
        if _start(hour) >= self.by_minute:
            minutes = self._lake.select("hour_minutes", {"minutes": minutes})
            self._minutes[hour] = kept(minutes)
        sums = kept(self._lake.select("hour_sums", {"minutes": minutes}))
        self._sums[hour], self._totals[hour] = sums, _of_all(sums.rows)

    def sums(self, customer_id: int | None, hours: Collection[tuple[date, int]]) -> pa.Table:
        """The rows of a customer, or (None) of all together, in these hours, in place of minutes: `minute` is the
        beginning of the hour."""
        if customer_id is None:
            return _concat_hours((hour, self._totals[hour]) for hour in hours if hour in self._totals)
        return _concat_hours((hour, self._sums[hour].of(customer_id)) for hour in hours if hour in self._sums)

    def minutes(self, customer_id: int | None, hours: Collection[tuple[date, int]], until: datetime) -> pa.Table:
        """The minutes of a customer, or (None) of all, in these hours that began before `until`, as queries.minutes has
        them."""
        known = [(hour, self._minutes[hour].of(customer_id)) for hour in sorted(hours) if hour in self._minutes]
        rows = _concat_hours(known).select(_AS_MINUTES)
        rows = rows.filter(pc.less(rows["minute"], until))
        others = [hour for hour in hours if hour not in self._minutes and hour in self._sums]
        if not others:
            return rows
        scan = self.table.scan(others, customer_id=bounds_of_value(customer_id), minute=(self.since, until))
        read = self._lake.select("customer_minutes", {"minutes": scan}, channel=None)
        return pa.concat_tables([read.select(_AS_MINUTES), rows])

    def lines(self, settings: Settings, customer_id: int, day: date) -> pa.Table | None:
        """The customer's provisional lines of a day, as bill.lines_of has them, but without names.

        None if this can't say: the hours of the day are not all kept, or the day begins within one, or some customer
        has no price, which is no other's concern.
        """
        lines = self.bill(settings, day)
        return lines.of(customer_id) if lines else None

    def bill(self, settings: Settings, day: date) -> RowsByCustomer | None:
        """All customers' lines, made once for a price list."""
        start, end = day_bounds(day, settings.zone)
        if start < self.since or start.minute or end.minute:
            return None
        key = day, self._lake.table("prices").version
        with self._billing:
            if key not in self._lines:
                self._lines[key] = self._billed(settings, day, hour_partitions(start, end))
            return self._lines[key]

    def _billed(self, settings: Settings, day: date, hours: Collection[tuple[date, int]]) -> RowsByCustomer | None:
        sums = _concat_hours((hour, self._sums[hour].rows) for hour in hours if hour in self._sums)
        counts = self._lake.select("combined_hour_sums", {"sums": sums})
        try:
            lines, _ = lines_of(self._lake, settings, day, "provisional", "report", None, counts)
        except BillRefused:
            return None
        return RowsByCustomer(copied(lines.sort_by("customer_id")))


def kept(rows: pa.Table, name: str = "channel") -> RowsByCustomer:
    """With each channel's name once; or each text of another column."""
    texts = rows[name].combine_chunks().dictionary_encode()
    return RowsByCustomer(copied(rows.set_column(rows.schema.names.index(name), name, texts)))


def _of_all(sums: pa.Table) -> pa.Table:
    """All customers' sums of an hour as one customer's, 0."""
    totals = sums.group_by("channel", use_threads=False).aggregate([("notifications", "sum")])
    no_customer = pa.repeat(pa.scalar(0, pa.int64()), totals.num_rows)
    return pa.table([no_customer, totals["channel"], totals["notifications_sum"]], _SCHEMA.names[:-1])


def _concat_hours(hours: Iterable[tuple[tuple[date, int], pa.Table]]) -> pa.Table:
    """Rows of hours, with the beginning of their minute, or of the hour if they are its sums; text as text."""
    type_ = _SCHEMA.field("minute").type
    found = []
    for hour, rows in hours:
        if rows.num_rows:
            minute = rows["minute"].to_numpy().astype(np.int64) if "minute" in rows.column_names else 0
            moments = np.full(rows.num_rows, pa.scalar(_start(hour), type_).value + minute * _MINUTE)
            columns = [rows[name] for name in _SCHEMA.names[:-1]]
            found.append(pa.table([*columns, pa.array(moments, type_)], _SCHEMA.names))
    return pa.concat_tables(found).cast(_SCHEMA) if found else _SCHEMA.empty_table()


def _start(hour: tuple[date, int]) -> datetime:
    return datetime.combine(hour[0], time(hour[1]), UTC)
