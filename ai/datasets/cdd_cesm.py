"""CDD-CESM as The Cancer Imaging Archive publishes it: JPEG images, a sheet of findings, drawn regions as CSV of VIA."""

import json
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ai.datasets.records import Dataset, Outline, Record
from ai.datasets.selection import some
from ai.datasets.sources import SOURCES
from ai.datasets.tables import Naming, column, density, known, read_table
from ai.datasets.truth import box_of_outline
from ai.errors import InvalidDataset
from ai.exam import Laterality, View, ViewPosition
from ai.words import counted

REGIONS: Final = "*hand*drawn*segmentations*.csv"
FINDINGS: Final = "*annotations*.csv"
PATHOLOGY: Final = "Pathology Classification/ Follow up"
MALIGNANT: Final = {"NORMAL": False, "BENIGN": False, "MALIGNANT": True}
CORNERS: Final = 64
"""Of the polygon that stands for a circle or an ellipse."""

Row = dict[str, str]


def is_cdd_cesm(path: Path) -> bool:
    """Tell whether a folder looks like CDD-CESM: it has the table of drawn regions."""
    return path.is_dir() and any(path.glob(REGIONS))


def read_cdd_cesm(folder: Path, on_image: Callable[[], None] = lambda: None) -> Dataset:
    """Read the table of regions, the sheet of findings as CSV, and the images wherever they lie in the folder.

    An image's name, such as ``P1_L_DM_MLO``, says patient, side, kind and view. The subset of a low-energy image is
    ``DM``, of a subtracted one ``CM``. Regions have no labels of their own: they are masses where the findings or tags
    of the image speak of a mass. Where there are regions and no such word, or the word and no region, the image is not
    labelled.

    Raises
    ------
    InvalidDataset
        When a table is missing, or a row or name cannot be read.
    """
    regions, flat = _regions(_table(folder, REGIONS))
    findings = _findings(folder)
    images = {
        path.stem.strip(): path
        for path in sorted((*folder.rglob("*.jpg"), *folder.rglob("*.png")))
        if _is_name(path.stem)
    }
    records, unseen = [], []
    for name, rows in findings.items():
        if name in images:
            file = images[name].relative_to(folder).as_posix()
            records.append(_record(name, file, rows, tuple(regions.get(name, ())), usable=name not in flat))
            on_image()
        else:
            unseen.append(name)
    unlisted = sorted(set(images) - set(findings))
    notes = (
        f"{counted(len(unseen), 'image of the findings is', 'images of the findings are')} not there: {some(unseen)}"
        if unseen
        else "",
        f"left out {counted(len(unlisted), 'image')} without findings: {some(unlisted)}" if unlisted else "",
    )
    return Dataset(
        SOURCES["cdd-cesm"],
        folder,
        tuple(records),
        tuple(n for n in notes if n),
    )


def _table(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        sheets = sorted(folder.glob(pattern.replace(".csv", ".xlsx")))
        hint = f"; save the sheet with all images of {sheets[0].name} as CSV" if sheets else ""
        raise InvalidDataset(f"{folder}: {counted(len(found), 'file')} {pattern} instead of one{hint}")
    return found[0]


def _findings(folder: Path) -> dict[str, list[Row]]:
    table = _table(folder, FINDINGS)
    result: defaultdict[str, list[Row]] = defaultdict(list)
    for number, row in read_table(table):
        with Naming(f"{table.name}, line {number}"):
            result[_image_name(column(row, "Image_name"))].append(row)
            known(MALIGNANT, column(row, PATHOLOGY).upper(), PATHOLOGY)
    return dict(result)


def _record(name: str, file: str, rows: list[Row], outlines: tuple[Outline, ...], *, usable: bool) -> Record:
    with Naming(name):
        patient, side, kind, position = name.split("_")[:4]
        view = View(
            Laterality(side), ViewPosition(position.rstrip("0123456789"))
        )  # a second image of a view has a number
        densities = {density(row.get("Breast density (ACR)", "")) for row in rows} - {None}
    mass = any("mass" in f"{row.get('Findings', '')} {row.get('Tags', '')}".lower() for row in rows)
    worst = max((row[PATHOLOGY].upper() for row in rows), key=lambda p: list(MALIGNANT).index(p))
    labelled = usable and mass == bool(outlines)
    shown = outlines if labelled else ()
    return Record(
        file,
        patient,
        view,
        tuple(box_of_outline(o) for o in shown),
        MALIGNANT[worst] if shown or not MALIGNANT[worst] else None,
        (worst,) if shown else (),
        outlines=shown,
        density=densities.pop() if len(densities) == 1 else None,
        subset="DM" if kind == "DM" else "CM",
        labelled=labelled,
    )


def _regions(table: Path) -> tuple[dict[str, list[Outline]], set[str]]:
    """Return the outlines by image, and the images of which one encloses nothing."""
    result: defaultdict[str, list[Outline]] = defaultdict(list)
    flat = set()
    for number, row in read_table(table):
        with Naming(f"{table.name}, line {number}"):
            name = _image_name(column(row, "#filename", "filename"))
            shape = json.loads(column(row, "region_shape_attributes"))
            if shape:
                outline = _outline(shape)
                result[name].append(outline)
                flat |= {name} if len(outline) < 3 else set()
    return dict(result), flat


def _outline(shape: dict[str, Any]) -> Outline:
    """Return a shape of the VGG Image Annotator as a polygon."""
    match shape.get("name"):
        case "polygon" | "polyline":
            x_all, y_all = shape["all_points_x"], shape["all_points_y"]
            if len(x_all) != len(y_all):
                raise ValueError(f"{len(x_all)} x and {len(y_all)} y")
            return tuple((float(x), float(y)) for x, y in zip(x_all, y_all, strict=True))
        case "rect":
            x, y, width, height = (float(shape[key]) for key in ("x", "y", "width", "height"))
            return (x, y), (x + width, y), (x + width, y + height), (x, y + height)
        case "circle":
            return _ellipse(shape, float(shape["r"]), float(shape["r"]), 0.0)
        case "ellipse":
            return _ellipse(shape, float(shape["rx"]), float(shape["ry"]), float(shape.get("theta", 0)))
        case "point":
            return ((float(shape["cx"]), float(shape["cy"])),)
        case other:
            raise ValueError(f"the shape {other!r} is not known")


def _ellipse(shape: dict[str, Any], rx: float, ry: float, theta: float) -> Outline:
    cx, cy, cosine, sine = float(shape["cx"]), float(shape["cy"]), math.cos(theta), math.sin(theta)
    turns = [2 * math.pi * k / CORNERS for k in range(CORNERS)]
    points = [(rx * math.cos(t), ry * math.sin(t)) for t in turns]
    return tuple((cx + x * cosine - y * sine, cy + x * sine + y * cosine) for x, y in points)


def _image_name(text: str) -> str:
    """Return a file's name without folder, ending and the blank that stands before some endings."""
    return Path(text).name.removesuffix(".jpg").removesuffix(".png").strip()


def _is_name(stem: str) -> bool:
    return len(stem.split("_")) >= 4
