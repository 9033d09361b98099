"""RetinaNet (Lin et al. 2017, Focal Loss) with a ResNet50-FPN that finds masses (Madsen, section 7.4.1)."""

from collections.abc import Mapping, Sequence
from typing import Final

import ai._torchvision  # noqa: F401

# isort: split
import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import clip_boxes_to_image
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from ai.networks.nms import nms
from ai.networks.weights import start, without_classifier

MASS: Final = 1
"""Label of a mass; 0 is the background, which the project counts as a class."""


class MassRetinaNet(nn.Module):
    """torchvision's RetinaNet for one class and the background.

    The project takes TensorFlow Model Garden's with COCO weights; neither is here, this starts at random or from the
    user's file. Its images are "1024x512" and "then 640x640": the canvas says which. The suppression is ours on every
    machine, so that a machine without torchvision's compiled one finds the same.

    Parameters
    ----------
    canvas
        Rows and columns of the input; an image of this size is not scaled.
    detections
        Most of an image; the project's has "up to a 100".
    lowest
        Scores up to it are none. What has learned little gives low ones: all begin at 0.01.
    """

    def __init__(self, canvas: Sequence[int] = (1024, 512), detections: int = 100, lowest: float = 0.05) -> None:
        super().__init__()
        backbone = resnet_fpn_backbone(
            backbone_name="resnet50",
            weights=None,
            norm_layer=nn.BatchNorm2d,
            trainable_layers=5,
            returned_layers=[2, 3, 4],
            extra_blocks=LastLevelP6P7(256, 256),
        )
        self.network = _RetinaNet(
            backbone,
            num_classes=2,
            min_size=min(canvas),
            max_size=max(canvas),
            detections_per_img=detections,
            score_thresh=lowest,
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
        found: list[dict[str, Tensor]] = self.network(list(pixels.expand(-1, 3, -1, -1)))
        return found

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Start the backbone from a torchvision file of ResNet50; the pyramid and the heads stay at random.

        Raises
        ------
        ai.errors.UnusableWeights
            When the tensors do not fit.
        """
        start(self.network.backbone.body, without_classifier(state))

    def losses(self, pixels: Tensor, boxes: Sequence[Tensor]) -> Mapping[str, Tensor]:
        """Return the focal loss of the classes and the loss of the boxes, each the mean over the images.

        In the training mode and in the evaluation mode, where batch normalisation keeps what it has learned; in single
        precision whatever autocast does, anchors included: bfloat16 tells places beyond 256 pixels by 2 to 8 pixels.

        Parameters
        ----------
        pixels
            As in :meth:`forward`.
        boxes
            Of the masses of each image, shape (k, 4), k may be 0; each wider and higher than 0.
        """
        given = [{"boxes": b, "labels": b.new_full((len(b),), MASS).long()} for b in boxes]
        images, targets = self.network.transform(list(pixels.expand(-1, 3, -1, -1)), given)
        levels = list(self.network.backbone(images.tensors).values())
        outputs = {key: value.float() for key, value in self.network.head(levels).items()}
        anchors = self.network.anchor_generator(images, [level.float() for level in levels])
        losses: Mapping[str, Tensor] = self.network.compute_loss(targets, outputs, anchors)
        return losses


class _RetinaNet(RetinaNet):  # type: ignore[misc]  # torchvision has no types
    """Decodes the masses alone, and suppresses without compiled operators."""

    def postprocess_detections(
        self,
        head_outputs: Mapping[str, Sequence[Tensor]],
        anchors: Sequence[Sequence[Tensor]],
        image_shapes: Sequence[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        """Return boxes and scores of each image; the outputs and anchors come level by level."""
        found = []
        for n, shape in enumerate(image_shapes):
            boxes, scores = [], []
            levels = zip(head_outputs["cls_logits"], head_outputs["bbox_regression"], anchors[n], strict=True)
            for logits, offsets, level in levels:
                score = logits[n, :, MASS].sigmoid()
                best = score.topk(min(self.topk_candidates, len(score))).indices
                best = best[score[best] > self.score_thresh]
                scores.append(score[best])
                boxes.append(clip_boxes_to_image(self.box_coder.decode_single(offsets[n, best], level[best]), shape))
            every, score = torch.cat(boxes), torch.cat(scores)
            kept = nms(every, score, self.nms_thresh)[: self.detections_per_img]
            found.append({"boxes": every[kept], "scores": score[kept]})
        return found
