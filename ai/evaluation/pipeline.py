"""A detector and a classifier behind it, scored as one (Madsen, section 8.4)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai.evaluation.detection import Events, ratio


@dataclass(frozen=True, eq=False)
class Regions:
    """What a pipeline said of one image.

    Attributes
    ----------
    events
        Its regions against the masses.
    malignancies
        Of the regions, in the order of the events; NaN where it does not say.
    malignant
        Whether the masses of this image are malignant; None when that is not known of each.
    """

    events: Events
    malignancies: NDArray[np.float64]
    malignant: bool | None


@dataclass(frozen=True)
class EndToEnd:
    """Regions at one threshold.

    Attributes
    ----------
    found
        Regions, "total found regions" in the project.
    true
        Masses that a region found, "true regions found".
    judged
        Of these, masses whose malignancy is known.
    right
        Of these, masses that were called right: malignant from 0.5 on.
    masses, known
        Masses in all, and those whose malignancy is known.
    """

    found: int
    true: int
    judged: int
    right: int
    masses: int
    known: int

    @property
    def localised(self) -> float:
        """Masses found of all: "correctly found regions out of all regions"."""
        return ratio(self.true, self.masses)

    @property
    def classified(self) -> float:
        """Masses called right of those found: "correctly classified out of true regions"."""
        return ratio(self.right, self.judged)

    @property
    def both(self) -> float:
        """Masses found and called right of all that are known: "correctly classified out of all regions"."""
        return ratio(self.right, self.known)

    @property
    def false_share(self) -> float:
        """1 - precision: regions that found no mass first, of all regions."""
        return 1 - ratio(self.true, self.found)

    @property
    def wrong_share(self) -> float:
        """Regions that are not both right, of all regions.

        The project's "false positive rate": 1 - 0.54 x 378 / 698 is its 0.71, and so at its other thresholds.
        """
        return 1 - ratio(self.right, self.found)


def end_to_end(images: Sequence[Regions], threshold: float) -> EndToEnd:
    """Score the regions at or above a threshold."""
    found = true = judged = right = known = 0
    for image in images:
        kept = image.events.scores >= threshold
        first = kept & (image.events.kinds == 1)
        found += int(kept.sum())
        true += int(first.sum())
        if image.malignant is not None:
            known += image.events.masses
            said = image.malignancies[first]
            judged += int((~np.isnan(said)).sum())
            right += int(((said >= 0.5) == image.malignant)[~np.isnan(said)].sum())
    return EndToEnd(found, true, judged, right, sum(i.events.masses for i in images), known)
