"""Probability maps to masses: components, outline at the image's resolution, size."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from ai.breast import Geometry
from ai.exam import Spacing
from ai.findings import LengthUnit, Mass, Size


@dataclass(frozen=True)
class LesionRule:
    """How masses are cut out of a map.

    Attributes
    ----------
    candidate
        Probability above which canvas pixels belong to a candidate.
    outline
        Fraction of the candidate's peak at which it is outlined; None outlines it where it is a candidate: at
        ``candidate``, as papers that make a map binary do.
    smallest
        Canvas pixels below which a candidate is noise.
    """

    candidate: float = 0.15
    outline: float | None = 0.4
    smallest: int = 20

    def level(self, peak: float) -> float:
        """Return the probability at which a candidate with this peak is outlined."""
        return self.candidate if self.outline is None else self.outline * peak


def find_masses(
    mass: NDArray[np.float32],
    malignant: NDArray[np.float32] | None,
    geometry: Geometry,
    spacing: Spacing | None,
    rule: LesionRule,
    threshold: float,
) -> tuple[Mass, ...]:
    """Return the masses of one image by falling suspicion; what lies beside the breast's crop on the canvas is no mass.

    Parameters
    ----------
    mass, malignant
        Probabilities on the canvas, 0 to 1; no ``malignant`` from a reader that does not classify.
    geometry
        The way from the canvas to the image.
    spacing
        Of the image's pixels; None gives sizes in pixels.
    rule
        How to cut.
    threshold
        Smallest detection of a mass: the mean probability within its outline, which ranks better than the peak (on the
        validation split 0.45 instead of 0.36 of the masses at 0.04 false positives per image).
    """
    columns, rows = geometry.covered
    mass = mass[:rows, :columns]
    malignant = None if malignant is None else malignant[:rows, :columns]
    found = [_mass(mass, malignant, region, geometry, spacing, rule) for region in _regions(mass, rule)]
    return ranked(m for m in found if m.detection >= threshold)


def ranked(masses: Iterable[Mass]) -> tuple[Mass, ...]:
    """Return the masses of one image by falling suspicion, numbered."""
    order = sorted(masses, key=lambda m: (-m.suspicion, -m.detection, m.origin))
    return tuple(replace(m, number=number) for number, m in enumerate(order, 1))


def delineate(
    mask: NDArray[np.bool_],
    origin: tuple[int, int],
    spacing: Spacing | None,
    detection: float,
    malignancy: float | None,
) -> Mass:
    """Return a mass, not yet numbered, with the largest connected part of a mask.

    Parameters
    ----------
    mask
        Shape (height, width), not empty.
    origin
        Row and column of its first pixel in the image.
    spacing
        Of the image's pixels; None gives sizes in pixels.
    detection, malignancy
        Of the mass, 0 to 1.
    """
    part = _largest(mask)
    rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
    part = part[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    first = origin[0] + int(rows[0]), origin[1] + int(columns[0])
    return Mass(
        number=0,
        origin=first,
        mask=part,
        contour=outline(part, first),
        size=measure(part, spacing),
        detection=detection,
        malignancy=malignancy,
        suspicion=suspicion(detection, malignancy),
    )


def suspicion(detection: float, malignancy: float | None) -> int:
    """Return the score that is shown: 100 times the geometric mean of both, 0 to 100. A score, not a probability.

    Of a reader that does not classify it is 100 times the detection: how sure it is that there is a mass, malignant or
    not.
    """
    return round(100 * (detection if malignancy is None else float(np.sqrt(detection * malignancy))))


def measure(mask: NDArray[np.bool_], spacing: Spacing | None) -> Size:
    """Return area and axes of a mask.

    The axes are those of the ellipse with the same second moments: 4 times the square root of the eigenvalues of the
    covariance of the pixel positions, to which each pixel adds its own extent of 1/12.
    """
    row, column = (spacing.row, spacing.column) if spacing else (1.0, 1.0)
    rows, columns = np.nonzero(mask)
    positions = np.stack([rows * row, columns * column])
    covariance = np.cov(positions, bias=True) + np.diag([row**2, column**2]) / 12
    short, long = (4 * np.sqrt(np.linalg.eigvalsh(covariance))).tolist()
    return Size(
        area=float(mask.sum()) * row * column,
        long_axis=long,
        short_axis=short,
        unit=LengthUnit.MILLIMETRE if spacing else LengthUnit.PIXEL,
        rule=spacing.rule if spacing else None,
    )


def outline(mask: NDArray[np.bool_], origin: tuple[int, int]) -> NDArray[np.float64]:
    """Return the closed contour of a mask's largest part, shape (n, 2), within 1 px of its boundary pixels' centres.

    Parameters
    ----------
    mask
        Shape (height, width).
    origin
        Row and column of its first pixel in the image.
    """
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    points = cv2.approxPolyDP(max(found, key=cv2.contourArea), 0.7, closed=True)[:, 0, :].astype(np.float64)
    if len(points) < 3:  # one pixel wide: around its pixels instead of through their centres
        wide = np.repeat(np.repeat(mask.astype(np.uint8), 3, 0), 3, 1)
        found, _ = cv2.findContours(wide, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        points = (max(found, key=cv2.contourArea)[:, 0, :].astype(np.float64) - 1) / 3
    points += np.array([origin[1], origin[0]]) + 0.5
    return np.vstack([points, points[:1]])


def _regions(mass: NDArray[np.float32], rule: LesionRule) -> Iterator[NDArray[np.bool_]]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats((mass > rule.candidate).astype(np.uint8))
    for label in range(1, count):
        if stats[label, cv2.CC_STAT_AREA] >= rule.smallest:
            yield labels == label


def _mass(
    mass: NDArray[np.float32],
    malignant: NDArray[np.float32] | None,
    region: NDArray[np.bool_],
    geometry: Geometry,
    spacing: Spacing | None,
    rule: LesionRule,
) -> Mass:
    peak = float(mass[region].max())
    level = rule.level(peak)
    core = region & (mass >= level)
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    top, left = max(rows[0] - 2, 0), max(columns[0] - 2, 0)
    window = np.s_[top : rows[-1] + 3, left : columns[-1] + 3]
    values, (y, x) = geometry.patch_to_image(
        np.where(cv2.dilate(region.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0, mass, 0).astype(np.float32)[
            window
        ],
        (int(top), int(left)),
    )
    highest = float(values.max())  # between the canvas' pixels a small mass may be missed by the image's
    mask = values >= min(rule.level(min(peak, highest)), highest)
    malignancy = None if malignant is None else float(malignant[core].mean())
    return delineate(mask, (y, x), spacing, float(mass[core].mean()), malignancy)


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    return np.asarray(labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()))
