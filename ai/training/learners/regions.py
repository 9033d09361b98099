"""What the three networks of Madsen's pipeline learn from, cut as the reader cuts it: canvases and regions of masses."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ai.breast import Geometry
from ai.datasets.records import Box
from ai.readers.madsen_preprocessing import Crop, Enhanced
from ai.training.seed_augmentation import AugmentationTable, Change, affine

WHITE: Final = 65535
"""Of the 16 bits that the enhanced pictures have; nothing is lost by keeping them so."""
_VISIBLE: Final = 1.0  # pixel of the canvas: a box that is narrower or lower is not there

Floats = NDArray[np.float32]
Boxes = NDArray[np.float64]
"""x1, y1, x2, y2 in pixels, shape (n, 4)."""


@dataclass(frozen=True, eq=False)
class Canvas:
    """A breast as the detector sees it.

    Attributes
    ----------
    name
        Of the image.
    pixels
        uint16, 0 to 65535 for 0 to 1; 1 MiB for 1024 x 512.
    boxes
        Of the masses, in its pixels; they may reach over the edge.
    """

    name: str
    pixels: NDArray[np.uint16]
    boxes: Boxes

    @classmethod
    def of(cls, name: str, enhanced: Enhanced, geometry: Geometry, boxes: Sequence[Box]) -> "Canvas":
        """Return the canvas of an enhanced image, whose masses have these boxes."""
        corners = [geometry.points_to_canvas(as_corners(box)) for box in boxes]
        placed = [np.concatenate([pair.min(0), pair.max(0)]) for pair in corners]
        pixels = np.round(WHITE * geometry.to_canvas(enhanced.pixels)).astype(np.uint16)
        return cls(name, pixels, np.reshape(placed, (-1, 4)))

    @property
    def digest(self) -> str:
        """SHA-256 over all of it."""
        return _digest(f"{self.name} {self.boxes.tolist()}", self.pixels)

    def plain(self) -> tuple[Floats, Boxes]:
        """Return pixels, 0 to 1, and the boxes that are seen."""
        return self._values, seen(self.boxes, self.pixels.shape)

    def changed(self, table: AugmentationTable, rng: np.random.Generator) -> tuple[Floats, Boxes]:
        """Return both after random changes.

        A mirrored or flipped canvas is scaled last, as TensorFlow's Model Garden does it: what grows over the edge is
        cut off at random at either end, what shrinks stays at the first pixel.
        """
        change = table.draw(rng)
        matrix = placement(change, self.pixels.shape)
        rows, columns = self.pixels.shape
        moved = cv2.warpAffine(self._values, _for_centres(matrix), (columns, rows), flags=cv2.INTER_LINEAR)
        still = replace(change, rotation=0, scale=1, shear=(0, 0), shift=(0, 0), mirrored=False, flipped=False)
        pixels, _ = table.apply(still, moved.astype(np.float32), np.zeros((rows, columns), np.uint8), rng)
        # What reaches over the canvas has no pixels that could come into it.
        return pixels, seen(_mapped(seen(self.boxes, (rows, columns)), matrix), (rows, columns))

    @property
    def _values(self) -> Floats:
        return self.pixels.astype(np.float32) / np.float32(WHITE)


@dataclass(frozen=True, eq=False)
class Region:
    """A mass with as much around it as jitter can reach, at the image's own pixels.

    Attributes
    ----------
    name
        Says which mass of which image.
    pixels
        uint16, the enhanced image.
    mass
        The image's masses, of the same shape.
    crop
        Of the breast, in these pixels.
    mirrored
        True when the chest wall is at the right.
    corners
        Two of the mass' box, x and y, shape (2, 2), in these pixels.
    malignant
        None when it is not known.
    """

    name: str
    pixels: NDArray[np.uint16]
    mass: NDArray[np.bool_]
    crop: Crop
    mirrored: bool
    corners: NDArray[np.float64]
    malignant: bool | None

    @classmethod
    def of(
        cls,
        name: str,
        enhanced: Enhanced,
        mass: NDArray[np.bool_],
        box: Box,
        *,
        jitter: float,
        malignant: bool | None,
    ) -> "Region | None":
        """Cut a region out; None when nothing of the box is in the breast's crop.

        Parameters
        ----------
        enhanced, mass
            The image and its masses.
        box
            Of this one.
        jitter
            As in :meth:`drawn`, the largest that will be asked for.
        """
        corners = as_corners(box)
        if enhanced.region(corners, 1) is None:
            return None
        reach = jitter * (corners[1] - corners[0]) + 1
        shape = np.array(mass.shape[::-1])
        left, top = (int(v) for v in np.floor(corners[0] - reach).clip(0, shape))
        right, bottom = (int(v) for v in np.ceil(corners[1] + reach).clip(0, shape))
        window = slice(top, bottom), slice(left, right)
        crop = Crop(
            max(enhanced.crop.top - top, 0),
            min(enhanced.crop.bottom, bottom) - top,
            max(enhanced.crop.left - left, 0),
            min(enhanced.crop.right, right) - left,
        )
        pixels = np.round(WHITE * enhanced.pixels[window]).astype(np.uint16)
        return cls(name, pixels, mass[window].copy(), crop, enhanced.mirrored, corners - [left, top], malignant)

    @property
    def digest(self) -> str:
        """SHA-256 over all of it."""
        said = self.name, self.crop, self.mirrored, self.corners.tolist(), self.malignant
        return _digest(str(said), self.pixels, self.mass)

    def plain(self, side: int) -> tuple[Floats, Floats]:
        """Return pixels, 0 to 1, and the mask, 0 or 1, of the mass' own box on a square, as the reader sees it."""
        return self._square(self.corners, side)

    def drawn(self, side: int, jitter: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Return both for a box as a detector might give it.

        Parameters
        ----------
        side
            Of the square.
        jitter
            Each edge of the box moves by up to so much of the box's side, outwards or inwards.
        """
        size = self.corners[1] - self.corners[0]
        moved = self.corners + rng.uniform(-jitter, jitter, (2, 2)) * size
        return self._square(moved, side)

    def _square(self, corners: NDArray[np.float64], side: int) -> tuple[Floats, Floats]:
        enhanced = Enhanced(self.pixels.astype(np.float32) / np.float32(WHITE), self.crop, self.mirrored)
        geometry = enhanced.region(corners, side) or enhanced.region(self.corners, side)
        if geometry is None:
            raise ValueError(f"{self.name}: nothing of the box is in the crop")
        mask = geometry.to_canvas(self.mass.astype(np.float32)) > 0.5
        return geometry.to_canvas(enhanced.pixels), mask.astype(np.float32)


def as_corners(box: Box) -> NDArray[np.float64]:
    """Return a box as x and y of its first and of its last corner, shape (2, 2)."""
    x, y, width, height = box
    return np.array([[x, y], [x + width, y + height]], np.float64)


def placement(change: Change, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return where a change moves the places of a canvas, 2 x 3, in continuous coordinates."""
    rows, columns = shape
    size = np.array([columns, rows], np.float64)
    signs = np.array([-1.0 if change.mirrored else 1.0, -1.0 if change.flipped else 1.0])
    flip = _square_matrix(np.column_stack([np.diag(signs), np.where(signs < 0, size, 0)]))
    # The table's matrix counts places from the centre of the first pixel.
    turned = affine(replace(change, scale=1), shape)
    turned[:, 2] += 0.5 - turned[:, :2] @ np.array([0.5, 0.5])
    over = max(change.scale - 1, 0) * size
    grown = np.column_stack([change.scale * np.eye(2), -np.array(change.corner) * over])
    return np.asarray((_square_matrix(grown) @ _square_matrix(turned) @ flip)[:2], np.float64)


def seen(boxes: Boxes, shape: tuple[int, ...]) -> Boxes:
    """Return what is on a canvas of the boxes that are on it."""
    rows, columns = shape
    inside = np.asarray(boxes.clip(0, [columns, rows, columns, rows]), np.float64)
    return inside[((inside[:, 2:] - inside[:, :2]) >= _VISIBLE).all(1)]


def _mapped(boxes: Boxes, matrix: NDArray[np.float64]) -> Boxes:
    """Return the boxes around the boxes' corners after they moved."""
    corners = boxes[:, [0, 1, 2, 1, 0, 3, 2, 3]].reshape(-1, 4, 2) @ matrix[:, :2].T + matrix[:, 2]
    return np.concatenate([corners.min(1), corners.max(1)], 1)


def _for_centres(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a matrix as cv2 wants it, which counts places from the centre of the first pixel."""
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2] @ np.array([0.5, 0.5]) - 0.5
    return moved


def _digest(said: str, *arrays: NDArray[np.generic]) -> str:
    digest = hashlib.sha256(said.encode())
    for array in arrays:
        digest.update(str(array.shape).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _square_matrix(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.vstack([matrix, [0, 0, 1]])
