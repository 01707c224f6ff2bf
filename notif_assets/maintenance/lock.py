"""One job of upkeep at a time: they rewrite the same files, and each would undo what the other had begun.

Belongs here: waiting for one's turn. Doesn't: keeping ingestion out, which needs no turn: its commits and those of
upkeep are compare-and-swaps.
"""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from notif_assets.lake import Lake, LakeError

Progress = Callable[[str], None]


def silent(_: str) -> None:
    """For callers that don't want to be told how far it is."""


@contextmanager
def turn(lake: Lake, progress: Progress) -> Iterator[None]:
    """Waits until no other job of upkeep is at work on this lake. A killed one's turn ends with its process.

    Where there is no lake yet there is nothing to rewrite, and none is begun.
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
