"""What phantoms promise: truth within the breast, one body in both views, the spectrum and the AUC that they state."""

from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ai.exam import STANDARD_VIEWS, Laterality, ViewPosition
from ai.phantom import tissue
from ai.phantom.anatomy import FIELD_HEIGHT, Anatomy
from ai.phantom.difficulty import contrast_to_noise, detectability, laguerre_gauss, spectral_slope
from ai.phantom.distractors import Distractor
from ai.phantom.exam import Woman
from ai.phantom.grid import Grid, power_law
from ai.phantom.lesions import NIPPLE_DISTANCE, Kind, Lesion, Shape
from ai.phantom.malignancy import bayes_auc, expected_auc
from ai.phantom.margins import RADII, Margin
from ai.phantom.render import FAT, Breast, detect, expose, model_breast, render
from ai.phantom.truth import PhantomView
from ai.phantom.vendors import SMALL_GRID, VENDORS, Vendor

SEED = 4
OBSERVED = Grid(1150, 920, 0.2)
"""The whole field in pixels that are fine enough for skin, ligaments and the spectrum."""


@cache
def views(vendor: str = "a") -> tuple[PhantomView, ...]:
    return tuple(Woman.draw(SEED).views(VENDORS[vendor].small))


@given(
    seed=st.integers(0, 10**6),
    point=st.tuples(st.floats(0, 1), st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)),
    radius=st.floats(2, RADII[1]),
    margin=st.sampled_from(Margin),
    position=st.sampled_from(ViewPosition),
)
@settings(max_examples=60, deadline=None)
def test_a_mass_lies_within_the_breast_and_beside_the_muscle_wherever_it_is_put(
    seed: int, point: tuple[float, float, float], radius: float, margin: Margin, position: ViewPosition
) -> None:
    anatomy = Anatomy.draw(np.random.default_rng(seed))
    lesion = Lesion(Laterality.LEFT, *point, radius=radius, irregularity=0, margin=margin)
    centre = anatomy.place(point, radius, position, SMALL_GRID.height)
    mask = Shape.draw(lesion, position, np.random.default_rng(seed)).mask(centre, SMALL_GRID)
    assert mask.sum() * SMALL_GRID.spacing**2 == pytest.approx(np.pi * radius**2, rel=0.1)
    rows, columns = np.nonzero(mask)
    y, x = ((each.astype(np.float32) + 0.5) * np.float32(SMALL_GRID.spacing) for each in (rows, columns))
    assert (x < anatomy.outline(position, y, SMALL_GRID.height)).all()
    if position is ViewPosition.MLO:
        assert (x > anatomy.muscle(y)).all()


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_a_drawn_lesion_is_as_far_from_the_nipple_in_both_views(seed: int) -> None:
    woman = Woman.draw(seed)
    assert 1 <= len(woman.lesions) <= 3
    for lesion in woman.lesions:
        cc, mlo = woman.anatomy.nipple_distances(lesion.point, lesion.radius, FIELD_HEIGHT)
        assert abs(cc - mlo) <= NIPPLE_DISTANCE


def test_the_truth_tells_that_distance() -> None:
    spacing = SMALL_GRID.spacing
    told = [view.as_json(spacing, Woman.draw(SEED).lesions) for view in views()]
    by_lesion: dict[int, list[float]] = {}
    for view in told:
        for mass in view["masses"]:
            by_lesion.setdefault(mass["lesion"], []).append(mass["nipple_distance_mm"])
    assert by_lesion
    for cc, mlo in by_lesion.values():
        assert abs(cc - mlo) <= NIPPLE_DISTANCE + 0.5


@pytest.mark.parametrize("margin", Margin)
def test_both_views_show_one_body(margin: Margin) -> None:
    lesion = Lesion(Laterality.LEFT, 0.5, 0, 0, radius=10, irregularity=0.2, margin=margin)
    cc, mlo = (Shape.draw(lesion, position, np.random.default_rng(1)) for position in ViewPosition)
    centre = (115.0, 60.0)
    masks = [shape.mask(centre, SMALL_GRID) for shape in (cc, mlo)]
    areas = [mask.sum() for mask in masks]
    assert max(areas) / min(areas) < 1.5
    assert (cc.spicules[:, 1] == mlo.spicules[:, 1]).all()
    assert bool(len(cc.spicules)) is (margin is Margin.SPICULATED)
    assert not np.array_equal(masks[0], masks[1])


