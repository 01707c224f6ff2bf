"""Stacked bars as the rectangles of an SVG.

Belongs here: geometry, and which values get a line or a label beside the axes. Doesn't: colours and words (templates,
panel.css).

Along the time a place is a percentage of the width, so that a chart fits any screen and its texts are never stretched;
upwards it is in pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

HEIGHT = 220.0
"""Of the drawing, in pixels; room for labels comes on top."""
COLOURS = 6
"""Of channels; where there are more, the smallest share the last one."""

_LABELS = 8  # along the time, at most; half of them on a phone


@dataclass(frozen=True)
class Part:
    """A channel's part of a bar: its colour's number, and where it stands from above."""

    colour: int
    y: float
    height: float


@dataclass(frozen=True)
class Bar:
    """All channels of one step."""

    x: float
    width: float
    label: str
    total: int
    values: tuple[tuple[str, int], ...]
    parts: tuple[Part, ...]
    before: int | None
    before_y: float


@dataclass(frozen=True)
class Tick:
    """A label of an axis; on a phone only those that are not `fine`."""

    x: float
    label: str
    fine: bool = False


@dataclass(frozen=True)
class Level:
    """A line across the chart at a value."""

    y: float
    value: int


@dataclass(frozen=True)
class Chart:
    """Bars from left to right, and what stands beside them."""

    bars: tuple[Bar, ...]
    channels: tuple[tuple[str, int], ...]
    """Each channel with its total, in the order of the colours; the last may be several, under no name."""
    levels: tuple[Level, ...]
    ticks: tuple[Tick, ...]

    @property
    def total(self) -> int:
        """Of all channels and steps."""
        return sum(bar.total for bar in self.bars)

    @property
    def highest(self) -> Bar:
        """The first of the bars that none is higher than."""
        return max(self.bars, key=lambda bar: bar.total)

    @property
    def entry(self) -> Bar:
        """The bar that the keyboard comes to first: the last one with a value."""
        return next((bar for bar in reversed(self.bars) if bar.total), self.bars[-1])


def chart(
    labels: Sequence[tuple[str, str]],
    counts: Mapping[str, Sequence[int]],
    before: Sequence[int] | None = None,
) -> Chart:
    """A bar for each label (a long one, and a short one for the axis); `counts` has a number of each channel for each.

    `before` are totals to compare with. Channels that share the last colour stand together under no name.

    >>> one = chart([("a", "a"), ("b", "b")], {"SMS": [1, 0], "Email": [1, 4]})
    >>> [(bar.total, [part.height for part in bar.parts]) for bar in one.bars]
    [(2, [55.0, 55.0]), (4, [220.0])]
    """
    channels = _coloured(counts)
    totals = [sum(values) for values in zip(*(values for _, values in channels), strict=True)] or [0] * len(labels)
    levels = _levels(max([*totals, *(before or ())]))
    scale = HEIGHT / max(1, levels[-1].value)
    slot = 100 / len(labels)
    bars = tuple(
        Bar(
            x=round(slot * index, 2),
            width=round(slot, 2),
            label=label,
            total=totals[index],
            values=tuple((name, values[index]) for name, values in channels if values[index]),
            parts=_parts([values[index] for _, values in channels], scale),
            before=before[index] if before is not None else None,
            before_y=round(HEIGHT - (before[index] if before is not None else 0) * scale, 1),
        )
        for index, (label, _) in enumerate(labels)
    )
    of_channels = tuple((name, sum(values)) for name, values in channels)
    return Chart(bars, of_channels, levels, _ticks([short for _, short in labels]))


def _coloured(counts: Mapping[str, Sequence[int]]) -> list[tuple[str, list[int]]]:
    """The channels in the order of their colours: by name, so that each keeps its own, but Whatsapp is the first."""
    by_size = sorted(counts, key=lambda name: (-sum(counts[name]), name))
    own = by_size if len(by_size) <= COLOURS else by_size[: COLOURS - 1]
    found = [(name, [int(count) for count in counts[name]]) for name in sorted(own, key=lambda n: (n != "Whatsapp", n))]
    if rest := by_size[len(own) :]:
        found.append(("", [int(sum(column)) for column in zip(*(counts[name] for name in rest), strict=True)]))
    return found


def _parts(values: Sequence[int], scale: float) -> tuple[Part, ...]:
    """From the bottom up; the smallest bar can still be seen."""
    parts, below = [], 0
    for colour, value in enumerate(values):
        if value:
            top, bottom = HEIGHT - (below + value) * scale, HEIGHT - below * scale
            parts.append(Part(colour, round(top, 1), round(bottom - top, 1)))
        below += value
    if parts and below * scale < 1:
        return (Part(parts[0].colour, HEIGHT - 1, 1.0),)
    return tuple(parts)


def _levels(most: int) -> tuple[Level, ...]:
    """Zero, and some round numbers up to one that is at least `most`.

    >>> [level.value for level in _levels(1157)]
    [0, 500, 1000, 1500]
    """
    step = next(factor * 10**digits for digits in range(20) for factor in (1, 2, 5) if factor * 10**digits * 4 >= most)
    top = max(1, -(-most // step))
    return tuple(Level(round(HEIGHT * (1 - index / top), 1), index * step) for index in range(top + 1))


def _ticks(labels: Sequence[str]) -> tuple[Tick, ...]:
    """At the middle of their bars, as many as have room.

    >>> [tick.label for tick in _ticks([str(hour) for hour in range(24)])]
    ['0', '3', '6', '9', '12', '15', '18', '21']
    """
    step = next(step for step in (1, 2, 3, 5, 7, 10, 14, 20, 31) if -(-len(labels) // step) <= _LABELS)
    return tuple(
        Tick(round(100 * (index + 0.5) / len(labels), 2), label, number % 2 == 1)
        for number, (index, label) in enumerate(list(enumerate(labels))[::step])
    )
