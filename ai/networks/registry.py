"""A name in a model card to a network: the one place that knows which networks exist."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from ai.errors import UnknownArchitecture
from ai.networks.mass_fpn import MassFPN
from ai.networks.mass_look import MassLook
from ai.networks.oulu import RESNET34, OuluNetwork, PlainUNet, SmpVariant
from ai.networks.patch import PatchClassifier
from ai.networks.resnet22 import RESNET22
from ai.networks.retinanet import MassRetinaNet
from ai.networks.three_branch import ThreeBranch
from ai.networks.tile_unet import TileUNet
from ai.networks.transres import TransResUNet


@dataclass(frozen=True)
class Architecture:
    """A network that a card can name.

    Attributes
    ----------
    build
        Makes it, with random weights; its keyword arguments are the options that a card may give.
    parameters
        Trainable ones, with the options left out.
    multiple
        Rows and columns of its input are multiples of this.
    masks
        Whether it gives mask logits, shape (n, 1, rows, columns), for images of one channel.
    """

    build: Callable[..., nn.Module]
    parameters: int
    multiple: int
    masks: bool = False


ARCHITECTURES: Mapping[str, Architecture] = {
    "mass_fpn": Architecture(MassFPN, 5_124_419, 32),
    "mass_look": Architecture(MassLook, 3_377_366, 32),
    # The thesis on OUDSM and INbreast; Isosalo et al. 2022. Encoder and decoder are stated one by one in the papers.
    "plain_unet": Architecture(PlainUNet, 31_036_481, 16, masks=True),
    "resnet22_unet": Architecture(partial(OuluNetwork, RESNET22, "unet"), 2_799_536 + 4_773_025, 64, masks=True),
    "resnet22_fpn": Architecture(partial(OuluNetwork, RESNET22, "fpn"), 2_799_536 + 2_338_049, 32, masks=True),
    "resnet34_unet": Architecture(partial(OuluNetwork, RESNET34, "unet"), 21_284_672 + 6_316_705, 64, masks=True),
    "resnet34_fpn": Architecture(partial(OuluNetwork, RESNET34, "fpn"), 21_284_672 + 2_460_929, 32, masks=True),
    "resnet22_smp_unet": Architecture(
        partial(SmpVariant, RESNET22, "unet"), 2_799_536 + 2_160_832 + 145, 32, masks=True
    ),
    "resnet22_smp_fpn": Architecture(partial(SmpVariant, RESNET22, "fpn"), 2_799_536 + 1_747_712 + 129, 32, masks=True),
    "resnet34_smp_unet": Architecture(
        partial(SmpVariant, RESNET34, "unet"), 21_284_672 + 3_151_552 + 145, 32, masks=True
    ),
    "resnet34_smp_fpn": Architecture(
        partial(SmpVariant, RESNET34, "fpn"), 21_284_672 + 1_870_592 + 129, 32, masks=True
    ),
    # Agarwal et al. 2019; 224 x 224.
    "vgg16_patch": Architecture(partial(PatchClassifier, "vgg16"), 134_268_738, 224),
    "resnet50_patch": Architecture(partial(PatchClassifier, "resnet50"), 23_508_032 + 4_098, 224),
    "inception_v3_patch": Architecture(partial(PatchClassifier, "inception_v3"), 21_785_568 + 4_098, 224),
    # Marita et al.
    "tile_unet": Architecture(TileUNet, 91_238_241, 64, masks=True),
    # Madsen.
    "retinanet_resnet50_fpn": Architecture(MassRetinaNet, 32_221_814, 32),
    "transres_unet": Architecture(TransResUNet, 50_665_281, 16, masks=True),
    "three_branch_resnet50": Architecture(ThreeBranch, 3 * (23_508_032 + 2_049) + 3_310_593, 32),
}
"""Networks by the name that a card gives."""


def build(name: str, options: Mapping[str, Any] | None = None) -> nn.Module:
    """Make a network with random weights.

    Parameters
    ----------
    name
        One of :data:`ARCHITECTURES`.
    options
        Keyword arguments of its class, as in a card's ``[architecture.options]``.

    Raises
    ------
    UnknownArchitecture
        When there is no such network, or it has no such option.
    """
    if name not in ARCHITECTURES:
        raise UnknownArchitecture(f"{name!r}; there are {', '.join(sorted(ARCHITECTURES))}")
    known = inspect.signature(ARCHITECTURES[name].build).parameters
    for option in options or {}:
        if option not in known:
            raise UnknownArchitecture(f"{name} has no option {option!r}; it has {', '.join(known) or 'none'}")
    return ARCHITECTURES[name].build(**(options or {}))
