"""Masses of the CC and MLO views: what may be one lesion, where the nipple line runs, and when nothing is compared."""

from collections.abc import Sequence
from dataclasses import replace
from math import cos, radians, sin

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ai.exam import STANDARD_VIEWS, Exam, Laterality, Spacing, SpacingRule, View, ViewImage, ViewPosition
from ai.findings import ImageFindings, Mass, Match
from ai.pixels import view_image
from ai.readers.lesions import measure
from ai.readers.matching import MatchingPolicy, Place, match_masses, nipple_line, pair, places, units, view_line
from config.settings import DEFAULT_MODEL
from node.intake import utc_now
from node.phantom import phantom_exam
from node.selftest import synthetic_exam
from tests.drawn import a_breast

POLICY = MatchingPolicy(depth=0.2, ratio=2.0, tilt=20.0)
L_CC, R_CC = View(Laterality.LEFT, ViewPosition.CC), View(Laterality.RIGHT, ViewPosition.CC)
L_MLO, R_MLO = View(Laterality.LEFT, ViewPosition.MLO), View(Laterality.RIGHT, ViewPosition.MLO)
TENTH = Spacing(0.1, 0.1, SpacingRule.CALIBRATED)


def a_mass(x: float, y: float, radius: int = 5, number: int = 1) -> Mass:
    """Return a disc around the pixel at x and y."""
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    mask = np.asarray(rows**2 + columns**2 <= radius**2)
    return Mass(number, (int(y) - radius, int(x) - radius), mask, np.zeros((0, 2)), measure(mask, None), 0.9, None, 50)


