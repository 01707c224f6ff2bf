"""One table: a handle on one snapshot, and commits against exactly that snapshot.

Belongs here: the commit protocol's last step. A commit is rows plus the table's watermark (a Delta application
transaction) in one Delta version, as a compare-and-swap: it succeeds only if no commit came since the handle was
opened. Doesn't: what to do after a lost race (the caller opens a new handle), how rows are computed (engines).
"""

import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from notif_assets.errors import Unavailable
from notif_assets.lake.catalogue import Column, Schema

Value = int | str | date | datetime
Bounds = tuple[Value | None, Value | None]

_BIGINT = range(-(2**63), 2**63)

# Reader 1 / writer 2 and no table features: what every Delta reader can read.
_PROPERTIES = {
    "delta.enableDeletionVectors": "false",
    "delta.checkpointPolicy": "classic",
    # A process reads the log from the newest checkpoint on: 0.09 CPU-seconds for 100 batches, 0.64 for 1,000.
    "delta.checkpointInterval": "100",
    # Each checkpoint lists every file there is, and 72 are written a day: those of a week would be 25 GB after a year.
    "delta.logRetentionDuration": "interval 1 days",
}
# Delta statistics keep milliseconds, and a maximum may have lost its microseconds.
_STATISTICS_PRECISION = timedelta(milliseconds=1)


# In a commit's commitInfo: what its log entry ends with ("txn", the watermark) or how many lines it has.
_ENTRY = "entry"

# What delta-rs calls the statistics of a file, and what they are called in the log.
_STATISTICS = {"min": "minValues", "max": "maxValues", "null_count": "nullCount"}

# delta-rs takes a path for a URL, DuckDB takes it for a pattern.
_MISREAD = frozenset("%?*[]")


class LakeError(Unavailable):
    """The lake can't be used as it is; the message says why and what to do."""


class OutOfMemory(LakeError):
    """A step needs more memory than it may have, or than there is: nothing is wrong with the lake."""


class LostRace(Exception):
    """Another process committed to the table since its handle was opened; open it again and look."""


@dataclass(frozen=True)
class Scan:
    """Rows of one snapshot: the files that may hold them, and the bounds [low, high) that each row satisfies.

    `partition_values` has one list per partition column, aligned with `files`, taken from the Delta log.
    `rows_at_most` counts the rows of the files, whatever the bounds leave of them; a part of a scan keeps the whole's.
    `with_places`: SQL sees two more columns, `file`, a place in `files`, and `row`, a place within that file, so that a
    value that is too large to sort is fetched afterwards (`values_at` in pieces.py).
    """

    schema: Schema
    files: tuple[str, ...]
    partition_values: Mapping[str, tuple[Value, ...]]
    bounds: Mapping[str, Bounds]
    rows_at_most: int
    with_positions: bool = False

    @property
    def partitions(self) -> set[tuple[Any, ...]]:
        """The partitions of the files."""
        return set(zip(*self.partition_values.values(), strict=True))

    def within(self, partitions: Collection[tuple[Value, ...]]) -> "Scan":
        """The part of it in these partitions, which costs less than another scan of the table."""
        in_order = enumerate(zip(*self.partition_values.values(), strict=True))
        return self._part([index for index, partition in in_order if partition in partitions])

    def without(self, files: Collection[str]) -> "Scan":
        """The part of it in other files than these."""
        return self._part([index for index, file in enumerate(self.files) if file not in files])

    def _part(self, indices: Sequence[int]) -> "Scan":
        return replace(
            self,
            files=tuple(self.files[index] for index in indices),
            partition_values={
                column: tuple(values[index] for index in indices) for column, values in self.partition_values.items()
            },
        )


@dataclass(frozen=True)
class DataFile:
    """A data file in the table's folder: `path` within it, `statistics` as the Delta log keeps them (JSON)."""

    path: str
    partition: tuple[Value, ...]
    rows: int
    size: int
    statistics: str

    def bounds(self, column: str) -> tuple[Any, Any]:
        """The smallest and the greatest value of the column, as JSON has them; None where it isn't told."""
        statistics = json.loads(self.statistics)
        return statistics["minValues"].get(column), statistics["maxValues"].get(column)


