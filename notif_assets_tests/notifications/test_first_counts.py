"""Who of several counts: the first, and nobody is a duplicate of a duplicate."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from notif_assets.notifications.duplicates import duplicate_rows


@st.composite
def arrivals(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows in arrival order, their windows of any width around them."""
    rows = []
    for offset in range(draw(st.integers(0, 12))):
        at = draw(st.integers(0, 9))
        rows.append(
            {
                "customer_id": draw(st.integers(1, 2)),
                "message_id": draw(st.sampled_from(["1", "11"])),
                "event_datetime": at,
                "row": offset,
                "window_from": at - draw(st.integers(0, 3)),
                "window_to": at + draw(st.integers(1, 3)),
            }
        )
    return rows


@given(arrivals())
def test_a_row_goes_if_and_only_if_its_window_holds_an_earlier_one_that_stays(rows: list[dict[str, Any]]) -> None:
    gone = duplicate_rows(rows)
    assert gone == sorted(set(gone))
    for row in rows:
        earlier = [
            other
            for other in rows[: row["row"]]
            if (other["customer_id"], other["message_id"]) == (row["customer_id"], row["message_id"])
            and other["row"] not in gone
            and row["window_from"] <= other["event_datetime"] < row["window_to"]
        ]
        assert (row["row"] in gone) == bool(earlier)


def test_keys_are_two_values_and_not_one_text() -> None:
    where = {"event_datetime": 1, "window_from": 0, "window_to": 9}
    keys = [(1, "11"), (11, "1"), (1, "11"), (11, "11")]
    rows = [{"customer_id": c, "message_id": m, "row": n, **where} for n, (c, m) in enumerate(keys)]
    assert duplicate_rows(rows) == [2]


def test_a_rejected_row_blocks_nobody() -> None:
    # Days: the 2nd goes because of the 1st; the 3rd is a neighbour of the 2nd only.
    rows = [
        {"customer_id": 1, "message_id": "m", "row": n, "event_datetime": day}
        | {"window_from": day - 1, "window_to": day + 2}
        for n, day in enumerate([1, 2, 3])
    ]
    assert duplicate_rows(rows) == [1]
