"""Area under the ROC curve, Dice, and intervals by a bootstrap over patients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Figure:
    """A measured value with its 95 % interval; NaN where it is not defined."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return for example ``0.72 (0.65 to 0.78)``."""
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def auc(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """Return the area under the ROC curve, ties counting half (Mann and Whitney 1947); NaN with one class only."""
    s, y = np.asarray(scores, float), np.asarray(labels, bool)
    if y.all() or not y.any():
        return float("nan")
    difference = s[y][:, None] - s[~y][None]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def dice(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return 2·|A∩B| / (|A| + |B|); 1 when both are empty."""
    total = int(found.sum()) + int(truth.sum())
    return 2 * int((found & truth).sum()) / total if total else 1.0


def bootstrap(
    patients: Sequence[str],
    statistic: Callable[[list[int]], Sequence[float]],
    repeats: int,
    seed: int = 0,
) -> list[Figure]:
    """Evaluate statistics of images with intervals from drawing patients with replacement.

    Parameters
    ----------
    patients
        Patient of every image.
    statistic
        Indices of images, with repetition, to values.
    repeats
        Number of draws.

    Returns
    -------
    list of Figure
        One for each value; the interval is that of the 2.5 and 97.5 percentiles.
    """
    members: dict[str, list[int]] = {}
    for index, patient in enumerate(patients):
        members.setdefault(patient, []).append(index)
    names = sorted(members)
    values = statistic(list(range(len(patients))))
    rng = np.random.default_rng(seed)
    draws = np.array(
        [statistic([i for p in rng.choice(names, len(names)) for i in members[p]]) for _ in range(repeats)]
    ).reshape(repeats, len(values))
    figures = []
    for column, value in enumerate(values):
        defined = draws[:, column][~np.isnan(draws[:, column])]
        low, high = np.quantile(defined, (0.025, 0.975)) if len(defined) else (np.nan, np.nan)
        figures.append(Figure(float(value), float(low), float(high)))
    return figures
