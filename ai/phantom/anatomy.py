"""The compressed breast: outline, muscle, thickness, and where a point of it is seen in each view. Lengths in mm."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ai.exam import ViewPosition
from ai.phantom.grid import Field, Grid, smooth_line

CLEARANCE = 4.0
"""Least distance of a lesion's outline from skin and muscle."""

FIELD_HEIGHT = 230.0
"""Of the field of view that lesions are drawn for; detectors differ from it by a few mm."""

OBLIQUE = np.deg2rad(50)
"""Angle of the MLO view's plane against that of CC."""

DENSITIES = {"A": 0.05, "B": 0.12, "C": 0.22, "D": 0.38}
"""Mean share of fibroglandular tissue in the breast's volume, by BI-RADS category."""

AGE, AGE_BY_DENSITY, AGE_SPREAD, AGES = 62, 3, 8, (40, 80)
"""Mean age at density A, how much less it is with each category, standard deviation, least and greatest; in years."""

SHARES = (0.15, 0.40, 0.35, 0.10)
"""How often each category is drawn."""


@dataclass(frozen=True)
class Anatomy:
    """What both breasts of a phantom share.

    Attributes
    ----------
    age
        In years.
    category
        BI-RADS density, A to D.
    density
        Share of fibroglandular tissue in the breast, 0 to 1.
    depth
        Chest wall to nipple.
    half_width
        Nipple to the edge of the breast along the chest wall in CC.
    roundness
        Exponent of the outline.
    thickness
        Of the compressed breast.
    pectoral
        Width and height of the pectoral muscle in MLO.
    core
        Depth of the middle of the fibroglandular tissue, as a fraction of the breast's, and its half width likewise.
    beta
        Exponent of the tissue's power spectrum.
    """

    age: int
    category: str
    density: float
    depth: float
    half_width: float
    roundness: float
    thickness: float
    pectoral: tuple[float, float]
    core: tuple[float, float]
    beta: float

    @classmethod
    def draw(cls, rng: Generator) -> "Anatomy":
        """Draw one at random; dense breasts are smaller, compressed thinner, and of younger women."""
        category = str(rng.choice(list(DENSITIES), p=SHARES))
        rank = list(DENSITIES).index(category)
        return cls(
            age=int(np.clip(rng.normal(AGE - AGE_BY_DENSITY * rank, AGE_SPREAD), *AGES)),
            category=category,
            density=DENSITIES[category] * float(np.exp(rng.normal(0, 0.15))),
            depth=rng.uniform(85, 122 - 7 * rank),
            half_width=rng.uniform(76, 94 - 2 * rank),
            roundness=rng.uniform(2.0, 2.5),
            thickness=rng.uniform(46, 68) - 4 * rank,
            pectoral=(rng.uniform(42, 58), rng.uniform(115, 150)),
            core=(rng.uniform(0.5, 0.62), rng.uniform(0.5, 0.68)),
            beta=float(np.clip(rng.normal(2.95, 0.1), 2.75, 3.15)),
        )

    def nipple_row(self, position: ViewPosition, height: float) -> float:
        """Return the nipple's y in an image of the given height."""
        return height * (0.5 if position is ViewPosition.CC else 0.57)

    def outline(self, position: ViewPosition, y: Field, height: float) -> Field:
        """Return the x at which the breast ends in each row."""
        nipple = self.nipple_row(position, height)
        upper, lower = self.half_width, self.half_width
        if position is ViewPosition.MLO:
            upper, lower = 1.3 * upper, 0.95 * lower
        u = np.clip(np.abs(y - nipple) / np.where(y < nipple, upper, lower), 0, 1)
        edge = self.depth * (1 - u**self.roundness) ** (1 / 2.1)
        if position is ViewPosition.MLO:
            axilla = np.clip(self.pectoral[0] * 1.5 - 0.28 * y, 0, None) * (y < nipple)
            edge = (edge**6 + axilla**6) ** (1 / 6)
        nipple_profile = 4.0 * np.exp(-(((y - nipple) / 5.0) ** 4))
        return np.asarray(edge + nipple_profile * (edge > 0), np.float32)

    def muscle(self, y: Field) -> Field:
        """Return the x at which the pectoral muscle ends in each row of an MLO; convex, negative below it."""
        width, height = self.pectoral
        v = y / height
        return np.asarray(width * (1 - v) * (1 + 0.35 * np.clip(v, 0, 1)), np.float32)

    def nipple(self, position: ViewPosition, height: float) -> tuple[float, float]:
        """Return y and x of the nipple."""
        return self.nipple_row(position, height), self.depth

    def place(
        self, point: tuple[float, float, float], radius: float, position: ViewPosition, height: float
    ) -> tuple[float, float]:
        """Return y and x of the centre of something round, kept within the breast and clear of the muscle.

        Parameters
        ----------
        point
            Depth, 0 at the chest wall to 1 at the nipple; how far outwards and upwards of the nipple, in half widths.
        radius
            Of what is placed.
        height
            Of the image.
        """
        depth, lateral, vertical = point
        outwards = lateral
        if position is ViewPosition.MLO:
            outwards = float(np.cos(OBLIQUE) * lateral + np.sin(OBLIQUE) * vertical)
        for share in np.linspace(1, 0, 11):  # where the breast is too thin for it, nearer to the nipple's level
            y = self.nipple_row(position, height) - share * outwards * self.half_width
            nearest, farthest = self._room(y, radius, position, height)
            if nearest <= farthest:
                break
        return y, max(min(depth * self.depth, farthest), min(nearest, farthest))

    def _room(self, y: float, radius: float, position: ViewPosition, height: float) -> tuple[float, float]:
        """Return between which x something round may lie at this y."""
        around = np.linspace(-np.pi / 2, np.pi / 2, 31, dtype=np.float32)
        rows = np.asarray(y + radius * np.sin(around), np.float32)
        reach = radius * np.cos(around)
        farthest = float((self.outline(position, rows, height) - reach).min()) - CLEARANCE
        nearest = radius + CLEARANCE
        if position is ViewPosition.MLO:
            nearest = max(nearest, float((self.muscle(rows) + reach).max()) + CLEARANCE)
        return nearest, farthest

    def nipple_distances(self, point: tuple[float, float, float], radius: float, height: float) -> tuple[float, float]:
        """Return how far something lies from the nipple in CC and in MLO, in mm."""
        cc, mlo = (
            float(np.hypot(*np.subtract(self.place(point, radius, view, height), self.nipple(view, height))))
            for view in ViewPosition
        )
        return cc, mlo


