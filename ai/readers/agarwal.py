"""The reader of Agarwal et al. 2019 (J Med Imaging 6(3)): a patch classifier at every 56th pixel, and the map between.

Chest wall to the left, patches of 224 pixels around centres at every 56th row and column, each with zero mean and unit
deviation; the mean of the folds' probabilities at the centres is interpolated linearly to the image's own pixels. Where
this mass probability map is above a threshold, each connected part is a mass.

What the paper leaves open: the first centre is the first pixel, and the image is reflected at its edges, so that the
centres cover it; all images may be resampled to one spacing, which the paper does not do though its two databases differ.
"""

from typing import Final, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from ai.breast import Geometry, breast_of
from ai.errors import InvalidCard
from ai.exam import ViewImage
from ai.models import CARD, CardPart, Model
from ai.networks.patch import MASS, PATCH
from ai.networks.registry import ARCHITECTURES
from ai.readers.exams import picture
from ai.readers.folds import NetworkCard, folds
from ai.readers.lesions import LesionRule
from ai.readers.memory import Memory
from ai.readers.segmentation import MassMap, SegmentationReader
from ai.readers.sliding import cells, interpolate, normalise, used, windows

BATCH: Final = 32
"""Patches in one pass."""

_MARGIN = 0.02  # of the longest side around the breast, as in ai.breast: its mask leaves the image's border out


class AgarwalCard(NetworkCard):
    """The architecture table.

    Attributes
    ----------
    stride
        Pixels between centres; 56 in the paper.
    windows
        ``literal`` looks around every centre, as the paper does; ``fast`` only around those on which the map hangs
        within the breast. There both maps are one; elsewhere the fast one is never above the literal one.
    spacing
        Of the pixels that the patches are cut from, mm. None takes the image's own pixels, as the paper does; so does
        an image without spacing.
    """

    stride: int = Field(default=56, ge=1, le=PATCH)
    windows: Literal["literal", "fast"]
    spacing: float | None = Field(default=None, gt=0)


class AgarwalThresholds(CardPart):
    """The thresholds table.

    Attributes
    ----------
    mass
        Smallest detection of a finding: the mean probability within it.
    candidate
        Probability above which the map is a mass.
    """

    mass: float = Field(ge=0, le=1)
    candidate: float = Field(ge=0, lt=1)


class SlidingWindow:
    """Makes mass probability maps.

    Parameters
    ----------
    card
        How.
    networks
        The folds; each gives logits of no mass and mass, shape (n, 2), for normalised patches, shape (n, 1, 224, 224).
    memory
        Where they are, and how they run.
    """

    def __init__(self, card: AgarwalCard, networks: list[nn.Module], memory: Memory) -> None:
        self._card = card
        self._networks = networks
        self._memory = memory

    def __call__(self, image: ViewImage) -> MassMap:
        """Return the map at the image's own pixels.

        Raises
        ------
        ai.errors.NoBreast
            When there is no breast.
        """
        breast = breast_of(image)
        straight = straightened(image, breast, self._card.spacing)
        rows, columns = image.shape
        resampled = straight.canvas
        stride = self._card.stride
        canvas = straight.to_canvas(image.pixels)
        patches = windows(canvas, stride)
        down, across = cells(rows, resampled[0], stride), cells(columns, resampled[1], stride)
        if straight.mirrored:
            across = across[::-1]
        wanted = np.ones(patches.shape[:2], np.bool_)
        if self._card.windows == "fast":
            wanted = used(_searched(breast, image.shape), down, across, (patches.shape[0], patches.shape[1]))
        values = interpolate(self._grid(patches, wanted), down, across)
        itself = Geometry(image.shape, (0, 0, columns, rows), mirrored=False, scale=(1, 1), canvas=image.shape)
        return MassMap(values, itself, picture(canvas))

    @torch.inference_mode()
    def _grid(self, patches: NDArray[np.float32], wanted: NDArray[np.bool_]) -> NDArray[np.float32]:
        grid = np.zeros(wanted.shape, np.float32)
        places = np.argwhere(wanted)
        for first in range(0, len(places), BATCH):
            down, across = places[first : first + BATCH].T
            batch = normalise(torch.from_numpy(patches[down, across])[:, None].to(self._memory.where))
            mean = torch.stack([network(batch).softmax(1)[:, MASS] for network in self._networks]).mean(0)
            grid[down, across] = mean.cpu().numpy()
        return grid


def agarwal_reader(model: Model, memory: Memory, threshold: float | None = None) -> SegmentationReader:
    """Load a model of Agarwal's; ``threshold`` stands for the card's ``mass`` when given.

    Raises
    ------
    ai.errors.ModelError
        When the card lacks a key, the network is no patch classifier, or weights are missing or differ from the card.
    """
    card = model.part("architecture", AgarwalCard)
    thresholds = model.part("thresholds", AgarwalThresholds)
    known = ARCHITECTURES.get(card.network)
    if known and known.multiple != PATCH:
        raise InvalidCard(f"{model.folder / CARD}: architecture.network: {card.network} is no patch classifier")
    mass_map = SlidingWindow(card, folds(card, model.weights(), memory), memory)
    rule = LesionRule(thresholds.candidate, None, smallest=1)
    smallest = thresholds.mass if threshold is None else threshold
    return SegmentationReader(model.identity, memory, mass_map, rule, smallest)


def straightened(image: ViewImage, breast: NDArray[np.bool_], spacing: float | None) -> Geometry:
    """Return the way to the picture that patches are cut from: the whole image, chest wall at the left, resampled.

    Parameters
    ----------
    image
        A mammogram.
    breast
        Its mask, of any size.
    spacing
        As in :class:`AgarwalCard`.
    """
    rows, columns = image.shape
    half = breast.shape[1] // 2
    mirrored = bool(breast[:, :half].sum() < breast[:, -half:].sum())
    scale = (image.pixel_aspect, 1.0)
    if spacing and image.spacing:
        scale = (image.spacing.row / spacing, image.spacing.column / spacing)
    canvas = max(round(rows * scale[0]), 1), max(round(columns * scale[1]), 1)
    return Geometry(image.shape, (0, 0, columns, rows), mirrored, (canvas[1] / columns, canvas[0] / rows), canvas)


def _searched(breast: NDArray[np.bool_], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return where masses are looked for: the breast with a margin, at the image's pixels."""
    side = 2 * round(_MARGIN * max(breast.shape)) + 1
    grown = cv2.dilate(breast.astype(np.uint8), np.ones((side, side), np.uint8))
    return np.asarray(cv2.resize(grown, shape[::-1], interpolation=cv2.INTER_NEAREST) > 0)
