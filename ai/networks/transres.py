"""TransRes U-Net: a residual U-Net with a vision transformer beside its encoder (Madsen, sections 6.3.2.3 and 7.4.2)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation and a 1x1 shortcut.

    The project's listing names the block and does not show it.
    Input: shape (n, inputs, rows, columns). Output: shape (n, outputs, rows, columns).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated sum of both paths."""
        both: Tensor = self.path(x) + self.shortcut(x)
        return both.relu()


class Attention(nn.Module):
    """Multi-head self-attention as Keras defines it: each head is as wide as the tokens, not a share of them.

    Input and output: tokens, shape (n, count, width).
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self._heads = heads
        self._dropout = dropout
        self.query, self.key, self.value = (nn.Linear(width, heads * width) for _ in range(3))
        self.output = nn.Linear(heads * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return what each token takes from all."""
        parts = (part(x) for part in (self.query, self.key, self.value))
        query, key, value = (part.unflatten(-1, (self._heads, -1)).transpose(1, 2) for part in parts)
        dropout = self._dropout if self.training else 0.0
        taken = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        mixed: Tensor = self.output(taken.transpose(1, 2).flatten(2))
        return mixed


class TransformerLayer(nn.Module):
    """One layer of listing 7.9: attention, then two dense layers with GELU, each normalised before and added after.

    Input and output: tokens, shape (n, count, width).
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.attended = nn.Sequential(nn.LayerNorm(width, 1e-6), Attention(width, heads, dropout))
        self.dense = nn.Sequential(
            nn.LayerNorm(width, 1e-6),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
            nn.GELU(),  # the Keras example that the project follows activates the last layer too
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens."""
        attended: Tensor = x + self.attended(x)
        dense: Tensor = attended + self.dense(attended)
        return dense


class TransResUNet(nn.Module):
    """A residual U-Net; at its bottom the tokens of a transformer over the same image are added, then ReLU.

    PATCH_SIZE and PROJECTION_DIM are missing in the project. The reshaping to 16 x 16 x 512 at its 256 x 256 input
    asks for 131,072 values: patches of 16 pixels and 512 numbers each put every token on its own cell.
    The upward levels double by a 2x2 transposed convolution, concatenate and go through a residual block; the listing
    names them and does not show them.

    Input: float, shape (n, 1, side, side), 0 to 1; three equal channels inside, as in the project.
    Output: mask logits, shape (n, 1, side, side).

    Parameters
    ----------
    side
        Rows and columns of the input, a multiple of the bottom's stride (16); each token's place is learned.
    widths
        Channels of the levels, finest first; the last is the bottom's and the tokens'.
    layers, heads
        Of the transformer.
    """

    def __init__(
        self, side: int = 256, widths: Sequence[int] = (32, 64, 128, 256, 512), layers: int = 8, heads: int = 4
    ) -> None:
        super().__init__()
        width, stride = widths[-1], 2 ** (len(widths) - 1)
        pairs = list(zip((3, *widths), widths, strict=False))
        self.down = nn.ModuleList(ResidualBlock(i, o) for i, o in pairs)
        self.patches = nn.Conv2d(3, width, stride, stride)
        self.places = nn.Parameter(torch.zeros(1, (side // stride) ** 2, width))
        nn.init.uniform_(self.places, -0.05, 0.05)  # as Keras starts an Embedding
        self.transformer = nn.Sequential(
            *(TransformerLayer(width, heads) for _ in range(layers)), nn.LayerNorm(width, 1e-6), nn.Dropout(0.5)
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(o, i, 2, 2) for i, o in reversed(pairs[1:]))
        self.merge = nn.ModuleList(ResidualBlock(2 * i, i) for i, _ in reversed(pairs[1:]))
        self.head = nn.Conv2d(widths[0], 1, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return mask logits."""
        x = pixels.expand(-1, 3, -1, -1)
        tokens = self.transformer(self.patches(x).flatten(2).transpose(1, 2) + self.places)
        skips: list[Tensor] = []
        for level in self.down[:-1]:
            skips.append(level(x))
            x = F.max_pool2d(skips[-1], 2)
        x = self.down[-1](x)
        x = (x + tokens.transpose(1, 2).unflatten(2, x.shape[-2:])).relu()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([skips.pop(), up(x)], 1))
        logits: Tensor = self.head(x)
        return logits
