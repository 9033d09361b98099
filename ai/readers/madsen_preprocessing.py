"""The preprocessing of Madsen's project (section 7.3) with its faults of 16 bits mended, as pure functions.

Breast to the left, rows cropped, contrast enhanced, everything but the breast black, columns cropped. The listings show
flip, enhancement and mask; the crops are told in words (section 6.2), the mask's threshold is named LOWER_LIMIT.

Mended: ``clahe // 0xFF`` makes 257 of 65535, which wraps to 1 in 8 bits (here ``>> 8``); ``channels & mask`` with a mask
of 255 keeps the low byte of 16-bit values alone (here a choice by the mask); a clip limit of 100 is all but none (here
the card's).
"""

from dataclasses import dataclass
from typing import Final, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from ai.breast import Geometry, breast_of
from ai.errors import NoBreast
from ai.exam import ViewImage

TILES: Final = (5, 5)
"""Tiles of the enhancement, across and down."""
BLUR: Final = 151 / 5300
"""Side of the blur before the mask, in longest sides: 151 pixels of a film of CBIS-DDSM, which has about 5300 rows."""
EDGE: Final = 0.015
"""Longest sides at the edges where scanned films have bright borders, as in ai.breast."""
DARKER: Final = 0.4
"""The mask's threshold in Otsu's, which tells fat from gland in a bright breast; the project's is not stated."""
_ROUNDING = 1e-3  # pixels

Pixel = TypeVar("Pixel", bound=np.generic)


@dataclass(frozen=True)
class Crop:
    """Rows and columns that are kept.

    Attributes
    ----------
    top, bottom, left, right
        The first that are kept and the first behind them.
    """

    top: int
    bottom: int
    left: int
    right: int

    @property
    def window(self) -> tuple[slice, slice]:
        """What is kept, as an index."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


@dataclass(frozen=True, eq=False)
class Enhanced:
    """A mammogram as the project's networks see it, still in its own place.

    Attributes
    ----------
    pixels
        Shape of the image, float32, 0 to 1; 0 beside the breast.
    crop
        The breast in the image.
    mirrored
        True when the chest wall is at the right of the image.
    """

    pixels: NDArray[np.float32]
    crop: Crop
    mirrored: bool

    def geometry(self, canvas: tuple[int, int], pixel_aspect: float = 1.0) -> Geometry:
        """Return the way to a canvas that holds the crop with its aspect kept, chest wall at the left."""
        height, width = self.crop.bottom - self.crop.top, self.crop.right - self.crop.left
        scale = min(canvas[1] / width, canvas[0] / (height * pixel_aspect))
        box = self.crop.left, self.crop.top, width, height
        return Geometry(self._shape, box, self.mirrored, (scale, scale * pixel_aspect), canvas)

    def region(self, corners: NDArray[np.float64], side: int) -> Geometry | None:
        """Return the way to a square canvas that a part of the breast's crop fills, whatever its aspect.

        Parameters
        ----------
        corners
            x and y of two opposite ones in the image, shape (2, 2); the pixels of the crop between them are the part,
            those that they cut included.
        side
            Of the canvas.

        Returns
        -------
        Geometry or None
            None when there is no such pixel.
        """
        # Corners on a pixel's edge, but for rounding, do not cut it.
        left, top = (int(v) for v in np.floor(corners.min(0) + _ROUNDING))
        right, bottom = (int(v) for v in np.ceil(corners.max(0) - _ROUNDING))
        left, right = max(left, self.crop.left), min(right, self.crop.right)
        top, bottom = max(top, self.crop.top), min(bottom, self.crop.bottom)
        width, height = right - left, bottom - top
        if width < 1 or height < 1:
            return None
        return Geometry(
            self._shape, (left, top, width, height), self.mirrored, (side / width, side / height), (side, side)
        )

    @property
    def _shape(self) -> tuple[int, int]:
        rows, columns = self.pixels.shape
        return rows, columns


def enhance(image: ViewImage, clip_limit: float) -> Enhanced:
    """Return a mammogram enhanced and masked.

    Parameters
    ----------
    image
        A mammogram.
    clip_limit
        Of the enhancement; 100 in the project, 2 to 4 keep it from being plain equalisation.

    Raises
    ------
    NoBreast
        When there is no breast; the image is named.
    """
    breast_of(image)  # what shows no breast to the other readers shows none here
    stored = to_16_bits(image.pixels)
    mirrored = chest_wall_at_the_right(stored)
    left = flip(stored, mirrored=mirrored)
    try:
        rows = extent(breast(left))
        cropped = left[rows.top : rows.bottom]
        enhanced = equalise(cropped, clip_limit)
        mask = breast(enhanced)
        part = extent(mask)
    except NoBreast:
        raise NoBreast(image.uid) from None
    pixels = np.zeros(image.shape, np.float32)
    pixels[rows.top : rows.bottom] = masked(enhanced, mask) / np.float32(65535)
    crop = Crop(rows.top + part.top, rows.top + part.bottom, part.left, part.right)
    columns = image.shape[1]
    if mirrored:
        crop = Crop(crop.top, crop.bottom, columns - crop.right, columns - crop.left)
    return Enhanced(flip(pixels, mirrored=mirrored), crop, mirrored)


def to_16_bits(pixels: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return presentation values, 0 to 1, as the project's pixels, 0 to 65535."""
    return np.round(65535 * pixels.clip(0, 1)).astype(np.uint16)


