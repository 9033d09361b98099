"""A second, nearer look at each candidate: the square that is cut out for it, and the way back of what is seen there."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import cos, exp, log, radians, sin
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import nn

from ai.breast import Geometry, prepare
from ai.exam import ViewImage
from ai.models import CardPart
from ai.readers.centres import Box, Candidate, CentreRule, is_new
from ai.readers.folds import NetworkCard, folds
from ai.readers.memory import Memory

FLIPS: Final = ((1, 1), (-1, 1), (1, -1), (-1, -1))
"""Every square is seen four times: as it is, mirrored, upside down, and both."""
_UNIT: Final = 100.0
"""Canvas pixels whose logarithm is 0 for the network."""
NETWORK: Final = "mass_look"
_SUREST: Final = 1e-6
"""Probabilities nearer to 0 or 1 than this have the log odds of this."""
_BATCH: Final = 20
"""Squares in one pass, always: a compiled network is made for one shape."""


class LookRule(CardPart):
    """What is cut out for a candidate.

    Attributes
    ----------
    canvas
        Rows and columns of the canvas that it is cut from, see :func:`ai.breast.prepare`.
    side
        Rows and columns of the square that the network sees.
    context
        Side of the square, in longer sides of the candidate's box.
    smallest
        Side of the square in canvas pixels that it does not fall below.
    """

    canvas: tuple[PositiveInt, PositiveInt]
    side: int = Field(gt=0, multiple_of=32)
    context: float = Field(default=2.0, ge=1)
    smallest: float = Field(default=96.0, gt=0)


class LookCard(LookRule):
    """The card's table ``look``.

    Attributes
    ----------
    encoder
        Name of an smp encoder.
    weights
        Its files, as ``[[weights]]`` names them; all others are the first network's.
    trust
        What its log odds of a mass count beside those of the first network.
    """

    encoder: str
    weights: tuple[str, ...] = Field(min_length=1)
    trust: float = Field(gt=0)


class SecondLook:
    """Networks that look at what another one found; several weights files are folds.

    Parameters
    ----------
    card
        What is cut out, and what the look counts.
    weights
        Of :class:`ai.networks.mass_look.MassLook`.
    memory
        Where to look, and how.
    """

    def __init__(self, card: LookCard, weights: Iterable[Path], memory: Memory) -> None:
        self._card = card
        self._memory = memory
        network = NetworkCard(network=NETWORK, options={"encoder": card.encoder})
        self._networks = [
            fold.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            for fold in folds(network, weights, memory)
        ]

    def again(
        self, image: ViewImage, geometry: Geometry, found: Sequence[Candidate], rule: CentreRule
    ) -> list[Candidate]:
        """Return what both looks say together, by falling score.

        Log odds of a mass are added, each box is the mean of both, and what is then one mass with a surer one is left out.

        Parameters
        ----------
        image
            The image.
        geometry
            Of the canvas on which the candidates are.
        found
            Candidates of the first network.
        rule
            When two are one mass.
        """
        near = prepare(image, self._card.canvas)
        there, back = near.geometry.points_to_canvas, near.geometry.points_to_image
        boxes = [moved(moved(each.box, geometry.points_to_image), there) for each in found]
        looks = look(self._networks, near.as_bytes(), boxes, self._card, self._memory.where)
        again = [
            Candidate(
                _middle(each.box, moved(moved(seen.box, back), geometry.points_to_canvas)),
                _probability(_log_odds(each.score) + self._card.trust * seen.mass),
                _probability(seen.malignant),
            )
            for each, seen in zip(found, looks, strict=True)
        ]
        result: list[Candidate] = []
        for each in sorted(again, key=lambda one: -one.score):
            if is_new(each.box, result, rule):
                result.append(each)
        return result


@dataclass(frozen=True)
class Turn:
    """How a square is turned, scaled and stretched, of chance in training.

    Attributes
    ----------
    degrees, scale, stretch
        Rotation, factor, and relative stretch of x.
    flip
        -1 mirrors x, or turns y upside down.
    """

    degrees: float = 0.0
    scale: float = 1.0
    stretch: float = 0.0
    flip: tuple[int, int] = (1, 1)

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> "Turn":
        """Draw one."""
        flip = FLIPS[int(rng.integers(len(FLIPS)))]
        return cls(float(rng.uniform(-25, 25)), exp(rng.uniform(-0.1, 0.1)), float(rng.uniform(-0.1, 0.1)), flip)


@dataclass(frozen=True, eq=False)
class Square:
    """A square around a candidate.

    Attributes
    ----------
    pixels
        Shape (side, side), float32, -1 to 1.
    matrix
        Shape (2, 3): from the canvas to the square, in continuous coordinates.
    """

    pixels: NDArray[np.float32]
    matrix: NDArray[np.float64]

    def box_from_canvas(self, box: Box) -> NDArray[np.float64]:
        """Return the box around the turned ellipse that is inscribed in a box, in sides of the square."""
        linear, side = self.matrix[:, :2], len(self.pixels)
        x1, y1, x2, y2 = box
        middle = linear @ np.array([(x1 + x2) / 2, (y1 + y2) / 2]) + self.matrix[:, 2]
        half = np.sqrt(linear**2 @ np.array([((x2 - x1) / 2) ** 2, ((y2 - y1) / 2) ** 2]))
        return np.concatenate([middle - half, middle + half]) / side

    def box_to_canvas(self, box: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a box that is given in sides of a square that was not turned."""
        corners = (box.reshape(2, 2) * len(self.pixels) - self.matrix[:, 2]) @ np.linalg.inv(self.matrix[:, :2]).T
        return np.concatenate([corners.min(0), corners.max(0)])


