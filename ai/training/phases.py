"""What one network of a system learns by: its course in phases, as a recipe gives it."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from ai.models import CardPart

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class Precision(StrEnum):
    """Numbers that a network computes with; its weights and its losses are float32 in any case."""

    AUTO = "auto"
    """bfloat16 where the device is quick in it, else float32; see :func:`ai.training.engine.resolved`."""
    BFLOAT16 = "bfloat16"
    """Convolutions and matrix products in bfloat16, by autocast."""
    SINGLE = "single"
    """All in float32."""


class Phase(CardPart):
    """Epochs with one loss, one optimiser and one schedule.

    Attributes
    ----------
    loss
        Name of the objective, one of those that the system has.
    epochs
        Passes over the training examples.
    optimiser
        "adam" adds the decay to the gradient, "adamw" keeps it apart; "sgd" has a momentum of 0.9.
    learning_rate, weight_decay
        Rate at the start, or its peak with "one_cycle".
    schedule
        Of the learning rate. "steps": times ``factor`` after each epoch in ``milestones``; "cosine": from
        ``learning_rate`` to ``final_rate``, step by step; "one_cycle": up for the first ``warm_up`` of all steps, then
        down to nothing (Smith and Topin 2019, as torch has it, the momentum cycled against it).
    milestones
        Epochs of the phase that are over when the rate falls, rising.
    frozen
        First parts of the names of parameters that are kept as they are, with the statistics of their batch
        normalisations: "encoder" is the parameter encoder and all in the module encoder.
    frozen_epochs
        Epochs for which they are; None is the whole phase.
    patience
        Epochs without a lower validation loss that end the phase; None goes through all of it.
    """

    loss: str
    epochs: PositiveInt
    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: Positive
    weight_decay: NotNegative = 0.0
    schedule: Literal["constant", "steps", "cosine", "one_cycle"] = "constant"
    milestones: tuple[PositiveInt, ...] = ()
    factor: Fraction = 0.1
    final_rate: NotNegative = 0.0
    warm_up: Fraction = 0.15
    frozen: tuple[str, ...] = ()
    frozen_epochs: PositiveInt | None = None
    patience: PositiveInt | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if bool(self.milestones) != (self.schedule == "steps"):
            raise ValueError('schedule "steps" and milestones come together')
        if any(later <= earlier for earlier, later in zip(self.milestones, self.milestones[1:], strict=False)):
            raise ValueError(f"milestones {list(self.milestones)} do not rise")
        if self.milestones and self.milestones[-1] >= self.epochs:
            raise ValueError(f"milestone {self.milestones[-1]} lies behind the phase's {self.epochs} epochs")
        if self.final_rate > self.learning_rate:
            raise ValueError("final_rate is above learning_rate")
        if self.frozen_epochs is not None and not self.frozen:
            raise ValueError("frozen_epochs without anything frozen")
        return self


class Part(CardPart):
    """One network of a system, and how it learns.

    Attributes
    ----------
    role
        What the system's learner knows it by; also in file names.
    network, options
        As in :func:`ai.networks.registry.build`.
    start
        Weights that it begins with.
    examples
        What the system's learner cuts its examples by, such as the canvas; checked there.
    augmentation
        Name of the table of random changes; see :data:`ai.training.seed_augmentation.TABLES`.
    batch
        Examples per step of the optimiser.
    accumulation
        Pieces that a batch goes through the network in. Losses that are means over examples come out the same; ratios
        of sums over a batch and batch normalisation see pieces.
    clip
        Largest norm of the gradient; None leaves it.
    average
        Decay of the moving average of the weights, which is then what is validated and kept; None keeps the weights
        themselves.
    keep
        Which weights a phase leaves: those of its epoch with the lowest validation loss, or its last. Without
        validation examples always the last.
    epoch_examples
        Most examples of an epoch, drawn anew for each; None is all.
    validation_examples
        Most examples that are validated on, spread evenly over all and always the same; None is all.
    phases
        One after the other; each begins with the weights that the one before left, and a new optimiser.
    """

    role: str = Field(default="network", pattern="^[a-z0-9_]+$")
    network: str
    options: Mapping[str, Any] = Field(default_factory=dict)
    start: Literal["random", "imagenet", "lite0", "lite2", "gmic"] = "random"
    examples: Mapping[str, Any] = Field(default_factory=dict)
    augmentation: str = "none"
    batch: PositiveInt
    accumulation: PositiveInt = 1
    clip: Positive | None = None
    average: Fraction | None = None
    keep: Literal["best", "last"] = "best"
    epoch_examples: PositiveInt | None = None
    validation_examples: PositiveInt | None = None
    phases: tuple[Phase, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.accumulation > self.batch:
            raise ValueError(f"a batch of {self.batch} has no {self.accumulation} pieces")
        if self.epoch_examples is not None and self.epoch_examples < self.batch:
            raise ValueError(f"an epoch of {self.epoch_examples} examples has no batch of {self.batch}")
        return self

    @property
    def epochs(self) -> int:
        """Of all phases together."""
        return sum(phase.epochs for phase in self.phases)
