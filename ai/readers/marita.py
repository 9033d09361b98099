"""The reader of Marita et al.: a U-Net over tiles of the whole image at a quarter of its resolution.

The side of the chest wall by the means of a left and a right strip; tiles of 1024 x 1024 pixels, reduced by 4 to
256 x 256, beside each other from the chest wall on; dark ones skipped, each other one divided by its maximum. The mean of
the folds' probabilities, put together again and binary at 0.5. As a variant, tiles overlap by half and are blended.

The paper crops to whole tiles, and so loses what is beyond them; here the image is padded with black on the side away
from the chest wall and below, so that every pixel is read. It does not turn images; here the chest wall is always at the
left, so that mirrored images are read alike: train on images that are turned like these, or mirrored at random.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from ai.breast import Geometry, breast_of
from ai.exam import ViewImage
from ai.models import Model
from ai.readers.exams import picture
from ai.readers.folds import NetworkCard
from ai.readers.memory import Memory
from ai.readers.segmentation import MaskFolds, MaskThresholds, MassMap, SegmentationReader
from ai.tiles import Tiling

STRIP: Final = 0.1
"""Width of the strips whose means tell the side of the chest wall, in widths of the image; the paper does not say."""

BATCH: Final = 4
"""Tiles that go through the network at once."""

Probabilities = Callable[[Sequence[NDArray[np.float32]]], NDArray[np.float32]]
"""Tiles of one shape to the probability of a mass at each pixel; see :meth:`MaskFolds.probabilities`."""


class MaritaCard(NetworkCard):
    """The architecture table.

    Attributes
    ----------
    tile
        Side of a tile in pixels of the image; 1024 in the paper.
    reduction
        Pixels of the image to one of the network's, along each side; 4 in the paper.
    overlapped
        Tiles overlap by half and are blended by Hann windows; false in the paper.
    """

    tile: PositiveInt
    reduction: PositiveInt
    overlapped: bool = False

    @property
    def side(self) -> int:
        """Side of a tile in pixels of the network."""
        return self.tile // self.reduction

    @model_validator(mode="after")
    def _whole(self) -> "MaritaCard":
        if self.tile % (2 * self.reduction):
            raise ValueError("tile must be an even multiple of reduction")
        return self


class MaritaThresholds(MaskThresholds):
    """The thresholds table.

    Attributes
    ----------
    dark
        Mean presentation value (0 to 1) of a tile below which it is skipped; "an empirical value" in the paper.
    """

    dark: float = Field(ge=0, le=1)


@dataclass(frozen=True)
class Tiled:
    """The whole image on a canvas of whole tiles: chest wall at the left, black at the right and below.

    Attributes
    ----------
    tiling
        How it is cut.
    reduction
        Pixels of the image to one of the canvas, along each side.
    dark
        Mean of a tile below which it is skipped.
    """

    tiling: Tiling
    reduction: int
    dark: float

    def geometry(self, image: ViewImage) -> Geometry:
        """Return the way between the image and the canvas."""
        rows, columns = image.shape
        scales = 1 / self.reduction, image.pixel_aspect / self.reduction
        canvas = self.tiling.canvas(max(round(rows * scales[1]), 1), max(round(columns * scales[0]), 1))
        return Geometry((rows, columns), (0, 0, columns, rows), wall_at_right(image.pixels), scales, canvas)

    def read(self, image: ViewImage, probabilities: Probabilities) -> MassMap:
        """Return the map on the canvas; what was not read is 0.

        Raises
        ------
        ai.errors.NoBreast
            When there is no breast.
        """
        breast_of(image)  # refuses an image without one; the paper looks for none
        geometry = self.geometry(image)
        canvas = geometry.to_canvas(image.pixels)
        seen = [
            origin for origin in self.tiling.origins(geometry.canvas) if self.shows(self.tiling.cut(canvas, origin))
        ]
        tiles = [self.tiling.cut(canvas, origin) for origin in seen]
        found: list[NDArray[np.float32]] = []
        for first in range(0, len(tiles), BATCH):
            found += list(probabilities([tile / tile.max() for tile in tiles[first : first + BATCH]]))
        return MassMap(self.tiling.join(geometry.canvas, seen, found), geometry, picture(canvas))

    def shows(self, tile: NDArray[np.float32]) -> bool:
        """Tell whether a tile is worth reading: not dark, and not all the same."""
        return bool(tile.mean() >= self.dark and tile.max() > tile.min())


def wall_at_right(pixels: NDArray[np.float32]) -> bool:
    """Tell by the means of a strip at either side whether the chest wall is at the right."""
    width = max(round(STRIP * pixels.shape[1]), 1)
    return bool(pixels[:, :width].mean() < pixels[:, -width:].mean())


def marita_reader(model: Model, memory: Memory, threshold: float | None = None) -> SegmentationReader:
    """Load a model of Marita et al.; ``threshold`` stands for the card's ``mass`` when given.

    Raises
    ------
    ai.errors.ModelError
        When the card lacks a key, or weights are missing or differ from it.
    """
    card = model.part("architecture", MaritaCard)
    thresholds = model.part("thresholds", MaritaThresholds)
    folds = MaskFolds(model, card, ("tile", (card.side, card.side)), memory)
    view = Tiled(Tiling(card.side, card.overlapped), card.reduction, thresholds.dark)
    smallest = thresholds.mass if threshold is None else threshold
    return SegmentationReader(
        model.identity, memory, lambda image: view.read(image, folds.probabilities), thresholds.rule, smallest
    )
