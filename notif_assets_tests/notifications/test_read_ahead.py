"""Reading ahead: every batch is given to one run, in order, and never much more is read than the next run takes."""

from collections.abc import Iterator
from pathlib import Path
from threading import Semaphore, active_count
from typing import Any

import pyarrow as pa
import pytest

from notif_assets.kafka.client import KafkaError, Ranges
from notif_assets.lake import Lake
from notif_assets.notifications.read_ahead import ReadAhead
from notif_assets.settings import Settings
from notif_assets_tests.cli.deployment import until
from notif_assets_tests.streams import NOON, MemoryLog, sent


class Log(MemoryLog):
    """A topic whose reads fail, or wait, when a test says so."""

    fails = False
    may_read = Semaphore(1_000_000)

    def read(self, ranges: Ranges) -> Iterator[pa.RecordBatch]:
        """As MemoryLog, unless it fails."""
        if self.fails:
            raise KafkaError("no broker")
        self.may_read.acquire()
        yield from super().read(ranges)


@pytest.fixture
def topic() -> Log:
    log = Log(2)
    for number in range(100):
        log.produce(sent(NOON, message_id=str(number)), partition=number % 2)
    return log


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with Lake(tmp_path / "lake") as lake:
        yield lake


SETTINGS = Settings(batch_messages=10, run_messages=40)  # a run takes two batches, and two are read meanwhile


def numbers(ahead: ReadAhead, lake: Lake, topic: Any) -> list[int]:
    """The batches of one run."""
    return [taken.batch.number for taken in ahead(lake, lambda: topic, SETTINGS, "run")]


def until_read(ahead: ReadAhead, batches: int) -> None:
    """Waits until so many batches are ready for the next run; they are committed some moments before."""
    until(lambda: ahead._held() == batches * SETTINGS.batch_messages, "what the next run takes")


def test_each_run_gets_its_share_and_the_next_is_read_meanwhile(lake: Lake, topic: Log) -> None:
    with ReadAhead() as ahead:
        given: list[int] = []
        while len(given) < 10:
            some = numbers(ahead, lake, topic)
            given += some
            most = min(10, len(given) + 2)
            until_read(ahead, most - len(given))
            assert lake.table("raw_notifications").watermark == most
            assert len(some) == 2 or given == [1] or given[-1] == 10  # the first run begins with a quarter
        assert given == list(range(1, 11))
        assert numbers(ahead, lake, topic) == []  # all is read
        topic.produce(sent(NOON, message_id="later"))
        assert numbers(ahead, lake, topic) == [11]
    assert {row["run_id"] for row in lake.rows(lake.table("ingest_batches").scan()).to_pylist()} == {"run"}


def test_an_error_is_raised_in_the_run_that_would_have_got_the_batch(lake: Lake, topic: Log) -> None:
    with ReadAhead() as ahead:
        begun = numbers(ahead, lake, topic)
        read = len(begun) + 2
        until_read(ahead, 2)
        assert lake.table("raw_notifications").watermark == read
        topic.fails = True
        assert begun + numbers(ahead, lake, topic) == list(range(1, read + 1))
        with pytest.raises(KafkaError, match="no broker"):
            numbers(ahead, lake, topic)
        topic.fails = False
        assert numbers(ahead, lake, topic)[0] == read + 1


def test_a_run_begins_with_a_quarter_of_its_share(lake: Lake, topic: Log) -> None:
    topic.may_read = Semaphore(2)
    with ReadAhead() as ahead:
        settings = SETTINGS.model_copy(update={"run_messages": 160})
        assert [taken.batch.number for taken in ahead(lake, lambda: topic, settings, "run")] == [1, 2]
        topic.may_read.release(100)


def test_who_ends_waits_for_the_batch_that_is_being_read(lake: Lake, topic: Log) -> None:
    threads = active_count()
    with ReadAhead() as ahead:
        assert numbers(ahead, lake, topic)[0] == 1
    assert active_count() == threads
    assert lake.table("raw_notifications").watermark <= 4
    with ReadAhead() as again:  # and another process goes on
        first = lake.table("raw_notifications").watermark + 1
        assert numbers(again, lake, topic)[0] == first
