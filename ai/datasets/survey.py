"""What a data set holds, and what would keep a system from being trained on it."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ai.datasets.folds import Folds
from ai.datasets.leaks import duplicates
from ai.datasets.prints import print_of
from ai.datasets.records import Dataset, Record
from ai.datasets.selection import in_complete_exams, some
from ai.datasets.truth import Truth, is_of_ones, kind_of, mass_mask
from ai.errors import AIError, InvalidDataset, UnfitFolds
from ai.pixels import SQUARE_FILM_ASPECT, file_image
from ai.words import counted

BEYOND: Final = 1.0
"""Pixels by which a box may reach beyond its image: boxes are rounded and scaled."""


@dataclass(frozen=True)
class Survey:
    """The counts, and what is wrong.

    Attributes
    ----------
    counts
        What is counted (images, patients, masses, ...), in order.
    shares
        Images by view, density, subset, truth and malignancy.
    faults
        Why a training run would be refused, a sentence each.
    notes
        What else should be known, a sentence each.
    """

    counts: Mapping[str, int]
    shares: Mapping[str, Mapping[str, int]]
    faults: tuple[str, ...]
    notes: tuple[str, ...]


def survey(
    dataset: Dataset,
    on_image: Callable[[], None] = lambda: None,
    *,
    skip_unlabelled: bool = False,
    look: bool = True,
    folds: Folds | None = None,
) -> Survey:
    """Count, and look for what would keep a system from being trained; ``on_image`` is called after each image.

    Parameters
    ----------
    skip_unlabelled
        Unlabelled images will be left out, so they are no fault.
    look
        Open every image: sizes of masks, places of boxes and duplicates are checked only then.
    folds
        Which a run on the set would be given.
    """
    records = dataset.records
    notes = list(dataset.notes)
    faults = _damages(dataset, notes, on_image) if look else []
    unlabelled = [r.file for r in records if not r.labelled]
    if unlabelled:
        told = f"{counted(len(unlabelled), 'image is', 'images are')} not labelled: {some(unlabelled)}"
        (notes if skip_unlabelled else faults).append(told)
    if not any(r.boxes for r in records):
        faults.append("no image shows a mass")
    if len({r.patient_id for r in records}) < 2:
        faults.append("all images are of one patient: none is left for validation")
    notes += _imbalances(records)
    shares = _shares(records)
    if folds is not None:
        try:
            places = folds.of(records)
        except UnfitFolds as error:
            faults.append(str(error))
        else:
            shares["fold"] = dict(sorted(Counter(str(places[r.patient_id]) for r in records).items()))
    return Survey(_counts(records), shares, tuple(faults), tuple(notes))


def _counts(records: Iterable[Record]) -> dict[str, int]:
    rows = list(records)
    try:
        complete = in_complete_exams(rows)
    except InvalidDataset:
        complete = []
    return {
        "images": len(rows),
        "patients": len({r.patient_id for r in rows}),
        "complete four-view exams": len({(r.patient_id, r.study) for r in complete}),
        "images with a mass": sum(bool(r.boxes) for r in rows),
        "masses": sum(len(r.boxes) for r in rows),
        "malignant images": sum(bool(r.malignant) for r in rows),
        "patients with a malignant image": len({r.patient_id for r in rows if r.malignant}),
        "images not labelled": sum(not r.labelled for r in rows),
    }


def _shares(records: Iterable[Record]) -> dict[str, dict[str, int]]:
    def share(value: Callable[[Record], str]) -> dict[str, int]:
        return dict(sorted(Counter(map(value, records)).items()))

    return {
        "view": share(lambda r: str(r.view)),
        "density": share(lambda r: "abcd"[r.density - 1] if r.density else "not stated"),
        "subset": share(lambda r: r.subset or "none"),
        "truth": share(lambda r: str(kind_of(r)) if r.labelled else "not labelled"),
        "malignant": share(lambda r: {True: "yes", False: "no", None: "not stated"}[r.malignant]),
    }


def _imbalances(records: Iterable[Record]) -> Iterable[str]:
    rows = [r for r in records if r.labelled]
    weak = sum(kind_of(r) is Truth.ELLIPSE for r in rows)
    if weak:
        told = counted(weak, "image has", "images have")
        yield f"{told} boxes alone: the ellipses in them are weak labels, and outlines cannot be measured"
    if rows and all(r.boxes for r in rows):
        yield "every labelled image shows a mass: false marks on images without one cannot be measured"
    classes = {r.malignant for r in rows} - {None}
    if len(classes) < 2:
        said = (
            "no image's malignancy is stated"
            if not classes
            else f"{'all' if True in classes else 'no'} images are malignant"
        )
        yield f"{said}: malignancy can neither be learned nor measured"
    subsets: dict[str, set[str]] = {}
    for record in records:
        if record.subset is not None:
            subsets.setdefault(record.patient_id, set()).add(record.subset)
    both = [patient for patient, parts in subsets.items() if len(parts) > 1]
    if both:
        yield f"{counted(len(both), 'patient is', 'patients are')} in more than one subset: {some(both)}"


def _damages(dataset: Dataset, notes: list[str], on_image: Callable[[], None]) -> list[str]:
    """Open every image with its truth, and compare the images; what should be known besides is added to the notes."""
    squeezed = 0
    black: list[str] = []
    ones: list[str] = []
    seen: list[Record] = []
    prints = []
    wrong: list[str] = []
    for record in dataset.records:
        try:
            image = file_image(dataset.folder / record.path, record.view)
            seen.append(record)
            prints.append(print_of(image.pixels))
            squeezed += image.pixel_aspect != 1
            if record.labelled:
                mask, truth = mass_mask(record, dataset.folder, image.shape)
                if truth is Truth.MASK and not mask.any() and (record.boxes or record.malignant):
                    black.append(record.file)
                if any(is_of_ones(dataset.folder / name) for name in record.masks):
                    ones.append(record.file)
                _within(record, image.shape)
        except AIError as error:
            text = str(error)
            wrong.append(text if record.file in text else f"{record.file}: {text}")
        on_image()
    if black:
        told = counted(len(black), "image that is malignant or has boxes", "images that are malignant or have boxes")
        notes.append(f"the masks of {told} are all black: {some(black)}")
    if ones:
        notes.append(
            f"the masks of {counted(len(ones), 'image')} hold 0 and 1 alone: 1 is taken for a mass, also where it is a label of "
            f"something else: {some(ones)}"
        )
    if squeezed:
        notes.append(
            f"{counted(squeezed, 'image is a square file', 'images are square files')} without a header: "
            f"{'it is taken for a film that was' if squeezed == 1 else 'they are taken for films that were'} squeezed, and the "
            f"proportions restored by pixels {SQUARE_FILM_ASPECT:g} times as high as wide; there are no sizes in millimetres"
        )
    pairs = [str(pair) for pair in duplicates(seen, prints)]
    return [
        *([f"{counted(len(wrong), 'image')} cannot be used: {some(wrong)}"] if wrong else []),
        *(
            [f"{counted(len(pairs), 'picture stands', 'pictures stand')} under two patients: {some(pairs)}"]
            if pairs
            else []
        ),
    ]


def _within(record: Record, shape: tuple[int, int]) -> None:
    rows, columns = shape
    for x, y, width, height in record.boxes:
        if min(x, y) < -BEYOND or x + width > columns + BEYOND or y + height > rows + BEYOND:
            raise InvalidDataset(
                f"{record.file}: the box {[x, y, width, height]} reaches beyond its {columns} x {rows} pixels"
            )
