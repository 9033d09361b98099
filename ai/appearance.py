"""How an image looks, in a handful of numbers that need no network: where the breast lies, its outline, its grey values."""

from dataclasses import astuple, dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray

from ai.breast import breast_of
from ai.exam import ViewImage

_LONGEST = 256
"""Longer side, in pixels, of the copy that is measured."""

_BORDER = 0.015
"""Fraction of the longer side that the search for the breast leaves out, where films have bright borders."""

_EDGE = 0.06
"""Part of the breast's box, at each side, in which its outline counts as straight along that side."""

_SAMPLE = 400
"""Rows and columns in which grey levels are counted."""


@dataclass(frozen=True)
class Appearance:
    """Statistics of one image.

    Attributes
    ----------
    area
        Of the breast, as a fraction of the image.
    solidity
        Area of the breast over that of its convex hull.
    proportion
        Height over width of the breast's box, as seen.
    left, right, top, bottom
        0 to 1, part of this side of the box along which the outline is straight.
    gap
        From the breast to the nearer of the left and right borders of the image, in widths of the image.
    cut_top, cut_bottom
        Part of the box's width at which the image's upper and lower border cuts the breast off.
    cut_far
        Part of the box's height at which both the left and the right border cut it off, or the less cut of them does.
    heavier
        Area of the breast in the left half of the image less that in the right half, over their sum: -1 to 1.
    brightness, spread
        Mean and standard deviation of the grey values in the breast.
    bright, dark
        Part of the image brighter than 0.8, and darker than 0.1.
    clipped
        Part of the breast at the largest value of the image.
    plateau
        Part of the breast taken by its largest connected bright and even area.
    texture
        Fine structure, below three pixels of the copy, as a part of ``spread``.
    corner
        Brightness of the upper corner at the chest wall, where the pectoral muscle lies in MLO, over ``brightness``.
    top_width
        Width of the breast in the uppermost twentieth of its box, in widths of the box.
    levels
        Number of different grey values among 160,000 pixels or fewer.
    """

    area: float
    solidity: float
    proportion: float
    left: float
    right: float
    top: float
    bottom: float
    gap: float
    cut_top: float
    cut_bottom: float
    cut_far: float
    heavier: float
    brightness: float
    spread: float
    bright: float
    dark: float
    clipped: float
    plateau: float
    texture: float
    corner: float
    top_width: float
    levels: int

    def vector(self, names: tuple[str, ...]) -> NDArray[np.float64]:
        """Return the named statistics, shape (n,)."""
        values = dict(zip((f.name for f in fields(self)), astuple(self), strict=True))
        return np.array([values[name] for name in names], np.float64)


def appearance(image: ViewImage) -> Appearance:
    """Measure an image.

    Raises
    ------
    NoBreast
        When there is no breast; the image is named.
    """
    found = breast_of(image)
    rows, columns = image.shape
    factor = _LONGEST / max(rows * image.pixel_aspect, columns)
    size = max(round(columns * factor), 8), max(round(rows * image.pixel_aspect * factor), 8)
    small = cv2.resize(image.pixels, size, interpolation=cv2.INTER_AREA).astype(np.float32, copy=False)
    mask = cv2.resize(found.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    used_rows, used_columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom = int(used_rows[0]), int(used_rows[-1]) + 1
    left, right = int(used_columns[0]), int(used_columns[-1]) + 1
    box = mask[top:bottom, left:right]
    half = size[0] // 2
    sides = float(mask[:, :half].sum()), float(mask[:, -half:].sum())
    heavier = (sides[0] - sides[1]) / max(sum(sides), 1.0)
    turned = box if heavier >= 0 else box[:, ::-1]
    grey = small[top:bottom, left:right]
    grey = grey if heavier >= 0 else grey[:, ::-1]
    inside = small[mask]
    brightness, spread = float(inside.mean()), float(inside.std())
    margin = round(_BORDER * max(size)) + 2
    high, wide = box.shape
    strip = max(high // 20, 1)
    tall, across = max(high // 5, 1), max(wide // 5, 1)
    corner = grey[:tall, :across][turned[:tall, :across]]
    return Appearance(
        area=float(mask.mean()),
        solidity=_solidity(mask),
        proportion=high / wide,
        left=_straight(box),
        right=_straight(box[:, ::-1]),
        top=_straight(box.T),
        bottom=_straight(box[::-1].T),
        gap=min(left, size[0] - right) / size[0],
        cut_top=float(mask[:margin].any(0).sum() / wide),
        cut_bottom=float(mask[-margin:].any(0).sum() / wide),
        cut_far=float(min(mask[:, :margin].any(1).sum(), mask[:, -margin:].any(1).sum()) / high),
        heavier=heavier,
        brightness=brightness,
        spread=spread,
        bright=float((small > 0.8).mean()),
        dark=float((small < 0.1).mean()),
        clipped=float((small[mask] >= 0.995).mean()),
        plateau=_plateau(small, mask),
        texture=_texture(small, mask) / max(spread, 1e-6),
        corner=float(corner.mean()) / max(brightness, 1e-6) if corner.size else 0.0,
        top_width=float(box[:strip].any(0).mean()),
        levels=_levels(image.pixels),
    )


def _solidity(mask: NDArray[np.bool_]) -> float:
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = np.zeros(mask.shape, np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(np.concatenate(outlines)), (1,))
    return float(mask.sum() / max(int(hull.sum()), 1))


def _straight(box: NDArray[np.bool_]) -> float:
    """Return the part of the rows whose breast begins within the first columns."""
    return float(box[:, : max(round(_EDGE * box.shape[1]), 1)].any(1).mean())


def _texture(small: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    inner = cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    fine = small - cv2.GaussianBlur(small, (0, 0), 1.5)
    return float(fine[inner].std()) if inner.any() else 0.0


def _plateau(small: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    smooth = cv2.GaussianBlur(small, (0, 0), 1)
    slope = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=0.125), cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=0.125))
    low, high = np.percentile(small[mask], (50, 99))
    even = (mask & (slope < 0.006) & (smooth > (low + 2 * high) / 3)).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(even)
    return float(stats[1:, cv2.CC_STAT_AREA].max() / mask.sum()) if count > 1 else 0.0


def _levels(pixels: NDArray[np.float32]) -> int:
    rows, columns = (max(side // _SAMPLE, 1) for side in pixels.shape)
    return int(np.unique(pixels[::rows, ::columns]).size)
