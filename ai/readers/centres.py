"""Masses from boxes: centres and distances to boxes, and in each box the outline of the mass map that fits it best."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ai.breast import Geometry
from ai.exam import Spacing
from ai.findings import Mass
from ai.readers.lesions import delineate, ranked

LEVELS: Final = tuple(level / 20 for level in range(3, 17))
"""Fractions of the map's peak in a box at which an outline is tried."""
MARGIN: Final = 0.25
"""Of a box's sides: how far an outline may lie beyond it; a map without any shape there fits badly."""
Map = NDArray[np.float32]
Box = tuple[float, float, float, float]
"""x1, y1, x2, y2."""


@dataclass(frozen=True)
class CentreRule:
    """How boxes are told apart and outlined.

    Attributes
    ----------
    candidate
        Probability of a centre above which a cell may be one.
    overlap
        Intersection over union with a better box from which a box is the same mass.
    most
        Boxes of one image.
    fits
        Intersection over union of an outline's box and the box below which the inscribed ellipse stands for the mass.
    """

    candidate: float = 0.02
    overlap: float = 0.2
    most: int = 20
    fits: float = 0.7


@dataclass(frozen=True, eq=False)
class CentreMaps:
    """What a network with boxes says of one canvas.

    Attributes
    ----------
    mass, malignant
        Probabilities, canvas shape.
    centres
        Probabilities of a centre in each cell, shape (rows, columns).
    distances
        Canvas pixels from a cell's middle to the left, upper, right and lower edge, shape (4, rows, columns).
    stride
        Canvas pixels per cell.
    """

    mass: Map
    malignant: Map
    centres: Map
    distances: Map
    stride: int


@dataclass(frozen=True)
class Candidate:
    """A place that may be a mass.

    Attributes
    ----------
    box
        x1, y1, x2, y2 in canvas pixels.
    score
        How sure the network is of it, 0 to 1.
    malignancy
        What a second look says, 0 to 1; None without one.
    """

    box: Box
    score: float
    malignancy: float | None = None


def candidates(maps: CentreMaps, rule: CentreRule) -> list[Candidate]:
    """Return the boxes of a canvas by falling score.

    A cell that is no less a centre than its eight neighbours tells a box: the mean of theirs and its own, each weighted by
    how much a centre it is.
    """
    heat, stride = maps.centres, maps.stride
    height, width = heat.shape
    rows, columns = np.nonzero((heat > rule.candidate) & (heat >= cv2.dilate(heat, np.ones((3, 3), np.uint8))))
    order = np.argsort(-heat[rows, columns], kind="stable")
    kept: list[Candidate] = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        around = np.s_[max(row - 1, 0) : min(row + 2, height), max(column - 1, 0) : min(column + 2, width)]
        ys, xs = np.mgrid[around]
        x, y = (xs + 0.5) * stride, (ys + 0.5) * stride
        left, top, right, bottom = maps.distances[:, around[0], around[1]]
        corners = np.stack([x - left, y - top, x + right, y + bottom])
        weight = heat[around] / heat[around].sum()
        x1, y1, x2, y2 = (corners * weight).sum((1, 2)).tolist()
        box = (x1, y1, x2, y2)
        if is_new(box, kept, rule):
            kept.append(Candidate(box, float(heat[row, column])))
        if len(kept) == rule.most:
            break
    return kept


def is_new(box: Box, better: Iterable[Candidate], rule: CentreRule) -> bool:
    """Tell whether a box is another mass than all those of better candidates."""
    return all(overlap(box, each.box) < rule.overlap for each in better)


def boxed_masses(
    maps: CentreMaps,
    found: Iterable[Candidate],
    geometry: Geometry,
    spacing: Spacing | None,
    rule: CentreRule,
    threshold: float,
) -> tuple[Mass, ...]:
    """Return the masses of one image by falling suspicion; what lies beside the breast's crop on the canvas is no mass.

    Parameters
    ----------
    maps
        Of the canvas.
    found
        Candidates on it.
    geometry
        The way from the canvas to the image.
    spacing
        Of the image's pixels; None gives sizes in pixels.
    rule
        How boxes are told apart and outlined.
    threshold
        Smallest detection of a mass: its candidate's score.
    """
    columns, rows = geometry.covered
    masses = []
    for candidate in found:
        x1, y1, x2, y2 = candidate.box
        if candidate.score >= threshold and (x1 + x2) / 2 < columns and (y1 + y2) / 2 < rows:
            masses.append(_mass(maps, candidate, geometry, spacing, rule.fits))
    return ranked(mass for mass in masses if mass is not None)


def overlap(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / (areas - width * height)


def _mass(
    maps: CentreMaps, candidate: Candidate, geometry: Geometry, spacing: Spacing | None, fits: float
) -> Mass | None:
    covered_columns, covered_rows = geometry.covered
    x1, y1, x2, y2 = candidate.box
    across, down = MARGIN * (x2 - x1), MARGIN * (y2 - y1)
    left, top = max(int(x1 - across), 0), max(int(y1 - down), 0)
    right, bottom = min(int(np.ceil(x2 + across)), covered_columns), min(int(np.ceil(y2 + down)), covered_rows)
    if right - left < 2 or bottom - top < 2:
        return None
    window = np.s_[top:bottom, left:right]
    values, (row, column) = geometry.patch_to_image(maps.mass[window], (top, left))
    corners = geometry.points_to_image(np.array([[x1, y1], [x2, y2]])) - np.array([column, row])
    (low_x, low_y), (high_x, high_y) = corners.min(0), corners.max(0)
    mask = _outlined(values, (float(low_x), float(low_y), float(high_x), float(high_y)), fits)
    ys, xs = np.mgrid[window]
    inner = ((xs + 0.5 - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((ys + 0.5 - (y1 + y2) / 2) / (y2 - y1)) ** 2 <= 0.25
    malignant = maps.malignant[window]
    malignancy = float(malignant[inner].mean()) if inner.any() else float(malignant.mean())
    if candidate.malignancy is not None:
        malignancy = (malignancy + candidate.malignancy) / 2
    return delineate(mask, (row, column), spacing, candidate.score, malignancy)


def _outlined(values: Map, box: Box, fits: float) -> NDArray[np.bool_]:
    """Return the part of the map, at the level whose extent fits the box best, or the ellipse inscribed in the box."""
    best, fit = None, fits
    peak = float(values.max())
    for level in LEVELS:
        count, labels, stats, _ = cv2.connectedComponentsWithStats((values > level * peak).astype(np.uint8))
        if count < 2:
            continue
        largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
        x, y, width, height = stats[largest, :4].tolist()
        agreement = overlap((x, y, x + width, y + height), box)
        if agreement > fit:
            best, fit = labels == largest, agreement
    return _ellipse(values.shape, box) if best is None else np.asarray(best)


def _ellipse(shape: tuple[int, ...], box: Box) -> NDArray[np.bool_]:
    """Return the ellipse inscribed in a box, at least its middle pixel."""
    x1, y1, x2, y2 = box
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    across, down = max((x2 - x1) / 2, 0.5), max((y2 - y1) / 2, 0.5)
    mask = np.asarray(((x - (x1 + x2) / 2) / across) ** 2 + ((y - (y1 + y2) / 2) / down) ** 2 <= 1)
    middle = int(np.clip((y1 + y2) / 2, 0, shape[0] - 1)), int(np.clip((x1 + x2) / 2, 0, shape[1] - 1))
    mask[middle] = True
    return mask
