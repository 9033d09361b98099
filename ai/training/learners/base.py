"""What every system that can be trained is to the training run."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

from torch import nn

from ai.datasets.records import Record
from ai.errors import InvalidRecipe
from ai.models import CardPart, Model
from ai.training.engine import Examples, Objective
from ai.training.phases import Part
from ai.training.recipe import Recipe

Shape = tuple[int, ...]


class Learner(Protocol):
    """A system's images, prepared once for all folds, and what its networks learn from them."""

    @property
    def measured(self) -> Mapping[str, float]:
        """What was measured on these images for the card, by the keys of :attr:`System.measures`."""

    def examples(self, part: Part, records: Sequence[Record]) -> Examples:
        """Return what a part learns from, or is validated on: that of some of the images that were prepared.

        The same records give the same examples in the same order.

        Raises
        ------
        ai.errors.InvalidDataset
            When these images have nothing for the part, such as a class without examples.
        """

    def objectives(self, part: Part) -> Mapping[str, Objective]:
        """Return losses of a part by the names of :attr:`Role.losses`."""


@dataclass(frozen=True)
class Role:
    """One network of a system, as its recipe may set it up.

    Attributes
    ----------
    examples
        Class of the part's table ``examples``.
    losses
        Names that its phases may give.
    augmentations
        Names that the part may give.
    input_shape
        What the network will be given in training, without the batch, from the checked table ``examples`` and the
        part: tried without numbers before any work. None: not tried.
    """

    examples: type[CardPart]
    losses: Collection[str]
    augmentations: Collection[str]
    input_shape: Callable[[Any, Part], Shape] | None = None


@dataclass(frozen=True)
class System:
    """A system that can be trained.

    Attributes
    ----------
    reader
        Key of :data:`ai.readers.registry.READERS`, for the card.
    statement
        Of the card's use.
    roles
        Its networks, in the order in which they are trained; a recipe has exactly these parts.
    architecture, thresholds
        Classes of the card's tables.
    learner
        Prepares images: the set's folder, every record to train on or to validate on, the recipe, and what is called
        after each image. A record that cannot be used is refused by name (InvalidDataset).
    tables
        The card's architecture, from the recipe, the weights files by role, and what was measured.
    start
        Loads the weights that a part starts with into its network, from the user's own file or model directory when
        there is one, and returns the card's word for them. It is called for parts that do not start at random.
    upon
        Makes the system that is trained upon a finished model; None where none is needed. Until then only what needs no
        model can be checked.
    carried
        Weights files of that model, which the new one keeps.
    measures
        What the learner measures, with values that pass for a check of the card before any work.
    """

    reader: str
    statement: str
    roles: Mapping[str, Role]
    architecture: type[CardPart]
    thresholds: type[CardPart]
    learner: Callable[[Path, Sequence[Record], Recipe, Callable[[], None]], Learner]
    tables: Callable[[Recipe, Mapping[str, Sequence[str]], Mapping[str, float]], Mapping[str, Any]]
    start: Callable[[nn.Module, Part, Path | None], str]
    measures: Mapping[str, float] = field(default_factory=dict)
    upon: "Callable[[Model], System] | None" = None
    carried: tuple[Path, ...] = ()


def upon_nothing(*_: Any) -> NoReturn:
    """Stand for the learner of a system that is trained upon a model, until :attr:`System.upon` has one.

    Raises
    ------
    ai.errors.InvalidRecipe
        Always.
    """
    raise InvalidRecipe("It is trained upon a finished model: name it with --upon")
