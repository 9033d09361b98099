"""How the Oulu thesis and Isosalo et al. (SPIE 2022) train: the whole breast on a canvas of 512 x 512.

Images come onto the canvas by the reader's own way; a mask's pixel is mass where more than half of it is. Random changes
are made on values of 0 to 1, then a square of 448 x 448 is cut out and normalised; validation sees the whole canvas.

SPIE takes mean and deviation of the augmented training set. Here they are those of the canvases as they are, without
random changes, over all images that are not held out: one pair for all folds, since a card has one, and none that hangs
on what was drawn.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt
from torch import nn

from ai.datasets.records import Record
from ai.errors import AIError, InvalidDataset, UnusableWeights
from ai.models import CardPart
from ai.networks.oulu import OuluNetwork
from ai.networks.registry import ARCHITECTURES
from ai.networks.resnet22 import ResNet22, load_gmic
from ai.readers.oulu import OuluCard, WholeBreast
from ai.readers.segmentation import MaskThresholds
from ai.training.engine import Examples, Objective
from ai.training.learners.base import Role, Shape, System
from ai.training.learners.masks import WHITE, MaskExamples, Picture, mask_objectives, read, scaled
from ai.training.learners.transfer import trained_or_imagenet
from ai.training.phases import Part
from ai.training.recipe import Recipe
from ai.training.seed_augmentation import TABLES
from ai.training.seed_losses import SEED_LOSSES

LOSSES: Final = tuple(name for name in SEED_LOSSES if name.startswith(("thesis_", "collagen_", "spie_")))
AUGMENTATIONS: Final = ("thesis", "spie", "moderate", "none")


class OuluExamples(CardPart):
    """The part's table ``examples``.

    Attributes
    ----------
    canvas
        Rows and columns; 512 and 512 in the papers.
    """

    canvas: tuple[PositiveInt, PositiveInt] = (512, 512)


@dataclass(frozen=True, eq=False)
class OuluLearner:
    """Canvases by the image's name, and what was measured on them.

    Attributes
    ----------
    pictures
        One for each image; 560 KiB at 512 x 512.
    measured
        ``mean`` and ``std`` of all of them together, rounded as a card gets them.
    """

    pictures: Mapping[str, Picture]
    measured: Mapping[str, float]

    def examples(self, part: Part, records: Sequence[Record]) -> Examples:
        """Return the canvases of some images."""
        if not records:
            raise InvalidDataset("no image is left to learn from or to validate on")
        pictures = [self.pictures[record.file] for record in records]
        mean, std = np.float32(self.measured["mean"]), np.float32(self.measured["std"])
        table = scaled(TABLES[part.augmentation], pictures[0].pixels.shape, ARCHITECTURES[part.network].multiple)

        def normalise(values: NDArray[np.float32]) -> NDArray[np.float32]:
            return (values - mean) / std

        return MaskExamples(pictures, table, normalise, f"oulu {mean} {std} {table}")

    def objectives(self, part: Part) -> Mapping[str, Objective]:  # noqa: ARG002 (all parts have these)
        """Return the losses of both papers."""
        return mask_objectives(LOSSES)


def oulu_learner(folder: Path, records: Sequence[Record], recipe: Recipe, on_image: Callable[[], None]) -> OuluLearner:
    """Bring images and masks onto the canvas.

    Raises
    ------
    InvalidDataset
        When an image or a mask cannot be used; it is named.
    """
    canvas = OuluExamples.model_validate(recipe.parts[0].examples).canvas
    pictures, total, squares = {}, 0.0, 0.0
    for record in records:
        pictures[record.file] = picture = canvas_picture(record, folder, canvas)
        values = picture.pixels.astype(np.float64) / WHITE
        total, squares = total + float(values.mean()), squares + float((values**2).mean())
        on_image()
    mean = total / max(len(pictures), 1)
    std = max(squares / max(len(pictures), 1) - mean**2, 0.0) ** 0.5
    if not std:
        raise InvalidDataset("all pixels of all images are alike")
    return OuluLearner(pictures, {"mean": round(mean, 6), "std": round(std, 6)})


def canvas_picture(record: Record, folder: Path, canvas: tuple[int, int]) -> Picture:
    """Return an image as the reader sees it but for the normalisation, with its masses.

    Raises
    ------
    InvalidDataset
        When it cannot be used; it is named.
    """
    image, mass = read(record, folder)
    try:
        pixels, geometry = WholeBreast(canvas, 0, 1).prepare(image)
    except AIError as error:
        raise InvalidDataset(f"{record.file}: {error}") from error
    return Picture.of(record.file, pixels, geometry.to_canvas(mass.astype(np.float32)) > 0.5)


def _input(examples: OuluExamples, part: Part) -> Shape:
    multiple = ARCHITECTURES[part.network].multiple
    if any(side % multiple for side in examples.canvas):
        raise ValueError(f"canvas: takes multiples of {multiple}, not {examples.canvas[0]} x {examples.canvas[1]}")
    crop = scaled(TABLES[part.augmentation], examples.canvas, multiple).crop
    return (1, crop, crop) if crop else (1, *examples.canvas)


def _tables(
    recipe: Recipe,
    _files: Mapping[str, Sequence[str]],
    measured: Mapping[str, float],
) -> Mapping[str, Any]:
    part = recipe.parts[0]
    canvas = list(OuluExamples.model_validate(part.examples).canvas)
    return {
        "network": part.network,
        "options": dict(part.options),
        "canvas": canvas,
        **measured,
        **recipe.reader.architecture,
    }


def _start(network: nn.Module, part: Part, path: Path | None) -> str:
    encoder = getattr(network, "encoder", None)
    if part.start == "gmic" and isinstance(encoder, ResNet22):
        if path is None:
            raise UnusableWeights(
                f"{part.role}: start = gmic needs one of GMIC's files, sample_model_1.p to sample_model_5.p (AGPL-3.0): "
                "give --start FILE, or --start random"
            )
        load_gmic(encoder, path)
        return f"GMIC, {path.name}, AGPL-3.0"
    if part.start == "imagenet" and isinstance(network, OuluNetwork) and not isinstance(encoder, ResNet22):
        return trained_or_imagenet(network, part, path, reader="oulu")
    raise UnusableWeights(f"{part.role}: {part.network} does not start from {part.start!r}")


OULU: Final = System(
    reader="oulu",
    statement="Research use only. Outlines masses in standard mammographic views; does not classify them.",
    roles={"network": Role(OuluExamples, LOSSES, AUGMENTATIONS, _input)},
    architecture=OuluCard,
    thresholds=MaskThresholds,
    learner=oulu_learner,
    tables=_tables,
    start=_start,
    measures={"mean": 0.2, "std": 0.2},
)
"""The Oulu thesis and Isosalo et al."""
