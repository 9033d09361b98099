"""When memory does not suffice: the image is read again with less of it, and its findings say how."""

import gc
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from ai.errors import NotEnoughMemory
from ai.findings import ImageFindings
from ai.readers.runtime import Compiled, Runtime

log = logging.getLogger(__name__)

_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "_ALLOC_FAILED")
"""Of errors that torch raises as a plain RuntimeError: the CPU's allocator, the driver's, cuBLAS and cuDNN."""


class Economy(Enum):
    """How an image is read; each takes less of the device's memory than the one before, and more time."""

    NONE = "as ever"
    SINGLY = "one picture at a time"
    HALF = "one picture at a time, in half precision"
    CPU = "one picture at a time, on the CPU"


class Memory:
    """How a reader's networks run at present: as ever, or with less memory.

    Parameters
    ----------
    device
        Where they are meant to run.
    runtime
        What runs them as long as memory suffices; torch otherwise.
    """

    def __init__(self, device: torch.device, runtime: Runtime = Runtime.TORCH) -> None:
        self.device = device
        self.runtime = runtime
        self.economy = Economy.NONE

    @property
    def where(self) -> torch.device:
        """Where they run at present."""
        return torch.device("cpu") if self.economy is Economy.CPU else self.device

    def read(self, read: Callable[[], ImageFindings]) -> ImageFindings:
        """Read an image, with less memory when it does not suffice; the following ones are read alike.

        Raises
        ------
        NotEnoughMemory
            When it does not suffice in any way.
        """
        ways = [way for way in Economy if way is not Economy.CPU or self.device.type != "cpu"]
        last: Exception | None = None
        for way in ways[ways.index(self.economy) :]:
            self.economy = way
            try:
                found = read()
            except Exception as error:
                # What goes wrong in half precision may still go well on the CPU.
                if way is Economy.NONE and not is_out_of_memory(error):
                    raise
                last = error.with_traceback(None)  # whose frames hold what has to be freed
            else:
                return found if way is Economy.NONE else replace(found, warnings=(*found.warnings, told(way)))
            log.warning("memory did not suffice to read an image", extra={"was_read": way.value})
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        raise NotEnoughMemory(type(last).__name__)


def told(way: Economy) -> str:
    """Return what the answer says of an image that was read so."""
    return f"memory did not suffice at first: read {way.value}"


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether an error means that memory did not suffice, that of the machine or of a GPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)
    )


class Elastic(nn.Module):
    """A network that runs as its reader's memory allows.

    Parameters
    ----------
    network
        Takes tensors of shape (n, …), and gives a tensor of n, a tuple of them (or of None), or a list of n.
    memory
        Says how it runs; the network is where that is meant to run.
    """

    def __init__(self, network: nn.Module, memory: Memory) -> None:
        super().__init__()
        self.network = network
        self._compiled = Compiled(network) if memory.runtime is Runtime.OPENVINO else None
        self._memory = memory
        self._place: torch.device | None = memory.device

    def forward(self, *inputs: Tensor) -> Any:
        """Run the network; in single precision what half cannot hold."""
        where, economy = self._memory.where, self._memory.economy
        if self._place != where:
            self._place = None  # half of it may have moved when this fails
            self.network.to(where)
            self._place = where
        half = torch.float16 if where.type == "cuda" else torch.bfloat16
        if economy is Economy.NONE:
            if self._memory.runtime is Runtime.TORCH_HALF:
                with suppress(FloatingPointError), torch.autocast(where.type, half):
                    return _single(self.network(*inputs))
            return (self._compiled or self.network)(*inputs)
        with torch.autocast(where.type, half, enabled=economy is Economy.HALF):
            parts = [self.network(*(each[n : n + 1] for each in inputs)) for n in range(len(inputs[0]))]
        return _joined([_single(part) for part in parts])


def _single(output: Any) -> Any:
    """Return an output in single precision; one that half precision could not hold is an error."""

    def single(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        if not value.isfinite().all():
            raise FloatingPointError
        return value.float()

    return tree_map(single, output)


def _joined(parts: Sequence[Any]) -> Any:
    """Return the outputs of single pictures as that of all."""
    if isinstance(parts[0], list):
        return [each for part in parts for each in part]
    _, structure = tree_flatten(parts[0])
    columns = zip(*(tree_flatten(part)[0] for part in parts), strict=True)
    leaves = [torch.cat(column) if isinstance(column[0], Tensor) else column[0] for column in columns]
    return tree_unflatten(leaves, structure)
