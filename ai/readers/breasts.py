"""What both views of a breast say together, where each was read alone."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from ai.findings import ImageFindings


def in_their_breasts(found: Sequence[ImageFindings]) -> tuple[ImageFindings, ...]:
    """Give each image the malignancy of its breast, the mean of its views', and no mass a higher suspicion than that.

    On validation patients the mean told cancers better than each view alone, or than the most suspicious of a breast's views
    and masses (docs/ablation.md). A view whose reader does not say a malignancy stays as it is, and is in no mean.

    Parameters
    ----------
    found
        The images of one exam, each read alone.
    """
    result = []
    for image in found:
        views = [
            each for each in found if each.view.laterality is image.view.laterality and each.malignancy is not None
        ]
        if image.malignancy is None:
            result.append(image)
            continue
        malignancy = fmean(each.malignancy or 0.0 for each in views)
        score = round(100 * malignancy)
        spans = [each.span for each in views if each.span is not None]
        result.append(
            replace(
                image,
                malignancy=malignancy,
                score=score,
                span=(round(fmean(low for low, _ in spans)), round(fmean(high for _, high in spans)))
                if spans
                else None,
                masses=tuple(replace(mass, suspicion=min(mass.suspicion, score)) for mass in image.masses),
            )
        )
    return tuple(result)
