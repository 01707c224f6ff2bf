"""The tables (Delta Lake), how they are committed, and the engine that computes upon them."""

from notif_assets.lake.catalogue import SCHEMAS, Schema
from notif_assets.lake.engine import Lake, duckdb_config, until_committed, write_once
from notif_assets.lake.tables import LakeError, LostRace, OutOfMemory, Scan, Table, bounds_of_value, sql_literal

__all__ = [
    "SCHEMAS",
    "Lake",
    "LakeError",
    "LostRace",
    "OutOfMemory",
    "Scan",
    "Schema",
    "Table",
    "bounds_of_value",
    "duckdb_config",
    "sql_literal",
    "until_committed",
    "write_once",
]
