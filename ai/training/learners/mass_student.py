"""How a small or single network learns what a larger one, or several, say (distillation, Hinton et al. 2015).

Teachers and student see the same randomly changed images (Beyer et al. 2022, "a good teacher is patient and consistent"),
the student's reduced to its canvas. It learns from the labels, too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from pydantic import Field
from torch import Tensor, nn

from ai.datasets.records import Record
from ai.errors import InvalidCard, InvalidRecipe
from ai.models import Model
from ai.networks.mass_fpn import STRIDE, MassOutputs
from ai.readers.mass_fpn import MassFPNCard, first_networks
from ai.readers.memory import Memory
from ai.training.engine import Examples, Objective
from ai.training.learners.base import Role, System, upon_nothing
from ai.training.learners.mass_fpn import AUGMENTATIONS, MASS_FPN, MassFPNExamples, MassFPNLearner, label_loss
from ai.training.losses import generalised_iou
from ai.training.phases import Part
from ai.training.recipe import Recipe
from ai.training.samples import load_samples

LOSS: Final = "student_loss"
_SURE: Final = 0.1
"""A teacher's centre from which its box is learnt."""


class Said(NamedTuple):
    """What a network with boxes says; see :class:`MassOutputs`. Of teachers, probabilities in the place of logits."""

    maps: Tensor
    image: Tensor
    centres: Tensor
    distances: Tensor


class StudentExamples(MassFPNExamples):
    """The part's table ``examples``.

    Attributes
    ----------
    share
        Of the loss, what the teachers say; the labels have the rest.
    """

    share: float = Field(default=0.5, gt=0, le=1)


