"""Our own form of a data set: a CSV manifest beside its images."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path

from ai.datasets.records import Record
from ai.errors import InvalidDataset
from ai.exam import Laterality, View, ViewPosition


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
        boxes = row.get("boxes_xywh") or row.get("boxes_xywh_800") or ""
        malignant = row.get("malignant") or ""
        mask = Path("masks", Path(row["file"]).name)
        masks = (str(mask),) if (folder / mask).is_file() else ()
        return Record(
            row["file"],
            row.get("patient_id") or row["patient"],
            View(Laterality(row.get("laterality") or row["side"]), ViewPosition(row["view"])),
            tuple((float(x), float(y), float(w), float(h)) for x, y, w, h in json.loads(boxes or "[]")),
            {"": None, "0": False, "1": True}[malignant],
            tuple(p for p in (row.get("pathologies") or "").split("|") if p),
            masks,
            folder="images"
            if not (folder / row["file"]).is_file() and (folder / "images" / row["file"]).is_file()
            else "",
            labelled=bool(boxes or masks),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidDataset(f"line {number}: {error!r}") from error
