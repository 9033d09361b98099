"""How Marita et al. train: crops of 1024 x 1024 pixels around the masses, reduced by 4 and divided by their maximum.

Around each mass one crop with the mass in its middle and four others, shifted at random. The paper does not say how far:
here up to a quarter of a crop along each side. Crops are cut out of the reader's own canvas, with the chest wall at the
left, and stay within it; a mask's pixel is mass where more than half of it is.

The paper deals crops to training and validation, so that a mass is in both: its validation accuracy of .97 leaks. Here
patients are dealt, as everywhere.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveInt, model_validator
from torch import nn

from ai.breast import Geometry
from ai.datasets.records import Record
from ai.errors import InvalidDataset, UnusableWeights
from ai.models import CardPart
from ai.readers.marita import MaritaCard, MaritaThresholds, Tiled
from ai.tiles import Tiling
from ai.training.engine import Examples, Objective
from ai.training.learners.base import Role, Shape, System
from ai.training.learners.masks import MaskExamples, Picture, mask_objectives, read
from ai.training.phases import Part
from ai.training.recipe import Recipe
from ai.training.seed_augmentation import TABLES
from ai.training.seed_losses import SEED_LOSSES
from ai.words import counted

LOSSES: Final = tuple(name for name in SEED_LOSSES if name.startswith("marita_"))
AUGMENTATIONS: Final = ("none", "madsen_segmentation")
"""The paper changes nothing but the place; mirroring is all that fits tiles beside it."""
REACH: Final = 0.25
"""How far crops are shifted, in sides of a crop, to either side."""


class MaritaExamples(CardPart):
    """The part's table ``examples``.

    Attributes
    ----------
    tile, reduction
        As in the card: side of a crop in pixels of the image, 1024 in the paper, and pixels of the image to one of the
        network's, 4 there. Copies of 800 pixels want 256 and 1, which is about the paper's size of a pixel.
    shifted
        Shifted crops of each mass; 4 in the paper.
    """

    tile: PositiveInt = 1024
    reduction: PositiveInt = 4
    shifted: NonNegativeInt = 4

    @model_validator(mode="after")
    def _whole(self) -> "MaritaExamples":
        if self.tile % (2 * self.reduction):
            raise ValueError("tile must be an even multiple of reduction")
        return self

    @property
    def side(self) -> int:
        """Side of a crop in pixels of the network."""
        return self.tile // self.reduction


@dataclass(frozen=True, eq=False)
class MaritaLearner:
    """Crops by the image's name; 136 KiB each at 256 x 256.

    Attributes
    ----------
    crops
        None for an image without a mass.
    form
        How they were cut.
    measured
        Nothing.
    """

    crops: Mapping[str, Sequence[Picture]]
    form: str
    measured: Mapping[str, float]

    def examples(self, part: Part, records: Sequence[Record]) -> Examples:
        """Return the crops of some images."""
        pictures = [crop for record in records for crop in self.crops[record.file]]
        if not pictures:
            raise InvalidDataset(f"none of {counted(len(records), 'image')} shows a mass: there is nothing to cut out")
        return MaskExamples(pictures, TABLES[part.augmentation], over_maximum, f"marita {self.form}")

    def objectives(self, part: Part) -> Mapping[str, Objective]:  # noqa: ARG002 (all parts have these)
        """Return the paper's losses."""
        return mask_objectives(LOSSES)


def marita_learner(
    folder: Path, records: Sequence[Record], recipe: Recipe, on_image: Callable[[], None]
) -> MaritaLearner:
    """Cut out the crops of every image.

    Raises
    ------
    InvalidDataset
        When an image or a mask cannot be used; it is named.
    """
    examples = MaritaExamples.model_validate(recipe.parts[0].examples)
    crops = {}
    for record in records:
        crops[record.file] = tuple(crops_of(record, folder, examples, recipe.seed))
        on_image()
    return MaritaLearner(crops, repr((examples, recipe.seed)), {})


def crops_of(record: Record, folder: Path, examples: MaritaExamples, seed: int) -> list[Picture]:
    """Return the crops of an image, mass by mass; what is drawn hangs on the seed and on the image's boxes alone.

    Raises
    ------
    InvalidDataset
        When it cannot be used; it is named.
    """
    if not record.boxes:
        return []
    image, mass = read(record, folder)
    tiling = Tiling(examples.side)
    geometry = Tiled(tiling, examples.reduction, 0).geometry(image)
    pixels = geometry.to_canvas(image.pixels)
    white = geometry.to_canvas(mass.astype(np.float32)) > 0.5
    rng = np.random.default_rng((seed, *record.file.encode()))
    crops = []
    for number, (x, y, width, height) in enumerate(record.boxes):
        centre = geometry.points_to_canvas(np.array([[x + width / 2, y + height / 2]]))[0]
        shifts = rng.uniform(-REACH, REACH, (examples.shifted, 2)) * examples.side
        for turn, shift in enumerate([np.zeros(2), *shifts]):
            origin = _within(centre + shift, examples.side, geometry)
            part = tiling.cut(pixels, origin), tiling.cut(white.astype(np.float32), origin) > 0
            crops.append(Picture.of(f"{record.file} mass {number} crop {turn}", *part))
    return crops


def over_maximum(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divide a tile by its maximum, as the reader does; one that is all black stays so."""
    return np.asarray(values / max(values.max(), np.float32(1e-6)), np.float32)


def _within(centre: NDArray[np.float64], side: int, geometry: Geometry) -> tuple[int, int]:
    """Return row and column of the first pixel of a square around a point, moved into the canvas."""
    column, row = np.round(centre - side / 2).astype(int)
    rows, columns = geometry.canvas
    return int(np.clip(row, 0, rows - side)), int(np.clip(column, 0, columns - side))


def _input(examples: MaritaExamples, part: Part) -> Shape:  # noqa: ARG001 (the changes keep the shape)
    return (1, examples.side, examples.side)


def _tables(recipe: Recipe, _files: Mapping[str, Sequence[str]], measured: Mapping[str, float]) -> Mapping[str, Any]:
    part = recipe.parts[0]
    examples = MaritaExamples.model_validate(part.examples)
    cut = {"tile": examples.tile, "reduction": examples.reduction}
    return {"network": part.network, "options": dict(part.options), **cut, **measured, **recipe.reader.architecture}


def _start(network: nn.Module, part: Part, file: Path | None) -> str:  # noqa: ARG001 (whatever they are)
    raise UnusableWeights(f"{part.network} does not start from {part.start!r}: the paper starts at random")


MARITA: Final = System(
    reader="marita",
    statement="Research use only. Outlines masses in standard mammographic views; does not classify them.",
    roles={"network": Role(MaritaExamples, LOSSES, AUGMENTATIONS, _input)},
    architecture=MaritaCard,
    thresholds=MaritaThresholds,
    learner=marita_learner,
    tables=_tables,
    start=_start,
)
"""Marita et al."""
