"""What makes a figure too good: a patient, or a picture, on both sides of a split.

The copies of CDD-CESM that circulate hold each picture several times, mirrored and turned, and their published split
has most patients on both sides.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ai.datasets.records import Dataset, Record
from ai.datasets.selection import some
from ai.datasets.truth import mass_mask
from ai.errors import AIError, DuplicateImages, InvalidDataset, LeakingSplit
from ai.pixels import file_image

SIDE: Final = 64
"""Rows and columns of the thumbnails that are compared."""
COARSE: Final = 16
"""Rows and columns of those that are compared first."""
DIFFERENCE: Final = 2.0
LARGEST: Final = 16.0
"""Mean and largest absolute difference of two thumbnails of one picture, of 255 levels, at most.

Measured on 50 images each of CBIS-DDSM and CDD-CESM: between an image and its mirrored JPEG of quality 30 at another size
at most 1.0 and 9; between different patients of both whole sets the mean is at least 5.8. A drawn breast that differs
from another by a mass alone is another picture by the largest difference.
"""


@dataclass(frozen=True)
class Duplicate:
    """One picture under two patients.

    Attributes
    ----------
    first, second
        In the data set's order.
    turned
        How the second differs: ``as it is``, ``mirrored``, ``upside down`` or ``half turned``.
    """

    first: Record
    second: Record
    turned: str

    def __str__(self) -> str:
        """Return both files with their patients."""
        first, second = (f"{r.file} (patient {r.patient_id})" for r in (self.first, self.second))
        return f"{first} = {second}, {self.turned}"


def check_patients(training: Iterable[Record], validation: Iterable[Record]) -> None:
    """Refuse a split that has a patient on both sides.

    Raises
    ------
    LeakingSplit
        The patients are named.
    """
    both = sorted({r.patient_id for r in training} & {r.patient_id for r in validation})
    if both:
        raise LeakingSplit(f"{len(both)} patients: {some(both)}")


def check_duplicates(duplicates: Sequence[Duplicate], places: Mapping[str, int]) -> None:
    """Refuse a split that has one picture in two parts.

    Parameters
    ----------
    duplicates
        From :func:`find_duplicates`.
    places
        Part by patient; patients without one are not looked at.

    Raises
    ------
    DuplicateImages
        The images are named.
    """
    bad = [
        str(d)
        for d in duplicates
        if len({places[r.patient_id] for r in (d.first, d.second) if r.patient_id in places}) == 2
    ]
    if bad:
        raise DuplicateImages(f"{len(bad)} pairs: {some(bad)}")


def find_duplicates(dataset: Dataset, on_image: Callable[[], None] = lambda: None) -> list[Duplicate]:
    """Return the pictures that stand under two patients, mirrored or turned ones among them.

    Every image is read with its masks; ``on_image`` is called after each. Images of one patient are not compared: a low-energy and a
    subtracted image of one view are alike, and no leak.

    Raises
    ------
    InvalidDataset
        When an image cannot be read, or a mask has another size; it is named.
    """
    thumbnails = []
    for record in dataset.records:
        try:
            pixels = file_image(dataset.folder / record.path, record.view).pixels
        except AIError as error:
            raise InvalidDataset(f"{record.file}: {error}") from error
        if record.labelled and record.masks:
            mass_mask(record, dataset.folder, pixels.shape)
        thumbnails.append(thumbnail(pixels))
        on_image()
    return duplicates(dataset.records, thumbnails)


def thumbnail(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return an image as ``SIDE`` x ``SIDE`` means, whatever its size and aspect, stretched to 0 to 255."""
    small = cv2.resize(np.ascontiguousarray(pixels), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    small -= small.min()
    return np.round(small * (255 / max(float(small.max()), 1e-6))).astype(np.uint8)


def duplicates(records: Sequence[Record], thumbnails: Sequence[NDArray[np.uint8]]) -> list[Duplicate]:
    """Return the pictures that stand under two patients, from the thumbnails of the records in their order."""
    if not records:
        return []
    fine = np.stack(thumbnails).astype(np.float32)
    cell = SIDE // COARSE
    # The difference of means is never above the mean difference of pixels: what these two leave out is no copy.
    coarse = fine.reshape(-1, COARSE, cell, COARSE, cell).mean((2, 4))
    level = coarse.mean((1, 2))
    patients = np.array([r.patient_id for r in records])
    found: list[Duplicate] = []
    for place, record in enumerate(records[:-1]):
        others = np.arange(place + 1, len(records))
        others = others[(patients[others] != record.patient_id) & (np.abs(level[others] - level[place]) <= DIFFERENCE)]
        for turned, way in _TURNED.items():
            rough = np.abs(coarse[others] - coarse[place][way]).mean((1, 2))
            near = others[rough <= DIFFERENCE]
            difference = np.abs(fine[near] - fine[place][way])
            same = near[(difference.mean((1, 2)) <= DIFFERENCE) & (difference.max((1, 2)) <= LARGEST)]
            found += [Duplicate(record, records[n], turned) for n in same]
            others = np.setdiff1d(others, same)
    return found


_TURNED: Final[Mapping[str, tuple[slice, slice]]] = {
    "as it is": (slice(None), slice(None)),
    "mirrored": (slice(None), slice(None, None, -1)),
    "upside down": (slice(None, None, -1), slice(None)),
    "half turned": (slice(None, None, -1), slice(None, None, -1)),
}
