"""The sliding window of Agarwal et al. 2019: windows around evenly spaced centres, and the map between them."""

from math import ceil

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ai.networks.patch import PATCH

_FLAT = 1 / 65536  # below one step of 16 bits a patch has no contrast to bring to one


def centres(length: int, stride: int) -> int:
    """Return how many centres cover a side: the first at pixel 0, the last at or behind the last pixel."""
    return ceil((length - 1) / stride) + 1


def windows(pixels: NDArray[np.float32], stride: int) -> NDArray[np.float32]:
    """Return the windows of an image, a view of shape (centres down, centres across, 224, 224).

    The image is reflected at its edges, as far as it takes; pixel (112, 112) of window (i, j) is the image's pixel
    (i stride, j stride).

    Parameters
    ----------
    pixels
        Shape (rows, columns), at least 1 each.
    stride
        Pixels between centres.
    """
    half = PATCH // 2
    margins = [(half, (centres(length, stride) - 1) * stride + half - length) for length in pixels.shape]
    view = np.lib.stride_tricks.sliding_window_view(np.pad(pixels, margins, mode="reflect"), (PATCH, PATCH))
    return view[::stride, ::stride]


def normalise(patches: Tensor) -> Tensor:
    """Return patches with zero mean and unit deviation each: the paper's global contrast normalisation.

    A patch of one value becomes zeros.

    Parameters
    ----------
    patches
        Shape (n, 1, rows, columns).
    """
    centred = patches - patches.mean((1, 2, 3), keepdim=True)
    return centred / centred.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=_FLAT)


def cells(length: int, resampled: int, stride: int) -> NDArray[np.float64]:
    """Return where the pixels of a side lie between the centres, in strides from the first centre, not beyond the last.

    Parameters
    ----------
    length, resampled
        Pixels of the image's side, before and after it was resampled for the windows.
    stride
        Resampled pixels between centres.
    """
    places = (np.arange(length) + 0.5) * (resampled / length) - 0.5
    return np.asarray((places / stride).clip(0, centres(resampled, stride) - 1), np.float64)


def interpolate(
    grid: NDArray[np.float32], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return the map of an image: linear between the centres, in both directions.

    Parameters
    ----------
    grid
        One value per centre.
    rows, columns
        Of the map, as :func:`cells` gives them.
    """
    return np.ascontiguousarray(_linear(_linear(grid, rows).T, columns).T)


def used(
    mask: NDArray[np.bool_], rows: NDArray[np.float64], columns: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Tell which centres the map hangs on within a mask.

    Parameters
    ----------
    mask
        Shape (rows, columns) of the map.
    rows, columns
        As in :func:`interpolate`.
    shape
        Centres down and across.
    """
    above, left = rows.astype(int), columns.astype(int)
    touched = np.zeros(shape, np.bool_)
    for row in range(shape[0]):
        across = mask[above == row].any(0)
        touched[row] = np.bincount(left[across], minlength=shape[1]) > 0
    touched[1:] |= touched[:-1].copy()
    touched[:, 1:] |= touched[:, :-1].copy()
    return touched


def _linear(values: NDArray[np.float32], positions: NDArray[np.float64]) -> NDArray[np.float32]:
    first = positions.astype(int)
    second = np.minimum(first + 1, len(values) - 1)
    part = (positions - first).astype(np.float32)[:, None]
    return np.asarray(values[first] + (values[second] - values[first]) * part, np.float32)
