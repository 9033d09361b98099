"""One synthetic woman: what is in her breasts, and her four views with their truth."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ai.exam import STANDARD_VIEWS
from ai.phantom.anatomy import Anatomy
from ai.phantom.distractors import Distractor, draw_distractors
from ai.phantom.lesions import Lesion, draw_lesions
from ai.phantom.render import render
from ai.phantom.truth import PhantomMark, PhantomMass, PhantomView
from ai.phantom.vendors import Vendor


@dataclass(frozen=True)
class Woman:
    """What belongs to a seed, before any picture is taken of it.

    Attributes
    ----------
    seed
        At least 0.
    anatomy
        Of both breasts.
    lesions
        Masses of both.
    distractors
        What else is in them.
    """

    seed: int
    anatomy: Anatomy
    lesions: tuple[Lesion, ...]
    distractors: tuple[Distractor, ...]

    @classmethod
    def draw(cls, seed: int, lesions: Sequence[Lesion] | None = None) -> "Woman":
        """Draw the woman of a seed; lesions that are given stand in the place of those that would be drawn."""
        rng = np.random.default_rng(seed)
        anatomy = Anatomy.draw(rng)
        distractors = tuple(draw_distractors(rng))
        drawn = tuple(draw_lesions(anatomy, rng))
        return cls(seed, anatomy, drawn if lesions is None else tuple(lesions), distractors)

    def views(self, vendor: Vendor) -> Iterator[PhantomView]:
        """Yield the four standard views in their order: equal women and vendors give equal pixels.

        Another woman of the same seed, with other lesions or none, has the same pixels wherever no lesion is.
        """
        for number, view in enumerate(STANDARD_VIEWS, start=1):
            shown = tuple(lesion for lesion in self.lesions if lesion.laterality is view.laterality)
            picture = render(view, self.anatomy, shown, self.distractors, vendor, (self.seed, number))
            yield PhantomView(
                view,
                picture.pixels,
                picture.raw,
                tuple(
                    PhantomMass(view, lesion, mask, centre)
                    for lesion, mask, centre in zip(shown, picture.masks, picture.centres, strict=True)
                ),
                tuple(
                    PhantomMark(view, distractor.kind, centre, distractor.radius)
                    for distractor, centre in picture.distractors
                ),
                picture.nipple,
            )
