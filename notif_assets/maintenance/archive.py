"""Moves bronze to NOTIF_ARCHIVE after NOTIF_BRONZE_DAYS.

Belongs here: when a day of bronze may be dropped, copying it, verifying the copy, dropping it. Doesn't: newer days.

It goes day by day, oldest first, so bronze always holds every batch from some batch on. It can be killed at any point:
a day stays in bronze until its copy has been read back, and an existing copy is not written again.
"""

from datetime import date, datetime, timedelta

from notif_assets.billing.closed_days import closed_days
from notif_assets.core.days import days_of_hours
from notif_assets.lake import Lake, LakeError, LostRace, Scan, Table, until_committed
from notif_assets.lake.staging import stage
from notif_assets.maintenance.compaction import by_partition, files_needed, group_by_order, in_order
from notif_assets.maintenance.fingerprint import fingerprint_of
from notif_assets.maintenance.lock import Progress, ignore_progress
from notif_assets.maintenance.swaps import Swap, commit, rewrite_whole
from notif_assets.settings import Settings

_NAME = "raw_notifications"
_POSITION = ("batch", "topic", "kafka_partition", "kafka_offset", "ingested_at")


def archive_bronze(lake: Lake, settings: Settings, now: datetime, progress: Progress = ignore_progress) -> list[str]:
    """Moves the due days of bronze to the archive. Returns a line for each, and one for the first that must wait.

    Raises LakeError without NOTIF_ARCHIVE, and if the archive holds other rows of a day or its copy reads differently.
    """
    if settings.bronze_days is None:
        return []
    if settings.archive is None:
        raise LakeError(
            "NOTIF_BRONZE_DAYS is set without NOTIF_ARCHIVE: say where bronze is copied before it is dropped"
        )
    archive = Lake(settings.archive.absolute(), memory=settings.engine_memory)
    if archive.root.is_relative_to(lake.root) or lake.root.is_relative_to(archive.root):
        raise LakeError("NOTIF_ARCHIVE lies in the lake itself (or the lake in it): name another folder")
    done = []
    first_kept = now.date() - timedelta(days=settings.bronze_days)
    days = sorted({day for (day,) in by_partition(lake.table(_NAME).data_files()) if isinstance(day, date)})
    for day in days:
        if day >= first_kept:
            break
        needed = keep_reason(lake, settings, day)
        if needed:
            done.append(f"{_NAME}: {day} stays: {needed}")
            break
        progress(f"archiving {day}")
        rows = until_committed(lambda day=day: _copy(lake, archive, day))  # type: ignore[misc]
        until_committed(lambda day=day: _drop(lake, archive, day))  # type: ignore[misc]
        done.append(f"{_NAME}: {day} archived and dropped ({rows} rows)")
    return done


def keep_reason(lake: Lake, settings: Settings, day: date) -> str | None:
    """Why bronze still needs the records ingested on `day`; None if it doesn't."""
    bronze = lake.table(_NAME)
    numbers = lake.select("batch_span", {"notifications": bronze.scan(partitions={(day,)})}).to_pylist()[0]
    first, last = numbers["first_batch"], numbers["last_batch"]
    if last is None:
        return None
    unread = lake.rows(lake.table("ingest_batches").scan(batch=(bronze.watermark + 1, None)))
    if any(planned.date() <= day for planned in unread["planned_at"].to_pylist()):
        return "a batch planned by then is not read yet"
    for name in ("notifications", "rejected_notifications"):
        if lake.table(name).watermark < last:
            return f"{name} stands at batch {lake.table(name).watermark}, before {last}"
    messages = lake.table("notifications").scan(batch=(first, last + 1))
    hours = lake.select("hours_of_messages", {"notifications": messages})["hour_begins_at"].to_pylist()
    closed = closed_days(lake)
    still_open = [str(open_day) for open_day in days_of_hours(hours, settings.zone) if open_day not in closed]
    return f"it holds messages of days that are not closed ({', '.join(still_open[:3])})" if still_open else None


def _copy(lake: Lake, archive: Lake, day: date) -> int:
    """Makes the archive's day equal to bronze's, in one commit, unless it is equal already. Returns the row count."""
    bronze, copies = lake.table(_NAME), archive.table(_NAME)
    files, archived_files = ([f for f in table.data_files() if f.partition == (day,)] for table in (bronze, copies))
    original, copied = (
        fingerprint_of(lake, bronze.scan_files(files)),
        fingerprint_of(archive, copies.scan_files(archived_files)),
    )
    if original == copied:
        return original.rows
    if archived_files and fingerprint_of(lake, bronze.scan_files(files), only=_POSITION) != fingerprint_of(
        archive, copies.scan_files(archived_files), only=_POSITION
    ):
        raise LakeError(
            f"the archive {archive.root} holds other records of {day} already: it belongs to another lake; "
            "give this one its own NOTIF_ARCHIVE"
        )
    staged = tuple(
        file
        for group in group_by_order(bronze.schema, files)
        for file in stage(
            copies,
            (day,),
            in_order(lake, bronze, group),
            -(-sum(f.rows for f in group) // files_needed(bronze.schema, group)),
        )
    )
    rewrite_whole(archive, copies, [Swap((day,), tuple(archived_files), staged, whole=True)], f"archived {day}")
    return original.rows


def _drop(lake: Lake, archive: Lake, day: date) -> None:
    """Drops the day from bronze after verifying that the archive holds the same rows."""
    bronze, copies = lake.table(_NAME), archive.table(_NAME)
    original, copied = (fingerprint_of(at, _day(table, day)) for at, table in ((lake, bronze), (archive, copies)))
    if original != copied:
        raise LakeError(
            f"the archive {archive.root} gives back {copied.rows} rows of {day} that differ from the {original.rows} "
            "of bronze, which keeps them; look at the archive's disk, then run it again"
        )
    files = tuple(file for file in bronze.data_files() if file.partition == (day,))
    if commit(lake, _NAME, [Swap((day,), files, (), whole=True)], same_rows=False, note=f"{day} is in the archive"):
        raise LostRace(_NAME)


def _day(table: Table, day: date) -> Scan:
    return table.scan(partitions={(day,)})
