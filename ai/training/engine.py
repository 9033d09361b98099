"""The one training loop of all systems: resumable, seeded, its state on disk after every epoch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ai.training.history import Epoch
from ai.training.phases import Part, Precision

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "model.safetensors"

Objective = Callable[[nn.Module, tuple[Tensor, ...]], Tensor]
"""The network and one batch on its device to the loss, a number; it puts the network's outputs into float32.

The network is in training mode, or in evaluation mode for validation. Should the loss be a mean over examples, then
pieces of a batch may be put together (see :attr:`Part.accumulation`).
"""


class Examples(Protocol):
    """What a network learns from, or is validated on."""

    def __len__(self) -> int:
        """How many there are."""

    @property
    def fingerprint(self) -> str:
        """SHA-256, hexadecimal, over which images or patches these are, and in which form."""

    def batch(self, chosen: Sequence[int], rng: np.random.Generator | None) -> tuple[Tensor, ...]:
        """Return examples as CPU tensors, float32 or int64, example by example along the first axis.

        It may be called by several threads at once, and draws from ``rng`` alone, one example after the other.

        Parameters
        ----------
        chosen
            Places, 0 to ``len(self) - 1``.
        rng
            For the random changes of training; None gives the examples as they are.
        """


@dataclass(frozen=True)
class Step:
    """Where a run is.

    Attributes
    ----------
    phase, epoch, step, steps
        Counted from 1: phase of the part, epoch of the phase, step of the epoch, and how many steps an epoch has.
    done, total
        Steps of the optimiser, over all phases; phases may end early.
    loss
        Mean over the epoch so far.
    """

    phase: int
    epoch: int
    step: int
    steps: int
    done: int
    total: int
    loss: float


@dataclass(frozen=True)
class Trained:
    """What a run leaves: the weights (safetensors, floats in half precision) and its epochs."""

    weights: Path
    history: tuple[Epoch, ...]


def train_part(
    network: nn.Module,
    objectives: Mapping[str, Objective],
    part: Part,
    training: Examples,
    validation: Examples | None,
    folder: Path,
    *,
    seed: int,
    device: torch.device,
    precision: Precision = Precision.AUTO,
    what: Mapping[str, Any] | None = None,
    weights: Path | None = None,
    on_step: Callable[[Step], None] = lambda _: None,
) -> Trained:
    """Train one network; a run that was cut off goes on after its last whole epoch.

    Every random choice of an epoch comes from the seed and the epoch's number, so that a resumed run learns what an
    uncut one learns.

    Parameters
    ----------
    network
        With the weights that it starts from; trained in place.
    objectives
        Losses by the name that phases give.
    part
        What to do; a checkpoint of another course is refused.
    training, validation
        A checkpoint of other examples is refused, since a network that has seen another fold's patients could not be
        validated honestly. None: no validation, and the last weights are kept.
    folder
        Receives checkpoint.pt, history.csv, curves.png and, unless ``weights`` says otherwise, model.safetensors.
    seed
        Of every random choice here; seed the network's own weights before.
    device, precision
        Where, and in which numbers.
    what
        What else decides what is learnt, such as the recipe's name; plain values, for the checkpoint.
    weights
        File for the weights.
    on_step
        Called after every step.

    Returns
    -------
    Trained
        Weights that the last phase kept, and the history.

    Raises
    ------
    InvalidDataset
        When there are fewer examples than one batch, or none to validate on where a phase needs them.
    InvalidRecipe
        When a phase names a loss that is not there, or freezes what the network does not have.
    ForeignCheckpoint, DamagedCheckpoint
        When the folder holds a checkpoint of another course or of other examples, or one that cannot be read.
    Diverged
        When a loss or a weight is not finite; the checkpoint of the epoch before stays.
    """
    raise NotImplementedError
