"""Phantom exams as files, with their truth: JSON, Segmentations, and a manifest that ``evaluate`` and ``train`` take."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydicom import Dataset

from ai.datasets.sources import SHEET
from ai.exam import STANDARD_VIEWS, Laterality, Spacing
from ai.findings import BreastScore, ExamFindings, ImageFindings, Mass, ModelIdentity
from ai.phantom.malignancy import bayes_auc
from ai.phantom.truth import PhantomMass, PhantomView, lesion_as_json
from ai.pixels import pixel_spacing
from ai.readers.lesions import measure, outline
from config.mix import ObjectMix, ResultKind
from node.identity import VERSION
from node.phantom import PhantomExam
from node.results.answer import Answer, ImageAnswer, answer_status
from node.results.edition import Edition
from node.results.encode import encode, to_bytes

MANIFEST = "manifest.csv"
MASKS = "masks"
COLUMNS = (
    *("file", "patient_id", "laterality", "view", "density", "study", "vendor", "masses", "boxes_xywh", "malignant"),
    *("pathologies", "margins", "conspicuities", "subtlety"),
)
"""Of the manifest (docs/data.md); ``masses`` is 0 in the twins without masses."""


@dataclass(frozen=True)
class TruthForms:
    """In which forms the truth of an exam is written."""

    json: bool = True
    segmentations: bool = True


def write_exam(exam: PhantomExam, folder: Path, forms: TruthForms, woman: str) -> Iterator[dict[str, Any]]:
    """Write an exam into a new folder, its masses' masks beside that, and yield the manifest's row of each view.

    Parameters
    ----------
    woman
        Whom the rows name as the patient: an exam and its twin without masses are of one.

    Raises
    ------
    FileExistsError
        When the folder is there.
    """
    folder.mkdir(parents=True)
    for number, view in enumerate(STANDARD_VIEWS):
        name = str(view).replace(" ", "-")
        _write(exam.images[number], folder / f"{name}.dcm")
        if exam.twins:
            _write(exam.twins[number], folder / f"{name}-for-processing.dcm")
        _write_mask(exam.views[number], folder.parent / MASKS / folder.name / f"{name}.png")
        yield _row(exam, exam.views[number], f"{folder.name}/{name}.dcm", woman)
    if forms.json:
        (folder / "truth.json").write_text(json.dumps(truth_as_json(exam), indent=1) + "\n", encoding="utf-8")
    if forms.segmentations:
        for made in truth_segmentations(exam):
            shown = next(view for view in STANDARD_VIEWS if exam.image(view).SOPInstanceUID == made.uid)
            (folder / f"{str(shown).replace(' ', '-')}-truth.dcm").write_bytes(to_bytes(made.dataset))


def write_manifest(rows: list[dict[str, Any]], folder: Path) -> None:
    """Write the manifest of a folder of exams, and the sheet that says what they are."""
    (folder / SHEET).write_text('source = "phantoms"\n', encoding="utf-8")
    with (folder / MANIFEST).open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)


def truth_as_json(exam: PhantomExam) -> Mapping[str, Any]:
    """Return all that is known of an exam."""
    anatomy, lesions = exam.woman.anatomy, exam.woman.lesions
    return {
        "about": "synthetic phantom, no patient; for engineering verification only",
        "software": VERSION,
        "seed": exam.woman.seed,
        "vendor": exam.vendor.name,
        "study_instance_uid": str(exam.images[0].StudyInstanceUID),
        "density": anatomy.category,
        "glandular_share": round(anatomy.density, 4),
        "age": anatomy.age,
        "thickness_mm": round(anatomy.thickness, 1),
        "spectral_slope": round(anatomy.beta, 3),
        "bayes_auc_of_malignancy": round(bayes_auc(), 4),
        "lesions": [lesion_as_json(number, lesion) for number, lesion in enumerate(lesions, 1)],
        "views": [
            {
                "sop_instance_uid": str(exam.image(view.view).SOPInstanceUID),
                **view.as_json(exam.vendor.grid.spacing, lesions),
            }
            for view in exam.views
        ],
    }


@dataclass(frozen=True, eq=False)
class TruthObject:
    """A Segmentation of the masses of one image, with the image's SOP Instance UID."""

    uid: str
    dataset: Dataset


