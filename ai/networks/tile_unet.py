"""The U-Net of Marita et al. for tiles of 1024 pixels that are reduced to 256."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn


class TileUNet(nn.Module):
    """U-Net with 91,238,241 trainable parameters and 24,256 others (section III.B and figure 3).

    Six levels down with two convolutions each, a bottom with two, and six levels up with three, all 3x3 with bias, batch
    normalisation and ReLU; doubling by nearest neighbour has no parameters. The figure is not legible in the text; this
    layout follows from both counts. One other has them as well: a 3x3 convolution after doubling, then two.

    Input: float, shape (n, 1, rows, columns), 0 to 1, rows and columns multiples of 64 (the paper: 256).
    Output: mask logits, shape (n, 1, rows, columns).

    Parameters
    ----------
    dropout
        0 or .25 in the paper, which does not say where: here of the pooled maps.
    widths
        Channels of the levels, finest first, and of the bottom.
    """

    def __init__(self, dropout: float = 0.25, widths: Sequence[int] = (32, 64, 128, 256, 512, 1024, 1024)) -> None:
        super().__init__()
        pairs = list(zip((1, *widths), widths, strict=False))
        self.down = nn.ModuleList(_convolutions(i, o, 2) for i, o in pairs)
        self.up = nn.ModuleList(_convolutions(i + o, i, 3) for i, o in reversed(pairs[1:]))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Conv2d(widths[0], 1, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return mask logits."""
        skips = [self.down[0](pixels)]
        for level in self.down[1:]:
            skips.append(level(self.dropout(F.max_pool2d(skips[-1], 2))))
        x = skips.pop()
        for level in self.up:
            x = level(torch.cat([F.interpolate(x, scale_factor=2.0), skips.pop()], 1))
        logits: Tensor = self.head(x)
        return logits


def _convolutions(inputs: int, outputs: int, count: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in (inputs, *[outputs] * (count - 1)):
        layers += [nn.Conv2d(i, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
