"""One table: a handle on one snapshot, and commits against exactly that snapshot.

Belongs here: the commit protocol's last step. A commit is rows plus the table's watermark (a Delta application
transaction) in one Delta version, as a compare-and-swap: it succeeds only if nobody committed since the handle was
opened. Doesn't: what to do after a lost race (whoever opened the handle looks again), how rows are computed (engines).
"""

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from notif_assets.lake.schemas import Schema

Value = int | str | date | datetime
Bounds = tuple[Value | None, Value | None]

# Reader 1 / writer 2 and no table features: what every Delta reader can read.
_PROPERTIES = {
    "delta.enableDeletionVectors": "false",
    "delta.checkpointPolicy": "classic",
    "delta.checkpointInterval": "100",
    "delta.logRetentionDuration": "interval 7 days",
    "delta.deletedFileRetentionDuration": "interval 7 days",
}
_WRITER = WriterProperties(compression="ZSTD", compression_level=1)
# Delta statistics keep milliseconds, and a maximum may have lost its microseconds.
_STATISTICS_PRECISION = timedelta(milliseconds=1)


class LakeError(Exception):
    """The lake can't be used as it is; the message says why and what to do."""


class LostRace(Exception):  # noqa: N818 - it is no error, it is an answer
    """Somebody committed to the table since its handle was opened; open it again and look."""


@dataclass(frozen=True)
class Scan:
    """Rows of one snapshot: the files that may hold them, and the bounds [low, high) that each row satisfies.

    `partition_values` has one list per partition column, aligned with `files`, taken from the Delta log.
    `rows_at_most` counts the rows of the files, whatever the bounds leave of them.
    """

    schema: Schema
    files: tuple[str, ...]
    partition_values: Mapping[str, tuple[Value, ...]]
    bounds: Mapping[str, Bounds]
    rows_at_most: int


