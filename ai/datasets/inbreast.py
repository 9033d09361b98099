"""INbreast as its authors publish it (Moreira et al. 2012): DICOM, OsiriX outlines in XML, one table."""

import plistlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from xml.parsers.expat import ExpatError

from ai.datasets.records import Dataset, Outline, Record
from ai.datasets.selection import some
from ai.datasets.sources import SOURCES
from ai.datasets.tables import Naming, column, density, known, read_table
from ai.datasets.truth import box_of_outline
from ai.errors import InvalidDataset
from ai.exam import Laterality, View, ViewPosition
from ai.words import counted

TABLE: Final = "INbreast.csv"
IMAGES: Final = "AllDICOMs"
OUTLINES: Final = "AllXML"

MALIGNANT: Final = {"1": False, "2": False, "3": None, "4": True, "5": True, "6": True}
"""What a mass in a breast of this BI-RADS category is taken for: the set has no pathology, and 3 says neither."""


def is_inbreast(path: Path) -> bool:
    """Tell whether a folder looks like INbreast."""
    return (path / IMAGES).is_dir()


def read_inbreast(folder: Path, on_image: Callable[[], None] = lambda: None) -> Dataset:
    """Read ``INbreast.csv``, ``AllDICOMs/*.dcm`` and ``AllXML/*.xml``.

    The second part of an image's file name stands for the patient, whose ID was removed. An image without an XML file
    has no findings; images of other views than CC and MLO are left out. Only outlines named ``Mass`` count. One of fewer than three corners encloses nothing: the image is
    then not labelled.

    Raises
    ------
    InvalidDataset
        When the table, an image that it names or an XML file is missing or cannot be read.
    """
    table = folder / TABLE
    if not table.is_file():
        raise InvalidDataset(f"{table}: is not there; save INbreast.xls as CSV")
    files = {path.name.partition("_")[0]: path for path in sorted((folder / IMAGES).glob("*.dcm"))}
    records, other = [], []
    for number, row in read_table(table):
        if not row.get("File Name"):
            continue  # the sheet ends with lines of remarks
        with Naming(f"{TABLE}, line {number}"):
            name = column(row, "File Name").removesuffix(".0")
            if name not in files:
                raise ValueError(f"there is no {IMAGES}/{name}_*.dcm")
            file = files.pop(name)
            if column(row, "View").upper() in tuple(ViewPosition):
                records.append(_record(row, file, folder))
            else:
                other.append(file.name)
        on_image()
    left = [path.name for path in files.values()]
    notes = (
        f"left out {counted(len(left), 'image')} that {TABLE} does not list: {some(left)}" if left else "",
        f"left out {counted(len(other), 'image')} of other views than CC and MLO: {some(other)}" if other else "",
    )
    return Dataset(
        SOURCES["inbreast"],
        folder,
        tuple(records),
        tuple(n for n in notes if n),
    )


def _record(row: dict[str, str], file: Path, folder: Path) -> Record:
    parts = file.stem.split("_")
    if len(parts) < 2:
        raise ValueError(f"{file.name}: no patient stands in the name")
    outlines, labelled = _masses(folder / OUTLINES / f"{parts[0]}.xml")
    malignant = known(MALIGNANT, column(row, "Bi-Rads")[0], "Bi-Rads")
    return Record(
        file.relative_to(folder).as_posix(),
        parts[1],
        View(Laterality(column(row, "Laterality")), ViewPosition(column(row, "View").upper())),
        tuple(box_of_outline(o) for o in outlines),
        # Where nothing but calcifications made the category, no mass is malignant, but the image is no clean negative.
        malignant if outlines or not malignant else None,
        outlines=outlines,
        density=density(row.get("ACR", "")),
        study=f"{parts[1]}_{row.get('Acquisition date', '')}",
        labelled=labelled,
    )


def _masses(path: Path) -> tuple[tuple[Outline, ...], bool]:
    """Return the outlines of the masses, and whether all of them enclose something."""
    if not path.is_file():
        return (), True
    try:
        images: list[dict[str, Any]] = plistlib.loads(path.read_bytes())["Images"]
        regions = [region for image in images for region in image["ROIs"]]
        masses = [tuple(_point(p) for p in region["Point_px"]) for region in regions if _is_mass(region)]
    except (plistlib.InvalidFileException, ExpatError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidDataset(f"{path}: is no list of OsiriX regions: {error!r}") from error
    whole = tuple(m for m in masses if len(m) >= 3)
    return whole, len(whole) == len(masses)


def _is_mass(region: dict[str, Any]) -> bool:
    return bool(region["Name"].strip().lower() == "mass")


def _point(text: str) -> tuple[float, float]:
    found = re.fullmatch(r"\(\s*([-+.\deE]+)\s*,\s*([-+.\deE]+)\s*\)", text)
    if found is None:
        raise ValueError(f"{text!r} is no point")
    return float(found[1]), float(found[2])
