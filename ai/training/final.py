"""The last run of a recipe: it learns from all patients, and its sibling, which held some out, tells what to expect."""

from collections.abc import Sequence
from typing import Any, Final

from ai.calibration import Calibration
from ai.datasets.records import Record
from ai.errors import InvalidRecipe
from ai.models import Model
from ai.training.card import as_in_card
from ai.training.recipe import Recipe

_ALIKE: Final = ("system", "images", "complete_exams", "parts", "reader")
"""What decides what is learnt and how it is read, the seed aside."""


def check_final(
    recipe: Recipe,
    sibling: Model,
    start: str,
    budget: int | None,
    training: Sequence[Record],
    upon: Model | None = None,
) -> None:
    """Refuse a sibling that was trained otherwise than this run would, so that its figures would tell nothing.

    What the sibling was made upon has taught this run as well; so may that model's own last run.

    Parameters
    ----------
    start
        What this run's networks start from, a last run named as its sibling (`as_sibling`).
    training
        What this run would learn from if it held out whom the sibling did.

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
    if theirs["split"].get("inner_folds") != recipe.split.folds:
        differs.append("split.folds")
    begun = sibling.card.training.start
    if begun != start and not (
        upon is not None and begun.endswith(f": {start}")
    ):  # before it, what those upon began from
        differs.append("start")
    if (sibling.card.training.patients, sibling.card.training.images) != (
        len({record.patient_id for record in training}),
        len(training),
    ):
        differs.append("images to learn from")
    if theirs.get("upon") != (None if upon is None else _sibling_of(upon)):
        differs.append("upon")
    if differs:
        raise InvalidRecipe(
            f"{recipe.name}: {name} was trained otherwise ({', '.join(differs)}), so its figures would not be this model's"
        )


def named(model: Model) -> str:
    """Return the words by which a card names another model."""
    return f"{model.card.name} {model.card.version}, {model.digest}"


def as_sibling(model: Model, words: str) -> str:
    """Return words that name a model, with its sibling's name and version in their place where it is a last run."""
    own, theirs = (each.rpartition(",")[0] for each in (named(model), _sibling_of(model)))
    return words.replace(own, theirs, 1)


def _sibling_of(model: Model) -> str:
    return str(model.card.training.plan.get("final_of", named(model)))


def calibration(sibling: Model) -> Calibration | None:
    """Return the sibling's calibration, its words told of the sibling: its population has taught this model."""
    theirs = sibling.card.calibration
    if theirs is None:
        return None
    words = f"{theirs.population} (said of {_short(sibling)}, whose calibration this is)"
    return theirs.model_copy(update={"population": words})


def selection(sibling: Model) -> tuple[str, ...]:
    """Return what was chosen on whom, told of the sibling: its figures are those that the choice made too good."""
    return tuple(f"Of {_short(sibling)}: {sentence}" for sentence in sibling.card.selection)


def threshold(sibling: Model) -> str:
    """Return the words by which a card tells how the threshold was found that goes over."""
    return f"that of {named(sibling)}: {sibling.card.training.plan['threshold']}"


def note(sibling: Model, held_out: int) -> str:
    """Return a sentence for every report; both may have one name and be of one day."""
    return (
        f"The model has learnt from all patients of its set. Its thresholds, calibration and figures are those of "
        f"{_short(sibling)}, trained alike without {held_out} of them."
    )


def _short(sibling: Model) -> str:
    return f"{sibling.card.name} {sibling.card.version} ({sibling.digest[:12]})"
