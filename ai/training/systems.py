"""The systems that can be trained, by name: the one place that knows which there are."""

from collections.abc import Mapping

import torch
from pydantic import ValidationError

from ai.errors import InvalidRecipe, UnknownArchitecture
from ai.networks.registry import build
from ai.training.learners.agarwal import AGARWAL
from ai.training.learners.base import Role, System
from ai.training.learners.madsen import MADSEN
from ai.training.learners.marita import MARITA
from ai.training.learners.mass_fpn import MASS_FPN
from ai.training.learners.mass_look import MASS_LOOK
from ai.training.learners.mass_member import MASS_MEMBER
from ai.training.learners.mass_student import MASS_STUDENT
from ai.training.learners.oulu import OULU
from ai.training.phases import Part
from ai.training.recipe import Recipe
from ai.words import first_fault

SYSTEMS: Mapping[str, System] = {
    "oulu": OULU,
    "marita": MARITA,
    "agarwal": AGARWAL,
    "madsen": MADSEN,
    "mass_fpn": MASS_FPN,
    "mass_look": MASS_LOOK,
    "mass_student": MASS_STUDENT,
    "mass_member": MASS_MEMBER,
}
"""Systems by the name that a recipe gives."""


def system_of(recipe: Recipe) -> System:
    """Return a recipe's system after checking all that can be checked without an image.

    Raises
    ------
    InvalidRecipe
        When the system, a part, network, option, loss, augmentation or key of the card is not known or does not fit;
        it is named.
    """
    if recipe.system not in SYSTEMS:
        raise _invalid(recipe, f"system: there is no {recipe.system!r}; there are {', '.join(SYSTEMS)}")
    system = SYSTEMS[recipe.system]
    if [part.role for part in recipe.parts] != list(system.roles):
        raise _invalid(recipe, f"parts: {recipe.system} has {', '.join(system.roles)}, in this order")
    for part in recipe.parts:
        _check_part(recipe, part, system.roles[part.role])
    thresholds = {"mass": 0.5, **recipe.reader.thresholds}
    architecture = system.tables(recipe, {role: [f"{role}.safetensors"] for role in system.roles}, system.measures)
    for table, kind, content in (
        ("architecture", system.architecture, architecture),
        ("thresholds", system.thresholds, thresholds),
    ):
        try:
            kind.model_validate(content)
        except ValidationError as error:
            raise _invalid(recipe, f"reader.{first_fault(error, table)}") from error
    return system


def _check_part(recipe: Recipe, part: Part, role: Role) -> None:
    where = f"parts.{part.role}"
    for phase in part.phases:
        if phase.loss not in role.losses:
            raise _invalid(recipe, f"{where}: there is no loss {phase.loss!r}; there are {', '.join(role.losses)}")
    if part.augmentation not in role.augmentations:
        known = ", ".join(role.augmentations)
        raise _invalid(recipe, f"{where}: there is no augmentation {part.augmentation!r}; there are {known}")
    try:
        examples = role.examples.model_validate(part.examples)
    except ValidationError as error:
        raise _invalid(recipe, first_fault(error, where, "examples")) from error
    try:
        with torch.device("meta"):  # shapes alone: smp makes a first convolution anew, beside it
            network = build(part.network, part.options).to("meta")
            if role.input_shape is not None:
                network(torch.empty(2, *role.input_shape(examples, part)))
    except UnknownArchitecture as error:
        raise _invalid(recipe, f"{where}: {error}") from error
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        raise _invalid(
            recipe, f"{where}: {part.network} cannot be built or does not take its input: {error}"
        ) from error


def _invalid(recipe: Recipe, what: str) -> InvalidRecipe:
    return InvalidRecipe(f"{recipe.name}: {what}")
