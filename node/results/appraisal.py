"""What scores mean here: how far the model doubts them, the site's limit for a second look, and probabilities (rule R4)."""

from collections.abc import Iterator
from typing import Final

from ai.calibration import DOUBT, Level
from ai.exam import Laterality
from ai.findings import ExamFindings
from config.policy import RecallLimit
from node.results.answer import Answer

BREASTS: Final = {Laterality.RIGHT: "right breast", Laterality.LEFT: "left breast"}


def appraisal(answer: Answer) -> list[str]:
    """Return what there is to say on the scores of an answer, a sentence each.

    What the parts of the model disagree on is told of every exam, the rest where the site has stated something.
    """
    if answer.findings is None:
        return []
    limit = [limit_in_words(answer.findings, answer.recall)] if answer.recall else []
    return [*doubts(answer.findings), *limit, *_probabilities(answer)]


def percent(answer: Answer, level: Level, score: int) -> float | None:
    """Return a score's probability of cancer in percent, to two digits; None where none may be told."""
    likelihood = answer.likelihood
    return float(f"{100 * likelihood.probability(level, score):.2g}") if likelihood else None


def is_borderline(findings: ExamFindings, limit: RecallLimit) -> bool:
    """Tell whether the limit lies within the band around the score, or between what parts of the model would have said."""
    low, high = findings.span or (findings.score, findings.score)
    near = limit.band > 0 and abs(findings.score - limit.score) <= limit.band
    return near or low < limit.score <= high


def limit_in_words(findings: ExamFindings, limit: RecallLimit) -> str:
    """Return on which side of the limit an exam is, and whether that is certain."""
    side = "at or above" if findings.score >= limit.score else "below"
    whose = f" for {', '.join(limit.senders)}" if limit.senders else ""
    told = f"Exam score {findings.score} is {side} this site's limit of {limit.score}{whose} for a second look"
    if not is_borderline(findings, limit):
        return f"{told}."
    low, high = findings.span or (findings.score, findings.score)
    if low < limit.score <= high:
        return f"{told}, but BORDERLINE: parts of the model say {low} to {high}."
    return f"{told}, but BORDERLINE: within {limit.band} points of it."


def doubts(findings: ExamFindings) -> Iterator[str]:
    """Yield a sentence for each breast on which the parts of the model disagree widely."""
    for side, words in BREASTS.items():
        low, high = findings.span_of(side) or (0, 0)
        if high - low >= DOUBT:
            yield f"UNCERTAIN: parts of the model say {low} to {high} for the {words}; its score may be far off."


def _probabilities(answer: Answer) -> list[str]:
    found, likelihood = answer.findings, answer.likelihood
    if found is None or likelihood is None:
        return []
    told = [f"exam {percent(answer, Level.EXAM, found.score):g} %"]
    told += [f"{each.laterality} breast {percent(answer, Level.BREAST, each.score):g} %" for each in found.breasts]
    assumed = f"if {100 * likelihood.prevalence:g} % of such exams have one"
    return [f"Probability of cancer: {', '.join(told)}, {assumed}; calibrated on {likelihood.calibration.population}."]
