"""Fibroglandular tissue, fat, strands, ducts, vessels and muscle: how much of the beam's path each takes.

The structure follows a power law 1/f^β with β near 3 (Burgess, Med Phys 2001), fans out from the nipple, and is ridged,
since connective tissue is made of sheets seen edge-on. Ligaments are the zero lines of smooth noise: closed curves
without corners, unlike the cells of a Voronoi diagram.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from ai.exam import ViewPosition
from ai.phantom.anatomy import Anatomy, Slab
from ai.phantom.grid import Field, Grid, banded, enlarged, power_law, smooth_line

FAN_CENTRE = 40.0
"""How many mm in front of the nipple the lines meet along which tissue is drawn out."""

LAYERS = 2
"""The beam goes through so many layers of tissue that have nothing to do with each other."""

FAN_RADIUS = 90.0
"""Distance from there at which tissue is as wide as it was drawn."""


@dataclass(frozen=True)
class Fan:
    """Where each pixel's tissue is taken from, so that what was drawn out along rows points to the nipple.

    Attributes
    ----------
    grid
        Of the result and, enlarged enough, of what it is taken from.
    columns, rows
        Shape (rows, columns), in pixels of the source.
    """

    grid: Grid
    columns: Field
    rows: Field

    @classmethod
    def of(cls, anatomy: Anatomy, position: ViewPosition, grid: Grid) -> "Fan":
        """Return the fan of a view."""
        y, x = grid.axes()
        nipple_y, nipple_x = anatomy.nipple(position, grid.height)
        across, along = y - np.float32(nipple_y), np.float32(nipple_x + FAN_CENTRE) - x
        radius = np.hypot(across, along)
        turn = np.arctan2(across, along)
        return cls(
            grid,
            np.asarray(radius / np.float32(grid.spacing), np.float32),
            np.asarray((turn + np.float32(np.pi / 2)) * np.float32(FAN_RADIUS / grid.spacing), np.float32),
        )

    def spread(self, field: Field) -> Field:
        """Return a field drawn out towards the nipple."""
        return np.asarray(
            cv2.remap(field, self.columns, self.rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP), np.float32
        )


def gland(anatomy: Anatomy, position: ViewPosition, slab: Slab, fan: Fan, rng: Generator) -> Field:
    """Return the share of fibroglandular tissue, 0 to 1; its mean over the breast is the anatomy's density."""
    grid = fan.grid
    y, x = grid.axes()
    nipple_y, nipple_x = anatomy.nipple(position, grid.height)
    middle, half = anatomy.core
    shift = rng.normal(0, 0.06) - (0.12 if position is ViewPosition.MLO else 0)
    sideways = (y - np.float32(nipple_y)) / np.float32(anatomy.half_width) - np.float32(shift)
    inwards = x / np.float32(nipple_x)
    # A disc behind the nipple that narrows towards it.
    width = np.clip(half * (0.35 + 0.9 * np.clip(1.02 - inwards, 0, 1)), 0.05, half)
    disc = -((np.abs(sideways) / width) ** 2) - (np.abs(inwards - middle) / (0.62 * middle)) ** 3
    edge = np.clip((slab.from_skin - 4) / 9, 0, 1)  # beneath the skin there is fat
    broad = enlarged(power_law(grid.coarser(0.8), anatomy.beta + 0.3, rng, stretch=1.4), grid)
    place = 1.3 * np.maximum(disc, -3.5) + 0.8 * fan.spread(broad)
    layers, texture = [], np.zeros_like(place)
    for _ in range(LAYERS):
        clumps = fan.spread(power_law(grid, anatomy.beta + 0.2, rng, stretch=1.5))
        ridges = 0.8 - np.abs(fan.spread(power_law(grid, anatomy.beta - 0.1, rng, stretch=2.0)))
        lobules = np.maximum(fan.spread(banded(grid, rng.uniform(8, 12), rng, stretch=1.6)), -0.4)
        texture += clumps / LAYERS
        layers.append(np.asarray(place + 1.0 * clumps + 2.0 * ridges - 0.9 * lobules, np.float32))
    # Nowhere is there nothing but glands: the less of them there are, the more thinly they are spread.
    most = 0.24 + 1.3 * anatomy.density
    ceiling = edge * most * (1 + 0.12 * np.clip(texture, -2, 2))
    return _levelled(layers, np.asarray(ceiling, np.float32), slab, anatomy.density)


