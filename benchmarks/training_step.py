"""Seconds per training example of every system's network on this machine, and of its random changes; medians of steps.

Run: python -m benchmarks.training_step [NAME ...] [--steps N] [--batch N] [--device cpu] [--threads 2]
Whole steps of the training loop (forward, loss, backward, optimiser) on drawn pixels of the size that the recipes give,
in bfloat16 and in single precision. The first step, which warms up, is not counted. Names are those of networks.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ai.networks.registry import ARCHITECTURES, build
from ai.training.augmentation import Augmentation
from ai.training.engine import Objective, Step, train_part
from ai.training.learners.madsen import CLASSIFIER, DETECTOR, HEAD, MASKS, OBJECTIVES, RETINANET, SEGMENTER
from ai.training.learners.masks import mask_objectives
from ai.training.losses import mass_loss
from ai.training.phases import Part, Precision
from ai.training.seed_augmentation import TABLES
from ai.training.seed_losses import SEED_LOSSES
from benchmarks.values import US, Value

Draw = Callable[[int, tuple[int, int], np.random.Generator], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Case:
    """A network as its recipe trains it.

    Attributes
    ----------
    network, shape
        Name, and rows and columns of its input.
    objective, draw
        Its loss, and a batch of so many examples for it.
    changes
        Table of random changes; "mass_fpn" has its own.
    options
        Of the network.
    """

    network: str
    shape: tuple[int, int]
    objective: Objective
    draw: Draw
    changes: str
    options: tuple[tuple[str, object], ...] = ()


def pixels(count: int, shape: tuple[int, int], rng: np.random.Generator) -> Tensor:
    """Return grey pictures."""
    return torch.from_numpy(rng.random((count, 1, *shape), np.float32))


def discs(count: int, shape: tuple[int, int]) -> Tensor:
    """Return masks of one disc in the middle, shape (count, 1, rows, columns)."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    disc = (rows - shape[0] / 2) ** 2 + (columns - shape[1] / 2) ** 2 < (min(shape) / 10) ** 2
    return torch.from_numpy(np.repeat(disc[None, None].astype(np.float32), count, 0))


def with_masks(count: int, shape: tuple[int, int], rng: np.random.Generator) -> tuple[Tensor, ...]:
    """Return pictures and masks."""
    return pixels(count, shape, rng), discs(count, shape)


def with_labels(count: int, shape: tuple[int, int], rng: np.random.Generator) -> tuple[Tensor, ...]:
    """Return pictures and labels, every other one 1."""
    return pixels(count, shape, rng), torch.arange(count).float() % 2


def with_masks_and_labels(count: int, shape: tuple[int, int], rng: np.random.Generator) -> tuple[Tensor, ...]:
    """Return pictures, masks and labels."""
    return *with_masks(count, shape, rng), torch.arange(count).float() % 2


def with_boxes(count: int, shape: tuple[int, int], rng: np.random.Generator) -> tuple[Tensor, ...]:
    """Return pictures and one box in each."""
    box = torch.tensor([0.4 * shape[1], 0.4 * shape[0], 0.6 * shape[1], 0.6 * shape[0]])
    return pixels(count, shape, rng), box.expand(count, 1, 4).clone()


def for_mass_fpn(count: int, shape: tuple[int, int], rng: np.random.Generator) -> tuple[Tensor, ...]:
    """Return pictures, masks, and labels of masses and images."""
    labels = torch.arange(count).float() % 2
    return pixels(count, shape, rng), discs(count, shape)[:, 0], labels, labels


