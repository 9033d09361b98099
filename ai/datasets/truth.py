"""Where the masses of an image are: from masks, outlines or, weakly, from the ellipses inscribed in boxes."""

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from ai.datasets.records import Box, Outline, Record
from ai.errors import InvalidDataset

SPECK: Final = 20
"""Regions of fewer pixels are no masses: JPEG noise around the edges of masks leaves such specks."""


class Truth(StrEnum):
    """What the masses of an image were drawn from."""

    MASK = "masks"
    OUTLINE = "outlines"
    ELLIPSE = "ellipses inscribed in boxes"
    """A weak label: supervision only, never to be called segmentation quality."""
    NONE = "no mass"
    """The set says that there is none."""


def kind_of(record: Record) -> Truth:
    """Return what :func:`mass_mask` would draw the masses of an image from."""
    if record.masks:
        return Truth.MASK
    if record.outlines:
        return Truth.OUTLINE
    return Truth.ELLIPSE if record.boxes else Truth.NONE


def mass_mask(record: Record, folder: Path, shape: tuple[int, int]) -> tuple[NDArray[np.bool_], Truth]:
    """Return the union of an image's masses.

    Parameters
    ----------
    folder
        The data set's.
    shape
        Rows and columns of the image.

    Returns
    -------
    tuple
        The mask, of that shape, and what it was drawn from: the best that the set has, masks before outlines before
        boxes. A pixel belongs to an outline or an ellipse when its centre lies inside.

    Raises
    ------
    InvalidDataset
        When the image is not labelled, or a mask cannot be read or has another size than the image.
    """
    if not record.labelled:
        raise InvalidDataset(f"{record.file} is not labelled: whether it shows a mass is not known")
    mask, truth = np.zeros(shape, np.bool_), kind_of(record)
    if truth is Truth.MASK:
        for name in record.masks:
            one = read_mask(folder / name)
            if one.shape != shape:
                raise InvalidDataset(
                    f"{name} has {one.shape[1]} x {one.shape[0]} pixels, its image {record.file} {shape[1]} x {shape[0]}"
                )
            mask |= one
    elif truth is Truth.OUTLINE:
        for outline in record.outlines:
            fill(mask, outline)
    else:
        for box in record.boxes:
            inscribe(mask, box)
    return mask, truth


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Return a mask file (PNG, JPEG or DICOM; white is mass), shape (rows, columns).

    White is everything above half of the file's range: above 127 of 8 bits, or above 0 where 1 is the highest value.

    Raises
    ------
    InvalidDataset
        When the file is missing, is no grey image, or has values and none of them is white.
    """
    values = _grey(path)
    highest = int(values.max(initial=0))
    limit = 0 if highest == 1 else np.iinfo(values.dtype).max // 2 if highest > 255 else 127
    if 0 < highest <= limit:
        raise InvalidDataset(f"{path}: nothing in it is above half of its range; its highest value is {highest}")
    return np.asarray(values > limit)


def is_of_ones(path: Path) -> bool:
    """Tell whether 1 is the highest value of a mask file, so that it is white there."""
    return int(_grey(path).max(initial=0)) == 1


def boxes_of_mask(mask: NDArray[np.bool_]) -> tuple[Box, ...]:
    """Return a box around each connected region of at least ``SPECK`` pixels, from the top down."""
    return tuple((float(x), float(y), float(width), float(height)) for x, y, width, height, _ in _regions(mask))


def fills_of_mask(mask: NDArray[np.bool_]) -> tuple[float, ...]:
    """Return which part of its box each of the regions of :func:`boxes_of_mask` fills, above 0, at most 1."""
    return tuple(area / (width * height) for *_, width, height, area in _regions(mask))


def _regions(mask: NDArray[np.bool_]) -> list[list[int]]:
    """Return x, y, width, height and area of each connected region that is no speck, from the top down."""
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return [row for row in stats[1:count].tolist() if row[-1] >= SPECK]


def box_around(boxes: Iterable[Box]) -> Box:
    """Return the smallest box around some, at least one."""
    left, top, right, bottom = zip(*((x, y, x + w, y + h) for x, y, w, h in boxes), strict=True)
    return min(left), min(top), max(right) - min(left), max(bottom) - min(top)


def box_of_outline(outline: Outline) -> Box:
    """Return the box around an outline."""
    return box_around((x, y, 0, 0) for x, y in outline)


def fill(mask: NDArray[np.bool_], outline: Outline) -> None:
    """Set the pixels whose centres lie inside a polygon (even-odd rule); what lies beyond the mask is cut off."""
    corners = np.asarray(outline, np.float64)
    x, y = corners.T
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    rows, columns = mask.shape
    for row in range(max(int(np.floor(y.min())), 0), min(int(np.ceil(y.max())), rows)):
        centre = row + 0.5
        crossed = (y <= centre) != (next_y <= centre)
        x0, y0, x1, y1 = x[crossed], y[crossed], next_x[crossed], next_y[crossed]
        cuts = np.sort(x0 + (centre - y0) / (y1 - y0) * (x1 - x0))
        # The first pixel whose centre is at or after a cut.
        edges = np.ceil(cuts - 0.5).clip(0, columns).astype(int)
        for first, last in zip(edges[::2], edges[1::2], strict=True):
            mask[row, first:last] = True


def inscribe(mask: NDArray[np.bool_], box: Box) -> None:
    """Set the pixels whose centres lie inside the ellipse inscribed in a box; what lies beyond the mask is cut off."""
    x, y, width, height = box
    if width <= 0 or height <= 0:
        return
    top, left = max(int(y), 0), max(int(x), 0)
    part = mask[top : max(int(np.ceil(y + height)), 0), left : max(int(np.ceil(x + width)), 0)]
    rows, columns = np.ogrid[: part.shape[0], : part.shape[1]]
    across = (columns + left + 0.5 - x - width / 2) / (width / 2)
    down = (rows + top + 0.5 - y - height / 2) / (height / 2)
    part |= across**2 + down**2 <= 1


def _grey(path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    try:
        stored = pydicom.dcmread(path).pixel_array
    except InvalidDicomError:
        found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if found is None:
            raise InvalidDataset(f"{path}: is no image") from None
        alike = found.ndim == 3 and all(np.array_equal(found[..., 0], found[..., place]) for place in (1, 2))
        stored = found[..., 0] if alike else found
    except OSError as error:
        raise InvalidDataset(f"{path}: {error.strerror}") from error
    except Exception as error:  # the decoders of pydicom's plugins raise whatever they like
        raise InvalidDataset(f"{path}: cannot be decoded: {type(error).__name__}") from error
    if stored.ndim != 2 or stored.dtype not in (np.uint8, np.uint16):
        raise InvalidDataset(f"{path}: is no grey image of 8 or 16 bits")
    return stored
