"""The papers' random changes: their ranges to the number, and what each does to image and mask."""

from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ai.training.seed_augmentation import (
    AGARWAL,
    MADSEN_DETECTION,
    MADSEN_SEGMENTATION,
    MODERATE,
    SPIE,
    TABLES,
    THESIS,
    AugmentationTable,
    Change,
)

NOTHING = AugmentationTable()


def an_image(rows: int = 64, columns: int = 48) -> NDArray[np.float32]:
    return np.random.default_rng(5).uniform(0.2, 0.8, (rows, columns)).astype(np.float32)


def a_mask(rows: int = 64, columns: int = 48) -> NDArray[np.float32]:
    mask = np.zeros((rows, columns), np.float32)
    mask[10:30, 20:44] = 1
    return mask


def changed(change: Change, table: AugmentationTable = NOTHING) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return table.apply(change, an_image(), a_mask(), np.random.default_rng(1))


def test_the_thesis_table_is_this() -> None:
    assert asdict(THESIS) == {
        "crop": 448,
        "probability": 0.5,
        "mirror": True,
        "flip": False,
        "rotation": (-5, 5),
        "scale": (0.7, 1.3),
        "shear": (-0.5, 0.5),
        "shift": (-50, 50),
        "cutout": 0.1,
        "gamma": (0.5, 1.8),
        "brightness": (30 / 255, 100 / 255),
        "contrast": (0.7, 1.3),
        "salt_and_pepper": (0, 0.1),
        "noise": (0, 0.5),
        "quantum_noise": None,
        "blur_sigma": (1, 10),
        "blur_kernels": (3, 7, 11),
        "median_kernels": (3, 7, 11),
    }


def test_the_spie_table_differs_from_it_in_these() -> None:
    differing = {
        f.name: getattr(SPIE, f.name) for f in fields(SPIE) if getattr(SPIE, f.name) != getattr(THESIS, f.name)
    }
    assert differing == {"rotation": (-3, 3), "shear": None, "cutout": 0.2, "blur_sigma": (1, 5)}


def test_the_other_tables_are_these() -> None:
    assert AugmentationTable(probability=1, mirror=True, rotation=(-30, 30), scale=(0.75, 1.25)) == AGARWAL
    assert AugmentationTable(probability=1, mirror=True, scale=(0.5, 1.8)) == MADSEN_DETECTION
    assert AugmentationTable(mirror=True, flip=True) == MADSEN_SEGMENTATION
    assert MODERATE.brightness == (-0.15, 0.15)
    assert TABLES["none"] == NOTHING


DRAWS = 4000


@pytest.mark.parametrize("name", ["thesis", "spie", "moderate", "agarwal", "madsen_detection"])
def test_what_is_drawn_fills_its_range_and_no_more(name: str) -> None:
    table, rng = TABLES[name], np.random.default_rng(7)
    drawn = [table.draw(rng) for _ in range(DRAWS)]
    absent: dict[str, Any] = {"rotation": 0.0, "scale": 1.0, "shear": (0.0, 0.0), "shift": (0.0, 0.0)}
    for key in ("rotation", "scale", "gamma", "brightness", "contrast", "salt_and_pepper", "noise", "quantum_noise"):
        check(getattr(table, key), [getattr(d, key) for d in drawn if getattr(d, key) != absent.get(key)], table)
    for key in ("shear", "shift"):
        pairs = [getattr(d, key) for d in drawn if getattr(d, key) != absent[key]]
        check(getattr(table, key), [x for x, _ in pairs], table)
        check(getattr(table, key), [y for _, y in pairs], table)
    blurs = [d.blur for d in drawn if d.blur is not None]
    check(table.blur_sigma, [sigma for sigma, _ in blurs], table)
    assert {side for _, side in blurs} == (set(table.blur_kernels) if table.blur_sigma else set())
    medians = [d.median for d in drawn if d.median is not None]
    assert set(medians) == set(table.median_kernels)
    check((3, 11) if table.median_kernels else None, [], table, count=len(medians))
    check((0, 1) if table.cutout else None, [], table, count=sum(d.cutout is not None for d in drawn))
    assert abs(np.mean([d.mirrored for d in drawn]) - 0.5) < 0.03
    assert not any(d.flipped for d in drawn)