@dataclass(frozen=True, eq=False)
class Taught:
    """A loss: what the labels and the teachers say of a batch, on the student's canvas.

    Attributes
    ----------
    teachers
        Networks that see the batch as it is; what they say is averaged.
    canvas
        Rows and columns that the student sees, of the same proportions as the batch.
    share
        See :class:`StudentExamples`.
    """

    teachers: Sequence[nn.Module]
    canvas: tuple[int, int]
    share: float

    def __call__(self, student: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """Return the loss."""
        pixels, mass, mass_malignant, image_malignant, boxes = batch
        with torch.no_grad():
            said = mean_of([teacher.to(pixels.device)(pixels) for teacher in self.teachers])
        factor = self.canvas[0] / pixels.shape[2]
        if factor != 1:
            pixels = reduced(pixels, self.canvas)
            mass = (reduced(mass[:, None], self.canvas)[:, 0] > 0.5).float()
            boxes = boxes * factor
            said = on_canvas(said, self.canvas, factor)
        outputs = student(pixels)
        total = self.share * teacher_loss(with_boxes(outputs), said)
        if self.share < 1:
            labels = label_loss(outputs, mass, mass_malignant, image_malignant, boxes)
            total = total + (1 - self.share) * labels
        return total


def with_boxes(outputs: MassOutputs) -> Said:
    """Return what a network says.

    Raises
    ------
    InvalidCard
        When it tells no boxes.
    """
    if outputs.centres is None or outputs.distances is None:
        raise InvalidCard("teachers and students are networks that tell boxes: options = { boxes = true }")
    return Said(outputs.maps.float(), outputs.image.float(), outputs.centres, outputs.distances)


def mean_of(told: Sequence[MassOutputs]) -> Said:
    """Return the mean of what several networks say: probabilities in the place of logits."""
    maps, image, centres, distances = (torch.stack(column) for column in zip(*map(with_boxes, told), strict=True))
    return Said(maps.sigmoid().mean(0), image.sigmoid().mean(0), centres.sigmoid().mean(0), distances.mean(0))


def on_canvas(said: Said, canvas: tuple[int, int], factor: float) -> Said:
    """Return what teachers said on a canvas of other pixels."""
    cells = canvas[0] // STRIDE, canvas[1] // STRIDE
    # A centre is a peak: its mean with what is around it would be no centre.
    centres = F.adaptive_max_pool2d(said.centres[:, None], cells)[:, 0]
    return Said(
        reduced(said.maps, canvas), said.image, centres, factor * F.interpolate(said.distances, cells, mode="nearest")
    )


def reduced(images: Tensor, canvas: tuple[int, int]) -> Tensor:
    """Return images, shape (n, channels, rows, columns), on a canvas; smoothed where it has fewer pixels."""
    return F.interpolate(images, canvas, mode="bilinear", align_corners=False, antialias=True)


def teacher_loss(outputs: Said, said: Said) -> Tensor:
    """Return how far a student is from its teachers.

    Cross-entropy of mass and image, and of malignancy weighted by mass; quality focal loss of the centres (Li et al. 2020,
    exponent 2), by image; generalised IoU of the boxes, weighted by the teachers' centres.

    Parameters
    ----------
    outputs
        The student's, logits.
    said
        The teachers', probabilities.
    """
    maps = F.binary_cross_entropy_with_logits(outputs.maps, said.maps, reduction="none")
    mass = said.maps[:, 0]
    total = maps[:, 0].mean() + 0.5 * (mass * maps[:, 1]).sum() / mass.sum().clamp(min=1)
    total = total + 0.5 * F.binary_cross_entropy_with_logits(outputs.image, said.image)
    each = F.binary_cross_entropy_with_logits(outputs.centres, said.centres, reduction="none")
    focal = (outputs.centres.sigmoid() - said.centres).abs() ** 2
    total = total + (focal * each).sum() / len(each)
    weight = torch.where(said.centres > _SURE, said.centres, 0.0)
    told, truth = (torch.cat([-d[:, :2], d[:, 2:]], 1) for d in (outputs.distances, said.distances))
    return total + ((1 - generalised_iou(told, truth)) * weight).sum() / weight.sum().clamp(min=1)


@dataclass(frozen=True, eq=False)
class StudentLearner:
    """The examples of a network of its own, on the teachers' canvas, and the teachers."""

    labelled: MassFPNLearner
    loss: Taught
    measured: Mapping[str, float]

    def examples(self, part: Part, records: Sequence[Record]) -> Examples:
        """Return the samples of some images."""
        return self.labelled.examples(part, records)

    def objectives(self, part: Part) -> Mapping[str, Objective]:  # noqa: ARG002 (there is one)
        """Return what teachers and labels say."""
        return {LOSS: self.loss}


def student_learner(
    upon: Model, folder: Path, records: Sequence[Record], recipe: Recipe, on_image: Callable[[], None]
) -> StudentLearner:
    """Bring images onto the teachers' canvas.

    Raises
    ------
    InvalidDataset
        When an image or a mask cannot be used; it is named.
    InvalidRecipe
        When the student's canvas has other proportions than the teachers'.
    ai.errors.ModelError
        When the teachers cannot be loaded.
    """
    rule = StudentExamples.model_validate(recipe.parts[0].examples)
    canvas = upon.part("architecture", MassFPNCard).canvas
    if rule.canvas[0] * canvas[1] != rule.canvas[1] * canvas[0]:
        raise InvalidRecipe(
            f"{recipe.name}: parts.{recipe.parts[0].role}.examples.canvas: {rule.canvas[0]} x {rule.canvas[1]} has other "
            f"proportions than the {canvas[0]} x {canvas[1]} of {upon.card.name}"
        )
    samples = load_samples(folder, records, canvas, on_image)
    teachers = first_networks(upon, Memory(torch.device("cpu")))
    labelled = MassFPNLearner({sample.record.file: sample for sample in samples}, {})
    return StudentLearner(labelled, Taught(teachers, rule.canvas, rule.share), {})


def _upon(model: Model) -> System:
    """Return the system that learns from a model.

    Raises
    ------
    InvalidCard
        When the model does not tell boxes.
    """
    card = model.part("architecture", MassFPNCard) if model.card.reader == "mass_fpn" else None
    if card is None or not card.boxes:
        raise InvalidCard(f"{model.folder}: teachers are models of mass_fpn with boxes")
    return replace(MASS_STUDENT, learner=partial(student_learner, model))


MASS_STUDENT: Final = replace(
    MASS_FPN,
    roles={"network": Role(StudentExamples, (LOSS,), tuple(AUGMENTATIONS), MASS_FPN.roles["network"].input_shape)},
    learner=upon_nothing,
    upon=_upon,
)
"""The reader that ships, taught by a finished model."""