def _levelled(layers: list[Field], ceiling: Field, slab: Slab, density: float) -> Field:
    """Return the mean of the layers' logistics below a ceiling; to each layer the number is added that gives the density."""
    weight = slab.thickness[::4, ::4]
    samples, border = [layer[::4, ::4] for layer in layers], ceiling[::4, ::4]
    low, high = -12.0, 12.0
    for _ in range(20):
        middle = np.float32((low + high) / 2)
        share = border * sum(1 / (1 + np.exp(-(sample + middle))) for sample in samples) / len(layers)
        if float((share * weight).sum()) > density * float(weight.sum()):
            high = float(middle)
        else:
            low = float(middle)
    whole = sum(1 / (1 + np.exp(-(layer + np.float32(low)))) for layer in layers)
    return np.asarray(ceiling * whole / np.float32(len(layers)), np.float32)


def strands(share: Field, slab: Slab, fan: Fan, rng: Generator) -> Field:
    """Return the path in mm through ligaments and fine fibres."""
    grid = fan.grid
    path = np.zeros((grid.rows, grid.columns), np.float32)
    fine, coarse = (enlarged(power_law(grid.coarser(0.8), 2.8, rng), grid) for _ in range(2))
    for wavelength, fading, width, amount in ((19, coarse, 0.5, 3.0), (11, coarse, 0.4, 2.8), (6, fine, 0.35, 2.0)):
        field = fan.spread(banded(grid, wavelength, rng, stretch=3.0))
        along, across = (cv2.Sobel(field, cv2.CV_32F, dx, 1 - dx, scale=0.125) for dx in (1, 0))
        distance = np.abs(field) / (cv2.magnitude(along, across) + np.float32(1e-4)) * np.float32(grid.spacing)
        wide = np.float32(max(width, 0.6 * grid.spacing))
        line = np.exp(-((distance / wide) ** 2)) * np.float32(width) / wide
        path += np.float32(amount) * line * np.clip(0.3 + 0.5 * fading, 0, 1.4)
    fibres = fan.spread(power_law(grid, 2.4, rng, stretch=5.0))
    path += np.float32(0.9) * np.clip(fibres, -1.5, 3)
    # Where there is fat alone they are few and fine.
    path *= np.float32(0.5) + np.float32(2) * share
    return np.asarray(path * np.clip(slab.from_skin / 6, 0, 1), np.float32)


@dataclass(frozen=True)
class Walk:
    """A curved line with a width at each point: a duct or a vessel. Lengths in mm."""

    points: Field
    widths: Field

    @classmethod
    def draw(
        cls, start: tuple[float, float], angle: float, length: float, widths: tuple[float, float], rng: Generator
    ) -> "Walk":
        """Draw one from a start (y, x), that first goes at an angle from the direction of the chest wall."""
        step = 0.8
        count = max(int(length / step), 2)
        bends = (
            np.cumsum(rng.normal(0, 0.02, count)) + angle + 0.12 * np.sin(np.arange(count) * step / rng.uniform(4, 9))
        )
        y = start[0] + np.cumsum(np.sin(bends)) * step
        x = start[1] - np.cumsum(np.cos(bends)) * step
        return cls(np.stack([y, x], 1).astype(np.float32), np.linspace(widths[0], widths[1], count, dtype=np.float32))


