"""`python -m bench.hour [--batches N]`: what a batch costs as its hour fills.

Belongs here: an hour's traffic, taken in a batch every 12 seconds of event time, with the checks of a run after each.
Doesn't: Kafka and Dagster, whose cost does not depend on the hour (__main__.py, freshness.py).

The last line is what the last batches cost over what the tenth and those after it cost.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from statistics import median

import pyarrow as pa

from bench.topic import OwnTopic
from notif_assets.kafka.client import Ranges, TopicOffsets, record_batch
from notif_assets.kafka.offsets import Log
from notif_assets.lake import Lake
from notif_assets.maintenance.compaction import OPEN_FILES, compact, merge_open_files
from notif_assets.notifications import audit, bronze, gold, silver
from notif_assets.sandbox.traffic import Message, messages
from notif_assets.settings import Settings

RATE = 1157  # messages a second: 100 million a day
SECONDS = 12  # of event time, a batch
PARTITIONS = 12
_AROUND = 5  # batches of which the median is taken
_SHOWN = 25


class Growing(OwnTopic):
    """A topic that grows by some messages at a time, of which the newest are kept: what a batch brings, and no more."""

    def __init__(self, start: int = 0) -> None:
        """One whose partitions held `start` records once, of which none is left."""
        super().__init__(PARTITIONS)
        self._start = start
        self._ends = dict.fromkeys(range(PARTITIONS), start)
        self._records: list[pa.RecordBatch] = []

    def grow(self, traffic: Iterator[Message]) -> None:
        """Deals the next messages, as many as a batch takes, round to the partitions."""
        values = [(message.value, message.timestamp) for message in islice(traffic, RATE * SECONDS)]
        partitions = [place % PARTITIONS for place in range(len(values))]
        offsets = []
        for partition in partitions:
            offsets.append(self._ends[partition])
            self._ends[partition] += 1
        batch = record_batch(
            partitions, offsets, [at for _, at in values], [None] * len(values), [value for value, _ in values]
        )
        self._records = [*self._records[-1:], batch]

    def offsets(self) -> TopicOffsets:
        """What it held in all."""
        return TopicOffsets("notifications", "an id", {p: Log(self._start, end) for p, end in self._ends.items()})

    def candidates(self, _: Ranges) -> Iterator[pa.RecordBatch]:
        """The newest records."""
        yield from self._records


def main() -> None:
    """Takes the batches of one hour, prints every 25th, and the ratio."""
    parser = argparse.ArgumentParser(prog="python -m bench.hour", description=__doc__)
    parser.add_argument("--batches", type=int, default=3600 // SECONDS)
    batches = parser.parse_args().batches
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    traffic, topic = messages(0, 5_000, start, RATE), Growing()
    spent: list[float] = []
    with tempfile.TemporaryDirectory(prefix="notif-assets-bench-") as folder, Lake(Path(folder) / "lake") as lake:
        settings = Settings(data=Path(folder))
        for number in range(batches):
            topic.grow(traffic)
            began = time.process_time()
            take(lake, topic, settings, start)
            spent.append(time.process_time() - began)
            if number % _SHOWN == 0 or number == batches - 1:
                print(f"batch {number:>4}: {spent[-1]:.2f} CPU-s", flush=True)
    if len(spent) < 2 * _AROUND + 10:
        sys.exit("too few batches for a ratio")
    print(f"ratio {median(spent[-_AROUND:]) / median(spent[10 : 10 + _AROUND]):.2f}")


def take(lake: Lake, topic: Growing, settings: Settings, now: datetime) -> None:
    """One batch through all tables, with the checks of a run, at a moment of the hour."""
    taken = bronze.advance_bronze_by_one(lake, topic, settings, "bench")
    assert taken is not None
    number = taken.batch.number
    for _ in silver.advance_silver(lake, settings):
        pass
    merge_open_files(lake, "notifications", now)
    findings = audit.offsets_taken_once(lake, number, number) + audit.repeated_in_hours(lake, number - 1)
    gold.advance_minutes(lake)
    findings += audit.minutes_that_differ(lake, number - 1)
    gold.advance_panel(lake, settings)
    compact(lake, "ingest_batches", now, fewest=OPEN_FILES)
    assert not findings, findings


if __name__ == "__main__":
    main()