def mass_fpn_loss(network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Return the loss of the reader that ships."""
    outputs = network(batch[0])
    return mass_loss(outputs.maps.float(), outputs.image.float(), *batch[1:])


def patch_loss(network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Return the loss of the patch classifiers."""
    return SEED_LOSSES["agarwal_entropy"](network(batch[0]).float(), batch[1])


def mask_loss(name: str) -> Objective:
    """Return one of the losses of mask logits."""
    return mask_objectives([name])[name]


OULU = ("resnet22_unet", "resnet22_fpn", "resnet34_unet", "resnet34_fpn", "plain_unet")
PATCHES = ("vgg16_patch", "resnet50_patch", "inception_v3_patch")
CANVAS = (("canvas", (1024, 512)),)
CASES = (
    Case("mass_fpn", (512, 320), mass_fpn_loss, for_mass_fpn, "mass_fpn"),
    *(Case(name, (448, 448), mask_loss("thesis_focal_tversky_07"), with_masks, "thesis") for name in OULU),
    *(Case(name, (224, 224), patch_loss, with_labels, "agarwal") for name in PATCHES),
    Case("tile_unet", (256, 256), mask_loss("marita_bce_dice"), with_masks, "none"),
    Case(
        "retinanet_resnet50_fpn",
        (1024, 512),
        OBJECTIVES[DETECTOR][RETINANET],
        with_boxes,
        "madsen_detection",
        CANVAS,
    ),
    Case("transres_unet", (256, 256), OBJECTIVES[SEGMENTER][MASKS], with_masks, "madsen_segmentation"),
    Case(
        "three_branch_resnet50",
        (256, 256),
        OBJECTIVES[CLASSIFIER][HEAD],
        with_masks_and_labels,
        "madsen_segmentation",
    ),
)


class Enough(Exception):
    """All steps are measured; no checkpoint is wanted."""


@dataclass(frozen=True)
class Drawn:
    """One drawn batch, again and again."""

    examples: tuple[Tensor, ...]
    count: int

    def __len__(self) -> int:
        """Return how many there are."""
        return self.count

    @property
    def fingerprint(self) -> str:
        """Of nothing: no checkpoint is taken up."""
        return ""

    def batch(self, chosen: Sequence[int], rng: np.random.Generator | None) -> tuple[Tensor, ...]:
        """Return as many as are wanted."""
        del rng
        return tuple(tensor[: len(chosen)] for tensor in self.examples)


def values(repeats: int) -> Iterator[Value]:
    """Yield the seconds of each example of every network, and of its random changes."""
    for case in CASES:
        for seconds in step_seconds(case, Precision.BFLOAT16, repeats, 4, torch.device("cpu")):
            yield Value(f"training, {case.network}", "s/example", US, seconds / 4)
        for seconds in change_seconds(case, repeats):
            yield Value(f"changes, {case.network}", "s/example", US, seconds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    known = [case.network for case in CASES]
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"there is no network {unknown[0]}; there are {', '.join(known)}")
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    print(
        f"{device}, {options.threads} threads, {options.steps} steps of {options.batch} examples; seconds per example"
    )
    print(f"{'network':24}{'parameters':>12}{'input':>11}{'bfloat16':>10}{'single':>10}{'changes':>10}")
    for case in CASES:
        if options.names and case.network not in options.names:
            continue
        found = [
            statistics.median(step_seconds(case, precision, options.steps, options.batch, device)) / options.batch
            for precision in (Precision.BFLOAT16, Precision.SINGLE)
        ]
        size = f"{case.shape[0]} x {case.shape[1]}"
        times = "".join(f"{seconds:10.4f}" for seconds in (*found, statistics.median(change_seconds(case))))
        print(f"{case.network:24}{ARCHITECTURES[case.network].parameters:12,}{size:>11}{times}", flush=True)


def step_seconds(case: Case, precision: Precision, steps: int, batch: int, device: torch.device) -> list[float]:
    """Return the seconds of each step but the first."""
    torch.manual_seed(1)
    network = build(case.network, dict(case.options))
    examples = Drawn(case.draw(batch, case.shape, np.random.default_rng(1)), batch * (steps + 1))
    part = Part.model_validate(
        {
            "network": case.network,
            "batch": batch,
            "phases": [{"loss": "its", "epochs": 1, "learning_rate": 1e-5}],
        }
    )
    ends: list[float] = []

    def on_step(step: Step) -> None:
        ends.append(time.perf_counter())
        if step.step == step.steps:
            raise Enough

    with tempfile.TemporaryDirectory() as folder, suppress(Enough):
        train_part(
            network,
            {"its": case.objective},
            part,
            examples,
            None,
            Path(folder),
            seed=1,
            device=device,
            precision=precision,
            on_step=on_step,
        )
    return [after - before for before, after in itertools.pairwise(ends)]


def change_seconds(case: Case, repeats: int = 20) -> list[float]:
    """Return the seconds of random changes of one example."""
    rng = np.random.default_rng(1)
    whole = (512, 512) if TABLES.get(case.changes, TABLES["none"]).crop else case.shape
    image, mask = rng.random(whole, np.float32), discs(1, whole)[0, 0].numpy()
    own, bytes_ = Augmentation(), (255 * image).astype(np.uint8)
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        if case.changes == "mass_fpn":
            own(bytes_, mask.astype(np.uint8), np.zeros((0, 4)), rng)
        else:
            TABLES[case.changes](image, mask, rng)
        seconds.append(time.perf_counter() - begin)
    return seconds


if __name__ == "__main__":
    main()
