"""The gate before any model: simple, explainable checks of the pixels, each with a threshold and the figure behind it.

A false refusal silences the reader on a woman's exam, and a false pass gives nonsense: an image is refused only where no
mammogram that was measured comes near the threshold, and everything less clear is a warning (rule R13). What headers
alone tell, such as a view modifier or a magnification (rule R12), is judged before any pixel is decoded, in ``node``.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ai.appearance import Appearance
from ai.checks import Check
from ai.exam import Side, ViewImage, ViewPosition

STATISTICS = ("area", "solidity", "proportion", "top_width", "brightness", "spread", "bright", "plateau", "texture")
"""What an image is compared in with those of the reference; no side, no view, no count of grey levels."""


@dataclass(frozen=True)
class GatePolicy:
    """Thresholds, chosen on film alone: CBIS-DDSM, the 979 images of parts 1 to 4 of the patients' split.

    Figures in brackets: the most extreme of these images, or the part of them beyond the threshold. Those of the
    images that were kept, and of every other source, are in docs/gate.md.

    Attributes
    ----------
    inverted_bright, inverted_dark
        Inverted: more of the image than the first is bright (at most 0.24), and less than the second is dark.
    noise
        Noise: larger texture (at most 0.20).
    gap, straight
        No chest wall: a larger gap than the first between the breast and the nearer side of the image (at most 0.026),
        and no side of the outline as straight as the second (at least 0.70; an ellipse has 0.46).
    filled
        Filled: a larger part of the image is taken for breast (at most 0.71).
    outline
        No outline: filled, and straight along both the left and the right side by more than this (at most 0.59; 0.64 on
        the side of the nipple in any mammogram measured). Of 245 films from which a tenth of the breast was cut off above,
        below and at the nipple none is refused, of those that lost a fifth 7 %: partial views, which headers should
        tell (rule R12).
    turned
        Turned: straight along the upper or lower side by more than this, compared with left and right (at most 0.09),
        or Patient Orientation says so.
    lopsided
        Side: this much less of the breast, or less still, lies in the half of the image where Patient Orientation has
        the chest wall; -1 to 1. Film has none, so that nothing could be measured.
    mlo_cut, mlo_corner
        View: a CC that is cut off above by more than the first, with a corner brighter than the second (0.2 % of CC
        and MLO together).
    cc_cut, cc_corner
        View: an MLO with less of both (0.1 %).
    small
        Small: a smaller area (at least 0.063).
    cut, cut_far, cut_corner
        Cut: the lower border cuts off more of the breast's width than the first, or the far side more of its height
        than the second; so does the upper border in CC, and in MLO where the corner is darker than the third, and no
        muscle tells why. Of an image that is turned this is not asked (1.1 %).
    plateau
        Bright area: larger (0.1 %).
    clipped
        Clipped: a larger part (0.4 %).
    levels
        Few levels: fewer (at least 145).
    unlike
        Unlike: farther from the reference, in standard deviations of it (1 %).
    """

    inverted_bright: float = 0.3
    inverted_dark: float = 0.1
    noise: float = 0.6
    gap: float = 0.08
    straight: float = 0.5
    filled: float = 0.8
    outline: float = 0.9
    turned: float = 0.15
    lopsided: float = -0.3
    mlo_cut: float = 0.25
    mlo_corner: float = 1.15
    cc_cut: float = 0.1
    cc_corner: float = 0.9
    small: float = 0.055
    cut: float = 0.6
    cut_far: float = 0.35
    cut_corner: float = 0.95
    plateau: float = 0.2
    clipped: float = 0.05
    levels: int = 64
    unlike: float = 6.1


@dataclass(frozen=True, eq=False)
class Reference:
    """Statistics of the images that others are compared with.

    Attributes
    ----------
    mean
        Of each of ``STATISTICS``, shape (n,).
    covariance
        Shape (n, n).
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    @classmethod
    def of(cls, seen: Iterable[Appearance]) -> "Reference":
        """Return the reference that images make."""
        rows = np.array([each.vector(STATISTICS) for each in seen])
        return cls(rows.mean(0), np.cov(rows.T))

    def distance(self, seen: Appearance) -> float:
        """Return the Mahalanobis distance of an image, in standard deviations; about 3 for one of the reference's own."""
        off = seen.vector(STATISTICS) - self.mean
        return float(np.sqrt(off @ np.linalg.solve(self.covariance, off)))

    def as_json(self) -> str:
        """Return it as text, as it is kept in ``gate_reference.json``."""
        return json.dumps(
            {
                "statistics": STATISTICS,
                "mean": [float(f"{value:.6g}") for value in self.mean],
                "covariance": [[float(f"{value:.6g}") for value in row] for row in self.covariance],
            },
            indent=1,
        )


