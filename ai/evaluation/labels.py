"""Images called right or wrong: the thesis' rule with its 0.4, and the plain one."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from ai.evaluation.detection import ratio
from ai.evaluation.overlap import Overlap

THESIS_DICE: Final = 0.4
"""Dice above which the thesis calls a marked image a true positive."""


class Label(Enum):
    """What became of one image."""

    TP = auto()
    TN = auto()
    FP = auto()
    FN = auto()


@dataclass(frozen=True)
class Counts:
    """Images by what became of them.

    Attributes
    ----------
    tp, tn, fp, fn
        By label.
    positive
        Images with a mass: with the thesis' rule not tp + fn, since a mark beside the mass makes an fp of them.
    """

    tp: int
    tn: int
    fp: int
    fn: int
    positive: int

    @property
    def accuracy(self) -> float:
        """(TP + TN) / all."""
        return ratio(self.tp + self.tn, self.tp + self.tn + self.fp + self.fn)

    @property
    def specificity(self) -> float:
        """TN / (TN + FP)."""
        return ratio(self.tn, self.tn + self.fp)

    @property
    def sensitivity(self) -> float:
        """TP / images with a mass."""
        return ratio(self.tp, self.positive)

    @property
    def f1(self) -> float:
        """TP / (TP + (FP + FN) / 2)."""
        return ratio(self.tp, self.tp + (self.fp + self.fn) / 2)


def thesis_label(pixels: Overlap) -> Label:
    """Return the thesis' label.

    TP: Dice above 0.4. FP: something is marked, and there is no mass or Dice is at most 0.4; so a bad hit on an image
    with a mass is an FP and not an FN. TN: neither mark nor mass. FN: a mass and no mark.
    """
    if not pixels.found:
        return Label.FN if pixels.truth else Label.TN
    return Label.TP if pixels.truth and pixels.dice > THESIS_DICE else Label.FP


def plain_label(*, marked: bool, positive: bool) -> Label:
    """Return whether something is marked, wherever, against whether there is a mass."""
    if positive:
        return Label.TP if marked else Label.FN
    return Label.FP if marked else Label.TN


def count(labels: Iterable[tuple[Label, bool]]) -> Counts:
    """Count labels, each with whether its image has a mass."""
    rows = list(labels)
    of = {kind: sum(label is kind for label, _ in rows) for kind in Label}
    return Counts(of[Label.TP], of[Label.TN], of[Label.FP], of[Label.FN], sum(positive for _, positive in rows))
