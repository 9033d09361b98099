"""What the three networks of Madsen's pipeline learn from: breasts with boxes, regions with masks, regions with labels.

Detector (sections 7.4.1 and 8.1): the enhanced breast on its canvas; RetinaNet's focal loss and its loss of boxes. The
project keeps the checkpoint with the best AP and starts from COCO; here it is the one with the lowest validation loss,
and no COCO weights are read.

Segmenter (7.4.2, 8.2) and classifier (7.4.3, 8.3): the region of each mass, cut from its box as the reader cuts the
detector's, with edges that move at random, since a detector's do. The project's regions had margins; the reader's have
none, so that these have none. The loss of the segmenter is not stated: cross-entropy and Dice.

The classifier's labels: BENIGN_WITHOUT_CALLBACK is benign (section 5). A mass whose pathology the set does not say, or
cannot be told from that of another in the image, is left out. Its masks are the truth's; the reader gives it the
segmenter's.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ai.datasets.records import Record
from ai.errors import AIError, InvalidDataset, InvalidRecipe
from ai.models import CardPart
from ai.readers.madsen import MadsenCard, MadsenThresholds
from ai.readers.madsen_preprocessing import enhance
from ai.training.engine import Examples, Objective
from ai.training.learners.base import Role, System
from ai.training.learners.masks import read
from ai.training.learners.regions import Canvas, Region
from ai.training.learners.transfer import trained_or_imagenet
from ai.training.phases import Part
from ai.training.recipe import Recipe
from ai.training.seed_augmentation import TABLES, AugmentationTable
from ai.training.seed_losses import SEED_LOSSES
from ai.words import counted

DETECTOR: Final = "detector"
SEGMENTER: Final = "segmenter"
CLASSIFIER: Final = "classifier"
RETINANET: Final = "retinanet"
"""The detector's loss: focal loss of the anchors and L1 of the boxes, each the mean over the images."""
MASKS: Final = "madsen_bce_dice"
"""The segmenter's loss."""
BRANCHES: Final = "madsen_branches"
"""The classifier's first loss: each branch's own smoothed cross-entropy, their mean."""
HEAD: Final = "madsen_smoothed_bce"
"""The classifier's last loss: that of the head."""


@runtime_checkable
class Detects(Protocol):
    """A network that has its own losses, as :class:`ai.networks.retinanet.MassRetinaNet`."""

    def losses(self, pixels: Tensor, boxes: Sequence[Tensor]) -> Mapping[str, Tensor]:
        """Return them, each the mean over the images."""


@runtime_checkable
class Branches(Protocol):
    """A network whose branches answer for themselves, as :class:`ai.networks.three_branch.ThreeBranch`."""

    def branches(self, region: Tensor, mask: Tensor) -> Tensor:
        """Return their logits, shape (n, branches)."""


class DetectorExamples(CardPart):
    """The detector's table ``examples``.

    Attributes
    ----------
    canvas
        Rows and columns; those of the network's option.
    """

    canvas: tuple[PositiveInt, PositiveInt] = (1024, 512)


class RegionExamples(CardPart):
    """The table ``examples`` of segmenter and classifier, alike in both.

    Attributes
    ----------
    side
        Rows and columns of a region; those of the segmenter's option.
    jitter
        Each edge of a box moves by up to so much of the box's side.
    """

    side: PositiveInt = 256
    jitter: float = Field(default=0.15, ge=0, lt=0.5)


@dataclass(frozen=True, eq=False)
class CanvasExamples:
    """Canvases and boxes.

    A batch is pixels, 0 to 1, float32, shape (n, 1, rows, columns), and boxes, x1, y1, x2, y2, float32, shape (n, k, 4);
    where an image has fewer than k they are not numbers.

    Attributes
    ----------
    canvases
        All of one shape.
    table
        The random changes.
    fingerprint
        See :class:`ai.training.engine.Examples`.
    """

    canvases: Sequence[Canvas]
    table: AugmentationTable
    fingerprint: str

    def __len__(self) -> int:
        """Return how many canvases there are."""
        return len(self.canvases)

    def batch(self, chosen: Sequence[int], rng: np.random.Generator | None) -> tuple[Tensor, Tensor]:
        """Return pixels and boxes."""
        shown = [
            self.canvases[place].plain() if rng is None else self.canvases[place].changed(self.table, rng)
            for place in chosen
        ]
        boxes = torch.full((len(shown), max([1, *(len(found) for _, found in shown)]), 4), torch.nan)
        for row, (_, found) in zip(boxes, shown, strict=True):
            row[: len(found)] = torch.from_numpy(found)
        return torch.from_numpy(np.stack([pixels for pixels, _ in shown]))[:, None], boxes


