"""Our own form of a data set: a CSV manifest beside its images."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from ai.datasets.records import Box, Record, margin
from ai.datasets.tables import Naming, column, density, known, read_table
from ai.errors import InvalidDataset
from ai.exam import Laterality, View, ViewPosition

MALIGNANT: Final = {"": None, "0": False, "1": True}
LATERALITY: Final = {side.value: side for side in Laterality}
POSITION: Final = {position.value: position for position in ViewPosition}
PATHOLOGY: Final = {"": None, "NORMAL": False, "BENIGN": False, "BENIGN_WITHOUT_CALLBACK": False, "MALIGNANT": True}


def read_manifest(path: Path, where: Mapping[str, str] | None = None) -> list[Record]:
    """Read a CSV manifest with the columns file, patient_id, laterality, view and, for truth, boxes and malignant.

    Images are looked for beside the manifest, then in a folder ``images`` there.
    ``boxes_xywh`` or ``boxes_xywh_800`` hold a JSON list of [x, y, width, height] in pixels of the image file. A file
    of the same path, or name, or of that with the ending .png, in a folder ``masks`` beside the manifest is the image's
    mass mask. Further columns: ``density`` (1 to 4 or A to D), ``study``, ``subset``, ``pathologies``, ``margins`` and ``subtlety``
    (one value per mass, joined by ``|``). ``patient``, ``side``, ``study_id``, ``split`` and ``pathology`` may stand
    for ``patient_id``, ``laterality``, ``study``, ``subset`` and, of the whole image, ``malignant``. Other columns are
    for ``where``.

    Parameters
    ----------
    where
        Columns and the values that a row must have to be taken.

    Raises
    ------
    InvalidDataset
        When a column is missing or a value cannot be read; the row is named.
    """
    rows = read_table(path)
    for name in where or ():
        if rows and not any(name in row for _, row in rows):
            raise InvalidDataset(f"{path}: there is no column {name!r}; there are {', '.join(rows[0][1])}")
    return [
        _record(row, number, path)
        for number, row in rows
        if all(row.get(name) == value for name, value in (where or {}).items())
    ]


def _record(row: dict[str, str], number: int, path: Path) -> Record:
    folder = path.parent
    with Naming(f"{path}, line {number}"):
        file = column(row, "file")
        boxes = row.get("boxes_xywh") or row.get("boxes_xywh_800") or ""
        masks = tuple(str(mask) for mask in _masks(file) if (folder / mask).is_file())[:1]
        malignant, pathologies = _malignant(row), _pathologies(row)
        if pathologies and malignant is not None and malignant != any(PATHOLOGY[word] for word in pathologies):
            raise ValueError(f"malignant is {int(malignant)}, and the pathologies are {'|'.join(pathologies)}")
        return Record(
            file,
            column(row, "patient_id", "patient"),
            View(
                known(LATERALITY, column(row, "laterality", "side"), "laterality"),
                known(POSITION, column(row, "view"), "view"),
            ),
            _boxes(boxes),
            malignant,
            () if pathologies == ("NORMAL",) else pathologies,
            masks,
            folder="images" if not (folder / file).is_file() and (folder / "images" / file).is_file() else "",
            density=density(row.get("density") or ""),
            study=row.get("study") or row.get("study_id") or None,
            subtlety=tuple(int(s.removesuffix(".0")) for s in _words(row, "subtlety")),
            margins=tuple(margin(words) for words in _words(row, "margins")),
            subset=row.get("subset") or row.get("split") or None,
            labelled=bool(boxes or masks),
        )


def _masks(file: str) -> Iterator[Path]:
    """Yield where an image's mask may be."""
    for name in dict.fromkeys((Path(file), Path(Path(file).name))):
        if not name.is_absolute():
            yield from dict.fromkeys((Path("masks") / name, Path("masks") / name.with_suffix(".png")))


def _boxes(text: str) -> tuple[Box, ...]:
    try:
        boxes = tuple((float(x), float(y), float(w), float(h)) for x, y, w, h in json.loads(text or "[]"))
    except (ValueError, TypeError) as error:
        raise ValueError(f"boxes {text!r}: no JSON list of [x, y, width, height]") from error
    for box in boxes:
        if not (box[2] > 0 and box[3] > 0):
            raise ValueError(f"box {list(box)} has no area")
    return boxes


def _words(row: dict[str, str], *names: str) -> tuple[str, ...]:
    """Return the words of the first column that has some, one per mass; none where one of them is missing."""
    words = tuple(word.strip() for word in next(filter(None, map(row.get, names)), "").split("|"))
    return words if all(words) else ()


def _pathologies(row: dict[str, str]) -> tuple[str, ...]:
    words = tuple(word.upper() for word in _words(row, "pathologies", "pathology"))
    for word in words:
        known(PATHOLOGY, word, "pathologies")
    return words


def _malignant(row: dict[str, str]) -> bool | None:
    if "malignant" in row:
        return known(MALIGNANT, row["malignant"].removesuffix(".0"), "malignant")
    words = {known(PATHOLOGY, word.strip().upper(), "pathology") for word in row.get("pathology", "").split("|")}
    return True if True in words else words.pop() if len(words) == 1 else None