class Snapshot:
    """One version of a table, read from its log. Nothing changes what it tells, so handles and threads may share it."""

    def __init__(self, delta: DeltaTable, entry: Path, table: str, **facts: Any) -> None:
        """The version that the log entry `entry` made. `delta` stands there or, after a commit, one version before.

        `told` is what is known of it already: after a commit mostly nothing else is asked.
        """
        self.version = int(entry.stem)
        self._delta: DeltaTable | None = delta
        self._entry, self._table = entry, table
        self._file = _identity(entry)
        self._facts = facts
        self._lock = Lock()

    @property
    def is_newest(self) -> bool:
        """Whether the log still ends with it; costs microseconds. Not if log clean-up took its entry: then look.

        The entry must be the file that was read: one that is moved away and written again has the same version.
        """
        following = self._entry.with_name(f"{self.version + 1:020}.json")
        return self._file is not None and self._file == _identity(self._entry) and not following.exists()

    @property
    def watermark(self) -> int | None:
        """The table's watermark; None where the log has none."""
        watermark: int | None = self._read_once("watermark", lambda delta: delta.transaction_version(self._table))
        return watermark

    @property
    def properties(self) -> Mapping[str, str | None]:
        """Its Delta properties."""
        properties: Mapping[str, str | None] = self._read_once(
            "properties", lambda delta: delta.metadata().configuration
        )
        return properties

    @property
    def columns(self) -> set[str]:
        """The names of its columns, as the log has them."""
        columns: set[str] = self._read_once("columns", lambda delta: {field.name for field in delta.schema().fields})
        return columns

    @property
    def files(self) -> pa.Table:
        """See Table.files."""
        return self._read_once("files", lambda delta: pa.table(delta.get_add_actions(flatten=True)))

    def _read_once(self, fact: str, read: Callable[[DeltaTable], Any]) -> Any:
        with self._lock:
            if fact not in self._facts:
                if self._delta is None:  # it went on to another version
                    self._delta = DeltaTable(str(self._entry.parent.parent), version=self.version)
                self._facts[fact] = read(self._load_version(self._delta))
            return self._facts[fact]

    def _load_version(self, delta: DeltaTable) -> DeltaTable:
        if delta.version() < self.version:
            delta.update_incremental()
        if delta.version() != self.version:  # a later commit moved it
            delta.load_as_version(self.version)
        return delta

    def release_delta(self) -> DeltaTable | None:
        """The table as it was read, for one commit, which takes it to the next version; None the second time.

        Reading it again costs as much as the table has files. What the snapshot may be asked for still is told from
        here on by what was read before, or by reading the version again.
        """
        with self._lock:
            delta, self._delta = self._delta, None
            return None if delta is None else self._load_version(delta)


