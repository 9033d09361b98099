"""What Agarwal's classifiers learn from: the reader's own windows, labelled at their centres, as many of each kind."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ai.datasets.records import Box, Record
from ai.errors import InvalidDataset, InvalidRecipe, UnusableWeights
from ai.exam import Laterality, Spacing, SpacingRule, View, ViewImage, ViewPosition
from ai.pixels import file_image
from tests.drawn import a_breast
from tests.models import a_model
from tests.seed_networks import centre_patch, network, registered

if TYPE_CHECKING:
    import torch

    from ai.training.learners.agarwal import AgarwalLearner
    from ai.training.recipe import Recipe

STRIDE = 16
SHAPE = (240, 180)
RADIUS = 17
"""Of a disc around a centre: that centre is in it and its four neighbours, 16 pixels away, the next are 22.6 away."""
MASS = (48, 112)


@pytest.fixture(autouse=True)
def networks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with registered(monkeypatch):
        yield


def a_recipe(reader: dict[str, Any] | None = None, **examples: Any) -> "Recipe":
    from ai.training.recipe import Recipe

    part = {
        "network": "centre_patch",
        "batch": 4,
        "augmentation": "agarwal",
        "examples": {"border": 8} | examples,
        "phases": [{"loss": "agarwal_entropy", "epochs": 1, "learning_rate": 1e-3}],
    }
    card = {"stride": STRIDE, "windows": "literal"} | (reader or {})
    return Recipe.model_validate(
        {
            "name": "a",
            "title": "A",
            "system": "agarwal",
            "parts": [part],
            "reader": {"architecture": card, "thresholds": {"candidate": 0.5}},
        }
    )


def a_record(folder: Path, name: str, mass: tuple[int, int] | None, *, right: bool = False) -> Record:
    """Draw an image whose mass is a disc of 17 pixels around ``mass``, x and y as in a left breast."""
    shown = a_breast(SHAPE, right=right, mass=(*mass, RADIUS) if mass else None)
    grain = np.random.default_rng(len(name)).integers(0, 9, SHAPE)
    cv2.imwrite(str(folder / name), (np.round(240 * shown) + grain * (shown > 0)).astype(np.uint8))
    boxes: tuple[Box, ...] = ()
    if mass:
        # From the centre of the first pixel to that of the last one, about the centre of the disc's own.
        x = SHAPE[1] - 1 - mass[0] if right else mass[0]
        boxes = ((x + 0.5 - RADIUS, mass[1] + 0.5 - RADIUS, 2 * RADIUS, 2 * RADIUS),)
    side = Laterality.RIGHT if right else Laterality.LEFT
    return Record(name, f"P{name}", View(side, ViewPosition.CC), boxes, malignant=bool(mass))


def learner(folder: Path, records: list[Record], recipe: "Recipe | None" = None) -> "AgarwalLearner":
    from ai.training.learners.agarwal import AgarwalLearner

    return AgarwalLearner(folder, records, recipe or a_recipe())


def every(
    folder: Path, records: list[Record], recipe: "Recipe | None" = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return all patches and labels, as they are validated."""
    chosen = recipe or a_recipe()
    examples = learner(folder, records, chosen).examples(chosen.part("network"), records)
    patches, labels = examples.batch(range(len(examples)), None)
    return patches[:, 0].numpy(), labels.numpy()


def as_read(image: ViewImage, **card: Any) -> NDArray[np.float32]:
    """Return what the reader shows its network of an image, window by window."""
    import torch

    from ai.readers.agarwal import AgarwalCard, SlidingWindow
    from ai.readers.memory import Memory

    class Watching(torch.nn.Module):
        def forward(self, patches: torch.Tensor) -> torch.Tensor:
            seen.append(patches[:, 0].numpy())
            return torch.zeros(len(patches), 2)

    seen: list[NDArray[np.float32]] = []
    given = {"network": "centre_patch", "stride": STRIDE, "windows": "literal"} | card
    SlidingWindow(AgarwalCard.model_validate(given), [Watching()], Memory(torch.device("cpu")))(image)
    return np.concatenate(seen)


def places(patches: NDArray[np.float32], windows: NDArray[np.float32], across: int) -> list[tuple[int, int]]:
    """Return which windows patches are, down and across; each is one of them but for the 16 bits that are kept."""
    found = []
    for patch in patches:
        far = np.abs(windows - patch).max((1, 2))
        assert far.min() < 1e-3
        found.append(divmod(int(far.argmin()), across))
    return found


