"""Computes derived tables again, to the same rows at the same watermark.

Belongs here: the source of each derived table, and why the other tables can't be rebuilt. Doesn't: the computing itself
(notifications/, invoices/, chatbot/): a rebuild goes through the same functions.
"""

import os
import shutil
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, date, datetime
from pathlib import Path

from notif_assets.chatbot.sessions import replace_day
from notif_assets.core.days import day_bounds
from notif_assets.invoices.averages import materialized_months, months_affected, months_of, replace_averages
from notif_assets.lake import SCHEMAS, Lake, LakeError, LostRace, Table, until_committed
from notif_assets.lake.staging import stage
from notif_assets.lake.tables import DataFile, Value
from notif_assets.maintenance.compaction import by_partition, compact
from notif_assets.maintenance.lock import Progress, ignore_progress, maintenance_lock
from notif_assets.maintenance.swaps import Swap, commit, rewrite_whole
from notif_assets.notifications import gold, silver
from notif_assets.notifications.rules import last_wide_batch
from notif_assets.settings import Settings

_SILVER = ("notifications", "rejected_notifications")
_COMPACT_EVERY = 200
_HOURS_PER_COMMIT = 24
_ROUNDS = 100

_REFUSALS = {
    "book": "it is a book: what was planned, priced or billed is written down once and never computed again",
    "received": "it holds what came from outside, and there is no table before it to compute it from",
}


def rebuild(
    lake: Lake,
    settings: Settings,
    table: str,
    first: date | None = None,
    last: date | None = None,
    progress: Progress = ignore_progress,
) -> None:
    """Computes a derived table again from its source, while ingestion runs; its folder may have been deleted.

    `first` and `last` bound the UTC days of minute_aggregates, the days of chatbot_reports, the months of
    invoice_window_averages; None: no bound. notifications and rejected_notifications are rebuilt together, from bronze.
    A killed rebuild can be run again. Raises ValueError for a table that can't be rebuilt or an impossible bound,
    LakeError if the source lacks rows.
    """
    if table not in SCHEMAS:
        raise ValueError(f"no such table: {table}; rebuild takes one of {', '.join(_REBUILDS)}")
    if table not in _REBUILDS:
        raise ValueError(f"{table} can't be rebuilt: {_REFUSALS[SCHEMAS[table].origin]}")
    bounded = first is not None or last is not None
    if bounded and not SCHEMAS[table].rebuilt_by_day:
        raise ValueError(f"{table} is rebuilt whole: leave out --from and --to")
    if first is not None and last is not None and first > last:
        raise ValueError(f"--from {first} lies after --to {last}")
    with maintenance_lock(lake, progress):
        _REBUILDS[table](lake, settings, first or date.min, last or date.max, progress)


def _within(day: Value, first: date, last: date) -> bool:
    return isinstance(day, date) and first <= day <= last


# --- minute_aggregates ----------------------------------------------------------------------------------------------


def _minutes(lake: Lake, _settings: Settings, first: date, last: date, progress: Progress) -> None:
    if not lake.table("minute_aggregates").watermark:
        if (first, last) != (date.min, date.max):
            raise ValueError("minute_aggregates is empty: rebuild it whole, without --from and --to")
        if _minutes_from_scratch(lake, progress):
            return
    todo: set[tuple[Value, ...]] | None = None
    for _ in range(_ROUNDS):
        aggregates, notifications = lake.table("minute_aggregates"), lake.table("notifications")
        old_files = by_partition(aggregates.data_files())
        hours = old_files.keys() | by_partition(notifications.data_files()).keys()
        changed_hours: set[tuple[Value, ...]] = set()
        waiting: list[Swap] = []
        for hour in sorted(hour for hour in hours if _within(hour[0], first, last) and (todo is None or hour in todo)):
            progress(f"minute_aggregates {hour[0]} {hour[1]}h")
            counted = _count_hour(lake, aggregates, notifications, hour, aggregates.watermark)
            waiting.append(Swap(hour, tuple(old_files.get(hour, ())), counted, whole=True))
            if len(waiting) >= _HOURS_PER_COMMIT:
                changed_hours |= _commit_hours(lake, waiting)
                # Ingestion continued meanwhile: count the next hours up to its new watermark.
                aggregates, notifications, waiting = lake.table("minute_aggregates"), lake.table("notifications"), []
                old_files = by_partition(aggregates.data_files())
        changed_hours |= _commit_hours(lake, waiting)
        if not changed_hours:
            return
        todo = changed_hours
    raise LakeError("minute_aggregates was never quiet enough to be rebuilt; run it again")


