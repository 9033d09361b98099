"""Scores against the truth: curves fitted, how far they can be trusted on other patients, and operating points."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ai.calibration import Calibration, Curve, Level, score_log_odds, threshold_for
from ai.errors import InvalidDataset
from ai.evaluation.detection import HitRule, match
from ai.evaluation.predictions import Prediction, detections
from ai.evaluation.statistics import Figure, bootstrap

PARTS: Final = 5
"""Parts of the patients in turn kept from the fit that is then judged on them."""
BINS: Final = 10
RATES: Final = (0.02, 0.03, 0.05, 0.10)
"""Shares of the exams without cancer that are recalled."""


@dataclass(frozen=True)
class Scored:
    """A score from 0 to 100 and the truth behind it."""

    patient_id: str
    score: int
    cancer: bool


@dataclass(frozen=True, eq=False)
class Reliability:
    """How a level's probabilities hold on patients that their curve was not fitted on.

    Attributes
    ----------
    count, cancers
        How many scores there are, and of how many with cancer.
    error
        Expected calibration error: mean distance between probability and share of cancers over bins of equal count,
        weighted by their counts (Naeini et al. 2015, Nguyen and O'Connor 2015).
    brier
        Mean squared distance of probability and truth (Brier 1950).
    brier_of_prevalence
        The same of who says the prevalence every time.
    points
        Shape (bins, 3): mean probability, share of cancers, count.
    """

    count: int
    cancers: int
    error: Figure
    brier: Figure
    brier_of_prevalence: float
    points: NDArray[np.float64]


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold of the exam score.

    Attributes
    ----------
    rate
        Share of the exams without cancer that may be at or above it.
    threshold
        The lowest score that keeps to that; 101 when none does.
    recalled
        Share of the exams without cancer that are at or above it.
    sensitivity
        Share of the exams with cancer that are.
    """

    rate: float
    threshold: int
    recalled: Figure
    sensitivity: Figure


def scores(predictions: Sequence[Prediction], threshold: float) -> dict[Level, list[Scored]]:
    """Return what each level's scores were and should have been, for findings from a threshold on.

    A finding is a cancer when its centre lies in the box of a mass that is known to be malignant; images whose masses
    differ, or are not labelled, are left out there. A patient's images are one exam.

    Parameters
    ----------
    predictions
        With all candidates; what was refused, or has no label, is left out.
    threshold
        Smallest detection of a finding.
    """
    found: dict[Level, list[Scored]] = {level: [] for level in Level}
    breasts: dict[tuple[str, str], list[tuple[int, bool]]] = {}
    for p in predictions:
        cancer = p.record.malignant
        if p.findings is None or cancer is None:
            continue
        patient = p.record.patient_id
        shown = [mass.detection >= threshold for mass in p.findings.masses]
        suspicions = [mass.suspicion for mass, kept in zip(p.findings.masses, shown, strict=True) if kept]
        malignancy = p.findings.malignancy
        score = p.findings.score if malignancy is None else max([round(100 * malignancy), *suspicions])
        found[Level.IMAGE].append(Scored(patient, score, cancer))
        breasts.setdefault((patient, p.record.view.laterality.value), []).append((score, cancer))
        agreed = p.record.agreed_malignancy if p.record.boxes else False
        if agreed is None or not p.record.labelled:
            continue
        events = match(HitRule.CENTRE, detections(p))
        for place, kind in zip(events.order, events.kinds, strict=True):
            if shown[place] and kind != 0:
                found[Level.FINDING].append(Scored(patient, p.findings.masses[place].suspicion, agreed and kind == 1))
    exams: dict[str, list[tuple[int, bool]]] = {}
    for (patient, _), images in breasts.items():
        found[Level.BREAST].append(_highest(patient, images))
        exams.setdefault(patient, []).extend(images)
    found[Level.EXAM] = [_highest(patient, images) for patient, images in exams.items()]
    return found


def fit(scored: Sequence[Scored], what: str = "these") -> Curve:
    """Fit a curve by maximum likelihood, with Platt's targets that keep it from certainty (Platt 1999, 2.2).

    Parameters
    ----------
    what
        Whose scores they are, for messages.

    Raises
    ------
    InvalidDataset
        When there is one class only, or higher scores do not mean more cancers.
    """
    x = np.array([score_log_odds(s.score) for s in scored])
    y = np.array([s.cancer for s in scored], bool)
    positive, negative = int(y.sum()), int((~y).sum())
    if not positive or not negative:
        raise InvalidDataset(f"a calibration of {what} scores needs some with cancer and some without")
    target = np.where(y, (positive + 1) / (positive + 2), 1 / (negative + 2))
    design = np.stack([x, np.ones_like(x)], 1)
    beta = np.zeros(2)
    for _ in range(100):  # Newton's method; the likelihood is concave
        p = 1 / (1 + np.exp(-design @ beta))
        curvature = (design * (p * (1 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, design.T @ (target - p))
        beta += step
        if np.abs(step).max() < 1e-10:
            break
    slope, offset = (round(float(value), 4) for value in beta)
    if slope <= 0:
        raise InvalidDataset(f"a calibration of {what} scores needs them to rise with cancer, and they do not")
    return Curve(slope=slope, offset=offset)


def calibrate(levels: Mapping[Level, Sequence[Scored]], population: str) -> Calibration:
    """Fit all levels.

    Raises
    ------
    InvalidDataset
        When a level cannot be fitted.
    """
    exams = levels[Level.EXAM]
    return Calibration(
        population=population,
        prevalence=round(sum(s.cancer for s in exams) / max(len(exams), 1), 4),
        **{level.value: fit(levels[level], level.value) for level in Level},
    )


def reliability(scored: Sequence[Scored], repeats: int = 1000) -> Reliability:
    """Judge a level: each of five parts of the patients by the curve that was fitted on the four others.

    Raises
    ------
    InvalidDataset
        When there is no score, or a curve cannot be fitted.
    """
    if not scored:
        raise InvalidDataset("there is nothing that has a score and is known to be a cancer or none")
    p = _held_out(scored)
    y = np.array([s.cancer for s in scored], bool)

    def figures(idx: list[int]) -> list[float]:
        some, truth = p[idx], y[idx]
        return [_calibration_error(some, truth), float(((some - truth) ** 2).mean())]

    error, brier = bootstrap([s.patient_id for s in scored], figures, repeats)
    share = float(y.mean())
    return Reliability(len(y), int(y.sum()), error, brier, share * (1 - share), _bins(p, y))


def operating_points(exams: Sequence[Scored], repeats: int = 1000) -> tuple[OperatingPoint, ...]:
    """Return the thresholds of the exam score at which so many of the exams without cancer are recalled, and no more."""
    score = np.array([s.score for s in exams])
    cancer = np.array([s.cancer for s in exams], bool)
    patients = [s.patient_id for s in exams]
    points = []
    for rate in RATES:
        threshold = threshold_for(rate, [s.score for s in exams if not s.cancer])

        def shares(idx: list[int], threshold: int = threshold) -> list[float]:
            above, truth = score[idx] >= threshold, cancer[idx]
            return [
                float(above[~truth].mean()) if (~truth).any() else float("nan"),
                float(above[truth].mean()) if truth.any() else float("nan"),
            ]

        points.append(OperatingPoint(rate, threshold, *bootstrap(patients, shares, repeats)))
    return tuple(points)


def _highest(patient: str, images: Iterable[tuple[int, bool]]) -> Scored:
    all_scores, cancers = zip(*images, strict=True)
    return Scored(patient, max(all_scores), any(cancers))


def _held_out(scored: Sequence[Scored]) -> NDArray[np.float64]:
    """Return each score's probability by the curve of the other patients."""
    part = [_part(s.patient_id) for s in scored]
    p = np.empty(len(scored))
    for held in range(PARTS):
        inside = [i for i, place in enumerate(part) if place == held]
        if inside:
            curve = fit([s for s, place in zip(scored, part, strict=True) if place != held])
            p[inside] = [1 / (1 + np.exp(-curve.log_odds(scored[i].score))) for i in inside]
    return p


def _part(patient: str) -> int:
    return hashlib.sha256(patient.encode()).digest()[0] % PARTS


def _bins(p: NDArray[np.float64], y: NDArray[np.bool_]) -> NDArray[np.float64]:
    parts = np.array_split(np.argsort(p, kind="stable"), BINS)
    return np.array([(p[part].mean(), y[part].mean(), len(part)) for part in parts if len(part)])


def _calibration_error(p: NDArray[np.float64], y: NDArray[np.bool_]) -> float:
    said, true, count = _bins(p, y).T
    return float((np.abs(said - true) * count).sum() / count.sum())
