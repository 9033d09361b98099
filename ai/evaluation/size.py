"""How large masses are: in square centimetres where the spacing is known, else as a share of the breast."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ai.breast import breast_of
from ai.datasets.records import Box
from ai.errors import NoBreast
from ai.exam import ViewImage


class Measure(StrEnum):
    """What a size is told in."""

    AREA = "cm²"
    BREAST = "% of the breast"


@dataclass(frozen=True)
class Extent:
    """Area of a mass.

    Attributes
    ----------
    value
        In the measure.
    measure
        Square centimetres, or percent of the breast's area in the image.
    """

    value: float
    measure: Measure


BORDERS: Final[dict[Measure, tuple[float, float]]] = {Measure.AREA: (1.0, 4.0), Measure.BREAST: (0.5, 2.0)}
"""Small, medium, large: 1 and 4 cm² in Agarwal et al.; about the same in a breast of 200 cm², without spacing."""


def extents(boxes: Iterable[Box], truth: NDArray[np.bool_], image: ViewImage | None) -> tuple[Extent, ...]:
    """Return the size of each mass: the truth's pixels within its box.

    Parameters
    ----------
    boxes
        Of the masses.
    truth
        Pixels of all masses.
    image
        None when it cannot be read: then there are no sizes.
    """
    if image is None:
        return ()
    if image.spacing is not None:
        unit, measure = image.spacing.row * image.spacing.column / 100, Measure.AREA
    else:
        unit, measure = 100 / _breast_pixels(image), Measure.BREAST
    return tuple(Extent(_pixels(box, truth) * unit, measure) for box in boxes)


def strata(sizes: Sequence[tuple[int, int, Extent]]) -> dict[str, dict[int, list[int]]]:
    """Return the masses of each stratum: its name to the masses of each image.

    Parameters
    ----------
    sizes
        Image, mass within it, and size.
    """
    found: dict[str, dict[int, list[int]]] = {}
    for measure, (low, high) in BORDERS.items():
        names = [f"< {low:g} {measure}", f"{low:g} to {high:g} {measure}", f"> {high:g} {measure}"]
        every: dict[str, dict[int, list[int]]] = {name: {} for name in names}
        for image, mass, extent in sizes:
            if extent.measure is measure:
                name = names[(extent.value >= low) + (extent.value > high)]
                every[name].setdefault(image, []).append(mass)
        found |= {name: masses for name, masses in every.items() if masses}
    return found


def _pixels(box: Box, truth: NDArray[np.bool_]) -> float:
    x, y, width, height = box
    part = truth[max(int(y), 0) : int(np.ceil(y + height)), max(int(x), 0) : int(np.ceil(x + width))]
    return float(part.sum())


def _breast_pixels(image: ViewImage) -> float:
    rows, columns = image.shape
    try:
        return float(breast_of(image).mean()) * rows * columns
    except NoBreast:
        return float(rows * columns)
