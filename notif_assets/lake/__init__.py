"""The tables (Delta Lake), how they are committed, and the engine that computes upon them."""

from notif_assets.lake.catalogue import SCHEMAS, Schema
from notif_assets.lake.engine import Lake, duckdb_config, until_committed, write_once
from notif_assets.lake.tables import LakeError, LostRace, OutOfMemory, Scan, Table, literal, only

__all__ = [
    "SCHEMAS",
    "Lake",
    "LakeError",
    "LostRace",
    "OutOfMemory",
    "Scan",
    "Schema",
    "Table",
    "duckdb_config",
    "literal",
    "only",
    "until_committed",
    "write_once",
]
