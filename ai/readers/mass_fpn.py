"""The reader that ships: a feature pyramid network on each view, masses by their boxes, or by threshold and components."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ai.breast import PreparedView, prepare
from ai.errors import InvalidCard
from ai.exam import ViewImage
from ai.findings import ImageFindings
from ai.models import CARD, CardPart, Model
from ai.networks.mass_fpn import STRIDE
from ai.networks.registry import ARCHITECTURES
from ai.readers.breasts import in_their_breasts
from ai.readers.centres import Candidate, CentreMaps, CentreRule, boxed_masses, candidates
from ai.readers.exams import MAP_SIDE, ViewReader
from ai.readers.folds import NetworkCard, folds
from ai.readers.lesions import LesionRule, find_masses
from ai.readers.memory import Memory
from ai.readers.second_look import LookCard, SecondLook, moved

NETWORK = "mass_fpn"


class MassFPNCard(CardPart):
    """The architecture table.

    Attributes
    ----------
    encoder
        Name of an smp encoder; or one name for each weights file of the first network, in their order, where they differ.
    canvas
        Rows and columns that the networks see.
    boxes
        Whether the network tells boxes, and masses are found by them.
    look
        How candidates are looked at a second time; None: they are not.
    """

    encoder: str | tuple[str, ...]
    canvas: tuple[PositiveInt, PositiveInt]
    boxes: bool = False
    look: LookCard | None = None


class MassFPNThresholds(CardPart):
    """The thresholds table.

    Attributes
    ----------
    mass
        Smallest detection of a finding.
    candidate
        Probability below which nothing is looked at: of a centre where the network tells boxes (see
        :class:`CentreRule`), else of a mass (see :class:`LesionRule`).
    outline
        See :class:`LesionRule`; where the network tells boxes they say where the outline is.
    """

    mass: float = Field(ge=0, le=1)
    candidate: float = Field(ge=0, lt=1)
    outline: float = Field(gt=0, lt=1)


class MassFPNReader(ViewReader):
    """Reads each view alone, both ways up; several weights files are members. All probabilities are averaged.

    The views of a breast then share their malignancy, see :func:`ai.readers.breasts.in_their_breasts`.

    Parameters
    ----------
    model
        Its card has :class:`MassFPNCard` and :class:`MassFPNThresholds`.
    memory
        Where to read, and how.
    threshold
        Stands for the card's ``mass`` threshold when given.

    Raises
    ------
    ai.errors.ModelError
        When the card lacks a key, or weights are missing, differ from the card or do not fit.
    """

    def __init__(self, model: Model, memory: Memory, threshold: float | None = None) -> None:
        super().__init__(model.identity, memory)
        card = model.part("architecture", MassFPNCard)
        thresholds = model.part("thresholds", MassFPNThresholds)
        self._threshold = thresholds.mass if threshold is None else threshold
        self._rule = LesionRule(thresholds.candidate, thresholds.outline)
        self._centres = CentreRule(thresholds.candidate)
        self._canvas = card.canvas
        multiple = ARCHITECTURES[NETWORK].multiple
        if any(side % multiple for side in card.canvas):
            raise InvalidCard(
                f"{model.folder / CARD}: architecture.canvas: {NETWORK} takes multiples of {multiple}, "
                f"not {card.canvas[0]} x {card.canvas[1]}"
            )
        self._networks = first_networks(model, memory)
        self._look = None if card.look is None else SecondLook(card.look, _divided(model, card.look)[1], memory)

    def _read_image(self, image: ViewImage) -> ImageFindings:
        prepared = prepare(image, self._canvas)
        geometry = prepared.geometry
        told = self._infer(prepared)
        if told.boxes is None:
            masses = find_masses(told.mass, told.malignant, geometry, image.spacing, self._rule, self._threshold)
        else:
            found = candidates(told.boxes, self._centres)
            if self._look is not None:
                found = self._look.again(image, geometry, found, self._centres)
            masses = boxed_masses(told.boxes, found, geometry, image.spacing, self._centres, self._threshold)
        score, *each = [round(100 * malignancy) for malignancy in (told.malignancy, *told.members)]
        shown = geometry.to_grid(told.mass, MAP_SIDE)
        seen = prepared.as_bytes()
        return ImageFindings(
            *(image.uid, image.view, image.shape, masses, score, told.malignancy, image.warnings, shown),
            prepared=seen,
            span=(min(each), max(each)),
        )

    def seen(self, image: ViewImage) -> list[Candidate]:
        """Return what the first network alone takes for a mass, boxes x1, y1, x2, y2 in the image's pixels.

        It must tell boxes.
        """
        prepared = prepare(image, self._canvas)
        maps = self._infer(prepared).boxes
        if maps is None:
            raise InvalidCard(
                f"{self._identity.name}: architecture.boxes: candidates come from a network that tells boxes"
            )
        return [
            replace(each, box=moved(each.box, prepared.geometry.points_to_image))
            for each in candidates(maps, self._centres)
        ]

    def _together(self, found: tuple[ImageFindings, ...]) -> tuple[ImageFindings, ...]:
        return in_their_breasts(found)

    @torch.inference_mode()
    def _infer(self, prepared: PreparedView) -> "_Told":
        canvas = torch.from_numpy(prepared.pixels)
        pixels = torch.stack([canvas, canvas.flip(0)])[:, None].to(
            self._memory.where, memory_format=torch.channels_last
        )
        outputs = [network(pixels) for network in self._networks]
        # Both ways up, averaged: on the validation split image AUC rose from 0.828 to 0.847.
        mass, malignant = _upright([o.maps.sigmoid() for o in outputs])
        members = torch.stack([o.image for o in outputs]).sigmoid()
        malignancy = float(members.mean().item()), tuple(members.flatten().tolist())
        if outputs[0].centres is None:
            return _Told(mass, malignant, *malignancy, None)
        centres = _upright([o.centres.sigmoid()[:, None] for o in outputs])[0]
        # Upside down the edges above and below change places.
        turned = [torch.stack([o.distances[0], o.distances[1][[0, 3, 2, 1]]]) for o in outputs]
        boxes = CentreMaps(mass, malignant, centres, _upright(turned), STRIDE)
        return _Told(mass, malignant, *malignancy, boxes)


@dataclass(frozen=True, eq=False)
class _Told:
    mass: NDArray[np.float32]
    malignant: NDArray[np.float32]
    malignancy: float
    members: tuple[float, ...]
    boxes: CentreMaps | None


def _upright(pairs: Sequence[Tensor]) -> NDArray[np.float32]:
    """Return the mean over networks and both ways up, shape (channels, rows, columns); the second image is upside down."""
    every = torch.stack([part for pair in pairs for part in (pair[0], pair[1].flip(1))])
    return np.asarray(every.mean(0).cpu().numpy())


def first_networks(model: Model, memory: Memory) -> list[nn.Module]:
    """Return the networks that see the whole breast, one for each of their weights files.

    Raises
    ------
    ai.errors.ModelError
        When the card lacks a key, or weights are missing, differ from the card or do not fit.
    """
    card = model.part("architecture", MassFPNCard)
    paths = _divided(model, card.look)[0]
    return [
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for encoder, path in zip(encoders(model, len(paths)), paths, strict=True)
        for network in folds(
            NetworkCard(network=NETWORK, options={"encoder": encoder, "boxes": card.boxes}), [path], memory
        )
    ]


def encoders(model: Model, files: int) -> tuple[str, ...]:
    """Return the encoder of each of so many weights files of the first network.

    Raises
    ------
    InvalidCard
        When the card names more or fewer.
    """
    named = model.part("architecture", MassFPNCard).encoder
    each = (named,) * files if isinstance(named, str) else named
    if len(each) != files:
        raise InvalidCard(f"{model.folder / CARD}: architecture.encoder: {len(each)} names for {files} weights files")
    return each


def _divided(model: Model, look: LookCard | None) -> tuple[list[Path], list[Path]]:
    """Return the weights files of the first network and of the second look.

    Raises
    ------
    ai.errors.ModelError
        When the card's table names one that is not there, or leaves none for the first network.
    """
    second = () if look is None else look.weights
    paths = {part.file: path for part, path in zip(model.card.weights, model.weights(), strict=True)}
    first = [path for file, path in paths.items() if file not in second]
    if lost := [file for file in second if file not in paths]:
        raise InvalidCard(f"{model.folder / CARD}: architecture.look.weights: {lost[0]} is not among the weights")
    if not first:
        raise InvalidCard(f"{model.folder / CARD}: architecture.look.weights: none is left for the first network")
    return first, [paths[file] for file in second]
