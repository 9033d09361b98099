"""What Madsen's networks learn from: the reader's own canvas and regions, with boxes and masks that move with them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai.datasets.records import Record
from ai.errors import InvalidDataset, InvalidRecipe
from ai.exam import Laterality, View, ViewPosition
from ai.pixels import file_image
from tests.drawn import a_breast
from tests.models import a_model
from tests.seed_networks import network, registered

if TYPE_CHECKING:
    import torch

    from ai.training.learners.madsen import MadsenLearner
    from ai.training.recipe import Recipe

SHAPE = (240, 180)
CANVAS = (128, 64)
SIDE = 32
DISC = (40, 110, 20)
"""x, y and radius of the mass in a left breast."""


@pytest.fixture(autouse=True)
def networks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with registered(monkeypatch):
        yield


def a_recipe(aspect: str = "none", **parts: dict[str, Any]) -> "Recipe":
    """Return a recipe of hand-made networks; what is given for a role changes its part."""
    from ai.training.recipe import Recipe

    def part(role: str, name: str, loss: str, **own: Any) -> dict[str, Any]:
        course = [{"loss": loss, "epochs": 1, "learning_rate": 1e-3}]
        made = {"role": role, "network": name, "batch": 2, "phases": course, "augmentation": aspect}
        return made | own | parts.get(role, {})

    square = {"side": SIDE, "jitter": 0.2}
    content = {
        "name": "m",
        "title": "M",
        "system": "madsen",
        "parts": [
            part("detector", "bright_box", "retinanet", examples={"canvas": CANVAS}, options={"canvas": CANVAS}),
            part("segmenter", "bright_mask", "madsen_bce_dice", examples=square),
            part("classifier", "contrast", "madsen_branches", examples=square),
        ],
        "reader": {"architecture": {"clip_limit": 3.0}, "thresholds": {"mass": 0.3}},
    }
    return Recipe.model_validate(content)


def a_record(folder: Path, name: str = "a.png", *, right: bool = False, mass: bool = True, **truth: Any) -> Record:
    """Draw an image with a bright disc, and its record with the disc's box."""
    x, y, radius = DISC
    shown = a_breast(SHAPE, right=right, mass=DISC if mass else None)
    grain = np.random.default_rng(len(name)).integers(0, 9, SHAPE)
    cv2.imwrite(str(folder / name), (np.round(240 * shown) + grain * (shown > 0)).astype(np.uint8))
    left = SHAPE[1] - 1 - x - radius if right else x - radius
    box = (float(left), float(y - radius), 2 * radius + 1.0, 2 * radius + 1.0)
    side = Laterality.RIGHT if right else Laterality.LEFT
    return Record(name, f"P{name}", View(side, ViewPosition.CC), (box,) if mass else (), **truth)


def learner(folder: Path, records: list[Record], recipe: "Recipe | None" = None) -> "MadsenLearner":
    from ai.training.learners.madsen import MadsenLearner

    return MadsenLearner(folder, records, recipe or a_recipe())


def batches(
    folder: Path, records: list[Record], role: str, rng: np.random.Generator | None = None, aspect: str = "none"
) -> "tuple[torch.Tensor, ...]":
    recipe = a_recipe(aspect)
    examples = learner(folder, records, recipe).examples(recipe.part(role), records)
    return examples.batch(range(len(examples)), rng)


# What the reader sees