@pytest.mark.parametrize("right", [False, True])
def test_a_patch_is_the_readers_window_and_has_a_mass_when_its_central_pixel_is_in_one(
    tmp_path: Path, *, right: bool
) -> None:
    record = a_record(tmp_path, "a.png", MASS, right=right)
    patches, labels = every(tmp_path, [record])
    windows = as_read(file_image(tmp_path / "a.png", record.view))
    where = places(patches, windows, 13)  # 180 columns: centres 0, 16, ..., 192
    column, row = MASS[0] // STRIDE, MASS[1] // STRIDE
    assert set(zip(where, labels.tolist(), strict=True)) >= {
        ((row + down, column + across), 1.0) for down, across in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))
    }
    assert labels.sum() == 5
    assert len(labels) == 10


def test_patches_without_a_mass_lie_in_the_breast_away_from_its_border_and_from_the_mass(tmp_path: Path) -> None:
    record = a_record(tmp_path, "a.png", MASS)
    patches, labels = every(tmp_path, [record], a_recipe(border=20))
    windows = as_read(file_image(tmp_path / "a.png", record.view))
    shown = a_breast(SHAPE) > 0
    from_border = cv2.distanceTransform(shown.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    found = places(patches[labels == 0], windows, 13)
    assert len(found) == len(set(found)) == 5
    for down, across in found:
        assert from_border[down * STRIDE, across * STRIDE] > 14  # the breast is told to within a few pixels
        assert np.hypot(across * STRIDE - MASS[0], down * STRIDE - MASS[1]) > RADIUS


def test_the_reader_and_training_bring_an_image_to_one_spacing(tmp_path: Path) -> None:
    from ai.training.learners.patches import windows_of

    image = ViewImage(
        "1.2.3", View(Laterality.LEFT, ViewPosition.CC), a_breast(SHAPE, mass=(*MASS, RADIUS)),
        Spacing(0.2, 0.1, SpacingRule.CALIBRATED),
    )  # fmt: skip
    mass = a_breast(SHAPE, mass=(*MASS, RADIUS)) > 0.6
    found = windows_of(image, mass, stride=STRIDE, spacing=0.1, border=8)
    assert found.mass.shape == (31, 13)  # 480 rows of 0.1 mm
    down, across = np.argwhere(found.mass).mean(0)
    assert (down, across) == (pytest.approx(2 * MASS[1] / STRIDE, abs=0.1), MASS[0] / STRIDE)
    assert found.mass.sum() > 5
    import torch

    from ai.readers.sliding import normalise

    cut = torch.from_numpy(found.positives(None, "") / np.float32(65535))[:, None]
    expected = as_read(image, spacing=0.1).reshape(31, 13, 224, 224)[found.mass]
    assert np.abs(normalise(cut)[:, 0].numpy() - expected).max() < 1e-3


def test_the_choice_of_patches_without_a_mass_hangs_on_seed_and_image_alone(tmp_path: Path) -> None:
    records = [a_record(tmp_path, name, MASS) for name in ("a.png", "bb.png", "ccc.png")]
    alone = every(tmp_path, records[1:2])[0]
    recipe = a_recipe()
    among = learner(tmp_path, records[::-1], recipe).examples(recipe.part("network"), records[1:2])
    assert (among.batch(range(10), None)[0][:, 0].numpy() == alone).all()
    other = every(tmp_path, records[1:2], recipe.model_copy(update={"seed": 2}))[0]
    assert (other[:5] == alone[:5]).all()
    assert (other[5:] != alone[5:]).any()


def test_of_a_large_mass_no_more_patches_are_taken_than_the_rule_says(tmp_path: Path) -> None:
    record = a_record(tmp_path, "a.png", MASS)
    patches, labels = every(tmp_path, [record], a_recipe(most=2))
    assert labels.tolist() == [1, 1, 0, 0]
    everyone = every(tmp_path, [record])[0][:5]
    kept = {int(np.abs(everyone - patch).max((1, 2)).argmin()) for patch in patches[:2]}
    assert len(kept) == 2
    assert all((everyone == patch).all((1, 2)).any() for patch in patches[:2])


def test_where_images_are_without_a_mass_each_of_them_gives_its_share(tmp_path: Path) -> None:
    records = [a_record(tmp_path, "a.png", MASS), a_record(tmp_path, "bb.png", MASS)]
    records += [a_record(tmp_path, f"free{number}.png", None) for number in range(4)]
    recipe = a_recipe(negatives="mass_free")
    patches, labels = every(tmp_path, records, recipe)
    assert (len(patches), labels.sum()) == (10 + 4 * 3, 10)  # round(10 / 4) = 3, not Python's 2
    system = learner(tmp_path, records, recipe)
    some = system.examples(recipe.part("network"), [records[0], *records[2:4]])
    assert len(some) == 5 + 2 * 3
    few = system.examples(recipe.part("network"), records[:3])
    assert len(few) == 10 + 6  # at most twice the share of the whole set


def test_a_set_without_a_patch_of_either_kind_is_refused_with_what_to_do(tmp_path: Path) -> None:
    mass, free = a_record(tmp_path, "a.png", MASS), a_record(tmp_path, "b.png", None)
    with pytest.raises(InvalidDataset, match=r"lower examples\.stride"):
        every(tmp_path, [free])
    with pytest.raises(InvalidDataset, match="same_images"):
        every(tmp_path, [mass], a_recipe(negatives="mass_free"))
    with pytest.raises(InvalidDataset, match=r"lower examples\.border"):
        every(tmp_path, [mass], a_recipe(border=500))


def test_an_image_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    record = a_record(tmp_path, "a.png", MASS)
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(InvalidDataset, match=r"a\.png"):
        learner(tmp_path, [record])
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros(SHAPE, np.uint8))
    with pytest.raises(InvalidDataset, match=r"a\.png: No breast"):
        learner(tmp_path, [record])