def check(
    limits: tuple[float, float] | None, values: list[float], table: AugmentationTable, count: int | None = None
) -> None:
    """Check how often a value was drawn and, when given, that its extremes are the limits."""
    share = (len(values) if count is None else count) / DRAWS
    assert abs(share - (table.probability if limits else 0)) < 0.03
    if limits and values:
        margin = 0.01 * (limits[1] - limits[0])
        assert limits[0] <= min(values) < limits[0] + margin
        assert limits[1] - margin < max(values) <= limits[1]


@pytest.mark.parametrize("name", TABLES)
def test_image_and_mask_keep_their_kind(name: str) -> None:
    rng = np.random.default_rng(3)
    pixels, mask = an_image(512, 512), np.zeros((512, 512), np.uint8)
    mask[200:300, 150:280] = 1
    before = pixels.copy()
    for _ in range(6):
        image, truth = TABLES[name](pixels, mask, rng)
        side = TABLES[name].crop or 512
        assert image.shape == truth.shape == (side, side)
        assert image.dtype == truth.dtype == np.float32
        assert image.flags.c_contiguous
        assert truth.flags.c_contiguous
        assert 0 <= image.min() <= image.max() <= 1
        assert set(np.unique(truth)) <= {0, 1}
    assert np.array_equal(pixels, before)


def test_the_same_seed_gives_the_same_image() -> None:
    first, second = (THESIS(an_image(512, 512), a_mask(512, 512), np.random.default_rng(9)) for _ in range(2))
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])
    other = THESIS(an_image(512, 512), a_mask(512, 512), np.random.default_rng(10))
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("change", [Change(salt_and_pepper=0.1), Change(cutout=(0.5, 0.5)), Change(quantum_noise=0.1)])
def test_what_is_given_stays_as_it_was(change: Change) -> None:
    pixels, mask = an_image(), a_mask()
    image, _ = AugmentationTable(cutout=0.2).apply(change, pixels, mask, np.random.default_rng(1))
    assert not np.array_equal(image, an_image())
    assert np.array_equal(pixels, an_image())
    assert np.array_equal(mask, a_mask())


def test_no_change_changes_nothing() -> None:
    image, mask = changed(Change())
    assert np.array_equal(image, an_image())
    assert np.array_equal(mask, a_mask())


def test_flips_turn_image_and_mask() -> None:
    image, mask = changed(Change(mirrored=True))
    assert np.array_equal(image, an_image()[:, ::-1])
    assert np.array_equal(mask, a_mask()[:, ::-1])
    image, mask = changed(Change(flipped=True))
    assert np.array_equal(image, an_image()[::-1])
    assert np.array_equal(mask, a_mask()[::-1])


def test_a_shift_is_in_pixels_to_the_right_and_down() -> None:
    image, mask = changed(Change(shift=(5, 3)))
    np.testing.assert_allclose(image[3:, 5:], an_image()[:-3, :-5], atol=1e-6)
    assert np.array_equal(mask[3:, 5:], a_mask()[:-3, :-5])
    assert not image[:3].any()


def test_a_scale_is_around_the_centre() -> None:
    mask = np.zeros((65, 65), np.float32)
    mask[22:43, 22:43] = 1
    _, truth = NOTHING.apply(Change(scale=2.0), an_image(65, 65), mask, np.random.default_rng(1))
    rows, columns = np.nonzero(truth)
    assert abs(rows.mean() - 32) < 1
    assert abs(columns.mean() - 32) < 1
    assert abs(np.ptp(rows) - 41) <= 2


def test_a_turn_of_90_degrees_is_a_turn_of_the_array() -> None:
    pixels = an_image(33, 33)
    image, _ = NOTHING.apply(Change(rotation=90.0), pixels, pixels, np.random.default_rng(1))
    np.testing.assert_allclose(image[1:-1, 1:-1], np.rot90(pixels, -1)[1:-1, 1:-1], atol=0.01)


def test_a_shear_moves_columns_by_their_row() -> None:
    pixels = an_image(65, 65)
    image, _ = NOTHING.apply(Change(shear=(0.5, 0.0)), pixels, pixels, np.random.default_rng(1))
    np.testing.assert_allclose(image[32], pixels[32], atol=0.01)
    np.testing.assert_allclose(image[42, 5:60], pixels[42, 0:55], atol=0.01)


