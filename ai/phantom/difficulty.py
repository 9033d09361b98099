"""How hard a phantom's masses are, in figures that need no reader: slope of the spectrum, CNR, d' of a model observer.

The channelised Hotelling observer with Laguerre-Gauss channels is the usual stand-in for a trained human who knows where
to look (Barrett and Myers, Foundations of Image Science, 2004, 14.3; Gallas and Barrett, JOSA A 2003; 20: 1725).
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ai.phantom.grid import Field

BAND = (0.15, 0.7)
"""Spatial frequencies in 1/mm between which the slope is fitted."""


def spectral_slope(
    image: Field, inside: NDArray[np.bool_], spacing: float, side: float = 25.6, regions: int = 40
) -> float:
    """Return the β of the power spectrum 1/f^β within a breast; NaN when no region of that side in mm fits into it."""
    size = int(side / spacing)
    room = cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=1)
    sums = cv2.boxFilter(room.astype(np.float32), -1, (size, size), normalize=True, borderType=cv2.BORDER_CONSTANT)
    half = size // 2
    found = np.argwhere(sums[half : -half or None, half : -half or None] > 0.999) + half
    if not len(found):
        return float("nan")
    taper = np.hanning(size)[:, None] * np.hanning(size)[None, :]
    chosen = found[np.random.default_rng(1).integers(0, len(found), regions)]
    power = np.zeros((size, size))
    for row, column in chosen:
        region = image[row - half : row - half + size, column - half : column - half + size]
        power += np.abs(np.fft.fft2((region - region.mean()) * taper)) ** 2
    frequency = np.hypot(np.fft.fftfreq(size, spacing)[:, None], np.fft.fftfreq(size, spacing)[None, :])
    fitted = (frequency > BAND[0]) & (frequency < BAND[1])
    slope, _ = np.polyfit(np.log(frequency[fitted]), np.log(power[fitted]), 1)
    return -float(slope)


def contrast_to_noise(image: Field, mask: NDArray[np.bool_], inside: NDArray[np.bool_], spacing: float) -> float:
    """Return the mean of a mass less that of its ring (1.2 to 2 radii), over the ring's standard deviation."""
    radius = float(np.sqrt(mask.sum() / np.pi))
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    ring = (away > 0.2 * radius + 0.5 / spacing) & (away < radius + 1 / spacing) & inside
    return float((image[mask].mean() - image[ring].mean()) / max(float(image[ring].std()), 1e-9))


def laguerre_gauss(size: int, width: float, count: int = 10) -> NDArray[np.float64]:
    """Return channels, shape (count, size, size), with a Gaussian of this width in pixels."""
    away = np.arange(size) - (size - 1) / 2
    squared = 2 * np.pi * (away[:, None] ** 2 + away[None, :] ** 2) / width**2
    polynomials = [np.ones_like(squared), 1 - squared]
    for order in range(1, count - 1):
        polynomials.append(((2 * order + 1 - squared) * polynomials[-1] - order * polynomials[-2]) / (order + 1))
    return np.stack([np.sqrt(2) / width * np.exp(-squared / 2) * each for each in polynomials[:count]])


def detectability(present: Sequence[NDArray[np.float64]], absent: Sequence[NDArray[np.float64]]) -> float:
    """Return d' of the Hotelling observer of channel outputs, each of shape (channels,), with and without the signal.

    The observer is trained on one half of the cases and tried on the other, both ways round, so that few cases do not
    make it look better than it is.
    """
    with_signal, without = np.array(present), np.array(absent)
    found = []
    for first in (0, 1):
        train = [group[first::2] for group in (with_signal, without)]
        test = [group[1 - first :: 2] for group in (with_signal, without)]
        spread = (np.cov(train[0].T) + np.cov(train[1].T)) / 2
        spread = spread + 1e-6 * np.trace(spread) / len(spread) * np.eye(len(spread))
        template = np.linalg.solve(spread, train[0].mean(0) - train[1].mean(0))
        scores = [group @ template for group in test]
        noise = np.sqrt((scores[0].var() + scores[1].var()) / 2)
        found.append((scores[0].mean() - scores[1].mean()) / noise)
    return float(np.mean(found))