def truth_segmentations(exam: PhantomExam) -> Iterator[TruthObject]:
    """Yield a Segmentation for each view with masses; a segment's score is 100 times its probability of malignancy."""
    headers = {view: header_of(exam.image(view)) for view in STANDARD_VIEWS}
    images = [
        ImageFindings(
            uid=str(headers[view.view].SOPInstanceUID),
            view=view.view,
            shape=(view.pixels.shape[0], view.pixels.shape[1]),
            masses=tuple(
                _mass(mass, number, pixel_spacing(headers[view.view])) for number, mass in enumerate(view.masses, 1)
            ),
            score=max((_score(mass) for mass in view.masses), default=0),
            malignancy=None,
        )
        for view in exam.views
    ]
    author = ModelIdentity("Phantom truth", VERSION, "", ("The truth of a synthetic phantom.",))
    breasts = tuple(BreastScore(side, max(i.score for i in images if i.view.laterality is side)) for side in Laterality)
    found = ExamFindings(author, tuple(images), breasts, max(image.score for image in images))
    answer = Answer(
        exam=f"phantom {exam.woman.seed}",
        revision=1,
        status=answer_status(found, complete=True),
        created_at=exam.acquired_at,
        images=tuple(ImageAnswer(headers[view], view) for view in STANDARD_VIEWS),
        model=author,
        findings=found,
    )
    mix = ObjectMix((ResultKind.SEG,), series_descriptions={ResultKind.SEG: "Phantom truth"})
    edition = Edition.of(answer, mix, installation="PHANTOM", settings_digest="", pictures={})
    for made in encode(edition):
        yield TruthObject(str(made.image_uid), made.dataset)


def header_of(image: Dataset) -> Dataset:
    """Return the header of an image."""
    header = Dataset()
    header.file_meta = image.file_meta
    header.update({element.tag: element for element in image if element.keyword != "PixelData"})
    return header


def _mass(mass: PhantomMass, number: int, spacing: Spacing | None) -> Mass:
    x, y, width, height = mass.box
    inner = mass.mask[y : y + height, x : x + width]
    contour, size = outline(inner, (y, x)), measure(inner, spacing)
    return Mass(number, (y, x), inner, contour, size, 1.0, mass.lesion.malignancy, _score(mass))


def _score(mass: PhantomMass) -> int:
    return round(100 * mass.lesion.malignancy)


def _row(exam: PhantomExam, view: PhantomView, file: str, woman: str) -> dict[str, Any]:
    lesions = [mass.lesion for mass in view.masses]
    return {
        "file": file,
        "patient_id": woman,
        "laterality": str(view.view.laterality),
        "view": str(view.view.position),
        "density": exam.woman.anatomy.category,
        "study": str(exam.images[0].StudyInstanceUID),
        "vendor": exam.vendor.name,
        "masses": len(lesions),
        "boxes_xywh": json.dumps([mass.box for mass in view.masses]),
        "malignant": int(any(lesion.malignant for lesion in lesions)),
        "pathologies": "|".join("MALIGNANT" if lesion.malignant else "BENIGN" for lesion in lesions),
        "margins": "|".join(str(lesion.margin) for lesion in lesions),
        "conspicuities": "|".join(f"{lesion.conspicuity:.3f}" for lesion in lesions),
        "subtlety": "|".join(str(min(1 + int(2.5 * lesion.conspicuity), 5)) for lesion in lesions),
    }


def _write_mask(view: PhantomView, path: Path) -> None:
    """Write the masses of a view, white; a view without any has no mask."""
    if not view.masses:
        return
    mask = np.zeros(view.pixels.shape, np.uint8)
    for mass in view.masses:
        mask[mass.mask] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", mask)[1].tobytes())


def _write(image: Dataset, path: Path) -> None:
    image.save_as(path, enforce_file_format=True)
