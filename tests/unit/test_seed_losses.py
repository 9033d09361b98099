"""The papers' losses on cases worked out by hand, and what an image without a mass costs."""

import math
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import Tensor

EVERY = [
    "thesis_bce_jaccard",
    "collagen_bce_jaccard",
    "thesis_focal_tversky_07",
    "thesis_focal_tversky_05",
    "spie_combination",
    "spie_focal_tversky",
    "agarwal_entropy",
    "marita_bce",
    "marita_bce_dice",
    "marita_dice",
    "madsen_bce_dice",
    "madsen_smoothed_bce",
]
OF_MASKS = [name for name in EVERY if name != "agarwal_entropy"]


def loss(name: str, logits: "Tensor", target: "Tensor") -> float:
    from ai.training.seed_losses import SEED_LOSSES

    return SEED_LOSSES[name](logits, target).item()


def marked(*images: list[float]) -> "Tensor":
    """Return logits whose sigmoids are the given ones; each image is one row."""
    import torch

    return torch.tensor(images, dtype=torch.float64).logit()[:, None, None]


def masks(*images: list[float]) -> "Tensor":
    import torch

    return torch.tensor(images, dtype=torch.float64)[:, None, None]


def entropy(*pairs: tuple[float, float]) -> float:
    """Return the mean cross-entropy of (probability, label)."""
    return -sum(y * math.log(p) + (1 - y) * math.log(1 - p) for p, y in pairs) / len(pairs)


# One image: TP = .8, FP = .4 + .1 = .5, FN = .2.
P, Y = [0.8, 0.4, 0.1], [1.0, 0.0, 0.0]
BCE = entropy(*zip(P, Y, strict=True))
J = 0.8 / (1.3 + 1 - 0.8)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("thesis_focal_tversky_07", (1 - 1.8 / (0.8 + 0.7 * 0.5 + 0.3 * 0.2 + 1)) ** 1.4),
        ("thesis_focal_tversky_05", 1 - 1.8 / (0.8 + 0.5 * 0.5 + 0.5 * 0.2 + 1)),
        ("spie_focal_tversky", (1 - 0.8 / (0.8 + 0.3 * 0.5 + 0.7 * 0.2)) ** 0.75),
        ("thesis_bce_jaccard", BCE + 1 - J),
        ("collagen_bce_jaccard", BCE - math.log(J)),
        ("spie_combination", 0.5 * BCE - 0.5 * J),
        ("marita_bce", -(2 * math.log(0.8) + math.log(0.6) + math.log(0.9)) / 3),  # two black pixels to the white one
        ("marita_dice", 1 - (2 * 0.8 + 1) / (1.3 + 1 + 1)),
        ("marita_bce_dice", -(2 * math.log(0.8) + math.log(0.6) + math.log(0.9)) / 3 + 1 - 2.6 / 3.3),
        ("madsen_bce_dice", BCE + 1 - 2.6 / 3.3),
        ("madsen_smoothed_bce", entropy((0.8, 0.875), (0.4, 0.125), (0.1, 0.125))),
    ],
)
def test_a_case_by_hand(name: str, expected: float) -> None:
    assert loss(name, marked(P), masks(Y)) == pytest.approx(expected, rel=1e-6)


def test_the_hand_cases_in_figures() -> None:
    assert loss("thesis_focal_tversky_07", marked(P), masks(Y)) == pytest.approx(0.09457, abs=1e-5)
    assert loss("thesis_focal_tversky_05", marked(P), masks(Y)) == pytest.approx(0.35 / 2.15)
    assert loss("spie_focal_tversky", marked(P), masks(Y)) == pytest.approx(0.37045, abs=1e-5)


def test_patches_are_judged_by_their_softmax() -> None:
    import torch

    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    assert loss("agarwal_entropy", logits, torch.tensor([1, 0])) == pytest.approx(-(math.log(0.75) + math.log(0.5)) / 2)


@pytest.mark.parametrize(("w_fp", "w_fn", "exponent"), [(0.7, 0.3, 1.4), (0.5, 0.5, 1.0), (0.3, 0.7, 0.75)])
def test_smp_agrees_where_there_is_a_mass(w_fp: float, w_fn: float, exponent: float) -> None:
    import torch

    import ai._torchvision  # noqa: F401

    # isort: split
    from segmentation_models_pytorch.losses import TverskyLoss

    from ai.training.seed_losses import FocalTversky

    torch.manual_seed(1)
    logits, target = torch.randn(2, 1, 32, 32), (torch.rand(2, 1, 32, 32) > 0.98).float()
    theirs = TverskyLoss("binary", alpha=w_fp, beta=w_fn, gamma=exponent, smooth=1.0)(logits, target).item()
    assert FocalTversky(w_fp, w_fn, exponent)(logits, target).item() == pytest.approx(theirs, abs=1e-6)
    assert theirs > 0.8


def test_false_marks_weigh_more_for_the_thesis_and_misses_for_spie() -> None:
    too_much = loss("thesis_focal_tversky_07", marked([0.9, 0.9]), masks([1, 0]))
    too_little = loss("thesis_focal_tversky_07", marked([0.1, 0.1]), masks([1, 0]))
    assert too_much > loss("thesis_focal_tversky_05", marked([0.9, 0.9]), masks([1, 0])) ** 1.4 > too_little * 0.5
    assert loss("spie_focal_tversky", marked([0.9, 0.9]), masks([1, 0])) < loss(
        "spie_focal_tversky", marked([0.1, 0.1]), masks([1, 0])
    )


