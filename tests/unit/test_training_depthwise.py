"""Depthwise convolutions where a processor trains in bfloat16."""

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import Tensor, nn

pytestmark = pytest.mark.usefixtures("one_thread")


def learnt(convolution: "nn.Module", images: "Tensor") -> "tuple[Tensor, list[Tensor]]":
    """Return what it says, and the gradients of images and weight from a fixed one of its output."""
    import torch

    images = images.clone().requires_grad_()
    convolution.zero_grad()
    outputs = convolution(images)
    noise = torch.Generator().manual_seed(1)
    (outputs.float() * torch.randn(outputs.shape, generator=noise)).sum().backward()
    weight = convolution.weight
    assert images.grad is not None
    assert isinstance(weight.grad, torch.Tensor)
    return outputs, [images.grad, weight.grad]


@pytest.mark.parametrize(
    "ways",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 5, "padding": 2, "stride": 2},
        {"kernel_size": (3, 5), "padding": (0, 2), "stride": (2, 1), "dilation": (2, 1)},
    ],
)
def test_gradients_are_those_of_float32_and_the_convolution_is_autocasts(ways: dict[str, Any]) -> None:
    import torch
    from torch import nn

    from ai.training.devices import halved

    torch.manual_seed(0)
    convolution, images = nn.Conv2d(6, 6, groups=6, bias=False, **ways), torch.randn(2, 6, 16, 12)
    convolution.weight.data = convolution.weight.data.bfloat16().float()
    _, exact = learnt(convolution, images.bfloat16().float())
    with torch.autocast("cpu", torch.bfloat16):
        usual = convolution(images)
    with halved(torch.device("cpu")):
        outputs, gradients = learnt(convolution, images)
    assert outputs.dtype == torch.bfloat16
    assert torch.equal(outputs, usual)
    for gradient, expected in zip(gradients, exact, strict=True):
        assert gradient.dtype == torch.float32
        # What came back through the output was rounded to bfloat16, 8 bits; the sums are exact.
        assert (gradient - expected).norm() < 0.004 * expected.norm()


@pytest.mark.parametrize(
    ("made", "there"),
    [
        ({"groups": 4, "bias": False}, True),
        ({"groups": 4, "bias": True}, False),
        ({"groups": 2, "bias": False}, False),
        ({"groups": 1, "bias": False}, False),
        ({"groups": 4, "bias": False, "padding": "same"}, False),
    ],
)
def test_other_convolutions_are_torchs(made: dict[str, Any], *, there: bool) -> None:
    import torch
    from torch import nn

    from ai.training.devices import halved

    convolution, images = nn.Conv2d(4, 4, 3, **made), torch.randn(1, 4, 8, 8)
    with halved(torch.device("cpu")):
        outputs = convolution(images)
        with torch.no_grad():
            assert convolution(images).grad_fn is None
    assert ("Depthwise" in type(outputs.grad_fn).__name__) == there
    assert "Depthwise" not in type(convolution(images).grad_fn).__name__


def test_an_input_that_learns_nothing_gets_no_gradient() -> None:
    import torch
    from torch import nn

    from ai.training.devices import halved

    convolution, images = nn.Conv2d(4, 4, 3, groups=4, bias=False), torch.randn(1, 4, 8, 8)
    with halved(torch.device("cpu")):
        convolution(images).float().sum().backward()
    assert images.grad is None
    assert convolution.weight.grad is not None
