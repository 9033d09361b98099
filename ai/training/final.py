"""The last run of a recipe: it learns from all patients, and its sibling, which held some out, tells what to expect."""

from typing import Any, Final

from ai.errors import InvalidRecipe
from ai.models import Model
from ai.training.card import as_in_card
from ai.training.recipe import Recipe

_ALIKE: Final = ("system", "images", "complete_exams", "parts", "reader")
"""What decides what is learnt and how it is read, the seed aside."""


def check_final(recipe: Recipe, sibling: Model, start: str, budget: int | None) -> None:
    """Refuse a sibling that was trained otherwise than this run would, so that its figures would tell nothing.

    Raises
    ------
    InvalidRecipe
        When it was, or the recipe has inner folds; what differs is named.
    """
    name = sibling.card.name
    if recipe.split.folds != 1:
        raise InvalidRecipe(f"{recipe.name}: split.folds: a last run has one (--folds 1)")
    theirs = sibling.card.training.plan
    ours: dict[str, Any] = as_in_card({**recipe.model_dump(mode="json"), "budget": budget})
    differs = [key for key in (*_ALIKE, "budget") if ours.get(key) != theirs.get(key)]
    if sibling.card.training.start != start:
        differs.append("start")
    if "upon" in theirs:
        differs.append("upon")
    if differs:
        raise InvalidRecipe(
            f"{recipe.name}: {name} was trained otherwise ({', '.join(differs)}), so its figures would not be this model's"
        )


def named(sibling: Model) -> str:
    """Return the words by which a card names the sibling."""
    return f"{sibling.card.name} {sibling.card.version}, {sibling.digest}"


def note(sibling: Model, held_out: int) -> str:
    """Return a sentence for every report."""
    return (
        f"The model has learnt from all patients of its set. Its thresholds, calibration and figures are those of "
        f"{sibling.card.name} {sibling.card.version}, trained alike without {held_out} of them."
    )
