"""What the last run of a model that was made upon others may be made upon, and begin with."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import tomlkit

from ai.datasets.records import Record
from ai.errors import InvalidRecipe
from ai.exam import STANDARD_VIEWS
from ai.models import CARD, Model, model_folders, open_model
from ai.training.card import as_in_card
from ai.training.final import as_sibling, check_final, named
from ai.training.recipe import open_recipe

MADE_BY = {"mass_fpn": "mass-fpn/boxes", "mass_member": "mass-member"}
"""The recipe of what ships, by its system."""
BEGUN = "mass-fpn-lite2 2026.11.30, fold-0.safetensors"


@pytest.fixture
def sibling() -> Model:
    return open_model("mass-fpn-pair")


def learnt(sibling: Model) -> Sequence[Record]:
    """Return as many images of as many patients as have taught it."""
    training = sibling.card.training
    return [Record(f"{n}", f"P{n % training.patients}", STANDARD_VIEWS[0]) for n in range(training.images)]


def last_run_of(model: Model, folder: Path) -> Model:
    """Return a model whose card says that it is the last run of another."""
    shutil.copytree(model.folder, folder)
    card = tomlkit.parse((folder / CARD).read_text(encoding="utf-8")).unwrap()
    card["name"] = "whole"
    card["training"]["plan"]["final_of"] = named(model)
    (folder / CARD).write_text(tomlkit.dumps(card), encoding="utf-8")
    return open_model(f"{folder}/")


def check(sibling: Model, start: str, upon: Model | None) -> None:
    check_final(open_recipe("mass-member"), sibling, start, None, learnt(sibling), upon)


def test_what_ships_was_made_by_the_recipes_and_can_have_a_last_run_by_them() -> None:
    for folder in model_folders():
        model = open_model(folder.name)
        plan, start = model.card.training.plan, model.card.training.start.rpartition("; network: ")[2]
        recipe = open_recipe(MADE_BY[plan["system"]])
        ours = as_in_card(recipe.model_dump(mode="json"))
        for key in ("parts", "reader", "images"):
            assert ours[key] == plan[key], (folder.name, key)
        if "final_of" not in plan:
            upon = open_model(plan["upon"].partition(" ")[0]) if "upon" in plan else None
            check_final(recipe, model, start, None, learnt(model), upon)


def test_the_first_network_that_ships_has_learnt_for_as_many_epochs_as_its_recipe_says() -> None:
    from safetensors.numpy import load_file

    model = open_model("mass-fpn-boxes")
    [part] = open_recipe("mass-fpn/boxes").parts
    counted = [int(v.item()) for k, v in load_file(model.weights()[0]).items() if k.endswith("num_batches_tracked")]
    assert max(counted) == part.epochs * (model.card.training.images // part.batch)


def test_it_is_made_upon_the_same_model_or_that_ones_last_run(sibling: Model, tmp_path: Path) -> None:
    first = open_model("mass-fpn-boxes")
    start = sibling.card.training.start.partition("; network: ")[2]
    assert start.startswith(BEGUN)
    for upon in (first, last_run_of(first, tmp_path / "whole")):
        check(sibling, start, upon)
    for other in (None, sibling, last_run_of(sibling, tmp_path / "other")):
        with pytest.raises(InvalidRecipe, match=r"trained otherwise \((start, )?upon\)"):
            check(sibling, start, other)
    with pytest.raises(InvalidRecipe, match=r"trained otherwise \(start\)"):
        check(sibling, "EfficientNet-Lite2, ImageNet", first)


def test_what_it_begins_with_may_be_a_last_run_too(tmp_path: Path) -> None:
    first = open_model("mass-fpn-boxes")
    whole = last_run_of(first, tmp_path / "whole")
    words = "{}, fold-0.safetensors, trained on films"
    own, theirs = (words.format(f"{model.card.name} {model.card.version}") for model in (whole, first))
    assert own != theirs
    assert as_sibling(whole, own) == theirs
    assert as_sibling(first, theirs) == theirs