def cut(pixels: NDArray[np.uint8], box: Box, rule: LookRule, turn: Turn = Turn()) -> Square:
    """Cut the square around a box, x1, y1, x2, y2 on the canvas, whose pixels are -1 to 1 as 0 to 255; black beyond it."""
    x1, y1, x2, y2 = box
    scale = rule.side / max(rule.context * max(x2 - x1, y2 - y1), rule.smallest) * turn.scale
    angle = radians(turn.degrees)
    rotation = np.array([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])
    linear = np.diag([turn.flip[0] * scale * (1 + turn.stretch), turn.flip[1] * scale]) @ rotation
    shift = rule.side / 2 - linear @ np.array([(x1 + x2) / 2, (y1 + y2) / 2])
    matrix = np.concatenate([linear, shift[:, None]], 1)
    # cv2 takes pixel centres at integers: half a pixel less than the continuous coordinates on both sides.
    centred = matrix.copy()
    centred[:, 2] += linear @ np.array([0.5, 0.5]) - 0.5
    grey = cv2.warpAffine(pixels, centred, (rule.side, rule.side), flags=cv2.INTER_LINEAR)
    return Square(grey.astype(np.float32) / np.float32(127.5) - 1, matrix)


def size_of(box: Box) -> tuple[float, float]:
    """Return what the network is told of a box's width and height."""
    return log(max(box[2] - box[0], 4) / _UNIT), log(max(box[3] - box[1], 4) / _UNIT)


@dataclass(frozen=True)
class Looked:
    """What networks saw of a candidate, the mean over all: log odds of a mass and of malignancy, and its box."""

    mass: float
    malignant: float
    box: Box


def look(
    networks: Sequence[nn.Module], pixels: NDArray[np.uint8], boxes: Sequence[Box], rule: LookRule, where: torch.device
) -> list[Looked]:
    """Look at each of some boxes, four ways up.

    Parameters
    ----------
    networks
        Folds of :class:`ai.networks.mass_look.MassLook`.
    pixels
        Of the rule's canvas, -1 to 1 as 0 to 255.
    boxes
        x1, y1, x2, y2 on that canvas.
    rule
        What is cut out.
    where
        Where the networks are.
    """
    if not boxes:
        return []
    seen = np.zeros((len(boxes), 6))
    for flip in FLIPS:
        squares = [cut(pixels, box, rule, Turn(flip=flip)) for box in boxes]
        shown = np.stack([square.pixels for square in squares])[:, None]
        for network in networks:
            said = _said(network, shown, np.array([size_of(box) for box in boxes], np.float32), where)
            said[:, 2:] = [s.box_to_canvas(box) for s, box in zip(squares, said[:, 2:], strict=True)]
            seen += said / (len(FLIPS) * len(networks))
    return [Looked(mass, malignant, (x1, y1, x2, y2)) for mass, malignant, x1, y1, x2, y2 in seen.tolist()]


@torch.inference_mode()
def _said(
    network: nn.Module, squares: NDArray[np.float32], sizes: NDArray[np.float32], where: torch.device
) -> NDArray[np.float64]:
    """Return mass, malignant and box for each square, shape (n, 6)."""
    said = []
    for first in range(0, len(squares), _BATCH):
        part, size = squares[first : first + _BATCH], sizes[first : first + _BATCH]
        padding = ((0, _BATCH - len(part)), *(((0, 0),) * 3))
        told = network(
            torch.from_numpy(np.pad(part, padding)).to(where),
            torch.from_numpy(np.pad(size, padding[:2])).to(where),
        )
        each = torch.cat([told.mass[:, None], told.malignant[:, None], told.boxes], 1)[: len(part)]
        said.append(each.cpu().numpy().astype(np.float64))
    return np.concatenate(said)


def moved(box: Box, way: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Box:
    """Return a box on the other side of a way of points, such as :meth:`ai.breast.Geometry.points_to_image`."""
    corners = way(np.reshape(box, (2, 2)).astype(np.float64))
    (x1, y1), (x2, y2) = corners.min(0).tolist(), corners.max(0).tolist()
    return x1, y1, x2, y2


def _middle(one: Box, other: Box) -> Box:
    """Return the mean of two boxes."""
    x1, y1, x2, y2 = ((np.array(one) + np.array(other)) / 2).tolist()
    return x1, y1, x2, y2


def _log_odds(probability: float) -> float:
    kept = min(max(probability, _SUREST), 1 - _SUREST)
    return log(kept / (1 - kept))


def _probability(log_odds: float) -> float:
    return 1 / (1 + exp(-log_odds))
