"""Data sets by the form that they were published in."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ai.datasets.cbis_ddsm import is_cbis_ddsm, read_cbis_ddsm
from ai.datasets.cdd_cesm import is_cdd_cesm, read_cdd_cesm
from ai.datasets.collection import is_collection, read_collection
from ai.datasets.folders import is_folders, read_folders
from ai.datasets.inbreast import is_inbreast, read_inbreast
from ai.datasets.manifest import read_manifest
from ai.datasets.records import Dataset, Record
from ai.datasets.selection import some
from ai.datasets.sources import read_sheet
from ai.datasets.truth import boxes_of_mask, read_mask
from ai.errors import InvalidDataset

Where = Mapping[str, str]
OnImage = Callable[[], None]


@dataclass(frozen=True)
class Options:
    """How a data set is opened.

    Attributes
    ----------
    where
        Columns of a manifest and the values that a row must have.
    leave_out_mismatched
        Leave out images whose masks have another size, instead of refusing the set.
    on_image
        Called after each image or mask that is looked at.
    """

    where: Where
    leave_out_mismatched: bool
    on_image: OnImage


@dataclass(frozen=True)
class Kind:
    """One form of data sets.

    Attributes
    ----------
    title
        What must be there, for messages and help.
    fits
        Whether a path looks like it.
    read
        Opens it.
    """

    title: str
    fits: Callable[[Path], bool]
    read: Callable[[Path, Options], Dataset]


def open_dataset(
    path: Path,
    kind: str = "auto",
    on_image: OnImage = lambda: None,
    *,
    where: Where | None = None,
    leave_out_mismatched: bool = False,
) -> Dataset:
    """Open a data set: a CSV manifest, or the folder of a published set.

    Every record of the result has boxes where it has outlines or masks.

    Parameters
    ----------
    kind
        A key of ``KINDS``, or ``auto``: the first kind that fits what lies there.
    on_image
        Called after each image or mask that is looked at.
    where
        Columns of a manifest and the values that a row must have to be taken.
    leave_out_mismatched
        Leave out images whose masks have another size, instead of refusing the set.

    Raises
    ------
    InvalidDataset
        When it is of no known kind, is damaged, or holds no image, or two of one name; what is wrong is named.
    """
    form = _kind(path, kind)
    if where and form is not KINDS["manifest"]:
        raise InvalidDataset(f"{path}: --where needs a manifest, and this is: {form.title}")
    dataset = form.read(path, Options(where or {}, leave_out_mismatched, on_image))
    if not dataset.records:
        raise InvalidDataset(f"{path}: no image is left" if where else f"{path}: holds no image")
    twice = [name for name, count in Counter(r.file for r in dataset.records).items() if count > 1]
    if twice:
        raise InvalidDataset(f"{path}: more than one image is named {some(twice)}")
    return dataset


def _kind(path: Path, kind: str) -> Kind:
    known = "; ".join(f"{name}: {each.title}" for name, each in KINDS.items())
    if kind != "auto":
        if kind not in KINDS:
            raise InvalidDataset(f"there is no kind {kind!r}. The kinds are {known}")
        return KINDS[kind]
    if not path.exists():
        raise InvalidDataset(f"{path}: is not there")
    for each in KINDS.values():
        if each.fits(path):
            return each
    raise InvalidDataset(f"{path}: is of no known kind. The kinds are {known}")


def _is_manifest(path: Path) -> bool:
    return (path.is_file() and not is_collection(path)) or (path / "manifest.csv").is_file()


def _manifest(path: Path, options: Options) -> Dataset:
    file = path / "manifest.csv" if path.is_dir() else path
    records = []
    for record in read_manifest(file, options.where):
        records.append(_with_boxes(record, file.parent))
        options.on_image()
    return Dataset(read_sheet(file.parent), file.parent, tuple(records))


def _collection(path: Path, options: Options) -> Dataset:
    def opened(member: Path, kind: str, where: Where) -> Dataset:
        return open_dataset(
            member, kind, options.on_image, where=where, leave_out_mismatched=options.leave_out_mismatched
        )

    return read_collection(path, opened)


def _with_boxes(record: Record, folder: Path) -> Record:
    if record.boxes or not record.masks:
        return record
    return replace(record, boxes=tuple(b for m in record.masks for b in boxes_of_mask(read_mask(folder / m))))


KINDS: Final[Mapping[str, Kind]] = {
    "manifest": Kind("a CSV file, or a folder with manifest.csv", _is_manifest, _manifest),
    "collection": Kind("a TOML file that names several sets", is_collection, _collection),
    "inbreast": Kind(
        "a folder with INbreast.csv, AllDICOMs and AllXML", is_inbreast, lambda p, o: read_inbreast(p, o.on_image)
    ),
    "cbis-ddsm": Kind(
        "a folder with mass_case_description_*_set.csv and the DICOM folders Mass-*",
        is_cbis_ddsm,
        lambda p, o: read_cbis_ddsm(p, o.on_image, leave_out_mismatched=o.leave_out_mismatched),
    ),
    "cdd-cesm": Kind(
        "a folder with the CSV of hand-drawn segmentations, the findings as CSV, and the JPEG images",
        is_cdd_cesm,
        lambda p, o: read_cdd_cesm(p, o.on_image),
    ),
    "folders": Kind(
        "a folder PATIENT/STUDY/IMAGE.dcm with masks beside the images or annotations.json",
        is_folders,
        lambda p, o: read_folders(p, o.on_image),
    ),
}
"""In the order in which they are tried."""
