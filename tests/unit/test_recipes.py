"""Recipes: the files that come along, rows and files that extend others, and what is refused before any work."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ai.errors import InvalidRecipe, UnusableWeights
from ai.training.recipe import Recipe, list_recipes, open_recipe

MINE = """
title = "Mine"
system = "oulu"
[parts.network]
network = "plain_unet"
options = { widths = [2, 4] }
batch = 2
[parts.network.examples]
canvas = [32, 32]
[parts.network.phases.first]
loss = "thesis_focal_tversky_05"
epochs = 2
learning_rate = 1e-3
[reader.thresholds]
mass = 0.5
candidate = 0.5
"""


@pytest.fixture(scope="module")
def shipped() -> dict[str, Recipe]:
    return {recipe.name: recipe for recipe in list_recipes()}


def write(folder: Path, content: str, name: str = "mine.toml") -> str:
    (folder / name).write_text(content, encoding="utf-8")
    return str(folder / name)


def test_every_row_of_every_table_is_there(shipped: dict[str, Recipe]) -> None:
    rows = Counter(name.partition("/")[0] for name in shipped)
    assert {table: rows[table] for table in rows if table.startswith(("thesis", "spie", "marita", "mass"))} == {
        "thesis-table-5": 14,
        "thesis-table-6": 10,
        "thesis-table-7": 14,
        "thesis-table-8": 12,
        "thesis-table-9": 14,
        "thesis-table-10": 10,
        "spie-table-2": 4,
        "marita-table-1": 5,
        "mass-fpn": 4,
        "mass-fpn-cbis-ddsm": 1,
        "mass-fpn-lite2": 1,
        "mass-look": 1,
        "mass-member": 1,
        "mass-student": 2,
    }


def test_a_row_is_its_tables_course_with_its_own_network_and_loss(shipped: dict[str, Recipe]) -> None:
    recipe = shipped["thesis-table-5/r34unet-bcej"]
    (part,) = recipe.parts
    assert (part.network, part.start, part.augmentation, part.batch) == ("resnet34_unet", "imagenet", "thesis", 32)
    (phase,) = part.phases
    assert (phase.loss, phase.epochs, phase.learning_rate, phase.weight_decay) == ("thesis_bce_jaccard", 50, 1e-4, 1e-4)
    assert (phase.milestones, phase.factor) == ((20, 30, 40), 0.1)
    assert (recipe.split.parts, recipe.split.folds, recipe.complete_exams, recipe.images) == (4, 5, True, "all")
    assert recipe.published == {"inbreast": {"dice": 0.776, "accuracy": 0.377, "specificity": 0.193, "f1": 0.423}}


def test_a_file_that_extends_another_has_its_own_figures_alone(shipped: dict[str, Recipe]) -> None:
    five, seven, nine = (shipped[f"thesis-table-{n}/r22fpn-ft07"] for n in (5, 7, 9))
    assert seven.parts == five.parts == nine.parts
    assert (five.images, seven.images, nine.images) == ("all", "masses", "all")
    assert seven.published == {"inbreast": {"dice": 0.783, "accuracy": 0.810, "specificity": 0.815, "f1": 0.667}}
    assert nine.published == {"oudsm": {"dice": 0.702, "accuracy": 0.819, "specificity": 0.916, "f1": 0.369}}
    assert (five.same_as, nine.same_as) == ("", "thesis-table-5/r22fpn-ft07")


def test_spie_learns_in_two_phases_and_freezes_the_encoder_for_two_epochs(shipped: dict[str, Recipe]) -> None:
    first, second = shipped["spie-table-2/r34fpn"].parts[0].phases
    assert (first.loss, first.epochs, first.frozen, first.frozen_epochs) == ("spie_combination", 20, ("encoder",), 2)
    # After 40, 50 and 60 of 80 epochs.
    assert (second.loss, second.epochs, second.milestones) == ("spie_focal_tversky", 60, (20, 30, 40))


# The name that smp wants instead gives the encoder's tensors other keys.
@pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning")
def test_what_comes_along_passes_its_check(shipped: dict[str, Recipe]) -> None:
    from ai.training.systems import system_of

    seen = set()
    for recipe in shipped.values():
        # Building a network takes its time, and the rows of a table differ in losses.
        key = repr([(p.network, p.options, p.augmentation, p.examples) for p in recipe.parts])
        if key not in seen and not recipe.name.startswith(("agarwal", "madsen")):
            system_of(recipe)
            seen.add(key)
    assert len(seen) >= 10


def test_a_file_of_ones_own_may_extend_a_row_and_change_what_it_likes(tmp_path: Path) -> None:
    recipe = open_recipe(
        write(tmp_path, 'extends = "thesis-table-5/r22fpn-ft07"\n[parts.network.phases.all]\nepochs = 41\n')
    )
    assert recipe.name == "mine.toml"
    assert recipe.parts[0].network == "resnet22_fpn"
    assert (recipe.parts[0].phases[0].epochs, recipe.parts[0].phases[0].loss) == (41, "thesis_focal_tversky_07")
    assert (recipe.table, recipe.published) == ("", {})


def test_a_file_may_extend_a_file_beside_it_and_have_rows(tmp_path: Path) -> None:
    write(tmp_path, MINE, "base.toml")
    name = write(
        tmp_path, 'extends = "base.toml"\n[rows.slow.parts.network.phases.first]\nlearning_rate = 1e-5\n[rows.plain]\n'
    )
    assert open_recipe(f"{name}#slow").parts[0].phases[0].learning_rate == 1e-5
    assert open_recipe(f"{name}#plain").parts[0].phases[0].learning_rate == 1e-3


def test_other_deals_and_random_starts(shipped: dict[str, Recipe]) -> None:
    recipe = shipped["spie-table-2/r34fpn"]
    assert recipe.dealt(part=2, folds=None).split.model_dump() == {
        "seed": 1,
        "parts": 5,
        "part": 2,
        "folds": 5,
        "file": None,
    }
    with pytest.raises(InvalidRecipe, match="no part 5 of 5"):
        recipe.dealt(part=5)
    assert [part.start for part in recipe.at_random().parts] == ["random"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("", "colour = 1\n", "colour: there is no such key"),
        ('system = "oulu"', 'system = "olou"', "no 'olou'; there are oulu, marita"),
        ("plain_unet", "plain_knot", r"parts\.network: .*'plain_knot'; there are"),
        ("widths", "depths", "plain_unet has no option 'depths'"),
        ("thesis_focal_tversky_05", "mass_loss", "no loss 'mass_loss'; there are thesis_bce_jaccard"),
        ("batch = 2", 'batch = 2\naugmentation = "agarwal"', "no augmentation 'agarwal'; there are thesis"),
        ("batch = 2", "batch = 0", r"parts\.network\.batch: Input should be greater than 0"),
        ("canvas = [32, 32]", "canvas = [32, 40]", "canvas: takes multiples of 16, not 32 x 40"),
        ("canvas = [32, 32]", "side = 32", r"examples\.side: there is no such key"),
        ("parts.network", "parts.detector", "parts: oulu has network"),
        ("candidate = 0.5", "candidat = 0.5", r"reader\.thresholds\.candidat"),
        ("epochs = 2", "epochs = 2\nmilestones = [1]", "milestones"),
        ("epochs = 2", "epochs = 2\nepoch = 3", r"parts\.network\.phases\.first\.epoch: there is no such key"),
        ('title = "Mine"', 'title = "Mine"\nname = "x"', "the file and the row are its name"),
        ('title = "Mine"', "title = ", "mine.toml: "),
        ('title = "Mine"', 'title = "Mine"\nextends = "mine.toml"', "extends itself"),
        ('title = "Mine"', 'title = "Mine"\nextends = "thesis-table-5/r99"', "has no row 'r99'"),
    ],
)
def test_what_is_wrong_is_named_before_any_work(tmp_path: Path, old: str, new: str, message: str) -> None:
    from ai.training.systems import system_of

    content = MINE.replace(old, new) if old else new + MINE
    name = write(tmp_path, content)
    with pytest.raises(InvalidRecipe, match=message):
        system_of(open_recipe(name))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("thesis-table-4/x", "no 'thesis-table-4/x'; there are .*thesis-table-5"),
        ("thesis-table-5/x", "no row 'x'; there are unet-bcej"),
        ("thesis-table-5", "name one, as thesis-table-5/unet-bcej"),
        ("nowhere.toml", "nowhere.toml: No such file"),
    ],
)
def test_a_recipe_that_is_not_there_is_refused_by_name(name: str, message: str) -> None:
    with pytest.raises(InvalidRecipe, match=message):
        open_recipe(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("spie-table-2/r22fpn", "GMIC's files.*--start FILE, or --start random"),
        ("spie-table-2/r34fpn", "torchvision file.*--start"),
    ],
)
def test_a_start_that_needs_a_file_says_which(shipped: dict[str, Recipe], name: str, message: str) -> None:
    from ai.networks.registry import build
    from ai.training.systems import SYSTEMS

    (part,) = shipped[name].parts
    with pytest.raises(UnusableWeights, match=message):
        SYSTEMS["oulu"].start(build(part.network, part.options), part, None)


# The name that smp wants instead gives the encoder's tensors other keys.
@pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning")
def test_a_start_that_cannot_be_followed_is_not_passed_over(shipped: dict[str, Recipe], tmp_path: Path) -> None:
    from ai.networks.registry import build
    from ai.training.systems import SYSTEMS

    (part,) = shipped["mass-fpn/lite0"].parts
    with pytest.raises(UnusableWeights, match=r"mine\.pth: .*leave out --start"):
        SYSTEMS["mass_fpn"].start(build(part.network, part.options), part, tmp_path / "mine.pth")
    (part,) = shipped["agarwal-table-3/cbis-ddsm"].parts
    network = build("plain_unet", {"widths": [2, 4]})  # not looked at
    with pytest.raises(UnusableWeights, match=r"is no model directory: there is no card\.toml"):
        SYSTEMS["agarwal"].start(network, part, tmp_path)


def test_a_resnet34_starts_from_the_users_own_file(shipped: dict[str, Recipe], tmp_path: Path) -> None:
    import torch

    from ai.networks.registry import build
    from ai.training.systems import SYSTEMS

    (part,) = shipped["spie-table-2/r34fpn"].parts
    one, two = build(part.network), build(part.network)
    encoder: Any = one.encoder
    torch.save(encoder.state_dict(), tmp_path / "resnet34.pth")
    word = SYSTEMS["oulu"].start(two, part, tmp_path / "resnet34.pth")
    assert word.startswith("ImageNet, resnet34.pth, SHA-256 ")
    other: Any = two.encoder
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
