"""`python -m notif_assets.panel.read_dagster`: Dagster's state as JSON, for the panel, whose child this is.

Belongs here: asking Dagster's storage. Doesn't: when to ask, what is kept (dagster_state.py).
"""

import sys
from datetime import UTC, datetime

import msgspec

from notif_assets.instance.alerts import failing_checks, known_checks
from notif_assets.instance.existing import existing_instance
from notif_assets.panel.dagster_state import Failing, Run, State

_MOST = 10


def read() -> State:
    """Dagster's state now; nothing is created where Dagster never ran."""
    now = datetime.now(UTC)
    with existing_instance() as instance:
        if instance is None:
            return State("absent", now)
        runs = [
            Run(
                record.dagster_run.run_id,
                record.dagster_run.job_name,
                record.dagster_run.status.value,
                datetime.fromtimestamp(record.start_time, UTC) if record.start_time else None,
                record.end_time - record.start_time if record.start_time and record.end_time else None,
            )
            for record in instance.get_run_records(limit=_MOST)
        ]
        failing = failing_checks(instance, known_checks(instance))
    found = (Failing(name, name.rpartition(" of ")[2], sentence) for name, sentence in sorted(failing.items()))
    return State("known", now, tuple(runs), tuple(found))


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(read()))
