"""The reader of the Oulu thesis and of Isosalo et al. (SPIE 2022): a U-Net or an FPN over the whole breast.

Crop to the breast, pad to a square on the side away from the chest wall, reduce by area to 512 x 512, normalise by the
training set's mean and standard deviation; the mean of the folds' probabilities, binary at 0.5, without anything else at
test time. The papers' file format (16-bit PNG) and their viewer's cropping are not stated further.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from ai.breast import Geometry, breast_geometry, breast_of
from ai.exam import ViewImage
from ai.models import Model
from ai.readers.exams import picture
from ai.readers.folds import NetworkCard
from ai.readers.memory import Memory
from ai.readers.segmentation import MaskFolds, MaskThresholds, MassMap, SegmentationReader


class OuluCard(NetworkCard):
    """The architecture table.

    Attributes
    ----------
    canvas
        Rows and columns; 512 and 512 in the papers.
    mean, std
        Of the training set's presentation values (0 to 1) on the canvas.
    """

    canvas: tuple[PositiveInt, PositiveInt]
    mean: float = Field(ge=0, le=1)
    std: float = Field(gt=0, le=1)


@dataclass(frozen=True, eq=False)
class WholeBreast:
    """The breast on a canvas: chest wall at the left, black at the right and below.

    Attributes
    ----------
    canvas
        Rows and columns.
    mean, std
        Of the training set.
    """

    canvas: tuple[int, int]
    mean: float
    std: float

    def prepare(self, image: ViewImage) -> tuple[NDArray[np.float32], Geometry]:
        """Return what a network sees, and the way back.

        Raises
        ------
        ai.errors.NoBreast
            When there is no breast.
        """
        geometry = breast_geometry(image, breast_of(image), self.canvas)
        return (geometry.to_canvas(image.pixels) - np.float32(self.mean)) / np.float32(self.std), geometry


def oulu_reader(model: Model, memory: Memory, threshold: float | None = None) -> SegmentationReader:
    """Load a model of the Oulu papers; ``threshold`` stands for the card's ``mass`` when given.

    Raises
    ------
    ai.errors.ModelError
        When the card lacks a key, or weights are missing or differ from it.
    """
    card = model.part("architecture", OuluCard)
    thresholds = model.part("thresholds", MaskThresholds)
    folds = MaskFolds(model, card, ("canvas", card.canvas), memory)
    view = WholeBreast(card.canvas, card.mean, card.std)

    def view_map(image: ViewImage) -> MassMap:
        pixels, geometry = view.prepare(image)
        return MassMap(folds.probabilities([pixels])[0], geometry, picture(pixels * card.std + card.mean))

    smallest = thresholds.mass if threshold is None else threshold
    return SegmentationReader(model.identity, memory, view_map, thresholds.rule, smallest)
