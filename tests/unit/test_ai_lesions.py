"""Maps to masses: what is found, how large it is, where its outline runs, in which order it is told."""

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ai.breast import Geometry
from ai.exam import Spacing, SpacingRule
from ai.findings import LengthUnit, Mass
from ai.readers.lesions import LesionRule, find_masses, measure, outline, suspicion

CANVAS = (64, 48)
IDENTITY = Geometry(CANVAS, (0, 0, 48, 64), mirrored=False, scale=(1, 1), canvas=CANVAS)
DOUBLE = Geometry((128, 96), (0, 0, 96, 128), mirrored=False, scale=(0.5, 0.5), canvas=CANVAS)

Map = NDArray[np.float32]


def a_map(*discs: tuple[int, int, int, float]) -> Map:
    """Return a map with discs of x, y, radius and value."""
    drawn = np.zeros(CANVAS, np.float32)
    for x, y, radius, value in discs:
        cv2.circle(drawn, (x, y), radius, (value,), -1)
    return drawn


def found(mass: Map, malignant: Map | float = 0.5, geometry: Geometry = IDENTITY, **changes: Any) -> tuple[Mass, ...]:
    """Return what is found; rule, threshold and spacing can be given."""
    settings = {"spacing": None, "rule": LesionRule(), "threshold": 0.3} | changes
    label = np.full(CANVAS, malignant, np.float32) if isinstance(malignant, float) else malignant
    return find_masses(mass, label, geometry, **settings)


def an_ellipse(long: float, short: float, angle: float = 0, size: int = 161) -> NDArray[np.bool_]:
    """Return the pixels whose centres lie in an ellipse; axes in pixels, angle in radians."""
    y, x = np.mgrid[:size, :size] - size // 2
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return np.asarray((2 * along / long) ** 2 + (2 * across / short) ** 2 <= 1)


@pytest.mark.parametrize("angle", [0, 0.4, 1.1, np.pi / 2, 2.5])
def test_an_ellipse_has_its_own_area_and_axes(angle: float) -> None:
    size = measure(an_ellipse(100, 40, angle), None)
    assert size.area == pytest.approx(np.pi * 50 * 20, rel=0.01)
    assert size.long_axis == pytest.approx(100, rel=0.01)
    assert size.short_axis == pytest.approx(40, rel=0.01)
    assert (size.unit, size.rule) == (LengthUnit.PIXEL, None)


def test_unequal_spacings_are_both_used() -> None:
    spacing = Spacing(row=0.2, column=0.1, rule=SpacingRule.MAGNIFICATION)
    wide = measure(an_ellipse(100, 40), spacing)
    assert wide.area == pytest.approx(np.pi * 50 * 20 * 0.02, rel=0.01)
    assert [wide.long_axis, wide.short_axis] == pytest.approx([10, 8], rel=0.01)
    high = measure(an_ellipse(100, 40, np.pi / 2), spacing)
    assert [high.long_axis, high.short_axis] == pytest.approx([20, 4], rel=0.01)
    assert (high.unit, high.rule) == (LengthUnit.MILLIMETRE, SpacingRule.MAGNIFICATION)


def test_one_pixel_is_as_large_as_a_pixel() -> None:
    size = measure(np.ones((1, 1), np.bool_), Spacing(0.3, 0.1, SpacingRule.DETECTOR))
    assert size.area == pytest.approx(0.03)
    # The ellipse with the second moments of a rectangle has 2/√3 of its sides.
    assert size.long_axis == pytest.approx(0.3 * 2 / 3**0.5)
    assert size.short_axis == pytest.approx(0.1 * 2 / 3**0.5)


def test_a_mass_keeps_size_and_place_at_the_resolution_of_the_image() -> None:
    disc = a_map((20, 30, 8, 0.9))
    # Half the peak is where a linear interpolation across a step has the step.
    half = LesionRule(outline=0.5)
    (mass,) = found(disc, rule=half, geometry=DOUBLE, spacing=Spacing(0.1, 0.1, SpacingRule.CALIBRATED))
    x, y, width, height = mass.box
    assert [x + width / 2, y + height / 2] == pytest.approx([41, 61], abs=1)
    assert width == pytest.approx(34, abs=2)
    assert height == pytest.approx(34, abs=2)
    assert mass.size.area == pytest.approx(4 * (disc > 0).sum() * 0.01, rel=0.02)
    assert mass.full_mask((128, 96)).sum() == mass.mask.sum()


def test_masses_are_numbered_by_falling_suspicion() -> None:
    mass = a_map((10, 10, 4, 0.6), (34, 12, 4, 0.95), (20, 50, 4, 0.8))
    malignant = a_map((10, 10, 6, 1), (34, 12, 6, 0.1), (20, 50, 6, 0.5))
    told = found(mass, malignant)
    assert [m.number for m in told] == [1, 2, 3]
    assert [m.suspicion for m in told] == sorted((m.suspicion for m in told), reverse=True)
    assert [m.detection for m in told] == pytest.approx([0.6, 0.8, 0.95])
    assert [m.malignancy for m in told] == pytest.approx([1, 0.5, 0.1], abs=0.02)


