"""Optimiser, schedule, frozen parameters and moving average, as a phase names them."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from ai.errors import InvalidRecipe
from ai.training.phases import Phase

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def new_optimiser(phase: Phase, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Return the phase's optimiser, its moments empty."""
    if phase.optimiser == "sgd":
        return SGD(parameters, phase.learning_rate, momentum=0.9, weight_decay=phase.weight_decay)
    kind = AdamW if phase.optimiser == "adamw" else Adam
    return kind(parameters, phase.learning_rate, weight_decay=phase.weight_decay)


def new_schedule(phase: Phase, optimiser: Optimizer, steps: int) -> LRScheduler:
    """Return the phase's schedule, to be moved on after every step.

    Parameters
    ----------
    steps
        Steps per epoch.
    """
    total = phase.epochs * steps
    if phase.schedule == "one_cycle":
        # torch divides by zero where the warm-up is exactly one step.
        warm_up = min(max(phase.warm_up, 1.5 / total), 0.99)
        return OneCycleLR(optimiser, phase.learning_rate, total_steps=total, pct_start=warm_up)

    def share(step: int) -> float:
        if phase.schedule == "steps":
            return phase.factor ** sum(step // steps >= milestone for milestone in phase.milestones)
        if phase.schedule == "cosine":
            last = phase.final_rate / phase.learning_rate
            return last + (1 - last) * (1 + math.cos(math.pi * step / total)) / 2
        return 1.0

    return LambdaLR(optimiser, share)


class Freezer:
    """Keeps parts of a network as they are.

    Parameters
    ----------
    network
        Parameters that are not to be learnt by now will not be.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self.learnt = {name: p for name, p in network.named_parameters() if p.requires_grad}

    def check(self, phase: Phase) -> None:
        """Refuse a phase that freezes what is not there, or all there is.

        Raises
        ------
        InvalidRecipe
            It names the part, and what the network has.
        """
        for prefix in phase.frozen:
            if not any(_within(name, (prefix,)) for name in self.learnt):
                parts = sorted({name.partition(".")[0] for name in self.learnt})
                raise InvalidRecipe(f"frozen: the network has no {prefix!r}; it has {', '.join(parts)}")
        if all(_within(name, phase.frozen) for name in self.learnt):
            raise InvalidRecipe(f"frozen: {', '.join(phase.frozen)} leaves nothing to learn")

    def train(self, phase: Phase, epoch: int) -> None:
        """Put the network into training mode for an epoch of the phase, counted from 0."""
        over = phase.frozen_epochs is not None and epoch >= phase.frozen_epochs
        frozen = () if over else phase.frozen
        for name, parameter in self.learnt.items():
            parameter.requires_grad_(not _within(name, frozen))
        self._network.train()
        for name, module in self._network.named_modules():
            if isinstance(module, NORMS) and _within(name, frozen):
                module.eval()

    def release(self) -> None:
        """Let all be learnt that could be before."""
        for parameter in self.learnt.values():
            parameter.requires_grad = True


@torch.no_grad()
def move_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the average towards the network's weights by 1 - ``decay``; counters are copied."""
    for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)


def _within(name: str, prefixes: Sequence[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)
