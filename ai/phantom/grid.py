"""The pixels of a detector in millimetres, and the fields that structures are made of."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Field = NDArray[np.float32]

LARGEST_STRUCTURE = 80.0
"""Wavelength in mm above which the power spectrum is flat."""


@dataclass(frozen=True)
class Grid:
    """Rows, columns and spacing in mm of a detector; the chest wall is at column 0, as for a left breast."""

    rows: int
    columns: int
    spacing: float

    @property
    def height(self) -> float:
        """In mm."""
        return self.rows * self.spacing

    def axes(self) -> tuple[Field, Field]:
        """Return the pixel centres in mm: y of shape (rows, 1) and x of shape (1, columns)."""
        y = (np.arange(self.rows, dtype=np.float32) + 0.5) * np.float32(self.spacing)
        x = (np.arange(self.columns, dtype=np.float32) + 0.5) * np.float32(self.spacing)
        return y[:, None], x[None, :]

    def coarser(self, least: float) -> "Grid":
        """Return the grid of the same size whose spacing is at least this: each pixel is that many of this grid."""
        step = max(1, int(np.ceil(least / self.spacing - 1e-6)))
        rows, columns = -(-self.rows // step), -(-self.columns // step)
        return Grid(rows, columns, self.spacing * step)

    def window(self, centre: tuple[float, float], reach: float) -> tuple[slice, slice]:
        """Return the part of the grid within a reach of a centre (y, x), all in mm."""
        first, last = ((np.array(centre) + side * reach) / self.spacing for side in (-1, 1))
        sides = (self.rows, self.columns)
        rows, columns = (
            slice(min(max(int(a), 0), n), min(max(int(b) + 1, 0), n))
            for a, b, n in zip(first, last, sides, strict=True)
        )
        return rows, columns


def power_law(grid: Grid, beta: float, rng: Generator, stretch: float = 1.0) -> Field:
    """Return noise of mean 0 and standard deviation 1 with the power spectrum 1/f^beta.

    Parameters
    ----------
    beta
        2.8 to 3.1 in mammograms (Burgess, Med Phys 2001; 28: 419).
    stretch
        How much longer structures are along the rows than across.
    """
    lowest = np.float32(1 / LARGEST_STRUCTURE)
    return _filtered(grid, lambda power: np.maximum(power, lowest**2) ** np.float32(-beta / 4), rng, stretch)


def banded(grid: Grid, wavelength: float, rng: Generator, stretch: float = 1.0) -> Field:
    """Return noise of mean 0 and standard deviation 1 whose structures are about half a wavelength (mm) wide."""

    def response(power: Field) -> Field:
        octaves = np.log2(np.maximum(power, 1e-9) * np.float32(wavelength**2)) / 2
        return np.exp(-((octaves / np.float32(0.5)) ** 2))

    return enlarged(_filtered(grid.coarser(wavelength / 12), response, rng, stretch), grid)


def _filtered(grid: Grid, response: Callable[[Field], Field], rng: Generator, stretch: float) -> Field:
    """Return white noise times a function of the squared spatial frequency (1/mm²)."""
    fy = np.fft.fftfreq(grid.rows, grid.spacing).astype(np.float32)[:, None]
    fx = np.fft.rfftfreq(grid.columns, grid.spacing).astype(np.float32)[None, :] * np.float32(stretch)
    amplitude = response(fy**2 + fx**2)
    amplitude[0, 0] = 0
    # White noise has a white spectrum: drawn there, it need not be transformed first.
    spectrum = rng.standard_normal((*amplitude.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    noise = np.fft.irfft2(spectrum * amplitude, s=(grid.rows, grid.columns))
    return np.asarray(noise / noise.std(), np.float32)


def enlarged(field: Field, grid: Grid) -> Field:
    """Return a field of a coarser grid on this one."""
    if field.shape == (grid.rows, grid.columns):
        return field
    step = -(-grid.rows // field.shape[0])
    large = cv2.resize(field, (field.shape[1] * step, field.shape[0] * step), interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.ascontiguousarray(large[: grid.rows, : grid.columns]), np.float32)


def smooth_line(length: int, step: float, scale: float, rng: Generator) -> Field:
    """Return a smooth random curve of mean 0 and standard deviation 1, shape (length,).

    Parameters
    ----------
    step, scale
        Distance of its points, and wavelength below which it is smooth, in mm.
    """
    frequency = np.fft.rfftfreq(length, step)
    spectrum = np.fft.rfft(rng.standard_normal(length)) * np.exp(-((frequency * scale) ** 2))
    spectrum[0] = 0
    curve = np.fft.irfft(spectrum, length)
    return np.asarray(curve / max(float(curve.std()), 1e-9), np.float32)
