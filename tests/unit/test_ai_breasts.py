"""What both views of a breast say together (rule R4)."""

from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai.exam import STANDARD_VIEWS, View
from ai.findings import ImageFindings
from ai.readers.breasts import in_their_breasts
from tests.answers import a_mass

MASK = np.ones((4, 4), np.bool_)


def an_image(
    view: View, malignancy: float | None, suspicions: tuple[int, ...], span: tuple[int, int] | None
) -> ImageFindings:
    """Return an image as a network says it, by falling suspicion of its masses."""
    masses = tuple(a_mass(MASK, number, suspicion=each) for number, each in enumerate(suspicions, 1))
    score = round(100 * malignancy) if malignancy is not None else max(suspicions, default=0)
    return ImageFindings(str(view), view, (8, 8), masses, score, malignancy, span=span)


def test_a_breast_tells_the_mean_of_its_views_and_its_masses_no_more() -> None:
    right_cc, left_cc, right_mlo, left_mlo = STANDARD_VIEWS
    found = in_their_breasts(
        [
            an_image(right_cc, 0.9, (95, 40), (80, 94)),
            an_image(left_cc, 0.2, (), (10, 30)),
            an_image(right_mlo, 0.5, (52,), (40, 60)),
            an_image(left_mlo, None, (77,), None),
        ]
    )
    assert [image.malignancy for image in found] == [pytest.approx(0.7), pytest.approx(0.2), pytest.approx(0.7), None]
    assert [image.score for image in found] == [70, 20, 70, 77]
    assert [[mass.suspicion for mass in image.masses] for image in found] == [[70, 40], [], [52], [77]]
    assert [image.span for image in found] == [(60, 77), (10, 30), (60, 77), None]


@given(st.lists(st.tuples(st.floats(0, 1), st.lists(st.integers(0, 100), max_size=3)), min_size=1, max_size=4))
def test_no_mass_is_more_suspicious_than_its_breast_and_none_changes_its_place(
    said: list[tuple[float, list[int]]],
) -> None:
    images = [
        an_image(view, malignancy, tuple(sorted(suspicions, reverse=True)), None)
        for view, (malignancy, suspicions) in zip(STANDARD_VIEWS, said, strict=False)
    ]
    found = in_their_breasts(images)
    assert [image.uid for image in found] == [image.uid for image in images]
    for image, before in zip(found, images, strict=True):
        breast = [each.malignancy or 0.0 for each in images if each.view.laterality is image.view.laterality]
        assert image.score == round(100 * fmean(breast))
        told = [mass.suspicion for mass in image.masses]
        assert told == sorted((min(mass.suspicion, image.score) for mass in before.masses), reverse=True)
        assert [mass.number for mass in image.masses] == [mass.number for mass in before.masses]
