"""What faults leave behind in the lake's folder, and whether maintenance takes it away.

Belongs here: files that no snapshot refers to, told from the Delta logs by plain Python. Doesn't: what is in tables.
"""

import json
import os
import re
import time
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote

from deltalake import DeltaTable

from notif_assets_tests.cli.deployment import Deployment, ok

_LOG = re.compile(r"_last_checkpoint|\d{20}(\.checkpoint)?\.(json|parquet)")
_OF_THE_LAKE = ("lake.json", "rules.json", ".upkeep.lock")
_PAST_RETENTION = timedelta(days=8).total_seconds()


def orphans(deployment: Deployment) -> set[Path]:
    """Every file of the lake that belongs to no snapshot of a table, nor to a log, nor to the lake itself."""
    root = deployment.lake.root
    known = {root / name for name in _OF_THE_LAKE}
    for log in root.rglob("_delta_log"):
        known |= {entry for entry in log.iterdir() if _LOG.fullmatch(entry.name)}
        known |= {log.parent / path for path in DeltaTable(str(log.parent)).get_add_actions()["path"].to_pylist()}
        for entry in log.glob("*.json"):
            for action in map(json.loads, entry.read_text().splitlines()):
                known |= {log.parent / unquote(action[kind]["path"]) for kind in ("add", "remove") if kind in action}
    return {path for path in root.rglob("*") if path.is_file()} - known


def assert_maintenance_removes_orphans(deployment: Deployment) -> int:
    """Whatever is left behind goes with the first `maintain` after the retention of seven days; gives how many."""
    left = orphans(deployment)
    before = time.time() - _PAST_RETENTION
    for path in left:
        os.utime(path, (before, before))
    ok(deployment.call("maintain"))
    stayed = sorted(str(path.relative_to(deployment.lake.root)) for path in left if path.exists())
    assert stayed == []
    return len(left)
