"""Mass data sets: a manifest beside its images, split by patient."""

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ai.breast import Geometry, prepare
from ai.errors import AIError, InvalidDataset
from ai.exam import Laterality, View, ViewPosition
from ai.pixels import file_image

Box = tuple[float, float, float, float]
"""x, y, width, height in pixels of the image file."""


@dataclass(frozen=True)
class Record:
    """One row of a manifest.

    Attributes
    ----------
    file
        The image as the manifest names it.
    patient_id
        Splits and intervals are grouped by it.
    view
        Laterality and view position.
    boxes
        Masses in pixels of the image file.
    malignant
        Whether any mass is malignant; None when the manifest does not say.
    pathologies
        One word per mass, whose order against the boxes is not known.
    mask
        Path of the mass mask, relative to the manifest; white is mass.
    folder
        Of the image, relative to the manifest.
    """

    file: str
    patient_id: str
    view: View
    boxes: tuple[Box, ...] = ()
    malignant: bool | None = None
    pathologies: tuple[str, ...] = ()
    mask: str | None = None
    folder: str = ""

    @property
    def path(self) -> Path:
        """Where the image is, relative to the manifest."""
        return Path(self.folder, self.file)

    @property
    def agreed_malignancy(self) -> bool | None:
        """Malignancy of every mass when they all agree, else None."""
        kinds = {p.startswith("MALIGNANT") for p in self.pathologies}
        return kinds.pop() if len(kinds) == 1 else None


def read_manifest(path: Path, where: Mapping[str, str] | None = None) -> list[Record]:
    """Read a CSV manifest with the columns file, patient_id, laterality, view and, for truth, boxes and malignant.

    Images are looked for beside the manifest, then in a folder ``images`` there.
    ``boxes_xywh`` or ``boxes_xywh_800`` hold a JSON list of [x, y, width, height] in pixels of the image file. A file
    of the same name in a folder ``masks`` beside the manifest is the image's mass mask. ``patient`` and ``side`` may
    stand for ``patient_id`` and ``laterality``.

    Parameters
    ----------
    where
        Columns and the values that a row must have to be taken.

    Raises
    ------
    InvalidDataset
        When a column is missing or a value cannot be read; the row is named.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                _record(row, number, path.parent)
                for number, row in enumerate(csv.DictReader(file), 2)
                if all(row.get(column) == value for column, value in (where or {}).items())
            ]
    except OSError as error:
        raise InvalidDataset(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidDataset(f"{path}: {error}") from error


def _record(row: dict[str, str], number: int, folder: Path) -> Record:
    try:
        boxes = json.loads(row.get("boxes_xywh") or row.get("boxes_xywh_800") or "[]")
        malignant = row.get("malignant") or ""
        mask = Path("masks", Path(row["file"]).name)
        return Record(
            row["file"],
            row.get("patient_id") or row["patient"],
            View(Laterality(row.get("laterality") or row["side"]), ViewPosition(row["view"])),
            tuple((float(x), float(y), float(w), float(h)) for x, y, w, h in boxes),
            {"": None, "0": False, "1": True}[malignant],
            tuple(p for p in (row.get("pathologies") or "").split("|") if p),
            str(mask) if (folder / mask).is_file() else None,
            "images" if not (folder / row["file"]).is_file() and (folder / "images" / row["file"]).is_file() else "",
        )
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidDataset(f"line {number}: {error!r}") from error


def split_by_patient(records: Sequence[Record], folds: int, seed: int) -> dict[str, int]:
    """Deal patients to folds, stratified by whether they have a malignant image.

    A patient's place depends on the seed and on who the patients are, not on the order of the records. It does not
    survive a longer or filtered manifest: split first, filter then.

    Returns
    -------
    dict
        Fold, 0 to ``folds - 1``, by patient.
    """
    malignant = {r.patient_id for r in records if r.malignant}
    result: dict[str, int] = {}
    for group in (malignant, {r.patient_id for r in records} - malignant):
        ordered = sorted(group, key=lambda p: hashlib.sha256(f"{seed}|{p}".encode()).digest())
        result |= {patient: place % folds for place, patient in enumerate(ordered)}
    return result


@dataclass(frozen=True, eq=False)
class Sample:
    """One image on the canvas, with its truth.

    Attributes
    ----------
    record
        Where it comes from.
    pixels
        uint8, canvas shape: -1 to 1 as 0 to 255.
    mass
        uint8, canvas shape: 1 within the ellipses inscribed in the boxes. A weak label: supervision only.
    geometry
        The way back to the file's pixels.
    """

    record: Record
    pixels: NDArray[np.uint8]
    mass: NDArray[np.uint8]
    geometry: Geometry


def load_samples(
    folder: Path, records: Iterable[Record], canvas: tuple[int, int], on_image: Callable[[], None] = lambda: None
) -> list[Sample]:
    """Prepare every image of the records; ``on_image`` is called after each.

    Raises
    ------
    InvalidDataset
        When an image cannot be used; it is named.
    """
    samples = []
    for record in records:
        try:
            prepared = prepare(file_image(folder / record.path, record.view), canvas)
        except AIError as error:
            raise InvalidDataset(f"{record.file}: {error}") from error
        pixels = np.round((prepared.pixels + 1) * 127.5).astype(np.uint8)
        samples.append(Sample(record, pixels, ellipses(record.boxes, prepared.geometry), prepared.geometry))
        on_image()
    return samples


def ellipses(boxes: Iterable[Box], geometry: Geometry) -> NDArray[np.uint8]:
    """Draw the ellipses inscribed in boxes (image pixels) on the canvas."""
    mass = np.zeros(geometry.canvas, np.uint8)
    for x, y, width, height in boxes:
        corners = geometry.points_to_canvas(np.array([[x, y], [x + width, y + height]]))
        centre, size = corners.mean(0) - 0.5, np.abs(corners[1] - corners[0])
        cv2.ellipse(mass, (tuple(centre.tolist()), tuple(size.tolist()), 0.0), 1, cv2.FILLED)
    return mass
