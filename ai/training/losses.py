"""Losses of the mass network."""

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor


def focal_tversky(
    logits: Tensor, target: Tensor, w_fp: float = 0.4, w_fn: float = 0.6, exponent: float = 0.75
) -> Tensor:
    """Focal Tversky loss per image (Abraham and Khan 2019, eq. 4), averaged over the batch.

    An empty target with an empty prediction costs 0: one pixel is added to numerator and denominator.

    Parameters
    ----------
    logits, target
        Shape (n, rows, columns).
    """
    p = logits.sigmoid()
    tp, fp, fn = (p * target).sum((1, 2)), (p * (1 - target)).sum((1, 2)), ((1 - p) * target).sum((1, 2))
    return (1 - (tp + 1) / (tp + w_fp * fp + w_fn * fn + 1)).clamp(min=1e-6).pow(exponent).mean()


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
