"""Weights that a user brings: read only when their SHA-256 is the expected one, and never as code."""

import hashlib
import io
import pickle
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from ai.errors import UnusableWeights

COUNTER = "num_batches_tracked"
"""Batch normalisation's counter, which older files lack and nothing here uses."""


def read_weights(path: Path, digests: Collection[str]) -> dict[str, Tensor]:
    """Read a file of named tensors: safetensors, or what torch.save wrote (tensors only, no code is run).

    Parameters
    ----------
    path
        The user's file; nothing is ever downloaded.
    digests
        SHA-256 in lower-case hexadecimal; the file must have one of them.

    Raises
    ------
    UnusableWeights
        When the file is missing, is another one, or holds anything but tensors.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnusableWeights(f"{path}: {error.strerror}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest not in digests:
        raise UnusableWeights(f"{path} has the SHA-256 {digest}, wanted is {' or '.join(sorted(digests))}")
    try:
        state = load(content)
    except SafetensorError:
        state = _saved_by_torch(path, content)
    if not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise UnusableWeights(f"{path} holds more than named tensors, or none")
    return state


def start(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy tensors into a network that has exactly these; batch counters may be missing.

    Raises
    ------
    UnusableWeights
        When a tensor is missing, left over, or has another shape; the network is then as it was.
    """
    own = {k: v.shape for k, v in network.state_dict().items() if not k.endswith(COUNTER)}
    given = {k: v.shape for k, v in state.items() if not k.endswith(COUNTER)}
    wrong = sorted(k for k in own.keys() | given.keys() if own.get(k) != given.get(k))
    if wrong:
        raise UnusableWeights(f"{len(wrong)} tensors do not fit, the first is {wrong[0]}")
    network.load_state_dict(state, strict=False)


def without_classifier(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a torchvision ResNet without its ImageNet classes."""
    return {k: v for k, v in state.items() if not k.startswith("fc.")}


def part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _saved_by_torch(path: Path, content: bytes) -> dict[str, Tensor]:
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError) as error:
        raise UnusableWeights(f"{path} is neither safetensors nor a state saved by torch") from error
    return dict(state) if isinstance(state, Mapping) else {}