class Table:
    """A handle on one snapshot of one table. After a commit it stands on the version it wrote."""

    def __init__(self, root: Path, schema: Schema) -> None:
        """Opens the table, or creates it empty. Raises LakeError if another tool gave it features we don't write."""
        self.schema = schema
        self.path = root / schema.name
        try:
            self._delta = DeltaTable(str(self.path))
        except TableNotFoundError:
            self._delta = self._create()
        except (DeltaError, OSError) as error:
            raise LakeError(f"table {schema.name} in {root} can't be opened: {_line(error)}") from error
        protocol = self._delta.protocol()
        if (protocol.min_reader_version, protocol.min_writer_version) != (1, 2):
            raise LakeError(
                f"table {schema.name} asks for reader {protocol.min_reader_version} / writer "
                f"{protocol.min_writer_version}; it must stay at reader 1 / writer 2, so that every engine can use it"
            )

    def _create(self) -> DeltaTable:
        properties: dict[str, str | None] = dict(_PROPERTIES)
        if self.schema.statistics:
            properties["delta.dataSkippingStatsColumns"] = ",".join(self.schema.statistics)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LakeError(
                f"the lake {self.path.parent} can't be written: {error.strerror}; see NOTIF_LAKE"
            ) from error
        DeltaTable.create(
            str(self.path),
            schema=self.schema.arrow,
            mode="ignore",  # two processes may create it at once
            name=self.schema.name,
            description=self.schema.meaning,
            partition_by=list(self.schema.partition_by),
            configuration=properties,
        )
        return DeltaTable(str(self.path))

    @property
    def version(self) -> int:
        """The Delta version of the snapshot."""
        return self._delta.version()

    @property
    def watermark(self) -> int:
        """How far the table is: the newest batch, or commit, that it holds; 0 for a table without history.

        Raises LakeError if the table has a history but no watermark: then nothing can be said, least of all 0.
        """
        recorded = self._delta.transaction_version(self.schema.name)
        if recorded is not None:
            return recorded
        if self._delta.version() == 0:
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

    def delete(self, where: str | None, batch: int | None = None, note: Mapping[str, Any] | None = None) -> None:
        """Removes the rows that satisfy `where`; an empty append carries the watermark if there are none.

        None removes nothing.
        """
        before = self.version
        if where is not None:
            with self._committing():
                self._delta.delete(where, commit_properties=self._commit_properties(batch, note))
        if self.version == before:
            self.append(self.schema.arrow.empty_table(), batch, note)

    def _write(
        self, rows: pa.Table, batch: int | None, note: Mapping[str, Any] | None, mode: Any, predicate: str | None
    ) -> None:
        rows = rows.select(self.schema.arrow.names).cast(self.schema.arrow)  # refuses nulls where none may be
        with self._committing():
            write_deltalake(
                self._delta,
                rows,
                mode=mode,
                predicate=predicate,
                writer_properties=_WRITER,
                commit_properties=self._commit_properties(batch, note),
                post_commithook_properties=PostCommitHookProperties(cleanup_expired_logs=False),
            )

    @contextmanager
    def _committing(self) -> Iterator[None]:
        """Tells a lost race from a commit that failed by itself (disk full, no permission)."""
        try:
            yield
        except CommitFailedError as error:
            if DeltaTable(str(self.path)).version() > self.version:
                raise LostRace(self.schema.name) from error
            raise LakeError(f"table {self.schema.name} could not be written: {_line(error)}") from error
        except (DeltaError, OSError) as error:
            raise LakeError(f"table {self.schema.name} could not be written: {_line(error)}") from error

    def _commit_properties(self, batch: int | None, note: Mapping[str, Any] | None) -> CommitProperties:
        watermark = self.watermark
        batch = watermark + 1 if batch is None else batch
        if batch <= watermark:
            raise LostRace(self.schema.name)  # somebody committed it before this handle was opened
        return CommitProperties(
            app_transactions=[Transaction(self.schema.name, batch)],
            max_commit_retries=0,  # compare-and-swap: an append must not be replayed onto a snapshot it never saw
            custom_metadata={"userMetadata": json.dumps(dict(note or {}))},
        )

    def scan(self, partitions: Collection[tuple[Value, ...]] | None = None, **bounds: Bounds) -> Scan:
        """The snapshot's rows with low <= column < high for each bound (None: open), within `partitions` if given.

        Files whose statistics exclude a bound are not read.
        """
        actions = pa.table(self._delta.get_add_actions(flatten=True))
        keep = [True] * actions.num_rows
        by = self.schema.partition_by
        values = (
            {c: tuple(actions[f"partition.{c}"].to_pylist()) for c in by} if actions.num_rows else dict.fromkeys(by, ())
        )
        if partitions is not None:
            keep = [row in partitions for row in zip(*values.values(), strict=True)] if by else keep
        for column, (low, high) in bounds.items():
            if f"min.{column}" not in actions.column_names:
                continue
            ranges = zip(actions[f"min.{column}"].to_pylist(), actions[f"max.{column}"].to_pylist(), strict=True)
            for i, (smallest, largest) in enumerate(ranges):
                if isinstance(largest, datetime):
                    largest += _STATISTICS_PRECISION
                if smallest is not None and (
                    (low is not None and largest < low) or (high is not None and smallest >= high)
                ):
                    keep[i] = False
        names = actions["path"].to_pylist() if actions.num_rows else []
        counts = actions["num_records"].to_pylist() if actions.num_rows else []
        kept = [i for i, wanted in enumerate(keep) if wanted]
        return Scan(
            self.schema,
            tuple(str(self.path / names[i]) for i in kept),
            {c: tuple(values[c][i] for i in kept) for c in by},
            bounds,
            sum(counts[i] for i in kept),
        )

    def files(self) -> pa.Table:
        """One row per data file of the snapshot, from the Delta log: path, num_records, min.*, max.*, partition.*."""
        return pa.table(self._delta.get_add_actions(flatten=True))


def literal(value: Value) -> str:
    """`value` as SQL that DuckDB, Spark and delta-rs read alike (timestamps as ISO strings)."""
    if isinstance(value, datetime):
        return f"'{value.isoformat(timespec='microseconds')}'"
    if isinstance(value, date | str):
        return "'" + str(value).replace("'", "''") + "'"
    return str(value)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
