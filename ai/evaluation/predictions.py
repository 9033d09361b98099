"""Run a reader over a data set, and score what it says: what a model's card tells."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai.datasets.records import Record
from ai.datasets.selection import some
from ai.datasets.truth import Truth, kind_of, mass_mask, read_mask
from ai.errors import AIError, InvalidDataset, NoBreast, UnreadableFile
from ai.evaluation.detection import BOX_RULES, FPPI, Curve, HitRule, ImageDetections, match
from ai.evaluation.overlap import Overlap, overlap
from ai.evaluation.size import Extent, extents
from ai.evaluation.statistics import Figure, auc, bootstrap
from ai.exam import Exam, View, ViewImage
from ai.findings import ImageFindings, Mass
from ai.pixels import file_image
from ai.readers.base import Reader
from ai.words import counted

PIXEL_TRUTH = (Truth.MASK, Truth.OUTLINE)
"""What Dice is measured against; ellipses inscribed in boxes are a weak label."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a reader said of one image of a data set: findings, or why it refused.

    Attributes
    ----------
    record
        The image and its truth.
    findings
        All candidates that the reader was asked for, without its map; None when it refused.
    refused
        Why.
    dice
        Of all these candidates, where a mask or outlines show a mass; 0 for a refused image.
    pixels
        Of the candidates at or above the threshold, where the masses' pixels are known, and on images without a mass;
        on boxes when the weak ones were asked for.
    on_mask
        For each candidate, whether its box's centre lies on a mass; None without a mask or outlines.
    sizes
        Of each mass.
    """

    record: Record
    findings: ImageFindings | None
    refused: str | None = None
    dice: float | None = None
    pixels: Overlap | None = None
    on_mask: tuple[bool, ...] | None = None
    sizes: tuple[Extent, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """Figures of one reader on one data set.

    Attributes
    ----------
    images, patients, masses, refused
        Counts; every image is in every denominator.
    detection
        Sensitivity at each of ``FPPI``, by hit rule; "centre in mask" only when the masses' pixels are known.
    image_auc
        Malignant against other images; None without labels.
    mass_auc
        Found masses (centre in box), malignant against benign, where all masses of the image agree; None without.
    dice
        Mean over all images whose mask shows a mass, misses counting 0; None without such.
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
    reader: Reader,
    folder: Path,
    records: Sequence[Record],
    on_image: Callable[[], None] = lambda: None,
    *,
    threshold: float = 0.0,
    weak: bool = False,
    scored: bool = False,
) -> list[Prediction]:
    """Read the records, exam by exam as the node does.

    The images of a patient, of one study where the set tells studies, are one exam; of two images of one view the second
    begins another.

    Parameters
    ----------
    folder
        The data set's.
    on_image
        Called after each image.
    threshold
        Smallest detection whose pixels are counted; Dice takes all.
    weak
        Count pixels against ellipses too where a mass is known by its box alone.
    scored
        Stop at a file that is not there or is no image: as a refusal it would be an image without a mark.

    Returns
    -------
    list of Prediction
        In the order of the records.

    Raises
    ------
    ai.errors.InvalidDataset
        When a mask cannot be read or has another size than its image, or ``scored`` stops.
    """
    gone = [record.file for record in records if not (folder / record.path).is_file()] if scored else []
    if gone:
        raise InvalidDataset(f"{counted(len(gone), 'image is', 'images are')} not there: {some(gone)}")
    predictions: dict[int, Prediction] = {}
    for places in exams_of(records):
        images: dict[int, ViewImage] = {}
        refused: dict[int, str] = {}
        for place in places:
            record = records[place]
            try:
                # Of two folders of one patient files may have one name; of a set they have not.
                images[place] = replace(file_image(folder / record.path, record.view), uid=record.file)
            except AIError as error:
                if scored and isinstance(error, UnreadableFile):
                    raise InvalidDataset(f"{record.file}: {error}") from error
                refused[place] = str(error)
        found = _read(reader, images, refused)
        for place in places:
            read = records[place], folder, images.get(place), found.get(place), refused.get(place), threshold
            predictions[place] = _scored(*read, weak=weak)
            on_image()
    return [predictions[place] for place in range(len(records))]


def exams_of(records: Sequence[Record]) -> list[list[int]]:
    """Return where the images of each exam stand: of one patient and study, no two of one view."""
    exams: dict[tuple[str, str | None, int], list[int]] = {}
    seen: Counter[tuple[str, str | None, View]] = Counter()
    for place, record in enumerate(records):
        key = record.patient_id, record.study
        exams.setdefault((*key, seen[*key, record.view]), []).append(place)
        seen[*key, record.view] += 1
    return list(exams.values())


def _read(reader: Reader, images: Mapping[int, ViewImage], refused: dict[int, str]) -> dict[int, ImageFindings]:
    """Return the findings of an exam's images; why some could not be read is noted, and costs the others nothing."""
    left = dict(images)
    while left:
        try:
            found = reader.read(Exam(tuple(left.values()))).images
        except AIError as error:
            named = error.image_uid if isinstance(error, NoBreast) else None
            culprits = [place for place, image in left.items() if image.uid == named] or list(left)
            for place in culprits:
                refused[place] = str(error)
                del left[place]
        else:
            return {place: replace(each, probability=None) for place, each in zip(left, found, strict=True)}
    return {}


