"""One customer's payloads and names, blanked everywhere. Never counts, never offsets: the bills and proofs stand.

Belongs here: which rows are the customer's. Doesn't: which customer a record names (attribution.py), what is left
of it (redacted_values.py), rewriting files (redaction.py).
"""

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from notif_assets.core.texts import fold_for_search
from notif_assets.lake import Lake, Table, bounds_of_value
from notif_assets.lake.pieces import pieces_having, rows_having
from notif_assets.lake.tables import DataFile
from notif_assets.maintenance.attribution import id_of_key, is_of, named_in
from notif_assets.maintenance.lock import Progress, ignore_progress, maintenance_lock
from notif_assets.maintenance.rebuild import forget_replay
from notif_assets.maintenance.redacted_values import CONFLICTING_NAME, NAME, is_blank
from notif_assets.maintenance.redaction import blank_rows, personal_tables
from notif_assets.notifications.validity import OVERSIZED_KEPT
from notif_assets.settings import Settings

_POSITION = ["kafka_partition", "kafka_offset"]
_POSITIONS = pa.schema([("kafka_partition", pa.int32()), ("kafka_offset", pa.int64())])
_MESSAGE_IDS = _POSITIONS.append(pa.field("message_id", pa.string()))


def erase(lake: Lake, settings: Settings, customer_id: int, progress: Progress = ignore_progress) -> dict[str, int]:
    """Blanks payloads and names of the customer in every table, the archive of bronze too; gives the rows changed.

    A second call changes nothing. Chatbot tables identify customers by text: there the customer is the one whose text
    is the same digits. The first `maintain` after the retention of 7 days deletes the files that held the rows; until
    then an old snapshot can still be read. A message that is being ingested at this moment may be missed: run it again.
    Reports already written under NOTIF_REPORTS keep the name until they are written anew.
    """
    with maintenance_lock(lake, progress):
        forget_replay(lake)
        changed = {}
        positions = pa.concat_tables(
            [_oversized_of(lake, customer_id).cast(_POSITIONS), _positions_without_id(lake, settings, customer_id)]
        )
        for label, target, name in personal_tables(lake, settings):
            progress(label)
            mask, files_of = _rows_of(customer_id, positions), _files_of(customer_id)
            changed[label] = blank_rows(lake, target, name, mask, settings, files_of)
        return changed


def count_unattributable(lake: Lake, settings: Settings) -> int:
    """How many rejected messages hold text but name no customer, neither by an id nor by their key. No erasure finds
    them."""
    unattributed = _unattributed(lake)
    held, named = [unattributed.slice(0, 0)], [unattributed.slice(0, 0)]
    for piece in _records_at(lake, settings, unattributed):
        rows = list(zip(piece["key"].to_pylist(), piece["value"].to_pylist(), strict=True))
        held.append(_positions(piece, [not is_blank(value) for _, value in rows]))
        named.append(_positions(piece, [bool(id_of_key(key) or named_in(value or b"").ids) for key, value in rows]))
    with_text = unattributed.filter(pa.array(rows_having(unattributed, pa.concat_tables(held))))
    return int((~rows_having(with_text, pa.concat_tables(named))).sum())


def _unattributed(lake: Lake) -> pa.Table:
    """The Kafka positions of the rejected messages without a valid customer_id."""
    rejected = lake.table("rejected_notifications").scan()
    return lake.select("unattributed_positions", {"rejected": rejected}).cast(_POSITIONS)


def _records_at(lake: Lake, settings: Settings, wanted: pa.Table) -> Iterator[pa.Table]:
    """Position, key and value of the wanted records, from every table that still has them."""
    columns = [*wanted.column_names, "value"]
    for _, target, name in personal_tables(lake, settings):
        if name == "raw_notifications":
            yield from pieces_having(target.table(name).scan(), wanted, [*columns, "key"])
    for piece in pieces_having(lake.table("rejected_notifications").scan(), wanted, columns):
        yield piece.append_column("key", pa.nulls(piece.num_rows, pa.binary()))


def _positions(piece: pa.Table, chosen: Sequence[bool]) -> pa.Table:
    return piece.select(_POSITION).filter(pa.array(chosen, pa.bool_())).cast(_POSITIONS)


