"""The one training loop of all systems: resumable, seeded, its state on disk after every epoch."""

import copy
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ai.errors import Diverged, InvalidDataset, InvalidRecipe
from ai.training import devices
from ai.training.ahead import ahead
from ai.training.checkpoints import damage_named, export, load_checkpoint, save_checkpoint
from ai.training.history import CURVES, HISTORY, Epoch, draw_curves, write_history
from ai.training.optimisation import Freezer, move_average, new_optimiser, new_schedule
from ai.training.phases import Part, Phase, Precision

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "model.safetensors"

DRAW_AFTER = 60.0
"""Seconds after which history and curves are written again."""

Batch = tuple[Tensor, ...]

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
    repeatable: bool = True,
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
    repeatable
        Whether a GPU takes algorithms that give the same weights bit by bit, which are slower.
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
    run = _Run(network, objectives, part, training, validation, folder, seed, device, precision, on_step)
    run.check()
    plan = {
        "part": part.model_dump(mode="json"),
        "seed": seed,
        "precision": devices.resolved(precision, device).value,
        "what": dict(what or {}),
        "training": training.fingerprint,
        "validation": None if validation is None else validation.fingerprint,
    }
    folder.mkdir(parents=True, exist_ok=True)
    with devices.repeatable(device) if repeatable else devices.fast(device):
        run.go(plan)
    run.tell()
    path = folder / WEIGHTS if weights is None else weights
    return Trained(export(run.kept(), path), tuple(run.history))


def check_examples(part: Part, training: Examples, validation: Examples | None) -> None:
    """Refuse examples that a part cannot be trained with.

    Raises
    ------
    InvalidDataset
        When they are fewer than one batch, or there are none to validate on where a phase needs them.
    """
    if len(training) < part.batch:
        raise InvalidDataset(
            f"Part {part.role}: {len(training)} examples are fewer than one batch of {part.batch}; train on more images, or "
            "by a recipe of your own with a smaller batch (docs/training.md)"
        )
    if validation is not None and not len(validation):
        raise InvalidDataset(f"Part {part.role}: there are no examples to validate on")
    for number, phase in enumerate(part.phases, 1):
        if phase.patience is not None and validation is None:
            raise InvalidDataset(
                f"Part {part.role}, phase {number} ends by its validation loss (patience), and there are no examples to "
                "validate on; give the split two inner folds or more"
            )


