"""Network of the second look: a square around one candidate, nearer than the first network saw it."""

from typing import Final, NamedTuple

import ai._torchvision  # noqa: F401

# isort: split
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from ai.networks.mass_fpn import LITE0

_REACH: Final = 0.25
"""Of the square's side: what a unit of the network's output moves the box's middle."""
_NATURAL: Final = 0.5
"""Of the square's side: the box's sides when the network says 0; a candidate fills half of its square."""


class LookOutputs(NamedTuple):
    """What the network says of squares.

    Attributes
    ----------
    mass
        Logits that a mass is in the middle, shape (n,).
    malignant
        Logits that it is malignant, if it is one, shape (n,).
    boxes
        x1, y1, x2, y2 of the mass, in sides of the square from its upper left corner, shape (n, 4).
    """

    mass: Tensor
    malignant: Tensor
    boxes: Tensor


class MassLook(nn.Module):
    """An encoder whose last two stages are averaged over the square and over its inner half.

    Input: squares, float, shape (n, 1, side, side), -1 to 1, the side a multiple of 32; logarithms of the candidates' width
    and height in canvas pixels, shape (n, 2), since all squares look equally large.
    Output: :class:`LookOutputs`.

    Parameters
    ----------
    encoder
        Name of an smp encoder. Nothing is downloaded: weights come from our own files.
    dropout
        Before the output, 0 to 1.
    """

    def __init__(self, encoder: str = LITE0, dropout: float = 0.3) -> None:
        super().__init__()
        self.encoder = smp.encoders.get_encoder(encoder, in_channels=1, weights=None)
        width = 2 * sum(self.encoder.out_channels[-2:]) + 2
        last = nn.Linear(width, 6)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Dropout(dropout), last)

    def forward(self, squares: Tensor, sizes: Tensor) -> LookOutputs:
        """Return what the network says of the squares."""
        seen = self.encoder(squares)[-1:-3:-1]
        parts = [part for stage in seen for part in (_inner(stage).mean((2, 3)), stage.mean((2, 3)))]
        said = self.head(torch.cat([*parts, sizes], 1)).float()
        middle = 0.5 + _REACH * said[:, 2:4]
        half = _NATURAL * said[:, 4:].clamp(-2, 1).exp() / 2
        return LookOutputs(said[:, 0], said[:, 1], torch.cat([middle - half, middle + half], 1))


def _inner(stage: Tensor) -> Tensor:
    edge = stage.shape[-1] // 4
    return stage[..., edge : stage.shape[-1] - edge, edge : stage.shape[-1] - edge]
