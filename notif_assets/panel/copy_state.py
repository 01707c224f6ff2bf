"""How far the serving copy is, as of a moment ago, for /metrics.

Belongs here: when the copy is asked. Doesn't: what is asked of it (serving/copying.py), names of numbers (metrics.py).
"""

import logging
from concurrent.futures import Executor
from datetime import timedelta

from notif_assets.panel.children import Readings
from notif_assets.serving.copying import CopyState, read_state
from notif_assets.settings import Settings

_KEPT = timedelta(minutes=1)
_log = logging.getLogger("notif_assets.panel")


class ServingCopy:
    """The copy's state of a minute ago at most, if somebody asks often enough."""

    def __init__(self, executor: Executor, settings: Settings) -> None:
        self._is_set = settings.serving_url is not None
        self._readings = Readings(executor, lambda: _read(settings))

    def last(self) -> CopyState | None:
        """The newest state; None until there is one, and where there is no copy."""
        return self._readings.newest(_KEPT)[0] if self._is_set else None


def _read(settings: Settings) -> CopyState:
    state = read_state(settings)
    if state.problem:
        _log.warning("the serving copy can't be read: %s", state.problem)
    return state
