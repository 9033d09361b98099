"""RetinaNet (Lin et al. 2017, Focal Loss) with a ResNet50-FPN that finds masses (Madsen, section 7.4.1)."""

from collections.abc import Mapping, Sequence
from typing import Final

import ai._torchvision  # noqa: F401

# isort: split
from torch import Tensor, nn
from torchvision.models.detection import retinanet_resnet50_fpn

from ai.networks.nms import complete_torchvision

MASS: Final = 1
"""Label of a mass; 0 is the background, which the project counts as a class."""


class MassRetinaNet(nn.Module):
    """torchvision's RetinaNet for one class and the background.

    The project takes TensorFlow Model Garden's with COCO weights; neither is here, this starts at random or from the
    user's file. Its images are "1024x512" and "then 640x640": the canvas says which.

    Parameters
    ----------
    canvas
        Rows and columns of the input; an image of this size is not scaled.
    """

    def __init__(self, canvas: Sequence[int] = (1024, 512)) -> None:
        super().__init__()
        complete_torchvision()
        self.network = retinanet_resnet50_fpn(
            weights=None, weights_backbone=None, num_classes=2, min_size=min(canvas), max_size=max(canvas)
        )

    def forward(self, pixels: Tensor) -> list[dict[str, Tensor]]:
        """Return each image's detections by falling score; for the evaluation mode.

        Parameters
        ----------
        pixels
            Shape (n, 1, rows, columns), 0 to 1; normalised inside as ImageNet's.

        Returns
        -------
        list
            Per image ``boxes``, shape (k, 4), x1, y1, x2, y2 in pixels, and ``scores``, shape (k,), 0 to 1.
        """
        found = self.network(list(pixels.expand(-1, 3, -1, -1)))
        return [{key: image[key][image["labels"] == MASS] for key in ("boxes", "scores")} for image in found]

    def losses(self, pixels: Tensor, boxes: Sequence[Tensor]) -> Mapping[str, Tensor]:
        """Return the focal loss of the classes and the loss of the boxes; for the training mode.

        Parameters
        ----------
        pixels
            As in :meth:`forward`.
        boxes
            Of the masses of each image, shape (k, 4), k may be 0.
        """
        targets = [{"boxes": b, "labels": b.new_full((len(b),), MASS).long()} for b in boxes]
        losses: Mapping[str, Tensor] = self.network(list(pixels.expand(-1, 3, -1, -1)), targets)
        return losses
