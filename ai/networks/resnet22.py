"""ResNet22 of GMIC (Shen et al. 2021, Medical Image Analysis 68) as an encoder of smp."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import ai._torchvision  # noqa: F401

# isort: split
from segmentation_models_pytorch.encoders import encoders
from segmentation_models_pytorch.encoders._base import EncoderMixin
from torch import Tensor, nn

from ai.networks.weights import part, read_weights, start

RESNET22: Final = "resnet22"

GMIC_SHA256: Final = (
    "3b792e6de22fdccd34a43b4c1cc87a94f5f4fa8aed42722dce4e4badac347991",
    "b09da8d5c128f42f2a2589bfec5ffa28b16cb3d00fbc5d45913cbb402d05754e",
    "07800b83f06eea69c6afe05ecd83523026c391762fb6593538623acd9e715bbd",
    "775b3e29301fdf7d33f16f4ee5f5a5338a23d858572c66cb0097f678cd2cb4c1",
    "8209bef18775419e6d5575ae73a761458382aa342809fc3ff83b73e6c1fcf585",
)
"""The five published files, sample_model_1.p to sample_model_5.p, by the digests that their repository states.

They are AGPL-3.0: a user may bring one, none is shipped, and a model trained from one must say so in its card.
"""


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions, each after batch normalisation and ReLU (He et al. 2016, Identity Mappings).

    Input: shape (n, inputs, rows, columns). Output: shape (n, outputs, rows / stride, columns / stride).

    Parameters
    ----------
    inputs, outputs
        Channels.
    stride
        Of the first convolution.
    projects
        The shortcut is a 1x1 convolution of the normalised input, else the input itself.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, *, projects: bool = False) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False)) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both paths."""
        active = self.bn1(x).relu()
        shortcut: Tensor = x if self.downsample is None else self.downsample(active)
        path: Tensor = self.conv2(self.bn2(self.conv1(active)).relu())
        return path + shortcut


class ResNet22(nn.Module, EncoderMixin):  # type: ignore[misc]  # smp has no types
    """ResNet22: 7x7 stem, five stages of two blocks with 16 to 256 channels, a last batch normalisation.

    GMIC's max-pooling after the stem is left out: with it the strides are 4 to 64 and 448 rows become 111, which
    neither decoder of the Oulu papers takes. Without it they are 2 to 32, and no parameter changes. With one input
    channel there are 2,799,536, the number that the papers state. The tensors are named as in GMIC's files.

    Input: float, shape (n, 1, rows, columns), normalised by mean and standard deviation; three channels until smp
    calls ``set_in_channels``.
    Output: the input and five maps with 16, 32, 64, 128, 256 channels at strides 2, 4, 8, 16, 32.

    Parameters
    ----------
    depth
        Number of maps, 1 to 5; smp's argument.
    output_stride
        32, or 16 or 8 with dilated last stages; smp's argument.
    """

    def __init__(self, depth: int = 5, output_stride: int = 32) -> None:
        super().__init__()
        self._depth = depth
        self._output_stride = output_stride
        self._in_channels = 3
        self._out_channels = [3, 16, 32, 64, 128, 256]
        self.first_conv = nn.Conv2d(3, 16, 7, 2, 3, bias=False)
        inputs = (16, *self._out_channels[1:5])
        self.layer_list = nn.ModuleList(
            nn.Sequential(
                PreActivationBlock(i, o, 1 if i == o else 2, projects=True),
                PreActivationBlock(o, o),
            )
            for i, o in zip(inputs, self._out_channels[1:], strict=True)
        )
        self.final_bn = nn.BatchNorm2d(256)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the input and the maps."""
        features, x = [x], self.first_conv(x)
        for stage in self.layer_list[: self._depth]:
            x = stage(x)
            features.append(x)
        if self._depth == len(self.layer_list):
            features[-1] = self.final_bn(x).relu()
        return features

    def get_stages(self) -> dict[int, Sequence[nn.Module]]:
        """Return the stages that smp may dilate, by their stride."""
        return {16: [self.layer_list[3]], 32: [self.layer_list[4]]}


def register() -> str:
    """Make ResNet22 known to smp; return the name to ask for. Importing this module alone changes nothing."""
    encoders[RESNET22] = {"encoder": ResNet22, "pretrained_settings": {}, "params": {}}
    return RESNET22


def load_gmic(encoder: ResNet22, path: Path, digests: Collection[str] = GMIC_SHA256) -> None:
    """Start an encoder with one input channel from a GMIC file that the user has.

    The file holds all of GMIC; its global network is what the Oulu papers took.

    Raises
    ------
    ai.errors.UnusableWeights
        When the file is missing, has another digest, or holds no ResNet22.
    """
    start(encoder, part(read_weights(path, digests), "ds_net."))