@pytest.mark.parametrize(("corner", "rows", "columns"), [((0, 0), 0, 0), ((1, 1), 24, 8), ((1, 0), 0, 8)])
def test_a_crop_lies_within_the_image(corner: tuple[float, float], rows: int, columns: int) -> None:
    image, mask = changed(Change(corner=corner), AugmentationTable(crop=40))
    assert np.array_equal(image, an_image()[rows : rows + 40, columns : columns + 40])
    assert np.array_equal(mask, a_mask()[rows : rows + 40, columns : columns + 40])


def test_a_crop_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="a square of 50 pixels does not fit into 64 x 48"):
        changed(Change(), AugmentationTable(crop=50))


def test_a_cutout_blackens_a_square_and_leaves_the_mask() -> None:
    image, mask = changed(Change(cutout=(1, 0)), AugmentationTable(cutout=0.25))
    black = np.zeros((64, 48), bool)
    black[:12, 36:] = True
    assert np.array_equal(image == 0, black)
    assert np.array_equal(mask, a_mask())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (Change(gamma=0.5), lambda x: x**2),
        (Change(gamma=1.8), lambda x: x ** (1 / 1.8)),
        (Change(brightness=0.3), lambda x: np.minimum(x + 0.3, 1)),
        (Change(brightness=-0.3), lambda x: np.maximum(x - 0.3, 0)),
        (Change(contrast=1.3), lambda x: np.minimum(1.3 * x, 1)),
        (Change(gamma=0.5, brightness=0.1, contrast=0.7), lambda x: 0.7 * (x**2 + 0.1)),
    ],
)
def test_exposure_changes_are_these_functions(change: Change, expected: Any) -> None:
    image, mask = changed(change)
    np.testing.assert_allclose(image, expected(an_image()), atol=1e-6)
    assert np.array_equal(mask, a_mask())


def test_salt_and_pepper_fall_in_equal_shares() -> None:
    pixels = an_image(400, 400)
    image, _ = NOTHING.apply(Change(salt_and_pepper=0.1), pixels, pixels, np.random.default_rng(1))
    assert abs(float((image == 1).mean()) - 0.05) < 0.003
    assert abs(float((image == 0).mean()) - 0.05) < 0.003
    assert np.array_equal(image[(image > 0) & (image < 1)], pixels[(image > 0) & (image < 1)])


def test_noise_is_mixed_in_by_its_share() -> None:
    flat = np.full((200, 200), 0.25, np.float32)
    image, _ = NOTHING.apply(Change(noise=0.5), flat, flat, np.random.default_rng(1))
    assert image.min() == pytest.approx(0.125)
    assert image.max() == pytest.approx(0.625)
    dark, bright = (
        NOTHING.apply(Change(quantum_noise=0.05), np.full((200, 200), v, np.float32), flat, np.random.default_rng(1))[0]
        for v in (0.16, 0.64)
    )
    assert float(dark.std()) == pytest.approx(0.02, rel=0.03)
    assert float(bright.std()) == pytest.approx(0.04, rel=0.03)


def test_a_blur_keeps_the_sum_and_a_median_takes_single_pixels_away() -> None:
    point = np.zeros((41, 41), np.float32)
    point[20, 20] = 1
    image, _ = NOTHING.apply(Change(blur=(10.0, 7)), point, point, np.random.default_rng(1))
    assert float(image.sum()) == pytest.approx(1, abs=1e-5)
    assert np.count_nonzero(image) == 49
    for side in (3, 7, 11):
        assert not NOTHING.apply(Change(median=side), point, point, np.random.default_rng(1))[0].any()
    edge = np.tile(np.repeat(np.array([0.2, 0.7], np.float32), 20), (40, 1))
    for side in (3, 7, 11):
        image, _ = NOTHING.apply(Change(median=side), edge, edge, np.random.default_rng(1))
        np.testing.assert_allclose(image, edge, atol=0.002)


def test_a_range_can_be_another() -> None:
    table = replace(THESIS, rotation=(2, 2.5), probability=1.0, shear=None)
    drawn = [table.draw(np.random.default_rng(n)) for n in range(50)]
    assert all(2 <= d.rotation <= 2.5 and d.shear == (0, 0) for d in drawn)
