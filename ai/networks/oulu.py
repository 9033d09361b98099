"""The networks of the Oulu papers: a U-Net or an FPN decoder over ResNet22 or ResNet34, and a plain U-Net.

The thesis on OUDSM and INbreast (section 3.2) and Isosalo et al. (SPIE 2022). Their decoders are those of the group's
library Collagen (MIT licence); rebuilt here, since smp's differ in every layer. The parameter counts that the papers
state, 4,773,025 and 2,338,049, hold at ResNet22's widths.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import ai._torchvision  # noqa: F401

# isort: split
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn

from ai.networks.resnet22 import RESNET22, register
from ai.networks.weights import start, without_classifier

RESNET34: Final = "resnet34"
CHANNELS: Final[Mapping[str, int]] = {RESNET22: 1, RESNET34: 3}
"""Input channels of the encoders; three are the grey image three times."""


def convolution(inputs: int, outputs: int, *, bias: bool = False) -> nn.Sequential:
    """Return a 3x3 convolution with batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def two_convolutions(inputs: int, outputs: int) -> nn.Sequential:
    """Return two of them."""
    return nn.Sequential(convolution(inputs, outputs), convolution(outputs, outputs))


class UNetDecoder(nn.Module):
    """Collagen's U-Net decoder: a centre one level below the encoder, then five levels with concatenated maps.

    Each level doubles rows and columns bilinearly (corners aligned), then convolves twice. Spatial dropout
    (Tompson et al. 2015) takes whole channels before the last 1x1 convolution.

    Input: five maps at strides 2 to 32 of an image with rows and columns that are multiples of 64.
    Output: logits, shape (n, 1, rows, columns).

    Parameters
    ----------
    widths
        Channels of the five maps, finest first.
    dropout
        Share of channels that are zeroed in training, 0 to 1.
    """

    def __init__(self, widths: Sequence[int], dropout: float = 0.2) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = widths
        self.centre = two_convolutions(c5, 256)
        self.levels = nn.ModuleList(
            two_convolutions(i, o)
            for i, o in ((c5 + 256, 256), (c4 + 256, 256), (c3 + 256, 64), (c2 + 64, 64), (c1 + 64, 32))
        )
        self.dropout = nn.Dropout2d(dropout)
        self.head = nn.Conv2d(32, 1, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits."""
        x = self.centre(_doubled(F.max_pool2d(features[-1], 2)))
        for level, feature in zip(self.levels, reversed(features), strict=True):
            x = level(_doubled(torch.cat([x, feature], 1)))
        logits: Tensor = self.head(self.dropout(x))
        return logits


class FPNDecoder(nn.Module):
    """Collagen's FPN decoder: sums from the top down, then a head on each of four levels, concatenated.

    Lateral 1x1 convolutions to 256 channels, doubled by nearest neighbour and added; heads to 128 channels that
    reach stride 4 by doubling after each convolution; a 3x3 convolution over the 512 channels, spatial dropout, a 1x1
    convolution, and four times up, bilinearly with the corners aligned.

    Input: maps at strides 2 to 32 of an image with rows and columns that are multiples of 32; the finest is not used.
    Output: logits, shape (n, 1, rows, columns).

    Parameters
    ----------
    widths
        Channels of the five maps, finest first.
    dropout
        Share of channels that are zeroed in training, 0 to 1.
    """

    def __init__(self, widths: Sequence[int], dropout: float = 0.2) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(width, 256, 1) for width in reversed(widths[1:]))
        self.heads = nn.ModuleList(_head(doublings) for doublings in (3, 2, 1, 0))
        self.assembly = convolution(512, 128, bias=True)
        self.dropout = nn.Dropout2d(dropout)
        self.head = nn.Conv2d(128, 1, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits."""
        outputs: list[Tensor] = []
        x: Tensor | None = None
        for lateral, head, feature in zip(self.laterals, self.heads, reversed(features[1:]), strict=True):
            x = lateral(feature) if x is None else F.interpolate(x, scale_factor=2.0) + lateral(feature)
            outputs.append(head(x))
        logits = self.head(self.dropout(self.assembly(torch.cat(outputs, 1))))
        return F.interpolate(logits, scale_factor=4.0, mode="bilinear", align_corners=True)


class OuluNetwork(nn.Module):
    """One of the papers' four networks.

    Input: float, shape (n, 1, rows, columns), normalised by the training set's mean and standard deviation; ResNet34
    gets it three times, as the papers did, which gives its 21,284,672 parameters.
    Output: mask logits, shape (n, 1, rows, columns).

    Parameters
    ----------
    encoder
        ``resnet22`` or ``resnet34``; random, weights come from the user's own files. A recipe may freeze it.
    decoder
        ``unet`` (rows and columns multiples of 64) or ``fpn`` (of 32).
    dropout
        Spatial dropout of the decoder.
    """

    DECODERS: Final = {"unet": UNetDecoder, "fpn": FPNDecoder}

    def __init__(self, encoder: str, decoder: str, dropout: float = 0.2) -> None:
        super().__init__()
        register()
        self._channels = CHANNELS[encoder]
        self.encoder = smp.encoders.get_encoder(encoder, in_channels=self._channels, weights=None)
        self.decoder = self.DECODERS[decoder](self.encoder.out_channels[1:], dropout)

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Start a ResNet34 encoder from a torchvision file; a ResNet22 starts by :func:`load_gmic`.

        Raises
        ------
        ai.errors.UnusableWeights
            When the tensors do not fit.
        """
        start(self.encoder, without_classifier(state))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return mask logits."""
        logits: Tensor = self.decoder(self.encoder(pixels.expand(-1, self._channels, -1, -1))[1:])
        return logits


class SmpVariant(nn.Module):
    """smp's own U-Net or FPN over the same encoders, to compare: their decoders are smaller.

    Input and output as in :class:`OuluNetwork`; rows and columns multiples of 32.

    Parameters
    ----------
    encoder
        ``resnet22`` or ``resnet34``.
    decoder
        ``unet`` or ``fpn``.
    """

    ARCHITECTURES: Final = {"unet": smp.Unet, "fpn": smp.FPN}

    def __init__(self, encoder: str, decoder: str) -> None:
        super().__init__()
        register()
        self._channels = CHANNELS[encoder]
        self.network = self.ARCHITECTURES[decoder](encoder, encoder_weights=None, in_channels=self._channels)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return mask logits."""
        logits: Tensor = self.network(pixels.expand(-1, self._channels, -1, -1))
        return logits


class PlainUNet(nn.Module):
    """The thesis' baseline: a U-Net (Ronneberger et al. 2015) with batch normalisation, random start, no dropout.

    The figure with its filter sizes is lost from the text: these are the original's. Convolutions are padded, so
    that the output has the input's size.

    Input: float, shape (n, 1, rows, columns), rows and columns multiples of 16.
    Output: mask logits, shape (n, 1, rows, columns).

    Parameters
    ----------
    widths
        Channels of the levels, finest first.
    """

    def __init__(self, widths: Sequence[int] = (64, 128, 256, 512, 1024)) -> None:
        super().__init__()
        pairs = list(zip((1, *widths), widths, strict=False))
        self.down = nn.ModuleList(two_convolutions(i, o) for i, o in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(o, i, 2, 2) for i, o in reversed(pairs[1:]))
        self.merge = nn.ModuleList(two_convolutions(2 * i, i) for i, _ in reversed(pairs[1:]))
        self.head = nn.Conv2d(widths[0], 1, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return mask logits."""
        skips = [self.down[0](pixels)]
        for level in self.down[1:]:
            skips.append(level(F.max_pool2d(skips[-1], 2)))
        x = skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([skips.pop(), up(x)], 1))
        logits: Tensor = self.head(x)
        return logits


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)


def _head(doublings: int) -> nn.Sequential:
    layers: list[nn.Module] = [convolution(256, 128)]
    for n in range(doublings):
        layers += ([convolution(128, 128)] if n else []) + [nn.Upsample(scale_factor=2.0)]
    return nn.Sequential(*layers)