class Table:
    """A handle on one snapshot of one table. After a commit it stands on the version it wrote.

    A table that nobody has written yet reads as an empty one, and is created by the first commit: a reader needs
    no right to write, and creates nothing.
    """

    def __init__(self, root: Path, schema: Schema, newest: dict[str, Snapshot] | None = None) -> None:
        """Opens the newest snapshot, or takes that of `newest`, where handles leave theirs by the table's name.

        Raises LakeError if it can't be opened, or if another tool gave the table features we don't write.
        """
        self.schema = schema
        self.path = root / schema.name
        if _MISREAD & set(str(self.path.absolute())):
            raise LakeError(f"the lake {root} can't be used: choose a NOTIF_LAKE without {' '.join(sorted(_MISREAD))}")
        self._newest = {} if newest is None else newest
        self.snapshot = self._newest.get(schema.name)
        if self.snapshot is None or not self.snapshot.is_newest:
            delta = self._opened()
            self.snapshot = None if delta is None else self._share_snapshot(delta)

    def _opened(self) -> DeltaTable | None:
        """The table at its newest version; None if it was never written."""
        name, root = self.schema.name, self.path.parent
        try:
            delta = DeltaTable(str(self.path))
        except TableNotFoundError:
            if any(self.path.rglob("*.parquet")):
                if self._log_entry(0).exists():  # somebody created and wrote it since
                    return self._opened()
                raise LakeError(
                    f"table {name} in {root} has data files but no _delta_log: restore that from a backup, or "
                    "move the folder away if the table may begin anew"
                ) from None
            return None
        except (DeltaError, OSError) as error:
            for entry in sorted((self.path / "_delta_log").glob("[0-9]*.json"), reverse=True):
                self._require_whole(entry)  # which says more
            raise LakeError(f"table {name} in {root} can't be opened: {_one_line(error)}") from error
        self._require_whole(self._log_entry(delta.version()))
        protocol = delta.protocol()
        if (protocol.min_reader_version, protocol.min_writer_version) != (1, 2):
            raise LakeError(
                f"table {name} asks for reader {protocol.min_reader_version} / writer "
                f"{protocol.min_writer_version}; it must stay at reader 1 / writer 2, so that every engine can use it"
            )
        return delta

    def _share_snapshot(self, delta: DeltaTable, version: int | None = None, **facts: Any) -> Snapshot:
        """The snapshot at which `delta` stands, or which it just committed as `version`: handles share it."""
        name, version = self.schema.name, delta.version() if version is None else version
        self._newest[name] = snapshot = Snapshot(delta, self._log_entry(version), name, **facts)
        return snapshot

    def create(self) -> None:
        """Creates the table, empty, unless it exists.

        Raises LostRace if somebody committed to it since: this handle saw it without rows. Raises LakeError.
        """
        if self.snapshot is None:
            created = self._created()
            if created.version():
                raise LostRace(self.schema.name)
            self.snapshot = self._share_snapshot(created)

    @property
    def _properties(self) -> dict[str, str]:
        return {
            **_PROPERTIES,
            "delta.deletedFileRetentionDuration": f"interval {self.schema.retention.days} days",
            "delta.dataSkippingStatsColumns": ",".join(self.schema.statistics),
        }

    def _created(self) -> DeltaTable:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LakeError(
                f"the lake {self.path.parent} can't be written: {error.strerror}; see NOTIF_LAKE"
            ) from error
        try:
            # Two processes may create it at once. A process that finds the table returns; one that loses the race gets
            # CommitFailedError. A retry would write a second version without a watermark.
            with suppress(CommitFailedError):
                DeltaTable.create(
                    str(self.path),
                    schema=self.schema.arrow,
                    mode="ignore",
                    name=self.schema.name,
                    description=self.schema.meaning,
                    partition_by=list(self.schema.partition_by),
                    configuration=dict(self._properties),
                    commit_properties=self._compare_and_swap([], None, entry="metaData"),
                )
            return DeltaTable(str(self.path))
        except (DeltaError, OSError) as error:
            raise LakeError(f"table {self.schema.name} could not be created: {_one_line(error)}") from error

    def _require_whole(self, entry: Path) -> None:
        """Raises LakeError if a log entry is not as it was committed: an empty one would pass for a commit of nothing,
        and one that lacks its last line for rows that no batch brought. Raises it for a RESTORE too, which takes rows
        away and leaves the watermark where it is."""
        try:
            data = entry.read_bytes()
        except FileNotFoundError:  # log clean-up took it: there is a checkpoint
            return
        except OSError as error:
            raise LakeError(f"table {self.schema.name}: {entry} can't be read: {error.strerror}") from error
        later = (entry.parent / f"{int(entry.stem) + 1:020}.json").exists()
        if _is_restore(data):
            raise LakeError(
                f"table {self.schema.name}: its log entry {entry} is a RESTORE by another tool, which takes rows and "
                "not the watermark, so that batches would be missing; "
                + (
                    "restore the table's _delta_log from a backup, for later entries stand on it"
                    if later
                    else "move that file away, and the table is as it was before"
                )
            )
        if not _is_whole(data):
            raise LakeError(
                f"table {self.schema.name}: its log entry {entry} is cut off, as by a power cut before it was on the "
                "disk; "
                + (
                    "restore the table's _delta_log from a backup, for later entries stand on it"
                    if later
                    else "move that file away, and what it held is done again by the next run, command or import"
                )
            )

    def require_whole_log(self) -> None:
        """Raises LakeError if any of the log entries that the snapshot is read from is not as it was committed."""
        entry = self._log_entry(self.version)
        while entry.exists() and not entry.with_suffix(".checkpoint.parquet").exists():
            self._require_whole(entry)
            entry = self._log_entry(int(entry.stem) - 1) if int(entry.stem) else entry.parent / "before the first"

    def _log_entry(self, version: int) -> Path:
        return self.path / "_delta_log" / f"{version:020}.json"

    @property
    def version(self) -> int:
        """The Delta version of the snapshot; -1 for a table that was never written."""
        return -1 if self.snapshot is None else self.snapshot.version

    def at(self, version: int) -> "Table":
        """A handle on an older version, to be read only. Raises LakeError if log clean-up has taken it."""
        older = copy(self)
        older._newest = {}
        try:
            delta = None if version < 0 else DeltaTable(str(self.path), version=version)
        except (DeltaError, OSError) as error:
            raise LakeError(f"table {self.schema.name}: its version {version} can't be read any more") from error
        older.snapshot = None if delta is None else older._share_snapshot(delta)
        return older

    @property
    def superseded(self) -> bool:
        """Whether the log no longer ends with the snapshot; costs microseconds."""
        return self._log_entry(0).exists() if self.snapshot is None else not self.snapshot.is_newest

    @property
    def watermark(self) -> int:
        """How far the table is: the newest batch, or commit, that it holds; 0 for a table without history.

        Raises LakeError if the table has a history but no watermark: then nothing can be said, least of all 0.
        """
        if self.snapshot is None:
            return 0
        if self.snapshot.watermark is not None:
            return self.snapshot.watermark
        if self.version == 0:
            return 0
        raise LakeError(f"table {self.schema.name} has a history but no watermark: restore its _delta_log")

    def append(self, rows: pa.Table, batch: int | None = None, note: Mapping[str, Any] | None = None) -> None:
        """Adds rows and moves the watermark to `batch` (default: one more), in one commit. Zero rows commit too.

        `note` goes into the commit's userMetadata, for people. Raises LostRace, also if the table has `batch` already.
        """
        self._write(rows, batch, note, mode="append", predicate=None)

    def replace(
        self, rows: pa.Table, where: str | None, batch: int | None = None, note: Mapping[str, Any] | None = None
    ) -> None:
        """Replaces the rows that satisfy `where` (None: all) by `rows`, which must satisfy it too; else as append."""
        self._write(rows, batch, note, mode="overwrite", predicate=where)

    def add_columns(self, columns: Collection[Column]) -> None:
        """Adds those of the columns that the table does not have yet; they are null in its rows. Raises LostRace."""
        if self.snapshot is None:  # it will be created with them
            return
        missing = [column for column in columns if column.name not in self.snapshot.columns]
        if missing:
            fields = DeltaSchema.from_arrow(pa.schema([pa.field(c.name, c.type, True) for c in missing])).fields
            with self._committing() as delta:
                properties = self._compare_and_swap([], None, entry="metaData")
                delta.alter.add_columns(fields, commit_properties=properties)

    def set_properties(self) -> None:
        """Gives the table the properties that the catalogue has for it now. Raises LostRace."""
        if self.snapshot is None:  # it will be created with them
            return
        changed = {
            name: value for name, value in self._properties.items() if self.snapshot.properties.get(name) != value
        }
        if changed:
            with self._committing() as delta:
                properties = self._compare_and_swap([], None, entry="metaData")
                delta.alter.set_table_properties(changed, commit_properties=properties)

    def _write(
        self, rows: pa.Table, batch: int | None, note: Mapping[str, Any] | None, mode: Any, predicate: str | None
    ) -> None:
        rows = self.schema.complete(rows).select(self.schema.arrow.names)
        rows = rows.cast(self.schema.arrow)  # refuses nulls where none may be
        properties = self._commit_properties(batch, note)
        with self._committing() as delta:
            write_deltalake(
                delta,
                rows,
                mode=mode,
                predicate=predicate,
                writer_properties=self._writer_properties(),
                commit_properties=properties,
                post_commithook_properties=PostCommitHookProperties(cleanup_expired_logs=False),
            )

    def _writer_properties(self) -> WriterProperties:
        whole = ColumnProperties(dictionary_enabled=False, statistics_enabled="NONE")
        return WriterProperties(
            compression="ZSTD",
            compression_level=1,
            column_properties=dict.fromkeys(sorted(self.schema.large), whole) or None,
        )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Tells that files can't be written or read as the lake's error."""
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise LakeError(f"table {self.schema.name} could not be written: {_one_line(error)}") from error

    @contextmanager
    def _committing(self, facts: Mapping[str, Any] | None = None) -> Iterator[DeltaTable]:
        """The table itself to commit through, at the version of the snapshot; then goes on to the one that was written.

        With `told`, what is known of it, that is one version further, which the table itself does not notice. Tells a
        lost race from a commit that failed by itself (disk full, no permission).
        """
        self.create()
        if self.superseded:
            raise LostRace(self.schema.name)
        try:
            # For this commit alone: it moves, and a snapshot must not.
            delta = (self.snapshot.release_delta() if self.snapshot else None) or self._opened()
            if delta is None or delta.version() != self.version:
                raise LostRace(self.schema.name)
            yield delta
            if facts is None:
                self.snapshot = self._share_snapshot(delta)
            else:
                self.snapshot = self._share_snapshot(delta, self.version + 1, **facts)
        except CommitFailedError as error:
            if DeltaTable(str(self.path)).version() > self.version:
                raise LostRace(self.schema.name) from error
            raise LakeError(f"table {self.schema.name} could not be written: {_one_line(error)}") from error
        except (DeltaError, OSError) as error:
            raise LakeError(f"table {self.schema.name} could not be written: {_one_line(error)}") from error

    def _commit_properties(self, batch: int | None, note: Mapping[str, Any] | None) -> CommitProperties:
        watermark = self.watermark
        batch = watermark + 1 if batch is None else batch
        if batch <= watermark:
            raise LostRace(self.schema.name)  # somebody committed it before this handle was opened
        return self._compare_and_swap([Transaction(self.schema.name, batch)], note, entry="txn")

    def _compare_and_swap(
        self, watermark: list[Transaction], note: Mapping[str, Any] | None, entry: str
    ) -> CommitProperties:
        return CommitProperties(
            app_transactions=watermark,
            max_commit_retries=0,  # compare-and-swap: an append must not be replayed onto a snapshot it never saw
            custom_metadata={"userMetadata": json.dumps(dict(note or {})), _ENTRY: entry},
        )

    def swap(
        self,
        old: Collection[DataFile],
        new: Collection[DataFile],
        batch: int | None = None,
        *,
        same_rows: bool = False,
        note: Mapping[str, Any] | None = None,
    ) -> None:
        """Takes the files `old` out and the files `new`, which lie in the table's folder already, in: one commit.

        The watermark stays where it is unless `batch` moves it. `same_rows` tells consumers of the change feed that
        no row changed. Raises LostRace, also if one of `old` is no longer in the snapshot.
        """
        if old and not self._has([file.path for file in old]):
            raise LostRace(self.schema.name)
        now = time.time_ns() // 1_000_000
        removed = [RemoveAction(f.path, not same_rows, now, f.size, self._partition_values(f)) for f in old]
        added = [AddAction(f.path, f.size, self._partition_values(f), now, not same_rows, f.statistics) for f in new]
        lines = str(1 + len(removed) + len(added))
        properties = self._compare_and_swap([], note, lines) if batch is None else self._commit_properties(batch, note)
        facts: dict[str, Any] = {"watermark": self.watermark if batch is None else batch}
        if (files := _files_after_swap(self.files(), old, new, self.schema.partition_by, now)) is not None:
            facts["files"] = files
        with self._committing(facts) as delta:
            delta.create_write_transaction(
                [*removed, *added],
                mode="append",
                schema=self.schema.arrow,
                partition_by=list(self.schema.partition_by),
                commit_properties=properties,
                post_commithook_properties=PostCommitHookProperties(cleanup_expired_logs=False),
            )

    def _has(self, paths: list[str]) -> bool:
        files = self.files()
        return bool(files.num_rows) and bool(pc.all(pc.is_in(pa.array(paths), value_set=files["path"])).as_py())

    def _partition_values(self, file: DataFile) -> dict[str, str | None]:
        return dict(zip(self.schema.partition_by, map(str, file.partition), strict=True))

    def changed_since(self, moment: datetime) -> bool:
        """Whether a data file of the snapshot was written at `moment` or later."""
        return bool(self._written_since(moment).num_rows)

    def partitions_changed_since(self, moment: datetime) -> set[tuple[Value, ...]]:
        """The partitions with a data file that was written at `moment` or later."""
        files = self._written_since(moment)
        return set(self._partitions(files)) if files.num_rows else set()

    def _written_since(self, moment: datetime) -> pa.Table:
        files = self.files()
        if not files.num_rows:
            return files
        return files.filter(pc.greater_equal(files["modification_time"], int(moment.timestamp() * 1000)))

    def vacuum(self) -> int:
        """Deletes data files that have belonged to no snapshot for the table's retention; gives how many."""
        if self.snapshot is None:
            return 0
        with self._committing() as delta:
            gone = delta.vacuum(
                dry_run=False,
                full=True,
                post_commithook_properties=PostCommitHookProperties(cleanup_expired_logs=False),
            )
        return len(gone)

    def clean_log(self, *, checkpoint: bool = True) -> int:
        """Writes a checkpoint and deletes what is a day old of the log and needless by it; gives how many entries.

        Without `checkpoint`, what the newest one that there is has made needless.
        """
        if self.snapshot is None:
            return 0
        log = self.path / "_delta_log"
        with self._committing() as delta:
            if checkpoint and self.version and not (log / f"{self.version:020}.checkpoint.parquet").exists():
                delta.create_checkpoint()
            before = {entry.name for entry in log.iterdir()}
            delta.cleanup_metadata()
            return len(before - {entry.name for entry in log.iterdir()})

    def scan(self, partitions: Collection[tuple[Value, ...]] | None = None, **bounds: Bounds) -> Scan:
        """The snapshot's rows with low <= column < high for each bound (None: open), within `partitions` if given.

        Files whose statistics exclude a bound are not read.
        """
        files = self._possible(self.files(), bounds)
        return self._scan_of(files if partitions is None else self._of_partitions(files, partitions), bounds)

    def _possible(self, files: pa.Table, bounds: Mapping[str, Bounds]) -> pa.Table:
        """Those of the files whose statistics leave room for a row within the bounds."""
        if not files.num_rows:
            return files
        keep = pa.repeat(True, files.num_rows)
        by = self.schema.partition_by
        for column, (low, high) in bounds.items():
            edges = [f"partition.{column}"] * 2 if column in by else [f"min.{column}", f"max.{column}"]
            if edges[0] not in files.column_names:
                continue
            smallest, largest = (files[edge] for edge in edges)
            if low is not None:
                reach = low - _STATISTICS_PRECISION if isinstance(low, datetime) else low
                keep = pc.and_(keep, pc.fill_null(pc.greater_equal(largest, pa.scalar(reach, largest.type)), True))
            if high is not None:
                keep = pc.and_(keep, pc.fill_null(pc.less(smallest, pa.scalar(high, smallest.type)), True))
        return files.filter(keep)

    def scan_beside(self, other: "Table") -> Scan:
        """The rows of the data files that another version of the table does not have."""
        files, other_files = self.files(), other.files()
        if files.num_rows and other_files.num_rows:
            known = pc.is_in(files["path"], value_set=other_files["path"])
            files = files.filter(pc.invert(known))
        return self._scan_of(files, {})

    def scan_holding(
        self, column: str, wanted: Mapping[tuple[Value, ...], npt.NDArray[np.int64]], **bounds: Bounds
    ) -> Scan:
        """The rows of the partitions `wanted` in files that may hold one of the values given for their partition.

        A file whose smallest and greatest `column` enclose none of them is not read: of old hours that means most.
        `bounds` as in scan.
        """
        files = self._of_partitions(self._possible(self.files(), bounds), wanted)
        if not files.num_rows:
            return self.scan_files([], **bounds)
        sorted_values = {partition: np.unique(values) for partition, values in wanted.items()}
        lows, highs = (files[f"{bound}.{column}"].to_pylist() for bound in ("min", "max"))
        keep = pa.array(
            [
                low is None or _any_between(sorted_values[partition], low, high)
                for partition, low, high in zip(self._partitions(files), lows, highs, strict=True)
            ]
        )
        return self._scan_of(files.filter(keep), bounds)

    def _of_partitions(self, files: pa.Table, partitions: Collection[tuple[Value, ...]]) -> pa.Table:
        """Those of the files that lie in the partitions. There may be a hundred thousand, of which few do: only these
        become Python's."""
        by = self.schema.partition_by
        if not files.num_rows or not by:
            return files
        for index, column in enumerate(by):
            of_files = files[f"partition.{column}"]
            values = pa.array({partition[index] for partition in partitions}, of_files.type)
            files = files.filter(pc.is_in(of_files, value_set=values))
        return files.filter(pa.array([partition in partitions for partition in self._partitions(files)], pa.bool_()))

    def _partitions(self, files: pa.Table) -> Iterator[tuple[Value, ...]]:
        return zip(*(files[f"partition.{column}"].to_pylist() for column in self.schema.partition_by), strict=True)

    def _scan_of(self, files: pa.Table, bounds: Mapping[str, Bounds]) -> Scan:
        if not files.num_rows:
            return self.scan_files([], **bounds)
        return Scan(
            self.schema,
            tuple(f"{self.path}/{name}" for name in files["path"].to_pylist()),
            {column: tuple(files[f"partition.{column}"].to_pylist()) for column in self.schema.partition_by},
            bounds,
            sum(files["num_records"].to_pylist()),
        )

    def scan_files(self, files: Collection[DataFile], **bounds: Bounds) -> Scan:
        """The rows of these files, which need not be in the snapshot; bounds as in scan."""
        return Scan(
            self.schema,
            tuple(f"{self.path}/{file.path}" for file in files),
            {c: tuple(file.partition[i] for file in files) for i, c in enumerate(self.schema.partition_by)},
            bounds,
            sum(file.rows for file in files),
        )

    def data_files(self, partitions: Collection[tuple[Value, ...]] | None = None) -> list[DataFile]:
        """The data files of the snapshot, or those of some partitions, each with what the Delta log says of it."""
        files = self.files()
        if partitions is not None:
            files = self._of_partitions(files, partitions)
        return [
            DataFile(
                path=row["path"],
                partition=tuple(row[f"partition.{column}"] for column in self.schema.partition_by),
                rows=row["num_records"],
                size=row["size_bytes"],
                statistics=_statistics(row),
            )
            for row in files.to_pylist()
        ]

    def rows_of(self, partitions: Collection[tuple[Value, ...]]) -> dict[tuple[Value, ...], int]:
        """How many rows the snapshot has in each of the partitions that has any, by what the log says of its files."""
        files = self._of_partitions(self.files(), partitions)
        if not files.num_rows:
            return {}
        names = [f"partition.{column}" for column in self.schema.partition_by]
        sums = files.group_by(names, use_threads=False).aggregate([("num_records", "sum")])
        return dict(zip(self._partitions(sums), sums["num_records_sum"].to_pylist(), strict=True))

    def partitions_of_several_files(self) -> set[tuple[Value, ...]]:
        """The partitions of the snapshot that have more than one data file."""
        files = self.files()
        if not self.schema.partition_by:
            return {()} if files.num_rows > 1 else set()
        if not files.num_rows:
            return set()
        names = [f"partition.{column}" for column in self.schema.partition_by]
        counts = files.group_by(names, use_threads=False).aggregate([([], "count_all")])
        return set(self._partitions(counts.filter(pc.greater(counts["count_all"], 1))))

    def files(self) -> pa.Table:
        """One row per data file of the snapshot, from the Delta log: path, num_records, min.*, max.*, partition.*."""
        return pa.table({}) if self.snapshot is None else self.snapshot.files


