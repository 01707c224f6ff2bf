"""What is measured of a lake now and then, for /metrics: how large it is, which days are open.

Belongs here: what is known, and when it is measured. Doesn't: measuring it (measure_lake.py, a child: a look at every
file, and at tables that no page needs), starting children (children.py).
"""

import logging
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime, timedelta

from notif_assets.panel.children import NotRead, Readings, read_by_child

_KEPT = timedelta(minutes=15)
_log = logging.getLogger("notif_assets.panel")


@dataclass(frozen=True)
class Measures:
    """The bytes of all files of each table, also of those that no snapshot needs any more, and of Dagster's storage in
    files; the days before today that are open, and how many of them may close."""

    read_at: datetime
    table_bytes: dict[str, int]
    dagster_bytes: int
    open_days: int
    days_that_may_close: int


class LakeMeasures:
    """The measures of a quarter of an hour ago at most, if somebody asks often enough."""

    def __init__(self, executor: Executor) -> None:
        self._readings = Readings(executor, _measured)

    def last(self) -> Measures | None:
        """The newest measures; None until there are some. What is asked for here is measured soon, not now."""
        return self._readings.newest(_KEPT)[0]


def _measured() -> Measures:
    try:
        return read_by_child("notif_assets.panel.measure_lake", Measures)
    except NotRead as problem:
        _log.warning("the lake can't be measured: %s", problem)
        raise
