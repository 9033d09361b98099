"""What a data set says of an image, and patients dealt to parts."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ai.datasets.sources import Source
from ai.exam import View

Box = tuple[float, float, float, float]
"""x, y, width, height in pixels of the image file."""
Outline = tuple[tuple[float, float], ...]
"""Corners x, y of a closed polygon in pixels of the image file."""


@dataclass(frozen=True)
class Record:
    """One image of a data set, with its truth.

    Attributes
    ----------
    file
        The image as the data set names it; no two images of a set have one name.
    patient_id
        Splits and intervals are grouped by it.
    view
        Laterality and view position.
    boxes
        Masses, one box each. Where a set has outlines or masks alone, the boxes are drawn around them.
    malignant
        Whether any mass is malignant; None when the set does not say.
    pathologies
        One word per mass, whose order against the boxes is not known; one word alone stands for all masses.
    masks
        Paths of the mass masks, relative to the set's folder; white is mass. One for each mass, or one for all.
    outlines
        Masses as polygons, one for each, where the set has them.
    folder
        Of the image, relative to the set's.
    density
        BI-RADS density, 1 to 4 for a to d; None when the set does not say.
    study
        The exam that the image belongs to; None when the set does not say.
    subtlety
        One per mass, 1 (subtle) to 5 (obvious), in the order of the pathologies; empty when the set does not say.
    margins
        One per mass, the most suspicious word of several, in that order too; empty when the set does not say.
    subset
        The part that the publishers put it in, such as ``train`` or ``test``; None when they did not.
    labelled
        Whether the set says what masses the image shows. A labelled image without any shows none; what an unlabelled
        one shows is not known, and it is neither trained on nor scored.
    source
        Name of the set that the image comes from, in a collection of several; else "".
    times
        How often an epoch of training shows the image.
    """

    file: str
    patient_id: str
    view: View
    boxes: tuple[Box, ...] = ()
    malignant: bool | None = None
    pathologies: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()
    outlines: tuple[Outline, ...] = ()
    folder: str = ""
    density: int | None = None
    study: str | None = None
    subtlety: tuple[int, ...] = ()
    margins: tuple[str, ...] = ()
    subset: str | None = None
    labelled: bool = True
    source: str = ""
    times: int = 1

    @property
    def path(self) -> Path:
        """Where the image is, relative to the set's folder."""
        return Path(self.folder, self.file)

    @property
    def agreed_malignancy(self) -> bool | None:
        """Malignancy of every mass when they all agree, else None; the image's own where no pathology tells it."""
        if self.pathologies:
            kinds = {p.startswith("MALIGNANT") for p in self.pathologies}
            return kinds.pop() if len(kinds) == 1 else None
        return self.malignant if self.boxes and (self.malignant is False or len(self.boxes) == 1) else None


def margin(words: str) -> str:
    """Return the last of the words that CBIS-DDSM joins by hyphens: they come by rising suspicion."""
    return words.upper().rpartition("-")[2]


@dataclass(frozen=True)
class Dataset:
    """A data set on disk.

    Attributes
    ----------
    source
        Where the images come from, with licence and caveats.
    folder
        Paths in the records are relative to it.
    records
        In the set's order.
    notes
        What was noticed while it was opened, a sentence each, such as which images were left out and why.
    """

    source: Source
    folder: Path
    records: tuple[Record, ...]
    notes: tuple[str, ...] = ()


def split_by_patient(records: Iterable[Record], parts: int, seed: int) -> dict[str, int]:
    """Deal patients to parts, stratified by whether they have a malignant image, a mass, or neither.

    A patient's place depends on the seed and on who the patients are, not on the order of the records. It does not
    survive a longer or filtered data set: split first, filter then. Of a collection each set is dealt by itself, as it is
    without the others.

    Returns
    -------
    dict
        Part, 0 to ``parts - 1``, by patient.
    """
    result: dict[str, int] = {}
    for rows in by_set(records):
        malignant = {r.patient_id for r in rows if r.malignant}
        masses = {r.patient_id for r in rows if r.boxes} - malignant
        for group in (malignant, masses, {r.patient_id for r in rows} - malignant - masses):
            ordered = sorted(group, key=lambda p: hashlib.sha256(f"{seed}|{p}".encode()).digest())
            result |= {patient: place % parts for place, patient in enumerate(ordered)}
    return result


def by_set(records: Iterable[Record]) -> list[list[Record]]:
    """Return the records of each set of a collection, or all together where there is but one set."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.source, []).append(record)
    return list(found.values())