def test_a_ratio_is_of_the_batch_or_of_each_image() -> None:
    from ai.training.seed_losses import FocalTversky, Reduction

    logits, target = marked([0.8, 0.4], [0.5, 0.5]), masks([1, 0], [0, 0])
    batch = FocalTversky(0.5, 0.5, 1.0)(logits, target).item()
    image = FocalTversky(0.5, 0.5, 1.0, reduction=Reduction.IMAGE)(logits, target).item()
    assert batch == pytest.approx(1 - 1.8 / (0.8 + 0.5 * 1.4 + 0.5 * 0.2 + 1))
    assert image == pytest.approx(((1 - 1.8 / (0.8 + 0.5 * 0.4 + 0.5 * 0.2 + 1)) + (1 - 1 / (1 + 0.5))) / 2)


EMPTY = [0.0, 0.0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("thesis_focal_tversky_07", (1 - 1 / (1 + 0.7 * 0.8)) ** 1.4),
        ("thesis_focal_tversky_05", 1 - 1 / (1 + 0.5 * 0.8)),
        ("spie_focal_tversky", 1.0),
        ("thesis_bce_jaccard", entropy((0.5, 0), (0.3, 0))),
        ("collagen_bce_jaccard", entropy((0.5, 0), (0.3, 0))),
        ("spie_combination", 0.5 * entropy((0.5, 0), (0.3, 0))),
        ("marita_bce", entropy((0.5, 0), (0.3, 0))),
        ("marita_dice", 1 - 1 / (0.8 + 1)),
        ("madsen_bce_dice", entropy((0.5, 0), (0.3, 0)) + 1 - 1 / 1.8),
        ("madsen_smoothed_bce", entropy((0.5, 0.125), (0.3, 0.125))),
    ],
)
def test_marks_where_no_mass_is_cost_something(name: str, expected: float) -> None:
    assert loss(name, marked([0.5, 0.3]), masks(EMPTY)) == pytest.approx(expected, abs=1e-6)


def test_only_images_with_a_mass_enter_the_jaccard_index() -> None:
    logits, target = marked(P, [0.5, 0.5, 0.5]), masks(Y, [0.0, 0.0, 0.0])
    both = (BCE + math.log(2)) / 2
    assert loss("thesis_bce_jaccard", logits, target) == pytest.approx(both + 1 - J)
    assert loss("collagen_bce_jaccard", logits, target) == pytest.approx(both - math.log(J))
    assert loss("spie_combination", logits, target) == pytest.approx(0.5 * both - 0.5 * J)


@pytest.mark.parametrize("name", ["thesis_focal_tversky_07", "thesis_focal_tversky_05", "marita_dice"])
def test_nothing_marked_where_nothing_is_costs_nothing(name: str) -> None:
    assert loss(name, marked([1e-9, 1e-9]), masks(EMPTY)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "slope"),
    [("thesis_focal_tversky_07", True), ("spie_focal_tversky", False), ("marita_dice", True)],
)
def test_an_empty_batch_has_a_slope_only_with_a_whole_pixel_of_smoothing(name: str, slope: bool) -> None:  # noqa: FBT001
    from ai.training.seed_losses import SEED_LOSSES

    logits = marked([0.5, 0.3]).requires_grad_()
    SEED_LOSSES[name](logits, masks(EMPTY)).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert bool((logits.grad > 1e-3).all()) is slope


def test_the_weight_of_a_white_pixel_is_capped() -> None:
    import torch

    target = torch.zeros(1, 1, 1, 100, dtype=torch.float64)
    target[..., 0] = 1
    logits = torch.zeros_like(target)
    assert loss("marita_bce", logits, target) == pytest.approx((20 + 99) / 100 * math.log(2))
    assert loss("madsen_bce_dice", logits, target) == pytest.approx(math.log(2) + 1 - 2 / 52)


@pytest.mark.parametrize("name", OF_MASKS)
@pytest.mark.parametrize("size", [1e-3, 30.0, 1e4])
@pytest.mark.parametrize("white", [0, 1, 64])
def test_losses_and_slopes_are_finite_whatever_the_network_says(name: str, size: float, white: int) -> None:
    import torch

    from ai.training.seed_losses import SEED_LOSSES

    target = (torch.arange(64) < white).float().reshape(1, 1, 8, 8).expand(2, 1, 8, 8)
    for direction in (target - 0.5, 0.5 - target):  # all right, all wrong
        logits = (2 * size * direction).requires_grad_()
        value = SEED_LOSSES[name](logits, target)
        value.backward()  # type: ignore[no-untyped-call]
        assert value.isfinite()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", OF_MASKS)
def test_a_step_down_the_slope_marks_the_mass(name: str) -> None:
    import torch

    from ai.training.seed_losses import SEED_LOSSES

    target = torch.zeros(1, 1, 4, 4)
    target[..., 1:3, 1:3] = 1
    logits = torch.zeros(1, 1, 4, 4, requires_grad=True)
    SEED_LOSSES[name](logits, target).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert (logits.grad[target == 1] < 0).all()
    assert (logits.grad[target == 0] > 0).all()


def test_the_papers_settings_are_these() -> None:
    from ai.training.seed_losses import FT_A, FT_B, FT_SPIE, SEED_LOSSES, Reduction

    def settings(loss: Any) -> tuple[Any, ...]:
        return (loss.w_fp, loss.w_fn, loss.exponent, loss.smooth, loss.reduction)

    assert settings(FT_A) == (0.7, 0.3, 1.4, 1.0, Reduction.BATCH)
    assert settings(FT_B) == (0.5, 0.5, 1.0, 1.0, Reduction.BATCH)
    assert settings(FT_SPIE) == (0.3, 0.7, 0.75, 1e-7, Reduction.BATCH)
    assert list(SEED_LOSSES) == EVERY
