"""How the second look is trained: squares around masses, a little beside them, and around what a trained model takes for one.

The first network has seen the same films, so on them its false candidates are surer to be false than on new ones; the squares
look alike all the same. What it is not sure of is drawn less often.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ai.datasets.records import Record
from ai.errors import InvalidCard, InvalidDataset, UnusableWeights
from ai.models import CardPart, Model
from ai.networks.mass_fpn import LITE0
from ai.networks.mass_look import MassLook
from ai.pixels import file_image
from ai.readers.centres import Box, overlap
from ai.readers.mass_fpn import MassFPNCard, MassFPNReader, MassFPNThresholds
from ai.readers.memory import Memory
from ai.readers.second_look import LookCard, LookRule, Turn, cut, moved, size_of
from ai.training.engine import Examples, Objective
from ai.training.learners.base import Role, System, upon_nothing
from ai.training.learners.mass_fpn import LITES, start_lite
from ai.training.losses import generalised_iou
from ai.training.phases import Part
from ai.training.recipe import Recipe
from ai.training.samples import Sample, load_samples

ROLE: Final = "look"
LOSS: Final = "look_loss"
AUGMENTATION: Final = "mass_look"
_FALSE: Final = 0.15
"""Overlap with a mass below which a candidate is none."""
_TRUE: Final = 0.4
"""Overlap with its mass that a square which was moved at random keeps."""
_TRIES: Final = 20
_ELSEWHERE: Final = 60.0
"""Canvas pixels: side of the box that is looked at where there is neither a mass nor a candidate."""


class MassLookExamples(LookRule):
    """The part's table ``examples``.

    Attributes
    ----------
    candidates
        False ones that are looked at in an image, each time others.
    """

    candidates: PositiveInt = Field(default=2)


@dataclass(frozen=True, eq=False)
class Looked:
    """An image on the canvas that squares are cut from, and what the first network takes for a mass there, not being one."""

    sample: Sample
    false: NDArray[np.float64]
    """Shape (n, 4)."""
    scores: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LookExamples:
    """Images; a batch is squares, sizes, whether there is a mass, whether it is malignant, and its box.

    Attributes
    ----------
    images
        All of one canvas.
    rule
        What is cut out, and of how many candidates.
    changes
        Whether squares are turned, scaled and given other grey values at random.
    """

    images: Sequence[Looked]
    rule: MassLookExamples
    changes: bool

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.images)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the images, their labels, the candidates and the rule."""
        digest = hashlib.sha256(repr((self.rule, self.changes)).encode())
        for image in self.images:
            digest.update(repr(image.sample.record).encode())
            for array in (image.sample.pixels, image.sample.boxes, image.false, image.scores):
                digest.update(array.tobytes())
        return digest.hexdigest()

    def batch(self, chosen: Sequence[int], rng: np.random.Generator | None) -> tuple[Tensor, ...]:
        """Return squares (n, 1, side, side), sizes (n, 2), mass (n,), malignant (n,) and boxes (n, 4); NaN is not known.

        Boxes are x1, y1, x2, y2 in sides of the square. There are more squares than images.
        """
        squares, sizes, masses, malignant, boxes = [], [], [], [], []
        draws = np.random.default_rng(0) if rng is None else rng
        for place in chosen:
            image = self.images[place]
            label = image.sample.record.agreed_malignancy
            for box, mass in self._looks(image, draws):
                turn = Turn.drawn(draws) if self.changes and rng is not None else Turn()
                square = cut(image.sample.pixels, box, self.rule, turn)
                squares.append(_exposed(square.pixels, draws) if self.changes and rng is not None else square.pixels)
                sizes.append(size_of(box))
                masses.append(float(mass is not None))
                known = mass is not None and label is not None
                malignant.append(float(bool(label)) if known else math.nan)
                boxes.append(np.full(4, math.nan) if mass is None else square.box_from_canvas(mass))
        return (
            torch.from_numpy(np.stack(squares))[:, None],
            torch.tensor(sizes),
            torch.tensor(masses),
            torch.tensor(malignant),
            torch.from_numpy(np.stack(boxes).astype(np.float32)),
        )

    def _looks(self, image: Looked, rng: np.random.Generator) -> list[tuple[Box, Box | None]]:
        """Return what is looked at in an image, and the mass that is there."""
        masses = [_box(mass) for mass in image.sample.boxes.tolist()]
        looks: list[tuple[Box, Box | None]] = [(beside(mass, rng), mass) for mass in masses]
        count = min(self.rule.candidates, len(image.false))
        if count:
            weights = np.sqrt(image.scores)
            chosen = rng.choice(len(image.false), count, replace=False, p=weights / weights.sum())
            looks += [(_nudged(_box(box), rng), None) for box in image.false[chosen].tolist()]
        if not looks:
            columns, rows = image.sample.geometry.covered
            x, y = rng.uniform(0, columns), rng.uniform(0, rows)
            looks.append(((x - _ELSEWHERE / 2, y - _ELSEWHERE / 2, x + _ELSEWHERE / 2, y + _ELSEWHERE / 2), None))
        return looks


