"""What readers share that read each image alone: the exam's findings from those of its images."""

from collections.abc import Iterable
from typing import Final

from ai.exam import Exam, Laterality
from ai.findings import BreastScore, ExamFindings, ImageFindings, ModelIdentity
from ai.readers.matching import MatchingPolicy, match_masses

MAP_SIDE: Final = 512
"""Cells along the longer side of the map that goes out with the findings."""


def exam_findings(
    model: ModelIdentity, exam: Exam, images: Iterable[ImageFindings], matching: MatchingPolicy
) -> ExamFindings:
    """Return the findings of an exam: a breast's score is the highest of its images', the exam's that of its breasts'.

    Parameters
    ----------
    model
        Who read.
    exam
        What was read.
    images
        What was found in each of its images, in its order.
    matching
        Which masses of the two views may be one lesion.
    """
    found = tuple(images)
    breasts = tuple(
        BreastScore(side, max(image.score for image in found if image.view.laterality == side))
        for side in Laterality
        if any(image.view.laterality == side for image in found)
    )
    matches = match_masses(exam, found, matching)
    return ExamFindings(model, found, breasts, max((b.score for b in breasts), default=0), matches)
