"""A table's rows as one number, to prove that a job changed no row.

Belongs here: the hash of rows. Doesn't: which rows to compare.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from notif_assets.lake import Lake, Scan


@dataclass(frozen=True)
class Fingerprint:
    """Rows and a hash of them all, whatever their order and files. Comparable within one version of DuckDB."""

    rows: int
    hash: str


def fingerprint_of(
    lake: Lake, scan: Scan, exclude: Collection[str] = (), only: Collection[str] | None = None
) -> Fingerprint:
    """The fingerprint of `scan` over all its columns, without those of `but`, or over `only` these."""
    columns = tuple(
        column for column in scan.schema.columns if column.name not in exclude and (only is None or column.name in only)
    )
    narrowed = replace(scan, schema=replace(scan.schema, columns=columns))
    row = lake.select("content_hash", {"hashed": narrowed}).to_pylist()[0]
    return Fingerprint(row["row_count"], row["content_hash"])