@cache
def shipped_reference() -> Reference:
    """Return the reference that ``benchmarks/gate.py --write-reference`` made of the training images."""
    kept = json.loads((files("ai") / "gate_reference.json").read_text(encoding="utf-8"))
    if tuple(kept["statistics"]) != STATISTICS:
        raise ValueError("gate_reference.json is of other statistics: python benchmarks/gate.py --write-reference")
    return Reference(np.array(kept["mean"]), np.array(kept["covariance"]))


def noticed(image: ViewImage, seen: Appearance, policy: GatePolicy, reference: Reference) -> tuple[Check, ...]:
    """Return what an image's statistics tell, in the order of ``Check``; its pixels are not looked at again."""
    found = {*pixel_checks(image, seen, policy)}
    if reference.distance(seen) > policy.unlike:
        found.add(Check.UNLIKE)
    return tuple(check for check in Check if check in found)


def pixel_checks(image: ViewImage, seen: Appearance, policy: GatePolicy) -> Iterator[Check]:
    """Yield what the statistics of an image tell, apart from its distance to the reference."""
    cc = image.view.position is ViewPosition.CC
    upright, lying = max(seen.left, seen.right), max(seen.top, seen.bottom)
    filled = seen.area > policy.filled
    turned = lying - upright > policy.turned or image.chest_wall in (Side.TOP, Side.BOTTOM)
    # In MLO the border always cuts the axilla off, and the muscle in the corner tells that it did so there.
    cut_top = seen.cut_top if cc or seen.corner < policy.cut_corner else 0.0
    found = {
        Check.INVERTED: seen.bright > policy.inverted_bright and seen.dark < policy.inverted_dark,
        Check.NOISE: seen.texture > policy.noise,
        Check.NO_CHEST_WALL: seen.gap > policy.gap and max(upright, lying) < policy.straight,
        # Towards the nipple the outline of a breast is curved.
        Check.NO_OUTLINE: filled and min(seen.left, seen.right) > policy.outline,
        Check.FILLED: filled,
        Check.TURNED: turned,
        Check.SIDE: _on_other_side(image, seen, policy),
        Check.VIEW: not turned and _like_other_view(image, seen, policy),
        Check.SMALL: seen.area < policy.small,
        Check.CUT: not turned and (max(seen.cut_bottom, cut_top) > policy.cut or seen.cut_far > policy.cut_far),
        Check.PLATEAU: seen.plateau > policy.plateau,
        Check.CLIPPED: seen.clipped > policy.clipped,
        Check.FEW_LEVELS: seen.levels < policy.levels,
    }
    yield from (check for check, noticed in found.items() if noticed)


def _on_other_side(image: ViewImage, seen: Appearance, policy: GatePolicy) -> bool:
    """Tell whether the breast lies where Patient Orientation has the nipple; without it nothing is told."""
    towards = {Side.LEFT: seen.heavier, Side.RIGHT: -seen.heavier}
    return image.chest_wall in towards and towards[image.chest_wall] <= policy.lopsided


def _like_other_view(image: ViewImage, seen: Appearance, policy: GatePolicy) -> bool:
    """Tell whether a CC is cut off above and has the muscle's bright corner, or an MLO has neither."""
    if image.view.position is ViewPosition.CC:
        return seen.cut_top > policy.mlo_cut and seen.corner > policy.mlo_corner
    return seen.cut_top < policy.cc_cut and seen.corner < policy.cc_corner


def twins(images: Sequence[ViewImage]) -> frozenset[str]:
    """Return the UIDs of images whose pixels another image of the exam has too: one picture sent as two views."""
    return frozenset(
        uid
        for one, other in combinations(images, 2)
        if np.array_equal(one.pixels[::64, ::64], other.pixels[::64, ::64]) and np.array_equal(one.pixels, other.pixels)
        for uid in (one.uid, other.uid)
    )


def with_warnings(image: ViewImage, checks: Iterable[Check]) -> ViewImage:
    """Return the image with the words of the checks among its warnings."""
    return replace(image, warnings=tuple(dict.fromkeys((*image.warnings, *(check.words for check in checks)))))
