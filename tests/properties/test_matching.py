"""Matching of CC and MLO masses does not depend on order, side or scale, and never exceeds its tolerances."""

from math import log2
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai.exam import Exam, Laterality, Spacing, SpacingRule, View, ViewImage, ViewPosition
from ai.findings import ImageFindings, Mass, Match
from ai.readers.lesions import measure
from ai.readers.matching import MatchingPolicy, Place, match_masses, pair, places, view_line
from tests.drawn import a_breast

POLICY = MatchingPolicy()
ROWS, COLUMNS = 512, 384  # a longest side of 512 is what the breast is searched on

Rectangle = tuple[int, int, int, int]
"""x, y, width, height in pixels of a left breast."""

RECTANGLES = st.lists(
    st.tuples(st.integers(0, 200), st.integers(100, 400), st.integers(4, 60), st.integers(4, 60)), max_size=4
)
PLACES = st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 0.5)), max_size=6).map(
    lambda drawn: [Place(number, depth, diameter) for number, (depth, diameter) in enumerate(drawn, 1)]
)


def a_mass(number: int, rectangle: Rectangle, scale: int, *, right: bool) -> Mass:
    x, y, width, height = (scale * value for value in rectangle)
    mask = np.ones((height, width), np.bool_)
    left = scale * COLUMNS - x - width if right else x
    return Mass(number, (y, left), mask, np.zeros((0, 2)), measure(mask, None), 0.9, None, 50)


def a_reading(
    cc: list[Rectangle],
    mlo: list[Rectangle],
    spacing: float | None = None,
    scale: int = 1,
    *,
    right: bool = False,
) -> tuple[Exam, list[ImageFindings]]:
    """Return the views of one breast, each pixel repeated by the scale, and what was found in them."""
    side = Laterality.RIGHT if right else Laterality.LEFT
    known = Spacing(spacing, spacing, SpacingRule.CALIBRATED) if spacing else None
    pixels = a_breast((ROWS, COLUMNS), right=right).repeat(scale, 0).repeat(scale, 1)
    images, found = [], []
    for position, rectangles in ((ViewPosition.CC, cc), (ViewPosition.MLO, mlo)):
        view = View(side, position)
        masses = tuple(a_mass(number, r, scale, right=right) for number, r in enumerate(rectangles, 1))
        images.append(ViewImage(str(view), view, pixels, known))
        found.append(ImageFindings(str(view), view, images[-1].shape, masses, 50, None))
    return Exam(tuple(images)), found


def numbers(matches: tuple[Match, ...]) -> list[tuple[int, int]]:
    return [(match.cc, match.mlo) for match in matches]


@given(PLACES, PLACES, st.randoms(use_true_random=False))
def test_the_order_of_places_does_not_matter(cc: list[Place], mlo: list[Place], random: Random) -> None:
    expected = pair(cc, mlo, POLICY)
    random.shuffle(cc)
    random.shuffle(mlo)
    assert pair(cc, mlo, POLICY) == expected


@given(PLACES, PLACES)
def test_each_mass_is_in_at_most_one_pair_and_no_pair_exceeds_a_tolerance(cc: list[Place], mlo: list[Place]) -> None:
    pairs = pair(cc, mlo, POLICY)
    assert len({first for first, _ in pairs}) == len(pairs) == len({second for _, second in pairs})

    def alike(first: Place, second: Place, slack: float) -> bool:
        return (
            abs(first.depth - second.depth) <= POLICY.depth + slack
            and abs(log2(first.diameter / second.diameter)) <= log2(POLICY.ratio) + slack
        )

    for first, second in pairs:
        assert alike(cc[first - 1], mlo[second - 1], 1e-9)
    # Nothing is left that could be paired.
    left = [p for p in cc if p.number not in dict(pairs)], [p for p in mlo if p.number not in dict(pairs).values()]
    assert not any(alike(first, second, -1e-9) for first in left[0] for second in left[1])


@given(RECTANGLES, RECTANGLES, st.sampled_from([1, -1]), st.permutations(range(4)))
def test_the_order_of_findings_and_images_does_not_matter(
    cc: list[Rectangle], mlo: list[Rectangle], step: int, order: list[int]
) -> None:
    exam, found = a_reading(cc, mlo)
    mixed = [
        ImageFindings(f.uid, f.view, f.shape, tuple(f.masses[i] for i in order if i < len(f.masses)), 50, None)
        for f in found
    ]
    expected = match_masses(exam, found, POLICY)
    assert match_masses(Exam(exam.images[::step]), mixed[::-step], POLICY) == expected


@given(RECTANGLES, RECTANGLES, st.sampled_from([None, 0.1]))
def test_a_mirrored_breast_has_the_same_pairs(cc: list[Rectangle], mlo: list[Rectangle], spacing: float | None) -> None:
    left = match_masses(*a_reading(cc, mlo, spacing), POLICY)
    right = match_masses(*a_reading(cc, mlo, spacing, right=True), POLICY)
    assert numbers(right) == numbers(left)
    assert {match.laterality for match in right} <= {Laterality.RIGHT}


@given(RECTANGLES, RECTANGLES, st.sampled_from([2, 3]), st.sampled_from([None, 0.07, 0.1]))
def test_scaling_images_and_spacing_together_changes_nothing(
    cc: list[Rectangle], mlo: list[Rectangle], scale: int, spacing: float | None
) -> None:
    plain = match_masses(*a_reading(cc, mlo, spacing), POLICY)
    assert match_masses(*a_reading(cc, mlo, spacing and spacing / scale, scale), POLICY) == plain


@given(st.floats(0.01, 3), RECTANGLES)
def test_places_in_depths_of_the_breast_do_not_depend_on_the_unit(spacing: float, rectangles: list[Rectangle]) -> None:
    told = []
    for known in (None, spacing):
        exam, found = a_reading([], rectangles, known)
        line = view_line(exam.images[1], POLICY)
        told.append([(p.depth, p.diameter) for p in places(exam.images[1], found[1].masses, line, line.depth)])
    for plain, scaled in zip(*told, strict=True):
        assert scaled == pytest.approx(plain)


@given(st.integers(0, 20), st.integers(4, 20), st.integers(150, 350), st.integers(150, 350))
def test_masses_at_the_chest_wall_never_pair_with_those_at_the_nipple(
    deep: int, width: int, first: int, second: int
) -> None:
    # The breast reaches 230 px from the chest wall; 20° turn 256 px of height into 88 px of depth at most.
    wall, nipple = (deep, first, width, width), (215 - width, second, width, width)
    near = (215 - width, 256, width, width)
    assert match_masses(*a_reading([wall], [near]), POLICY) == ()
    assert match_masses(*a_reading([nipple], [(deep, 256, width, width)]), POLICY) == ()
    assert len(match_masses(*a_reading([near], [near]), POLICY)) == 1
