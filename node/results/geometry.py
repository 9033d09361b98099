"""The geometry that viewers need in objects that lie on a mammogram, which has no Frame of Reference."""

from typing import Final, NamedTuple

import cv2
import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ai.pixels import pixel_spacing
from node.results.source import orientation

MOST_POINTS: Final = 8191
"""Graphic Data is FL: 65 534 bytes at most in Explicit VR (PS3.5 7.1.2), 8 for a point."""


class Geometry(NamedTuple):
    """Geometry of a grid that covers a source image evenly.

    The centre of the source's first pixel is the origin: a convention of viewers (OHIF's default for images without a
    position), not anatomy.
    """

    measures: hd.PixelMeasuresSequence
    orientation: hd.PlaneOrientationSequence
    position: hd.PlanePositionSequence


def grid_geometry(header: Dataset, shape: tuple[int, int], grid: tuple[int, int]) -> Geometry:
    """Return the geometry of a grid.

    Parameters
    ----------
    header
        The source image.
    shape
        Its rows and columns.
    grid
        Rows and columns of the grid.
    """
    spacing = pixel_spacing(header)
    # Without any spacing a viewer still needs one: 1 makes its lengths count pixels, as it does for the source.
    row, column = (spacing.row, spacing.column) if spacing else (1.0, 1.0)
    high, wide = row * shape[0] / grid[0], column * shape[1] / grid[1]
    return Geometry(
        hd.PixelMeasuresSequence([_decimal(high), _decimal(wide)], 1),
        hd.PlaneOrientationSequence("PATIENT", [1, 0, 0, 0, 1, 0]),
        hd.PlanePositionSequence("PATIENT", [_decimal((wide - column) / 2), _decimal((high - row) / 2), 0]),
    )


def add_geometry(target: Dataset, header: Dataset, shape: tuple[int, int]) -> None:
    """Add the geometry to an object, which highdicom leaves out for a source without a Frame of Reference.

    Measured: without pixel measures, plane orientation and plane position OHIF shows nothing and DCMQI refuses.

    Parameters
    ----------
    target
        A multi-frame object whose grid covers the source evenly; changed in place.
    header
        The source image.
    shape
        Its rows and columns.
    """
    target.PatientOrientation = list(orientation(header) or ()) or None  # Type 2C, PS3.3 C.7.6.1
    geometry = grid_geometry(header, shape, (target.Rows, target.Columns))
    shared = target.SharedFunctionalGroupsSequence[0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = geometry.measures, geometry.orientation
    for frame in target.PerFrameFunctionalGroupsSequence:
        frame.PlanePositionSequence = geometry.position


def thinned(contour: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a closed contour with no more points than an element holds, as near to it as that allows."""
    points, distance = contour, 0.5
    while len(points) > MOST_POINTS:
        short = cv2.approxPolyDP(contour[:-1].astype(np.float32), distance, closed=True)[:, 0, :].astype(np.float64)
        points, distance = np.vstack([short, short[:1]]), 2 * distance
    return points


def _decimal(value: float) -> float:
    """Return a value that fits into a Decimal String: 16 characters at most (PS3.5 6.2)."""
    return float(f"{value:.8g}")