def test_equal_masses_have_an_order_of_their_own() -> None:
    told = found(a_map((30, 50, 4, 0.8), (30, 10, 4, 0.8), (8, 10, 4, 0.8)))
    assert [m.origin for m in told] == sorted(m.origin for m in told)


@pytest.mark.parametrize(("detection", "malignancy", "score"), [(0, 1, 0), (1, 1, 100), (0.5, 0.5, 50), (0.9, 0.4, 60)])
def test_suspicion_is_the_geometric_mean_of_detection_and_malignancy(
    detection: float, malignancy: float, score: int
) -> None:
    assert suspicion(detection, malignancy) == score


def test_a_peak_at_the_threshold_is_a_mass_and_one_below_is_none() -> None:
    mass = a_map((12, 12, 5, 0.5), (34, 40, 5, 0.4375))
    assert len(found(mass, threshold=0.5)) == 1
    assert len(found(mass, threshold=0.4375)) == 2
    assert len(found(mass, threshold=0.51)) == 0


def test_two_peaks_in_one_candidate_are_one_mass() -> None:
    touching = np.maximum(a_map((14, 30, 6, 0.9)), a_map((28, 30, 6, 0.4)))
    touching[30, 14:28] = np.maximum(touching[30, 14:28], 0.2)
    (mass,) = found(touching)
    # Outlined at half its peak, the weaker one is left out.
    assert mass.box[0] + mass.box[2] <= 23
    assert len(found(touching, rule=LesionRule(candidate=0.25))) == 2


def test_malignancy_is_that_of_the_core() -> None:
    mass = np.maximum(a_map((24, 30, 12, 0.3)), a_map((24, 30, 6, 0.9)))
    (core,) = found(mass, a_map((24, 30, 6, 0.75)))
    assert core.malignancy == pytest.approx(0.75)


def test_a_spot_below_the_smallest_size_is_noise() -> None:
    spot = np.zeros(CANVAS, np.float32)
    spot[10:14, 10:15] = 0.9
    assert len(found(spot)) == 1
    spot[13, 14] = 0
    assert found(spot) == ()


def test_a_map_without_malignancy_is_as_suspicious_as_it_is_sure() -> None:
    masses = find_masses(a_map((12, 12, 5, 0.6), (34, 40, 5, 0.87)), None, IDENTITY, None, LesionRule(), 0.3)
    assert [m.malignancy for m in masses] == [None, None]
    assert [m.suspicion for m in masses] == [87, 60]
    assert suspicion(0.426, None) == 43


def test_a_rule_without_an_outline_takes_all_of_the_candidate() -> None:
    hill = np.maximum(a_map((24, 30, 12, 0.6)), a_map((24, 30, 4, 0.95)))
    half = LesionRule(0.3, None)  # of the step that the candidate ends with
    for geometry, factor in ((IDENTITY, 1), (DOUBLE, 4)):
        (mass,) = found(hill, rule=half, geometry=geometry)
        assert mass.mask.sum() == pytest.approx(factor * (hill > 0.3).sum(), rel=0.06)
        assert mass.detection == pytest.approx(hill[hill > 0.3].mean())
        (core,) = found(hill, rule=LesionRule(0.3, 0.8), geometry=geometry)
        assert core.mask.sum() < mass.mask.sum() / 4


def test_an_empty_map_has_no_mass() -> None:
    assert found(a_map()) == ()


@pytest.mark.parametrize(
    "geometry",
    [IDENTITY, DOUBLE, Geometry((200, 150), (10, 20, 90, 120), mirrored=True, scale=(0.5, 0.5), canvas=CANVAS)],
)
@pytest.mark.parametrize("corner", [(0, 0), (47, 0), (0, 63), (47, 63)])
def test_a_mass_in_the_corner_stays_within_the_image(geometry: Geometry, corner: tuple[int, int]) -> None:
    columns, rows = geometry.covered
    x, y = min(corner[0], columns - 1), min(corner[1], rows - 1)
    (mass,) = found(a_map((x, y, 7, 0.9)), geometry=geometry)
    left, top, width, height = mass.box
    assert left >= 0
    assert top >= 0
    assert left + width <= geometry.shape[1]
    assert top + height <= geometry.shape[0]
    assert (mass.contour >= 0).all()
    assert (mass.contour <= geometry.shape[::-1]).all()
    expected = geometry.points_to_image(np.array([[x + 0.5, y + 0.5]]))[0]
    assert np.abs([left + width / 2, top + height / 2] - expected).max() <= 7 / min(geometry.scale)


