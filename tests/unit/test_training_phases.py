"""What a recipe may say of a network's course."""

from typing import Any

import pytest
from pydantic import ValidationError

from ai.training.phases import Part, Phase


def a_phase(**changes: Any) -> Phase:
    return Phase.model_validate({"loss": "bce", "epochs": 4, "learning_rate": 1e-3} | changes)


def a_part(**changes: Any) -> Part:
    return Part.model_validate({"network": "plain_unet", "batch": 8, "phases": [a_phase()]} | changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"schedule": "steps"}, "milestones come together"),
        ({"milestones": [2]}, "milestones come together"),
        ({"schedule": "steps", "milestones": [2, 2]}, "do not rise"),
        ({"schedule": "steps", "milestones": [2, 4]}, "milestone 4 lies behind the phase's 4 epochs"),
        ({"schedule": "cosine", "final_rate": 2e-3}, "above learning_rate"),
        ({"frozen_epochs": 2}, "without anything frozen"),
        ({"learning_rate": float("inf")}, "finite"),
        ({"epochs": 0}, "greater than 0"),
        ({"optimizer": "adam"}, "optimizer"),
    ],
)
def test_a_phase_that_contradicts_itself_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        a_phase(**changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"batch": 2, "accumulation": 3}, "a batch of 2 has no 3 pieces"),
        ({"epoch_examples": 7}, "an epoch of 7 examples has no batch of 8"),
        ({"phases": []}, "at least 1"),
        ({"role": "../up"}, "pattern"),
        ({"average": 1.0}, "less than 1"),
    ],
)
def test_a_part_that_contradicts_itself_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        a_part(**changes)


def test_a_part_says_how_many_epochs_it_has() -> None:
    assert a_part(phases=[a_phase(), a_phase(epochs=20)]).epochs == 24
