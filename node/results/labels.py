"""Where the labels of outlines stand, on result pictures and on pages."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from math import hypot
from typing import NamedTuple, Self

Point = tuple[float, float]
"""x and y."""


class Box(NamedTuple):
    """A rectangle."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def around(cls, points: Iterable[Iterable[float]]) -> Self:
        """Return the bounding box of points, x and y of each."""
        columns, rows = zip(*points, strict=True)
        return cls(float(min(columns)), float(min(rows)), float(max(columns)), float(max(rows)))

    def moved_into(self, width: float, height: float) -> "Box":
        """Return it moved as little as takes it into an area that begins at 0, 0; what is too large begins there."""
        right = max(min(self.left, width - (self.right - self.left)), 0) - self.left
        down = max(min(self.top, height - (self.bottom - self.top)), 0) - self.top
        return Box(self.left + right, self.top + down, self.right + right, self.bottom + down)

    def overlaps(self, other: "Box") -> bool:
        """Whether they share an area."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def label_places(
    outlines: Sequence[Box], sizes: Sequence[tuple[float, float]], area: tuple[float, float], gap: float
) -> list[Box]:
    """Return where labels go: beside their outline, clear of other outlines and labels where there is room.

    Parameters
    ----------
    outlines
        Bounding boxes.
    sizes
        Width and height of each label.
    area
        Width and height that the labels stay in.
    gap
        Distance to the outline.
    """
    places: list[Box] = []
    for outline, size in zip(outlines, sizes, strict=True):
        places.append(_first_clear(_around(outline, size, area, gap), places, outlines))
    return places


def _around(outline: Box, size: tuple[float, float], area: tuple[float, float], gap: float) -> Iterator[Box]:
    """Yield places for a label, the nearest first: beside the outline, above and below it, then further up and down."""
    width, height = size
    middle, centre = (outline.top + outline.bottom) / 2, (outline.left + outline.right) / 2
    beside = [(outline.right + gap, middle - height / 2), (outline.left - gap - width, middle - height / 2)]
    steps = (sign * step * height for step in range(1, 1 + int(area[1] // height)) for sign in (-1, 1))
    starts = chain(
        beside,
        [(centre - width / 2, outline.top - gap - height), (centre - width / 2, outline.bottom + gap)],
        ((x, y + step) for step in steps for x, y in beside),
    )
    return (Box(x, y, x + width, y + height).moved_into(*area) for x, y in starts)


def _first_clear(candidates: Iterator[Box], labels: Sequence[Box], outlines: Sequence[Box]) -> Box:
    """Return the first place that covers nothing, or else the first that covers no label, or else the first."""
    first, clear = next(candidates), None
    for place in chain([first], candidates):
        if any(map(place.overlaps, labels)):
            continue
        if not any(map(place.overlaps, outlines)):
            return place
        clear = clear or place
    return clear or first


def lead(label: Box, outline: Box, distance: float) -> tuple[Point, Point] | None:
    """Return the line from a label to its outline, or None where they are no further apart than this."""
    middle, centre = (outline.left + outline.right) / 2, (outline.top + outline.bottom) / 2
    start = min(max(middle, label.left), label.right), min(max(centre, label.top), label.bottom)
    end = min(max(start[0], outline.left), outline.right), min(max(start[1], outline.top), outline.bottom)
    return (start, end) if hypot(end[0] - start[0], end[1] - start[1]) > distance else None
