"""A folder per patient, as in OPTIMAM: DICOM images with masks beside them or annotations in one JSON file."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import pydicom
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydicom import Dataset as Header
from pydicom.errors import InvalidDicomError

from ai.datasets.records import Box, Dataset, Outline, Record
from ai.datasets.selection import some
from ai.datasets.sources import NOT_STATED, Source
from ai.datasets.tables import density
from ai.datasets.truth import box_of_outline, boxes_of_mask, read_mask
from ai.errors import InvalidDataset
from ai.exam import Laterality, View, ViewPosition
from ai.words import counted, first_fault

ANNOTATIONS: Final = "annotations.json"
MASKS: Final = "masks"
VIEW_CODES: Final = {
    "399162004": ViewPosition.CC,
    "R-10242": ViewPosition.CC,
    "399368009": ViewPosition.MLO,
    "R-10226": ViewPosition.MLO,
}
"""PS3.16 CID 4014, in SNOMED CT and in SNOMED-RT."""
HEADER: Final = ("ImageLaterality", "Laterality", "ViewPosition", "ViewCodeSequence", "PresentationIntentType")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Mass(_Part):
    """One mass of an annotated image.

    Attributes
    ----------
    box
        x, y, width, height in pixels of the image; not needed beside an outline.
    outline
        Corners x, y.
    pathology
        None when it is not known.
    subtlety
        1 (subtle) to 5 (obvious).
    """

    box: tuple[float, float, float, float] | None = None
    outline: tuple[tuple[float, float], ...] | None = Field(None, min_length=3)
    pathology: Literal["MALIGNANT", "BENIGN", "BENIGN_WITHOUT_CALLBACK"] | None = None
    subtlety: int | None = Field(None, ge=1, le=5)

    @model_validator(mode="after")
    def _placed(self) -> "Mass":
        if self.box is None and self.outline is None:
            raise ValueError("a mass needs a box or an outline")
        if self.box is not None and not (self.box[2] > 0 and self.box[3] > 0):
            raise ValueError("a box needs an area")
        return self


class Annotation(_Part):
    """What is known of one image.

    Attributes
    ----------
    masses
        None when they stand in masks, or are not known; an empty list says that there is none.
    malignant
        Of the image, where the masses do not say.
    laterality, view
        Where the DICOM header lacks them.
    density
        1 to 4 or A to D.
    subset
        The publishers' part.
    """

    masses: tuple[Mass, ...] | None = None
    malignant: bool | None = None
    laterality: Laterality | None = None
    view: ViewPosition | None = None
    density: str = ""
    subset: str | None = None


class Annotations(_Part):
    """The file ``annotations.json``.

    Attributes
    ----------
    name, licence, attribution, caveats
        Of the set, for model cards.
    images
        By path below the set's folder.
    """

    name: str = ""
    licence: str = NOT_STATED
    attribution: str = NOT_STATED
    caveats: tuple[str, ...] = ()
    images: dict[str, Annotation] = Field(default_factory=dict)


def is_folders(path: Path) -> bool:
    """Tell whether a folder looks like one of patients: it has the annotations, or studies with DICOM files."""
    return path.is_dir() and ((path / ANNOTATIONS).is_file() or any(path.glob("*/*/*.dcm")))


def read_folders(folder: Path, on_image: Callable[[], None] = lambda: None) -> Dataset:
    """Read ``PATIENT/STUDY/**/IMAGE.dcm``, ``masks/IMAGE*.png`` beside the images, and ``annotations.json``.

    Image files end in ``.dcm``. Images of other views than CC and MLO, or For Processing, are left out. An image is
    labelled when it has a mask or its annotation says what masses there are.

    Raises
    ------
    InvalidDataset
        When a file cannot be read, or the annotations name an image that is not there.
    """
    known = _annotations(folder / ANNOTATIONS)
    records: list[Record] = []
    left: list[str] = []
    files = {p.relative_to(folder).as_posix(): p for p in sorted(folder.glob("*/*/**/*.dcm")) if p.parent.name != MASKS}
    missing = sorted(set(known.images) - set(files))
    if missing:
        raise InvalidDataset(
            f"{folder / ANNOTATIONS}: {counted(len(missing), 'image is', 'images are')} not there: {some(missing)}"
        )
    for name, path in files.items():
        annotation = known.images.get(name, Annotation())
        view = _view(_header(path), annotation)
        if view is None:
            left.append(name)
        else:
            records.append(_record(name, folder, view, annotation))
        on_image()
    return Dataset(
        Source(known.name or folder.resolve().name, known.licence, known.attribution, known.caveats),
        folder,
        tuple(records),
        (
            f"left out {counted(len(left), 'image that is', 'images that are')} no CC or MLO For Presentation: {some(left)}",
        )
        if left
        else (),
    )


def _annotations(path: Path) -> Annotations:
    if not path.is_file():
        return Annotations()
    try:
        return Annotations.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InvalidDataset(f"{path}: {first_fault(error)}") from error


def _record(name: str, folder: Path, view: View, annotation: Annotation) -> Record:
    masks = _masks(folder / name)
    masses = annotation.masses or ()
    if masks and masses:
        raise InvalidDataset(f"{name} has both masks and annotated masses; keep one of them")
    outlines: tuple[Outline, ...] = tuple(m.outline for m in masses if m.outline)
    boxes: list[Box] = [m.box or box_of_outline(m.outline or ()) for m in masses]
    for mask in masks:
        boxes += boxes_of_mask(read_mask(mask))
    if outlines and len(outlines) != len(masses):
        raise InvalidDataset(f"{name}: {len(outlines)} of {len(masses)} masses have an outline; give all of them one")
    pathologies = tuple(m.pathology for m in masses if m.pathology)
    malignant = annotation.malignant
    if malignant is None and pathologies and (len(pathologies) == len(masses) or "MALIGNANT" in pathologies):
        malignant = "MALIGNANT" in pathologies
    subtlety = tuple(m.subtlety for m in masses if m.subtlety)
    patient, study = name.split("/")[:2]
    try:
        dense = density(annotation.density)
    except ValueError as error:
        raise InvalidDataset(f"{name}: {error}") from error
    return Record(
        name,
        patient,
        view,
        tuple(boxes),
        malignant,
        pathologies,
        tuple(m.relative_to(folder).as_posix() for m in masks),
        outlines,
        density=dense,
        study=study,
        subtlety=subtlety if len(subtlety) == len(masses) else (),
        subset=annotation.subset,
        labelled=bool(masks) or annotation.masses is not None,
    )


def _masks(image: Path) -> list[Path]:
    """Return the masks of an image: of its name, or of that with ``_`` and something, if no other image fits better."""
    others = [p.stem for p in image.parent.glob("*.dcm") if p.stem.startswith(f"{image.stem}_")]
    return [
        p
        for p in sorted((image.parent / MASKS).glob("*.*"))
        if _names(image.stem, p.stem) and not any(_names(other, p.stem) for other in others)
    ]


def _names(stem: str, mask: str) -> bool:
    return mask == stem or mask.startswith(f"{stem}_")


def _header(path: Path) -> Header:
    try:
        return pydicom.dcmread(path, specific_tags=list(HEADER), stop_before_pixels=True)
    except (InvalidDicomError, OSError) as error:
        raise InvalidDataset(f"{path}: is no DICOM file: {error}") from error


def _view(header: Header, annotation: Annotation) -> View | None:
    if header.get("PresentationIntentType", "FOR PRESENTATION") != "FOR PRESENTATION":
        return None
    side = annotation.laterality or header.get("ImageLaterality") or header.get("Laterality")
    position = annotation.view or header.get("ViewPosition")
    if not position:
        codes = [str(item.get("CodeValue", "")) for item in header.get("ViewCodeSequence") or ()]
        position = next((VIEW_CODES[c] for c in codes if c in VIEW_CODES), None)
    try:
        return View(Laterality(str(side)), ViewPosition(str(position)))
    except ValueError:
        return None
