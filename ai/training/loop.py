"""The training loop: resumable, seeded, its state on disk after every epoch."""

import copy
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from ai.errors import Diverged, ForeignCheckpoint, InvalidDataset
from ai.networks.mass_fpn import LITE0, MassFPN, imagenet_lite0
from ai.training.augmentation import Augmentation
from ai.training.losses import mass_loss
from ai.training.samples import Sample

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that decides what a training run learns.

    Attributes
    ----------
    canvas
        Rows and columns that the network sees, multiples of 32.
    epochs, batch, seed
        Passes over the training images, images per step, seed of every random choice.
    learning_rate, weight_decay
        Peak of the one-cycle schedule and decay of AdamW.
    average
        Decay of the exponential moving average of the weights, which is what is kept.
    pretrained
        Start the encoder from EfficientNet-Lite0's ImageNet weights.
    """

    canvas: tuple[int, int] = (512, 320)
    epochs: int = 12
    batch: int = 8
    seed: int = 1
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    average: float = 0.995
    pretrained: bool = True
    encoder: str = LITE0
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True)
class Step:
    """Where a run is: epoch and step count from 1; loss is the mean over the epoch so far."""

    epoch: int
    step: int
    steps: int
    loss: float


def train(
    plan: TrainingPlan,
    samples: Sequence[Sample],
    folder: Path,
    device: torch.device,
    on_step: Callable[[Step], None] = lambda _: None,
) -> Path:
    """Train a :class:`MassFPN`; a run that was cut off goes on after its last whole epoch.

    Every random choice of an epoch comes from (seed, epoch), so that a resumed run learns what an uncut one learns.

    Parameters
    ----------
    plan
        What to do; a checkpoint of another plan is refused.
    samples
        Training images, prepared on ``plan.canvas``; a checkpoint of other images is refused, since a network that
        has seen another fold's patients could not be validated honestly.
    folder
        Receives checkpoint.pt and, at the end, model.safetensors (fp16).

    Returns
    -------
    Path
        The weights.

    Raises
    ------
    InvalidDataset
        When there are fewer images than one batch.
    ForeignCheckpoint
        When the folder holds a checkpoint of another plan or of other images.
    Diverged
        When the loss is not finite.
    """
    steps = len(samples) // plan.batch
    if not steps:
        raise InvalidDataset(f"{len(samples)} images are fewer than one batch of {plan.batch}")
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(plan.seed)
    network = MassFPN(plan.encoder)
    if plan.pretrained:
        network.load_lite0(imagenet_lite0())
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(network).eval()
    optimiser = torch.optim.AdamW(network.parameters(), plan.learning_rate, weight_decay=plan.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, plan.learning_rate, total_steps=plan.epochs * steps, pct_start=0.15
    )
    parts: dict[str, Any] = {"network": network, "average": average, "optimiser": optimiser, "schedule": schedule}
    what = {"plan": asdict(plan), "images": _fingerprint(samples)}
    for epoch in range(_resume(folder / CHECKPOINT, what, parts), plan.epochs):
        rng = np.random.default_rng((plan.seed, epoch))
        torch.manual_seed(plan.seed * 1000 + epoch)
        network.train()
        order, total = rng.permutation(len(samples)), 0.0
        for step in range(steps):
            chosen = [samples[i] for i in order[step * plan.batch : (step + 1) * plan.batch]]
            loss = _loss(network, _batch(chosen, plan.augmentation, rng), device)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            _average(average, network, min(plan.average, 1 - 1 / (1 + epoch * steps + step)))
            total += loss.item()
            on_step(Step(epoch + 1, step + 1, steps, total / (step + 1)))
        if not math.isfinite(total):
            raise Diverged(f"Epoch {epoch + 1}.")
        _checkpoint(folder / CHECKPOINT, what, parts, epoch + 1)
    return export(average, folder / WEIGHTS)


def export(network: torch.nn.Module, path: Path) -> Path:
    """Write a network's tensors as safetensors, floats in half precision."""
    state = {k: (v.half() if v.is_floating_point() else v).cpu().contiguous() for k, v in network.state_dict().items()}
    path.write_bytes(save(state))  # save_file makes a file that its owner alone can read
    return path


def _loss(network: MassFPN, batch: tuple[Tensor, Tensor, Tensor, Tensor], device: torch.device) -> Tensor:
    pixels, mass, mass_malignant, image_malignant = (t.to(device) for t in batch)
    with torch.autocast(device.type, torch.bfloat16):
        maps, image = network(pixels.contiguous(memory_format=torch.channels_last))
    return mass_loss(maps.float(), image.float(), mass, mass_malignant, image_malignant)


def _batch(
    samples: Sequence[Sample], augmentation: Augmentation, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    changed = [augmentation(s.pixels, s.mass, rng) for s in samples]
    return (
        torch.from_numpy(np.stack([p for p, _ in changed]))[:, None],
        torch.from_numpy(np.stack([m for _, m in changed])),
        _labels([s.record.agreed_malignancy for s in samples]),
        _labels([s.record.malignant for s in samples]),
    )


def _labels(values: Sequence[bool | None]) -> Tensor:
    return torch.tensor([math.nan if v is None else float(v) for v in values])


@torch.no_grad()
def _average(average: torch.nn.Module, network: torch.nn.Module, decay: float) -> None:
    for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)


def _fingerprint(samples: Sequence[Sample]) -> str:
    return hashlib.sha256(repr([s.record for s in samples]).encode()).hexdigest()


def _checkpoint(path: Path, what: dict[str, Any], parts: dict[str, Any], epoch: int) -> None:
    state = what | {"epoch": epoch} | {name: part.state_dict() for name, part in parts.items()}
    temporary = path.with_suffix(".part")
    torch.save(state, temporary)
    temporary.replace(path)


def _resume(path: Path, what: dict[str, Any], parts: dict[str, Any]) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    if what != {key: state.get(key) for key in what}:
        raise ForeignCheckpoint(str(path))
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["epoch"])