def _minutes_from_scratch(lake: Lake, progress: Progress) -> bool:
    """Counts all hours into an empty table, in one commit that carries the watermark. False if it filled meanwhile."""
    aggregates, notifications = lake.table("minute_aggregates"), lake.table("notifications")
    through = min(notifications.watermark, lake.table("rejected_notifications").watermark)
    if aggregates.watermark or not through:
        return not through
    counted: list[DataFile] = []
    for hour in sorted(by_partition(notifications.data_files())):
        progress(f"minute_aggregates {hour[0]} {hour[1]}h")
        counted += _count_hour(lake, aggregates, notifications, hour, through)
    try:
        aggregates.swap([], counted, through, note={"upkeep": "rebuilt"})
    except LostRace:
        return False
    return True


def _count_hour(
    lake: Lake, aggregates: Table, notifications: Table, hour: tuple[Value, ...], through: int
) -> tuple[DataFile, ...]:
    stored = notifications.scan(partitions={hour}, batch=(None, through + 1))
    touched = lake.select("touched_minutes", {"added": stored, "removed": notifications.scan_files([])})
    rows = gold.count_minutes(lake, notifications, touched, through)
    rows = rows.sort_by([(column, "ascending") for column in aggregates.schema.sort])
    return stage(aggregates, hour, rows.to_batches(), aggregates.schema.file_rows)


def _commit_hours(lake: Lake, swaps: list[Swap]) -> set[tuple[Value, ...]]:
    return {swap.partition for swap in commit(lake, "minute_aggregates", swaps, same_rows=False, note="rebuilt")}


# --- customer_panel -------------------------------------------------------------------------------------------------


def _panel(lake: Lake, settings: Settings, _first: date, _last: date, progress: Progress) -> None:
    """Advances the panel to minute_aggregates and computes it from all minutes, ignoring its present rows."""

    def attempt() -> None:
        panel, aggregates = lake.table("customer_panel"), lake.table("minute_aggregates")
        through = aggregates.watermark
        if not through:
            return
        progress("customer_panel")
        updated_at, day = gold.panel_day(lake, settings, through)
        start, end = day_bounds(day, settings.zone)
        rows = lake.select(
            "customer_panel",
            {
                "known": lake.select("newest_names", {"minutes": aggregates.scan()}),
                "today": aggregates.scan(minute=(start, end)),
            },
            billing_date=day,
            updated_at=updated_at,
        )
        if panel.watermark < through:
            panel.replace(rows, None, through, {"upkeep": "rebuilt"})
        elif panel.watermark == through:
            staged = stage(panel, (), rows.to_batches(), max(1, rows.num_rows))
            rewrite_whole(lake, panel, [Swap((), tuple(panel.data_files()), staged, whole=True)], "rebuilt")
        else:  # the minutes were read before the panel took the next batch
            raise LostRace("customer_panel")

    until_committed(attempt)


# --- silver, replayed from bronze -----------------------------------------------------------------------------------


def replay_path(lake: Lake) -> Path:
    """Where silver is replayed, beside the tables."""
    return lake.root / ".replay"


class _Replay(Lake):
    """A lake whose silver tables are its own, in a folder of its own, and whose other tables are those of `lake`."""

    def __init__(self, lake: Lake, memory: str) -> None:
        super().__init__(replay_path(lake), memory=memory)
        self._of = lake

    def table(self, name: str) -> Table:
        return super().table(name) if name in _SILVER else self._of.table(name)


def forget_replay(lake: Lake) -> None:
    """Deletes an unfinished replay: its rows come from an older state of bronze."""
    shutil.rmtree(replay_path(lake), ignore_errors=True)