def chest_wall_at_the_right(pixels: NDArray[np.uint16]) -> bool:
    """Tell whether the right half is brighter (listing 7.2); of an odd number of columns the middle one counts for none."""
    half = pixels.shape[1] // 2
    return bool(pixels[:, :half].sum(dtype=np.int64) < pixels[:, pixels.shape[1] - half :].sum(dtype=np.int64))


def flip(pixels: NDArray[Pixel], *, mirrored: bool) -> NDArray[Pixel]:
    """Return pixels mirrored or as they are; twice is never."""
    return np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels


def equalise(pixels: NDArray[np.uint16], clip_limit: float) -> NDArray[np.uint16]:
    """Return pixels after contrast-limited adaptive histogram equalisation on 5 x 5 tiles (listing 7.3).

    What is not above the clip limit and one becomes 0, as there: so far it lifts a black background in 16 bits. Where
    tiles have fewer than 65536 pixels it lifts it further, so what was 0 stays 0. A tile that is smaller than 65536
    pixels by more than the clip limit is clipped less: no bin holds less than one pixel.
    """
    enhanced = cv2.createCLAHE(clipLimit=clip_limit, tileGridSize=TILES).apply(pixels)
    return np.where((pixels == 0) | (enhanced <= clip_limit + 1), 0, enhanced).astype(np.uint16)


def breast(pixels: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Return the breast's mask (listing 7.4): blurred in 8 bits, above a threshold, the largest contour filled.

    At the image's edges it is as wide as just inside them, because a film's bright border would close a contour around
    everything.

    Raises
    ------
    NoBreast
        When nothing is above the threshold.
    """
    side = 2 * round(BLUR * max(pixels.shape) / 2) + 1
    edge = max(round(EDGE * max(pixels.shape)), 1)
    inner = np.zeros(pixels.shape, np.bool_)
    inner[edge:-edge, edge:-edge] = True
    blurred = cv2.GaussianBlur(np.where(inner, pixels >> 8, 0).astype(np.uint8), (side, side), 0)
    threshold, _ = cv2.threshold(blurred, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    found = (blurred > DARKER * threshold).astype(np.uint8)
    contours, _ = cv2.findContours(found, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        raise NoBreast
    filled = np.zeros(pixels.shape, np.uint8)
    cv2.drawContours(filled, [max(contours, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    grown = cv2.dilate(filled, np.ones((2 * edge + 1, 2 * edge + 1), np.uint8))
    return np.where(inner, filled, grown) > 0


def masked(pixels: NDArray[np.uint16], mask: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """Return pixels within a mask as they are, with all their bits, and 0 elsewhere."""
    return np.where(mask, pixels, 0).astype(np.uint16)


def extent(mask: NDArray[np.bool_]) -> Crop:
    """Return the rows and columns that a mask touches; it touches some."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return Crop(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)