def test_equal_seeds_give_equal_pixels_and_other_vendors_other_ones() -> None:
    again = next(Woman.draw(SEED).views(VENDORS["a"].small))
    assert np.array_equal(again.pixels, views()[0].pixels)
    assert np.array_equal(again.raw, views()[0].raw)
    for vendor in ("b", "c"):
        other = next(Woman.draw(SEED).views(VENDORS[vendor].small))
        assert not np.array_equal(other.pixels, views()[0].pixels)
        assert np.array_equal(other.masses[0].mask, views()[0].masses[0].mask) if other.masses else True
        assert other.pixels.max() < 1 << VENDORS[vendor].bits


def test_the_exposure_is_large_where_the_picture_is_dark() -> None:
    for view in views():
        inside = view.pixels > 0
        assert np.corrcoef(view.raw[inside], view.pixels[inside])[0, 1] < -0.5
        assert view.raw[~inside].mean() > view.raw[inside].mean()


def test_marks_are_told_where_they_are_seen() -> None:
    kinds = {mark.kind for seed in range(12) for mark in _marks(seed)}
    assert kinds == {Kind.CALCIFICATIONS, Kind.NODE, Kind.CYST, Kind.SUMMATION}
    for view in views():
        rows, columns = view.pixels.shape
        for mark in view.marks:
            assert 0 <= mark.centre[0] < rows
            assert 0 <= mark.centre[1] < columns
            assert mark.kind is not Kind.NODE or view.view.position is ViewPosition.MLO


def _marks(seed: int) -> tuple[Distractor, ...]:
    return Woman.draw(seed).distractors


@pytest.mark.parametrize("beta", [2.0, 3.0])
def test_the_slope_of_known_noise_is_measured(beta: float) -> None:
    grid = Grid(600, 600, 0.2)
    noise = power_law(grid, beta, np.random.default_rng(1))
    assert spectral_slope(noise, np.ones(noise.shape, np.bool_), grid.spacing) == pytest.approx(beta, abs=0.15)


def test_the_tissue_has_the_spectrum_of_breasts() -> None:
    grid, slopes = OBSERVED, []
    for seed in range(4):
        breast = model_breast(STANDARD_VIEWS[1], Woman.draw(seed).anatomy, (), grid, np.random.default_rng(seed))
        slopes.append(spectral_slope(breast.attenuation, breast.slab.from_skin > 3, grid.spacing))
    assert 2.7 < np.mean(slopes) < 3.2


@pytest.mark.parametrize("vendor", VENDORS.values(), ids=list(VENDORS))
def test_the_picture_keeps_that_spectrum(vendor: Vendor) -> None:
    # Pixels of 0.2 mm, which blur it a little: the detectors' own have 2.8 to 3.0 (docs/phantoms.md).
    vendor, slopes = replace(vendor, grid=OBSERVED), []
    for seed in range(2):
        anatomy, view = Woman.draw(seed).anatomy, STANDARD_VIEWS[1]
        slab = model_breast(view, anatomy, (), OBSERVED, np.random.default_rng((seed, 2))).slab
        shown = render(view, anatomy, (), (), vendor, (seed, 2)).pixels.astype(np.float32)
        slopes.append(spectral_slope(shown, slab.from_skin > 3, OBSERVED.spacing))
    assert 2.65 < np.mean(slopes) < 3.15


def test_the_makes_have_the_pixels_that_are_stated() -> None:
    assert {name: vendor.grid.spacing for name, vendor in VENDORS.items()} == {"a": 0.1, "b": 0.07, "c": 0.05}
    for vendor in VENDORS.values():
        assert vendor.grid.height == pytest.approx(FIELD_HEIGHT, abs=7)


def test_b_has_the_least_noise_and_c_the_most() -> None:
    noise = {}
    for name, vendor in VENDORS.items():
        side = round(1 / vendor.grid.spacing)  # pixels of about a square millimetre
        flat = np.ones((30 * side, 30 * side), np.float32)
        drawn = np.random.default_rng(5).standard_normal(flat.shape, np.float32)
        squares = detect(flat, drawn, vendor).reshape(30, side, 30, side).mean((1, 3))
        noise[name] = float(squares.std())
        assert noise[name] == pytest.approx(vendor.photons**-0.5, rel=0.15)  # the quanta's, nearly: Poisson
    assert noise["b"] < noise["a"] < noise["c"]


