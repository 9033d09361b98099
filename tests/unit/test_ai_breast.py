"""The breast is found, turned and fitted, and what shows no breast is refused."""

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from ai.breast import breast_geometry, breast_mask, prepare
from ai.errors import NoBreast
from ai.exam import STANDARD_VIEWS, Laterality, View, ViewImage
from ai.pixels import view_image
from node.phantom import PhantomExam, phantom_exam
from tests.builders import L_CC, R_CC
from tests.drawn import SHAPE, a_breast

SEEDS = (1, 2)
CANVAS = (64, 64)


@cache
def a_phantom(seed: int) -> PhantomExam:
    return phantom_exam(seed, small=True)


@cache
def a_view(seed: int, view: View) -> ViewImage:
    return view_image(a_phantom(seed).image(view), view)


def an_image(pixels: NDArray[np.float32], view: View = L_CC, aspect: float = 1.0) -> ViewImage:
    return ViewImage("1.2.3", view, pixels, None, aspect)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("view", STANDARD_VIEWS, ids=str)
def test_the_crop_of_a_phantom_contains_its_masses_and_its_bright_tissue(seed: int, view: View) -> None:
    image = a_view(seed, view)
    x, y, width, height = breast_geometry(image, breast_mask(image.pixels), CANVAS).crop
    for mass in a_phantom(seed).masses(view):
        left, top, across, down = mass.box
        assert x <= left
        assert y <= top
        assert left + across <= x + width
        assert top + down <= y + height
    bright = image.pixels > 0.25
    assert bright[y : y + height, x : x + width].sum() > 0.98 * bright.sum()
    assert width * height < 0.8 * image.pixels.size


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("view", STANDARD_VIEWS, ids=str)
def test_the_chest_wall_is_left_on_the_canvas_and_right_breasts_are_mirrored(seed: int, view: View) -> None:
    image = a_view(seed, view)
    prepared = prepare(image, CANVAS)
    assert prepared.geometry.mirrored is (view.laterality is Laterality.RIGHT)
    columns, rows = prepared.geometry.covered
    brightness = prepared.pixels[:rows, :columns].mean(0)
    assert brightness[: columns // 3].mean() > brightness[-columns // 3 :].mean()


def test_the_side_comes_from_the_picture_and_not_from_the_header() -> None:
    assert prepare(an_image(a_breast(right=True), L_CC), CANVAS).geometry.mirrored
    assert not prepare(an_image(a_breast(), R_CC), CANVAS).geometry.mirrored


def test_a_mirrored_image_looks_the_same_on_the_canvas() -> None:
    left = prepare(an_image(a_breast(mass=(30, 80, 9))), CANVAS)
    right = prepare(an_image(a_breast(right=True, mass=(30, 80, 9))), CANVAS)
    np.testing.assert_allclose(left.pixels, right.pixels, atol=0.02)


def test_the_drawn_breast_is_cropped_with_a_small_margin() -> None:
    pixels = a_breast()
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    x, y, width, height = prepare(an_image(pixels), CANVAS).geometry.crop
    assert x == 0
    assert 0 <= rows[0] - y <= 10
    assert 0 <= y + height - rows[-1] <= 11
    assert 0 <= x + width - columns[-1] <= 11


def test_bright_film_borders_and_a_label_are_not_the_breast() -> None:
    pixels = a_breast((320, 240))
    pixels[:3], pixels[-3:], pixels[:, -3:] = 1, 1, 1
    pixels[20:40, 190:230] = 1
    x, _, width, _ = prepare(an_image(pixels), CANVAS).geometry.crop
    assert x + width < 190


def test_a_hole_in_the_breast_belongs_to_it() -> None:
    pixels = a_breast()
    pixels[70:90, 20:40] = 0
    assert breast_mask(pixels)[75:85, 25:35].all()


def test_the_canvas_is_from_minus_one_to_one_and_black_beside_the_crop() -> None:
    prepared = prepare(a_view(1, L_CC), (64, 96))
    assert prepared.pixels.shape == (64, 96)
    assert prepared.pixels.dtype == np.float32
    columns, rows = prepared.geometry.covered
    assert columns < 96
    assert (prepared.pixels[:, columns:] == -1).all()
    assert (prepared.pixels[rows:] == -1).all()
    assert prepared.pixels.min() == -1
    assert prepared.pixels.max() == 1


def test_exposure_does_not_change_what_the_network_sees() -> None:
    image = a_view(1, L_CC)
    darker = an_image((0.5 * image.pixels).astype(np.float32))
    ordinary = prepare(image, CANVAS)
    changed = prepare(darker, CANVAS)
    assert np.abs(ordinary.pixels - changed.pixels).mean() < 0.05


def test_a_squeezed_film_gets_its_height_back() -> None:
    tall = prepare(an_image(a_breast((240, 120))), (96, 96))
    squeezed = prepare(an_image(a_breast((120, 120)), aspect=2.0), (96, 96))
    assert np.abs(tall.pixels - squeezed.pixels).mean() < 0.1
    assert squeezed.geometry.scale[1] == pytest.approx(2 * squeezed.geometry.scale[0])


def stars() -> NDArray[np.float32]:
    return (np.random.default_rng(0).random(SHAPE) > 0.995).astype(np.float32)


@pytest.mark.parametrize(
    "pixels",
    [
        pytest.param(np.zeros(SHAPE, np.float32), id="black"),
        pytest.param(stars(), id="single bright pixels on black"),
        pytest.param(a_breast((400, 400))[:, 239:], id="a sliver"),
        pytest.param(np.ones((1, 1), np.float32), id="one pixel"),
        pytest.param(np.ones((3000, 2), np.float32), id="two columns"),
        pytest.param(np.ones((1, 5000), np.float32), id="one row"),
    ],
)
def test_what_shows_no_breast_is_refused_by_its_uid(pixels: NDArray[np.float32]) -> None:
    with pytest.raises(NoBreast, match="mammogram") as refused:
        prepare(an_image(pixels), CANVAS)
    assert refused.value.image_uid == "1.2.3"
