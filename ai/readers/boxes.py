"""Boxes of several detectors that are folds of one, made one set (after weighted boxes fusion, Solovyev et al. 2021)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

OVERLAP: Final = 0.5
"""Intersection over union from which boxes of different folds are of one mass."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """What one detector found in one image.

    Attributes
    ----------
    corners
        Shape (n, 4): x1, y1, x2, y2.
    scores
        Shape (n,), 0 to 1.
    """

    corners: NDArray[np.float64]
    scores: NDArray[np.float64]


def fuse(found: Sequence[Boxes]) -> Boxes:
    """Return the boxes of all folds, by falling score.

    A box joins the best box of other folds that it overlaps enough. The fused score is the mean over all folds, 0 from
    one that does not see it; the fused corners are the mean weighted by the scores. One fold alone stays as it is.

    Parameters
    ----------
    found
        By fold.
    """
    every = sorted(
        (
            (float(score), fold, box)
            for fold, one in enumerate(found)
            for box, score in zip(one.corners, one.scores, strict=True)
        ),
        key=lambda member: -member[0],
    )
    groups: list[list[tuple[float, int, NDArray[np.float64]]]] = []
    for member in every:
        free = [group for group in groups if member[1] not in {fold for _, fold, _ in group}]
        overlaps = [_iou(member[2], group[0][2]) for group in free]
        best = int(np.argmax(overlaps)) if overlaps else 0
        if overlaps and overlaps[best] >= OVERLAP:
            free[best].append(member)
        else:
            groups.append([member])
    scores = np.array([sum(score for score, _, _ in group) / len(found) for group in groups], np.float64)
    corners = np.array([_middle(group) for group in groups], np.float64).reshape(-1, 4)
    order = np.argsort(-scores, kind="stable")
    return Boxes(corners[order], scores[order])


def _middle(group: Sequence[tuple[float, int, NDArray[np.float64]]]) -> NDArray[np.float64]:
    if len(group) == 1:
        return group[0][2]
    weights = np.array([score for score, _, _ in group])
    return np.asarray(np.average([box for _, _, box in group], axis=0, weights=weights), np.float64)


def _iou(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    common = float(sides.clip(0).prod())
    areas = float((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod())
    return common / max(areas - common, np.finfo(np.float64).tiny)
