"""Breast-like pixels: synthetic mammograms with masses at known places.

A plain generator after published observations: the structure of breast tissue has a 1/f^β power spectrum with β near 3
(Burgess, Med Phys 2001), a compressed breast is flat with a round edge, and fibroglandular tissue fans out behind the
nipple. For engineering verification only: no figure measured on these images says anything about patients.

Everything is computed in millimetres as for a left breast, chest wall at column 0, and mirrored for a right one.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ai.exam import Laterality, View, ViewPosition

Field = NDArray[np.float32]

ROUND_EDGE = 18.0
"""Width in mm of the zone at the skin in which the compressed breast thins out."""

CLEARANCE = 3.0
"""Least distance in mm of a lesion from skin and muscle."""

OBLIQUE = np.float32(np.sqrt(0.5))
"""Sine and cosine of the MLO angle, 45 degrees."""


@dataclass(frozen=True)
class Grid:
    """Rows, columns and spacing in mm of a detector."""

    rows: int
    columns: int
    spacing: float

    def axes(self) -> tuple[Field, Field]:
        """Return the pixel centres in mm: y of shape (rows, 1) and x of shape (1, columns)."""
        y = (np.arange(self.rows, dtype=np.float32) + 0.5) * np.float32(self.spacing)
        x = (np.arange(self.columns, dtype=np.float32) + 0.5) * np.float32(self.spacing)
        return y[:, None], x[None, :]

    def halved(self) -> "Grid":
        """Return the grid with twice the spacing."""
        return Grid(self.rows // 2, self.columns // 2, self.spacing * 2)


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
        Mean radius in mm, 2 to 12.
    irregularity
        0 for a circle; 0.25 is deeply lobed.
    contrast
        Signal at the centre, as a fraction of the display range; tissue structure is about 0.1.
    """

    laterality: Laterality
    depth: float
    lateral: float
    vertical: float
    radius: float = 8.0
    irregularity: float = 0.12
    contrast: float = 0.17

    def __post_init__(self) -> None:
        """Refuse a lesion that one of the views would not show."""
        if not (0 <= self.depth <= 1 and max(abs(self.lateral), abs(self.vertical)) <= 0.5 and 2 <= self.radius <= 12):
            raise ValueError(f"outside of the breast: {self}")


