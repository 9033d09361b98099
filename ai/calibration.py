"""What a score means as a probability: a logistic curve for each level, and the shift to another prevalence."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, Field

DOUBT: Final = 40
"""Points of the score: parts of a model that differ so much doubt a breast. Of the breasts that the shipped model held out,
one in ten; the AUC is 0.62 there, and 0.91 over all (docs/calibration.md)."""


class Level(StrEnum):
    """What a score from 0 to 100 is of."""

    FINDING = "finding"
    IMAGE = "image"
    BREAST = "breast"
    EXAM = "exam"


class Curve(BaseModel, frozen=True, extra="forbid"):
    """The log odds of cancer: ``slope`` times those of the score, plus ``offset`` (Platt 1999, on log odds).

    A slope of 1 / T with an offset of 0 is a temperature of T (Guo et al. 2017).
    """

    slope: float = Field(gt=0)
    offset: float

    def log_odds(self, score: float) -> float:
        """Return the log odds of cancer at a score from 0 to 100."""
        return self.slope * score_log_odds(score) + self.offset


class Calibration(BaseModel, frozen=True, extra="forbid"):
    """The calibration table of a model's card: what its scores meant on patients that it was not trained on.

    Attributes
    ----------
    population
        Whose exams these were, for reports.
    prevalence
        Share of these exams with cancer, 0 to 1.
    finding, image, breast, exam
        A curve for each level.
    """

    population: str
    prevalence: float = Field(gt=0, lt=1)
    finding: Curve
    image: Curve
    breast: Curve
    exam: Curve

    def curve(self, level: Level) -> Curve:
        """Return the curve of a level."""
        curves = {
            Level.FINDING: self.finding,
            Level.IMAGE: self.image,
            Level.BREAST: self.breast,
            Level.EXAM: self.exam,
        }
        return curves[level]


@dataclass(frozen=True)
class Likelihood:
    """A calibration under the prevalence that somebody assumes.

    The curves stay, and all log odds move by the difference of those of both prevalences (Saerens et al. 2002): exams
    with cancer look as they did in the calibration's population, and so do exams without. Where the latter differ, as
    women without any mass do, the probabilities are off.

    Attributes
    ----------
    calibration
        Of the model.
    prevalence
        Share of exams with cancer, 0 to 1, exclusive.
    """

    calibration: Calibration
    prevalence: float

    def probability(self, level: Level, score: int) -> float:
        """Return the probability of cancer, 0 to 1, at a score from 0 to 100."""
        shift = log_odds(self.prevalence) - log_odds(self.calibration.prevalence)
        return 1 / (1 + math.exp(-(self.calibration.curve(level).log_odds(score) + shift)))


def threshold_for(rate: float, scores: Collection[int]) -> int:
    """Return the lowest threshold, 1 to 101, that at most so large a share of the scores is at or above."""
    allowed = rate * len(scores)
    return next(t for t in range(1, 102) if sum(score >= t for score in scores) <= allowed)


def log_odds(probability: float) -> float:
    """Return ln(p / (1 - p)) of a probability between 0 and 1, exclusive."""
    return math.log(probability / (1 - probability))


def score_log_odds(score: float) -> float:
    """Return the log odds of a score from 0 to 100 as a share; half a point keeps both ends finite."""
    return log_odds((score + 0.5) / 101)
