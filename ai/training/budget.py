"""A course cut down to what a machine can do: the same phases over fewer examples."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Final

from ai.errors import InvalidRecipe
from ai.training.phases import Part, Phase

LEAST: Final = 10
"""Epochs that a shortened course keeps, if it had them: fewer would not show whether the loss still falls."""


def examples_seen(part: Part, size: int) -> int:
    """Return how many training examples a part sees in all, out of ``size``, if no phase ends early."""
    return part.epochs * _epoch(part, size)


def within(parts: Sequence[Part], budget: int, sizes: Mapping[str, int]) -> tuple[Part, ...]:
    """Cut the courses of a system's networks down to a number of examples seen in all.

    Each network and each phase keeps its share. Epochs go first, down to :data:`LEAST`; then epochs become shorter.
    Milestones and frozen epochs keep their places, as far as whole epochs allow; milestones that fall together count
    once. An epoch is validated on no more examples than it learns from. Rates, batches and patience stay. A course
    within the budget stays as it is: none is made longer.

    Parameters
    ----------
    parts
        Of one recipe.
    budget
        Examples.
    sizes
        How many training examples there are, by the part's role.

    Returns
    -------
    tuple of Part
        In the same order; they see ``budget`` examples or somewhat fewer.

    Raises
    ------
    InvalidRecipe
        When the budget has no step for each phase; it says how many examples are needed.
    """
    planned = [examples_seen(part, sizes[part.role]) for part in parts]
    total = sum(planned)
    if total <= budget:
        return tuple(parts)
    cut = []
    for part, seen in zip(parts, planned, strict=True):
        share = Fraction(budget * seen, total)
        if seen and share < part.batch * len(part.phases):
            need = max(-(-p.batch * len(p.phases) * total // n) for p, n in zip(parts, planned, strict=True) if n)
            raise InvalidRecipe(
                f"a budget of {budget} examples has no step for each phase of part {part.role}; give {need} or more"
            )
        cut.append(_cut(part, share, sizes[part.role]) if seen else part)
    return tuple(cut)


def _epoch(part: Part, size: int) -> int:
    return min(size, part.epoch_examples or size) // part.batch * part.batch


def _cut(part: Part, share: Fraction, size: int) -> Part:
    steps = int(share / part.batch)
    least = min(part.epochs, max(LEAST, len(part.phases)))
    epochs = min(max(int(share / _epoch(part, size)), least), steps)
    phases = [_shorter(p, e) for p, e in zip(part.phases, _dealt(part.phases, epochs), strict=True)]
    epoch = steps // epochs * part.batch
    validated = min(part.validation_examples or epoch, epoch)
    # Validated again, as the recipe was.
    told = part.model_dump() | {"epoch_examples": epoch, "validation_examples": validated, "phases": phases}
    return Part.model_validate(told)


def _dealt(phases: Sequence[Phase], epochs: int) -> list[int]:
    """Deal epochs to phases: one to each, then one by one to where the most is missing."""
    dealt = [1] * len(phases)
    for _ in range(epochs - len(phases)):
        dealt[max(range(len(phases)), key=lambda i: Fraction(phases[i].epochs, dealt[i]))] += 1
    return dealt


def _shorter(phase: Phase, epochs: int) -> Phase:
    scale = Fraction(epochs, phase.epochs)
    changes = phase.model_dump() | {"epochs": epochs}
    if phase.milestones:
        milestones = sorted({max(1, round(m * scale)) for m in phase.milestones} & set(range(1, epochs)))
        changes |= {"milestones": milestones, "schedule": "steps" if milestones else "constant"}
    if phase.frozen_epochs is not None and phase.frozen_epochs < phase.epochs:
        frozen = min(max(1, round(phase.frozen_epochs * scale)), epochs - 1)
        changes |= {"frozen_epochs": frozen} if frozen else {"frozen": (), "frozen_epochs": None}
    return Phase.model_validate(changes)
