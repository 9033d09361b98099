"""The losses of the five papers, each with its weights, exponent and smoothing by name.

p is the sigmoid of the logits, y the mask, 0 or 1. Sums run over the pixels of one image, or over the whole batch where
it says "pooled". Every docstring says what an image without a mass costs: smp's losses cost nothing there and leave no
pressure against false marks, and three quarters of the images have no mass.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]
"""Float32 logits and mask of shape (n, 1, rows, columns), or labels of shape (n,), to a number."""


class Reduction(StrEnum):
    """What the sums of a ratio run over."""

    BATCH = "batch"
    """All pixels of the batch are one set."""
    IMAGE = "image"
    """Each image has its ratio; their losses are averaged."""


@dataclass(frozen=True)
class FocalTversky:
    """(1 - TI) ^ exponent with TI = (TP + s) / (TP + w_fp FP + w_fn FN + s).

    TP = sum of p y, FP = sum of p (1 - y), FN = sum of (1 - p) y. The papers call either weight alpha: here both have
    names. The papers do not say what the sums run over; the thesis' "maximum value of 1" fits the batch.

    No mass in the sums: TI = s / (w_fp FP + s). With s = 1 the loss falls from nearly 1 to 0 as the false marks go, so
    there is a gradient; with a tiny s it stays at 1 without a gradient until nothing at all is marked.

    Attributes
    ----------
    w_fp, w_fn
        Weights of what is marked wrongly and of what is missed, 0 or more.
    exponent
        Above 1 the gradient vanishes as TI nears 1, below 1 it grows.
    smooth
        s, in pixels, above 0.
    reduction
        What the sums run over.
    """

    w_fp: float
    w_fn: float
    exponent: float
    smooth: float = 1.0
    reduction: Reduction = Reduction.BATCH

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        p, y = _pixels(logits.sigmoid(), self.reduction), _pixels(target, self.reduction)
        tp, fp, fn = (p * y).sum(1), (p * (1 - y)).sum(1), ((1 - p) * y).sum(1)
        index = (tp + self.smooth) / (tp + self.w_fp * fp + self.w_fn * fn + self.smooth)
        # The slope of x ^ 0.75 at 0 is infinite, and infinity times 0 is not a number.
        return (1 - index).clamp(min=1e-7).pow(self.exponent).mean()


@dataclass(frozen=True)
class BCEJaccard:
    """Binary cross-entropy plus the soft Jaccard loss of the images that have a mass (thesis eq. 4 to 6; Collagen).

    J = (sum of p y + 1e-15) / (sum of p + sum of y - sum of p y + 1e-15) per image, then its mean over the images with a
    mass, as the group's code has it. Equation 4 lacks a bracket, and equation 6 takes the sigmoid of a sum.

    No mass in an image: it counts in the cross-entropy alone; no mass in the batch: the loss is the cross-entropy.

    Attributes
    ----------
    log
        -log J, the default of the code, and not 1 - J, which the thesis writes.
    """

    log: bool = False

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        entropy = F.binary_cross_entropy_with_logits(logits, target)
        index = soft_jaccard(logits, target)
        if index is None:
            return entropy
        return entropy - index.log() if self.log else entropy + 1 - index


@dataclass(frozen=True)
class CombinationLoss:
    """(1 - w) BCE - w J (Isosalo et al. 2022, eq. 1), which goes down to -w.

    Equation 2 writes J as a mean of ratios per pixel; it is the ratio of sums, as in :class:`BCEJaccard`.

    No mass in an image: it counts in the cross-entropy alone; no mass in the batch: J is 0.

    Attributes
    ----------
    weight
        w, 0 to 1.
    """

    weight: float = 0.5

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        loss = (1 - self.weight) * F.binary_cross_entropy_with_logits(logits, target)
        index = soft_jaccard(logits, target)
        return loss if index is None else loss - self.weight * index


@dataclass(frozen=True)
class BalancedBCEDice:
    """Class-balanced binary cross-entropy, the Dice loss, or both (Marita et al., section III.B).

    The paper gives "different weights to black and white pixels" and no values: here each white pixel weighs as many
    black ones as there are for it in the batch, at most ``cap``. Dice = 1 - (2 TP + 1) / (sum of p + sum of y + 1),
    pooled over the batch as Keras code commonly is; it needs no weights, being blind to true black pixels.

    No mass in the batch: no pixel has a weight but 1, and Dice falls from nearly 1 to 0 as the marks go.

    Attributes
    ----------
    entropy, dice
        Factors of the two parts; 0 leaves a part out.
    cap
        Largest weight of a white pixel; 1 switches the balance off.
    """

    entropy: float = 1.0
    dice: float = 1.0
    cap: float = 20.0

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        white = target.sum()
        weight = ((target.numel() - white) / white.clamp(min=1)).clamp(max=self.cap)
        entropy = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight)
        p = logits.sigmoid()
        index = (2 * (p * target).sum() + 1) / (p.sum() + white + 1)
        return self.entropy * entropy + self.dice * (1 - index)


@dataclass(frozen=True)
class SmoothedBCE:
    """Binary cross-entropy with smoothed labels, as Keras does it: y (1 - smoothing) + smoothing / 2.

    Attributes
    ----------
    smoothing
        0 to 1; with .25 the labels are .125 and .875.
    """

    smoothing: float = 0.25

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        return F.binary_cross_entropy_with_logits(logits, target * (1 - self.smoothing) + self.smoothing / 2)


@dataclass(frozen=True)
class PatchEntropy:
    """Cross-entropy of the softmax over no mass and mass (Agarwal et al. 2019).

    Logits have the shape (n, 2), labels (n,), 0 or 1.
    """

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        return F.cross_entropy(logits, target.long())


def soft_jaccard(logits: Tensor, target: Tensor) -> Tensor | None:
    """Return the mean soft Jaccard index of the images with a mass, 0 to 1; None when none has one."""
    p, y = _pixels(logits.sigmoid(), Reduction.IMAGE), _pixels(target, Reduction.IMAGE)
    some = y.sum(1) > 0
    if not some.any():
        return None
    p, y = p[some], y[some]
    common = (p * y).sum(1)
    return ((common + 1e-15) / (p.sum(1) + y.sum(1) - common + 1e-15)).mean()


def _pixels(values: Tensor, reduction: Reduction) -> Tensor:
    return values.reshape(1 if reduction is Reduction.BATCH else len(values), -1)


FT_A: Final = FocalTversky(w_fp=0.7, w_fn=0.3, exponent=1.4)
"""The thesis' "alpha = 0.7, beta = 0.3, gamma = 1.4": against false marks."""
FT_B: Final = FocalTversky(w_fp=0.5, w_fn=0.5, exponent=1.0)
"""The thesis' "alpha = beta = 0.5, gamma = 1": a Dice loss."""
FT_SPIE: Final = FocalTversky(w_fp=0.3, w_fn=0.7, exponent=0.75, smooth=1e-7)
"""Isosalo et al. (eq. 3 and 4), "alpha = 0.7, gamma = 4/3": against misses."""

SEED_LOSSES: Final[Mapping[str, Loss]] = {
    "thesis_bce_jaccard": BCEJaccard(),
    "collagen_bce_jaccard": BCEJaccard(log=True),
    "thesis_focal_tversky_07": FT_A,
    "thesis_focal_tversky_05": FT_B,
    "spie_combination": CombinationLoss(),
    "spie_focal_tversky": FT_SPIE,
    "agarwal_entropy": PatchEntropy(),
    "marita_bce": BalancedBCEDice(dice=0),
    "marita_bce_dice": BalancedBCEDice(),
    "marita_dice": BalancedBCEDice(entropy=0),
    "madsen_bce_dice": BalancedBCEDice(cap=1),  # its mass segmentation's loss is not stated
    "madsen_smoothed_bce": SmoothedBCE(),
}
"""The papers' settings by the name that a recipe gives."""