def _files_after_swap(
    files: pa.Table, old: Collection[DataFile], new: Collection[DataFile], partition_by: Sequence[str], now: int
) -> pa.Table | None:
    """`files` of the next version, as the log will tell them; None where that must be read.

    It is known what a commit brought. Reading it costs as much as the table has files.
    """
    rows = []
    for file in new:
        facts = json.loads(file.statistics)
        row = {"path": file.path, "size_bytes": file.size, "modification_time": now, "num_records": facts["numRecords"]}
        for prefix, kind in _STATISTICS.items():
            row |= {f"{prefix}.{column}": value for column, value in facts[kind].items()}
        row |= {f"partition.{column}": value for column, value in zip(partition_by, file.partition, strict=True)}
        rows.append(row)
    if not files.num_rows or any(row.keys() - set(files.column_names) for row in rows):
        return None
    added = [_column([row.get(field.name) for row in rows], field.type) for field in files.schema]
    kept = files.filter(
        pc.invert(pc.is_in(files["path"], value_set=pa.array([file.path for file in old], pa.string())))
    )
    return pa.concat_tables([pa.table(added, schema=files.schema), kept])  # the newest come first there too


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Values as the statistics of the log write them, see as_statistics, or as they are."""
    texts = any(isinstance(value, str) for value in values)
    return pa.array(values, pa.string()).cast(kind) if texts else pa.array(values, kind)


def bounds_of_value(value: int | None) -> Bounds:
    """The bounds of a scan that hold one value of a bigint; None: every value. A value that no bigint has is in no row.

    >>> bounds_of_value(7), bounds_of_value(None), bounds_of_value(2**70)
    ((7, 8), (None, None), (0, 0))
    >>> bounds_of_value(2**63 - 1) == (2**63 - 1, None)
    True
    """
    if value is None:
        return None, None
    if value not in _BIGINT:
        return 0, 0
    return value, value + 1 if value + 1 in _BIGINT else None


def sql_literal(value: Value) -> str:
    """`value` as SQL that DuckDB, Spark and delta-rs read alike (timestamps as ISO strings)."""
    if isinstance(value, datetime):
        return f"'{value.isoformat(timespec='microseconds')}'"
    if isinstance(value, date | str):
        return "'" + str(value).replace("'", "''") + "'"
    return str(value)


def _any_between(values: npt.NDArray[np.int64], low: int, high: int) -> bool:
    """Whether one of the sorted values lies in [low, high]."""
    return bool(np.searchsorted(values, low) < np.searchsorted(values, high, side="right"))


def _statistics(row: Mapping[str, Any]) -> str:
    """A row of `files` as the JSON of the Delta log."""
    statistics: dict[str, Any] = {"numRecords": row["num_records"]} | {kind: {} for kind in _STATISTICS.values()}
    for name, value in row.items():
        prefix, _, column = name.partition(".")
        if prefix in _STATISTICS and isinstance(value, int | str | date):
            statistics[_STATISTICS[prefix]][column] = as_statistics(value)
    return json.dumps(statistics, ensure_ascii=False)


def as_statistics(value: Any) -> Any:
    """`value` as the statistics of the Delta log write it: dates and, to the millisecond, timestamps as ISO 8601."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
    return value.isoformat() if isinstance(value, date) else value


