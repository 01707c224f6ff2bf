"""One customer's payloads and names, blanked everywhere. Never counts, never offsets: the bills and proofs stand.

Belongs here: which rows are the customer's. Doesn't: what is left of them (blanks.py), rewriting files (blanking.py).
"""

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from notif_assets.core.messages import OVERSIZED_KEPT
from notif_assets.lake import Lake, Table
from notif_assets.lake.pieces import pieces_having, rows_having
from notif_assets.lake.tables import DataFile
from notif_assets.settings import Settings
from notif_assets.upkeep.blanking import blank_rows, places
from notif_assets.upkeep.blanks import is_of
from notif_assets.upkeep.rebuild import forget_replay
from notif_assets.upkeep.turns import Progress, silent, turn


def erase(lake: Lake, settings: Settings, customer_id: int, progress: Progress = silent) -> dict[str, int]:
    """Blanks payloads and names of the customer in every table, the archive of bronze too; gives the rows changed.

    Again: nothing is left to change. In chatbot tables, whose customers have names for ids, the customer is who is
    called by the same digits. The files that held the rows go with the first `maintain` after the retention of
    7 days; until then an old snapshot can still be read. A message that is being ingested at this moment may be
    missed: run it again. Reports already written under NOTIF_REPORTS keep the name until they are written anew.
    """
    with turn(lake, progress):
        forget_replay(lake)
        changed = {}
        oversized = _oversized_of(lake, customer_id)
        for place, there, name in places(lake, settings):
            progress(place)
            mask, files_of = _rows_of(customer_id, oversized), _files_of(customer_id)
            changed[place] = blank_rows(lake, there, name, mask, settings, files_of)
        return changed


def _oversized_of(lake: Lake, customer_id: int) -> pa.Table:
    """Where the customer's oversized messages lie in Kafka.

    rejected_notifications keeps the beginning of such a message, which may not say whose it is: raw_notifications does.
    Spaces are what an erasure leaves there that may have ended before it came to rejected_notifications.
    """
    rejected = lake.table("rejected_notifications").scan(reason=("oversized", "oversized "))
    places = lake.select("rejected_places", {"rejected": rejected}, reason="oversized")
    if not places.num_rows:
        return places
    offsets = pc.min_max(places["kafka_offset"]).as_py()
    records = lake.table("raw_notifications").scan(kafka_offset=(offsets["min"], offsets["max"] + 1))
    found = [places.slice(0, 0)]
    for piece in pieces_having(records, places, [*places.column_names, "value"]):
        values = (value.as_py() for value in piece["value"])
        theirs = [
            value is not None and (is_of(value, customer_id) or not value[:OVERSIZED_KEPT].strip()) for value in values
        ]
        found.append(piece.select(places.column_names).filter(pa.array(theirs)).cast(places.schema))
    return pa.concat_tables(found)


def _rows_of(customer_id: int, oversized: pa.Table) -> Callable[[pa.Table], pa.ChunkedArray]:
    def mask(rows: pa.Table) -> pa.ChunkedArray:
        if "customer" in rows.column_names:
            return pc.equal(rows["customer"], str(customer_id))
        known = (
            pc.fill_null(pc.equal(rows["customer_id"], customer_id), False)
            if "customer_id" in rows.column_names
            else pa.chunked_array([pa.repeat(pa.scalar(False), rows.num_rows)])
        )
        if "value" not in rows.column_names:
            return known
        if "reason" in rows.column_names:
            known = pc.or_(known, pa.chunked_array([pa.array(rows_having(rows, oversized))]))
        hinted = pc.fill_null(pc.match_substring(rows["value"], str(customer_id).encode()), False).to_pylist()
        values = rows["value"]
        found = [hint and is_of(values[place].as_py(), customer_id) for place, hint in enumerate(hinted)]
        return pc.or_(known, pa.array(found, pa.bool_()))

    return mask


def _files_of(customer_id: int) -> Callable[[Table], Sequence[DataFile]]:
    def files(table: Table) -> Sequence[DataFile]:
        """Those whose statistics don't exclude the customer."""
        if "customer_id" not in table.schema.statistics:
            return table.data_files()
        kept = set(table.scan(customer_id=(customer_id, customer_id + 1)).files)
        return [file for file in table.data_files() if str(table.path / file.path) in kept]

    return files
