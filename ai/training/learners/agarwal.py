"""What the patch classifiers of Agarwal et al. 2019 learn from: patches of mass and of no mass, as many of each.

A patch shows a mass when its central pixel is in one (section 2.2). CBIS-DDSM has no image without a mass: there as many
patches without are drawn from the image that has the masses, away from the breast's border. INbreast has: there they are
drawn from the images without, from each round(n / N), where n patches of mass and N such images are in the set; the
paper's equation 1 is lost.

What the paper leaves open: the border, here one stride wide; what stands in the corners that a rotation brings in, here
the patch reflected at its edges, as the reader reflects the image at its own.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from ai.datasets.records import Record
from ai.datasets.truth import mass_mask
from ai.errors import AIError, InvalidDataset
from ai.models import CardPart
from ai.networks.patch import PATCH
from ai.pixels import file_image
from ai.readers.agarwal import AgarwalCard, AgarwalThresholds
from ai.readers.sliding import normalise
from ai.training.engine import Examples, Objective
from ai.training.learners.base import Role, System
from ai.training.learners.patches import WHITE, Patches, Windows, windows_of
from ai.training.learners.transfer import trained_or_imagenet
from ai.training.phases import Part
from ai.training.recipe import Recipe
from ai.training.seed_augmentation import TABLES, AugmentationTable
from ai.training.seed_losses import SEED_LOSSES
from ai.words import counted

LOSS: Final = "agarwal_entropy"
_SPARE: Final = 2  # a fold may want so many times what an even share of the whole set is
_MARGIN: Final = 92  # rotated by 30 degrees and shrunk to 0.75, 224 pixels come from 408


class PatchRule(CardPart):
    """The part's table ``examples``: which patches there are.

    Attributes
    ----------
    stride
        Pixels between centres, 56 in the paper; None takes the reader's.
    negatives
        ``same_images`` draws patches without a mass from the images with one, ``mass_free`` from those without.
    border
        Centres of patches without a mass are further than this from the breast's border, pixels of the patches.
    most
        Patches with a mass from one image, drawn at random where there are more; None takes all, as the paper does.
    """

    stride: int | None = Field(default=None, ge=1, le=PATCH)
    negatives: Literal["same_images", "mass_free"] = "same_images"
    border: int = Field(default=56, ge=0)
    most: int | None = Field(default=None, ge=1)


@dataclass(frozen=True, eq=False)
class ImagePatches:
    """Patches of one image: all with a mass, and those without in the order in which they were drawn."""

    positives: Patches
    negatives: Patches


class PatchExamples:
    """Patches and labels.

    A batch is patches as the reader's network gets them, float32, shape (n, 1, 224, 224), and labels, 0 or 1, float32,
    shape (n,).

    Parameters
    ----------
    positives, negatives
        Of each image; not copied.
    table
        The random changes, made before a patch is normalised.
    fingerprint
        See :class:`ai.training.engine.Examples`.
    """

    def __init__(
        self,
        positives: Sequence[Patches],
        negatives: Sequence[Patches],
        table: AugmentationTable,
        fingerprint: str,
    ) -> None:
        self._patches = [patch for group in (*positives, *negatives) for patch in group]
        self._positive = sum(map(len, positives))
        self._table = table
        self._fingerprint = fingerprint

    def __len__(self) -> int:
        """How many there are."""
        return len(self._patches)

    @property
    def fingerprint(self) -> str:
        """Over the patches and how they are changed."""
        return self._fingerprint

    def batch(self, chosen: Sequence[int], rng: np.random.Generator | None) -> tuple[Tensor, Tensor]:
        """Return patches and labels."""
        patches = [self._shown(self._patches[place], rng) for place in chosen]
        labels = torch.tensor([float(place < self._positive) for place in chosen])
        return normalise(torch.from_numpy(np.stack(patches))[:, None]), labels

    def _shown(self, patch: NDArray[np.uint16], rng: np.random.Generator | None) -> NDArray[np.float32]:
        pixels = (patch / np.float32(WHITE)).astype(np.float32)
        if rng is None:
            return pixels
        wide = np.pad(pixels, _MARGIN, mode="reflect")
        changed, _ = self._table(wide, np.zeros_like(wide), rng)
        return changed[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]


class AgarwalLearner:
    """Patches of all images, cut once.

    Parameters
    ----------
    folder, records, recipe, on_image
        As :attr:`ai.training.learners.base.System.learner` says.

    Raises
    ------
    InvalidDataset
        When an image cannot be used, it is named; or no image is without a mass where the rule wants some.
    """

    measured: Mapping[str, float] = {}

    def __init__(
        self, folder: Path, records: Sequence[Record], recipe: Recipe, on_image: Callable[[], None] = lambda: None
    ) -> None:
        self._folder = folder
        self._seed = recipe.seed
        self._rule = PatchRule.model_validate(recipe.part("network").examples)
        card = _architecture(recipe)
        self._stride, self._spacing = self._rule.stride or card.stride, card.spacing
        self._images: dict[str, ImagePatches] = {}
        shared = self._rule.negatives == "same_images"
        for record in (r for r in records if shows_a_mass(r)):
            seen = self._windows(record)
            positives = seen.positives(self._rule.most, self._key(record))
            self._images[record.file] = ImagePatches(
                positives, self._drawn(seen, record, len(positives) if shared else 0)
            )
            on_image()
        free = [r for r in records if not shows_a_mass(r)]
        share = _share(sum(len(image.positives) for image in self._images.values()), len(free))
        for record in free:
            seen = self._windows(record)
            self._images[record.file] = ImagePatches(
                seen.positives(0, ""), self._drawn(seen, record, 0 if shared else _SPARE * share)
            )
            on_image()

    def examples(self, part: Part, records: Sequence[Record]) -> Examples:
        """Return the patches of some of the images.

        A set wants more patches of an image without a mass than all images together do when it has fewer of these
        images; it gets at most twice as many.

        Raises
        ------
        InvalidDataset
            When there is no patch with a mass, or none without.
        """
        images = [self._images[record.file] for record in records]
        positives = [image.positives for image in images]
        found = sum(map(len, positives))
        free = sum(not shows_a_mass(record) for record in records)
        most = None if self._rule.negatives == "same_images" else _share(found, free)
        negatives = [image.negatives[:most] for image in images]
        if not found:
            raise InvalidDataset(
                f"in {counted(len(images), 'image')} no centre of a patch at every {self._stride}th pixel is in a mass; "
                "lower examples.stride"
            )
        if not sum(map(len, negatives)):
            raise InvalidDataset(_no_negatives(self._rule, len(images)))
        digest = hashlib.sha256(f"agarwal {self._stride} {self._spacing} {part.augmentation}".encode())
        for record, *groups in zip(records, positives, negatives, strict=True):
            digest.update(f"{record.file} {[len(group) for group in groups]}".encode())
            for group in groups:
                digest.update(group.tobytes())
        return PatchExamples(positives, negatives, TABLES[part.augmentation], digest.hexdigest())

    def objectives(self, part: Part) -> Mapping[str, Objective]:
        """Return the cross-entropy of the paper."""
        del part
        return {LOSS: _entropy}

    def _windows(self, record: Record) -> Windows:
        try:
            image = file_image(self._folder / record.path, record.view)
            mass, _ = mass_mask(record, self._folder, image.shape)
            return windows_of(image, mass, stride=self._stride, spacing=self._spacing, border=self._rule.border)
        except InvalidDataset:
            raise
        except AIError as error:
            raise InvalidDataset(f"{record.file}: {error}") from error

    def _drawn(self, seen: Windows, record: Record, most: int) -> Patches:
        return seen.negatives(most, self._key(record))

    def _key(self, record: Record) -> str:
        return f"{self._seed}|{record.file}"


def shows_a_mass(record: Record) -> bool:
    """Tell whether a data set marks a mass in an image."""
    return bool(record.boxes or record.masks or record.outlines)


def _share(positives: int, images: int) -> int:
    """Return equation 1: how many patches each image without a mass gives, at least one."""
    return max(math.floor(positives / images + 0.5), 1) if images else 0


def _no_negatives(rule: PatchRule, images: int) -> str:
    if rule.negatives == "mass_free":
        return f'none of {counted(images, "image")} is without a mass; set examples.negatives to "same_images"'
    told = counted(images, "image")
    return f"in {told} no centre of a patch is {rule.border} pixels from the breast's border; lower examples.border"


def _entropy(network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    patches, labels = batch
    return SEED_LOSSES[LOSS](network(patches).float(), labels)


def _architecture(recipe: Recipe) -> AgarwalCard:
    return AgarwalCard.model_validate(_tables(recipe, {}, {}))


def _tables(recipe: Recipe, weights: Mapping[str, Sequence[str]], measured: Mapping[str, float]) -> dict[str, Any]:
    """Return the card's architecture: the network of the recipe's part, and what the recipe says of the reader."""
    del weights, measured
    part = recipe.part("network")
    return {**recipe.reader.architecture, "network": part.network, "options": dict(part.options)}


AGARWAL: Final = System(
    reader="agarwal",
    statement="Research use only. Marks masses in standard mammographic views (Agarwal et al. 2019).",
    roles={
        "network": Role(
            examples=PatchRule,
            losses=(LOSS,),
            augmentations=tuple(name for name, table in TABLES.items() if table.crop is None),
            input_shape=lambda _examples, _part: (1, PATCH, PATCH),
        )
    },
    architecture=AgarwalCard,
    thresholds=AgarwalThresholds,
    learner=AgarwalLearner,
    tables=_tables,
    start=partial(trained_or_imagenet, reader="agarwal"),
)
"""Agarwal et al. 2019."""
