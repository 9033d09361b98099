"""How a further network of the reader that ships is trained, which then answers together with those of a finished model.

It learns from the labels alone, as they did, and all that they say is averaged (Lakshminarayanan et al. 2017, "deep
ensembles"). Its encoder may be another: networks that err otherwise are worth more together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from ai.datasets.records import Record
from ai.errors import InvalidCard, InvalidRecipe
from ai.models import Model
from ai.readers.mass_fpn import MassFPNCard, encoders
from ai.training.learners.base import System, upon_nothing
from ai.training.learners.mass_fpn import MASS_FPN, MassFPNLearner, mass_fpn_learner
from ai.training.recipe import Recipe


def member_learner(
    upon: Model, folder: Path, records: Sequence[Record], recipe: Recipe, on_image: Callable[[], None]
) -> MassFPNLearner:
    """Bring images onto the further network's canvas.

    Raises
    ------
    InvalidDataset
        When an image or a mask cannot be used; it is named.
    InvalidRecipe
        When it would tell boxes and the model does not, or the other way round.
    """
    boxes = upon.part("architecture", MassFPNCard).boxes
    (part,) = recipe.parts
    if bool(part.options.get("boxes")) != boxes:
        raise InvalidRecipe(
            f"{recipe.name}: parts.{part.role}.options.boxes: {'true' if boxes else 'false'}, as the networks of "
            f"{upon.card.name}"
        )
    return mass_fpn_learner(folder, records, recipe, on_image)


def _upon(model: Model) -> System:
    """Return the system whose networks are a model's and one more; all see the model's canvas.

    Raises
    ------
    InvalidCard
        When the model is another reader's, looks a second time, or names more or fewer encoders than weights files.
    """
    card = model.part("architecture", MassFPNCard) if model.card.reader == MASS_FPN.reader else None
    if card is None or card.look is not None:
        raise InvalidCard(f"{model.folder}: a further network answers with a model of mass_fpn without a second look")
    there = tuple(model.weights())
    others = encoders(model, len(there))

    def tables(recipe: Recipe, files: Mapping[str, Sequence[str]], measured: Mapping[str, float]) -> Mapping[str, Any]:
        own = MASS_FPN.tables(recipe, files, measured)
        return {**own, "encoder": [*others, own["encoder"]], "canvas": list(card.canvas)}

    return replace(MASS_MEMBER, learner=partial(member_learner, model), tables=tables, carried=there)


MASS_MEMBER: Final = replace(MASS_FPN, learner=upon_nothing, upon=_upon)
"""The reader that ships, with a network more than a finished model."""
