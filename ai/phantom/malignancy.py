"""Which masses are malignant: a stated model, so that the best possible AUC is known.

A mass is malignant with probability 1 / (1 + exp(-s)), s = margin + 9·(irregularity - 0.1) + 0.8·ln(radius / 6 mm) + 0.4·(age - 58) / 10.
Whether it is, is drawn with that probability. No reader can rank masses better than by the probability itself: the AUC
of that ranking over the distribution that lesions are drawn from is the Bayes AUC.
"""

from functools import cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ai.phantom.anatomy import AGE, AGE_BY_DENSITY, AGE_SPREAD, AGES, SHARES
from ai.phantom.margins import IRREGULARITY, MARGIN_SHARES, RADII, Margin

WEIGHTS = {Margin.CIRCUMSCRIBED: -2.2, Margin.OBSCURED: -1.2, Margin.INDISTINCT: 0.3, Margin.SPICULATED: 1.8}
"""By margin; a spiculated mass is the most suspicious."""


def chance(
    weight: NDArray[np.float64],
    irregularity: NDArray[np.float64],
    radius: NDArray[np.float64],
    age: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the probability that masses are malignant: weights of their margins, radii in mm, ages in years."""
    score = weight + 9 * (irregularity - 0.1) + 0.8 * np.log(radius / 6) + 0.4 * (age - 58) / 10
    return np.asarray(1 / (1 + np.exp(-score)))


def draw_malignancy(
    margin: Margin, irregularity: float, radius: float, age: float, rng: Generator
) -> tuple[float, bool]:
    """Return the probability, and whether a mass is malignant."""
    probability = float(chance(*(np.array(value) for value in (WEIGHTS[margin], irregularity, radius, age))))
    return probability, bool(rng.random() < probability)


@cache
def bayes_auc(count: int = 200_000) -> float:
    """Return the AUC that no reader of many masses can exceed, from so many draws of the distribution."""
    rng = np.random.default_rng(20261128)
    margin = rng.choice(len(MARGIN_SHARES), count, p=list(MARGIN_SHARES.values()))
    low, high = np.array([IRREGULARITY[each] for each in MARGIN_SHARES]).T
    rank = rng.choice(len(SHARES), count, p=SHARES)
    return expected_auc(
        chance(
            np.array([WEIGHTS[each] for each in MARGIN_SHARES])[margin],
            rng.uniform(low[margin], high[margin]),
            np.exp(rng.uniform(np.log(RADII[0]), np.log(RADII[1]), count)),
            np.clip(rng.normal(AGE - AGE_BY_DENSITY * rank, AGE_SPREAD), *AGES),
        )
    )


def expected_auc(chances: NDArray[np.float64]) -> float:
    """Return the AUC that masses with these probabilities of being malignant have when they are ranked by them."""
    ordered = np.sort(chances)
    benign = np.cumsum(1 - ordered) - (1 - ordered)
    own = ordered * (1 - ordered)
    pairs = float(ordered.sum() * (1 - ordered).sum() - own.sum())
    return float((ordered * benign).sum()) / pairs
