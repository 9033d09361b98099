"""Free-response ROC of detections against boxes (Chakraborty 1989), per image, with ties moved together."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from ai.datasets.records import Box

FPPI = (0.04, 0.1, 0.25, 0.44, 0.5, 1.0, 1.21, 2.0)
"""False positives per image at which sensitivity is told."""


class HitRule(StrEnum):
    """When a detection finds a mass."""

    #: intersection over union of the boxes is at least 0.5
    IOU50 = "IoU >= 0.5"
    #: the detection's centre lies in the mass's box
    CENTRE = "centre in box"


@dataclass(frozen=True)
class ImageDetections:
    """Truth and detections of one image; every image counts in the denominator, with or without a mass."""

    patient_id: str
    truth: tuple[Box, ...]
    detections: tuple[tuple[float, Box], ...]


@dataclass(frozen=True, eq=False)
class Events:
    """What the detections of one image were: scores, and +1 first hit of a mass, 0 repeated hit, -1 false positive."""

    scores: NDArray[np.float64]
    kinds: NDArray[np.int64]
    masses: int


def hits(rule: HitRule, detection: Box, mass: Box) -> bool:
    """Tell whether a detection finds a mass."""
    x, y, w, h = detection
    left, top, width, height = mass
    if rule is HitRule.CENTRE:
        return left <= x + w / 2 <= left + width and top <= y + h / 2 <= top + height
    across = min(x + w, left + width) - max(x, left)
    down = min(y + h, top + height) - max(y, top)
    common = max(across, 0.0) * max(down, 0.0)
    return common > 0 and common >= 0.5 * (w * h + width * height - common)


def match(rule: HitRule, image: ImageDetections) -> Events:
    """Match detections to masses by falling score; each mass counts once, further detections on it count as nothing."""
    taken: set[int] = set()
    ordered = sorted(image.detections, key=lambda d: -d[0])
    kinds = []
    for _, box in ordered:
        found = [i for i, mass in enumerate(image.truth) if hits(rule, box, mass)]
        free = [i for i in found if i not in taken]
        taken.update(free[:1])
        kinds.append(1 if free else 0 if found else -1)
    return Events(np.array([s for s, _ in ordered], float), np.array(kinds, int), len(image.truth))


def sensitivity(events: Sequence[Events], fppi: Sequence[float] = FPPI) -> list[float]:
    """Return the highest sensitivity reached at any threshold with at most so many false positives per image."""
    masses = sum(e.masses for e in events)
    _, hit, false = _curve(events)
    return [float(hit[false <= limit].max(initial=0)) / max(masses, 1) for limit in fppi]


def threshold_at(events: Sequence[Events], fppi: float) -> float:
    """Return the lowest score threshold that keeps at most so many false positives per image; 1 when there is none."""
    scores, _, false = _curve(events)
    return float(scores[false <= fppi].min(initial=1.0))


def _curve(events: Sequence[Events]) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Thresholds by falling score, hits and false positives per image at each; only the last of equal scores counts."""
    scores = np.concatenate([np.zeros(0), *(e.scores for e in events)])
    kinds = np.concatenate([np.zeros(0, int), *(e.kinds for e in events)])
    order = np.argsort(-scores, kind="stable")
    scores, kinds = scores[order], kinds[order]
    last = np.append(scores[1:] != scores[:-1], True)[: len(scores)]
    hit, false = np.cumsum(kinds == 1), np.cumsum(kinds == -1) / max(len(events), 1)
    return scores[last], hit[last], false[last]
