"""Migrates a lake of an older version of this project to the current one.

Belongs here: one step for each version of the catalogue, and the order of it all. Doesn't: what the catalogue holds
(catalogue.py), who calls this (Lake.claim, before a writer writes anything else).

lake.json says which version of the catalogue a lake has; a lake without it is of version 1. A step changes only what is
not changed yet, and lake.json is replaced last. So it does not matter where a step is killed, or that two writers do it
at once: the next writer finishes it. A step writes no rows: rows of before have null in the new columns, for whatever
engine reads the table (see `_scan_sql` in engine.py), so it takes milliseconds for a table of any size, and nothing
waits for it. A reader without the right to write reads the lake as it is.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from notif_assets.lake.catalogue import SCHEMAS, VERSION
from notif_assets.lake.tables import LostRace, Table

OpenTable: TypeAlias = Callable[[str], Table]
"""Gives the newest snapshot of a table."""


def migrate(open_table: OpenTable, version: int) -> None:
    """Takes the steps from `version` on. Raises LakeError; what was done by then stays and need not be done again."""
    for step in range(version + 1, VERSION + 1):
        STEPS[step](open_table)


def _add_record_marks(open_table: OpenTable) -> None:
    """2: the ledger notes by which record each partition is recognized, null in the batches of before; logs, and the
    files of what each batch writes anew, are kept for a day and not a week."""
    _add_columns(open_table, "ingest_batches", 2)
    for name in SCHEMAS:
        _change(open_table, name, Table.set_properties)


def _add_gap_marks(open_table: OpenTable) -> None:
    """3: invoices and answers know of lines and values that were set aside; of imports before, nothing is known."""
    _add_columns(open_table, "invoices", 3)
    _add_columns(open_table, "chatbot_answers", 3)


STEPS: Mapping[int, Callable[[OpenTable], None]] = {2: _add_record_marks, 3: _add_gap_marks}


def _add_columns(open_table: OpenTable, name: str, since: int) -> None:
    columns = [column for column in SCHEMAS[name].columns if column.since == since]
    _change(open_table, name, lambda table: table.add_columns(columns))


def _change(open_table: OpenTable, name: str, change: Callable[[Table], None]) -> None:
    while True:
        try:
            change(open_table(name))
        except LostRace:  # another process committed to it
            continue
        return
