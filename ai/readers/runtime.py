"""What runs a reader's networks: torch in single or half precision, or OpenVINO on the CPU in single precision.

Measured figures and how far they agree: docs/performance.md.
"""

import sys
import warnings
from collections.abc import Callable
from enum import StrEnum
from functools import cache
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from ai.errors import RuntimeMissing

MOST_SHAPES: Final = 8
"""Compiled forms of a network that are kept; a reader gives its own one or two shapes."""


class Runtime(StrEnum):
    """What runs networks; in half precision, bfloat16 on the CPU and float16 on a GPU, those of one reader.

    Others were not measured so, and where a convolution's output is one pixel wide, bfloat16 is wrong on CPUs with AMX
    (oneDNN of torch 2.13, seen: NaN, and values off by 8 %).
    """

    TORCH = "torch"
    TORCH_HALF = "torch-half"
    OPENVINO = "openvino"


HALVED: Final = "mass_fpn"
"""The reader that also reads in half precision."""


def require(runtime: Runtime, device: torch.device, reader: str = HALVED) -> None:
    """See that a runtime is installed, and runs a reader's networks on a device.

    Raises
    ------
    RuntimeMissing
        When it does not.
    """
    if runtime is Runtime.TORCH_HALF and reader != HALVED:
        raise RuntimeMissing(f"{runtime} reads with {HALVED} alone, not with {reader}")
    if runtime is not Runtime.OPENVINO:
        return
    if device.type != "cpu":
        raise RuntimeMissing(f"{runtime} reads on the CPU, not on {device}")
    try:
        _openvino()
    except ImportError as error:
        raise RuntimeMissing(f"{runtime} ({error.name})") from error


def _openvino() -> Any:
    """Return OpenVINO, an extra, as it is where its telemetry is not installed.

    Where it is, which is everywhere, the first import tells a service of Google's that it is used (OpenVINO 2026, seen).
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # importing it fails
    import openvino  # noqa: PLC0415

    return openvino


@cache
def _core() -> Any:
    """Return the one core of this process.

    Each core gives its thread a stack for signals, and takes it away at its end, also where a later core has come to lean on
    it: then the next signal, such as that to stop, ends the process on the spot (OpenVINO 2026, seen).
    """
    return _openvino().Core()


class Flat(nn.Module):
    """A network that says its tensors one after the other, as tracing wants them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the network."""
        leaves, _ = tree_flatten(self.network(*inputs))
        return tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))


class Compiled:
    """A network that OpenVINO runs, compiled once for each shape that it is given.

    What gives other than a tensor, or a tuple of them, stays torch's: a detector, whose output depends on what it sees.

    Parameters
    ----------
    network
        In evaluation mode, on the CPU.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self.forms: dict[tuple[torch.Size, ...], Callable[..., Any]] = {}
        """Shapes of the inputs → what runs it."""

    def __call__(self, *inputs: Tensor) -> Any:
        """Return what the network says."""
        shapes = tuple(each.shape for each in inputs)
        form = self.forms.get(shapes)
        if form is None:
            if len(self.forms) >= MOST_SHAPES:
                self.forms.clear()
            form = self.forms[shapes] = self._compiled(inputs)
        return form(*inputs)

    def _compiled(self, inputs: tuple[Tensor, ...]) -> Callable[..., Any]:
        with torch.inference_mode():
            output = self._network(*inputs)
        if not isinstance(output, Tensor | tuple):
            return self._network
        leaves, structure = tree_flatten(output)
        if not all(leaf is None or isinstance(leaf, Tensor) for leaf in leaves):
            return self._network
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # of torch's tracing, on what is a constant for one shape
            shapes = [list(each.shape) for each in inputs]
            model = _openvino().convert_model(Flat(self._network).eval(), example_input=inputs, input=shapes)
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where the processor has it
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        compiled = _core().compile_model(model, "CPU", settings)

        def run(*given: Tensor) -> Any:
            found = iter(compiled([np.ascontiguousarray(each.numpy()) for each in given]).values())
            return tree_unflatten(
                [None if leaf is None else torch.from_numpy(next(found)) for leaf in leaves], structure
            )

        return run
