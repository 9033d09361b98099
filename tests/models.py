"""Model directories for tests: untrained or hand-made networks as safetensors, with a card that fits them."""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomlkit

from ai.models import CARD, Model, open_model

if TYPE_CHECKING:
    from torch import nn


FIRST = "mass-fpn-boxes"
"""The first network of the model that ships, alone: half the time, for tests that need some model that finds masses."""


def a_quick_model(folder: Path) -> Model:
    """Copy that network with a quarter of its pixels, at which it is less sure: a finding in each view of phantom 3."""
    shutil.copytree(open_model(FIRST).folder, folder)
    path = folder / CARD
    card = tomlkit.parse(path.read_text(encoding="utf-8"))
    card["architecture"]["canvas"] = [384, 256]
    card["thresholds"]["mass"] = 0.1
    path.write_text(tomlkit.dumps(card), encoding="utf-8")
    return open_model(f"{folder}/")


def a_model(
    folder: Path,
    reader: str,
    architecture: Mapping[str, Any],
    thresholds: Mapping[str, float],
    networks: "Mapping[str, nn.Module]",
) -> Model:
    """Write a model directory and open it.

    Parameters
    ----------
    folder
        Where; made when it is not there.
    reader, architecture, thresholds
        For the card.
    networks
        Networks whose tensors become the weights, by the file's name without its suffix, in the card's order.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = []
    for name, network in networks.items():
        file = folder / f"{name}.safetensors"
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, file)
        weights.append({"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()})
    card = {
        "name": f"a-model-of-{reader}",
        "version": "1.0",
        "reader": reader,
        "licence": "Apache-2.0",
        "architecture": dict(architecture),
        "thresholds": dict(thresholds),
        "use": {"statement": "Research use only.", "notes": ["The model is not trained."]},
        "training": {
            "data": "none",
            "licence": "none",
            "attribution": "none",
            "start": "random",
            "patients": 0,
            "images": 0,
            "plan": {},
        },
        "weights": weights,
    }
    (folder / CARD).write_text(tomlkit.dumps(card), encoding="utf-8")
    return open_model(str(folder))


def untrained(name: str, options: Mapping[str, Any] | None = None, seed: int = 0) -> "nn.Module":
    """Make a network of ai.networks.registry whose random weights hang on the seed alone."""
    import torch

    from ai.networks.registry import build

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(name, options)


def by_brightness(network: "nn.Module", slope: float, offset: float) -> "nn.Module":
    """Set a network's weights so that its logits are slope times the input, where that is above 0, and the offset.

    Every convolution but the last hands its input on, every batch normalisation leaves it alone; so it takes a
    network of one channel and one level: ``plain_unet`` and ``tile_unet`` with the option ``widths = [1]``.
    """
    import torch
    from torch import nn

    convolutions = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
    with torch.no_grad():
        for part in convolutions:
            part.weight.zero_()
            part.weight[0, 0, part.kernel_size[0] // 2, part.kernel_size[1] // 2] = 1
            if part.bias is not None:
                part.bias.zero_()
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                assert norm.running_var is not None
                norm.running_var.fill_(1 - norm.eps)
        convolutions[-1].weight.mul_(slope)
        assert convolutions[-1].bias is not None
        convolutions[-1].bias.fill_(offset)
    return network