@dataclass(frozen=True, eq=False)
class MassLookLearner:
    """Images by their names; 0.8 MB each at 1152 x 720."""

    images: Mapping[str, Looked]
    rule: MassLookExamples
    measured: Mapping[str, float]

    def examples(self, part: Part, records: Sequence[Record]) -> Examples:
        """Return the squares of some images."""
        if not any(record.boxes for record in records):
            raise InvalidDataset("no image with a mass is left to learn from or to validate on")
        return LookExamples(
            [self.images[record.file] for record in records], self.rule, part.augmentation == AUGMENTATION
        )

    def objectives(self, part: Part) -> Mapping[str, Objective]:  # noqa: ARG002 (there is one)
        """Return the sum of the losses of the three outputs."""
        return {LOSS: look_loss}


def mass_look_learner(
    upon: Model, folder: Path, records: Sequence[Record], recipe: Recipe, on_image: Callable[[], None]
) -> MassLookLearner:
    """Let a trained model tell its candidates, and bring images onto the canvas that squares are cut from.

    Raises
    ------
    InvalidDataset
        When an image or a mask cannot be used; it is named.
    ai.errors.ModelError
        When the model cannot be loaded, or tells no boxes.
    """
    rule = MassLookExamples.model_validate(recipe.parts[0].examples)
    reader = MassFPNReader(upon, Memory(torch.device("cuda" if torch.cuda.is_available() else "cpu")), None)
    images = {}
    for record in records:
        (sample,) = load_samples(folder, [record], rule.canvas)
        seen = reader.seen(file_image(folder / record.path, record.view))
        boxes = [moved(each.box, sample.geometry.points_to_canvas) for each in seen]
        masses = [_box(mass) for mass in sample.boxes.tolist()]
        false = [p for p, box in enumerate(boxes) if all(overlap(box, mass) < _FALSE for mass in masses)]
        images[record.file] = Looked(
            sample,
            np.reshape([boxes[place] for place in false], (-1, 4)).astype(np.float64),
            np.array([seen[place].score for place in false], np.float64),
        )
        on_image()
    return MassLookLearner(images, rule, {})


