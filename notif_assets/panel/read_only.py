"""The lake as the panel reads it. Nothing is ever written.

Belongs here: which answers are kept between requests, and a lake at a moment. Doesn't: questions (queries.py).
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock

import pyarrow as pa

from notif_assets.lake import Lake, Scan, Table
from notif_assets.lake.engine import Input
from notif_assets.settings import Settings

_CACHED_RESULTS, _CACHED_BYTES = 512, 32 * 2**10  # how many, and of how many bytes


class ReadOnlyLake(Lake):
    """A lake whose short answers are kept: they stay right as long as they are asked of the same files, for a data file
    never changes.

    Questions are worked on by as many threads as there are processors: by more, none would be answered sooner, and the
    engine's allocator keeps memory for each thread that ever asked.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.lake, memory=settings.panel_memory)
        self._cache: OrderedDict[tuple[object, ...], pa.Table] = OrderedDict()
        self._answering = Lock()
        self._workers = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="lake")

    def close(self) -> None:
        """As of any lake."""
        self._workers.shutdown()
        super().close()

    def select(self, name: str, inputs: Mapping[str, Input], **parameters: object) -> pa.Table:
        """As in any lake."""
        scans = tuple((table, *_identity(scan)) for table, scan in inputs.items() if isinstance(scan, Scan))
        if len(scans) < len(inputs):
            return self._workers.submit(super().select, name, inputs, **parameters).result()
        key = (name, scans, tuple(parameters.items()))
        return self._cached(key, partial(super().select, name, inputs, **parameters))

    def rows(self, scan: Scan) -> pa.Table:
        """As in any lake."""
        return self._cached(_identity(scan), partial(super().rows, scan))

    def _cached(self, key: tuple[object, ...], ask: Callable[[], pa.Table]) -> pa.Table:
        with self._answering:
            known = self._cache.get(key)
            if known is not None:
                self._cache.move_to_end(key)
                return known
        # A long one too: an export holds it as long as its client takes to read.
        result = copied(self._workers.submit(ask).result())
        if result.nbytes <= _CACHED_BYTES:
            with self._answering:
                self._cache[key] = result
                while len(self._cache) > _CACHED_RESULTS:
                    self._cache.popitem(last=False)
        return result


class PinnedLake(Lake):
    """A lake at a moment: some of its tables as they were then, all others as they are."""

    def __init__(self, lake: Lake, tables: Mapping[str, Table]) -> None:
        self.root = lake.root
        self._lake, self._tables = lake, tables

    def close(self) -> None:
        """Nothing: the lake goes on."""

    def table(self, name: str) -> Table:
        """As in any lake."""
        return self._tables[name] if name in self._tables else self._lake.table(name)

    def select(self, name: str, inputs: Mapping[str, Input], **parameters: object) -> pa.Table:
        """As in any lake."""
        return self._lake.select(name, inputs, **parameters)

    def stream(
        self, name: str, inputs: Mapping[str, Input], rows: int = 20_000, **parameters: object
    ) -> Iterator[pa.RecordBatch]:
        """As in any lake."""
        return self._lake.stream(name, inputs, rows, **parameters)

    def rows(self, scan: Scan) -> pa.Table:
        """As in any lake."""
        return self._lake.rows(scan)


def copied(result: pa.Table) -> pa.Table:
    """A copy of the result in memory of its own size, for caching; the engine's has room for thousands of rows."""
    size = pa.MockOutputStream()
    _write(result, size)
    memory = pa.allocate_buffer(size.size())  # a stream that grows would take up to twice as much
    _write(result, pa.FixedSizeBufferWriter(memory))
    return pa.ipc.open_stream(memory).read_all()


def _write(result: pa.Table, out: pa.NativeFile) -> None:
    with pa.ipc.new_stream(out, result.schema) as stream:
        stream.write_table(result)


def _identity(scan: Scan) -> tuple[object, ...]:
    return scan.schema.name, scan.files, tuple(scan.bounds.items())
