"""`python -m notif_assets.panel.measure_lake`: what is measured of a lake now and then, as JSON, for the panel, whose
child this is.

Belongs here: asking the disk and the lake. Doesn't: when to ask, what is kept (measures.py).
"""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from notif_assets.billing.closed_days import closed_days, open_days_that_should_be_closed
from notif_assets.instance.location import store
from notif_assets.lake import Lake
from notif_assets.lake.catalogue import SCHEMAS
from notif_assets.notifications import queries
from notif_assets.notifications.silver import days_with_messages
from notif_assets.panel.measures import Measures
from notif_assets.settings import Settings


def measure(settings: Settings) -> Measures:
    """Measures now. Raises LakeError if the lake can't be read."""
    now = datetime.now(UTC)
    with Lake(settings.lake, memory=settings.panel_memory) as lake:
        with_messages = {*days_with_messages(lake.table("notifications"), settings)}
        may_close = {*open_days_that_should_be_closed(lake, settings)}
        past = {day for day in with_messages if day < queries.today(settings, now)} - closed_days(lake)
        return Measures(
            now,
            {name: bytes_below(settings.lake / name) for name in SCHEMAS},
            bytes_below(store()) if "DAGSTER_STORE" in os.environ else 0,
            len(past | may_close),
            len(may_close),
        )


def bytes_below(folder: Path) -> int:
    """The bytes of the files of a folder and of those within it; 0 where there is none. Links are not followed."""
    found = 0
    try:
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                found += bytes_below(Path(entry.path))
            else:
                found += entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        pass  # it was removed meanwhile
    return found


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(measure(Settings())))
