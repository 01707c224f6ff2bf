"""Which message of several with the same (customer_id, message_id) counts: the first in arrival order.

Belongs here: the rule, as plain code, for the few rows where one SQL statement can't say it. Doesn't: finding them.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any


def duplicate_rows(rows: Iterable[Mapping[str, Any]]) -> list[int]:
    """The `row` numbers of the rows that are duplicates of another of `rows`.

    A row is a duplicate if an earlier row with its key that is none itself lies in the row's own window:
    window_from <= event_datetime < window_to. Rows need these, the key and a number, and come in arrival
    order. A duplicate makes no other row a duplicate, so this is a loop and not a join.
    """
    kept: dict[tuple[int, str], list[Any]] = defaultdict(list)
    found = []
    for row in rows:
        before = kept[row["customer_id"], row["message_id"]]
        if any(row["window_from"] <= instant < row["window_to"] for instant in before):
            found.append(row["row"])
        else:
            before.append(row["event_datetime"])
    return found
