"""Bars: counts as the rectangles of an SVG.

Belongs here: geometry. Doesn't: colours and words (templates, panel.css).
"""

from collections.abc import Sequence
from dataclasses import dataclass

_WIDTH, _HEIGHT = 600.0, 120.0
_GAP = 0.2  # of a bar's place


@dataclass(frozen=True)
class Bar:
    """One bar: where it stands in a drawing of `Chart.width` × `Chart.height`, and what it says."""

    x: float
    y: float
    width: float
    height: float
    label: str
    value: int


@dataclass(frozen=True)
class Chart:
    """Bars from left to right, the highest as high as the drawing."""

    bars: tuple[Bar, ...]
    most: int
    total: int
    width: float = _WIDTH
    height: float = _HEIGHT


def chart(values: Sequence[tuple[str, int]]) -> Chart:
    """The bars of labelled counts; a count of zero is a bar without height.

    >>> [bar.height for bar in chart([("a", 1), ("b", 0), ("c", 2)]).bars]
    [60.0, 0.0, 120.0]
    """
    most = max((value for _, value in values), default=0)
    place = _WIDTH / max(1, len(values))
    bars = []
    for at, (label, value) in enumerate(values):
        height = round(_HEIGHT * value / most, 1) if most else 0.0
        x, width = round(place * (at + _GAP / 2), 2), round(place * (1 - _GAP), 2)
        bars.append(Bar(x, round(_HEIGHT - height, 1), width, height, label, value))
    return Chart(tuple(bars), most, sum(value for _, value in values))
