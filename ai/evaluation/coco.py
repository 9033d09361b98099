"""Average precision and recall as COCO counts them (Lin et al. 2014, cocoeval), for one class, without their library.

Detections are taken by falling score, at most 100 of an image; each takes the mass that is still free and overlaps it
most. Precision is made non-increasing and read at 101 recalls. Masses outside a size band are ignored, and so are
detections that found an ignored mass, or none while they are outside the band themselves. Crowds do not exist here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ai.datasets.records import Box
from ai.evaluation.detection import ImageDetections, iou

OVERLAPS: Final = tuple(round(0.5 + 0.05 * k, 2) for k in range(10))
"""Intersections over union, 0.5 to 0.95."""
MOST: Final = 100
"""Detections of an image that count."""
RECALLS: Final = np.linspace(0, 1, 101)
Band = tuple[float, float]
ALL: Final[Band] = (0.0, float("inf"))
BANDS: Final[dict[str, Band]] = {"s": (0.0, 32.0**2), "m": (32.0**2, 96.0**2), "l": (96.0**2, float("inf"))}
"""Areas of boxes in pixels of the image file: small, medium, large."""


@dataclass(frozen=True, eq=False)
class Matched:
    """Detections of one image at one overlap and in one band.

    Attributes
    ----------
    scores
        Falling.
    true, ignored
        For each detection.
    masses
        Those that count.
    """

    scores: NDArray[np.float64]
    true: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    masses: int


def match(image: ImageDetections, overlap: float, band: Band = ALL) -> Matched:
    """Match the detections of one image."""
    inside = [band[0] <= _area(box) <= band[1] for box in image.truth]
    ranked = sorted(image.detections, key=lambda d: -d[0])[:MOST]
    taken: set[int] = set()
    true, ignored = [], []
    for _, box in ranked:
        overlaps = {k: iou(box, mass) for k, mass in enumerate(image.truth) if k not in taken}
        # A mass that counts goes before one that is ignored.
        able = [k for k, value in overlaps.items() if value >= overlap]
        best = max(able, key=lambda k: (inside[k], overlaps[k]), default=None)
        if best is not None:
            taken.add(best)
        true.append(best is not None and inside[best])
        ignored.append(not inside[best] if best is not None else not band[0] <= _area(box) <= band[1])
    return Matched(np.array([s for s, _ in ranked], float), np.array(true, bool), np.array(ignored, bool), sum(inside))


class Precision:
    """Average precision of some images at one overlap and in one band, and of any draw of them with replacement.

    Parameters
    ----------
    images
        Their matches.
    """

    def __init__(self, images: Sequence[Matched]) -> None:
        scores = np.concatenate([np.zeros(0), *(m.scores for m in images)])
        order = np.argsort(-scores, kind="stable")
        self._image = np.repeat(np.arange(len(images)), [len(m.scores) for m in images])[order]
        self._true = np.concatenate([np.zeros(0, bool), *(m.true for m in images)])[order]
        self._counts = ~np.concatenate([np.zeros(0, bool), *(m.ignored for m in images)])[order]
        self._masses = np.array([m.masses for m in images], int)
        self._found = {most: np.array([int(m.true[:most].sum()) for m in images], int) for most in (1, 10, MOST)}

    def average(self, counts: NDArray[np.int64]) -> float:
        """Return the mean precision over 101 recalls; NaN when no mass counts."""
        masses = int((counts * self._masses).sum())
        if not masses:
            return float("nan")
        weight = counts[self._image] * self._counts
        true, all_ = np.cumsum(weight * self._true), np.cumsum(weight)
        kept = all_ > 0
        true, all_ = true[kept], all_[kept]
        best = np.maximum.accumulate((true / all_)[::-1])[::-1]
        place = np.searchsorted(true / masses, RECALLS, side="left")
        return float(np.append(best, 0.0)[np.minimum(place, len(best))].mean())

    def recall(self, most: int, counts: NDArray[np.int64]) -> float:
        """Return the share of masses found by the first 1, 10 or 100 detections of each image; NaN without masses."""
        masses = int((counts * self._masses).sum())
        return float((counts * self._found[most]).sum()) / masses if masses else float("nan")


class Coco:
    """COCO's table for some images: AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100."""

    def __init__(self, images: Sequence[ImageDetections]) -> None:
        self._all = {o: Precision([match(i, o) for i in images]) for o in OVERLAPS}
        self._bands = {
            name: [Precision([match(i, o, band) for i in images]) for o in OVERLAPS] for name, band in BANDS.items()
        }

    def table(self, counts: NDArray[np.int64]) -> dict[str, float]:
        """Return the figures when each image counts so often."""
        by_overlap = {o: p.average(counts) for o, p in self._all.items()}
        return {
            "AP": float(np.mean(list(by_overlap.values()))),
            "AP50": by_overlap[0.5],
            "AP75": by_overlap[0.75],
            **{f"AP{name}": float(np.mean([p.average(counts) for p in some])) for name, some in self._bands.items()},
            **{
                f"AR{most}": float(np.mean([p.recall(most, counts) for p in self._all.values()]))
                for most in (1, 10, MOST)
            },
        }


def _area(box: Box) -> float:
    return box[2] * box[3]
