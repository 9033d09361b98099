"""Networks with their weights as a card names them; several files of one network are folds."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ai.errors import InvalidCard, UnusableWeights
from ai.models import CARD, CardPart, Model
from ai.networks.fused import fused
from ai.networks.registry import build
from ai.networks.weights import start
from ai.readers.memory import Elastic, Memory


class NetworkCard(CardPart):
    """The architecture table of a card: which network of ai.networks.registry.

    Attributes
    ----------
    network
        Its name.
    options
        Keyword arguments of its class.
    """

    network: str
    options: Mapping[str, Any] = Field(default_factory=dict)


class RoleCard(NetworkCard):
    """A table of a card whose model has several networks.

    Attributes
    ----------
    weights
        Its files, as ``[[weights]]`` names them.
    """

    weights: tuple[str, ...] = Field(min_length=1)


def folds(card: NetworkCard, paths: Iterable[Path], memory: Memory) -> list[nn.Module]:
    """Return one network per weights file, ready to answer.

    Parameters
    ----------
    card
        Which network.
    paths
        The weights, of any floating-point type; the networks compute in single precision.
    memory
        Where to, and how they run.

    Raises
    ------
    ai.errors.ModelError
        When there is no such network, its options are not valid, or the tensors do not fit it.
    """
    return [Elastic(fused(_network(card, path).eval()).to(memory.device), memory) for path in paths]


def weights_by_role(model: Model, roles: Mapping[str, RoleCard]) -> dict[str, list[Path]]:
    """Return the weights files of each role, compared with the card; each of the card's files has exactly one role.

    Raises
    ------
    ai.errors.ModelError
        When a role names a file that is not among the card's, a file has no role or two, or weights are missing or
        differ from the card.
    """
    named = [(role, file) for role, card in roles.items() for file in card.weights]
    files = [part.file for part in model.card.weights]
    for role, file in named:
        if file not in files or [other for _, other in named].count(file) > 1:
            why = "is not among the weights" if file not in files else "is named twice"
            raise InvalidCard(f"{model.folder / CARD}: architecture.{role}.weights: {file} {why}")
    for file in files:
        if file not in [other for _, other in named]:
            raise InvalidCard(f"{model.folder / CARD}: weights: {file} has no role")
    paths = dict(zip(files, model.weights(), strict=True))
    return {role: [paths[file] for file in card.weights] for role, card in roles.items()}


def _network(card: NetworkCard, path: Path) -> nn.Module:
    try:
        network = build(card.network, card.options)
    except (TypeError, ValueError, LookupError, RuntimeError) as error:
        raise InvalidCard(f"options of {card.network}: {error}") from error
    try:
        start(network, {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()})
    except (SafetensorError, UnusableWeights) as error:
        raise UnusableWeights(f"{path}: {error}") from error
    return network
