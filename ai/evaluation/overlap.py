"""Pixels that were found against pixels of masses: the papers' means, and the sums under them."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ai.evaluation.detection import ratio


@dataclass(frozen=True)
class Overlap:
    """Pixels of one image.

    Attributes
    ----------
    found
        Marked by the reader.
    truth
        Of masses.
    common
        Of both.
    found_hitting
        Of marked regions (8-connected) that touch a mass.
    truth_hit
        Of masses' regions that a mark touches.
    """

    found: int
    truth: int
    common: int
    found_hitting: int
    truth_hit: int

    @property
    def dice(self) -> float:
        """2 |A and B| / (|A| + |B|); 1 when both are empty."""
        total = self.found + self.truth
        return 2 * self.common / total if total else 1.0

    @property
    def iou(self) -> float:
        """|A and B| / |A or B|; 1 when both are empty."""
        total = self.found + self.truth - self.common
        return self.common / total if total else 1.0


def overlap(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Overlap:
    """Count the pixels of two masks of one shape."""
    return Overlap(
        found=int(found.sum()),
        truth=int(truth.sum()),
        common=int((found & truth).sum()),
        found_hitting=_touching(found, truth),
        truth_hit=_touching(truth, found),
    )


def conditional(values: Sequence[float]) -> list[float]:
    """Return the values of images with any overlap: the thesis (section on metrics), and SPIE as its SD implies."""
    return [v for v in values if v > 0]


def mean(values: Sequence[float]) -> float:
    """Return the mean, NaN of nothing."""
    return ratio(sum(values), len(values))


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation of the values (n, not n - 1), NaN of nothing."""
    return float(np.std(values)) if len(values) else float("nan")


def pooled_dice(overlaps: Sequence[Overlap]) -> float:
    """Return the Dice of all pixels of the set as if they were one image (Marita et al.); NaN without any."""
    return ratio(2 * sum(o.common for o in overlaps), sum(o.found + o.truth for o in overlaps))


def pooled_iou(overlaps: Sequence[Overlap]) -> float:
    """Return the intersection over union of all pixels of the set; NaN without any."""
    return ratio(sum(o.common for o in overlaps), sum(o.found + o.truth - o.common for o in overlaps))


def true_regions(overlaps: Sequence[Overlap]) -> list[Overlap]:
    """Return the same without false regions and missed masses: Marita's "only at the GT true positives"."""
    return [Overlap(o.found_hitting, o.truth_hit, o.common, o.found_hitting, o.truth_hit) for o in overlaps]


def _touching(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> int:
    """Count the pixels of the regions of a mask that have a pixel in common with another."""
    if not (mask & other).any():
        return 0
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    touched = np.unique(labels[mask & other])
    return int(stats[touched, cv2.CC_STAT_AREA].sum())