def test_random_changes_come_from_the_generator_and_bring_in_nothing_foreign(tmp_path: Path) -> None:
    record = a_record(tmp_path, "a.png", MASS)
    recipe = a_recipe()
    examples = learner(tmp_path, [record], recipe).examples(recipe.part("network"), [record])
    first, second, other = (examples.batch([0, 7, 0], np.random.default_rng(seed))[0] for seed in (5, 5, 6))
    assert first.shape == (3, 1, 224, 224)
    assert (first == second).all()
    assert (first != other).any()
    assert (first[0] != first[2]).any()  # the same patch twice is changed twice
    assert first.mean((1, 2, 3)).abs().max() < 1e-4
    assert first.std((1, 2, 3)).sub(1).abs().max() < 1e-3


def test_corners_that_a_rotation_brings_in_are_the_patch_reflected(tmp_path: Path) -> None:
    import torch

    from ai.training.learners.agarwal import PatchExamples
    from ai.training.seed_augmentation import AugmentationTable

    # Bright throughout but for 3 rows in the middle: black corners would be far below anything of the patch.
    patch = np.full((1, 224, 224), 60000, np.uint16)
    patch[:, 111:114] = 50000
    table = AugmentationTable(probability=1, rotation=(30, 30), scale=(0.75, 0.75))
    [[shown]] = PatchExamples([patch], [], table, "").batch([0], np.random.default_rng(1))[0]
    lowest = shown.min()
    assert (shown < lowest + 1).float().mean() < 0.05  # the stripe alone
    assert torch.stack([shown[:20, :20], shown[-20:, -20:]]).std() < 0.2


def test_the_loss_is_the_cross_entropy_of_both_classes(tmp_path: Path) -> None:
    import torch

    recipe = a_recipe()
    record = a_record(tmp_path, "a.png", MASS)
    objective = learner(tmp_path, [record], recipe).objectives(recipe.part("network"))["agarwal_entropy"]
    patches, labels = torch.zeros(4, 1, 224, 224), torch.tensor([1.0, 1, 1, 0])
    biased = centre_patch(0, 0, bias=float(np.log(3)))  # a mass in three of four
    expected = -(3 * np.log(0.75) + np.log(0.25)) / 4
    assert objective(biased, (patches, labels)).item() == pytest.approx(expected, rel=1e-6)


def test_other_images_and_other_cuts_have_another_fingerprint(tmp_path: Path) -> None:
    records = [a_record(tmp_path, name, MASS) for name in ("a.png", "bb.png")]

    def fingerprint(taken: list[Record], **examples: Any) -> str:
        recipe = a_recipe(**examples)
        return learner(tmp_path, taken, recipe).examples(recipe.part("network"), taken).fingerprint

    prints = [
        fingerprint(records),
        fingerprint(records[:1]),
        fingerprint(records[::-1]),
        fingerprint(records, stride=8),
    ]
    assert len(set(prints)) == 4
    assert fingerprint(records) == prints[0]
    repainted = a_record(tmp_path, "bb.png", (MASS[0], MASS[1] + STRIDE))
    assert fingerprint([records[0], repainted]) != prints[0]