def _positions_without_id(lake: Lake, settings: Settings, customer_id: int) -> pa.Table:
    """The Kafka positions of the customer's rejected messages without a valid customer_id.

    Such a message names the customer by an id in another spelling or another field, or by its key. Or it has no id at
    all, but the customer's name or one of the customer's message ids.
    """
    unattributed = _unattributed(lake)
    names = _names_of(lake, customer_id)
    positions, others, by_name = ([unattributed.slice(0, 0)] for _ in range(3))
    id_rows = [_MESSAGE_IDS.empty_table()]
    for piece in _records_at(lake, settings, unattributed):
        found = [named_in(value or b"") for value in piece["value"].to_pylist()]
        ids = [one.ids | {id_of_key(key)} - {None} for one, key in zip(found, piece["key"].to_pylist(), strict=True)]
        positions.append(_positions(piece, [customer_id in some for some in ids]))
        others.append(_positions(piece, [bool(some) and customer_id not in some for some in ids]))
        by_name.append(_positions(piece, [not names.isdisjoint(map(fold_for_search, one.texts)) for one in found]))
        id_rows.append(_message_id_rows(piece, [one.message_ids for one in found]))
    all_id_rows = pa.concat_tables(id_rows)
    by_id = all_id_rows.filter(
        pc.is_in(all_id_rows["message_id"], value_set=_message_ids_of_customer(lake, customer_id, all_id_rows))
    )
    perhaps = pa.concat_tables([*by_name, by_id.select(_POSITION)])
    perhaps = perhaps.filter(pa.array(~rows_having(perhaps, pa.concat_tables(others))))
    return pa.concat_tables([*positions, perhaps])


def _names_of(lake: Lake, customer_id: int) -> set[str]:
    """The names that the customer ever had, folded for search, without the replacements of erased names."""
    found: set[str] = set()
    for table in ("customer_panel", "minute_aggregates", "daily_billing"):
        named = lake.table(table).scan(customer_id=bounds_of_value(customer_id))
        found |= {*lake.select("names_of_customer", {"named": named})["customer_name"].to_pylist()}
    return {fold_for_search(name) for name in found - {NAME, CONFLICTING_NAME}} - {""}


def _message_id_rows(piece: pa.Table, message_ids: Sequence[frozenset[str]]) -> pa.Table:
    """A row for each message id that a record names."""
    rows = [
        {**position, "message_id": message_id}
        for position, named in zip(piece.select(_POSITION).to_pylist(), message_ids, strict=True)
        for message_id in named
    ]
    return pa.Table.from_pylist(rows, schema=_MESSAGE_IDS)


def _message_ids_of_customer(lake: Lake, customer_id: int, id_rows: pa.Table) -> pa.ChunkedArray:
    """The message ids among these that belong to messages of the customer."""
    if not id_rows.num_rows:
        return id_rows["message_id"]
    messages = lake.table("notifications").scan(customer_id=bounds_of_value(customer_id))
    return lake.select("own_messages", {"asked": id_rows.select(["message_id"]), "messages": messages})["message_id"]


def _oversized_of(lake: Lake, customer_id: int) -> pa.Table:
    """The Kafka positions of the customer's oversized messages.

    rejected_notifications keeps the beginning of such a message, which may not name the customer; raw_notifications has
    it all. Spaces there come from an erasure that may have died before it reached rejected_notifications.
    """
    rejected = lake.table("rejected_notifications").scan(reason=("oversized", "oversized "))
    positions = lake.select("rejected_positions", {"rejected": rejected}, reason="oversized")
    if not positions.num_rows:
        return positions
    offsets = pc.min_max(positions["kafka_offset"]).as_py()
    records = lake.table("raw_notifications").scan(kafka_offset=(offsets["min"], offsets["max"] + 1))
    found = [positions.slice(0, 0)]
    for piece in pieces_having(records, positions, [*positions.column_names, "value"]):
        values = (value.as_py() for value in piece["value"])
        of_customer = [
            value is not None and (is_of(value, customer_id) or not value[:OVERSIZED_KEPT].strip()) for value in values
        ]
        found.append(piece.select(positions.column_names).filter(pa.array(of_customer)).cast(positions.schema))
    return pa.concat_tables(found)


def _rows_of(customer_id: int, positions: pa.Table) -> Callable[[pa.Table], pa.ChunkedArray]:
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
        known = pc.or_(known, pa.chunked_array([pa.array(rows_having(rows, positions))]))
        hinted = pc.fill_null(pc.match_substring(rows["value"], str(customer_id).encode()), False).to_pylist()
        values = rows["value"]
        found = [hint and is_of(values[index].as_py(), customer_id) for index, hint in enumerate(hinted)]
        return pc.or_(known, pa.array(found, pa.bool_()))

    return mask


def _files_of(customer_id: int) -> Callable[[Table], Sequence[DataFile]]:
    def files(table: Table) -> Sequence[DataFile]:
        """The files whose statistics don't exclude the customer."""
        if "customer_id" not in table.schema.statistics:
            return table.data_files()
        kept = set(table.scan(customer_id=(customer_id, customer_id + 1)).files)
        return [file for file in table.data_files() if str(table.path / file.path) in kept]

    return files
