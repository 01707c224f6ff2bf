"""Signals that ask this process to end.

Belongs here: recording them. Doesn't: ending anything.
"""

import os
import select
import signal
import time
from types import FrameType, TracebackType
from typing import Any, Self


class Signals:
    """While it is open, the signals given are noted instead of obeyed. Main thread only, as signals need.

    A handler may interrupt itself, and the main thread in any function. So it must not take a lock, as threading.Event
    does. It adds to a list, and the interpreter writes a byte to a pipe, which wakes the waiting thread.
    """

    def __init__(self, *numbers: signal.Signals) -> None:
        """Notes these signals; by default SIGINT and SIGTERM."""
        self._came: list[int] = []
        self._woken, self._wakes = os.pipe()
        os.set_blocking(self._wakes, False)
        self._wakeup_before = signal.set_wakeup_fd(self._wakes, warn_on_full_buffer=False)
        self._before: dict[signal.Signals, Any] = {
            number: signal.signal(number, self._note) for number in numbers or (signal.SIGINT, signal.SIGTERM)
        }

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._came.append(number)

    @property
    def count(self) -> int:
        """How many signals arrived."""
        return len(self._came)

    def is_set(self) -> bool:
        """Whether a signal arrived. Any thread may ask."""
        return bool(self._came)

    def wait(self, seconds: float | None = None) -> bool:
        """Waits for a signal, at most `seconds` (None: without a limit); True if one arrived. Main thread only."""
        woken = select.poll()
        woken.register(self._woken, select.POLLIN)
        end = None if seconds is None else time.monotonic() + seconds
        while not self._came:
            if not woken.poll(None if end is None else max(0, end - time.monotonic()) * 1000):
                break
            os.read(self._woken, 4096)  # a signal with another handler also wakes this pipe
        return self.is_set()

    def close(self) -> None:
        """Restores the handlers that these signals had before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._wakes)
        os.close(self._woken)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