@dataclass(frozen=True)
class Anatomy:
    """What both breasts of a phantom share; lengths in mm.

    Attributes
    ----------
    depth
        Chest wall to nipple.
    half_width
        Nipple to the edge of the breast along the chest wall in CC.
    roundness
        Exponent of the outline.
    density
        0 to 1, share of fibroglandular tissue.
    pectoral
        Width and height of the pectoral muscle in MLO.
    """

    depth: float
    half_width: float
    roundness: float
    density: float
    pectoral: tuple[float, float]

    @classmethod
    def draw(cls, rng: Generator) -> "Anatomy":
        """Draw one at random."""
        return cls(
            depth=rng.uniform(85, 120),
            half_width=rng.uniform(78, 92),
            roundness=rng.uniform(2.0, 2.5),
            density=rng.uniform(0.25, 0.6),
            pectoral=(rng.uniform(42, 60), rng.uniform(115, 150)),
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
        nipple_profile = 3.5 * np.exp(-(((y - nipple) / 5.0) ** 2))
        return np.asarray(edge + nipple_profile * (edge > 0), np.float32)

    def muscle(self, y: Field) -> Field:
        """Return the x at which the pectoral muscle ends in each row of an MLO."""
        width, height = self.pectoral
        v = np.clip(y / height, 0, 1)
        return np.asarray(width * (1 - v) * (1 + 0.35 * v), np.float32)

    def place(self, lesion: Lesion, position: ViewPosition, grid: Grid) -> tuple[float, float]:
        """Return y and x in mm of a lesion's centre, kept within the breast and clear of the muscle."""
        height = grid.rows * grid.spacing
        outwards = lesion.lateral
        if position is ViewPosition.MLO:
            outwards = float(OBLIQUE) * (lesion.lateral + lesion.vertical)
        y = self.nipple_row(position, height) - outwards * self.half_width
        around = np.linspace(-np.pi / 2, np.pi / 2, 31, dtype=np.float32)
        rows = np.asarray(y + lesion.radius * np.sin(around), np.float32)
        reach = lesion.radius * np.cos(around)
        farthest = float((self.outline(position, rows, height) - reach).min()) - CLEARANCE
        nearest = lesion.radius + CLEARANCE
        if position is ViewPosition.MLO:
            nearest = float((self.muscle(rows) + reach).max()) + CLEARANCE
        return y, max(min(lesion.depth * self.depth, farthest), min(nearest, farthest))


@dataclass(frozen=True)
class Shape:
    """The star-shaped outline of one lesion in one view: R(θ) = radius · exp(Σ aₖ cos(kθ + φₖ))."""

    radius: float
    amplitudes: tuple[float, ...]
    phases: tuple[float, ...]

    @classmethod
    def draw(cls, lesion: Lesion, rng: Generator) -> "Shape":
        """Draw one at random; higher harmonics are weaker."""
        orders = np.arange(2, 10)
        amplitudes = rng.normal(0, 1, orders.size) * lesion.irregularity * (orders / 2) ** -1.1
        return cls(lesion.radius, tuple(amplitudes), tuple(rng.uniform(0, 2 * np.pi, orders.size)))

    def seen(self, centre: tuple[float, float], grid: Grid) -> tuple[tuple[slice, slice], Field]:
        """Return the part of the grid around a centre (y, x in mm), and there the distance from it: 1 is the outline."""
        first, last = ((np.array(centre) + side * 2 * self.radius) / grid.spacing for side in (-1, 1))
        window = tuple(slice(max(int(a), 0), max(int(b) + 1, 0)) for a, b in zip(first, last, strict=True))
        y, x = grid.axes()
        dy, dx = y[window[0]] - np.float32(centre[0]), x[:, window[1]] - np.float32(centre[1])
        angle = np.arctan2(dy, dx)
        swell = sum(
            a * np.cos(k * angle + phase)
            for k, (a, phase) in enumerate(zip(self.amplitudes, self.phases, strict=True), start=2)
        )
        return (window[0], window[1]), np.asarray(np.hypot(dy, dx) / (self.radius * np.exp(swell)), np.float32)


def power_law(grid: Grid, beta: float, rng: Generator, stretch: float = 1.0) -> Field:
    """Return noise of mean 0 and standard deviation 1 with the power spectrum 1/f^beta, flat above 80 mm.

    Parameters
    ----------
    stretch
        How much longer structures are along the rows (towards the nipple) than across.
    """
    fy = np.fft.fftfreq(grid.rows, grid.spacing).astype(np.float32)[:, None]
    fx = np.fft.rfftfreq(grid.columns, grid.spacing).astype(np.float32)[None, :] * stretch
    amplitude = np.maximum(fy**2 + fx**2, np.float32(1 / 80) ** 2) ** np.float32(-beta / 4)
    amplitude[0, 0] = 0
    white = rng.standard_normal((grid.rows, grid.columns), dtype=np.float32)
    noise = np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=white.shape)
    return np.asarray(noise / noise.std(), np.float32)


def strands(grid: Grid, rng: Generator) -> Field:
    """Return thin curved lines of height 0 to 1, like Cooper's ligaments: the zero lines of smooth noise."""
    lines = np.zeros((grid.rows, grid.columns), np.float32)
    for beta, width in ((3.6, 0.03), (2.8, 0.045)):
        field = cv2.GaussianBlur(power_law(grid, beta, rng, stretch=1.6), (0, 0), 1.2 / grid.spacing)
        lines += np.exp(-((field / width) ** 2))
    return np.clip(lines, 0, 1)


def thickness(anatomy: Anatomy, position: ViewPosition, grid: Grid) -> tuple[Field, Field]:
    """Return the distance from the skin in mm, and the compressed thickness, 0 outside of the breast to 1."""
    y, x = grid.axes()
    inside = x < anatomy.outline(position, y, grid.rows * grid.spacing)
    # The chest wall is no edge of the breast: pad it, so that only skin counts.
    padded = cv2.copyMakeBorder(inside.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1] * np.float32(grid.spacing)
    rounded = np.sqrt(1 - (1 - np.clip(depth / ROUND_EDGE, 0, 1)) ** 2)
    return np.asarray(depth, np.float32), np.asarray(rounded, np.float32)


