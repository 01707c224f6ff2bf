"""Swaps data files for others, for every job that rewrites rows without moving a watermark.

Belongs here: the one commit that swaps staged files in. Doesn't: which files (compaction.py, redaction.py, rebuild.py),
writing them (lake/staging.py).

Sorting an hour takes seconds, a commit milliseconds. Maintenance writes its files first, then opens a handle and
commits. So it neither delays ingestion nor loses every race against it. Files of a killed job belong to no snapshot,
and vacuum deletes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from notif_assets.lake import Lake, LostRace, Table, until_committed
from notif_assets.lake.staging import discard
from notif_assets.lake.tables import DataFile, Value


@dataclass(frozen=True)
class Swap:
    """Files of one partition and their replacements.

    `whole` means that `old` are all files of the partition: the swap is void if a file was added or removed meanwhile.
    """

    partition: tuple[Value, ...]
    old: tuple[DataFile, ...]
    new: tuple[DataFile, ...]
    whole: bool = False


def commit(lake: Lake, name: str, swaps: Sequence[Swap], *, same_rows: bool, note: str) -> list[Swap]:
    """Makes all possible swaps in one commit. Returns the others, whose files changed meanwhile."""

    def attempt() -> list[Swap]:
        table = lake.table(name)
        present = table.data_files({swap.partition for swap in swaps})
        possible = [swap for swap in swaps if _possible(swap, present)]
        if any(swap.old or swap.new for swap in possible):
            table.swap(
                [file for swap in possible for file in swap.old],
                [file for swap in possible for file in swap.new],
                same_rows=same_rows,
                note={"upkeep": note},
            )
        refused = [swap for swap in swaps if swap not in possible]
        for swap in refused:
            discard(table, swap.new)
        return refused

    return until_committed(attempt) if swaps else []


def _possible(swap: Swap, present: Sequence[DataFile]) -> bool:
    present_paths = {file.path for file in present if file.partition == swap.partition}
    old = {file.path for file in swap.old}
    return present_paths == old if swap.whole else old <= present_paths


def rewrite_whole(lake: Lake, table: Table, swaps: Sequence[Swap], note: str) -> None:
    """Commits swaps of whole partitions. Raises LostRace if one is void, so that the caller computes it again."""
    if commit(lake, table.schema.name, swaps, same_rows=False, note=note):
        raise LostRace(table.schema.name)
