"""Patch classifiers of Agarwal et al. 2019 (J Med Imaging 6(3)): VGG16, ResNet50, InceptionV3 at 224 pixels."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

import ai._torchvision  # noqa: F401

# isort: split
from torch import Tensor, nn
from torchvision.models import inception_v3, resnet50, vgg16

from ai.networks.weights import start

PATCH: Final = 224
"""Rows and columns of a patch."""
MASS: Final = 1
"""Which logit is the mass's."""
STRIDE: Final = 32
"""Pixels between the cells of :meth:`PatchClassifier.dense`, for all three networks."""


class PatchClassifier(nn.Module):
    """No mass or mass at a patch's central pixel.

    Input: float, shape (n, 1, 224, 224), zero mean and unit deviation over the patch (global contrast normalisation);
    the grey image three times inside.
    Output: logits, shape (n, 2): 0 no mass, 1 mass; softmax over them.

    Parameters
    ----------
    name
        ``vgg16``, ``resnet50`` or ``inception_v3``; random, weights come from the user's own files.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.trunk, self.head = _PARTS[name]()

    def forward(self, patches: Tensor) -> Tensor:
        """Return one pair of logits per patch."""
        maps: Tensor = self.trunk(patches.expand(-1, 3, -1, -1))
        logits: Tensor = self.head(maps)
        return logits.flatten(1)

    def dense(self, pixels: Tensor) -> Tensor:
        """Return the logits of all windows of 224 pixels at every 32nd row and column, in one pass.

        Cell (i, j) is the window whose first pixel is (32 i, 32 j). On one patch it equals :meth:`forward`. On more it
        differs in two ways. A patch alone is padded with zeros at its border, in every layer, where the window in the
        image has its surroundings; neither network is free of padding, so that no convolutional form equals the
        sliding window. And the image is normalised once, by the caller, not each window by itself.
        It costs a sixteenth of the paper's windows at every 56th pixel, which no form with stride 32 hits.

        Parameters
        ----------
        pixels
            Shape (n, 1, rows, columns), at least 224 each.

        Returns
        -------
        Tensor
            Shape (n, 2, (rows - 224) // 32 + 1, (columns - 224) // 32 + 1).
        """
        rows, columns = ((size - PATCH) // STRIDE * STRIDE + PATCH for size in pixels.shape[-2:])
        logits: Tensor = self.head(self.trunk(pixels[..., :rows, :columns].expand(-1, 3, -1, -1)))
        return logits

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Start from a torchvision file of the same network; only the last layer stays as it is.

        Raises
        ------
        ai.errors.UnusableWeights
            When the tensors do not fit.
        """
        own, last = self.state_dict(), f"head.{len(self.head) - 1}."
        given = {k: v for k, v in own.items() if k.startswith(last)}
        for name, value in state.items():
            if name.startswith(("fc.", "classifier.6.", "AuxLogits.")):
                continue
            dense = name.startswith("classifier.")  # VGG16's dense layers are convolutions here
            target = name.replace("classifier.", "head.") if dense else "trunk." + name.removeprefix("features.")
            given[target] = value.reshape(own[target].shape) if dense and target in own else value
        start(self, given)


def _vgg16() -> tuple[nn.Module, nn.Sequential]:
    network = vgg16(weights=None)
    first, second = network.classifier[0], network.classifier[3]
    head = nn.Sequential(
        nn.Conv2d(512, first.out_features, 7),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Conv2d(second.in_features, second.out_features, 1),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Conv2d(second.out_features, 2, 1),
    )
    return network.features, head


def _resnet50() -> tuple[nn.Module, nn.Sequential]:
    network = resnet50(weights=None)
    return _trunk(network), _pooled(7)


def _inception_v3() -> tuple[nn.Module, nn.Sequential]:
    network = inception_v3(weights=None, aux_logits=False, init_weights=False)
    return _trunk(network), _pooled(5)


def _trunk(network: nn.Module) -> nn.Sequential:
    """Return the layers before global pooling, under the names that torchvision's files give them."""
    last = {"avgpool", "dropout", "fc"}
    return nn.Sequential(OrderedDict((k, v) for k, v in network.named_children() if k not in last))


def _pooled(cells: int) -> nn.Sequential:
    """Return the mean over the cells of one patch, and a dense layer as a 1x1 convolution."""
    return nn.Sequential(nn.AvgPool2d(cells, 1), nn.Conv2d(2048, 2, 1))


_PARTS: Final = {"vgg16": _vgg16, "resnet50": _resnet50, "inception_v3": _inception_v3}
