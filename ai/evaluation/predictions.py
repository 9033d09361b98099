"""Run a reader over a data set, and score what it says."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ai.datasets.records import Record
from ai.errors import AIError
from ai.evaluation.detection import FPPI, HitRule, ImageDetections, match, sensitivity
from ai.evaluation.statistics import Figure, auc, bootstrap, dice
from ai.exam import Exam
from ai.findings import ImageFindings
from ai.pixels import file_image
from ai.readers.base import Reader


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a reader said of one image of a data set: findings, or why it refused; Dice where there is a mask."""

    record: Record
    findings: ImageFindings | None
    refused: str | None = None
    dice: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """Figures of one reader on one data set.

    Attributes
    ----------
    images, patients, masses, refused
        Counts; every image is in every denominator.
    detection
        Sensitivity at each of ``FPPI``, by hit rule.
    image_auc
        Malignant against other images; None without labels.
    mass_auc
        Found masses (centre in box), malignant against benign, where all masses of the image agree; None without.
    dice
        Mean over all images with a mask, misses counting 0; None without masks.
    dice_found
        The same over images with any overlap.
    """

    images: int
    patients: int
    masses: int
    refused: int
    detection: dict[HitRule, list[Figure]]
    image_auc: Figure | None
    mass_auc: Figure | None
    dice: Figure | None
    dice_found: Figure | None


def predict(
    reader: Reader, folder: Path, records: Sequence[Record], on_image: Callable[[], None] = lambda: None
) -> list[Prediction]:
    """Read every image of the records alone, as a whole exam of one view."""
    predictions = []
    for record in records:
        try:
            image = file_image(folder / record.path, record.view)
            findings = reader.read(Exam((image,))).images[0]
        except AIError as error:
            predictions.append(Prediction(record, None, str(error), 0.0 if record.masks else None))
        else:
            overlap = _dice(findings, folder / record.masks[0]) if record.masks else None
            predictions.append(Prediction(record, findings, None, overlap))
        on_image()
    return predictions


def to_json(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Return what ``mammonode predict`` writes: images and detections, boxes in pixels of the image file."""
    images: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for p in predictions:
        if p.findings is None:
            images.append({"file": p.record.file, "malignancy": None, "refused": p.refused})
            continue
        images.append({"file": p.record.file, "malignancy": p.findings.malignancy})
        found += [
            {"file": p.record.file, "bbox": list(m.box), "score": m.detection, "malignancy": m.malignancy}
            for m in p.findings.masses
        ]
    return {"images": images, "detections": found}


def evaluate(predictions: Sequence[Prediction], repeats: int = 1000) -> Evaluation:
    """Score predictions, with intervals by a bootstrap over patients."""
    patients = [p.record.patient_id for p in predictions]
    detection = {}
    for rule in HitRule:
        events = [match(rule, detections(p)) for p in predictions]
        detection[rule] = bootstrap(patients, lambda idx, e=events: sensitivity([e[i] for i in idx]), repeats)  # type: ignore[misc]
    labelled = [p for p in predictions if p.findings and p.record.malignant is not None]
    scored = [p for p in predictions if p.dice is not None]
    found = [p for p in scored if p.dice]
    pairs = [
        (p.record.patient_id, score, bool(p.record.agreed_malignancy))
        for p in predictions
        if p.record.agreed_malignancy is not None
        for score in _found_malignancies(p)
    ]
    return Evaluation(
        images=len(predictions),
        patients=len(set(patients)),
        masses=sum(len(p.record.boxes) for p in predictions),
        refused=sum(p.findings is None for p in predictions),
        detection=detection,
        image_auc=_auc(
            [p.record.patient_id for p in labelled],
            [(p.findings.malignancy if p.findings else None) for p in labelled],
            [bool(p.record.malignant) for p in labelled],
            repeats,
        ),
        mass_auc=_auc([p for p, _, _ in pairs], [s for _, s, _ in pairs], [y for _, _, y in pairs], repeats),
        dice=_mean_dice(scored, repeats),
        dice_found=_mean_dice(found, repeats),
    )


def detections(prediction: Prediction) -> ImageDetections:
    """Return a prediction as scored boxes."""
    masses = prediction.findings.masses if prediction.findings else ()
    scored = tuple((m.detection, tuple(map(float, m.box))) for m in masses)
    return ImageDetections(prediction.record.patient_id, prediction.record.boxes, scored)  # type: ignore[arg-type]


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """Return an evaluation as plain values for JSON and for the model card; rounded to 3 places."""

    def plain(figure: Figure | None) -> list[float] | None:
        return [round(v, 3) for v in (figure.value, figure.low, figure.high)] if figure else None

    result: dict[str, Any] = {
        "images": evaluation.images,
        "patients": evaluation.patients,
        "masses": evaluation.masses,
        "refused": evaluation.refused,
        "sensitivity_at_fppi": {
            rule.value: {str(f): plain(v) for f, v in zip(FPPI, values, strict=True)}
            for rule, values in evaluation.detection.items()
        },
    }
    for name in ("image_auc", "mass_auc", "dice", "dice_found"):
        value = plain(getattr(evaluation, name))
        if value is not None:
            result[name] = value
    return result


def _found_malignancies(prediction: Prediction) -> list[float]:
    """Malignancy of the strongest detection on each mass that was found."""
    if prediction.findings is None:
        return []
    ordered = sorted(prediction.findings.masses, key=lambda m: -m.detection)
    events = match(HitRule.CENTRE, detections(prediction))
    return [
        m.malignancy for m, kind in zip(ordered, events.kinds, strict=True) if kind == 1 and m.malignancy is not None
    ]


def _auc(
    patients: Sequence[str], scores: Sequence[float | None], labels: Sequence[bool], repeats: int
) -> Figure | None:
    known = [i for i, s in enumerate(scores) if s is not None]
    if len({labels[i] for i in known}) < 2:
        return None
    s, y = [float(scores[i] or 0) for i in known], [labels[i] for i in known]
    return bootstrap(
        [patients[i] for i in known], lambda idx: [auc([s[i] for i in idx], [y[i] for i in idx])], repeats
    )[0]


def _mean_dice(predictions: Sequence[Prediction], repeats: int) -> Figure | None:
    values = [p.dice or 0.0 for p in predictions]
    patients = [p.record.patient_id for p in predictions]
    return bootstrap(patients, lambda idx: [float(np.mean([values[i] for i in idx]))], repeats)[0] if values else None


def _dice(found: ImageFindings, mask: Path) -> float:
    truth = cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE)
    if truth is None or truth.shape != found.shape:
        raise AIError(f"the mask {mask.name} is missing or has another size than its image")
    union = np.zeros(found.shape, np.bool_)
    for mass in found.masses:
        union |= mass.full_mask(found.shape)
    return dice(union, truth > 127)  # JPEG noise lies around the edges of the masks
