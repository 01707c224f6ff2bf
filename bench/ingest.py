"""One measured run: everything that is in the topic, through all tables, in this process.

Belongs here: the stages and their clocks. Doesn't: traffic and tables (stages.py). Prints JSON.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from bench.topic import OwnTopic
from notif_assets.kafka.client import KafkaClient, Ranges, TopicOffsets
from notif_assets.kafka.offsets import Log
from notif_assets.kafka.open import open_client
from notif_assets.lake import Lake
from notif_assets.notifications import bronze, gold, silver
from notif_assets.settings import Settings

T = TypeVar("T")
SOURCES = ("no Kafka", "confluent", "kafka-python")
STAGES = ("raw_notifications", "notifications + rejected_notifications", "minute_aggregates", "customer_panel")


class Stored(OwnTopic):
    """A topic in a file: what the tables cost by themselves. Messages were dealt round to the partitions."""

    def __init__(self, path: Path) -> None:
        self._file = pa.ipc.open_file(pa.OSFile(str(path)))  # not mapped: its pages would count as ours
        self._chunk = self._file.get_batch(0).num_rows
        last = self._file.get_batch(self._file.num_record_batches - 1)
        self._records = (self._file.num_record_batches - 1) * self._chunk + last.num_rows
        super().__init__(pc.max(self._file.get_batch(0)["kafka_partition"]).as_py() + 1)

    def offsets(self) -> TopicOffsets:
        """As many offsets in each partition as messages were dealt to it."""
        whole, rest = divmod(self._records, self.partitions)
        return TopicOffsets("notifications", None, {p: Log(0, whole + (p < rest)) for p in range(self.partitions)})

    def candidates(self, ranges: Ranges) -> Iterator[pa.RecordBatch]:
        """Offset n of every partition lies together, so equal ranges are one stretch of the file."""
        first = min(start for start, _ in ranges.values()) * self.partitions
        last = min(max(end for _, end in ranges.values()) * self.partitions, self._records)
        for index in range(first // self._chunk, -(-last // self._chunk)):
            yield self._file.get_batch(index)


def run(settings: Settings, client: KafkaClient) -> dict[str, dict[str, float]]:
    """Wall and CPU seconds of each stage, in runs of NOTIF_RUN_MESSAGES as the micro-batch job makes them."""
    spent = {stage: {"wall": 0.0, "cpu": 0.0} for stage in STAGES}

    def timed(stage: str, step: Callable[[], T]) -> T:
        wall, cpu = time.perf_counter(), time.process_time()
        result = step()
        spent[stage]["wall"] += time.perf_counter() - wall
        spent[stage]["cpu"] += time.process_time() - cpu
        return result

    with Lake(settings.lake, memory=settings.engine_memory) as lake, client:
        total, lag = 0, 1
        while lag:
            taken_in_run = 0
            while lag and taken_in_run < settings.run_messages:
                taken = timed(STAGES[0], lambda: bronze.advance_bronze_by_one(lake, client, settings, "bench"))
                assert taken is not None
                lag, taken_in_run, total = taken.batch.lag, taken_in_run + taken.records, total + taken.records
            timed(STAGES[1], lambda: list(silver.advance_silver(lake, settings)))
            timed(STAGES[2], lambda: gold.advance_minutes(lake))
            timed(STAGES[3], lambda: gold.advance_panel(lake, settings))
    spent["total"] = {clock: sum(spent[stage][clock] for stage in STAGES) for clock in ("wall", "cpu")}
    spent["total"] |= {"messages": total, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    return spent


if __name__ == "__main__":
    source, bootstrap, stored, root = sys.argv[1:]
    settings = Settings(
        lake_root=Path(root),
        kafka_bootstrap=bootstrap,
        kafka_client="auto" if source == "no Kafka" else source,
    )
    client: KafkaClient = Stored(Path(stored)) if source == "no Kafka" else open_client(settings)
    print(json.dumps(run(settings, client)))
