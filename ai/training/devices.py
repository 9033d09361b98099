"""What training does as its device likes it: numbers, memory, algorithms."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from ai.training.depthwise import SingleGradients
from ai.training.phases import Precision


def resolved(precision: Precision, device: torch.device) -> Precision:
    """Return which numbers "auto" stands for: bfloat16 on a GPU, and on a CPU that has AMX.

    There training takes a third of float32's time with most networks (docs/training.md); with AVX-512's bfloat16 alone it
    takes longer than float32, and on others many times longer, since every product is put together by hand.
    """
    if precision is not Precision.AUTO:
        return precision
    quick = device.type != "cpu" or torch.cpu.get_capabilities().get("amx_bf16", False)
    return Precision.BFLOAT16 if quick else Precision.SINGLE


@contextmanager
def halved(device: torch.device) -> Iterator[None]:
    """Compute convolutions and products in bfloat16, where that is worth it: the weights stay float32."""
    with ExitStack() as stack:
        stack.enter_context(torch.autocast(device.type, torch.bfloat16))
        if device.type == "cpu":
            stack.enter_context(SingleGradients())
        yield


def laid_out(tensor: Tensor) -> Tensor:
    """Return images as convolutions like them, channels last; other tensors as they are."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Choose the GPU's repeatable algorithms where it has them; the CPU's are."""
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
            yield
    finally:
        torch.use_deterministic_algorithms(mode=before, warn_only=warned)


@contextmanager
def fast(device: torch.device) -> Iterator[None]:
    """Let a GPU try which algorithms are fastest for the shapes at hand."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=device.type == "cuda", deterministic=False):
        yield