class _Run:
    """A run, and where it is."""

    def __init__(
        self,
        network: nn.Module,
        objectives: Mapping[str, Objective],
        part: Part,
        training: Examples,
        validation: Examples | None,
        folder: Path,
        seed: int,
        device: torch.device,
        precision: Precision,
        on_step: Callable[[Step], None],
    ) -> None:
        network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network, self.objectives, self.part = network, objectives, part
        self.training, self.validation = training, validation
        self.folder, self.seed, self.device, self.on_step = folder, seed, device, on_step
        self.autocast = devices.resolved(precision, device) is Precision.BFLOAT16
        self.freezer = Freezer(network)
        self.steps = min(len(training), part.epoch_examples or len(training)) // part.batch
        self.workers = min(8, os.cpu_count() or 1) if device.type == "cuda" else 1
        self.history: list[Epoch] = []
        self.drawn = time.monotonic()

    def check(self) -> None:
        """Refuse what cannot be done."""
        check_examples(self.part, self.training, self.validation)
        for number, phase in enumerate(self.part.phases, 1):
            if phase.loss not in self.objectives:
                there = ", ".join(sorted(self.objectives))
                raise InvalidRecipe(f"{self._where(number)}: loss {phase.loss!r} is not there; there are {there}")
            self.freezer.check(phase)

    def go(self, plan: Mapping[str, Any]) -> None:
        """Train from where the checkpoint is, to the end."""
        state = load_checkpoint(self.folder / CHECKPOINT, plan)
        first = 0 if state is None else int(state["phase"])
        for number, phase in enumerate(self.part.phases):
            if number < first:
                continue
            if number > first:
                self.network.load_state_dict(self.kept())
            self._begin(phase)
            if state is not None and number == first:
                self._take_up(state)
            while not self._over(number, phase):
                self._epoch(number, phase)
                self._check_weights(number)
                save_checkpoint(self.folder / CHECKPOINT, plan, self._state(number))
                if time.monotonic() - self.drawn > DRAW_AFTER:
                    self.tell()
        self.freezer.release()
        self.network.load_state_dict(self.kept())

    def kept(self) -> dict[str, Tensor]:
        """Return the weights that the phase keeps, as far as it has gone."""
        return self._judged().state_dict() if self.best is None else self.best

    def tell(self) -> None:
        """Write the history and its curves."""
        write_history(self.history, self.folder / HISTORY)
        draw_curves(self.history, self.folder / CURVES, f"{self.part.role}: {self.part.network}", self.part.keep)
        self.drawn = time.monotonic()

    def _begin(self, phase: Phase) -> None:
        self.average = None if self.part.average is None else copy.deepcopy(self.network).eval()
        self.optimiser = new_optimiser(phase, self.freezer.learnt.values())
        self.schedule = new_schedule(phase, self.optimiser, self.steps)
        self.best: dict[str, Tensor] | None = None
        self.lowest = math.inf
        self.stale = 0

    def _take_up(self, state: Mapping[str, Any]) -> None:
        with damage_named(self.folder / CHECKPOINT):
            self.network.load_state_dict(state["network"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.schedule.load_state_dict(state["schedule"])
            self.best, self.lowest, self.stale = state["best"], state["lowest"], state["stale"]
            self.history = [Epoch(**row) for row in state["history"]]

    def _state(self, number: int) -> dict[str, Any]:
        return {
            "phase": number,
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "best": self.best,
            "lowest": self.lowest,
            "stale": self.stale,
            "history": [asdict(row) for row in self.history],
        }

    def _done(self, number: int) -> int:
        """Epochs of the phase that are over."""
        return sum(row.phase == number + 1 for row in self.history)

    def _over(self, number: int, phase: Phase) -> bool:
        impatient = phase.patience is not None and self.stale >= phase.patience
        return impatient or self._done(number) >= phase.epochs

    def _epoch(self, number: int, phase: Phase) -> None:
        begin, epoch = time.monotonic(), self._done(number)
        before = self.steps * sum(p.epochs for p in self.part.phases[:number])
        rng = np.random.default_rng((self.seed, number, epoch))
        torch.manual_seed(int(rng.integers(2**63)))
        order = rng.permutation(len(self.training))
        self.freezer.train(phase, epoch)
        total, rate = 0.0, phase.learning_rate
        objective = self.objectives[phase.loss]

        def pieces(step: int) -> list[Batch]:
            changes = np.random.default_rng((self.seed, number, epoch, step))
            chosen = order[step * self.part.batch : (step + 1) * self.part.batch]
            return [self._batch(self.training, c, changes) for c in np.array_split(chosen, self.part.accumulation)]

        with closing(ahead(pieces, self.steps, self.workers)) as batches:
            for step, batch in enumerate(batches):
                self.network.zero_grad()
                loss = self._learn(objective, batch)
                if not math.isfinite(loss):
                    raise Diverged(f"{self._where(number + 1)}, epoch {epoch + 1}, step {step + 1}.")
                if self.part.clip is not None:
                    nn.utils.clip_grad_norm_(self.network.parameters(), self.part.clip)
                rate = self.optimiser.param_groups[0]["lr"]
                self.optimiser.step()
                self.schedule.step()
                at = epoch * self.steps + step
                if self.average is not None and self.part.average is not None:
                    move_average(self.average, self.network, min(self.part.average, 1 - 1 / (1 + at)))
                total += loss
                done, all_steps = before + at + 1, self.steps * self.part.epochs
                self.on_step(Step(number + 1, epoch + 1, step + 1, self.steps, done, all_steps, total / (step + 1)))
        validation = self._validate(objective)
        if validation is not None:
            if not math.isfinite(validation):
                raise Diverged(f"{self._where(number + 1)}, epoch {epoch + 1}, in validation.")
            self._judge(validation)
        seconds = time.monotonic() - begin
        seen = self.steps * self.part.batch
        self.history.append(Epoch(number + 1, epoch + 1, total / self.steps, validation, rate, seconds, seen))

    def _learn(self, objective: Objective, pieces: Sequence[Batch]) -> float:
        """Add up the gradients of a batch's pieces, each by its share, and return the loss."""
        examples = [len(piece[0]) for piece in pieces]
        total = 0.0
        for piece, count in zip(pieces, examples, strict=True):
            loss = self._loss(self.network, objective, piece) * (count / sum(examples))
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        return total

    @torch.no_grad()
    def _validate(self, objective: Objective) -> float | None:
        """Return the mean loss over the validation examples, or over some of them, each batch by its size."""
        if self.validation is None:
            return None
        judged, examples = self._judged().eval(), self.validation
        size = -(-self.part.batch // self.part.accumulation)
        most = min(len(examples), self.part.validation_examples or len(examples))
        places = np.arange(most) * len(examples) // most

        def piece(index: int) -> Batch:
            return self._batch(examples, places[index * size : (index + 1) * size], None)

        total = 0.0
        with closing(ahead(piece, -(-len(places) // size), self.workers)) as batches:
            for batch in batches:
                total += self._loss(judged, objective, batch).item() * len(batch[0])
        return total / len(places)

    def _judge(self, validation: float) -> None:
        self.stale += 1
        if validation < self.lowest:
            self.lowest, self.stale = validation, 0
            if self.part.keep == "best":
                self.best = {k: v.detach().to("cpu", copy=True) for k, v in self._judged().state_dict().items()}

    def _judged(self) -> nn.Module:
        return self.network if self.average is None else self.average

    def _loss(self, network: nn.Module, objective: Objective, batch: Batch) -> Tensor:
        there = tuple(devices.laid_out(t.to(self.device, non_blocking=True)) for t in batch)
        with devices.halved(self.device) if self.autocast else nullcontext():
            return objective(network, there)

    def _batch(self, examples: Examples, chosen: NDArray[np.int64], rng: np.random.Generator | None) -> Batch:
        batch = examples.batch([int(i) for i in chosen], rng)
        return tuple(t.pin_memory() for t in batch) if self.device.type == "cuda" else batch

    def _check_weights(self, number: int) -> None:
        """Refuse weights that the last step spoilt, after the last loss was seen."""
        for name, tensor in self.network.state_dict().items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise Diverged(f"{self._where(number + 1)}, epoch {self._done(number)}: {name} is not finite.")

    def _where(self, number: int) -> str:
        return f"Part {self.part.role}, phase {number}"