def _identity(entry: Path) -> tuple[int, int, int] | None:
    try:
        known = entry.stat()
    except OSError:
        return None
    return known.st_ino, known.st_size, known.st_mtime_ns


def _is_whole(entry: bytes) -> bool:
    """Whether a log entry has all that was committed; of another tool's commit, whether its last line is whole."""
    lines = entry.strip().split(b"\n")
    try:
        first, last = json.loads(lines[0]), json.loads(lines[-1])
    except ValueError:
        return False
    try:
        expected = first["commitInfo"][_ENTRY]
    except (KeyError, TypeError):
        return True
    return expected in last or expected == str(len(lines))


def _is_restore(entry: bytes) -> bool:
    """Whether a log entry is Delta's RESTORE of an older version. Engines write commitInfo first or last."""
    lines = entry.strip().split(b"\n")
    for line in {lines[0], lines[-1]}:
        with suppress(ValueError, AttributeError):
            if json.loads(line).get("commitInfo", {}).get("operation") == "RESTORE":
                return True
    return False


def _one_line(error: Exception) -> str:
    facts, _, _ = str(error).partition("Preview of invalid data")  # without the rows that delta-rs shows
    plain = re.sub(r"\x1b\[[0-9;]*m", "", facts)  # and it paints its errors
    plain, _, _ = plain.partition(" 0: <unknown>")  # and adds where in its code it was
    return " ".join(plain.split())[:300]