@dataclass(frozen=True, eq=False)
class Slab:
    """The breast between the paddles in one view.

    Attributes
    ----------
    inside
        Shape (rows, columns), bool.
    from_skin
        Distance from the skin in mm, 0 outside.
    thickness
        Path of the beam in mm, 0 outside.
    skin
        The part of that path that lies in skin.
    """

    inside: NDArray[np.bool_]
    from_skin: Field
    thickness: Field
    skin: Field

    def coarser(self, step: int) -> "Slab":
        """Return every so many pixels of it."""
        some = np.s_[::step, ::step]
        return Slab(self.inside[some], self.from_skin[some], self.thickness[some], self.skin[some])


SKIN = 1.2
"""Thickness of the skin."""


def compress(anatomy: Anatomy, position: ViewPosition, grid: Grid, rng: Generator) -> Slab:
    """Return the slab: flat, with an edge as round as half its thickness, and an outline that is not quite smooth."""
    y, x = grid.axes()
    ripple = 0.7 * smooth_line(grid.rows, grid.spacing, 45, rng)[:, None]
    edge = anatomy.outline(position, y, grid.height)
    inside = x < edge + ripple * np.clip(edge / 20, 0, 1)
    # The borders of the image are no edge of the breast: pad it, so that only skin counts.
    padded = cv2.copyMakeBorder(inside.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    from_skin = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1] * np.float32(grid.spacing)
    radius = np.float32(anatomy.thickness / 2)
    whole = _chord(radius, from_skin)
    inner = _chord(radius - np.float32(SKIN), np.maximum(from_skin - np.float32(SKIN), 0))
    return Slab(np.asarray(inside), np.asarray(from_skin, np.float32), whole, np.asarray(whole - inner, np.float32))


def _chord(radius: np.floating, depth: Field) -> Field:
    """Return the path through a slab with a round edge, at a distance from that edge."""
    return np.asarray(2 * np.sqrt(np.maximum(radius**2 - np.maximum(radius - depth, 0) ** 2, 0)), np.float32)
