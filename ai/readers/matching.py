"""Which mass of the CC view may be the same lesion as which mass of the MLO view: a hint for readers, no diagnosis.

Radiologists link the two views by how far behind the nipple a lesion lies. Measured along the posterior nipple line
this is the straight-line method; as rings around the nipple, the arc or annular-band method (Paquerault et al., Med Phys
2002; 29: 238-247). Van Engeland, Timp and Karssemeijer (Med Phys 2006; 33: 3203-3212, doi:10.1118/1.2230359) linked
regions by nipple distance, grey values and single-view suspicion with a trained discriminant, right in 82 % of 412
cancers. Here: the straight-line method and the diameter, nothing trained.

The line was preferred on film (CBIS-DDSM, training split, 374 breasts of 365 patients with one mass in each view): it
tells true pairs from masses of other women with AUC 0.78 in fractions of each view's own depth, 0.81 where both films
are taken to have one scale; rings gave 0.74 and 0.78, probably because an outline tells how far the breast reaches
better than where on it the nipple is. Sensitivity and false pairs: :class:`MatchingPolicy`; ``benchmarks/matching.py``
prints them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import cos, hypot, log2, pi, radians, sin, sqrt

import numpy as np
from numpy.typing import NDArray

from ai.breast import breast_mask
from ai.exam import Exam, Laterality, View, ViewImage, ViewPosition
from ai.findings import ImageFindings, Mass, Match


@dataclass(frozen=True)
class MatchingPolicy:
    """When two masses may be one lesion.

    The defaults were chosen where 95 % (92 to 97) of the true pairs pass. On 103 breasts of 101 other patients 92 %
    (86 to 97) of the true pairs pass, and 43 % (39 to 46) of the pairs of different women: a pair means "may be",
    never "is". Those films have no spacing; in millimetres nothing was measured.

    Attributes
    ----------
    depth
        Largest difference of their depths behind the nipple, in depths of the breast.
    ratio
        Largest ratio of their diameters, above 1.
    tilt
        By how many degrees the MLO view's posterior nipple line falls towards the nipple: it stands upright on the
        pectoral muscle, which leans. In the CC view it stands upright on the chest wall.
    """

    depth: float = 0.25
    ratio: float = 2.0
    tilt: float = 20.0


@dataclass(frozen=True)
class NippleLine:
    """Posterior nipple line of one view, in millimetres, or in widths of a pixel where no spacing is known.

    Attributes
    ----------
    direction
        x and y of the unit vector towards the nipple.
    nipple
        Where the nipple is along that direction: the farthest point of the breast.
    depth
        Of the breast, from the nipple along the line to the edge of the image at the chest wall.
    """

    direction: tuple[float, float]
    nipple: float
    depth: float

    def behind(self, x: float, y: float) -> float:
        """Return how far behind the nipple a point lies."""
        return self.nipple - (x * self.direction[0] + y * self.direction[1])


@dataclass(frozen=True)
class Place:
    """Where a mass lies behind the nipple and how large it is, both in depths of the breast.

    Attributes
    ----------
    number
        The mass's number in its image.
    depth
        Of its centroid.
    diameter
        Of the disc with its area.
    """

    number: int
    depth: float
    diameter: float


def match_masses(exam: Exam, findings: Iterable[ImageFindings], policy: MatchingPolicy) -> tuple[Match, ...]:
    """Pair the masses of each breast whose CC and MLO views were both read.

    Depths are compared in millimetres, against the mean depth of both views, where both images have a spacing by the
    same rule (R11); otherwise each view is measured in its own depth.

    Parameters
    ----------
    exam
        The images, upright.
    findings
        Of those images that were read.

    Returns
    -------
    tuple of Match
        By breast and CC number; each mass in at most one.
    """
    images = {image.uid: image for image in exam.images}
    seen = {found.view: (images[found.uid], found.masses) for found in findings if found.masses}
    matches: list[Match] = []
    for side in Laterality:
        cc, mlo = (seen.get(View(side, position)) for position in (ViewPosition.CC, ViewPosition.MLO))
        if cc and mlo:
            lines = view_line(cc[0], policy), view_line(mlo[0], policy)
            first, second = units(cc[0], mlo[0], (lines[0].depth, lines[1].depth))
            alike = pair(places(*cc, lines[0], first), places(*mlo, lines[1], second), policy)
            matches += [Match(side, *numbers) for numbers in alike]
    return tuple(matches)


def pair(cc: Sequence[Place], mlo: Sequence[Place], policy: MatchingPolicy) -> list[tuple[int, int]]:
    """Return the numbers of the masses that may be one lesion: the most alike first, each mass once, by the CC number."""
    alike = []
    for first in cc:
        for second in mlo:
            depth = abs(first.depth - second.depth) / policy.depth
            ratio = abs(log2(first.diameter / second.diameter)) / log2(policy.ratio)
            if max(depth, ratio) <= 1:
                # Rounded, so that a mirrored breast has the same ties.
                alike.append((round(hypot(depth, ratio), 6), first.number, second.number))
    pairs: dict[int, int] = {}
    for _, first_number, second_number in sorted(alike):
        if first_number not in pairs and second_number not in pairs.values():
            pairs[first_number] = second_number
    return sorted(pairs.items())


def nipple_line(mask: NDArray[np.bool_], pixel: tuple[float, float], tilt: float) -> NippleLine:
    """Return the posterior nipple line of a breast; the chest wall is on the side where more of the mask lies.

    Parameters
    ----------
    mask
        Shape (rows, columns), the breast.
    pixel
        Width and height of the mask's pixels.
    tilt
        Degrees by which the line falls towards the nipple.
    """
    width, height = pixel
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    half = mask.shape[1] // 2
    mirrored = bool(mask[:, :half].sum() < mask[:, -half:].sum())  # as in ai.breast.breast_geometry
    if mirrored:
        skin, wall = mask[rows].argmax(1), columns[-1] + 1
    else:
        skin, wall = mask.shape[1] - mask[rows, ::-1].argmax(1), columns[0]
    across, down = (-1 if mirrored else 1) * cos(radians(tilt)), sin(radians(tilt))
    along = skin * width * across + (rows + 0.5) * height * down
    farthest = int(along.argmax())
    depth = abs(int(skin[farthest]) - int(wall)) * width / cos(radians(tilt))
    return NippleLine((across, down), float(along[farthest]), depth)


def view_line(image: ViewImage, policy: MatchingPolicy) -> NippleLine:
    """Return the posterior nipple line of an image, in its coordinates times the width and height of its pixels.

    Raises
    ------
    ai.errors.NoBreast
        When there is no breast.
    """
    mask = breast_mask(image.pixels)
    width, height = _pixel(image)
    (rows, columns), (small_rows, small_columns) = image.shape, mask.shape
    tilt = policy.tilt if image.view.position is ViewPosition.MLO else 0.0
    return nipple_line(mask, (width * columns / small_columns, height * rows / small_rows), tilt)


def units(cc: ViewImage, mlo: ViewImage, depths: tuple[float, float]) -> tuple[float, float]:
    """Return what stands for one depth of the breast in each view: their mean where both have one scale, else its own."""
    if cc.spacing and mlo.spacing and cc.spacing.rule == mlo.spacing.rule:
        return (sum(depths) / 2,) * 2
    return depths


def places(image: ViewImage, masses: Iterable[Mass], line: NippleLine, unit: float) -> list[Place]:
    """Return where the masses of an image lie, in units."""
    width, height = _pixel(image)
    found = []
    for mass in masses:
        rows, columns = np.nonzero(mass.mask)
        x, y = mass.origin[1] + float(columns.mean()) + 0.5, mass.origin[0] + float(rows.mean()) + 0.5
        diameter = 2 * sqrt(len(rows) * width * height / pi)
        found.append(Place(mass.number, line.behind(x * width, y * height) / unit, diameter / unit))
    return found


def _pixel(image: ViewImage) -> tuple[float, float]:
    """Width and height of a pixel, in millimetres or in widths of a pixel."""
    return (image.spacing.column, image.spacing.row) if image.spacing else (1.0, image.pixel_aspect)
