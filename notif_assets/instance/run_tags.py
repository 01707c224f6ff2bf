"""The tags of a run that select partitions.

Belongs here: Dagster's own tags, written and read. Doesn't: which partitions there are (defs/partitions.py).
"""

from collections.abc import Mapping

import dagster as dg

_FIRST, _LAST = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
_ALONE = "dagster/partition"


def range_tags(keys: dg.PartitionKeyRange) -> dict[str, str]:
    """The tags by which one run of a single-run job takes all partitions of a range."""
    return {_FIRST: keys.start, _LAST: keys.end}


def first_key_of(tags: Mapping[str, str]) -> str | None:
    """The first partition that a run with these tags is asked for, whether there is one such or not."""
    return tags.get(_ALONE, tags.get(_FIRST))


def keys_of(partitions: dg.TimeWindowPartitionsDefinition, tags: Mapping[str, str]) -> set[str]:
    """The partitions that a run with these tags selects: a range, one partition, or none."""
    if _ALONE in tags:
        return {tags[_ALONE]}
    first, last = tags.get(_FIRST), tags.get(_LAST)
    if first is None or last is None or not all(map(partitions.has_partition_key, (first, last))):
        return set()
    return {*partitions.get_partition_keys_in_range(dg.PartitionKeyRange(first, last))}
