"""Boxes to masses: which cells tell one, which boxes are the same mass, and which outline fits."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ai.breast import Geometry
from ai.findings import Mass
from ai.readers.centres import CentreMaps, CentreRule, boxed_masses, candidates, overlap

CANVAS = (128, 96)
STRIDE = 4
IDENTITY = Geometry(CANVAS, (0, 0, 96, 128), mirrored=False, scale=(1, 1), canvas=CANVAS)
MIRRORED_DOUBLE = Geometry((256, 192), (0, 0, 192, 256), mirrored=True, scale=(0.5, 0.5), canvas=CANVAS)
HALF_COVERED = Geometry((128, 48), (0, 0, 48, 128), mirrored=False, scale=(1, 1), canvas=CANVAS)

Box = tuple[float, float, float, float]


def maps(*told: tuple[Box, float], mass: NDArray[np.float32] | None = None) -> CentreMaps:
    """Return what a perfect network says of boxes with these scores; without ``mass``, ellipses in the boxes."""
    rows, columns = CANVAS[0] // STRIDE, CANVAS[1] // STRIDE
    y, x = (np.mgrid[:rows, :columns] + 0.5) * STRIDE
    heat, distances = np.zeros((rows, columns)), np.ones((4, rows, columns))
    drawn = np.zeros(CANVAS, np.float32)
    for (x1, y1, x2, y2), score in told:
        away = ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2
        one = score * np.exp(-4.5 * away)
        row, column = int((y1 + y2) / 2) // STRIDE, int((x1 + x2) / 2) // STRIDE
        if row < rows and column < columns:
            one[row, column] = score
        sides = np.stack([x - x1, y - y1, x2 - x, y2 - y])
        distances = np.where(one > heat, sides, distances)
        heat = np.maximum(heat, one)
        middle, size = ((x1 + x2) / 2 - 0.5, (y1 + y2) / 2 - 0.5), (x2 - x1, y2 - y1)
        cv2.ellipse(drawn, (middle, size, 0.0), 0.9, cv2.FILLED)
    return CentreMaps(
        drawn if mass is None else mass,
        np.full(CANVAS, 0.25, np.float32),
        heat.astype(np.float32),
        distances.astype(np.float32),
        STRIDE,
    )


def masses_of(
    told: CentreMaps, geometry: Geometry, spacing: None, rule: CentreRule, threshold: float
) -> tuple[Mass, ...]:
    return boxed_masses(told, candidates(told, rule), geometry, spacing, rule, threshold)


boxes = st.tuples(st.floats(12, 60), st.floats(12, 90), st.floats(10, 30), st.floats(10, 30)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@given(boxes)
def test_a_mass_has_the_box_that_the_network_tells(box: Box) -> None:
    (found,) = candidates(maps((box, 0.8)), CentreRule())
    np.testing.assert_allclose(found.box, box, atol=1e-3)
    (mass,) = masses_of(maps((box, 0.8)), IDENTITY, None, CentreRule(), 0.1)
    x, y, width, height = mass.box
    assert overlap((x, y, x + width, y + height), box) > 0.65  # of 10 pixels by whole ones
    assert mass.detection == pytest.approx(found.score)
    assert mass.malignancy == pytest.approx(0.25)


def test_on_the_image_it_lies_where_the_canvas_lies() -> None:
    (mass,) = masses_of(maps(((20, 40, 44, 60), 0.8)), MIRRORED_DOUBLE, None, CentreRule(), 0.1)
    x, y, width, height = mass.box
    assert (x, y, x + width, y + height) == pytest.approx((192 - 88, 80, 192 - 40, 120), abs=3)


def test_two_masses_stay_two_and_the_same_one_is_told_once() -> None:
    apart = maps(((10, 10, 30, 30), 0.9), ((60, 80, 84, 110), 0.5))
    assert [round(c.score, 1) for c in candidates(apart, CentreRule())] == [0.9, 0.5]
    twice = maps(((10, 10, 40, 40), 0.9), ((20, 14, 50, 44), 0.8))
    assert len(candidates(twice, CentreRule())) == 1
    assert len(candidates(twice, CentreRule(overlap=0.9))) == 2


def test_weak_centres_and_too_many_are_left_out() -> None:
    told = maps(((10, 10, 30, 30), 0.9), ((60, 80, 84, 110), 0.5))
    assert len(candidates(told, CentreRule(candidate=0.6))) == 1
    assert len(candidates(told, CentreRule(most=1))) == 1
    assert len(masses_of(told, IDENTITY, None, CentreRule(), 0.6)) == 1
    assert masses_of(told, IDENTITY, None, CentreRule(), 0.95) == ()
    assert candidates(maps(), CentreRule()) == []


def test_what_lies_beside_the_crop_is_no_mass() -> None:
    told = maps(((10, 10, 30, 30), 0.9), ((60, 80, 84, 110), 0.5))
    (mass,) = masses_of(told, HALF_COVERED, None, CentreRule(), 0.1)
    assert mass.origin[0] < 32


def test_the_outline_is_that_of_the_level_that_fits_the_box() -> None:
    # A hill that is broader than the box at low levels and smaller at high ones.
    y, x = np.mgrid[: CANVAS[0], : CANVAS[1]] + 0.5
    hill = (0.9 * np.exp(-(((x - 40) / 14) ** 2) - ((y - 60) / 14) ** 2)).astype(np.float32)
    for side in (12, 16, 20):
        box = (40 - side / 2, 60 - side / 2, 40 + side / 2, 60 + side / 2)
        (mass,) = masses_of(maps((box, 0.8), mass=hill), IDENTITY, None, CentreRule(), 0.1)
        assert mass.box[2:] == pytest.approx((side, side), abs=2)


@pytest.mark.parametrize("level", [0, 0.7])
def test_without_a_map_that_fits_the_ellipse_stands_for_the_mass(level: float) -> None:
    box = (20.0, 40.0, 44.0, 60.0)
    flat = maps((box, 0.8), mass=np.full(CANVAS, level, np.float32))
    (mass,) = masses_of(flat, IDENTITY, None, CentreRule(), 0.1)
    assert mass.size.area == pytest.approx(np.pi * 12 * 10, rel=0.05)
    assert mass.box == pytest.approx((20, 40, 24, 20), abs=1)


@pytest.mark.parametrize("box", [(-20.0, 40.0, 10.0, 60.0), (90.0, 120.0, 140.0, 150.0), (50.0, 50.0, 50.5, 50.5)])
def test_a_box_over_the_edge_or_next_to_nothing_breaks_nothing(box: Box) -> None:
    for mass in masses_of(maps((box, 0.8)), IDENTITY, None, CentreRule(), 0.0):
        x, y, width, height = mass.box
        assert mass.mask.any()
        assert 0 <= x < x + width <= 96
        assert 0 <= y < y + height <= 128


@pytest.mark.parametrize("cell", [(0, 0), (0, 23), (31, 0), (31, 23)])
def test_a_centre_in_a_corner_cell_tells_its_box(cell: tuple[int, int]) -> None:
    y, x = ((side + 0.5) * STRIDE for side in cell)
    (found,) = candidates(maps(((x - 6, y - 6, x + 6, y + 6), 0.8)), CentreRule())
    np.testing.assert_allclose(found.box, (x - 6, y - 6, x + 6, y + 6), atol=1e-3)
