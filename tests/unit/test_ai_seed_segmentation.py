"""The readers of Oulu and of Marita et al.: what a network marks is found, at its place, in every view."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ai.errors import NoBreast
from ai.exam import STANDARD_VIEWS, Exam, Laterality, Spacing, SpacingRule, View, ViewImage
from ai.findings import ExamFindings, ImageFindings, LengthUnit
from ai.pixels import view_image
from node.phantom import phantom_exam
from tests.builders import A_MASS_IN_EACH, L_CC, R_CC
from tests.drawn import Disc, a_breast
from tests.models import a_model, untrained
from tests.seed_segmentation import MARITA, OULU, THRESHOLDS, bright, loaded, marita, marita_overlapped, oulu

if TYPE_CHECKING:
    from ai.readers.base import Reader

pytestmark = pytest.mark.usefixtures("one_thread")

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

Make = Callable[..., "Reader"]
MAKERS = pytest.mark.parametrize("make", [oulu, marita, marita_overlapped])


def whitened(pixels: Floats, mass: Mask) -> Floats:
    """Return pixels with a white mass, and white specks that are too small for one.

    They give each tile a white pixel, for Marita's values are divided by the brightest.
    """
    result = pixels.astype(np.float32)
    around = cv2.dilate(mass.astype(np.uint8), np.ones((17, 17), np.uint8)) > 0
    rows, columns = (np.arange(side) % 62 >= 59 for side in mass.shape)
    result[np.outer(rows, columns) & ~around] = 1
    result[mass] = 1
    return result


@cache
def painted() -> tuple[Exam, dict[View, Mask]]:
    """Return a small phantom exam whose masses are white and the rest at most 0.6, and where they are."""
    exam = phantom_exam(3, masses=A_MASS_IN_EACH, small=True)
    images, truth = [], {}
    for view, dataset in zip(STANDARD_VIEWS, exam.images, strict=True):
        image = view_image(dataset, view)
        (mass,) = exam.masses(view)
        images.append(replace(image, pixels=whitened(0.6 * image.pixels, mass.mask)))
        truth[view] = mass.mask
    return Exam(tuple(images)), truth


def drawn(pixels: Floats, view: View = L_CC, **changes: Any) -> ViewImage:
    return ViewImage("1.2.3", view, pixels, **changes)


def mirrored(image: ViewImage) -> ViewImage:
    side = Laterality.RIGHT if image.view.laterality is Laterality.LEFT else Laterality.LEFT
    return replace(image, view=View(side, image.view.position), pixels=np.ascontiguousarray(image.pixels[:, ::-1]))


def only_mass(findings: ExamFindings) -> tuple[ImageFindings, Mask]:
    """Return the findings of the only image, and the mask of its only mass."""
    [image] = findings.images
    [mass] = image.masses
    return image, mass.full_mask(image.shape)


def overlap(a: Mask, b: Mask) -> float:
    """Return the intersection over the union."""
    return float((a & b).sum() / (a | b).sum())


def centre(mask: Mask) -> NDArray[np.float64]:
    return np.asarray(np.argwhere(mask).mean(0) + 0.5)


@MAKERS
def test_in_each_view_the_mass_is_where_it_is(tmp_path: Path, make: Make) -> None:
    exam, truth = painted()
    findings = make(tmp_path).read(exam)
    assert [image.view for image in findings.images] == list(STANDARD_VIEWS)
    for image in findings.images:
        [mass] = image.masses
        found = mass.full_mask(image.shape)
        assert np.abs(centre(found) - centre(truth[image.view])).max() < 1
        assert overlap(found, truth[image.view]) > 0.85
        assert mass.size.unit is LengthUnit.MILLIMETRE


@MAKERS
def test_what_is_said_of_a_mass_is_how_sure_the_networks_are(tmp_path: Path, make: Make) -> None:
    exam, _ = painted()
    reader = make(tmp_path)
    findings = reader.read(exam)
    assert findings.model == reader.model
    for image in findings.images:
        [mass] = image.masses
        assert image.malignancy is None
        assert mass.malignancy is None
        assert mass.detection > 0.9
        assert mass.suspicion == round(100 * mass.detection) == image.score
    assert {breast.laterality for breast in findings.breasts} == set(Laterality)
    assert findings.score == max(breast.score for breast in findings.breasts)
    assert {match.laterality for match in findings.matches} == set(Laterality)


@MAKERS
def test_the_map_goes_out_with_the_findings(tmp_path: Path, make: Make) -> None:
    exam, truth = painted()
    for image in make(tmp_path).read(exam).images:
        assert image.probability is not None
        assert image.probability.shape == image.shape
        inside = truth[image.view]
        assert image.probability[inside].mean() > 0.85
        assert image.probability[~inside].mean() < 0.02


@MAKERS
def test_a_mirrored_exam_has_mirrored_findings(tmp_path: Path, make: Make) -> None:
    exam, _ = painted()
    reader = make(tmp_path)
    straight, turned = reader.read(exam), reader.read(Exam(tuple(map(mirrored, exam.images))))
    for image, other in zip(straight.images, turned.images, strict=True):
        [mass], [back] = image.masses, other.masses
        assert overlap(mass.full_mask(image.shape)[:, ::-1], back.full_mask(other.shape)) > 0.97
        assert back.detection == pytest.approx(mass.detection, abs=1e-5)
        assert image.score == other.score


@MAKERS
@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("shape", [(97, 64), (301, 157), (513, 417), (256, 128), (257, 129), (640, 1001)])
def test_images_of_any_size_are_read(tmp_path: Path, make: Make, shape: tuple[int, int], *, right: bool) -> None:
    rows, columns = shape
    disc: Disc = (columns // 3, rows // 2 + 3, max(min(shape) // 9, 10))
    truth = a_breast(shape, right=right, mass=disc) > 0.8
    pixels = a_breast(shape, right=right)
    pixels = np.where(truth, np.float32(1), pixels) if make is oulu else whitened(pixels, truth)
    image, found = only_mass(make(tmp_path).read(Exam((drawn(pixels, R_CC if right else L_CC),))))
    assert image.shape == shape
    assert np.abs(centre(found) - centre(truth)).max() < 1
    assert overlap(found, truth) > 0.75


@MAKERS
@pytest.mark.parametrize("right", [False, True])
def test_people_see_what_the_networks_saw(tmp_path: Path, make: Make, *, right: bool) -> None:
    pixels = 0.8 * a_breast((300, 200), right=right)
    seen = make(tmp_path).read(Exam((drawn(pixels, R_CC if right else L_CC),))).images[0].prepared
    assert seen is not None
    assert seen.dtype == np.uint8
    assert seen.max() == pytest.approx(255 * pixels.max(), abs=1)
    assert seen[:, : seen.shape[1] // 2].mean() > 2 * seen[:, seen.shape[1] // 2 :].mean()  # chest wall at the left


@MAKERS
def test_an_image_without_a_breast_is_refused_by_name(tmp_path: Path, make: Make) -> None:
    exam, _ = painted()
    black = replace(exam.images[1], uid="1.2.840.99", pixels=np.zeros((512, 416), np.float32))
    with pytest.raises(NoBreast) as refused:
        make(tmp_path).read(Exam((exam.images[0], black)))
    assert refused.value.image_uid == "1.2.840.99"


@MAKERS
def test_an_empty_exam_has_no_findings(tmp_path: Path, make: Make) -> None:
    findings = make(tmp_path).read(Exam(()))
    assert (findings.images, findings.breasts, findings.score, findings.matches) == ((), (), 0, ())


@pytest.mark.parametrize(
    ("make", "name", "slope", "middle"), [(oulu, "plain_unet", 4, 3), (marita, "tile_unet", 40, 0.8)]
)
def test_folds_are_averaged(tmp_path: Path, make: Make, name: str, slope: float, middle: float) -> None:
    exam, truth = painted()
    one, other = bright(name, slope, middle), bright(name, -slope, middle)
    for image in make(tmp_path / "opposite", one, other).read(exam).images:
        assert image.probability is not None
        np.testing.assert_allclose(image.probability[truth[image.view]], 0.5, atol=1e-4)
        assert image.score == 50
    for image in make(tmp_path / "two of three", one, other, one).read(exam).images:
        [mass] = image.masses
        assert 0.6 < mass.detection < 2 / 3 + 1e-4
    for image in make(tmp_path / "one of three", other, one, other).read(exam).images:
        assert not any((mass.full_mask(image.shape) & truth[image.view]).mean() > 0.001 for mass in image.masses)


def test_a_threshold_stands_for_the_cards(tmp_path: Path) -> None:
    from ai.readers.registry import load_reader

    exam, _ = painted()
    weak = bright("plain_unet", 0.2, 3)  # masses at 0.6
    model = a_model(tmp_path, "oulu", OULU, THRESHOLDS, {"fold": weak})
    all_of_them = load_reader(model, "cpu").read(exam)
    assert all_of_them.count == load_reader(model, "cpu", threshold=0.0).read(exam).count == 4
    none = load_reader(model, "cpu", threshold=0.7).read(exam)
    assert none.count == 0
    # Images are ranked alike, whatever is shown of them.
    assert [image.score for image in none.images] == [image.score for image in all_of_them.images]
    weakest, *others = sorted(mass.detection for image in all_of_them.images for mass in image.masses)
    some = load_reader(model, "cpu", threshold=(weakest + others[0]) / 2).read(exam)
    assert [mass.number for image in some.images for mass in image.masses] == [1, 1, 1]


def test_an_image_without_a_candidate_is_as_suspicious_as_its_maps_peak(tmp_path: Path) -> None:
    exam, _ = painted()
    weak = bright("plain_unet", 0.2, 7)  # masses at sigmoid(0.2 * (5 - 7))
    findings = oulu(tmp_path, weak).read(exam)
    assert findings.count == 0
    assert [image.score for image in findings.images] == [round(100 / (1 + np.exp(0.4)))] * 4
    strong = loaded(tmp_path / "small", "oulu", OULU, THRESHOLDS | {"smallest": 100_000}, bright("plain_unet", 4, 3))
    assert [image.score for image in strong.read(exam).images] == [50] * 4


def test_a_mass_is_where_the_map_is_above_the_candidates_threshold(tmp_path: Path) -> None:
    exam, _ = painted()
    slow = bright("plain_unet", 1, 1)  # from sigmoid(-1) at 0.5 to sigmoid(4) at 1
    sizes = []
    for level in (0.3, 0.5, 0.9):
        reader = loaded(tmp_path / str(level), "oulu", OULU, {"mass": 0, "candidate": level}, slow)
        sizes.append(sum(mass.mask.sum() for image in reader.read(exam).images for mass in image.masses))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[2] > 0


def test_sizes_without_a_spacing_are_in_pixels_and_a_pixels_aspect_is_kept(tmp_path: Path) -> None:
    wide = a_breast((160, 240), mass=(60, 80, 20))
    for make in (oulu, marita):
        image = drawn(np.where(wide > 0.8, np.float32(1), wide), pixel_aspect=1.65)
        found, mask = only_mass(make(tmp_path / make.__name__).read(Exam((image,))))
        assert found.masses[0].size.unit is LengthUnit.PIXEL
        assert np.abs(centre(mask) - centre(wide > 0.8)).max() < 1


def test_on_the_canvas_pixels_are_square() -> None:
    from ai.readers.marita import Tiled
    from ai.readers.oulu import WholeBreast
    from ai.tiles import Tiling

    image = drawn(a_breast((160, 240)), pixel_aspect=1.5)
    assert Tiled(Tiling(32), 2, 0).geometry(image).covered == (120, 120)
    across, down = WholeBreast((512, 512), 0, 1).prepare(image)[1].scale
    assert down == pytest.approx(1.5 * across)


def test_oulu_normalises_by_the_cards_mean_and_deviation() -> None:
    from ai.readers.oulu import WholeBreast

    image = drawn(a_breast((300, 200)))
    plain, geometry = WholeBreast((128, 128), 0, 1).prepare(image)
    pixels, _ = WholeBreast((128, 128), 0.25, 0.5).prepare(image)
    np.testing.assert_allclose(pixels, (plain - 0.25) / 0.5, atol=1e-6)
    np.testing.assert_array_equal(plain, geometry.to_canvas(image.pixels))
    assert plain.max() == pytest.approx(120 / 255, abs=1e-3)


@pytest.mark.parametrize("right", [False, True])
def test_oulu_pads_on_the_side_away_from_the_chest_wall(*, right: bool) -> None:
    from ai.readers.oulu import WholeBreast

    pixels, geometry = WholeBreast((128, 128), 0, 1).prepare(drawn(a_breast((300, 200), right=right)))
    columns, rows = geometry.covered
    assert rows == 128
    assert columns < 100
    assert geometry.mirrored == right
    assert pixels[64, 4] > 0.4
    assert (pixels[:, columns:] == 0).all()
    x, y, width, height = geometry.crop
    corners = np.array([[x, y], [x + width, y + height]], np.float64)
    np.testing.assert_allclose(geometry.points_to_image(geometry.points_to_canvas(corners)), corners, atol=1e-9)


class Recorder:
    """Stands for the networks: remembers the tiles and says that a value is its own probability."""

    def __init__(self) -> None:
        self.tiles: list[Floats] = []

    def __call__(self, tiles: Sequence[Floats]) -> Floats:
        self.tiles += tiles
        return np.stack(tiles)


def by_the_paper(pixels: Floats, tile: int, reduction: int, dark: float) -> tuple[list[Floats], Floats]:
    """Return the tiles and the map by the paper's own pseudo-code, of a left breast in whole tiles."""
    rows, columns = pixels.shape
    seen, found = [], np.zeros((rows // reduction, columns // reduction), np.float32)
    for y in range(0, rows, tile):
        for x in range(0, columns, tile):
            region = pixels[y : y + tile, x : x + tile]
            if region.mean() >= dark and region.max() - region.min() > 0:
                blocks = region.reshape(tile // reduction, reduction, tile // reduction, reduction).mean((1, 3))
                seen.append(blocks / blocks.max())
                place = np.s_[y // reduction : (y + tile) // reduction, x // reduction : (x + tile) // reduction]
                found[place] = seen[-1]
    return seen, found


@pytest.mark.parametrize(("tile", "reduction"), [(64, 4), (128, 2), (32, 1), (256, 4)])
@pytest.mark.parametrize("dark", [0, 0.1, 0.15])
def test_marita_does_what_the_paper_does(tile: int, reduction: int, dark: float) -> None:
    from ai.readers.marita import Tiled
    from ai.tiles import Tiling

    noise = np.random.default_rng(0).random((512, 256), np.float32)
    pixels = a_breast((512, 256)) * (0.7 + 0.3 * noise)
    networks = Recorder()
    told = Tiled(Tiling(tile // reduction), reduction, dark).read(drawn(pixels), networks)
    found, geometry = told.mass, told.geometry
    tiles, expected = by_the_paper(pixels, tile, reduction, dark)
    assert 0 < len(tiles) == len(networks.tiles)
    np.testing.assert_allclose(np.stack(networks.tiles), np.stack(tiles), atol=1e-5)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert geometry.covered == (256 // reduction, 512 // reduction)
    assert (geometry.crop, geometry.mirrored) == ((0, 0, 256, 512), False)


@pytest.mark.parametrize("overlapped", [False, True])
@pytest.mark.parametrize("shape", [(97, 64), (300, 199), (512, 416), (1023, 65)])
@pytest.mark.parametrize("right", [False, True])
def test_marita_reads_every_pixel_of_an_image_of_any_size(
    shape: tuple[int, int], *, overlapped: bool, right: bool
) -> None:
    from ai.readers.marita import Tiled
    from ai.tiles import Tiling

    noise = np.random.default_rng(1).random(shape, np.float32)
    image = drawn(a_breast(shape, right=right) + 0.1 * noise, R_CC if right else L_CC)
    tiled = Tiled(Tiling(32, overlapped), 2, 0)
    told = tiled.read(image, lambda tiles: np.ones((len(tiles), 32, 32), np.float32))
    found, geometry = told.mass, told.geometry
    columns, rows = geometry.covered
    assert (rows, columns) == (round(shape[0] / 2), round(shape[1] / 2))
    np.testing.assert_allclose(found[:rows, :columns], 1, rtol=1e-6)
    assert geometry.mirrored == right
    assert geometry.canvas == found.shape
    assert all(have % 32 == 0 and have - need < 32 for have, need in zip(found.shape, (rows, columns), strict=True))


def test_a_tile_that_is_dark_or_all_the_same_is_not_read() -> None:
    from ai.readers.marita import Tiled
    from ai.tiles import Tiling

    tiled = Tiled(Tiling(4), 1, 0.25)
    grey = np.array([[0, 0.4], [0.2, 0.2]], np.float32)
    assert not tiled.shows(grey)
    assert not tiled.shows(np.full((2, 2), 0.5, np.float32))
    assert tiled.shows(grey + np.float32(0.05))


def test_the_side_of_the_chest_wall_is_that_of_the_brighter_strip() -> None:
    from ai.readers.marita import wall_at_right

    exam, _ = painted()
    for image in exam.images:
        assert wall_at_right(image.pixels) == (image.view.laterality is Laterality.RIGHT)
    # The strips decide, not the halves.
    pixels = np.zeros((10, 40), np.float32)
    pixels[:, :4], pixels[:, 24:36] = 0.5, 1
    assert not wall_at_right(pixels)


def test_overlapped_tiles_find_what_lies_across_two(tmp_path: Path) -> None:
    pixels = a_breast((256, 256), mass=(64, 128, 12))
    white = Exam(
        (drawn(np.where(pixels > 0.8, np.float32(1), pixels), spacing=Spacing(0.1, 0.1, SpacingRule.DETECTOR)),)
    )
    for make in (marita, marita_overlapped):
        image, mask = only_mass(make(tmp_path / make.__name__).read(white))
        assert np.abs(centre(mask) - centre(pixels > 0.8)).max() < 1
        assert image.masses[0].size.unit is LengthUnit.MILLIMETRE


@pytest.mark.parametrize(
    ("name", "options", "canvas"),
    [
        ("resnet22_unet", {}, [128, 64]),
        ("resnet22_fpn", {"dropout": 0.1}, [96, 96]),
        ("resnet22_smp_unet", {}, [64, 96]),
        ("resnet22_smp_fpn", {}, [64, 64]),
        ("plain_unet", {"widths": [4, 8, 16]}, [64, 80]),
        ("transres_unet", {"side": 64, "widths": [8, 8, 8, 8, 16], "layers": 1}, [64, 64]),
    ],
)
def test_every_network_that_gives_masks_can_read(
    tmp_path: Path, name: str, options: dict[str, Any], canvas: list[int]
) -> None:
    exam, _ = painted()
    card = {"network": name, "options": options, "canvas": canvas, "mean": 0.2, "std": 0.2}
    networks = [untrained(name, options, seed) for seed in (1, 2)]
    reader = loaded(tmp_path, "oulu", card, THRESHOLDS, *networks)
    first, again = reader.read(exam), reader.read(exam)
    for image, same in zip(first.images, again.images, strict=True):
        assert image.probability is not None
        assert same.probability is not None
        assert 0 < image.probability.max() <= 1
        np.testing.assert_array_equal(image.probability, same.probability)  # no dropout when reading


def test_the_card_says_whether_tiles_overlap(tmp_path: Path) -> None:
    exam, _ = painted()
    options = {"widths": [4, 4, 8]}
    network = untrained("tile_unet", options)
    maps = []
    for overlapped in (False, True):
        card = MARITA | {"options": options, "overlapped": overlapped}
        reader = loaded(tmp_path / str(overlapped), "marita", card, THRESHOLDS | {"dark": 0.1}, network)
        maps.append(reader.read(exam).images[0].probability)
    # At a seam, where a network sees what is beside it only in a tile that overlaps.
    beside, blended = maps
    assert beside is not None
    assert blended is not None
    assert np.abs(beside - blended).max() > 1e-3
