"""The lock of maintenance: its jobs rewrite the same files, so they run one at a time.

Belongs here: waiting for the lock. Doesn't: ingestion, which needs no lock: its commits and those of maintenance are
compare-and-swaps.
"""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from notif_assets.lake import Lake, LakeError

Progress = Callable[[str], None]


def ignore_progress(_: str) -> None:
    """A progress callback that does nothing."""


@contextmanager
def maintenance_lock(lake: Lake, progress: Progress) -> Iterator[None]:
    """Waits until no other maintenance job runs on this lake. The lock of a killed job ends with its process.

    Without a lake there is nothing to rewrite, and none is created.
    """
    try:
        lock = (lake.root / ".upkeep.lock").open("w")
    except FileNotFoundError:
        yield
        return
    except OSError as error:
        raise LakeError(f"the lake {lake.root} can't be written: {error.strerror}; see NOTIF_LAKE") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another job of upkeep to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