def test_b_is_the_sharpest_and_c_the_softest() -> None:
    grid, blur, anatomy = Grid(100, 400, 0.02), {}, Woman.draw(SEED).anatomy
    edge = np.full((100, 400), 2.0, np.float32)
    edge[:, 200:] = 2.5
    slab = model_breast(STANDARD_VIEWS[1], anatomy, (), grid, np.random.default_rng(0)).slab
    behind = np.exp(FAT * anatomy.thickness - np.array([2.0, 2.5]))
    for name, vendor in VENDORS.items():
        exposed = expose(Breast(grid, slab, edge, edge, ()), edge, vendor, anatomy)
        steepest = np.abs(np.diff(exposed[50])).max() / grid.spacing
        # An edge that is blurred by a Gaussian is as steep in its middle as that is high.
        blur[name] = (behind[0] - behind[1]) / (steepest * np.sqrt(2 * np.pi))
        assert blur[name] == pytest.approx(vendor.blur, rel=0.05)
    assert blur["b"] < blur["a"] < blur["c"]


@pytest.mark.parametrize("margin", Margin)
def test_a_mass_of_more_conspicuity_has_more_contrast(margin: Margin) -> None:
    anatomy, ratios = Woman.draw(SEED).anatomy, []
    for conspicuity in (0.2, 0.6, 1.0, 1.6):
        lesion = Lesion(Laterality.LEFT, 0.5, 0.1, 0.1, 8.0, 0.1, margin, conspicuity)
        picture = render(STANDARD_VIEWS[1], anatomy, (lesion,), (), VENDORS["a"].small, (SEED, 2))
        shown = picture.pixels.astype(np.float32)
        ratios.append(contrast_to_noise(shown, picture.masks[0], shown > 0, SMALL_GRID.spacing))
    assert np.diff(ratios).min() > 0.1


def test_an_indistinct_margin_is_soft_all_round_and_an_obscured_one_hidden_on_one_side() -> None:
    inside, beyond = {}, {}
    for margin in Margin:
        inside[margin], beyond[margin] = _around(margin)
    sharp, obscured, indistinct = Margin.CIRCUMSCRIBED, Margin.OBSCURED, Margin.INDISTINCT
    assert beyond[sharp].max() < 0.01  # mm of the beam's path
    assert beyond[indistinct].min() > 0.5
    assert np.ptp(inside[indistinct]) < 0.1
    plain = inside[obscured] > 0.95 * inside[sharp]
    hidden = inside[obscured] < 0.75 * inside[sharp]
    assert plain.sum() >= 4
    assert hidden.sum() >= 2
    assert beyond[obscured][plain].max() < 0.05


