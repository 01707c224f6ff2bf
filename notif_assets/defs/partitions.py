"""How the partitioned assets are cut.

Belongs here: partition definitions, and ranges of their keys. Doesn't: what a partition holds (assets/), when it is
computed (schedules.py, sensors.py).
"""

from collections.abc import Iterable, Mapping

import dagster as dg

from notif_assets.core.days import FIRST_DAY

# Dagster's own tags of a run.
_FIRST, _LAST = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
_ALONE = "dagster/partition"

# end_offset=1: the partition that is going on exists too, since files and questions may come before it ends.
billing_days = dg.DailyPartitionsDefinition(start_date=str(FIRST_DAY), end_offset=2)  # a zone may be ahead of UTC
invoice_months = dg.MonthlyPartitionsDefinition(start_date="2015-01-01", end_offset=1)
answer_hours = dg.HourlyPartitionsDefinition(start_date="2019-01-01-00:00", end_offset=1)
answer_days = dg.DailyPartitionsDefinition(start_date="2019-01-01", end_offset=1)


def key_ranges(partitions: dg.TimeWindowPartitionsDefinition, keys: Iterable[str]) -> list[dg.PartitionKeyRange]:
    """The fewest ranges that hold exactly those of `keys` that exist; a single-run materialization takes one range."""
    existing = sorted(
        (partitions.time_window_for_partition_key(key), key) for key in set(keys) if partitions.has_partition_key(key)
    )
    ranges: list[dg.PartitionKeyRange] = []
    end = None
    for window, key in existing:
        start = ranges.pop().start if window.start == end else key
        ranges.append(dg.PartitionKeyRange(start, key))
        end = window.end
    return ranges


def range_tags(keys: dg.PartitionKeyRange) -> dict[str, str]:
    """The tags by which one run of a single-run job takes all partitions of a range."""
    return {_FIRST: keys.start, _LAST: keys.end}


def keys_of(partitions: dg.TimeWindowPartitionsDefinition, tags: Mapping[str, str]) -> set[str]:
    """The partitions that a run with these tags takes, of a range or of one alone; none if there are none such."""
    if _ALONE in tags:
        return {tags[_ALONE]}
    first, last = tags.get(_FIRST), tags.get(_LAST)
    if first is None or last is None or not all(map(partitions.has_partition_key, (first, last))):
        return set()
    return {*partitions.get_partition_keys_in_range(dg.PartitionKeyRange(first, last))}