def ducts(anatomy: Anatomy, position: ViewPosition, grid: Grid, rng: Generator) -> list[Walk]:
    """Return trees of ducts that begin behind the nipple."""
    nipple_y, nipple_x = anatomy.nipple(position, grid.height)
    found = []
    for angle in np.linspace(-0.9, 0.9, int(rng.integers(5, 10))):
        heads = [((nipple_y + 4 * angle, nipple_x - 3), angle + rng.normal(0, 0.15), 1.3, 0)]
        while heads:
            start, turn, width, level = heads.pop()
            walk = Walk.draw(start, turn, rng.uniform(9, 24), (width, 0.75 * width), rng)
            found.append(walk)
            if level < 3:
                end = (float(walk.points[-1, 0]), float(walk.points[-1, 1]))
                heads += [(end, turn + side * rng.uniform(0.15, 0.5), 0.75 * width, level + 1) for side in (-1, 1)]
    return found


def vessels(anatomy: Anatomy, position: ViewPosition, grid: Grid, rng: Generator) -> list[Walk]:
    """Return vessels that come from the chest wall's side and run towards the nipple."""
    nipple_y, _ = anatomy.nipple(position, grid.height)
    found = []
    for _ in range(int(rng.integers(2, 5))):
        side = rng.uniform(-0.75, 0.75)
        start = (nipple_y + side * anatomy.half_width, rng.uniform(5, 30))
        angle = np.pi + rng.normal(-0.5 * side, 0.2)
        found.append(Walk.draw(start, angle, rng.uniform(40, 90), (rng.uniform(1.2, 2.2), 0.5), rng))
    return found


def traced(walks: list[Walk], grid: Grid) -> Field:
    """Return the path in mm through tubes along the walks, as round as they are wide."""
    drawn = np.zeros((grid.rows, grid.columns), np.uint8)
    for walk in walks:
        points = np.round((walk.points[:, ::-1] / grid.spacing - 0.5) * 16).astype(np.int32)
        pixels = np.maximum(walk.widths / grid.spacing, 1)
        # What is narrower than a pixel darkens that pixel in part.
        levels = np.clip(80 * walk.widths * np.minimum(walk.widths / grid.spacing, 1), 1, 255)
        pieces = max(len(points) // 6, 1)
        for piece in np.array_split(np.arange(len(points)), pieces):
            last = min(int(piece[-1]) + 1, len(points) - 1)
            line = points[int(piece[0]) : last + 1]
            wide = max(1, round(float(pixels[piece[0]])))
            cv2.polylines(
                drawn,
                [line],
                isClosed=False,
                color=int(levels[piece[0]]),
                thickness=wide,
                lineType=cv2.LINE_AA,
                shift=4,
            )
    soft = cv2.GaussianBlur(drawn, (0, 0), max(0.25 / grid.spacing, 0.5))
    return soft.astype(np.float32) / np.float32(80)


def muscle(anatomy: Anatomy, grid: Grid, rng: Generator) -> tuple[Field, Field]:
    """Return where the pectoral muscle of an MLO lies, 0 to 1, and the share of the beam's path that it takes."""
    y, x = grid.axes()
    width, height = anatomy.pectoral
    ripple = 1.3 * smooth_line(grid.rows, grid.spacing, 35, rng)[:, None]
    lies = 1 / (1 + np.exp(np.clip((x - anatomy.muscle(y) - ripple) / np.float32(1.1), -20, 20)))
    # Fibres run along the muscle's edge.
    lean = np.arctan2(height, width)
    coarse = grid.coarser(0.6)
    wide = Grid(2 * max(coarse.rows, coarse.columns), 2 * max(coarse.rows, coarse.columns), coarse.spacing)
    drawn = power_law(wide, 2.9, rng, stretch=5.0)
    turned = cv2.warpAffine(
        drawn,
        cv2.getRotationMatrix2D((wide.columns / 2, wide.rows / 2), float(np.rad2deg(lean)), 1),
        (wide.columns, wide.rows),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )[wide.rows // 4 :, wide.columns // 4 :][: coarse.rows, : coarse.columns]
    fibres = cv2.resize(turned, (grid.columns, grid.rows), interpolation=cv2.INTER_LINEAR)
    share = 0.2 + 0.22 * (1 - np.clip(y / height, 0, 1)) + np.float32(0.03) * fibres
    return np.asarray(lies, np.float32), np.asarray(np.clip(share, 0.05, 0.9), np.float32)
