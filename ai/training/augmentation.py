"""Random changes that a mammogram could also have had: position, size, exposure."""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes; each is drawn uniformly.

    Attributes
    ----------
    rotation
        Degrees to either side.
    scale
        Smallest and largest factor.
    aspect
        Relative stretch of x against y, to either side: the aspect of resized films is known to ±10 % only.
    shift
        Fraction of the canvas to either side.
    gamma
        Smallest and largest exponent.
    contrast, brightness
        To either side, of values from 0 to 1.
    noise
        Largest standard deviation, of values from 0 to 1.
    flip
        Probability of turning the image upside down.
    """

    rotation: float = 12
    scale: tuple[float, float] = (0.8, 1.2)
    aspect: float = 0.08
    shift: float = 0.06
    gamma: tuple[float, float] = (0.7, 1.4)
    contrast: float = 0.15
    brightness: float = 0.05
    noise: float = 0.02
    flip: float = 0.5

    def __call__(
        self,
        pixels: NDArray[np.uint8],
        mass: NDArray[np.uint8],
        boxes: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
        """Return changed pixels (-1 to 1 nearly), mass (0 or 1) and boxes.

        Pixels and mass are float32 of the canvas shape. A box, x1, y1, x2, y2, becomes that of the changed ellipse which
        is inscribed in it.
        """
        rows, columns = pixels.shape
        matrix = cv2.getRotationMatrix2D(
            (columns / 2, rows / 2), rng.uniform(-self.rotation, self.rotation), rng.uniform(*self.scale)
        )
        matrix[0] *= 1 + rng.uniform(-self.aspect, self.aspect)
        matrix[:, 2] += rng.uniform(-self.shift, self.shift, 2) * np.array([columns, rows])
        image = cv2.warpAffine(pixels, matrix, (columns, rows), flags=cv2.INTER_LINEAR)
        truth = cv2.warpAffine(mass, matrix, (columns, rows), flags=cv2.INTER_NEAREST).astype(np.float32)
        # cv2 takes pixel centres at integers: half a pixel less than the boxes' coordinates.
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2 - 0.5
        half = (boxes[:, 2:] - boxes[:, :2]) / 2
        middle = middle @ matrix[:, :2].T + matrix[:, 2] + 0.5
        half = np.sqrt(half**2 @ (matrix[:, :2] ** 2).T)
        if rng.random() < self.flip:
            image, truth = image[::-1], truth[::-1]
            middle[:, 1] = rows - middle[:, 1]
        grey = (np.arange(256) / 255) ** rng.uniform(*self.gamma) * (1 + rng.uniform(-self.contrast, self.contrast))
        grey = (2 * (grey + rng.uniform(-self.brightness, self.brightness)) - 1).astype(np.float32)
        noise = rng.standard_normal(image.shape, np.float32) * np.float32(2 * rng.uniform(0, self.noise))
        shown = cv2.LUT(np.ascontiguousarray(image), grey)  # as grey[image], which would keep other threads waiting
        return shown + noise, np.ascontiguousarray(truth), np.concatenate([middle - half, middle + half], 1)


STRONG: Final = Augmentation(
    rotation=25,
    scale=(0.7, 1.35),
    aspect=0.12,
    shift=0.08,
    gamma=(0.6, 1.6),
    contrast=0.25,
    brightness=0.08,
    noise=0.03,
)
"""For long courses on few images."""
