"""What a course of training keeps, and when its phases end."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ai.training.phases import Part, Precision
from tests.toy_training import Drawn, a_network, a_part, down, no_curves, one_number, run, tensors

if TYPE_CHECKING:
    from ai.training.engine import Step, Trained

__all__ = ["no_curves"]


def count_down(folder: Path, *phases: dict[str, Any], cut_at: int = 0, **changes: Any) -> "Trained":
    """Train, cut off at a step of all and taken up again where that is wanted."""
    told = [{"loss": "bce", "epochs": 5, "learning_rate": 0.1, **phase} for phase in phases or ({},)]
    part = Part.model_validate({"network": "toy", "batch": 4, "phases": told} | changes)
    options: dict[str, Any] = {"objective": down, "training": Drawn(4), "precision": Precision.SINGLE}
    if cut_at:
        assert run(folder, part, network=one_number(), cut_at=cut_at, **options)[0] is None
    trained, _ = run(folder, part, network=one_number(), **options)
    assert trained is not None
    return trained


def kept(trained: "Trained") -> float:
    return float(tensors(trained.weights)["weight"].item())


def test_the_epoch_with_the_lowest_validation_loss_is_kept(tmp_path: Path) -> None:
    trained = count_down(tmp_path)
    assert [r.training for r in trained.history] == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6], abs=1e-5)
    assert [r.validation for r in trained.history] == pytest.approx([0.18, 0.08, 0.02, 0.12, 0.22], abs=1e-5)
    assert [r.examples for r in trained.history] == [4] * 5
    assert kept(trained) == pytest.approx(0.7, abs=1e-3)


def test_the_last_epoch_is_kept_where_the_recipe_says_so(tmp_path: Path) -> None:
    assert kept(count_down(tmp_path, keep="last")) == pytest.approx(0.5, abs=1e-3)


def test_sgd_gathers_momentum(tmp_path: Path) -> None:
    # Steps of 0.1, 0.1 (1 + 0.9), 0.1 (1 + 0.9 + 0.81); the run is cut off before the third.
    trained = count_down(tmp_path, {"epochs": 4, "optimiser": "sgd"}, cut_at=3)
    assert [r.training for r in trained.history] == pytest.approx([1.0, 0.9, 0.71, 0.439], abs=1e-5)


def test_a_phase_without_progress_ends_early_and_the_next_begins_where_it_was_best(tmp_path: Path) -> None:
    trained = count_down(tmp_path, {"patience": 1}, {"epochs": 2, "learning_rate": 0.01})
    assert [(r.phase, r.epoch) for r in trained.history] == [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2)]
    assert [r.training for r in trained.history] == pytest.approx([1, 0.9, 0.8, 0.7, 0.7, 0.69], abs=1e-5)
    # Worse than the phase before, but the best of its own.
    assert kept(trained) == pytest.approx(0.69, abs=1e-3)


def test_a_cut_run_knows_what_was_best_and_for_how_long_it_has_waited(tmp_path: Path) -> None:
    # The third epoch is the best; the run is cut off in the fifth, which is the last.
    trained = count_down(tmp_path, {"epochs": 9, "patience": 2}, cut_at=5)
    assert len(trained.history) == 5
    assert kept(trained) == pytest.approx(0.7, abs=1e-3)


def test_the_moving_average_warms_up_and_is_what_is_validated(tmp_path: Path) -> None:
    trained = count_down(tmp_path, {"epochs": 3}, average=0.5, keep="last")
    # w is .9, .8, .7; the average .9, (.9 + .8) / 2, (.85 + .7) / 2.
    assert [r.validation for r in trained.history] == pytest.approx([0.18, 0.13, 0.055], abs=1e-5)
    assert kept(trained) == pytest.approx(0.775, abs=1e-3)


@pytest.mark.parametrize(
    ("phase", "rates"),
    [
        ({}, [0.1, 0.1, 0.1, 0.1]),
        ({"schedule": "steps", "milestones": [1, 3]}, [0.1, 0.01, 0.01, 0.001]),
        ({"schedule": "steps", "milestones": [2], "factor": 0.5}, [0.1, 0.1, 0.05, 0.05]),
        # Steps 0 to 3 of 4: cosines of 0, 45, 90 and 135 degrees, from 0.1 to 0.02.
        (
            {"schedule": "cosine", "final_rate": 0.02},
            [0.06 + 0.04 * math.cos(math.pi * i / 4) for i in range(4)],
        ),
        # Up from a 25th to the peak at step 1, then down to nothing at step 3 (torch's defaults).
        ({"schedule": "one_cycle", "warm_up": 0.5}, [0.004, 0.1, 0.05, 4e-7 * 0.1]),
    ],
)
def test_schedules_are_these_numbers(tmp_path: Path, phase: dict[str, Any], rates: list[float]) -> None:
    trained = count_down(tmp_path, {"epochs": 4, **phase})
    assert [r.learning_rate for r in trained.history] == pytest.approx(rates, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("steps", range(1, 12))
def test_one_cycle_of_any_length_can_be_made(steps: int) -> None:
    from ai.training.optimisation import new_optimiser, new_schedule
    from ai.training.phases import Phase

    phase = Phase(loss="bce", epochs=1, learning_rate=0.1, schedule="one_cycle", warm_up=0.1)
    optimiser = new_optimiser(phase, one_number().parameters())
    schedule = new_schedule(phase, optimiser, steps)
    for _ in range(steps):
        optimiser.step()
        schedule.step()


@pytest.mark.parametrize("clip", [None, 0.01])
def test_the_gradient_is_clipped_where_the_recipe_says_so(tmp_path: Path, clip: float | None) -> None:
    import torch

    network, norms = a_network(), []

    def on_step(_: "Step") -> None:
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        norms.append(float(torch.cat([g.flatten() for g in gradients]).norm()))

    run(tmp_path, a_part(clip=clip), network=network, on_step=on_step)
    assert len(norms) == 12
    if clip is None:
        assert min(norms) > 0.02
    else:
        assert norms == pytest.approx([clip] * 12, rel=1e-3)


def test_the_network_itself_ends_with_the_average_that_is_kept(tmp_path: Path) -> None:
    network = a_network()
    trained, _ = run(tmp_path, network=network)
    assert trained is not None
    for name, tensor in tensors(trained.weights).items():
        np.testing.assert_array_equal(tensor, network.state_dict()[name].numpy().astype(tensor.dtype))
