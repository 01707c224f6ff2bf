"""Recently rejected messages by reason, in memory: a day has thousands of files until it is compacted.

Belongs here: which files are counted, and when. Doesn't: what the operator's page makes of the counts (pages.py).
"""

from collections import Counter
from datetime import date

from notif_assets.lake import Lake


class Rejected:
    """rejected_notifications from the beginning of the UTC day `since` on, at one version."""

    def __init__(self, lake: Lake, since: date, before: "Rejected | None" = None) -> None:
        """Counts the files that `before` has not; all of them if one that it has is gone: its rows are elsewhere."""
        self.since = since
        self.table = lake.table("rejected_notifications")
        scan = self.table.scan(ingest_date=(since, None))
        self._files = frozenset(scan.files)
        self._counts: Counter[str] = Counter()
        if before and before._files <= self._files:
            scan = scan.without(before._files)
            self._counts.update(before._counts)
        if scan.files:
            rows = lake.select("rejected_counts", {"rejected": scan})
            self._counts.update(dict(zip(rows["reason"].to_pylist(), rows["messages"].to_pylist(), strict=True)))

    @property
    def by_reason(self) -> dict[str, int]:
        """How many messages, the most frequent reason first."""
        return dict(sorted(self._counts.items(), key=lambda reason: (-reason[1], reason[0])))
