"""The training loop on networks of a few numbers."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from ai.training.phases import Part, Precision

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ai.training.engine import Step, Trained


@pytest.fixture(autouse=True)
def no_curves(one_thread: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the picture empty: it takes longer than these runs; the run of the fixture ``uncut`` draws it."""
    from ai.training import engine

    monkeypatch.setattr(engine, "draw_curves", lambda _, path, *__: path.touch())


class Drawn:
    """Drawn images, whose truth is where they are bright; changed ones have noise."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self.images = np.random.default_rng(seed).random((count, 1, 8, 8), np.float32)
        self.asked: list[tuple[list[int], bool]] = []

    def __len__(self) -> int:
        return len(self.images)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.images.tobytes()).hexdigest()

    def batch(self, chosen: Sequence[int], rng: np.random.Generator | None) -> "tuple[Tensor, ...]":
        import torch

        self.asked.append((list(chosen), rng is not None))
        images = self.images[list(chosen)]
        noise = (
            0 if rng is None else np.stack([0.1 * rng.standard_normal(images.shape[1:], np.float32) for _ in chosen])
        )
        return torch.from_numpy(images + noise), torch.from_numpy((images > 0.5).astype(np.float32))


def a_network(*, plain: bool = False) -> "nn.Module":
    """Build an encoder and a head; a plain one has no batch normalisation and no dropout."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Identity() if plain else nn.BatchNorm2d(4), nn.ReLU())
    network = nn.Sequential()
    network.add_module("encoder", encoder)
    network.add_module("drop", nn.Identity() if plain else nn.Dropout(0.2))
    network.add_module("head", nn.Conv2d(4, 1, 1))
    return network


def entropy(network: "nn.Module", batch: "tuple[Tensor, ...]") -> "Tensor":
    from torch.nn.functional import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits(network(batch[0]).float(), batch[1])


COURSE = {
    "network": "toy",
    "batch": 4,
    "accumulation": 2,
    "clip": 1.0,
    "average": 0.9,
    "epoch_examples": 9,
    "phases": [
        {
            "loss": "bce", "epochs": 3, "learning_rate": 0.05, "schedule": "steps", "milestones": [1, 2],
            "frozen": ["encoder"], "frozen_epochs": 2,
        },
        {"loss": "bce", "epochs": 3, "optimiser": "adamw", "learning_rate": 0.02, "schedule": "one_cycle"},
    ],
}  # fmt: skip


def a_part(**changes: Any) -> Part:
    return Part.model_validate(COURSE | changes)


class Cut(Exception):
    """The power went out."""


def run(
    folder: Path,
    part: Part | None = None,
    *,
    training: Drawn | None = None,
    validation: Drawn | None = None,
    cut_at: int = 0,
    network: "nn.Module | None" = None,
    objective: Callable[..., Any] = entropy,
    **options: Any,
) -> "tuple[Trained | None, list[Step]]":
    """Train, and cut the run off at a step of all; 0 lets it end."""
    import torch

    from ai.training.engine import train_part

    steps: list[Step] = []
    options.setdefault("precision", Precision.BFLOAT16)

    def on_step(step: "Step") -> None:
        steps.append(step)
        if len(steps) == cut_at:
            raise Cut

    told: dict[str, Any] = {"seed": 4, "device": torch.device("cpu"), "on_step": on_step} | options
    training = training or Drawn(11)
    validation = validation or Drawn(5, seed=1)
    network = network or a_network()
    try:
        return train_part(network, {"bce": objective}, part or a_part(), training, validation, folder, **told), steps
    except Cut:
        return None, steps


@pytest.fixture(scope="module")
def uncut(tmp_path_factory: pytest.TempPathFactory) -> "tuple[Path, Trained]":
    """Return the folder and the result of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("uncut")
    trained, steps = run(folder)
    assert trained is not None
    assert [(s.phase, s.epoch, s.step, s.steps) for s in steps[:5]] == [
        (1, 1, 1, 2), (1, 1, 2, 2), (1, 2, 1, 2), (1, 2, 2, 2), (1, 3, 1, 2),
    ]  # fmt: skip
    assert [(s.done, s.total) for s in steps] == [(i + 1, 12) for i in range(12)]
    return folder, trained


def tensors(path: Path) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = load_file(path)
    return found


def timeless(trained: "Trained | None") -> list[Any]:
    assert trained is not None
    return [replace(row, seconds=0.0) for row in trained.history]


# After 3 steps: in the second epoch; 6: at the border of the phases; 7: in the second phase; 12: at the very end.


# One number, w = 1 at first, whose training loss is w itself: Adam takes it down by the learning rate, step by step.
def one_number(start: float = 1.0) -> "nn.Module":
    import torch
    from torch import nn

    network = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        network.weight.fill_(start)
    return network


def down(network: "nn.Module", batch: "tuple[Tensor, ...]") -> "Tensor":
    """Return w in training and its distance from 0.72 in validation."""
    w = network.get_parameter("weight").sum() * batch[0].isfinite().all()
    return w if network.training else (w - 0.72).abs()
