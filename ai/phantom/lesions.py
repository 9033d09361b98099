"""Masses: four kinds of margin, one body seen from two sides, and how hard each is to see."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ai.exam import Laterality, ViewPosition
from ai.phantom.anatomy import FIELD_HEIGHT, Anatomy
from ai.phantom.grid import Field, Grid
from ai.phantom.malignancy import draw_malignancy
from ai.phantom.margins import IRREGULARITY, RADII, Margin, draw_margin

CONSPICUITIES = (0.15, 2.0)
"""Least and greatest of a drawn mass: so that contrasts reach from none to what obvious cancers have (docs/phantoms.md)."""

ORDERS = np.arange(2, 12)
"""Of the harmonics of an outline."""

FLATNESS = 0.9
"""Thickness of a mass along the beam, as a fraction of its diameter."""

NIPPLE_DISTANCE = 5.0
"""Largest difference in mm of a drawn lesion's distances from the nipple in CC and in MLO."""

REACH = 3.0
"""Nothing of a lesion, its spicules included, lies farther from its centre than so many radii."""


class Kind(StrEnum):
    """What is in a breast beside its tissue."""

    MASS = "mass"
    #: A cluster of calcifications.
    CALCIFICATIONS = "calcifications"
    #: A lymph node with its fatty hilum, in MLO before the muscle.
    NODE = "lymph node"
    CYST = "cyst"
    #: Tissue that looks like a mass in one view, because it lies over other tissue there.
    SUMMATION = "summation shadow"


@dataclass(frozen=True)
class Lesion:
    """A mass in a breast; both views of the breast show it.

    Attributes
    ----------
    laterality
        Its breast.
    depth
        0 at the chest wall, 1 at the nipple.
    lateral, vertical
        -0.5 to 0.5 of the breast's half width, outwards and upwards of the nipple.
    radius
        Mean radius in mm, 2 to 14.
    irregularity
        Spread of the outline's harmonics: 0 for a circle, 0.25 is deeply lobed.
    margin
        Its kind.
    conspicuity
        What a ball with carcinoma's attenuation adds to the tissue that it replaces is multiplied by it; 0 for nothing.
    malignancy
        Probability that a mass like this is malignant, by the model of ``ai.phantom.malignancy``.
    malignant
        Whether it is, drawn with that probability.
    """

    laterality: Laterality
    depth: float
    lateral: float
    vertical: float
    radius: float = 8.0
    irregularity: float = 0.12
    margin: Margin = Margin.CIRCUMSCRIBED
    conspicuity: float = 0.7
    malignancy: float = 0.0
    malignant: bool = False

    def __post_init__(self) -> None:
        """Refuse a lesion that one of the views would not show."""
        inside = 0 <= self.depth <= 1 and max(abs(self.lateral), abs(self.vertical)) <= 0.5
        if not (inside and 2 <= self.radius <= RADII[1]):
            raise ValueError(f"outside of the breast: {self}")

    @property
    def point(self) -> tuple[float, float, float]:
        """Depth, lateral, vertical."""
        return self.depth, self.lateral, self.vertical


def draw_lesions(anatomy: Anatomy, rng: Generator) -> Iterator[Lesion]:
    """Draw one to three lesions that do not touch, large ones rarer than small ones, hard ones as often as easy ones."""
    drawn: list[Lesion] = []
    for _ in range(int(rng.integers(1, 4))):
        margin = draw_margin(rng)
        low, high = IRREGULARITY[margin]
        radius, irregularity = (
            float(np.exp(rng.uniform(np.log(RADII[0]), np.log(RADII[1])))),
            float(rng.uniform(low, high)),
        )
        laterality = Laterality.LEFT if rng.random() < 0.5 else Laterality.RIGHT
        conspicuity = float(rng.uniform(*CONSPICUITIES))
        probability, malignant = draw_malignancy(margin, irregularity, radius, anatomy.age, rng)
        for _ in range(50):
            lesion = Lesion(
                laterality, *draw_point(rng), radius, irregularity, margin, conspicuity, probability, malignant
            )
            cc, mlo = anatomy.nipple_distances(lesion.point, radius, FIELD_HEIGHT)
            if abs(cc - mlo) <= NIPPLE_DISTANCE and not any(_touch(lesion, other, anatomy) for other in drawn):
                drawn.append(lesion)
                break
    yield from drawn


def draw_point(rng: Generator) -> tuple[float, float, float]:
    """Draw depth, lateral and vertical."""
    return float(rng.uniform(0.3, 0.75)), float(rng.uniform(-0.5, 0.5)), float(rng.uniform(-0.5, 0.5))


def _touch(lesion: Lesion, other: Lesion, anatomy: Anatomy) -> bool:
    """Tell whether two lesions could overlap in a view."""
    if lesion.laterality is not other.laterality:
        return False
    apart = abs(lesion.depth - other.depth) * anatomy.depth
    across = abs(lesion.lateral - other.lateral) * anatomy.half_width
    return float(np.hypot(apart, across)) < 1.6 * (lesion.radius + other.radius)


def _blurred(field: Field, pixels: float) -> Field:
    """Return a field blurred with this standard deviation."""
    return np.asarray(cv2.GaussianBlur(field, (0, 0), pixels), np.float32)