def _scored(
    record: Record,
    folder: Path,
    image: ViewImage | None,
    findings: ImageFindings | None,
    refused: str | None,
    threshold: float,
    *,
    weak: bool,
) -> Prediction:
    """Compare with the truth; a refused image has marked nothing."""
    if not record.labelled:
        return Prediction(record, findings, refused)
    truth, kind = mass_mask(record, folder, image.shape if image else shape_of_truth(record, folder))
    known = kind in PIXEL_TRUTH
    masses = findings.masses if findings else ()
    return Prediction(
        record,
        findings,
        refused,
        dice=overlap(_union(masses, truth.shape), truth).dice if known and truth.any() else None,
        pixels=overlap(_union([m for m in masses if m.detection >= threshold], truth.shape), truth)
        if known or kind is Truth.NONE or weak
        else None,
        on_mask=tuple(_centre_on(truth, m) for m in masses) if known else None,
        sizes=extents(record.boxes, truth, image),
    )


def shape_of_truth(record: Record, folder: Path) -> tuple[int, int]:
    """Return rows and columns that hold the truth of an image that cannot be read."""
    if kind_of(record) is Truth.MASK:
        rows, columns = read_mask(folder / record.masks[0]).shape
        return rows, columns
    corners = [(x + w, y + h) for x, y, w, h in record.boxes] + [p for outline in record.outlines for p in outline]
    return int(max((y for _, y in corners), default=0)) + 1, int(max((x for x, _ in corners), default=0)) + 1


def _union(masses: Sequence[Mass], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    union = np.zeros(shape, np.bool_)
    for mass in masses:
        union[mass.window] |= mass.mask
    return union


def _centre_on(truth: NDArray[np.bool_], mass: Mass) -> bool:
    x, y, width, height = mass.box
    return bool(truth[int(y + height / 2), int(x + width / 2)])


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
    for rule in rules_of(predictions):
        curve = Curve([match(rule, detections(p)) for p in predictions])
        detection[rule] = bootstrap(
            patients,
            lambda idx, c=curve: c.sensitivity(FPPI, drawn(idx, len(patients))),  # type: ignore[misc]
            repeats,
        )
    scored = [p for p in predictions if p.dice is not None]
    found = [p for p in scored if p.dice]
    of_images = [
        (p.record.patient_id, p.findings.malignancy, p.record.malignant)
        for p in predictions
        if p.findings and p.findings.malignancy is not None and p.record.malignant is not None
    ]
    of_masses = [
        (p.record.patient_id, score, p.record.agreed_malignancy)
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
        image_auc=_auc(of_images, repeats),
        mass_auc=_auc(of_masses, repeats),
        dice=_mean_dice(scored, repeats),
        dice_found=_mean_dice(found, repeats),
    )


def detections(prediction: Prediction) -> ImageDetections:
    """Return a prediction as scored boxes."""
    masses = prediction.findings.masses if prediction.findings else ()
    scored = tuple((m.detection, tuple(map(float, m.box))) for m in masses)
    return ImageDetections(prediction.record.patient_id, prediction.record.boxes, scored, prediction.on_mask)  # type: ignore[arg-type]


def rules_of(predictions: Sequence[Prediction]) -> tuple[HitRule, ...]:
    """Return the hit rules that the truth allows: the one that asks for pixels needs them of every mass."""
    masks = [p.on_mask is not None or p.refused is not None for p in predictions if p.record.boxes]
    return (*BOX_RULES, HitRule.CENTRE_MASK) if masks and all(masks) else BOX_RULES


def drawn(indices: Sequence[int], images: int) -> NDArray[np.int64]:
    """Return how often each image was drawn."""
    return np.bincount(indices, minlength=images)


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
            rule.value: {str(f): plain(v if evaluation.masses else None) for f, v in zip(FPPI, values, strict=True)}
            for rule, values in evaluation.detection.items()
        },
    }
    for name in ("image_auc", "mass_auc", "dice", "dice_found"):
        value = plain(getattr(evaluation, name))
        if value is not None:
            result[name] = value
    return result


def figures_by_set(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Return a card's figures on the held-out part, and on what it has of each set where there are several."""
    told = {"validation": figures(evaluate(predictions))}
    sets = dict.fromkeys(p.record.source for p in predictions)
    for source in sets if len(sets) > 1 else ():
        told[f"validation, {source}"] = figures(evaluate([p for p in predictions if p.record.source == source]))
    return told


def _found_malignancies(prediction: Prediction) -> list[float]:
    """Malignancy of the strongest detection on each mass that was found."""
    if prediction.findings is None:
        return []
    ordered = sorted(prediction.findings.masses, key=lambda m: -m.detection)
    events = match(HitRule.CENTRE, detections(prediction))
    return [
        m.malignancy for m, kind in zip(ordered, events.kinds, strict=True) if kind == 1 and m.malignancy is not None
    ]


def _auc(known: Sequence[tuple[str, float, bool]], repeats: int) -> Figure | None:
    """Return the area under the curve of patients' scores and labels; None where all have one label."""
    if len({label for _, _, label in known}) < 2:
        return None
    patients, scores, labels = zip(*known, strict=True)
    return bootstrap(patients, lambda idx: [auc([scores[i] for i in idx], [labels[i] for i in idx])], repeats)[0]


def _mean_dice(predictions: Sequence[Prediction], repeats: int) -> Figure | None:
    values = [p.dice or 0.0 for p in predictions]
    patients = [p.record.patient_id for p in predictions]
    return bootstrap(patients, lambda idx: [float(np.mean([values[i] for i in idx]))], repeats)[0] if values else None
