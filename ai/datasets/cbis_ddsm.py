"""CBIS-DDSM as The Cancer Imaging Archive publishes it: DICOM images, one DICOM mask per mass, tables.

Some of its folders hold the cropped image where the table names the mask, so the mask is known by its size; and some
masks have another size than their image.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

import pydicom
from pydicom.errors import InvalidDicomError

from ai.datasets.records import Box, Dataset, Record, margin
from ai.datasets.selection import some
from ai.datasets.sources import SOURCES
from ai.datasets.tables import Naming, column, density, known, read_table
from ai.datasets.truth import box_around, boxes_of_mask, read_mask
from ai.errors import InvalidDataset
from ai.exam import Laterality, View, ViewPosition
from ai.words import counted

SUBSETS: Final = ("train", "test")
SIDES: Final = {"LEFT": Laterality.LEFT, "RIGHT": Laterality.RIGHT}
PATHOLOGIES: Final = {"MALIGNANT": True, "BENIGN": False, "BENIGN_WITHOUT_CALLBACK": False}

Row = dict[str, str]


class _Mismatch(Exception):
    """A mask has another size than its image; the argument says which."""


@dataclass
class _Image:
    """The rows of one image, one per mass, with the places where they stand."""

    subset: str
    rows: list[tuple[str, Row]] = field(default_factory=list)


def is_cbis_ddsm(path: Path) -> bool:
    """Tell whether a folder looks like CBIS-DDSM: it, or a folder in it, has a table of masses."""
    return path.is_dir() and any(_tables(path))


def read_cbis_ddsm(
    folder: Path, on_image: Callable[[], None] = lambda: None, *, leave_out_mismatched: bool = False
) -> Dataset:
    """Read ``mass_case_description_{train,test}_set.csv`` and the folders ``Mass-...`` of images and masks.

    Folders are found by the names of the cases, with the series' UIDs below them or the archive's newer, readable
    names. Boxes are drawn around the masks, one for each, in the order of pathologies and subtleties. The set has no
    image without a mass: those of the tables of calcifications are not read.

    Parameters
    ----------
    leave_out_mismatched
        Leave out an image one of whose masks has another size, instead of refusing the set.

    Raises
    ------
    InvalidDataset
        When a table, image or mask is missing or cannot be read, or a mask has another size than its image.
    """
    images: dict[str, _Image] = {}
    for subset, table in _tables(folder):
        for number, row in read_table(table):
            place = f"{table.name}, line {number}"
            with Naming(place):
                case = PurePosixPath(column(row, "image file path")).parts[0]
            images.setdefault(case, _Image(subset)).rows.append((place, row))
    cases = _cases(folder)
    records, left = [], []
    for case, image in images.items():
        try:
            records.append(_record(case, image, cases, folder))
        except _Mismatch as error:
            if not leave_out_mismatched:
                raise InvalidDataset(f"{error}; --leave-out-mismatched reads the others") from error
            left.append(case)
        on_image()
    return Dataset(
        SOURCES["cbis-ddsm"],
        folder,
        tuple(records),
        (f"left out {counted(len(left), 'image')} with a mask of another size: {some(left)}",) if left else (),
    )


def _tables(folder: Path) -> Iterable[tuple[str, Path]]:
    for subset in SUBSETS:
        name = f"mass_case_description_{subset}_set.csv"
        for path in sorted((*folder.glob(name), *folder.glob(f"*/{name}")))[:1]:
            yield subset, path


def _cases(folder: Path) -> dict[str, list[Path]]:
    """Return the DICOM files of each case folder, wherever below the set's folder it lies."""
    found: dict[str, list[Path]] = {}
    for pattern in ("Mass-*", "*/Mass-*", "*/*/Mass-*"):
        for path in folder.glob(pattern):
            if path.is_dir():
                found.setdefault(path.name, []).extend(path.rglob("*.dcm"))
    return {name: sorted(files) for name, files in found.items()}


def _record(case: str, image: _Image, cases: dict[str, list[Path]], folder: Path) -> Record:
    place, first = image.rows[0]
    with Naming(place):
        file = _only(cases.get(case, []), first, "image file path", case)
        view = View(
            known(SIDES, column(first, "left or right breast"), "left or right breast"),
            ViewPosition(column(first, "image view")),
        )
        patient, dense = (
            column(first, "patient_id"),
            density(first.get("breast_density") or first.get("breast density", "")),
        )
    masks: list[str] = []
    boxes: list[Box] = []
    pathologies: list[str] = []
    subtlety: list[int] = []
    margins: list[str] = []
    malignant = False
    for here, row in image.rows:
        with Naming(here):
            mask = _mask(row, file, cases)
            pathologies.append(column(row, "pathology"))
            malignant |= known(PATHOLOGIES, pathologies[-1], "pathology")
            subtlety.append(int(column(row, "subtlety")))
            margins.append(margin(row.get("mass margins") or ""))
            regions = boxes_of_mask(read_mask(mask))
            if not regions:
                raise ValueError(f"{mask} shows no mass")
        boxes.append(box_around(regions))
        masks.append(mask.relative_to(folder).as_posix())
    return Record(
        file.relative_to(folder).as_posix(),
        patient,
        view,
        tuple(boxes),
        malignant,
        tuple(pathologies),
        tuple(masks),
        density=dense,
        subtlety=tuple(subtlety),
        margins=tuple(margins) if all(margins) else (),
        subset=image.subset,
    )


def _only(files: list[Path], row: Row, key: str, case: str) -> Path:
    """Return the file that the table names, or the only one of its case."""
    named = PurePosixPath(column(row, key))
    for file in files:
        if file.parts[-len(named.parts) :] == named.parts:
            return file
    if len(files) != 1:
        raise ValueError(f"the folder {case} holds {len(files)} DICOM files instead of one")
    return files[0]


def _mask(row: Row, image: Path, cases: dict[str, list[Path]]) -> Path:
    """Return the file of the mass's folder that has the image's size; the cropped image lies there too."""
    case = PurePosixPath(column(row, "ROI mask file path")).parts[0]
    files = cases.get(case, [])
    if not files:
        raise ValueError(f"there is no folder {case} with a mask")
    size = _header(image)[0]
    headers = {file: _header(file) for file in files}
    fitting = [file for file in files if headers[file][0] == size]
    if len(fitting) > 1:
        fitting = [file for file in fitting if "mask" in headers[file][1]] or fitting
        return _only(fitting, row, "ROI mask file path", case)
    if not fitting:
        largest = max(files, key=lambda file: headers[file][0])
        rows, columns = headers[largest][0]
        raise _Mismatch(f"{largest} has {columns} x {rows} pixels, its image {image} {size[1]} x {size[0]}")
    return fitting[0]


def _header(path: Path) -> tuple[tuple[int, int], str]:
    """Return rows and columns, and the series' description in small letters."""
    try:
        header = pydicom.dcmread(path, specific_tags=["Rows", "Columns", "SeriesDescription"], stop_before_pixels=True)
        return (int(header.Rows), int(header.Columns)), str(header.get("SeriesDescription", "")).lower()
    except (InvalidDicomError, AttributeError, OSError) as error:
        raise InvalidDataset(f"{path}: is no DICOM image: {error}") from error
