"""Model directory to reader: the one place that knows which readers exist."""

from collections.abc import Callable, Mapping

import torch

from ai.allocation import keep_freed_memory
from ai.errors import NoSuchDevice
from ai.models import Model
from ai.readers.agarwal import agarwal_reader
from ai.readers.base import Reader
from ai.readers.madsen import MadsenReader
from ai.readers.marita import marita_reader
from ai.readers.mass_fpn import MassFPNReader
from ai.readers.memory import Memory
from ai.readers.oulu import oulu_reader
from ai.readers.runtime import Runtime, require

READERS: Mapping[str, Callable[[Model, Memory, float | None], Reader]] = {
    "mass_fpn": MassFPNReader,
    "oulu": oulu_reader,
    "marita": marita_reader,
    "agarwal": agarwal_reader,
    "madsen": MadsenReader,
}
"""Reading systems by the name that a card gives; :data:`ai.models.READERS` has the same."""


def load_reader(
    model: Model, device: str = "auto", threads: int = 0, threshold: float | None = None, *, runtime: str = "torch"
) -> Reader:
    """Load a model into its reader; with torch on the CPU the process keeps the memory that it frees (:mod:`ai.allocation`).

    Parameters
    ----------
    model
        The model directory.
    device
        ``cpu``, ``cuda``, ``cuda:N``, or ``auto`` for CUDA when present.
    threads
        Threads on the CPU; 0 leaves torch's choice.
    threshold
        Stands for the card's threshold when given.
    runtime
        ``torch``, ``torch-half`` for half precision, or ``openvino`` on the CPU.

    Raises
    ------
    ai.errors.ModelError
        When the reader, the device or the runtime is unknown or not there, or weights are missing or differ from the card.
    """
    model.require_reader()
    if threads:
        torch.set_num_threads(threads)
    where = torch_device(device)
    chosen = Runtime(runtime)
    require(chosen, where, model.card.reader)
    if where.type == "cpu" and chosen is not Runtime.OPENVINO:  # which keeps its own
        keep_freed_memory()
    return READERS[model.card.reader](model, Memory(where, chosen), threshold)


def torch_device(name: str) -> torch.device:
    """Return a device by name: ``cpu``, ``cuda``, ``cuda:N``, or ``auto`` for CUDA when present.

    Raises
    ------
    NoSuchDevice
        When there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and (torch.device(name).index or 0) >= torch.cuda.device_count():
        raise NoSuchDevice(name)
    return torch.device(name)