def look_loss(network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Cross-entropy on mass and malignancy with softened labels, and generalised IoU (Rezatofighi 2019) on the boxes."""
    squares, sizes, mass, malignant, boxes = batch
    said = network(squares, sizes)
    total = F.binary_cross_entropy_with_logits(said.mass, mass * 0.95 + 0.025)
    there = mass > 0
    if there.any():
        total = total + (1 - generalised_iou(said.boxes[there], boxes[there])).mean()
    known = ~malignant.isnan()
    if known.any():
        total = total + 0.7 * F.binary_cross_entropy_with_logits(
            said.malignant[known].float(), malignant[known] * 0.9 + 0.05
        )
    return total


def _box(values: Sequence[float]) -> Box:
    x1, y1, x2, y2 = values
    return x1, y1, x2, y2


def beside(mass: Box, rng: np.random.Generator) -> Box:
    """Return a box as a first network would draw it around a mass."""
    x1, y1, x2, y2 = mass
    width, height = x2 - x1, y2 - y1
    box = mass
    for _ in range(_TRIES):
        x, y = (x1 + x2) / 2 + rng.normal(0, 0.12) * width, (y1 + y2) / 2 + rng.normal(0, 0.12) * height
        size, shape = math.exp(rng.normal(0, 0.25)), math.exp(rng.normal(0, 0.12))
        across, down = width * size * shape / 2, height * size / shape / 2
        box = (x - across, y - down, x + across, y + down)
        if overlap(box, mass) >= _TRUE:
            return box
    return box


def _nudged(box: Box, rng: np.random.Generator) -> Box:
    x1, y1, x2, y2 = box
    x, y = rng.normal(0, 0.1) * (x2 - x1), rng.normal(0, 0.1) * (y2 - y1)
    return x1 + x, y1 + y, x2 + x, y2 + y


def _exposed(pixels: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return other grey values, as of another exposure, and noise."""
    grey = ((pixels + 1) / 2) ** rng.uniform(0.7, 1.4) * (1 + rng.uniform(-0.2, 0.2)) + rng.uniform(-0.08, 0.08)
    noise = rng.standard_normal(grey.shape) * 2 * rng.uniform(0, 0.03)
    return np.asarray(2 * grey - 1 + noise, np.float32)


class LookTable(CardPart):
    """What a recipe may set of the card's table ``look``, beside what its part says."""

    trust: float = Field(default=0.5, gt=0)


def _tables(recipe: Recipe, files: Mapping[str, Sequence[str]], _measured: Mapping[str, float]) -> Mapping[str, Any]:
    """Return the card's table ``look``."""
    part = recipe.parts[0]
    rule = MassLookExamples.model_validate(part.examples).model_dump(exclude={"candidates"})
    own = LookTable.model_validate(recipe.reader.architecture)
    return {**rule, "encoder": part.options.get("encoder", LITE0), "weights": list(files[ROLE]), "trust": own.trust}


def _start(network: nn.Module, part: Part, file: Path | None) -> str:
    if part.start not in LITES or not isinstance(network, MassLook):
        raise UnusableWeights(f"{part.network} does not start from {part.start!r}")
    if file is not None:
        raise UnusableWeights(f"{file}: {part.network} starts from a package's weights alone; leave out --start")
    return start_lite(network.encoder, part)


def _upon(model: Model) -> System:
    """Return the system whose second look is at what a model finds, and whose card is that model's with the look.

    Raises
    ------
    ai.errors.InvalidCard
        When the model does not tell boxes, or has a second look already.
    """
    card = model.part("architecture", MassFPNCard) if model.card.reader == "mass_fpn" else None
    if card is None or not card.boxes or card.look is not None:
        raise InvalidCard(
            f"{model.folder}: a second look is trained upon a model of mass_fpn with boxes and without a look"
        )

    def tables(recipe: Recipe, files: Mapping[str, Sequence[str]], measured: Mapping[str, float]) -> Mapping[str, Any]:
        return {**model.card.architecture, "look": _tables(recipe, files, measured)}

    return replace(
        MASS_LOOK,
        architecture=MassFPNCard,
        learner=partial(mass_look_learner, model),
        tables=tables,
        carried=tuple(model.weights()),
    )


MASS_LOOK: Final = System(
    reader="mass_fpn",
    statement="Research use only. Marks and scores masses in standard mammographic views.",
    roles={ROLE: Role(MassLookExamples, (LOSS,), (AUGMENTATION, "none"))},
    architecture=LookCard,
    thresholds=MassFPNThresholds,
    learner=upon_nothing,
    tables=_tables,
    start=_start,
    upon=_upon,
)
"""The second look of the reader that ships."""