@pytest.mark.parametrize("right", [False, True])
def test_all_three_learn_from_what_the_reader_shows_them(tmp_path: Path, *, right: bool) -> None:
    """The hand-made networks write down what they are shown; the detector's box is the truth's."""
    from ai.exam import Exam
    from ai.readers.registry import load_reader

    record = a_record(tmp_path, right=right, malignant=True)
    other = a_record(tmp_path, "b.png", malignant=False)
    canvas, boxes = batches(tmp_path, [record], "detector")
    pixels, masks = batches(tmp_path, [record], "segmenter")
    recipe = a_recipe()
    system = learner(tmp_path, [record, other], recipe)
    region, outlined, labels = system.examples(recipe.part("classifier"), [record, other]).batch([0], None)
    assert labels.tolist() == [1]

    tables = {
        "clip_limit": 3.0,
        "detector": {"network": "bright_box", "canvas": list(CANVAS), "weights": ["d.safetensors"]},
        "segmenter": {"network": "bright_mask", "side": SIDE, "weights": ["s.safetensors"]},
        "classifier": {"network": "contrast", "weights": ["c.safetensors"], **system.measured},
    }
    parts = {
        "d": network("bright_box", level=2.0, score=0.9, corners=boxes[0, 0].tolist()),
        "s": network("bright_mask"),
        "c": network("contrast"),
    }
    reader = load_reader(a_model(tmp_path / "model", "madsen", tables, {"mass": 0.3}, parts), "cpu")
    shown: dict[str, list[torch.Tensor]] = {}
    for name, (made,) in {"d": reader._detectors, "s": reader._segmenters, "c": reader._classifiers}.items():  # type: ignore[attr-defined]  # noqa: SLF001

        def watch(_: object, inputs: "tuple[torch.Tensor, ...]", name: str = name) -> None:
            shown[name] = list(inputs)

        made.register_forward_pre_hook(watch)
    reader.read(Exam((file_image(tmp_path / record.file, record.view),)))
    assert (shown["d"][0] - canvas).abs().max() < 1e-5  # 16 bits
    # The box went to the canvas and back as float32: its edges may cut the next pixel.
    assert (shown["s"][0] - pixels).abs().mean() < 0.01
    assert (shown["c"][0] - region).abs().mean() < 0.05
    assert (masks == outlined).all()


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("moved", [0.0, 0.2])
def test_a_region_is_to_the_bit_what_the_reader_cuts_for_that_box(tmp_path: Path, *, right: bool, moved: float) -> None:
    from ai.readers.madsen_preprocessing import enhance
    from ai.training.learners.regions import Region, as_corners

    record = a_record(tmp_path, right=right)
    enhanced = enhance(file_image(tmp_path / record.file, record.view), 3)
    mask = np.random.default_rng(1).random(SHAPE) > 0.5
    cut = Region.of("a", enhanced, mask, record.boxes[0], jitter=moved, malignant=None)
    assert cut is not None
    shares = np.random.default_rng(7).uniform(-moved, moved, (2, 2))
    corners = as_corners(record.boxes[0])
    corners += shares * (corners[1] - corners[0])
    geometry = enhanced.region(corners, SIDE)
    assert geometry is not None
    pixels, inside = cut.drawn(SIDE, moved, np.random.default_rng(7))
    assert (pixels == geometry.to_canvas(enhanced.pixels)).all()
    assert (inside == (geometry.to_canvas(mask.astype(np.float32)) > 0.5)).all()
    assert cut.pixels.size < 0.2 * mask.size  # what jitter cannot reach is not kept


