"""What makes a figure too good: a patient, or a picture, on both sides of a split.

The copies of CDD-CESM that circulate hold each picture several times, mirrored and turned, and their published split
has most patients on both sides.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ai.datasets.prints import Print, copies, print_of
from ai.datasets.records import Dataset, Record
from ai.datasets.selection import some
from ai.datasets.truth import mass_mask
from ai.errors import AIError, DuplicateImages, InvalidDataset, LeakingSplit
from ai.pixels import file_image
from ai.words import counted


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
        raise LeakingSplit(f"{counted(len(both), 'patient')}: {some(both)}")


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


def find_duplicates(
    dataset: Dataset, on_image: Callable[[], None] = lambda: None, *, skip_unusable: bool = False
) -> list[Duplicate]:
    """Return the pictures that stand under two patients, also mirrored, turned, scaled or in other contrast.

    Every image is read with its masks; ``on_image`` is called after each. Images of one patient are not compared: a
    low-energy and a subtracted image of one view are alike, and no leak.

    Parameters
    ----------
    skip_unusable
        Leave out what cannot be used instead of refusing the set.

    Raises
    ------
    InvalidDataset
        When an image cannot be read, or a mask has another size; it is named.
    """
    seen, prints = [], []
    for record in dataset.records:
        try:
            prints.append(print_of(_pixels(record, dataset.folder)))
            seen.append(record)
        except InvalidDataset:
            if not skip_unusable:
                raise
        on_image()
    return duplicates(seen, prints)


def duplicates(records: Sequence[Record], prints: Sequence[Print]) -> list[Duplicate]:
    """Return the pictures that stand under two patients, from the prints of the records in their order."""
    found = copies(prints, [record.patient_id for record in records])
    return [Duplicate(records[pair.first], records[pair.second], pair.turned) for pair in found]


def _pixels(record: Record, folder: Path) -> NDArray[np.float32]:
    """Return an image whose mask fits it."""
    try:
        pixels = file_image(folder / record.path, record.view).pixels
    except AIError as error:
        raise InvalidDataset(f"{record.file}: {error}") from error
    if record.labelled and record.masks:
        mass_mask(record, folder, pixels.shape)
    return pixels
