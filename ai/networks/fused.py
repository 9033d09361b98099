"""Networks for reading alone, in which a convolution does what the batch normalisation after it did."""

from itertools import pairwise

import ai._torchvision  # noqa: F401

# isort: split
from segmentation_models_pytorch.encoders.timm_efficientnet import EfficientNetBaseEncoder
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fused(network: nn.Module) -> nn.Module:
    """Fold batch normalisation into the convolutions of a network's EfficientNet encoders, in place.

    The network is the same function up to rounding. Other encoders stay as they are: in an EfficientNet each normalisation
    comes right after the convolution that stands before it, which is not so in every network.

    Parameters
    ----------
    network
        In evaluation mode; it cannot be trained afterwards.
    """
    for encoder in [each for each in network.modules() if isinstance(each, EfficientNetBaseEncoder)]:
        for block in list(encoder.modules()):
            for (before, convolution), (after, normalisation) in pairwise(list(block.named_children())):
                if isinstance(convolution, nn.Conv2d) and isinstance(normalisation, nn.BatchNorm2d):
                    setattr(block, before, fuse_conv_bn_eval(convolution, normalisation))
                    setattr(block, after, normalisation.act)  # timm's does both
    return network
