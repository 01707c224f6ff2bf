"""Which offsets a batch takes. Pure functions over what the ledger says and what Kafka says.

Belongs here: exact ranges, their validation against the ledger, what is lost. Doesn't: asking Kafka (client.py),
writing the ledger (notifications/ledger.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from notif_assets.errors import Refusal


class PlanRefused(Refusal):
    """Kafka and the ledger contradict each other; the message says how, and nothing is planned."""


@dataclass(frozen=True)
class Log:
    """What Kafka holds of one partition: offsets from `start` to before `end`.

    The end is the last stable offset, before which no transaction is open.
    """

    start: int
    end: int


def next_offsets(ledger_ends: Mapping[int, int], logs: Mapping[int, Log]) -> dict[int, int]:
    """The first offset of each partition that no batch has taken yet.

    `taken` is the ledger's end of each partition, empty before the first batch: that one begins where Kafka does.
    A partition that appears later begins at 0, so that whatever Kafka deleted of it counts as lost.

    >>> next_offsets({}, {0: Log(7, 9)})
    {0: 7}
    >>> next_offsets({0: 9}, {0: Log(7, 9), 1: Log(0, 3)})
    {0: 9, 1: 0}

    Raises PlanRefused if a partition is gone or ends before what was taken: then it is another topic.
    """
    for partition, end in sorted(ledger_ends.items()):
        log = logs.get(partition)
        if log is None:
            raise PlanRefused(f"partition {partition} is gone from the topic, though offsets up to {end} were taken")
        if log.end < end:
            raise PlanRefused(
                f"partition {partition} ends at offset {log.end}, though offsets up to {end} were taken: "
                "the topic was deleted and made anew, or truncated; ingest the new one into a lake of its own"
            )
    if not ledger_ends:
        return {partition: log.start for partition, log in sorted(logs.items())}
    return {partition: ledger_ends.get(partition, 0) for partition in sorted(logs)}


def plan_ranges(first: Mapping[int, int], logs: Mapping[int, Log], limit: int) -> dict[int, tuple[int, int]]:
    """[start, end) for every partition, at most `limit` offsets in all, shared evenly; short ones leave more.

    >>> plan_ranges({0: 0, 1: 5}, {0: Log(0, 100), 1: Log(0, 8)}, limit=50)
    {0: (0, 47), 1: (5, 8)}

    Offsets that Kafka no longer holds cost nothing: a range begins at the first offset not taken, lost or not.
    """
    waiting = {p: logs[p].end - max(start, logs[p].start) for p, start in first.items()}
    shares: dict[int, int] = {}
    left = limit
    for done, partition in enumerate(sorted(waiting, key=lambda p: (waiting[p], p))):
        shares[partition] = min(waiting[partition], left // (len(waiting) - done))
        left -= shares[partition]
    return {p: (start, max(start, logs[p].start) + shares[p]) for p, start in sorted(first.items())}


def deleted_part(start: int, end: int, log_start: int) -> tuple[int, int] | None:
    """The part of [start, end) that Kafka deleted before it was read, or None.

    >>> deleted_part(3, 10, log_start=5), deleted_part(3, 10, log_start=3), deleted_part(3, 10, log_start=50)
    ((3, 5), None, (3, 10))
    """
    return (start, min(end, log_start)) if start < min(end, log_start) else None