def parenchyma(anatomy: Anatomy, position: ViewPosition, grid: Grid, rng: Generator) -> Field:
    """Return fat, glandular tissue and ligaments of a slab of constant thickness, 0 to about 0.8."""
    y, x = grid.axes()
    nipple = anatomy.nipple_row(position, grid.rows * grid.spacing)
    fan = np.exp(
        -((np.abs(y - nipple) / (anatomy.half_width * 0.62)) ** 2.5)
        - (np.abs(x - anatomy.depth * 0.52) / (anatomy.depth * 0.42)) ** 3
    )
    clumps = 1.5 * power_law(grid, 3.2, rng, stretch=1.4)
    gland = 1 / (1 + np.exp(-(clumps + 2.6 * (fan - 0.6) + 3.2 * (anatomy.density - 0.45))))
    level = 0.24 + 0.40 * gland * (0.35 + 0.65 * fan)
    level += 0.030 * power_law(grid, 2.5, rng, stretch=1.3)
    level += 0.075 * strands(grid, rng) * (0.35 + 0.65 * gland)
    return np.asarray(level, np.float32)


def with_muscle(level: Field, anatomy: Anatomy, grid: Grid, rng: Generator) -> Field:
    """Lay the pectoral muscle over the tissue of an MLO, brighter towards the armpit."""
    y, x = grid.axes()
    height = anatomy.pectoral[1]
    muscle = 0.44 + 0.03 * power_law(grid, 2.8, rng, stretch=0.4) + 0.14 * (1 - np.clip(y / height, 0, 1))
    share = np.where(y < height + 4, 1 / (1 + np.exp(np.clip(x - anatomy.muscle(y), -8, 8))), 0)
    return np.asarray(level * (1 - share) + (muscle + 0.25 * (level - 0.3)) * share, np.float32)


def render(
    view: View, anatomy: Anatomy, lesions: tuple[Lesion, ...], grid: Grid, rng: Generator
) -> tuple[NDArray[np.uint16], tuple[NDArray[np.bool_], ...]]:
    """Render one view.

    Parameters
    ----------
    lesions
        The lesions of this breast.

    Returns
    -------
    pixels
        Shape (rows, columns), presentation values of 12 bits, bright = dense, 0 outside of the breast.
    masks
        One per lesion, of the same shape, bool.
    """
    # Structure finer than the halved grid is weaker than the noise.
    model = grid.halved() if grid.spacing < 0.15 else grid
    skin, thick = thickness(anatomy, view.position, model)
    level = parenchyma(anatomy, view.position, model, rng)
    if view.position is ViewPosition.MLO:
        level = with_muscle(level, anatomy, model, rng)
    # Presentation images are equalised towards the skin, so most but not all of the roll-off is gone.
    level *= thick**0.8 * (0.9 + 0.1 * np.clip(skin / 8, 0, 1))
    # Drawn before the lesions, so that an exam without them has the same noise.
    noise = rng.standard_normal((grid.rows, grid.columns), dtype=np.float32)
    masks = []
    for lesion in lesions:
        centre = anatomy.place(lesion, view.position, grid)
        shape = Shape.draw(lesion, rng)
        window, distance = shape.seen(centre, model)
        profile = cv2.GaussianBlur(np.sqrt(np.clip(1 - distance**2, 0, 1)), (0, 0), 0.5 / model.spacing)
        # A mass replaces tissue: it adds less where tissue is dense already.
        level[window] += np.float32(lesion.contrast) * profile * thick[window] * np.clip(1.35 - level[window], 0.3, 1)
        mask = np.zeros(noise.shape, np.bool_)
        window, distance = shape.seen(centre, grid)
        mask[window] = distance < 1
        masks.append(mask)
    if model is not grid:
        level = np.asarray(cv2.resize(level, (grid.columns, grid.rows), interpolation=cv2.INTER_CUBIC), np.float32)
    level += np.float32(0.002 + 0.0004 / grid.spacing) * noise * np.sqrt(np.clip(level, 0, 1))
    pixels = np.clip(level * 4095, 0, 4095).astype(np.uint16)
    if view.laterality is Laterality.RIGHT:
        return np.ascontiguousarray(pixels[:, ::-1]), tuple(np.ascontiguousarray(mask[:, ::-1]) for mask in masks)
    return pixels, tuple(masks)
