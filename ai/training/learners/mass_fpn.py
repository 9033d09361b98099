"""How the reader that ships is trained: the breast on a canvas, masses, their boxes and malignancies together.

The mass map learns from masks or outlines where the set has them, else from the ellipses inscribed in the boxes; the
malignancy map within masses whose labels agree; the image output from the image's label. What is not known costs nothing.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from ai.datasets.records import Record
from ai.errors import InvalidDataset, UnusableWeights
from ai.models import CardPart
from ai.networks.mass_fpn import LITE0, STRIDE, MassFPN, MassOutputs, imagenet_lite, load_lite
from ai.readers.mass_fpn import MassFPNCard, MassFPNThresholds
from ai.training.augmentation import STRONG, Augmentation
from ai.training.engine import Examples, Objective
from ai.training.learners.base import Role, Shape, System
from ai.training.learners.transfer import trained
from ai.training.losses import box_loss, mass_loss
from ai.training.phases import Part
from ai.training.recipe import Recipe
from ai.training.samples import Sample, load_samples

LOSSES: Final = ("mass_loss",)
AUGMENTATIONS: Final = {"mass_fpn": Augmentation(), "mass_fpn_strong": STRONG, "none": None}


class MassFPNExamples(CardPart):
    """The part's table ``examples``.

    Attributes
    ----------
    canvas
        Rows and columns that the network sees, multiples of 32.
    """

    canvas: tuple[PositiveInt, PositiveInt] = (512, 320)


@dataclass(frozen=True, eq=False)
class MassExamples:
    """Samples; a batch is pixels (n, 1, rows, columns), mass (n, rows, columns), labels of masses and image (n,), boxes.

    Attributes
    ----------
    samples
        All of one canvas.
    augmentation
        Random changes of training; None makes none.
    """

    samples: Sequence[Sample]
    augmentation: Augmentation | None

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.samples)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the images, their labels and the changes."""
        digest = hashlib.sha256(repr(self.augmentation).encode())
        for sample in self.samples:
            digest.update(repr((sample.record, sample.pixels.shape)).encode())
            digest.update(sample.pixels.tobytes())
            digest.update(sample.mass.tobytes())
            digest.update(sample.boxes.tobytes())
        return digest.hexdigest()

    def batch(self, chosen: Sequence[int], rng: np.random.Generator | None) -> tuple[Tensor, ...]:
        """Return pixels, mass, malignancy of the masses and of the image, NaN where that is not known, and boxes.

        Boxes are x1, y1, x2, y2 on the canvas, shape (n, k, 4); k is the largest number in an image, rows of NaN are none.
        """
        samples = [self.samples[place] for place in chosen]
        pixels, masses = [], []
        boxes = np.full((len(samples), max(len(s.boxes) for s in samples), 4), np.nan, np.float32)
        for row, sample in enumerate(samples):
            if rng is None or self.augmentation is None:
                shown, mass = sample.pixels.astype(np.float32) / np.float32(127.5) - 1, sample.mass.astype(np.float32)
                placed = sample.boxes
            else:
                shown, mass, placed = self.augmentation(sample.pixels, sample.mass, sample.boxes, rng)
            pixels.append(shown)
            masses.append(mass)
            boxes[row, : len(placed)] = placed
        return (
            torch.from_numpy(np.stack(pixels))[:, None],
            torch.from_numpy(np.stack(masses)),
            _labels([s.record.agreed_malignancy for s in samples]),
            _labels([s.record.malignant for s in samples]),
            torch.from_numpy(boxes),
        )


@dataclass(frozen=True, eq=False)
class MassFPNLearner:
    """Samples by the image's name; 320 KiB each at 512 x 320."""

    samples: Mapping[str, Sample]
    measured: Mapping[str, float]

    def examples(self, part: Part, records: Sequence[Record]) -> Examples:
        """Return the samples of some images."""
        if not records:
            raise InvalidDataset("no image is left to learn from or to validate on")
        return MassExamples([self.samples[record.file] for record in records], AUGMENTATIONS[part.augmentation])

    def objectives(self, part: Part) -> Mapping[str, Objective]:  # noqa: ARG002 (there is one)
        """Return the sum of the losses of the three outputs."""
        return {"mass_loss": _loss}


