"""Losses of the mass network."""

from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor


def focal_tversky(logits: Tensor, target: Tensor) -> Tensor:
    """Focal Tversky loss per image (Abraham and Khan 2019, eq. 4), a miss dearer than an excess; mean of the batch.

    An empty target with an empty prediction costs 0: one pixel is added to numerator and denominator.

    Parameters
    ----------
    logits, target
        Shape (n, rows, columns).
    """
    p = logits.sigmoid()
    tp, fp, fn = (p * target).sum((1, 2)), (p * (1 - target)).sum((1, 2)), ((1 - p) * target).sum((1, 2))
    return (1 - (tp + 1) / (tp + 0.4 * fp + 0.6 * fn + 1)).clamp(min=1e-6).pow(0.75).mean()


def mass_loss(maps: Tensor, image: Tensor, mass: Tensor, mass_malignant: Tensor, image_malignant: Tensor) -> Tensor:
    """Sum of the losses of the three outputs.

    Parameters
    ----------
    maps
        Logits, shape (n, 2, rows, columns).
    image
        Logits, shape (n,).
    mass
        0 or 1, shape (n, rows, columns).
    mass_malignant
        1 or 0 where all masses of the image agree, NaN where unknown; shape (n,).
    image_malignant
        1 or 0, NaN where unknown; shape (n,).
    """
    positive = torch.tensor(3.0, device=maps.device)  # a mass covers some 1 % of the canvas
    total = F.binary_cross_entropy_with_logits(maps[:, 0], mass, pos_weight=positive) + focal_tversky(maps[:, 0], mass)
    weight = mass * (~mass_malignant.isnan())[:, None, None]
    label = mass_malignant.nan_to_num()[:, None, None].expand_as(mass)
    inside = F.binary_cross_entropy_with_logits(maps[:, 1], label, weight=weight, reduction="none").sum((1, 2))
    area = weight.sum((1, 2))
    total = total + 0.5 * (inside / area.clamp(min=1)).sum() / (area > 0).sum().clamp(min=1)
    known = ~image_malignant.isnan()
    if known.any():
        total = total + 0.5 * F.binary_cross_entropy_with_logits(image[known], image_malignant[known])
    return total


PEAK: Final = 4.5
"""Fall of a centre's map: exp(-4.5) of it is left at the edge of the box, a Gaussian whose deviation is a sixth of a side."""
INNER: Final = 0.25
"""Squared distance from the middle, in half sides, within which a cell tells the box."""


def box_loss(centres: Tensor, distances: Tensor, boxes: Tensor, stride: int) -> Tensor:
    """Loss of the centres (Zhou et al. 2019, eq. 1, exponents 2 and 4) and of the boxes (generalised IoU, Rezatofighi 2019).

    The first is divided by the number of boxes in the batch. The second is the mean over the cells in the inner half of a
    box, each weighted by how near the middle it is.

    Parameters
    ----------
    centres
        Logits, shape (n, rows, columns).
    distances
        Canvas pixels from a cell's middle to the left, upper, right and lower edge, shape (n, 4, rows, columns).
    boxes
        x1, y1, x2, y2 in canvas pixels, shape (n, k, 4); rows of NaN are none.
    stride
        Canvas pixels per cell.
    """
    there = ~boxes.isnan().any(2)
    corners = boxes.nan_to_num()
    rows, columns = centres.shape[1:]
    y = (torch.arange(rows, device=centres.device) + 0.5)[:, None] * stride
    x = (torch.arange(columns, device=centres.device) + 0.5)[None] * stride
    middle = (corners[..., :2] + corners[..., 2:]) / 2
    half = ((corners[..., 2:] - corners[..., :2]) / 2).clamp(min=stride)
    away = ((x - middle[..., 0, None, None]) / half[..., 0, None, None]) ** 2 + (
        (y - middle[..., 1, None, None]) / half[..., 1, None, None]
    ) ** 2
    away = away.masked_fill(~there[..., None, None], torch.inf)
    nearest, which = away.min(1) if boxes.shape[1] else (away.new_full(centres.shape, torch.inf), None)
    heat = (-PEAK * nearest).exp()
    # The cell with the middle in it is the centre.
    cell = (middle / stride).floor().long()
    inside = there & (cell >= 0).all(2) & (cell[..., 0] < columns) & (cell[..., 1] < rows)
    image, box = inside.nonzero(as_tuple=True)
    heat[image, cell[image, box, 1], cell[image, box, 0]] = 1.0
    p = centres.sigmoid()
    found = F.logsigmoid(centres) * (1 - p) ** 2
    empty = F.logsigmoid(-centres) * p**2 * (1 - heat) ** 4
    total = -torch.where(heat == 1, found, empty).sum() / inside.sum().clamp(min=1)
    if which is None or not inside.any():
        return total
    weight = torch.where(nearest < INNER, heat, 0.0)
    weight[image, cell[image, box, 1], cell[image, box, 0]] = 1.0
    picked = which.flatten(1)[..., None].expand(-1, -1, 4)
    truth = corners.gather(1, picked).transpose(1, 2).reshape(len(boxes), 4, rows, columns)
    told = torch.stack([x - distances[:, 0], y - distances[:, 1], x + distances[:, 2], y + distances[:, 3]], 1)
    return total + ((1 - generalised_iou(told, truth)) * weight).sum() / weight.sum()


def generalised_iou(one: Tensor, other: Tensor) -> Tensor:
    """Return the generalised IoU (Rezatofighi 2019) of boxes, shape (n, 4, …), neither of which is empty."""

    def area(low: Tensor, high: Tensor) -> Tensor:
        return (high - low).clamp(min=0).prod(1)

    common = area(torch.maximum(one[:, :2], other[:, :2]), torch.minimum(one[:, 2:], other[:, 2:]))
    union = (area(one[:, :2], one[:, 2:]) + area(other[:, :2], other[:, 2:]) - common).clamp(min=1e-6)
    hull = area(torch.minimum(one[:, :2], other[:, :2]), torch.maximum(one[:, 2:], other[:, 2:])).clamp(min=1e-6)
    return common / union - (hull - union) / hull
