"""The papers' tables of random changes, as values.

The Oulu papers ran the library SOLT on 8-bit images: its meaning of each number is kept here, in float32, with 8-bit
numbers as fractions of 255.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Range = tuple[float, float]
"""Smallest and largest value, drawn uniformly."""
Pair = tuple[float, float]
"""A value along columns (x) and one along rows (y)."""


@dataclass(frozen=True)
class Change:
    """What was drawn for one image; None where a change was not.

    Attributes
    ----------
    rotation, scale, shear, shift
        Around the image's centre, in this order; degrees, factor, factors of x by y and of y by x, pixels.
    mirrored, flipped
        Left to right, upside down.
    corner
        Where the crop lies, 0 (first column, first row) to 1 (last).
    cutout
        Where the cut-out square lies, as ``corner``.
    gamma, brightness, contrast, salt_and_pepper, noise, quantum_noise
        As in :class:`AugmentationTable`.
    blur
        Standard deviation and side of the kernel in pixels.
    median
        Side of the kernel in pixels.
    """

    rotation: float = 0.0
    scale: float = 1.0
    shear: Pair = (0.0, 0.0)
    shift: Pair = (0.0, 0.0)
    mirrored: bool = False
    flipped: bool = False
    corner: Pair = (0.5, 0.5)
    cutout: Pair | None = None
    gamma: float | None = None
    brightness: float | None = None
    contrast: float | None = None
    salt_and_pepper: float | None = None
    noise: float | None = None
    quantum_noise: float | None = None
    blur: tuple[float, int] | None = None
    median: int | None = None


@dataclass(frozen=True)
class AugmentationTable:
    """Ranges of the random changes; None leaves a change out. The crop is always made, the others at random.

    Attributes
    ----------
    crop
        Rows and columns of the random crop, in pixels.
    probability
        Of each change but the crop and the flips, 0 to 1.
    mirror, flip
        Left to right, upside down, each in half of the images.
    rotation
        Degrees.
    scale
        Factors; the frame stays as it is.
    shear
        Factors, one drawn for each axis.
    shift
        Pixels, one drawn for each axis.
    cutout
        Side of the blackened square as a fraction of the image's; the mask keeps what is hidden.
    gamma
        Values become value ^ (1 / gamma).
    brightness
        Added to values of 0 to 1.
    contrast
        Factor of the values.
    salt_and_pepper
        Share of the pixels that become white or black, half of them each.
    noise
        Share g of (1 - g) image + g noise; the noise is normal, stretched over 0 to 1.
    quantum_noise
        Standard deviation at value 1; it falls with the value's root, as counted quanta have it.
    blur_sigma, blur_kernels
        Standard deviation and sides of the kernel of a Gaussian blur, in pixels.
    median_kernels
        Sides of the kernel of a median filter, in pixels; above 5 the image goes through 8 bits, as in the papers.
    """

    crop: int | None = None
    probability: float = 0.5
    mirror: bool = False
    flip: bool = False
    rotation: Range | None = None
    scale: Range | None = None
    shear: Range | None = None
    shift: Range | None = None
    cutout: float | None = None
    gamma: Range | None = None
    brightness: Range | None = None
    contrast: Range | None = None
    salt_and_pepper: Range | None = None
    noise: Range | None = None
    quantum_noise: Range | None = None
    blur_sigma: Range | None = None
    blur_kernels: tuple[int, ...] = (3,)
    median_kernels: tuple[int, ...] = ()

    def draw(self, rng: np.random.Generator) -> Change:
        """Draw the changes of one image."""

        def happens() -> bool:
            return bool(rng.random() < self.probability)

        def one(limits: Range | None) -> float | None:
            return rng.uniform(*limits) if limits is not None and happens() else None

        def two(limits: Range | None) -> Pair:
            return (rng.uniform(*limits), rng.uniform(*limits)) if limits is not None and happens() else (0.0, 0.0)

        rotation, scale = one(self.rotation), one(self.scale)
        blur = one(self.blur_sigma)
        return Change(
            rotation=0.0 if rotation is None else rotation,
            scale=1.0 if scale is None else scale,
            shear=two(self.shear),
            shift=two(self.shift),
            mirrored=bool(self.mirror and rng.random() < 0.5),
            flipped=bool(self.flip and rng.random() < 0.5),
            corner=(rng.random(), rng.random()),
            cutout=(rng.random(), rng.random()) if self.cutout is not None and happens() else None,
            gamma=one(self.gamma),
            brightness=one(self.brightness),
            contrast=one(self.contrast),
            salt_and_pepper=one(self.salt_and_pepper),
            noise=one(self.noise),
            quantum_noise=one(self.quantum_noise),
            blur=None if blur is None else (blur, int(rng.choice(self.blur_kernels))),
            median=int(rng.choice(self.median_kernels)) if self.median_kernels and happens() else None,
        )

    def __call__(
        self, pixels: NDArray[np.float32], mask: NDArray[np.number], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return a changed image and its mask.

        Parameters
        ----------
        pixels
            0 to 1, shape (rows, columns), at least the crop.
        mask
            0 or 1, same shape.

        Returns
        -------
        tuple
            Values of 0 to 1, and 0 or 1; both float32 of the crop's shape.
        """
        return self.apply(self.draw(rng), pixels, mask, rng)

    def apply(
        self, change: Change, pixels: NDArray[np.float32], mask: NDArray[np.number], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Make a change that was drawn; ``rng`` gives the noise. Otherwise as calling the table."""
        image, truth = np.asarray(pixels, np.float32), (np.asarray(mask) > 0).astype(np.float32)
        if (change.rotation, change.scale, change.shear, change.shift) != (0, 1, (0, 0), (0, 0)):
            matrix, size = affine(change, image.shape), image.shape[::-1]
            image = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR).astype(np.float32)
            truth = cv2.warpAffine(truth, matrix, size, flags=cv2.INTER_NEAREST).astype(np.float32)
        if self.crop is not None:
            window = _square(change.corner, self.crop, image.shape)
            image, truth = image[window], truth[window]
        if change.mirrored:
            image, truth = image[:, ::-1], truth[:, ::-1]
        if change.flipped:
            image, truth = image[::-1], truth[::-1]
        image = image.copy()
        if change.cutout is not None and self.cutout is not None:
            image[_square(change.cutout, round(self.cutout * min(image.shape)), image.shape)] = 0
        image = _filtered(change, _noisy(change, _exposed(change, image), rng))
        return np.ascontiguousarray(image, np.float32), np.ascontiguousarray(truth, np.float32)


def affine(change: Change, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return rotation, scale, shear and shift of an image of a shape: 2 x 3, from old to new places as cv2 counts them."""
    angle = np.deg2rad(change.rotation)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shear = np.array([[1, change.shear[0]], [change.shear[1], 1]])
    linear = shear @ (change.scale * turn)
    centre = (np.array([shape[1], shape[0]]) - 1) / 2
    return np.column_stack([linear, centre - linear @ centre + np.array(change.shift)])


def _square(place: Pair, side: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
    rows, columns = shape
    if side > min(rows, columns):
        raise ValueError(f"a square of {side} pixels does not fit into {rows} x {columns}")
    first = (round(place[1] * (rows - side)), round(place[0] * (columns - side)))
    return slice(first[0], first[0] + side), slice(first[1], first[1] + side)


def _exposed(change: Change, image: NDArray[np.float32]) -> NDArray[np.float32]:
    if change.gamma is not None:
        image = np.power(image.clip(0, 1), np.float32(1 / change.gamma))
    if change.brightness is not None:
        image = (image + change.brightness).clip(0, 1)
    if change.contrast is not None:
        image = (image * change.contrast).clip(0, 1)
    return image


def _noisy(change: Change, image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    if change.salt_and_pepper is not None:
        chance = rng.random(image.shape, np.float32)
        image[chance < change.salt_and_pepper] = 0
        image[chance < change.salt_and_pepper / 2] = 1
    if change.noise is not None:
        noise = rng.standard_normal(image.shape, np.float32)
        noise = (noise - noise.min()) / max(float(np.ptp(noise)), 1e-6)
        image = (1 - change.noise) * image + change.noise * noise
    if change.quantum_noise is not None:
        spread = change.quantum_noise * np.sqrt(image.clip(0, 1))
        image = (image + spread * rng.standard_normal(image.shape, np.float32)).clip(0, 1)
    return image


def _filtered(change: Change, image: NDArray[np.float32]) -> NDArray[np.float32]:
    if change.blur is not None:
        sigma, side = change.blur
        image = cv2.GaussianBlur(image, (side, side), sigma).astype(np.float32)
    if change.median is not None and change.median <= 5:
        image = cv2.medianBlur(image, change.median).astype(np.float32)
    elif change.median is not None:
        levels = (255 * image.clip(0, 1)).round().astype(np.uint8)
        image = cv2.medianBlur(levels, change.median).astype(np.float32) / np.float32(255)
    return image


THESIS: Final = AugmentationTable(
    crop=448,
    mirror=True,
    rotation=(-5, 5),
    scale=(0.7, 1.3),
    shear=(-0.5, 0.5),
    shift=(-50, 50),
    cutout=0.1,
    gamma=(0.5, 1.8),
    brightness=(30 / 255, 100 / 255),
    contrast=(0.7, 1.3),
    salt_and_pepper=(0, 0.1),
    noise=(0, 0.5),
    blur_sigma=(1, 10),
    blur_kernels=(3, 7, 11),
    median_kernels=(3, 7, 11),
)
"""Table 3 of the thesis; the canvas is 512 x 512. Brightness only ever rises."""
SPIE: Final = AugmentationTable(
    crop=448,
    mirror=True,
    rotation=(-3, 3),
    scale=(0.7, 1.3),
    shift=(-50, 50),
    cutout=0.2,
    gamma=(0.5, 1.8),
    brightness=(30 / 255, 100 / 255),
    contrast=(0.7, 1.3),
    salt_and_pepper=(0, 0.1),
    noise=(0, 0.5),
    blur_sigma=(1, 5),
    blur_kernels=(3, 7, 11),
    median_kernels=(3, 7, 11),
)
"""Table 1 of Isosalo et al. It gives "brightness and contrast" one range, [30, 100]: contrast is the thesis' here."""
MODERATE: Final = AugmentationTable(
    crop=448,
    mirror=True,
    rotation=(-5, 5),
    scale=(0.7, 1.3),
    shear=(-0.1, 0.1),
    shift=(-50, 50),
    cutout=0.1,
    gamma=(0.5, 1.8),
    brightness=(-0.15, 0.15),
    contrast=(0.7, 1.3),
    quantum_noise=(0, 0.05),
    blur_sigma=(1, 5),
    blur_kernels=(3, 7, 11),
    median_kernels=(3,),
)
"""Ours, where the Oulu tables are no mammograms any more: brightness to either side, less shear, quantum noise."""
AGARWAL: Final = AugmentationTable(probability=1, mirror=True, rotation=(-30, 30), scale=(0.75, 1.25))
"""Agarwal et al., patches; drawn for each patch, as Keras does it."""
MADSEN_DETECTION: Final = AugmentationTable(probability=1, mirror=True, scale=(0.5, 1.8))
"""Madsen, listing 7.6; its ready-made rotations and shifts have no legible ranges."""
MADSEN_SEGMENTATION: Final = AugmentationTable(mirror=True, flip=True)
"""Madsen, mass segmentation."""

TABLES: Final[Mapping[str, AugmentationTable]] = {
    "thesis": THESIS,
    "spie": SPIE,
    "moderate": MODERATE,
    "agarwal": AGARWAL,
    "madsen_detection": MADSEN_DETECTION,
    "madsen_segmentation": MADSEN_SEGMENTATION,
    "none": AugmentationTable(),
}
"""The tables by the name that a recipe gives."""