@dataclass(frozen=True, eq=False)
class Shape:
    """The star-shaped outline of one lesion in one view: R(θ) = radius · exp(Σ aₖ cos(kθ + φₖ)).

    Attributes
    ----------
    spicules
        Angle, length and bend of each, shape (n, 3), in radians, mm and radians.
    hidden
        Middle and half width in radians of the part of an obscured margin that cannot be seen.
    """

    lesion: Lesion
    amplitudes: NDArray[np.float64]
    phases: NDArray[np.float64]
    spicules: NDArray[np.float64]
    hidden: tuple[float, float]

    @classmethod
    def draw(cls, lesion: Lesion, position: ViewPosition, body: Generator) -> "Shape":
        """Draw the outline of a view.

        Parameters
        ----------
        body
            The lesion's own, in the same state for both views: they show one body from two sides.
        """
        falling = (ORDERS / 2) ** -1.2
        common, own = (body.normal(0, 1, (2, ORDERS.size)) for _ in range(2))
        phases = body.uniform(0, 2 * np.pi, ORDERS.size)
        count = int(body.integers(12, 24))
        spicules = np.stack(
            [
                body.uniform(0, 2 * np.pi, count),
                lesion.radius * body.uniform(0.5, 1.6, count),
                body.normal(0, 0.22, count),
            ],
            1,
        )
        hidden = float(body.uniform(0, 2 * np.pi)), float(body.uniform(0.7, 1.4))
        turn = float(body.uniform(0, 2 * np.pi))
        if position is ViewPosition.MLO:
            mixed, phases = 0.75 * common[0] + 0.66 * own[1], phases + ORDERS * turn
            spicules = spicules + np.array([turn, 0, 0])
            hidden = hidden[0] + turn, hidden[1]
        else:
            mixed = common[0]
        if lesion.margin is not Margin.SPICULATED:
            spicules = spicules[:0]
        limit = np.clip(mixed * lesion.irregularity * falling, -0.35, 0.35)
        return cls(lesion, limit, phases, spicules, hidden)

    def distance(self, centre: tuple[float, float], grid: Grid) -> tuple[tuple[slice, slice], Field, Field]:
        """Return the part of the grid around a centre (y, x in mm), there the distance from it (1 is the outline), and θ."""
        window = grid.window(centre, REACH * self.lesion.radius)
        y, x = grid.axes()
        dy, dx = y[window[0]] - np.float32(centre[0]), x[:, window[1]] - np.float32(centre[1])
        angle = np.arctan2(dy, dx)
        swell = sum(
            np.float32(a) * np.cos(np.float32(k) * angle + np.float32(phase))
            for k, a, phase in zip(ORDERS, self.amplitudes, self.phases, strict=True)
        )
        return window, np.asarray(np.hypot(dy, dx) / (self.lesion.radius * np.exp(swell)), np.float32), angle

    def path(self, centre: tuple[float, float], grid: Grid) -> tuple[tuple[slice, slice], Field]:
        """Return the part of the grid around a centre, and the beam's path in mm through the mass there."""
        window, distance, angle = self.distance(centre, grid)
        radius = np.float32(self.lesion.radius)
        whole = np.asarray(2 * FLATNESS * radius * np.sqrt(np.clip(1 - distance**2, 0, 1)), np.float32)
        margin = self.lesion.margin
        if margin is Margin.INDISTINCT:
            # Tumour and tissue mix over a third of the radius.
            whole = _blurred(whole, max(0.6, 0.14 * self.lesion.radius) / grid.spacing)
        elif margin is Margin.OBSCURED:
            off = np.abs((angle - np.float32(self.hidden[0]) + np.pi) % (2 * np.pi) - np.pi)
            covered = 1 / (1 + np.exp((off - np.float32(self.hidden[1])) * 5))
            soft = _blurred(whole, 0.4 * self.lesion.radius / grid.spacing)
            whole = np.asarray(whole * (1 - covered) + 0.75 * np.minimum(soft, whole + 0.3) * covered, np.float32)
        else:
            if margin is Margin.SPICULATED:
                whole = np.maximum(whole, self._spikes(window, centre, grid))
            whole = _blurred(whole, (0.15 if margin is Margin.CIRCUMSCRIBED else 0.25) / grid.spacing)
        return window, np.asarray(whole, np.float32)

    def _spikes(self, window: tuple[slice, slice], centre: tuple[float, float], grid: Grid) -> Field:
        """Return the path in mm through the spicules, which taper from 0.7 mm to 0.1 mm."""
        shape = window[0].stop - window[0].start, window[1].stop - window[1].start
        drawn = np.zeros(shape, np.uint8)
        radius = self.lesion.radius
        corner = np.array([window[1].start, window[0].start])
        for angle, length, bend in self.spicules:
            s = np.linspace(0, 1, 9)
            turn, away = angle + bend * s**2, 0.75 * radius + length * s
            at = np.stack([centre[1] + away * np.cos(turn), centre[0] + away * np.sin(turn)], 1) / grid.spacing
            points = np.round((at - 0.5 - corner) * 16).astype(np.int32)
            for piece in range(8):
                width = (0.7 - 0.6 * (piece + 0.5) / 8) / grid.spacing
                level = int(np.clip(110 * (1 - 0.65 * piece / 8) * min(width, 1), 1, 255))
                cv2.line(drawn, points[piece], points[piece + 1], level, max(1, round(width)), cv2.LINE_AA, 4)
        # A spicule is a sheet seen edge-on: deeper than it is wide, and deeper in larger masses.
        return drawn.astype(np.float32) / np.float32(110) * np.float32(min(6.0, 0.7 * radius))

    def mask(self, centre: tuple[float, float], grid: Grid) -> NDArray[np.bool_]:
        """Return the pixels whose centre is within the outline, shape (rows, columns); spicules do not count."""
        mask = np.zeros((grid.rows, grid.columns), np.bool_)
        window, distance, _ = self.distance(centre, grid)
        mask[window] = distance < 1
        return mask
