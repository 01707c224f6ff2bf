"""Reads Kafka in a thread while the previous batches pass through the other tables: two cores work instead of one.

Belongs here: the thread that reads, how far it may be ahead, how it ends. Doesn't: what a batch is (bronze.py), runs.

The commit protocol stays the same: raw_notifications is ahead of the tables after it, as between any two steps. If this
process dies, the next run continues from there.
"""

from collections import deque
from collections.abc import Iterator
from threading import Condition, Thread
from types import TracebackType
from typing import Self

from notif_assets.kafka.client import OpenClient
from notif_assets.lake import Lake
from notif_assets.notifications.bronze import BronzeAdvance, advance_bronze_by_one
from notif_assets.settings import Settings


class ReadAhead:
    """Takes batches for the runs of one process, one after the other; an AdvanceBronze.

    A run gets what is read by then, at most its share of NOTIF_RUN_MESSAGES. It waits until that is a quarter of its
    share, or all there is. Meanwhile the share of the run after it is read. An error is raised in the run that would
    have got the batch.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._thread: Thread | None = None
        self._ready: deque[BronzeAdvance] = deque()
        self._error: BaseException | None = None
        self._ended = self._stopped = False
        self._run_id = ""

    def __call__(self, lake: Lake, kafka: OpenClient, settings: Settings, run_id: str) -> Iterator[BronzeAdvance]:
        """The batches of one run. Raises as take_next_batch."""
        share = max(1, settings.run_messages // 2)
        self._run_id = run_id
        if self._thread is None:
            self._ended = False
            self._thread = Thread(target=self._read, args=(lake, kafka, settings, share), daemon=True)
            self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._held() >= share / 4 or self._ended, timeout=settings.run_seconds)
            ready = list(self._ready)
            self._ready.clear()
            error, self._error = self._error, None
            if self._ended:
                self._thread = None  # the next run looks again
            self._changed.notify_all()
        yield from ready
        if error is not None:
            raise error

    def _held(self) -> int:
        return sum(advance.records for advance in self._ready)

    def _read(self, lake: Lake, kafka: OpenClient, settings: Settings, share: int) -> None:
        error: BaseException | None = None
        try:
            with kafka() as client:
                while advance := advance_bronze_by_one(lake, client, settings, self._run_id):
                    with self._changed:
                        self._ready.append(advance)
                        self._changed.notify_all()
                        if not advance.batch.lag:
                            break
                        self._changed.wait_for(lambda: self._held() < share or self._stopped)
                        if self._stopped:
                            break
        except BaseException as raised:
            error = raised
        with self._changed:
            self._error, self._ended = error, True
            self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends after the batch that is being read."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
