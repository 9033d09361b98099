"""Depthwise convolutions where a processor trains in bfloat16."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Ways = Sequence[int]
"""Of rows and of columns."""


class SingleGradients(TorchFunctionMode):
    """Computes the gradients of depthwise convolutions in float32 under the CPU's autocast.

    The convolution itself stays in bfloat16. oneDNN's gradients in bfloat16 (torch 2.13) take two to six times as long as
    those in float32, casts included, and were half of a training step of an EfficientNet (docs/training.md).
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, or what stands here for it."""
        if func is torch.conv2d and not kwargs and _depthwise(*args):
            images, weight, _, stride, padding, dilation, _ = args
            return _Depthwise.apply(images, weight, stride, padding, dilation)  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))


def _depthwise(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ways | int = 1,
    padding: Ways | int | str = 0,
    dilation: Ways | int = 1,
    groups: int = 1,
) -> bool:
    """Tell whether each channel has its own kernel, as modules call it, and gradients are wanted of it in bfloat16."""
    numbers = not any(isinstance(each, int | str) for each in (stride, padding, dilation))
    alone = groups == images.shape[1] == weight.shape[0] > 1
    learning = torch.is_grad_enabled() and torch.is_autocast_enabled("cpu") and images.device.type == "cpu"
    return bias is None and numbers and alone and learning


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: Ways, padding: Ways, dilation: Ways) -> Tensor:
        images = images.to(torch.bfloat16)
        ctx.save_for_backward(images, weight)
        ctx.ways = stride, padding, dilation
        return torch.conv2d(images, weight.to(torch.bfloat16), None, stride, padding, dilation, images.shape[1])

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        images, weight = ctx.saved_tensors
        stride, padding, dilation = ctx.ways
        to_images, to_weight, _ = torch.ops.aten.convolution_backward(
            outputs[0].float(),
            images.float(),
            weight,
            None,
            stride,
            padding,
            dilation,
            False,  # noqa: FBT003 (not transposed; the operator takes places alone)
            (0, 0),
            images.shape[1],
            (ctx.needs_input_grad[0], ctx.needs_input_grad[1], False),
        )
        return to_images, to_weight, None, None, None
