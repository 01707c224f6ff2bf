"""Which rules apply to which batch: a record keeps the verdict of the rules under which its batch was ingested.

Belongs here: from which batch on a lake refuses what later steps can't carry. Doesn't: the rules (validity.py).

A lake of an earlier version holds accepted messages that are refused now: a channel with a line break, an event of
1970. They are counted and billed. A replay of their batches must count them again, or closed days would change.
"""

import json
from dataclasses import replace

from notif_assets.core.days import day_start
from notif_assets.lake import Lake, LakeError, write_once
from notif_assets.notifications.validity import Limits
from notif_assets.settings import Settings

_FILE = "rules.json"
_KEY = "judged_before_the_narrow_rules"
_VALIDATED_TABLES = ("notifications", "rejected_notifications", "minute_aggregates", "customer_panel")


def limits(settings: Settings) -> Limits:
    """The bounds of a valid message that this deployment set."""
    earliest = day_start(settings.first_day, settings.zone)
    return Limits(settings.max_message_bytes, settings.max_event_age, settings.max_event_lead, earliest)


def limits_of(lake: Lake, settings: Settings, batch: int) -> Limits:
    """The bounds for the messages of a batch. Raises LakeError."""
    return replace(limits(settings), narrow=batch > last_wide_batch(lake))


def last_wide_batch(lake: Lake) -> int:
    """The last batch that the earlier rules validated; 0 in a lake without such batches.

    The first call stores it for good, in rules.json beside the tables. Call it before this version validates a batch of
    the lake. Raises LakeError if the file can't be read or written.
    """
    path = lake.table("ingest_batches").path.parent / _FILE  # a lake that replays silver has its ledger elsewhere
    try:
        if not path.exists():
            write_once(path, {_KEY: max(lake.table(name).watermark for name in _VALIDATED_TABLES)})
        return int(json.loads(path.read_text())[_KEY])
    except OSError as error:
        raise LakeError(f"{path} can't be read: {error.strerror}; see NOTIF_LAKE") from error
    except (ValueError, KeyError, TypeError) as error:
        raise LakeError(f"{path} can't be read: restore it, it says which rules judged which batch") from error