def _around(margin: Margin) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the path through a round mass just within its outline, and just beyond it, in twelve directions."""
    lesion = Lesion(Laterality.LEFT, 0.5, 0, 0, radius=8, irregularity=0, margin=margin)
    shape, grid, centre = Shape.draw(lesion, ViewPosition.CC, np.random.default_rng(1)), Grid(500, 500, 0.1), (25.0, 25)
    _, path = shape.path(centre, grid)
    _, away, angle = shape.distance(centre, grid)
    sector = ((angle + np.pi) / (2 * np.pi) * 12).astype(int).clip(0, 11)
    rings = ((away > 0.6) & (away < 0.9), (away > 1.05) & (away < 1.15))
    within, outside = (np.array([path[ring & (sector == k)].mean() for k in range(12)], float) for ring in rings)
    return within, outside


def test_skin_attenuates_more_than_the_fat_behind_it_and_is_seen_as_a_line() -> None:
    anatomy, view = Woman.draw(SEED).anatomy, STANDARD_VIEWS[1]
    breast = model_breast(view, anatomy, (), OBSERVED, np.random.default_rng((SEED, 2)))
    shown = render(view, anatomy, (), (), replace(VENDORS["b"], grid=OBSERVED), (SEED, 2)).pixels
    skin, behind = ((breast.slab.from_skin > low) & (breast.slab.from_skin < high) for low, high in ((0.3, 1), (2, 4)))
    per_mm = breast.attenuation / np.maximum(breast.slab.thickness, 0.1)
    assert per_mm[skin].mean() > 1.2 * per_mm[behind].mean()
    assert shown[skin].mean() > 1.05 * shown[behind].mean()


def test_ducts_begin_behind_the_nipple_and_are_no_straight_lines() -> None:
    anatomy, position = Woman.draw(SEED).anatomy, ViewPosition.CC
    walks = tissue.ducts(anatomy, position, SMALL_GRID, np.random.default_rng(1))
    nipple = np.array(anatomy.nipple(position, SMALL_GRID.height))
    starts = np.array([np.hypot(*(walk.points[0] - nipple)) for walk in walks])
    assert (starts < 8).sum() >= 5
    assert max(float(np.hypot(*(walk.points[-1] - nipple))) for walk in walks) > 30
    ways = [np.hypot(*np.diff(walk.points, axis=0).T).sum() for walk in walks]
    straight = [np.hypot(*(walk.points[-1] - walk.points[0])) for walk in walks]
    assert np.median(np.divide(straight, ways)) < 0.9995
    assert all(walk.widths[-1] < walk.widths[0] for walk in walks)
    drawn = tissue.traced(walks, SMALL_GRID) > 0.2
    assert 0.002 < drawn.mean() < 0.1


def test_ligaments_are_thin_lines_and_none_are_in_the_skin(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    slab = model_breast(STANDARD_VIEWS[1], Woman.draw(SEED).anatomy, (), OBSERVED, rng).slab
    fan, fat = (
        tissue.Fan.of(Woman.draw(SEED).anatomy, ViewPosition.CC, OBSERVED),
        np.zeros(slab.inside.shape, np.float32),
    )
    # Without the fibres between them, which are rough noise, and as if all of them were as thick.
    monkeypatch.setattr(tissue, "power_law", lambda grid, *_, **__: np.zeros((grid.rows, grid.columns), np.float32))
    path = tissue.strands(fat, slab, fan, rng)
    lines = path > 0.2  # mm
    assert 0.02 < lines[slab.from_skin > 6].mean() < 0.3
    assert not lines[slab.from_skin < 0.6].any()
    # Rubbed off by half a millimetre on each side nearly nothing is left of them.
    left = cv2.erode(lines.astype(np.uint8), np.ones((5, 5), np.uint8)).sum()
    assert left < 0.1 * lines.sum()


def test_the_best_auc_is_that_of_all_pairs() -> None:
    chances = np.array([0.1, 0.4, 0.7, 0.95])
    won, pairs = 0.0, 0.0
    for i, mine in enumerate(chances):
        for j, other in enumerate(chances):
            if i != j:
                weight = mine * (1 - other)  # i malignant, j benign
                pairs += weight
                won += weight * (mine > other)
    assert expected_auc(chances) == pytest.approx(won / pairs)
    assert 0.85 < bayes_auc() < 0.9


def test_drawn_labels_have_the_auc_that_is_stated() -> None:
    lesions = [lesion for seed in range(300) for lesion in Woman.draw(seed).lesions]
    chances = np.array([lesion.malignancy for lesion in lesions])
    malignant = np.array([lesion.malignant for lesion in lesions])
    higher = chances[malignant][:, None] > chances[~malignant][None, :]
    assert higher.mean() == pytest.approx(bayes_auc(), abs=0.04)


def test_the_observer_sees_a_signal_of_known_strength() -> None:
    rng = np.random.default_rng(2)
    channels = laguerre_gauss(31, 14, count=6).reshape(6, -1)
    signal = 0.4 * channels[0] / np.linalg.norm(channels[0])
    noise = 0.2 * rng.standard_normal((2, 1500, 31 * 31))
    present, absent = (list(part @ channels.T) for part in (noise[0] + signal, noise[1]))
    # White noise and a signal in the span of the channels: d' is the signal's norm over the noise's deviation.
    assert detectability(present, absent) == pytest.approx(2.0, abs=0.15)
    assert abs(detectability(absent[::2], absent[1::2])) < 0.2


def test_contrast_to_noise_is_that_of_the_ring() -> None:
    y, x = np.indices((200, 200))
    away = np.hypot(y - 100, x - 100)
    image = np.random.default_rng(3).normal(0, 2, (200, 200)).astype(np.float32)
    image[away < 30] += 6
    assert contrast_to_noise(image, away < 30, np.ones(image.shape, np.bool_), 1.0) == pytest.approx(3, rel=0.1)
