"""The reader of Madsen's project: regions by RetinaNet, a mask in each by TransRes U-Net, pathology by three branches.

All three see the enhanced and masked picture of :mod:`ai.readers.madsen_preprocessing`. The detector sees the whole
breast; each region that it is sure enough of goes, whatever its aspect, onto a square on which the mass is segmented and
classified. Each of the three has its own weights files; the files of one are folds, whose probabilities are averaged.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from ai.breast import Geometry
from ai.errors import InvalidCard
from ai.exam import ViewImage
from ai.findings import ImageFindings, Mass
from ai.models import CARD, CardPart, Model
from ai.networks.registry import ARCHITECTURES
from ai.readers.boxes import Boxes, fuse
from ai.readers.exams import ViewReader, picture
from ai.readers.folds import RoleCard, folds, weights_by_role
from ai.readers.lesions import delineate, ranked
from ai.readers.madsen_preprocessing import enhance
from ai.readers.memory import Memory

BATCH: Final = 8
"""Regions in one pass."""


class DetectorCard(RoleCard):
    """Finds regions.

    Attributes
    ----------
    canvas
        Rows and columns of its input; 1024 and 512 in the project, whose library scales them further.
    """

    canvas: tuple[int, int] = (1024, 512)


class SegmenterCard(RoleCard):
    """Gives a mask in a region.

    Attributes
    ----------
    side
        Rows and columns of its input, and of the classifier's.
    """

    side: int = Field(default=256, ge=1)


class ClassifierCard(RoleCard):
    """Tells malignant from benign.

    Attributes
    ----------
    mean, std
        Of what it was trained on; 0 and 1 leave the grey values, 0 to 1, as they are.
    """

    mean: float = 0.0
    std: float = Field(default=1.0, gt=0)


class MadsenCard(CardPart):
    """The architecture table.

    Attributes
    ----------
    clip_limit
        Of the enhancement; 100 in the project, which is all but none, better 2 to 4.
    detector, segmenter, classifier
        The three networks.
    """

    clip_limit: float = Field(gt=0)
    detector: DetectorCard
    segmenter: SegmenterCard
    classifier: ClassifierCard


class MadsenThresholds(CardPart):
    """The thresholds table.

    Attributes
    ----------
    mass
        Smallest detector score of a finding; the project compares 0.2, 0.3 and 0.5.
    outline
        Probability from which a pixel of a region is in the mask; 0.5 in the project.
    """

    mass: float = Field(ge=0, le=1)
    outline: float = Field(default=0.5, gt=0, lt=1)


class MadsenReader(ViewReader):
    """Reads each view alone, in three steps.

    A mass' detection is the detector's score, its malignancy the classifier's probability, its suspicion 100 times the
    geometric mean of both. Where the segmenter sees nothing in a region, the ellipse in the detector's box stands for
    the mass. An image is as suspicious, and as malignant, as its worst mass.

    Parameters
    ----------
    model
        The model directory; its card has :class:`MadsenCard` and :class:`MadsenThresholds`.
    memory
        Where to read, and how.
    threshold
        Stands for the card's ``mass`` when given.

    Raises
    ------
    ai.errors.ModelError
        When the card lacks a key, or weights are missing or differ from the card.
    """

    def __init__(self, model: Model, memory: Memory, threshold: float | None = None) -> None:
        super().__init__(model.identity, memory)
        self._card = model.part("architecture", MadsenCard)
        thresholds = model.part("thresholds", MadsenThresholds)
        self._threshold = thresholds.mass if threshold is None else threshold
        self._outline = thresholds.outline
        roles: dict[str, RoleCard] = {
            "detector": self._card.detector,
            "segmenter": self._card.segmenter,
            "classifier": self._card.classifier,
        }
        self._check_segmenter(model)
        paths = weights_by_role(model, roles)
        self._detectors, self._segmenters, self._classifiers = (
            folds(card, paths[role], memory) for role, card in roles.items()
        )

    def _read_image(self, image: ViewImage) -> ImageFindings:
        enhanced = enhance(image, self._card.clip_limit)
        whole = enhanced.geometry(self._card.detector.canvas, image.pixel_aspect)
        canvas = whole.to_canvas(enhanced.pixels)
        found = self._detect(canvas)
        regions, scores = [], []
        for box, score in zip(found.corners, found.scores, strict=True):
            region = enhanced.region(whole.points_to_image(box.reshape(2, 2)), self._card.segmenter.side)
            if region is not None and score >= self._threshold:
                regions.append(region)
                scores.append(float(score))
        masses: list[Mass] = []
        for first in range(0, len(regions), BATCH):
            part = regions[first : first + BATCH]
            masks, malignancies = self._judge(np.stack([region.to_canvas(enhanced.pixels) for region in part]))
            masses += [
                self._mass(mask, region, image, score, malignancy)
                for mask, region, score, malignancy in zip(masks, part, scores[first:], malignancies, strict=False)
            ]
        told = ranked(masses)
        return ImageFindings(
            image.uid,
            image.view,
            image.shape,
            told,
            max((mass.suspicion for mass in told), default=0),
            max((mass.malignancy or 0.0 for mass in told), default=0.0),
            image.warnings,
            prepared=picture(canvas),
        )

    @torch.inference_mode()
    def _detect(self, canvas: NDArray[np.float32]) -> Boxes:
        pixels = torch.from_numpy(canvas)[None, None].to(self._memory.where)
        found = [network(pixels)[0] for network in self._detectors]
        return fuse([Boxes(*(_double(one[key]) for key in ("boxes", "scores"))) for one in found])

    @torch.inference_mode()
    def _judge(self, regions: NDArray[np.float32]) -> tuple[NDArray[np.float32], list[float]]:
        """Return the masks' probabilities, shape (n, side, side), and the malignancies of regions."""
        pixels = torch.from_numpy(regions)[:, None].to(self._memory.where)
        masks = _mean(self._segmenters, pixels)
        empty = masks.amax((1, 2, 3)) < self._outline
        masks[empty] = torch.from_numpy(_ellipse(regions.shape[-1])).to(self._memory.where)
        shown = (pixels - self._card.classifier.mean) / self._card.classifier.std
        malignancies = _mean(self._classifiers, shown, (masks >= self._outline).float())
        return np.asarray(masks[:, 0].cpu().numpy()), malignancies.tolist()

    def _mass(
        self, mask: NDArray[np.float32], region: Geometry, image: ViewImage, score: float, malignancy: float
    ) -> Mass:
        values, origin = region.patch_to_image(mask, (0, 0))
        # Between the image's pixels a few of the square's may lie.
        inside = values >= min(self._outline, float(values.max()))
        return delineate(inside, origin, image.spacing, score, malignancy)

    def _check_segmenter(self, model: Model) -> None:
        card = self._card.segmenter
        known = ARCHITECTURES.get(card.network)
        where = f"{model.folder / CARD}: architecture.segmenter"
        if known and not known.masks:
            raise InvalidCard(f"{where}.network: {card.network} gives no masks")
        if known and card.side % known.multiple:
            raise InvalidCard(f"{where}.side: {card.network} takes multiples of {known.multiple}, not {card.side}")


def _mean(networks: Sequence[nn.Module], *inputs: Tensor) -> Tensor:
    return torch.stack([network(*inputs).sigmoid() for network in networks]).mean(0)


def _double(values: Tensor) -> NDArray[np.float64]:
    return np.asarray(values.double().cpu().numpy(), np.float64)


def _ellipse(side: int) -> NDArray[np.float32]:
    """Return the ellipse that fills a square."""
    places = (2 * np.arange(side) + 1) / side - 1
    return np.asarray(np.add.outer(places**2, places**2) <= 1, np.float32)
