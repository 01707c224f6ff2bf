"""How far the serving copy is, as of a moment ago, for /metrics.

Belongs here: when the copy is asked. Doesn't: what is asked of it (serving/copying.py), names of numbers (metrics.py).
"""

import logging
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from notif_assets.panel.children import Readings
from notif_assets.serving.copying import counted_until
from notif_assets.serving.postgres import ServingRefused, ServingUnavailable
from notif_assets.settings import Settings

_KEPT = timedelta(minutes=1)
_log = logging.getLogger("notif_assets.panel")


@dataclass(frozen=True)
class CopyState:
    """Whether the copy could be read, and up to when it counts everything (None: unknown, or nothing was copied)."""

    read_at: datetime
    readable: bool
    counted_until: datetime | None = None


class ServingCopy:
    """The copy's state of a minute ago at most, if somebody asks often enough."""

    def __init__(self, executor: Executor, settings: Settings) -> None:
        self._is_set = settings.serving_url is not None
        self._readings = Readings(executor, lambda: read_copy(settings))

    def last(self) -> CopyState | None:
        """The newest state; None until there is one, and where there is no copy."""
        return self._readings.newest(_KEPT)[0] if self._is_set else None


def read_copy(settings: Settings) -> CopyState:
    """Asks PostgreSQL now."""
    try:
        until = counted_until(settings)
    except (ServingRefused, ServingUnavailable) as problem:
        _log.warning("the serving copy can't be read: %s", problem)
        return CopyState(datetime.now(UTC), readable=False)
    return CopyState(datetime.now(UTC), readable=True, counted_until=until)
