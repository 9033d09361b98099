"""Three invented makes of detector: spacing, blur, dose, and how each turns exposures into a picture."""

from dataclasses import dataclass, replace

import numpy as np

from ai.phantom.grid import Field, Grid


@dataclass(frozen=True)
class Vendor:
    """A make.

    Attributes
    ----------
    name
        One letter.
    grid
        Of the detector.
    blur
        Standard deviation in mm of its point spread.
    photons
        Detected per mm² behind fat of the breast's thickness.
    electronic
        Standard deviation of the electronic noise, in photons of a pixel of 0.1 mm.
    scatter
        Ratio of scattered to primary radiation.
    equalised
        Share of the breast's thickness that is compensated near the skin.
    flattened
        Share of what is larger than 12 mm that is taken away.
    sharpened
        Gain of what is smaller than 1 mm.
    steepness
        Of the curve from exposure to grey value.
    sigmoid
        Whether that curve is one; else it is straight.
    bits
        Of a stored value.
    """

    name: str
    grid: Grid
    blur: float
    photons: float
    electronic: float
    scatter: float
    equalised: float
    flattened: float
    sharpened: float
    steepness: float
    sigmoid: bool
    bits: int

    @property
    def small(self) -> "Vendor":
        """The same with few pixels, for tests."""
        return replace(self, grid=SMALL_GRID)

    def curve(self, signal: Field) -> Field:
        """Return grey values, 0 to 1, of a signal whose middle is 0 and whose range is about 1."""
        scaled = np.float32(self.steepness) * signal
        if self.sigmoid:
            return np.asarray(1 / (1 + np.exp(-scaled)), np.float32)
        return np.asarray(np.clip(0.42 + scaled / 4, 0, 1), np.float32)


A = Vendor("a", Grid(2300, 1840, 0.1), 0.05, 6.0e5, 4, 0.12, 0.92, 0.15, 0.5, 3.6, sigmoid=True, bits=12)
B = Vendor("b", Grid(3328, 2560, 0.07), 0.03, 9.0e5, 3, 0.20, 0.98, 0.30, 0.6, 3.4, sigmoid=False, bits=12)
C = Vendor("c", Grid(4728, 3540, 0.05), 0.08, 3.5e5, 8, 0.08, 0.80, 0.0, 0.8, 4.4, sigmoid=True, bits=14)
VENDORS = {vendor.name: vendor for vendor in (A, B, C)}

SMALL_GRID = Grid(512, 416, 0.45)
"""The whole field in pixels of about half a millimetre."""