def test_a_few_steps_teach_where_masses_are_and_the_reader_finds_them(tmp_path: Path) -> None:
    import torch

    from ai.exam import Exam
    from ai.readers.registry import load_reader
    from ai.training.engine import train_part
    from ai.training.phases import Part

    records = [a_record(tmp_path, f"{number}.png", (48, 96 + 16 * number), right=number == 1) for number in range(3)]
    recipe = a_recipe()
    course = {"batch": 10, "phases": [{"loss": "agarwal_entropy", "epochs": 12, "learning_rate": 0.3}]}
    part = Part.model_validate(recipe.part("network").model_dump() | course)
    system = learner(tmp_path, records, recipe)
    system_card = {"network": "centre_patch", "stride": STRIDE, "windows": "literal"}
    taught = centre_patch(0.1, 0)
    train_part(
        taught, system.objectives(part), part, system.examples(part, records[:2]), None,
        tmp_path / "run", seed=1, device=torch.device("cpu"),
    )  # fmt: skip
    model = a_model(tmp_path / "model", "agarwal", system_card, {"mass": 0.5, "candidate": 0.5}, {"model": taught})
    image = file_image(tmp_path / "2.png", records[2].view)
    [found] = load_reader(model, "cpu").read(Exam((image,))).images
    best = max(found.masses, key=lambda mass: mass.detection)
    x, y, width, height = best.box
    assert (x + width / 2, y + height / 2) == pytest.approx((48.5, 128.5), abs=8)


# Weights to start from


def begin(given: "torch.nn.Module", path: Path | None, **part: Any) -> str:
    from ai.training.learners.agarwal import AGARWAL
    from ai.training.phases import Part

    content = a_recipe().part("network").model_dump() | {"start": "imagenet"} | part
    return AGARWAL.start(given, Part.model_validate(content), path)


def test_a_network_starts_from_a_model_that_was_trained_here(tmp_path: Path) -> None:
    card = {"network": "centre_patch", "stride": STRIDE, "windows": "literal"}
    folds = {"fold-0": centre_patch(2, 3), "fold-1": centre_patch(9, 9)}
    a_model(tmp_path / "cbis", "agarwal", card, {"mass": 0.5, "candidate": 0.5}, folds)
    given = centre_patch(0, 0)
    said = begin(given, tmp_path / "cbis")
    assert said.startswith("a-model-of-agarwal 1.0, fold-0.safetensors, trained on none (")
    assert (given.slope.item(), given.middle.item()) == (2, 3)


def test_what_a_network_cannot_start_from_is_refused(tmp_path: Path) -> None:
    card = {"network": "centre_patch", "stride": STRIDE, "windows": "literal"}
    a_model(tmp_path / "oulu", "oulu", card, {"mass": 0.5}, {"model": centre_patch(1, 1)})
    a_model(tmp_path / "other", "agarwal", card | {"network": "x"}, {"mass": 0.5}, {"model": centre_patch(1, 1)})
    a_model(tmp_path / "mask", "agarwal", card, {"mass": 0.5}, {"model": network("bright_mask")})
    with pytest.raises(UnusableWeights, match="--start"):
        begin(centre_patch(0, 0), None)
    with pytest.raises(UnusableWeights, match="wanted is one of agarwal"):
        begin(centre_patch(0, 0), tmp_path / "oulu")
    with pytest.raises(UnusableWeights, match="the recipe's network is a centre_patch"):
        begin(centre_patch(0, 0), tmp_path / "other")
    with pytest.raises(UnusableWeights, match=r"model\.safetensors.*do not fit"):
        begin(centre_patch(0, 0), tmp_path / "mask")
    with pytest.raises(UnusableWeights, match=r"nowhere\.pth"):
        begin(centre_patch(0, 0), tmp_path / "nowhere.pth")
    with pytest.raises(UnusableWeights, match="gmic"):
        begin(centre_patch(0, 0), tmp_path / "oulu", start="gmic")


# Recipes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stride": 0}, r"parts\.network\.examples\.stride"),
        ({"negatives": "none"}, r"parts\.network\.examples\.negatives"),
        ({"colour": 1}, r"parts\.network\.examples\.colour"),
        ({"reader": {"windows": "quick"}}, r"reader\.architecture\.windows"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused_with_the_key(changes: dict[str, Any], message: str) -> None:
    from ai.training.systems import system_of

    with pytest.raises(InvalidRecipe, match=message):
        system_of(a_recipe(**changes))


def test_the_paper_and_its_three_networks_have_their_recipes() -> None:
    from ai.training.recipe import list_recipes
    from ai.training.systems import system_of

    ours = [recipe for recipe in list_recipes() if recipe.system == "agarwal"]
    for recipe in ours:
        system_of(recipe)
    parts = {recipe.name: recipe.part("network") for recipe in ours}
    for name in ("vgg16", "resnet50", "inception-v3"):
        for start, rate in (("imagenet", 1e-6), ("random", 1e-3)):
            part = parts[f"agarwal-table-2/{name}-{start}"]
            assert (part.start, part.batch, part.phases[0].learning_rate) == (start, 128, rate)
            assert (part.phases[0].epochs, part.phases[0].patience) == (100, 10)
            assert part.network == f"{name.replace('-', '_')}_patch"
    assert parts["agarwal-table-3/cbis-ddsm"].examples["negatives"] == "mass_free"
