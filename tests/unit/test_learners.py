"""What the Oulu, Marita and shipped systems learn from: the readers' own pictures, with the masses in their places."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ai.breast import prepare
from ai.datasets.manifest import read_manifest
from ai.datasets.records import Record
from ai.errors import InvalidDataset
from ai.pixels import file_image
from ai.training.recipe import Recipe, open_recipe
from ai.training.seed_augmentation import MODERATE, SPIE, THESIS
from tests.builders import L_CC, R_MLO
from tests.drawn import SHAPE, a_breast, a_data_set

if TYPE_CHECKING:
    from ai.training.learners.base import Learner
    from ai.training.phases import Part

SHIPPED = {"oulu": "thesis-table-5/unet-ft05", "marita": "marita-table-1/bce", "mass_fpn": "mass-fpn/random"}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_data_set(tmp_path_factory.mktemp("learners") / "set", 6)


@pytest.fixture(scope="module")
def records(manifest: Path) -> list[Record]:
    return read_manifest(manifest)


def a_recipe(system: str, **examples: Any) -> Recipe:
    recipe = open_recipe(SHIPPED[system])
    return recipe.model_copy(update={"parts": (recipe.parts[0].model_copy(update={"examples": examples}),)})


def a_learner(recipe: Recipe, folder: Path, records: list[Record]) -> "tuple[Learner, Part]":
    from ai.training.systems import SYSTEMS

    done: list[None] = []
    learner = SYSTEMS[recipe.system].learner(folder, records, recipe, lambda: done.append(None))
    assert len(done) == len(records)
    return learner, recipe.parts[0]


def an_image(folder: Path, *, right: bool, x: int, y: int, radius: int) -> Record:
    """Write a breast with a mass, its mask, and return its record."""
    pixels = a_breast(right=right, mass=(x, y, radius))
    mask = np.zeros(SHAPE, np.uint8)
    cv2.circle(mask, (SHAPE[1] - 1 - x if right else x, y), radius, (255,), -1)
    for name, values in (("a.png", np.round(255 * pixels).astype(np.uint8)), ("mask.png", mask)):
        cv2.imwrite(str(folder / name), values)
    left, top, width, height = cv2.boundingRect(mask)
    return Record("a.png", "P", R_MLO if right else L_CC, ((left, top, width, height),), masks=("mask.png",))


@given(right=st.booleans(), x=st.integers(15, 40), y=st.integers(60, 100), radius=st.integers(5, 12))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_oulus_reader_sees_what_was_trained_on(tmp_path: Path, *, right: bool, x: int, y: int, radius: int) -> None:
    from ai.readers.oulu import WholeBreast

    record = an_image(tmp_path, right=right, x=x, y=y, radius=radius)
    learner, part = a_learner(a_recipe("oulu", canvas=[64, 64]), tmp_path, [record])
    pixels, mask = learner.examples(part, [record]).batch([0], None)
    assert pixels.shape == mask.shape == (1, 1, 64, 64)
    view = WholeBreast((64, 64), learner.measured["mean"], learner.measured["std"])
    seen, _ = view.prepare(file_image(tmp_path / "a.png", record.view))
    np.testing.assert_allclose(pixels[0, 0].numpy(), seen, atol=1e-4)
    # Tissue is 120 and mass, the brightest, 230: a pixel that is half of it has 175.
    values, mass = 230 * (pixels[0, 0].numpy() * view.std + view.mean), mask[0, 0].numpy() > 0
    assert values[mass].min() > 173
    assert values[~mass].max() < 177
    assert mass.any()


def test_mean_and_deviation_are_those_of_all_canvases(manifest: Path, records: list[Record]) -> None:
    from ai.readers.oulu import WholeBreast

    learner, _ = a_learner(a_recipe("oulu", canvas=[64, 64]), manifest.parent, records)
    view = WholeBreast((64, 64), 0, 1)
    values = np.stack([view.prepare(file_image(manifest.parent / r.path, r.view))[0] for r in records])
    assert learner.measured == pytest.approx({"mean": values.mean(), "std": values.std()}, abs=2e-5)


def test_training_crops_and_changes_validation_does_not(manifest: Path, records: list[Record]) -> None:
    learner, part = a_learner(a_recipe("oulu", canvas=[64, 64]), manifest.parent, records)
    examples = learner.examples(part, records)
    assert len(examples) == 6
    first, second, other = (examples.batch([0, 1], np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first[0].shape == first[1].shape == (2, 1, 48, 48)  # 7 / 8 of 64 is 56; a plain U-Net takes multiples of 16
    assert (first[0] == second[0]).all()
    assert (first[0] != other[0]).any()
    assert (examples.batch([0, 1], None)[0] == examples.batch([0, 1], None)[0]).all()
    assert set(np.unique(first[1].numpy())) <= {0.0, 1.0}


def test_other_images_masks_or_normalisations_are_other_examples(manifest: Path, records: list[Record]) -> None:
    learner, part = a_learner(a_recipe("oulu", canvas=[64, 64]), manifest.parent, records)
    again, _ = a_learner(a_recipe("oulu", canvas=[64, 64]), manifest.parent, records)
    moved = [replace(r, boxes=tuple((x + 20, y, w, h) for x, y, w, h in r.boxes)) for r in records]
    elsewhere, _ = a_learner(a_recipe("oulu", canvas=[64, 64]), manifest.parent, moved)
    told = learner.examples(part, records).fingerprint
    assert again.examples(part, records).fingerprint == told
    assert elsewhere.examples(part, records).fingerprint != told
    assert learner.examples(part, records[1:]).fingerprint != told
    assert learner.examples(part.model_copy(update={"augmentation": "spie"}), records).fingerprint != told


@pytest.mark.parametrize(
    ("table", "shape", "multiple", "crop", "shift"),
    [
        (THESIS, (512, 512), 64, 448, 50),
        (SPIE, (256, 256), 64, 192, 25),
        (MODERATE, (1024, 512), 32, 448, 50),
        (THESIS, (64, 64), 64, 64, 6.25),
    ],
)
def test_tables_fit_other_canvases(table: Any, shape: tuple[int, int], multiple: int, crop: int, shift: float) -> None:
    from ai.training.learners.masks import scaled

    found = scaled(table, shape, multiple)
    assert (found.crop, found.shift) == (crop, (-shift, shift))


@pytest.mark.parametrize("right", [False, True])
def test_a_mass_lies_in_the_middle_of_its_first_crop(tmp_path: Path, *, right: bool) -> None:
    from ai.readers.marita import Tiled
    from ai.tiles import Tiling
    from ai.training.learners.marita import MaritaExamples, crops_of, over_maximum

    record = an_image(tmp_path, right=right, x=36, y=80, radius=8)
    examples = MaritaExamples(tile=64, reduction=2, shifted=4)
    crops = crops_of(record, tmp_path, examples, 1)
    assert [crop.pixels.shape for crop in crops] == [(32, 32)] * 5
    rows, columns = np.nonzero(crops[0].mask)
    assert (rows.mean() + 0.5, columns.mean() + 0.5) == pytest.approx((16, 16), abs=1)
    assert crops[0].mask.sum() == pytest.approx(np.pi * 4**2, rel=0.2)
    assert len({crop.pixels.tobytes() for crop in crops}) > 1
    # Each is a window of the canvas that the reader cuts its tiles from.
    image = file_image(tmp_path / "a.png", record.view)
    geometry = Tiled(Tiling(32), 2, 0).geometry(image)
    canvas = geometry.to_canvas(image.pixels)
    windows = np.lib.stride_tricks.sliding_window_view(canvas, (32, 32))
    for crop in crops:
        assert np.abs(windows - crop.values).max((2, 3)).min() < 1e-4
    np.testing.assert_allclose(over_maximum(crops[0].values).max(), 1)


def test_crops_do_not_hang_on_the_other_images(manifest: Path, records: list[Record]) -> None:
    recipe = a_recipe("marita", tile=64, reduction=2, shifted=2)
    learner, part = a_learner(recipe, manifest.parent, records)
    alone, _ = a_learner(recipe, manifest.parent, records[3:4])
    assert len(learner.examples(part, records)) == 3 * sum(len(r.boxes) for r in records) == 12
    assert alone.examples(part, records[3:4]).fingerprint == learner.examples(part, records[3:4]).fingerprint
    other, _ = a_learner(recipe.model_copy(update={"seed": 2}), manifest.parent, records)
    assert other.examples(part, records).fingerprint != learner.examples(part, records).fingerprint


def test_images_without_a_mass_have_no_crops(manifest: Path, records: list[Record]) -> None:
    learner, part = a_learner(a_recipe("marita", tile=64, reduction=2), manifest.parent, records)
    with pytest.raises(InvalidDataset, match="none of 1 image shows a mass"):
        learner.examples(part, [records[2]])


def test_the_shipped_systems_reader_sees_what_was_trained_on(manifest: Path, records: list[Record]) -> None:
    learner, part = a_learner(a_recipe("mass_fpn", canvas=[96, 64]), manifest.parent, records)
    pixels, mass, masses_malignant, malignant, boxes = learner.examples(part, records).batch([0, 1, 2], None)
    for place in range(3):
        seen = prepare(file_image(manifest.parent / records[place].path, records[place].view), (96, 64))
        np.testing.assert_allclose(pixels[place, 0].numpy(), seen.pixels, atol=1 / 127)
    assert mass.flatten(1).any(1).tolist() == [True, True, False]
    assert malignant.tolist() == [1, 0, 0]
    assert masses_malignant[:2].tolist() == [1, 0]
    assert masses_malignant[2].isnan()  # it has none
    for place in range(2):
        rows, columns = (np.flatnonzero(mass[place].numpy().any(axis)) for axis in (1, 0))
        extent = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(boxes[place, 0].numpy(), extent, atol=1.5)
    assert boxes[2].isnan().all()


def test_the_loss_is_that_of_the_papers_on_the_networks_logits(manifest: Path, records: list[Record]) -> None:
    import torch

    from ai.networks.registry import build
    from ai.training.seed_losses import FT_B

    learner, part = a_learner(a_recipe("oulu", canvas=[64, 64]), manifest.parent, records)
    network = build("plain_unet", {"widths": [1]}).eval()
    batch = learner.examples(part, records).batch([0, 1], None)
    found = learner.objectives(part)["thesis_focal_tversky_05"](network, batch)
    with torch.no_grad():
        assert found.item() == pytest.approx(FT_B(network(batch[0]), batch[1]).item())


def test_an_image_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    record = an_image(tmp_path, right=False, x=30, y=80, radius=8)
    cv2.imwrite(str(tmp_path / "mask.png"), np.zeros((10, 10), np.uint8))
    with pytest.raises(InvalidDataset, match=r"mask\.png has 10 x 10"):
        a_learner(a_recipe("oulu", canvas=[64, 64]), tmp_path, [record])
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((90, 60), np.uint8))
    without = replace(record, masks=())
    with pytest.raises(InvalidDataset, match=r"a\.png.*breast"):
        a_learner(a_recipe("oulu", canvas=[64, 64]), tmp_path, [without])