@pytest.mark.parametrize(
    "narrow",
    [Geometry((128, 40), (0, 0, 40, 128), mirrored, (0.5, 0.5), CANVAS) for mirrored in (False, True)],
    ids=["left", "mirrored"],
)
def test_what_the_network_sees_beside_the_breast_is_no_mass(narrow: Geometry) -> None:
    assert narrow.covered == (20, 64)
    assert found(a_map((36, 30, 8, 0.9)), geometry=narrow) == ()
    (mass,) = found(a_map((19, 30, 8, 0.9)), geometry=narrow)
    assert mass.box[0] >= 0
    assert mass.box[0] + mass.box[2] <= 40


def test_a_film_smaller_than_the_canvas_is_read_too() -> None:
    magnified = Geometry((16, 12), (0, 0, 12, 16), mirrored=False, scale=(4, 4), canvas=CANVAS)
    (mass,) = found(a_map((24, 32, 8, 0.9)), geometry=magnified)
    assert mass.box == (4, 6, 4, 4)
    for x in range(10, 38):
        for found_mass in found(a_map((x, 32, 3, 0.9)), geometry=magnified):
            assert found_mass.mask.sum() <= 4
            assert abs(found_mass.box[0] + found_mass.box[2] / 2 - (x + 0.5) / 4) <= 1


def test_the_mask_fits_its_box_exactly() -> None:
    for mass in found(a_map((10, 10, 4, 0.6), (34, 40, 7, 0.95)), geometry=DOUBLE):
        assert mass.mask.any(0).all()
        assert mass.mask.any(1).all()


def distances_to_polygon(points: NDArray[np.float64], contour: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance of each point to a closed polygon's nearest edge."""
    a, b = contour[:-1][None], contour[1:][None]
    along = ((points[:, None] - a) * (b - a)).sum(2) / np.maximum(((b - a) ** 2).sum(2), 1e-12)
    nearest = a + along.clip(0, 1)[..., None] * (b - a)
    return np.asarray(np.linalg.norm(points[:, None] - nearest, axis=2).min(1))


def boundary(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the centres, x and y, of the mask's pixels that have a pixel outside beside them."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(np.argwhere(mask & ~inner)[:, ::-1] + 0.5, np.float64)


@st.composite
def blobs(draw: st.DrawFn) -> NDArray[np.bool_]:
    """Draw one component without holes: smoothed noise, from a few pixels to all of a small picture."""
    rows, columns = draw(st.integers(1, 30)), draw(st.integers(1, 30))
    noise = np.random.default_rng(draw(st.integers(0, 2**32))).random((rows, columns)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), draw(st.floats(0.3, 4)))
    mask = (smooth >= np.quantile(smooth, draw(st.floats(0, 0.95)))).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    label = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    edges, _ = cv2.findContours((labels == label).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros_like(mask)
    cv2.drawContours(filled, edges, -1, (1,), cv2.FILLED)
    return np.asarray(filled > 0)


def check_outline(mask: NDArray[np.bool_]) -> None:
    origin = (100, 200)
    contour = outline(mask, origin) - [200, 100]
    assert len(contour) >= 4
    assert (contour[0] == contour[-1]).all()
    centres = boundary(mask)
    assert distances_to_polygon(centres, contour).max() <= 1
    vertices = np.linalg.norm(contour[:, None] - centres[None], axis=2).min(1)
    assert vertices.max() <= 1


@given(blobs())
def test_the_outline_runs_within_one_pixel_of_the_boundary(mask: NDArray[np.bool_]) -> None:
    check_outline(mask)


@pytest.mark.parametrize(
    "mask",
    [np.ones((1, 1)), np.ones((1, 9)), np.ones((9, 1)), np.ones((2, 2)), np.eye(9), np.tri(2), np.fliplr(np.eye(9))],
    ids=["pixel", "row", "column", "square", "diagonal", "corner", "other diagonal"],
)
def test_the_outline_of_a_thin_mask_is_a_region_too(mask: NDArray[np.float64]) -> None:
    check_outline(mask > 0)
    contour = outline(mask > 0, (0, 0))
    x, y = contour[:-1].T
    if mask.shape != (2, 2) or mask.all():
        assert abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2 > 0


def test_a_disc_has_its_own_outline() -> None:
    (mass,) = found(a_map((24, 30, 12, 0.9)))
    radii = np.linalg.norm(mass.contour - [24.5, 30.5], axis=1)
    assert (np.abs(radii - 12) <= 1).all()
    assert np.ptp(mass.contour[:, 1]) == pytest.approx(24, abs=1)


def test_detection_is_the_mean_within_the_outline_and_not_the_peak() -> None:
    disc = a_map((20, 30, 8, 0.6))
    disc[30, 20] = 0.9
    (mass,) = found(disc, rule=LesionRule(outline=0.5), threshold=0.0)
    inside = disc >= 0.45
    assert mass.detection == pytest.approx(disc[inside].mean())
    assert found(disc, rule=LesionRule(outline=0.5), threshold=0.7) == ()
