"""Benign or malignant from a mass's region, shape and margin (Madsen, sections 6.3.3 and 7.4.3)."""

from collections.abc import Mapping

import ai._torchvision  # noqa: F401

# isort: split
import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from ai.networks.weights import start, without_classifier


class ThreeBranch(nn.Module):
    """Three ResNet50, one each for the region, its margin and its shape, and a dense head on what they say.

    First each branch is trained alone with its own output (:meth:`branches`), then the head with the branches frozen,
    then everything. The head has 3,310,593 parameters.

    Parameters
    ----------
    dropout
        After each of the head's hidden layers.
    """

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        self.networks = nn.ModuleList(_trunk() for _ in range(3))
        self.outputs = nn.ModuleList(nn.Linear(2048, 1) for _ in range(3))
        self.head = nn.Sequential(
            *(
                layer
                for i, o in ((3 * 2048, 512), (512, 256), (256, 128))
                for layer in (nn.Linear(i, o), nn.ReLU(inplace=True), nn.Dropout(dropout))
            ),
            nn.Linear(128, 1),
        )

    def forward(self, region: Tensor, mask: Tensor) -> Tensor:
        """Return the logits of malignancy, shape (n,).

        Parameters
        ----------
        region
            Grey image around the mass, shape (n, 1, rows, columns), ImageNet-normalised when the start is.
        mask
            Of the mass, 0 to 1, of the same shape.
        """
        logits: Tensor = self.head(torch.cat(self._features(region, mask), 1))
        return logits[:, 0]

    def branches(self, region: Tensor, mask: Tensor) -> Tensor:
        """Return each branch's own logits, shape (n, 3): region, margin, shape."""
        features = self._features(region, mask)
        return torch.cat([output(f) for output, f in zip(self.outputs, features, strict=True)], 1)

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Start all three from one torchvision file of ResNet50.

        Raises
        ------
        ai.errors.UnusableWeights
            When the tensors do not fit.
        """
        for network in self.networks:
            start(network, without_classifier(state))

    def _features(self, region: Tensor, mask: Tensor) -> list[Tensor]:
        inputs = (region, region * (1 - mask), region * mask)
        return [network(x.expand(-1, 3, -1, -1)) for network, x in zip(self.networks, inputs, strict=True)]


def _trunk() -> nn.Module:
    network: nn.Module = resnet50(weights=None)
    network.fc = nn.Identity()
    return network
