"""Calendar windows: months, not days."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notif_assets.core.windows import window_start


def test_window_start_counts_months_not_days() -> None:
    assert window_start(date(2020, 3, 1), 6) == date(2019, 9, 1)
    assert window_start(date(2020, 1, 1), 12) == date(2019, 1, 1)


@pytest.mark.parametrize(("reference_month", "months"), [(date(2020, 3, 31), 3), (date(2020, 3, 1), 0)])
def test_window_start_wants_a_month_and_a_length(reference_month: date, months: int) -> None:
    with pytest.raises(ValueError, match="first day of a month"):
        window_start(reference_month, months)


@given(st.integers(1900, 2100), st.integers(1, 12), st.integers(1, 60))
def test_a_window_is_its_months_one_by_one(year: int, month: int, months: int) -> None:
    stepped = date(year, month, 1)
    for _ in range(months):
        stepped = window_start(stepped, 1)
    assert window_start(date(year, month, 1), months) == stepped
