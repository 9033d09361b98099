"""What the learners share whose networks give mask logits: grey pictures with their masks, and the papers' losses."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ai.datasets.records import Record
from ai.datasets.truth import mass_mask
from ai.errors import AIError, InvalidDataset
from ai.exam import ViewImage
from ai.pixels import file_image
from ai.training.engine import Objective
from ai.training.seed_augmentation import AugmentationTable
from ai.training.seed_losses import SEED_LOSSES

WHITE: Final = 65535
"""The value 1 as pictures are kept: 16 bits, as the Oulu papers kept theirs."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A part of an image as its network sees it, before it is normalised.

    Attributes
    ----------
    name
        Says which part of which image.
    pixels
        uint16, 0 to 65535 for presentation values of 0 to 1.
    mass
        uint8, eight pixels of the mask in each, by numpy.packbits over the rows one after the other.
    """

    name: str
    pixels: NDArray[np.uint16]
    mass: NDArray[np.uint8]

    @classmethod
    def of(cls, name: str, pixels: NDArray[np.float32], mass: NDArray[np.bool_]) -> "Picture":
        """Keep a picture, 0 to 1, and its mask of the same shape."""
        return cls(name, np.round(pixels.clip(0, 1) * WHITE).astype(np.uint16), np.packbits(mass))

    @property
    def values(self) -> NDArray[np.float32]:
        """The picture, 0 to 1, float32."""
        return self.pixels.astype(np.float32) / np.float32(WHITE)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Where a mass is."""
        rows, columns = self.pixels.shape
        return np.unpackbits(self.mass, count=rows * columns).reshape(rows, columns).astype(np.bool_)


@dataclass(frozen=True, eq=False)
class MaskExamples:
    """Pictures with masks; a batch is pixels and mask, float32, both of shape (n, 1, rows, columns).

    Attributes
    ----------
    pictures
        All of one shape.
    table
        Random changes of training, made on values of 0 to 1.
    normalise
        Makes what the network sees out of such values.
    form
        What ``normalise`` does and the pictures are cut by, in words that change with it.
    """

    pictures: Sequence[Picture]
    table: AugmentationTable
    normalise: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    form: str

    def __len__(self) -> int:
        """Return how many pictures there are."""
        return len(self.pictures)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the pictures' names, contents and form."""
        digest = hashlib.sha256(self.form.encode())
        for picture in self.pictures:
            digest.update(repr((picture.name, picture.pixels.shape)).encode())
            digest.update(picture.pixels.tobytes())
            digest.update(picture.mass.tobytes())
        return digest.hexdigest()

    def batch(self, chosen: Sequence[int], rng: np.random.Generator | None) -> tuple[Tensor, ...]:
        """Return pixels and mask."""
        pixels, masks = [], []
        for place in chosen:
            values, mask = self.pictures[place].values, self.pictures[place].mask.astype(np.float32)
            if rng is not None:
                values, mask = self.table(values, mask, rng)
            pixels.append(self.normalise(values))
            masks.append(mask)
        return torch.from_numpy(np.stack(pixels))[:, None], torch.from_numpy(np.stack(masks))[:, None]


def mask_objectives(names: Collection[str]) -> Mapping[str, Objective]:
    """Return the papers' losses of these names as losses of a network that gives mask logits."""
    return {name: _objective(name) for name in names}


def read(record: Record, folder: Path) -> tuple[ViewImage, NDArray[np.bool_]]:
    """Return an image of a data set and the union of its masses, of the image's shape.

    Raises
    ------
    InvalidDataset
        When either cannot be used; the image is named.
    """
    try:
        image = file_image(folder / record.path, record.view)
    except AIError as error:
        raise InvalidDataset(f"{record.file}: {error}") from error
    return image, mass_mask(record, folder, image.shape)[0]


def scaled(table: AugmentationTable, shape: tuple[int, int], multiple: int) -> AugmentationTable:
    """Return a table for another canvas than the papers' 512 x 512.

    Crop and shift keep their share of the shorter side; the crop becomes a multiple of what the network takes. 448 of
    512 stays as it is.
    """
    factor = min(shape) / 512
    changes: dict[str, Any] = {}
    if table.crop is not None:
        changes["crop"] = max(int(table.crop * factor) // multiple, 1) * multiple
    if table.shift is not None:
        changes["shift"] = (table.shift[0] * factor, table.shift[1] * factor)
    return replace(table, **changes)


def _objective(name: str) -> Objective:
    loss = SEED_LOSSES[name]

    def objective(network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        pixels, mask = batch
        return loss(network(pixels).float(), mask)

    return objective
