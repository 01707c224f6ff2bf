"""`maintain`: everything that keeps the lake small over months, in one call.

Belongs here: the order of the steps, and a line for each table. Doesn't: the steps (compaction.py, redaction.py,
archive.py).
"""

import re
from datetime import datetime
from pathlib import Path

from notif_assets.lake import SCHEMAS, Lake, until_committed
from notif_assets.lake.catalogue import RETENTION
from notif_assets.maintenance.archive import archive_bronze
from notif_assets.maintenance.compaction import compact
from notif_assets.maintenance.lock import Progress, ignore_progress, maintenance_lock
from notif_assets.maintenance.rebuild import forget_replay, replay_path
from notif_assets.maintenance.redaction import blank_old
from notif_assets.settings import Settings

_DRAFT = re.compile(r"#\d+$|^tmp\w+\.tmp$")


def maintain(lake: Lake, settings: Settings, now: datetime, progress: Progress = ignore_progress) -> list[str]:
    """Retention of payloads and bronze where it is set, compaction, vacuum and log clean-up; a line for each table.

    Only retention changes rows, and no watermark moves; ingestion continues meanwhile. Raises LakeError if the lake or
    the archive can't be used, or if NOTIF_BRONZE_DAYS is set without NOTIF_ARCHIVE; finished steps stay done.
    """
    with maintenance_lock(lake, progress):
        done = []
        for label, rows in blank_old(lake, settings, now).items():
            if rows:
                done.append(f"{label}: {rows} old rows blanked")
        done += archive_bronze(lake, settings, now, progress)
        for label, target, name in _tables(lake, settings):
            progress(label)
            merged = _compact(target, name, now)
            files = until_committed(lambda target=target, name=name: target.table(name).vacuum())  # type: ignore[misc]
            entries = until_committed(lambda target=target, name=name: target.table(name).clean_log())  # type: ignore[misc]
            done.append(f"{label}: {merged}; {files} unused files and {entries} log entries deleted")
        if swept := _delete_drafts(lake, now):
            done.append(f"{swept} drafts of killed writers deleted")
        return done


def compact_tables(lake: Lake, settings: Settings, now: datetime, progress: Progress = ignore_progress) -> list[str]:
    """The part of `maintain` that is due every hour: the small files of quiet hours and days, and the log of a day ago;
    a line for each table."""
    with maintenance_lock(lake, progress):
        done = []
        for label, target, name in _tables(lake, settings):
            done.append(f"{label}: {_compact(target, name, now)}")
            until_committed(lambda target=target, name=name: target.table(name).clean_log(checkpoint=False))  # type: ignore[misc]
        return done


def _delete_drafts(lake: Lake, now: datetime) -> int:
    """Deletes what vacuum does not see, once it is older than the retention: drafts (a file is called …#1 until it is
    complete), and an abandoned replay."""
    written = {path: path.stat().st_mtime for path in lake.root.rglob("*") if path.is_file()}
    until = (now - RETENTION).timestamp()
    drafts = [path for path, moment in written.items() if moment < until and _DRAFT.search(path.name)]
    for path in drafts:
        path.unlink(missing_ok=True)
    replayed = [moment for path, moment in written.items() if path.is_relative_to(replay_path(lake))]
    if replayed and max(replayed) < until:
        forget_replay(lake)
    return len(drafts)


def _compact(target: Lake, name: str, now: datetime) -> str:
    partitions, before, after = compact(target, name, now)
    return f"{before} files became {after} in {partitions} partitions" if before else "nothing to merge"


def _tables(lake: Lake, settings: Settings) -> list[tuple[str, Lake, str]]:
    """Label, lake and name of every table that exists, the archive of bronze included."""
    tables = [(name, lake, name) for name in SCHEMAS]
    if settings.archive is not None:
        archive = Lake(settings.archive.absolute(), memory=settings.engine_memory)
        tables.append(("archive", archive, "raw_notifications"))
    return [(label, target, name) for label, target, name in tables if _exists(target.root / name)]


def _exists(table: Path) -> bool:
    return (table / "_delta_log").is_dir()