def test_a_box_reaches_over_the_edge_as_the_breasts_crop_does() -> None:
    from ai.readers.madsen_preprocessing import Crop, Enhanced
    from ai.training.learners.regions import Region

    pixels = np.random.default_rng(1).random((60, 50)).astype(np.float32)
    pixels = np.round(pixels * 65535).astype(np.uint16).astype(np.float32) / np.float32(65535)
    enhanced = Enhanced(pixels, Crop(10, 50, 0, 30), mirrored=False)
    cut = Region.of("a", enhanced, pixels > 2, (20, 5, 30, 20), jitter=0.1, malignant=None)
    assert cut is not None
    expected = cv2.resize(pixels[10:25, 20:30], (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    assert (cut.plain(SIDE)[0] == expected).all()
    assert Region.of("a", enhanced, pixels > 2, (31, 5, 9, 20), jitter=0.4, malignant=None) is None


# The detector's boxes


@pytest.mark.parametrize("right", [False, True])
def test_a_box_is_around_its_mass_on_the_canvas(tmp_path: Path, *, right: bool) -> None:
    pixels, boxes = batches(
        tmp_path, [a_record(tmp_path, right=right), a_record(tmp_path, "b.png", mass=False)], "detector"
    )
    assert boxes.shape == (2, 1, 4)
    assert boxes[1].isnan().all()
    rows, columns = np.nonzero(pixels[0, 0].numpy() > 0.9 * float(pixels[0].max()))
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.abs(boxes[0, 0].numpy() - seen).max() < 2


@given(
    mirrored=st.booleans(),
    flipped=st.booleans(),
    scale=st.floats(0.5, 1.8),
    rotation=st.sampled_from([0.0, 0.0, 90.0]),
    corner=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_boxes_move_with_the_pixels(
    *, mirrored: bool, flipped: bool, scale: float, rotation: float, corner: tuple[float, float], seed: int
) -> None:
    from ai.training.learners.regions import Canvas
    from ai.training.seed_augmentation import AugmentationTable, Change

    class Fixed(AugmentationTable):
        def draw(self, rng: np.random.Generator) -> Change:  # noqa: ARG002 (as the table has it)
            return Change(rotation=rotation, scale=scale, mirrored=mirrored, flipped=flipped, corner=corner)

    rng = np.random.default_rng(seed)
    left, top, width, height = rng.integers((0, 0, 6, 6), (80, 130, 46, 46))
    pixels = np.zeros((160, 120), np.uint16)
    pixels[top : top + height, left : left + width] = 65535
    right, bottom = min(left + width, 120), min(top + height, 160)
    canvas = Canvas("a", pixels, np.array([[left, top, left + width, top + height]], np.float64))
    plain, [box] = canvas.plain()
    assert box.tolist() == [left, top, right, bottom]
    assert plain.max() == 1
    changed, boxes = canvas.changed(Fixed(), rng)
    assert changed.shape == (160, 120)
    rows, columns = np.nonzero(changed >= 0.5)
    if not len(rows):
        assert len(boxes) == 0 or (boxes[:, 2:] - boxes[:, :2]).min() < 2.5
        return
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.abs(boxes[0] - seen).max() <= 1.5


def test_random_changes_are_the_generators_and_leave_their_canvas_alone(tmp_path: Path) -> None:
    records = [a_record(tmp_path)]
    for role in ("detector", "segmenter"):
        aspect = f"madsen_{'detection' if role == 'detector' else 'segmentation'}"
        first, second, other = (
            batches(tmp_path, records, role, np.random.default_rng(seed), aspect)[0] for seed in (1, 1, 2)
        )
        assert (first == second).all()
        assert (first != other).any()
        assert 0 <= first.min() <= first.max() <= 1


def test_images_without_a_mass_teach_the_detector_alone(tmp_path: Path) -> None:
    records = [a_record(tmp_path), a_record(tmp_path, "b.png", mass=False)]
    recipe = a_recipe()
    system = learner(tmp_path, records, recipe)
    assert len(system.examples(recipe.part("detector"), records)) == 2
    assert len(system.examples(recipe.part("segmenter"), records)) == 1
    for role in ("detector", "segmenter"):
        with pytest.raises(InvalidDataset, match="has a mass"):
            system.examples(recipe.part(role), records[1:])


# Pathology


def test_masses_of_unknown_pathology_are_outlined_and_not_classified(tmp_path: Path) -> None:
    records = [
        a_record(tmp_path, "a.png", malignant=True),
        a_record(tmp_path, "bb.png", malignant=False),
        a_record(tmp_path, "ccc.png", malignant=None),
    ]
    recipe = a_recipe()
    system = learner(tmp_path, records, recipe)
    assert len(system.examples(recipe.part("segmenter"), records)) == 3
    classified = system.examples(recipe.part("classifier"), records)
    assert classified.batch(range(len(classified)), None)[2].tolist() == [1, 0]
    with pytest.raises(InvalidDataset, match="of 1 mass whose pathology is known 1 is malignant"):
        system.examples(recipe.part("classifier"), [records[0], records[2]])


def test_the_classifiers_regions_have_zero_mean_and_unit_deviation_together(tmp_path: Path) -> None:
    records = [a_record(tmp_path, "a.png", malignant=True), a_record(tmp_path, "bb.png", right=True, malignant=False)]
    recipe = a_recipe()
    system = learner(tmp_path, records, recipe)
    shown = system.examples(recipe.part("classifier"), records).batch([0, 1], None)[0]
    assert shown.mean().item() == pytest.approx(0, abs=1e-4)
    assert shown.std(correction=0).item() == pytest.approx(1, abs=1e-3)
    grey = system.examples(recipe.part("segmenter"), records).batch([0, 1], None)[0]
    assert system.measured["mean"] == pytest.approx(grey.mean().item(), abs=1e-5)
    assert learner(tmp_path, [a_record(tmp_path, "free.png", mass=False)]).measured == {"mean": 0, "std": 1}


# Losses


def objective(role: str, name: str) -> Any:
    from ai.training.learners.madsen import OBJECTIVES

    return OBJECTIVES[role][name]


def test_the_detector_learns_by_the_sum_of_its_losses_from_the_boxes_that_are_there() -> None:
    import torch

    class Asked(torch.nn.Module):
        def losses(self, _: torch.Tensor, boxes: list[torch.Tensor]) -> dict[str, torch.Tensor]:
            assert [box.tolist() for box in boxes] == [[[1, 2, 3, 4]], []]
            return {"classification": torch.tensor(0.25), "bbox_regression": torch.tensor(0.5)}

    boxes = torch.full((2, 3, 4), torch.nan)
    boxes[0, 0] = torch.tensor([1.0, 2, 3, 4])
    assert objective("detector", "retinanet")(Asked(), (torch.zeros(2, 1, 8, 8), boxes)) == 0.75
    with pytest.raises(TypeError, match="Identity is no detector"):
        objective("detector", "retinanet")(torch.nn.Identity(), (torch.zeros(2, 1, 8, 8), boxes))


def test_each_branch_and_the_head_learn_from_smoothed_labels() -> None:
    import torch

    class Three(torch.nn.Module):
        def forward(self, *_: torch.Tensor) -> torch.Tensor:
            return torch.tensor([np.log(3), 0.0])

        def branches(self, *_: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[np.log(3), np.log(3), np.log(3)], [0.0, 0, 0]])

    given = torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4), torch.tensor([1.0, 0.0])
    # Malignant is .875 and is said with .75; benign is .125, of which one half is said.
    expected = (-(0.875 * np.log(0.75) + 0.125 * np.log(0.25)) - np.log(0.5)) / 2
    for name in ("madsen_branches", "madsen_smoothed_bce"):
        assert objective("classifier", name)(Three(), given).item() == pytest.approx(expected, rel=1e-6)
    with pytest.raises(TypeError, match="Identity has no branches"):
        objective("classifier", "madsen_branches")(torch.nn.Identity(), given)


def test_the_segmenter_learns_by_cross_entropy_and_dice() -> None:
    import torch

    mask = torch.zeros(1, 1, 2, 2)
    mask[..., 0] = 1
    loss = objective("segmenter", "madsen_bce_dice")(torch.nn.Identity(), (torch.zeros(1, 1, 2, 2), mask))
    assert loss.item() == pytest.approx(np.log(2) + 1 - (2 * 1 + 1) / (2 + 2 + 1), rel=1e-6)


def test_the_detectors_losses_are_there_in_both_modes_and_the_same_in_half_precision() -> None:
    import torch

    from ai.networks.retinanet import MassRetinaNet

    torch.manual_seed(1)
    # As wide as this: where a convolution's output is one pixel wide, oneDNN is wrong on processors with AMX (torch 2.13).
    detector = MassRetinaNet(canvas=(320, 160)).eval()
    # In bfloat16 there is no place between 256 and 258.
    pixels, boxes = torch.rand(1, 1, 320, 160), [torch.tensor([[3.0, 257, 29, 290]])]
    with torch.no_grad():
        whole = detector.losses(pixels, boxes)
        with torch.autocast("cpu", torch.bfloat16):
            half = detector.losses(pixels, boxes)
    assert whole["bbox_regression"] > 0
    for name, value in whole.items():
        assert half[name].dtype == torch.float32
        assert half[name].item() == pytest.approx(value.item(), rel=0.05)


# Recipes


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"detector": {"options": {}}}, r"options\.canvas is not examples\.canvas"),
        ({"classifier": {"examples": {"side": 64}}}, r"examples\.side is not the segmenter's, 32"),
        ({"segmenter": {"examples": {"jitter": 0.5}}}, r"parts\.segmenter\.examples\.jitter"),
        ({"segmenter": {"augmentation": "thesis"}}, "there is no augmentation 'thesis'"),
    ],
)
def test_a_recipe_whose_parts_do_not_fit_is_refused(
    monkeypatch: pytest.MonkeyPatch, parts: dict[str, Any], message: str
) -> None:
    from ai.networks import registry
    from ai.training.systems import system_of

    # The hand-made detector has no canvas to be told.
    box = registry.ARCHITECTURES["bright_box"]
    monkeypatch.setitem(registry.ARCHITECTURES, "bright_box", replace(box, build=lambda canvas=(): box.build()))  # noqa: ARG005
    system_of(a_recipe())
    with pytest.raises(InvalidRecipe, match=message):
        system_of(a_recipe(**parts))


def test_the_project_has_its_recipes() -> None:
    from ai.training.recipe import open_recipe
    from ai.training.systems import system_of

    recipe = open_recipe("madsen-chapter-8/as-published")
    system_of(recipe)
    assert recipe.reader.architecture["clip_limit"] == 100

    def course(role: str) -> list[tuple[int, float, tuple[int, ...]]]:
        phases: list[Any] = list(recipe.part(role).phases)
        return [(phase.epochs, phase.learning_rate, phase.milestones) for phase in phases]

    assert course("detector") == [(20, 1e-3, ())]
    assert course("segmenter") == [(50, 1e-3, (10, 30))]
    assert course("classifier")[:2] == [(60, 1e-4, (30,)), (60, 1e-4, (30,))]
    assert course("classifier")[2][1] == 1e-7
    for name in ("madsen-chapter-8/random", "madsen-copies"):
        ours = open_recipe(name)
        system_of(ours)
        assert {part.start for part in ours.parts} == {"random"}
