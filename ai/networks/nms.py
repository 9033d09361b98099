"""Non-maximum suppression without compiled operators."""

import numpy as np
import torch
from torch import Tensor


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Return the indices of the boxes that stay, by falling score.

    A box goes when its intersection over union with a better one that stays exceeds the threshold; of equal scores
    the first is the better. This is torchvision's rule, and its arguments' names.

    Parameters
    ----------
    boxes
        x1, y1, x2, y2 in pixels, shape (n, 4).
    scores
        Shape (n,).
    iou_threshold
        0 to 1.
    """
    order = scores.argsort(descending=True, stable=True)
    ranked = boxes[order].double()
    overlaps = (_iou(ranked) > iou_threshold).cpu().numpy()
    gone = np.zeros(len(boxes), dtype=np.bool_)
    stays = []
    for n, overlap in enumerate(overlaps):
        if not gone[n]:
            stays.append(n)
            gone = gone | overlap
    return order[torch.tensor(stays, dtype=torch.long, device=order.device)]


def _iou(boxes: Tensor) -> Tensor:
    """Return the intersection over union of each box with each; 0 where both are empty."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    first = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    last = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    common = (last - first).clamp(min=0).prod(2)
    return common / (areas[:, None] + areas[None] - common).clamp(min=torch.finfo(boxes.dtype).tiny)