@dataclass(frozen=True, eq=False)
class SquareExamples:
    """Regions on their squares.

    A batch is pixels and masks, float32, shape (n, 1, side, side), and with ``labelled`` 1 for malignant and 0 for
    benign, float32, shape (n,).

    Attributes
    ----------
    regions
        Of the masses.
    side, jitter
        As in :class:`RegionExamples`.
    table
        The random changes.
    mean, std
        Are taken off, and divided by, after them.
    labelled
        Whether pathology is wanted; all regions have it then.
    fingerprint
        See :class:`ai.training.engine.Examples`.
    """

    regions: Sequence[Region]
    side: int
    jitter: float
    table: AugmentationTable
    mean: float
    std: float
    labelled: bool
    fingerprint: str

    def __len__(self) -> int:
        """Return how many regions there are."""
        return len(self.regions)

    def batch(self, chosen: Sequence[int], rng: np.random.Generator | None) -> tuple[Tensor, ...]:
        """Return pixels, masks and, when wanted, labels."""
        pixels, masks = [], []
        for place in chosen:
            region = self.regions[place]
            if rng is None:
                values, mask = region.plain(self.side)
            else:
                values, mask = self.table(*region.drawn(self.side, self.jitter, rng), rng)
            pixels.append(values)
            masks.append(mask)
        shown = (torch.from_numpy(np.stack(pixels))[:, None] - self.mean) / self.std
        given = shown, torch.from_numpy(np.stack(masks))[:, None]
        if not self.labelled:
            return given
        return *given, torch.tensor([float(bool(self.regions[place].malignant)) for place in chosen])


class MadsenLearner:
    """All images, enhanced once: their canvases and their regions.

    A mass outside of what :func:`ai.readers.madsen_preprocessing.enhance` leaves of the breast gives no region: the
    reader would not find it either.

    Parameters
    ----------
    folder, records, recipe, on_image
        As :attr:`ai.training.learners.base.System.learner` says.

    Raises
    ------
    InvalidDataset
        When an image cannot be used; it is named.
    """

    def __init__(
        self, folder: Path, records: Sequence[Record], recipe: Recipe, on_image: Callable[[], None] = lambda: None
    ) -> None:
        self._clip_limit = float(recipe.reader.architecture["clip_limit"])
        self._canvas = DetectorExamples.model_validate(recipe.part(DETECTOR).examples).canvas
        self._squares = {
            role: RegionExamples.model_validate(recipe.part(role).examples) for role in (SEGMENTER, CLASSIFIER)
        }
        self._canvases: dict[str, Canvas] = {}
        self._regions: dict[str, Sequence[Region]] = {}
        for record in records:
            self._canvases[record.file], self._regions[record.file] = self._prepared(folder, record)
            on_image()
        self._mean, self._std = self._measure()

    @property
    def measured(self) -> Mapping[str, float]:
        """Mean and deviation of all regions, rounded as the card has them."""
        return {"mean": self._mean, "std": self._std}

    def examples(self, part: Part, records: Sequence[Record]) -> Examples:
        """Return what a network learns from: canvases of all images, regions of those with a mass.

        Raises
        ------
        InvalidDataset
            When there is no mass, or the classifier would learn from one class alone.
        """
        table, form = TABLES[part.augmentation], f"madsen {self._clip_limit} {part.role} {part.augmentation}"
        if part.role == DETECTOR:
            canvases = [self._canvases[record.file] for record in records]
            if not any(len(canvas.boxes) for canvas in canvases):
                raise InvalidDataset(f"none of {counted(len(canvases), 'image')} has a mass that a detector could find")
            return CanvasExamples(canvases, table, _fingerprint(form, canvases))
        regions = [region for record in records for region in self._regions[record.file]]
        labelled = part.role == CLASSIFIER
        if labelled:
            regions = [region for region in regions if region.malignant is not None]
            _check_classes(regions)
        if not regions:
            raise InvalidDataset(f"none of {counted(len(records), 'image')} has a mass to outline")
        square = self._squares[part.role]
        mean, std = (self._mean, self._std) if labelled else (0.0, 1.0)
        fingerprint = _fingerprint(f"{form} {square} {mean} {std}", regions)
        return SquareExamples(regions, square.side, square.jitter, table, mean, std, labelled, fingerprint)

    def objectives(self, part: Part) -> Mapping[str, Objective]:
        """Return the losses of a network."""
        return OBJECTIVES[part.role]

    def _prepared(self, folder: Path, record: Record) -> tuple[Canvas, Sequence[Region]]:
        image, mass = read(record, folder)
        try:
            enhanced = enhance(image, self._clip_limit)
        except AIError as error:
            raise InvalidDataset(f"{record.file}: {error}") from error
        canvas = Canvas.of(record.file, enhanced, enhanced.geometry(self._canvas, image.pixel_aspect), record.boxes)
        jitter, malignant = max(square.jitter for square in self._squares.values()), record.agreed_malignancy
        regions = [
            Region.of(f"{record.file}#{number}", enhanced, mass, box, jitter=jitter, malignant=malignant)
            for number, box in enumerate(record.boxes)
        ]
        return canvas, [region for region in regions if region is not None]

    def _measure(self) -> tuple[float, float]:
        """Return mean and deviation of the classifier's regions, or 0 and 1 when there is none."""
        side, total, squares, count = self._squares[CLASSIFIER].side, 0.0, 0.0, 0
        for regions in self._regions.values():
            for region in regions:
                pixels = region.plain(side)[0].astype(np.float64)
                total, squares, count = total + pixels.mean(), squares + (pixels**2).mean(), count + 1
        if not count:
            return 0.0, 1.0
        mean = total / count
        return round(float(mean), 6), max(round(float(max(squares / count - mean**2, 0) ** 0.5), 6), 1e-6)


