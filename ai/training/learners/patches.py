"""Patches that a classifier of Agarwal's learns from, cut where and as the reader cuts its windows."""

import hashlib
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ai.breast import Geometry, breast_of
from ai.exam import ViewImage
from ai.networks.patch import PATCH
from ai.readers.agarwal import straightened
from ai.readers.sliding import windows

WHITE: Final = 65535
"""Of the 16 bits that patches are kept in: 100,352 bytes each, 6.5 GB for the paper's 65,000 of CBIS-DDSM."""

Patches = NDArray[np.uint16]
"""Shape (n, 224, 224); 0 to 65535 is the image's 0 to 1."""


@dataclass(frozen=True, eq=False)
class Windows:
    """The windows of one image, and what stands at their central pixels.

    Attributes
    ----------
    pixels
        Shape (centres down, centres across, 224, 224), 0 to 1; a view of the image.
    mass
        Where the central pixel is in a mass, shape (centres down, centres across).
    plain
        Where it is in none, and in the breast, away from its border.
    """

    pixels: NDArray[np.float32]
    mass: NDArray[np.bool_]
    plain: NDArray[np.bool_]

    def positives(self, most: int | None, key: str) -> Patches:
        """Return the windows of masses row by row, or some of them at random, as :meth:`negatives`."""
        places = np.argwhere(self.mass)
        return self._kept(places if most is None else _drawn(places, most, key))

    def negatives(self, most: int, key: str) -> Patches:
        """Return windows without a mass at random.

        Parameters
        ----------
        most
            How many, where there are so many.
        key
            What the choice hangs on: the first of a longer choice are the shorter one.
        """
        return self._kept(_drawn(np.argwhere(self.plain), most, key))

    def _kept(self, places: NDArray[np.intp]) -> Patches:
        kept = np.empty((len(places), PATCH, PATCH), np.uint16)
        for number, (down, across) in enumerate(places):
            kept[number] = np.round(WHITE * self.pixels[down, across].clip(0, 1))
        return kept


def _drawn(places: NDArray[np.intp], most: int, key: str) -> NDArray[np.intp]:
    rng = np.random.default_rng(list(hashlib.sha256(key.encode()).digest()))
    return places[rng.permutation(len(places))[:most]]


def windows_of(
    image: ViewImage, mass: NDArray[np.bool_], *, stride: int, spacing: float | None, border: int
) -> Windows:
    """Return the windows of an image.

    Parameters
    ----------
    image
        A mammogram.
    mass
        Its masses, of its shape.
    stride, spacing
        As in :class:`ai.readers.agarwal.AgarwalCard`.
    border
        Pixels of the windows from the breast's border within which a centre is not plain.

    Raises
    ------
    ai.errors.NoBreast
        When there is no breast.
    """
    small = breast_of(image)
    straight = straightened(image, small, spacing)
    seen = windows(straight.to_canvas(image.pixels), stride)
    breast = cv2.resize(small.astype(np.uint8), image.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    from_border = cv2.distanceTransform(_there(straight, breast).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    grid = (seen.shape[0], seen.shape[1])
    in_mass = _at_centres(_there(straight, mass), stride, grid)
    return Windows(seen, in_mass, _at_centres(from_border > border, stride, grid) & ~in_mass)


def _there(straight: Geometry, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return straight.to_canvas(mask.astype(np.float32)) > 0.5


def _at_centres(mask: NDArray[np.bool_], stride: int, grid: tuple[int, int]) -> NDArray[np.bool_]:
    """Return a mask at the windows' centres; the last ones may lie behind the image, where nothing is."""
    found = np.zeros(grid, np.bool_)
    inside = mask[::stride, ::stride]
    found[: inside.shape[0], : inside.shape[1]] = inside
    return found