def an_image(view: View, spacing: Spacing | None = None, *, depth: int = 72) -> ViewImage:
    """Return a breast that reaches so many pixels from the chest wall; its nipple is at row 80."""
    pixels = a_breast((160, depth * 10 // 6), right=view.laterality is Laterality.RIGHT)
    return ViewImage(str(view), view, pixels, spacing)


def findings(image: ViewImage, *masses: Mass) -> ImageFindings:
    return ImageFindings(image.uid, image.view, image.shape, masses, 50, None)


def matched(*found: tuple[ViewImage, Sequence[Mass]], policy: MatchingPolicy = POLICY) -> tuple[Match, ...]:
    exam = Exam(tuple(image for image, _ in found))
    return match_masses(exam, [findings(image, *masses) for image, masses in found], policy)


def half_disc(radius: int) -> NDArray[np.bool_]:
    """Return a breast whose every line through the middle of the chest wall is as deep as its radius."""
    drawn = np.zeros((3 * radius, 2 * radius), np.uint8)
    cv2.circle(drawn, (0, 3 * radius // 2), radius, (1,), -1)
    return np.asarray(drawn > 0)


@pytest.mark.parametrize("tilt", [0, 20, 35])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("pixel", [(1.0, 1.0), (0.1, 0.1)])
def test_the_nipple_is_the_farthest_point_along_the_line(
    tilt: float, pixel: tuple[float, float], *, mirrored: bool
) -> None:
    mask = half_disc(80)
    line = nipple_line(mask[:, ::-1] if mirrored else mask, pixel, tilt)
    assert line.direction == pytest.approx((cos(radians(tilt)) * (-1 if mirrored else 1), sin(radians(tilt))))
    assert line.depth == pytest.approx(80 * pixel[0], rel=0.03)
    # The middle of the chest wall is as far behind the nipple as the radius, whichever way the line runs.
    wall = mask.shape[1] if mirrored else 0
    assert line.behind(wall * pixel[0], 120.5 * pixel[1]) == pytest.approx(80 * pixel[0], rel=0.03)
    nipple = 120.5 + 80 * sin(radians(tilt)), 80 * cos(radians(tilt))
    across = wall - nipple[1] if mirrored else nipple[1]
    assert line.behind(across * pixel[0], nipple[0] * pixel[1]) == pytest.approx(0, abs=2 * pixel[0])


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_breast_begins_where_the_mask_does(*, mirrored: bool) -> None:
    mask = np.pad(half_disc(80), ((0, 0), (12, 0)))  # the bright border of a scanned film is no breast
    line = nipple_line(mask[:, ::-1] if mirrored else mask, (1.0, 1.0), 20)
    assert line.depth == pytest.approx(80, abs=1.5)


def test_a_pixel_that_is_higher_than_wide_counts_as_high_as_it_is() -> None:
    tall = half_disc(80)[::2]
    line = nipple_line(tall, (1.0, 2.0), 20)
    assert line.depth == pytest.approx(80, rel=0.03)
    assert line.behind(0, 120) == pytest.approx(80, rel=0.03)


@pytest.mark.parametrize(
    ("aspect", "spacing"), [(2.0, None), (1.0, Spacing(row=0.2, column=0.1, rule=SpacingRule.CALIBRATED))]
)
def test_a_view_with_every_other_row_has_the_same_places(aspect: float, spacing: Spacing | None) -> None:
    whole = an_image(L_MLO)
    half = replace(whole, pixels=whole.pixels[::2], pixel_aspect=aspect, spacing=spacing)
    told = []
    for image, rows in ((whole, 1), (half, 2)):
        line = view_line(image, POLICY)
        mask = np.ones((20 // rows, 20), np.bool_)
        mass = replace(a_mass(0, 0), origin=(100 // rows, 20), mask=mask)
        told += places(image, [mass], line, line.depth)
    assert told[1].depth == pytest.approx(told[0].depth, abs=0.03)
    assert told[1].diameter == pytest.approx(told[0].diameter, rel=0.05)


def test_one_scale_is_the_mean_of_both_depths() -> None:
    cc, mlo = an_image(L_CC, TENTH), an_image(L_MLO, TENTH)
    assert units(cc, mlo, (60.0, 100.0)) == (80.0, 80.0)
    assert units(cc, replace(mlo, spacing=None), (60.0, 100.0)) == (60.0, 100.0)


def test_the_line_of_a_cc_is_level_and_that_of_an_mlo_falls_towards_the_nipple() -> None:
    for view, tilt in ((L_CC, 0), (L_MLO, 20), (R_CC, 0), (R_MLO, 20)):
        line = view_line(an_image(view), POLICY)
        sign = -1 if view.laterality is Laterality.RIGHT else 1
        assert line.direction == pytest.approx((sign * cos(radians(tilt)), sin(radians(tilt))))
    assert view_line(an_image(L_CC, TENTH), POLICY).depth == pytest.approx(7.2, rel=0.05)


def test_a_place_is_told_in_depths_of_the_breast() -> None:
    image = an_image(L_CC)
    line = view_line(image, POLICY)
    (place,) = places(image, [a_mass(36, 80, radius=6, number=4)], line, line.depth)
    assert place.number == 4
    assert place.depth == pytest.approx(0.5, abs=0.03)
    assert place.diameter == pytest.approx(12 / 72, rel=0.06)


@pytest.mark.parametrize(
    ("depth", "diameter", "together"),
    [
        *[(0.5, 0.1, True), (0.69, 0.1, True), (0.71, 0.1, False), (0.31, 0.1, True), (0.29, 0.1, False)],
        *[(0.5, 0.199, True), (0.5, 0.201, False), (0.5, 0.051, True), (0.5, 0.049, False), (0.69, 0.199, True)],
    ],
)
def test_both_tolerances_hold_on_both_sides(depth: float, diameter: float, *, together: bool) -> None:
    assert bool(pair([Place(1, 0.5, 0.1)], [Place(1, depth, diameter)], POLICY)) is together


def test_the_most_alike_are_paired_first_and_each_mass_once() -> None:
    cc = [Place(1, 0.50, 0.1), Place(2, 0.40, 0.1)]
    assert pair(cc, [Place(1, 0.41, 0.1)], POLICY) == [(2, 1)]
    assert pair(cc, [Place(1, 0.41, 0.1), Place(2, 0.35, 0.1)], POLICY) == [(1, 2), (2, 1)]
    assert pair(cc, [Place(7, 0.41, 0.1), Place(5, 0.9, 0.1)], POLICY) == [(2, 7)]
    assert pair([Place(2, 0.5, 0.1), Place(1, 0.5, 0.1)], [Place(1, 0.5, 0.1)], POLICY) == [(1, 1)]


def test_of_two_that_are_equally_alike_the_more_suspicious_is_taken() -> None:
    # 0.4 - 0.3 and 0.3 - 0.2 differ in their last bits.
    assert pair([Place(1, 0.3, 0.1)], [Place(2, 0.2, 0.1), Place(1, 0.4, 0.1)], POLICY) == [(1, 1)]


def test_of_two_at_one_depth_the_one_of_its_size_is_taken() -> None:
    assert pair([Place(1, 0.5, 0.1)], [Place(1, 0.5, 0.19), Place(2, 0.52, 0.1)], POLICY) == [(1, 2)]


def test_masses_at_one_depth_match_and_those_at_others_do_not() -> None:
    cc, mlo = an_image(L_CC), an_image(L_MLO)
    near, deep = a_mass(55, 80), a_mass(15, 80)
    assert matched((cc, [near]), (mlo, [near])) == (Match(Laterality.LEFT, 1, 1),)
    assert matched((cc, [near]), (mlo, [deep])) == ()
    both = [near, replace(deep, number=2)]
    assert matched((cc, both), (mlo, both)) == (Match(Laterality.LEFT, 1, 1), Match(Laterality.LEFT, 2, 2))


def test_only_views_of_one_breast_are_compared() -> None:
    mass = [a_mass(40, 80)]
    right = [a_mass(120 - 40, 80)]
    assert matched((an_image(L_CC), mass), (an_image(R_MLO), right)) == ()
    exam = [(an_image(v), right if v.laterality is Laterality.RIGHT else mass) for v in STANDARD_VIEWS]
    assert matched(*exam) == (Match(Laterality.LEFT, 1, 1), Match(Laterality.RIGHT, 1, 1))


def test_a_view_that_was_not_read_has_no_match() -> None:
    cc, mlo = an_image(L_CC), an_image(L_MLO)
    exam, mass = Exam((cc, mlo)), a_mass(40, 80)
    assert match_masses(exam, [findings(cc, mass)], POLICY) == ()
    assert match_masses(exam, [findings(cc, mass), findings(mlo)], POLICY) == ()
    assert match_masses(Exam((cc,)), [findings(cc, mass)], POLICY) == ()
    assert match_masses(exam, [], POLICY) == ()


def test_millimetres_are_compared_where_both_views_have_them() -> None:
    # The MLO shows twice the tissue behind the nipple. Both masses lie 30 px = 3 mm behind it.
    cc, mlo = an_image(L_CC, TENTH), an_image(L_MLO, TENTH, depth=144)
    masses = [a_mass(42, 80)], [a_mass(114, 80)]
    together = (Match(Laterality.LEFT, 1, 1),)
    assert matched((cc, masses[0]), (mlo, masses[1])) == together
    # In the breast's own depth they are 0.42 and 0.21 deep, and 0.15 and 0.08 wide.
    for first, second in (
        (None, None),
        (TENTH, None),
        (None, TENTH),
        (TENTH, replace(TENTH, rule=SpacingRule.DETECTOR)),
    ):
        views = replace(cc, spacing=first), replace(mlo, spacing=second)
        assert matched((views[0], masses[0]), (views[1], masses[1])) == ()
    # Pixels of different sizes are no obstacle.
    fine = replace(mlo, pixels=a_breast((320, 240)), spacing=Spacing(0.05, 0.05, SpacingRule.CALIBRATED))
    assert matched((cc, masses[0]), (fine, [a_mass(84, 160, radius=10)])) == together
    assert matched((cc, masses[0]), (fine, [a_mass(42, 160, radius=10)])) == ()


@pytest.mark.parametrize("seed", [0, 7, 9, 11])
def test_the_lesions_of_a_phantom_are_matched_with_themselves(seed: int) -> None:
    phantom = phantom_exam(seed, small=True)
    images = [view_image(phantom.image(view), view) for view in STANDARD_VIEWS]
    found, lesions, both = [], {}, set()
    for image in images:
        masses = []
        for number, drawn in enumerate(phantom.masses(image.view), 1):
            x, y, width, height = drawn.box
            mask = drawn.mask[y : y + height, x : x + width]
            masses.append(Mass(number, (y, x), mask, np.zeros((0, 2)), measure(mask, None), 0.9, None, 50))
            lesions[image.view, number] = drawn.lesion
            both.add(drawn.lesion)
        found.append(findings(image, *masses))
    matches = match_masses(Exam(tuple(images)), found, MatchingPolicy())
    for match in matches:
        cc = lesions[View(match.laterality, ViewPosition.CC), match.cc]
        assert cc is lesions[View(match.laterality, ViewPosition.MLO), match.mlo]
    assert len(matches) == len(both)


@pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning")
def test_the_reader_that_ships_tells_its_matches() -> None:
    from ai.models import open_model
    from ai.readers.registry import load_reader

    phantom = synthetic_exam(utc_now())  # its mass is plain in both views
    exam = Exam(tuple(view_image(phantom.image(view), view) for view in STANDARD_VIEWS))
    told = load_reader(open_model(DEFAULT_MODEL), "cpu", threads=1).read(exam)
    assert told.matches
    assert told.matches == match_masses(exam, told.images, MatchingPolicy())
