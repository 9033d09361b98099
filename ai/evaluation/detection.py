"""Free-response ROC of detections against boxes (Chakraborty 1989), per image, with ties moved together."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ai.datasets.records import Box

FPPI = (0.04, 0.1, 0.25, 0.44, 0.5, 1.0, 1.21, 2.0)
"""False positives per image at which sensitivity is told."""


class HitRule(StrEnum):
    """When a detection finds a mass."""

    #: intersection over union of the boxes is at least 0.5 (Madsen; Agarwal's second table)
    IOU50 = "IoU >= 0.5"
    #: intersection over union of the boxes is above 0.2 (Agarwal et al. 2019)
    IOU20 = "IoU > 0.2"
    #: the detection's centre lies in the mass's box
    CENTRE = "centre in box"
    #: the detection's centre lies in the mass's box and on a pixel of the masses; needs masks or outlines
    CENTRE_MASK = "centre in mask"


BOX_RULES: Final = (HitRule.IOU50, HitRule.IOU20, HitRule.CENTRE)
"""Those that need no more than boxes."""


@dataclass(frozen=True)
class ImageDetections:
    """Truth and detections of one image; every image counts in the denominator, with or without a mass.

    Attributes
    ----------
    patient_id
        Intervals are grouped by it.
    truth
        Boxes of the masses.
    detections
        Scores and boxes.
    on_mask
        For each detection, whether its centre lies on a pixel of the masses; None where only boxes are known.
    """

    patient_id: str
    truth: tuple[Box, ...]
    detections: tuple[tuple[float, Box], ...]
    on_mask: tuple[bool, ...] | None = None


@dataclass(frozen=True, eq=False)
class Events:
    """What the detections of one image were, by falling score.

    Attributes
    ----------
    scores
        Of the detections.
    kinds
        +1 first hit of a mass, 0 repeated hit, -1 false positive.
    masses
        Number of masses.
    found
        The mass that a first hit found, by its place in the truth; -1 for the others.
    order
        Each detection's place before they were sorted.
    """

    scores: NDArray[np.float64]
    kinds: NDArray[np.int64]
    masses: int
    found: NDArray[np.int64]
    order: NDArray[np.int64]

    def of(self, masses: Collection[int]) -> "Events":
        """Return the same with some of the masses alone: hits of the others are neither hits nor false positives."""
        others = (self.kinds == 1) & ~np.isin(self.found, list(masses))
        return Events(self.scores, np.where(others, 0, self.kinds), len(masses), self.found, self.order)


class Curve:
    """The FROC curve of some images, and of any draw of them with replacement.

    Parameters
    ----------
    events
        By image.
    """

    def __init__(self, events: Sequence[Events]) -> None:
        scores = np.concatenate([np.zeros(0), *(e.scores for e in events)])
        kinds = np.concatenate([np.zeros(0, int), *(e.kinds for e in events)])
        image = np.repeat(np.arange(len(events)), [len(e.scores) for e in events])
        order = np.argsort(-scores, kind="stable")
        self._scores, self._image = scores[order], image[order]
        self._hit, self._false = kinds[order] == 1, kinds[order] == -1
        # Only the last of equal scores is a threshold.
        self._last = np.append(self._scores[1:] != self._scores[:-1], True)[: len(scores)]
        self._masses = np.array([e.masses for e in events], int)

    def points(
        self, counts: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return thresholds by falling score, and at each the sensitivity and the false positives per image.

        Parameters
        ----------
        counts
            How often each image counts; None: once.
        """
        counts = np.ones(len(self._masses), int) if counts is None else counts
        weight = counts[self._image]
        hit, false = np.cumsum(weight * self._hit)[self._last], np.cumsum(weight * self._false)[self._last]
        masses, images = self.masses(counts), int(counts.sum())
        return self._scores[self._last], hit / max(masses, 1), false / max(images, 1)

    def masses(self, counts: NDArray[np.int64]) -> int:
        """Return how many masses there are when each image counts so often."""
        return int((counts * self._masses).sum())

    def sensitivity(self, fppi: Sequence[float], counts: NDArray[np.int64] | None = None) -> list[float]:
        """Return the highest sensitivity at any threshold with at most so many false positives per image."""
        _, found, false = self.points(counts)
        return [float(found[false <= limit].max(initial=0)) for limit in fppi]


def ratio(part: float, whole: float) -> float:
    """Return part / whole, NaN when there is no whole."""
    return part / whole if whole else float("nan")


def iou(one: Box, other: Box) -> float:
    """Return intersection over union of two boxes; 0 when both are empty."""
    x, y, w, h = one
    left, top, width, height = other
    across = min(x + w, left + width) - max(x, left)
    down = min(y + h, top + height) - max(y, top)
    common = max(across, 0.0) * max(down, 0.0)
    return common / (w * h + width * height - common) if common else 0.0


def centre_in(detection: Box, mass: Box) -> bool:
    """Tell whether the centre of a box lies in another, its edges included."""
    x, y, w, h = detection
    left, top, width, height = mass
    return left <= x + w / 2 <= left + width and top <= y + h / 2 <= top + height


_BY_BOXES: Final[dict[HitRule, Callable[[Box, Box], bool]]] = {
    HitRule.IOU50: lambda detection, mass: iou(detection, mass) >= 0.5,
    HitRule.IOU20: lambda detection, mass: iou(detection, mass) > 0.2,
    HitRule.CENTRE: centre_in,
    HitRule.CENTRE_MASK: centre_in,
}


def hits(rule: HitRule, detection: Box, mass: Box, *, on_mask: bool = True) -> bool:
    """Tell whether a detection finds a mass; ``on_mask`` says where its centre is, for the rule that asks."""
    return (on_mask or rule is not HitRule.CENTRE_MASK) and _BY_BOXES[rule](detection, mass)


def match(rule: HitRule, image: ImageDetections) -> Events:
    """Match detections to masses by falling score; each mass counts once, further detections on it count as nothing."""
    taken: set[int] = set()
    on_mask = image.on_mask or (True,) * len(image.detections)
    order = sorted(range(len(image.detections)), key=lambda i: -image.detections[i][0])
    kinds, which = [], []
    for i in order:
        box = image.detections[i][1]
        found = [k for k, mass in enumerate(image.truth) if hits(rule, box, mass, on_mask=on_mask[i])]
        free = [k for k in found if k not in taken]
        taken.update(free[:1])
        kinds.append(1 if free else 0 if found else -1)
        which.append(free[0] if free else -1)
    scores = np.array([image.detections[i][0] for i in order], float)
    return Events(scores, np.array(kinds, int), len(image.truth), np.array(which, int), np.array(order, int))


def sensitivity(events: Sequence[Events], fppi: Sequence[float] = FPPI) -> list[float]:
    """Return the highest sensitivity reached at any threshold with at most so many false positives per image."""
    return Curve(events).sensitivity(fppi)


def threshold_at(events: Sequence[Events], fppi: float) -> float:
    """Return the lowest score threshold that keeps at most so many false positives per image; 1 when there is none."""
    scores, _, false = Curve(events).points()
    return float(scores[false <= fppi].min(initial=1.0))