def _replay(lake: Lake, settings: Settings, _first: date, _last: date, progress: Progress) -> None:
    """Replays every batch of the ledger into separate tables, and swaps them in once they have caught up.

    Until then readers see the old tables. After a kill the replay continues where it stopped.
    """
    _require_all_of_bronze(lake)
    last_wide_batch(lake)  # recorded before the replay needs it: the separate tables are still empty
    with _Replay(lake, settings.engine_memory) as replay:
        until_committed(lambda: _catch_up_and_swap_in(lake, replay, settings, progress))
    forget_replay(lake)


def _require_all_of_bronze(lake: Lake) -> None:
    """Raises LakeError unless bronze still holds every batch: days leave it oldest first, so the first one tells."""
    bronze = lake.table("raw_notifications")
    batches = lake.table("ingest_batches").scan(batch=(None, bronze.watermark + 1))
    inputs = {"batches": batches, "losses": lake.table("ingest_losses").scan(), "records": bronze.scan()}
    missing = lake.select("batches_before_bronze", inputs).to_pylist()[0]
    if missing["last_batch"] is not None:
        raise LakeError(
            f"notifications can't be rebuilt: raw_notifications no longer holds batches {missing['first_batch']} to "
            f"{missing['last_batch']} (NOTIF_BRONZE_DAYS); copy their days back from NOTIF_ARCHIVE first"
        )


def _catch_up_and_swap_in(lake: Lake, replay: Lake, settings: Settings, progress: Progress) -> None:
    through = _common_watermark(lake, settings)
    while (reached := min(replay.table(name).watermark for name in _SILVER)) < through:
        progress(f"batch {reached + 1} of {through}")
        silver.advance_silver_by_one(replay, settings)
        if reached % _COMPACT_EVERY == _COMPACT_EVERY - 1:
            for name in _SILVER:
                compact(replay, name, datetime.max.replace(tzinfo=UTC))
    for name in _SILVER:
        table, replayed = lake.table(name), replay.table(name)
        if table.watermark not in (0, through) or replayed.watermark != through:
            raise LostRace(name)  # ingestion continued, so the replay must too
        old = {file.path: file for file in table.data_files()}
        new = {file.path: file for file in replayed.data_files()}
        added = [file for path, file in new.items() if path not in old]
        _link(replayed, table, added)
        removed = [file for path, file in old.items() if path not in new]
        if added or removed or not table.watermark:
            table.swap(removed, added, None if table.watermark else through, note={"upkeep": "rebuilt"})


def _common_watermark(lake: Lake, settings: Settings) -> int:
    """The watermark of both tables, after the one that lags has caught up.

    A deleted table gets the other's watermark, or that of minute_aggregates if both are deleted.
    """
    ends = [lake.table(name).watermark for name in _SILVER]
    if all(ends) and ends[0] != ends[1]:
        silver.advance_silver_by_one(lake, settings)
        raise LostRace(_SILVER[0])
    return max(*ends, 0 if any(ends) else lake.table("raw_notifications").watermark)


def _link(source: Table, target: Table, files: Collection[DataFile]) -> None:
    """Hard-links the files into the target's folder, without copying."""
    target.create()
    for file in files:
        link = target.path / file.path
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            os.link(source.path / file.path, link)


# --- tables from files ----------------------------------------------------------------------------------------------


def _averages(lake: Lake, _: Settings, first: date, last: date, progress: Progress) -> None:
    """Rebuilds the materialized months, or every month that an invoice affects if there are none."""
    months = materialized_months(lake) or months_affected(months_of(lake))
    for month in months:
        if _within(month, first.replace(day=1), last):
            progress(f"invoice_window_averages {month:%Y-%m}")
            replace_averages(lake, month)


def _reports(lake: Lake, _: Settings, first: date, last: date, progress: Progress) -> None:
    days = {
        file.partition[0] for name in ("chatbot_answers", "chatbot_reports") for file in lake.table(name).data_files()
    }
    for day in sorted(day for day in days if isinstance(day, date)):
        if _within(day, first, last):
            progress(f"chatbot_reports {day}")
            replace_day(lake, day)


_REBUILDS: Mapping[str, Callable[[Lake, Settings, date, date, Progress], None]] = {
    "notifications": _replay,
    "rejected_notifications": _replay,
    "minute_aggregates": _minutes,
    "customer_panel": _panel,
    "invoice_window_averages": _averages,
    "chatbot_reports": _reports,
}
