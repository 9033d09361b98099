"""What is no mass and may be taken for one, and calcifications: drawn for the breast, then seen in its views."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from ai.exam import Laterality, View, ViewPosition
from ai.phantom.anatomy import Anatomy
from ai.phantom.grid import Field, Grid, power_law
from ai.phantom.lesions import Kind, draw_point

Window = tuple[slice, slice]


@dataclass(frozen=True)
class Distractor:
    """Something in a breast that is no mass for this phantom's truth.

    Attributes
    ----------
    kind
        What it is.
    laterality
        Its breast.
    position
        The only view that shows it; None for both.
    point
        Depth, lateral, vertical, as of a lesion.
    radius
        In mm.
    seed
        Of its shape.
    """

    kind: Kind
    laterality: Laterality
    position: ViewPosition | None
    point: tuple[float, float, float]
    radius: float
    seed: int

    def shown_in(self, view: View) -> bool:
        """Tell whether a view shows it."""
        return self.laterality is view.laterality and self.position in (None, view.position)

    def centre(self, anatomy: Anatomy, view: View, height: float) -> tuple[float, float]:
        """Return y and x in mm; a node lies before the muscle's edge."""
        if self.kind is Kind.NODE:
            y = np.float32(0.12 + 0.3 * self.point[1] ** 2) * np.float32(anatomy.pectoral[1])
            muscle = float(anatomy.muscle(np.array([y], np.float32))[0])
            return float(y), muscle + 14 * (self.point[2] - 0.2)
        return anatomy.place(self.point, self.radius, view.position, height)

    def drawn(self, centre: tuple[float, float], grid: Grid) -> tuple[Window, Field]:
        """Return the part of the grid that shows it, and the path in mm of fibroglandular attenuation that it adds."""
        rng = np.random.default_rng(self.seed)
        window = grid.window(centre, 2.2 * self.radius + 1)
        y, x = grid.axes()
        dy, dx = y[window[0]] - np.float32(centre[0]), x[:, window[1]] - np.float32(centre[1])
        return window, _DRAWN[self.kind](self.radius, dy, dx, grid, rng)


def _ellipse(dy: Field, dx: Field, radius: float, ratio: float, turn: float) -> Field:
    """Return 1 at the middle of an ellipsoid, falling to 0 at its outline as its thickness does."""
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    along, across = (dx * c + dy * s) / np.float32(radius), (dy * c - dx * s) / np.float32(radius * ratio)
    return np.asarray(np.sqrt(np.clip(1 - along**2 - across**2, 0, 1)), np.float32)


def _cyst(radius: float, dy: Field, dx: Field, grid: Grid, rng: Generator) -> Field:
    """A cyst: nearly an ellipse, sharp, less dense than a tumour."""
    ratio, turn = rng.uniform(0.8, 1.0), rng.uniform(0, np.pi)
    path = _ellipse(dy, dx, radius, ratio, turn)
    faint = np.float32(rng.uniform(0.3, 0.75) * 1.5 * radius)
    return cv2.GaussianBlur(path, (0, 0), 0.2 / grid.spacing) * faint


def _node(radius: float, dy: Field, dx: Field, grid: Grid, rng: Generator) -> Field:
    """A bean: an ellipse with fat at its hilum."""
    turn = rng.uniform(0.6, 1.4)
    whole = _ellipse(dy, dx, radius, rng.uniform(0.5, 0.7), turn)
    off = 0.35 * radius
    hilum = _ellipse(dy - np.float32(off * np.cos(turn)), dx + np.float32(off * np.sin(turn)), 0.6 * radius, 0.6, turn)
    path = np.clip(whole - 0.9 * hilum, 0, 1)
    return cv2.GaussianBlur(path, (0, 0), 0.35 / grid.spacing) * np.float32(1.1 * radius)


def _summation(radius: float, dy: Field, dx: Field, grid: Grid, rng: Generator) -> Field:
    """An island of tissue without an outline."""
    ratio, turn = rng.uniform(0.5, 0.9), rng.uniform(0, np.pi)
    soft = _ellipse(dy, dx, 1.4 * radius, ratio, turn) ** 2
    coarse = Grid(dy.shape[0], dx.shape[1], grid.spacing)
    texture = cv2.GaussianBlur(np.clip(0.7 + 0.35 * power_law(coarse, 3.2, rng), 0, 2), (0, 0), 0.4 / grid.spacing)
    return np.asarray(soft * texture * np.float32(rng.uniform(0.6, 1.2) * radius), np.float32)


def _calcifications(radius: float, dy: Field, dx: Field, grid: Grid, rng: Generator) -> Field:
    """Grains of 0.15 to 0.5 mm; calcium attenuates some thirty times as much as glands exceed fat."""
    path = np.zeros((dy.shape[0], dx.shape[1]), np.float32)
    for _ in range(int(rng.integers(5, 21))):
        where = rng.normal(0, 0.4 * radius, 2)
        size = rng.uniform(0.15, 0.5)
        sigma = np.hypot(size / 2.4, 0.3 * grid.spacing)
        # On a coarse grid a grain is fainter, not smaller.
        amount = 33 * 0.8 * size * (size / 2.4 / sigma) ** 2
        ratio = rng.uniform(0.6, 1.5)
        dr, dc = (dy - np.float32(where[0])) * np.float32(ratio), (dx - np.float32(where[1])) / np.float32(ratio)
        path += np.float32(amount) * np.exp(-(dr**2 + dc**2) / np.float32(2 * sigma**2))
    return path


_DRAWN = {
    Kind.CYST: _cyst,
    Kind.NODE: _node,
    Kind.SUMMATION: _summation,
    Kind.CALCIFICATIONS: _calcifications,
}


def draw_distractors(rng: Generator) -> Iterator[Distractor]:
    """Draw the distractors of both breasts."""
    for side in Laterality:
        counts = {
            Kind.CALCIFICATIONS: int(rng.random() < 0.35),
            Kind.NODE: int(rng.choice(3, p=[0.4, 0.4, 0.2])),
            Kind.CYST: int(rng.random() < 0.2),
            Kind.SUMMATION: int(rng.integers(0, 3)),
        }
        for kind, count in counts.items():
            for _ in range(count):
                position = None
                if kind is Kind.NODE:
                    position = ViewPosition.MLO
                elif kind is Kind.SUMMATION:
                    position = ViewPosition.CC if rng.random() < 0.5 else ViewPosition.MLO
                yield Distractor(
                    kind,
                    side,
                    position,
                    draw_point(rng),
                    radius=float(rng.uniform(*_RADII[kind])),
                    seed=int(rng.integers(2**31)),
                )


_RADII = {
    Kind.CALCIFICATIONS: (2.5, 7.0),
    Kind.NODE: (3.0, 7.0),
    Kind.CYST: (3.0, 8.0),
    Kind.SUMMATION: (4.0, 10.0),
}
