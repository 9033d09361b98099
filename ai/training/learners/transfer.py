"""Weights that a network starts from: the user's own file of torchvision's, or a model that was trained here."""

import hashlib
from pathlib import Path
from typing import Final

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ai.errors import UnusableWeights
from ai.models import CARD, open_model
from ai.networks.weights import read_weights
from ai.networks.weights import start as copy
from ai.training.phases import Part

SINGLE: Final = "network"
"""The role of a system's only network."""


def trained_or_imagenet(network: nn.Module, part: Part, path: Path | None, *, reader: str) -> str:
    """Start a network from torchvision's file of ImageNet weights, or from the same network of a trained model.

    Parameters
    ----------
    network
        With ``load_imagenet``.
    part
        It starts with ``imagenet``; with a model directory the weights are the model's, whatever that started from.
    path
        The file, or the model's directory; of several folds the first is taken.
    reader
        Which the model must have been made for.

    Returns
    -------
    str
        What the card says.

    Raises
    ------
    UnusableWeights
        When there is no path, or what it holds does not fit.
    ai.errors.ModelError
        When the model cannot be used.
    """
    if part.start != "imagenet":
        raise UnusableWeights(f'{part.network} starts with "random" or "imagenet", not {part.start!r}')
    if path is None:
        raise UnusableWeights(
            f"{part.role}: start = imagenet needs the torchvision file of {part.network}'s weights, or a model that was "
            "trained here: give --start"
        )
    if path.is_dir():
        return trained(network, part, path, reader=reader)
    digest = _digest(path)
    getattr(network, "load_imagenet")(read_weights(path, {digest}))  # noqa: B009 (not every network has it)
    return f"ImageNet, {path.name}, SHA-256 {digest}"


def trained(network: nn.Module, part: Part, path: Path, *, reader: str) -> str:
    """Start a network from the same network of a trained model.

    Parameters
    ----------
    network, part, reader
        As for :func:`trained_or_imagenet`.
    path
        The model's directory; of several folds the first is taken.

    Returns
    -------
    str
        What the card says.

    Raises
    ------
    UnusableWeights
        When there is no model, or it is another reader's or network's.
    ai.errors.ModelError
        When the model cannot be used.
    """
    if not (path / CARD).is_file():
        raise UnusableWeights(f"{path} is no model directory: there is no {CARD} in it")
    model = open_model(f"{path}/")
    card = model.card
    if card.reader != reader:
        raise UnusableWeights(f"{model.folder} is a model of {card.reader}, wanted is one of {reader}")
    table = card.architecture if part.role == SINGLE else card.architecture[part.role]
    if (there := table.get("network", part.network)) != part.network:
        raise UnusableWeights(f"{model.folder} has a {there}, the recipe's {part.role} is a {part.network}")
    files = dict(zip((weights.file for weights in card.weights), model.weights(), strict=True))
    first = next(iter(files if part.role == SINGLE else table["weights"]))
    try:
        copy(
            network,
            {
                key: value.float() if value.is_floating_point() else value
                for key, value in load_file(files[first]).items()
            },
        )
    except (SafetensorError, UnusableWeights) as error:
        raise UnusableWeights(f"{files[first]}: {error}") from error
    before = card.training
    return f"{card.name} {card.version}, {first}, trained on {before.data} ({before.licence}), from {before.start}"


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UnusableWeights(f"{path}: {error.strerror}") from error