def _detection(network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    pixels, boxes = batch
    if not isinstance(network, Detects):
        raise TypeError(f"{type(network).__name__} is no detector")
    losses = network.losses(pixels, [row[~row.isnan().any(1)] for row in boxes])
    return torch.stack(list(losses.values())).sum()


def _segmentation(network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    pixels, masks = batch
    return SEED_LOSSES[MASKS](network(pixels).float(), masks)


def _branches(network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    region, masks, labels = batch
    if not isinstance(network, Branches):
        raise TypeError(f"{type(network).__name__} has no branches")
    logits = network.branches(region, masks).float()
    return SEED_LOSSES[HEAD](logits, labels[:, None].expand_as(logits))


def _pathology(network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    region, masks, labels = batch
    return SEED_LOSSES[HEAD](network(region, masks).float(), labels)


OBJECTIVES: Final[Mapping[str, Mapping[str, Objective]]] = {
    DETECTOR: {RETINANET: _detection},
    SEGMENTER: {MASKS: _segmentation},
    CLASSIFIER: {BRANCHES: _branches, HEAD: _pathology},
}
"""Losses by role and name."""


def _check_classes(regions: Sequence[Region]) -> None:
    malignant = sum(bool(region.malignant) for region in regions)
    if not 0 < malignant < len(regions):
        raise InvalidDataset(
            f"of {counted(len(regions), 'mass', 'masses')} whose pathology is known {malignant or 'none'} "
            f"{'are' if malignant > 1 else 'is'} malignant: the classifier needs both"
        )


def _fingerprint(form: str, parts: Sequence[Canvas] | Sequence[Region]) -> str:
    return hashlib.sha256("\n".join([form, *(part.digest for part in parts)]).encode()).hexdigest()


def _tables(recipe: Recipe, weights: Mapping[str, Sequence[str]], measured: Mapping[str, float]) -> dict[str, Any]:
    """Return the card's architecture.

    Raises
    ------
    InvalidRecipe
        When parts do not fit each other.
    """
    parts = {part.role: part for part in recipe.parts}
    canvas = DetectorExamples.model_validate(parts[DETECTOR].examples).canvas
    segmenter, classifier = (RegionExamples.model_validate(parts[role].examples) for role in (SEGMENTER, CLASSIFIER))
    if tuple(parts[DETECTOR].options.get("canvas", (1024, 512))) != canvas:
        raise InvalidRecipe(f"{recipe.name}: parts.detector: options.canvas is not examples.canvas, {list(canvas)}")
    if segmenter.side != classifier.side:
        raise InvalidRecipe(f"{recipe.name}: parts.classifier: examples.side is not the segmenter's, {segmenter.side}")
    tables: dict[str, dict[str, Any]] = {
        role: {"network": part.network, "options": dict(part.options), "weights": list(weights[role])}
        for role, part in parts.items()
    }
    tables[DETECTOR]["canvas"] = list(canvas)
    tables[SEGMENTER]["side"] = segmenter.side
    tables[CLASSIFIER] |= measured
    return {**recipe.reader.architecture, **tables}


_TABLES: Final = tuple(name for name, table in TABLES.items() if table.crop is None)

MADSEN: Final = System(
    reader="madsen",
    statement="Research use only. Marks, outlines and classifies masses in standard mammographic views (Madsen).",
    roles={
        DETECTOR: Role(DetectorExamples, (RETINANET,), _TABLES),
        SEGMENTER: Role(RegionExamples, (MASKS,), _TABLES, lambda examples, _part: (1, examples.side, examples.side)),
        CLASSIFIER: Role(RegionExamples, (BRANCHES, HEAD), _TABLES),
    },
    architecture=MadsenCard,
    thresholds=MadsenThresholds,
    learner=MadsenLearner,
    tables=_tables,
    start=partial(trained_or_imagenet, reader="madsen"),
    measures={"mean": 0.3, "std": 0.2},
)
"""Madsen's project."""