def mass_fpn_learner(
    folder: Path, records: Sequence[Record], recipe: Recipe, on_image: Callable[[], None]
) -> MassFPNLearner:
    """Bring images onto the canvas.

    Raises
    ------
    InvalidDataset
        When an image or a mask cannot be used; it is named.
    """
    canvas = MassFPNExamples.model_validate(recipe.parts[0].examples).canvas
    samples = load_samples(folder, records, canvas, on_image)
    return MassFPNLearner({sample.record.file: sample for sample in samples}, {})


def _loss(network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    pixels, *labels = batch
    return label_loss(network(pixels), *labels)


def label_loss(
    outputs: MassOutputs, mass: Tensor, mass_malignant: Tensor, image_malignant: Tensor, boxes: Tensor
) -> Tensor:
    """Return the sum of the losses of the network's outputs; see :func:`mass_loss` and :func:`box_loss`."""
    total = mass_loss(outputs.maps.float(), outputs.image.float(), mass, mass_malignant, image_malignant)
    if outputs.centres is None or outputs.distances is None:
        return total
    return total + box_loss(outputs.centres, outputs.distances, boxes, STRIDE)


def _labels(values: Sequence[bool | None]) -> Tensor:
    return torch.tensor([math.nan if value is None else float(value) for value in values])


def _input(examples: MassFPNExamples, part: Part) -> Shape:  # noqa: ARG001 (the changes keep the shape)
    if any(side % 32 for side in examples.canvas):
        raise ValueError(f"canvas: takes multiples of 32, not {examples.canvas[0]} x {examples.canvas[1]}")
    return (1, *examples.canvas)


def _tables(recipe: Recipe, _files: Mapping[str, Sequence[str]], measured: Mapping[str, float]) -> Mapping[str, Any]:
    part = recipe.parts[0]
    canvas = list(part.examples.get("canvas", MassFPNExamples().canvas))
    boxes = {"boxes": True} if part.options.get("boxes") else {}
    encoder = part.options.get("encoder", LITE0)
    return {"encoder": encoder, "canvas": canvas, **boxes, **measured, **recipe.reader.architecture}


def _start(network: nn.Module, part: Part, file: Path | None) -> str:
    if part.start not in LITES or not isinstance(network, MassFPN):
        raise UnusableWeights(f"{part.network} does not start from {part.start!r}")
    if file is not None:
        if not file.is_dir():
            raise UnusableWeights(
                f"{file}: {part.network} starts from a package's weights or from a model directory; leave out --start, or "
                "give a directory"
            )
        return trained(network, part, file, reader="mass_fpn")
    return start_lite(network.fpn.encoder, part)


LITES: Final = {"lite0": 0, "lite2": 2}
"""What an EfficientNet-Lite of this size starts from, by the word of a recipe."""


def start_lite(encoder: nn.Module, part: Part) -> str:
    """Start an encoder from an EfficientNet-Lite's ImageNet weights, and return the card's word for them.

    Raises
    ------
    UnusableWeights
        When they are not installed, or do not fit.
    """
    size = LITES[part.start]
    named = f"EfficientNet-Lite{size}"
    try:
        load_lite(encoder, imagenet_lite(size))
    except ImportError as error:
        raise UnusableWeights(f"install the extra `train`, which brings {named}'s weights: {error}") from error
    except ValueError as error:
        raise UnusableWeights(
            f"encoder {part.options.get('encoder', LITE0)} does not start from {part.start!r}: {error}"
        ) from error
    return f"{named}, ImageNet, RangiLyu/EfficientNet-Lite, Apache-2.0"


MASS_FPN: Final = System(
    reader="mass_fpn",
    statement="Research use only. Marks and scores masses in standard mammographic views.",
    roles={"network": Role(MassFPNExamples, LOSSES, tuple(AUGMENTATIONS), _input)},
    architecture=MassFPNCard,
    thresholds=MassFPNThresholds,
    learner=mass_fpn_learner,
    tables=_tables,
    start=_start,
)
"""The reader that ships."""
