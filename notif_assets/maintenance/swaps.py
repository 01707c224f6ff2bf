"""Data files put in the place of others, for every job that rewrites rows without moving a watermark.

Belongs here: the one commit that swaps staged files in. Doesn't: which files (compaction.py, redaction.py, rebuild.py),
writing them (lake/staging.py).

Sorting an hour takes seconds and a commit milliseconds. Written first and committed afterwards, with a handle opened
only then, upkeep neither holds up ingestion nor loses every race against it. What is left behind by a killed job
belongs to no snapshot and goes with the vacuum.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from notif_assets.lake import Lake, LostRace, Table, until_committed
from notif_assets.lake.staging import discard
from notif_assets.lake.tables import DataFile, Value


@dataclass(frozen=True)
class Swap:
    """Files of one partition and those to put in their place.

    `whole` means that `old` are all files of the partition, and that it is off if any came or went meanwhile.
    """

    partition: tuple[Value, ...]
    old: tuple[DataFile, ...]
    new: tuple[DataFile, ...]
    whole: bool = False


def commit(lake: Lake, name: str, swaps: Sequence[Swap], *, same_rows: bool, note: str) -> list[Swap]:
    """Makes all swaps that can still be made in one commit and gives those that can't: their files have changed."""

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
    there = {file.path for file in present if file.partition == swap.partition}
    old = {file.path for file in swap.old}
    return there == old if swap.whole else old <= there


def rewrite_whole(lake: Lake, table: Table, swaps: Sequence[Swap], note: str) -> None:
    """Commits swaps of whole partitions. Raises LostRace if one is off, so that the caller looks again."""
    if commit(lake, table.schema.name, swaps, same_rows=False, note=note):
        raise LostRace(table.schema.name)
