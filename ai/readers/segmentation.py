"""What readers share whose networks give mask logits: folds, and masses from the mean of their probabilities.

The papers make the mean of the folds' sigmoids binary at 0.5; each connected part is a mass. Nothing here classifies:
malignancies are None, and suspicion is how sure the reader is that there is a mass. An image is as suspicious as its most
suspicious candidate, be it a finding or not; without one, as its map's peak, which ranks images without a mass too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from ai.breast import Geometry
from ai.errors import InvalidCard
from ai.exam import ViewImage
from ai.findings import ImageFindings, ModelIdentity
from ai.models import CARD, CardPart, Model
from ai.networks.registry import ARCHITECTURES, build
from ai.readers.exams import MAP_SIDE, ViewReader
from ai.readers.folds import NetworkCard, folds
from ai.readers.lesions import LesionRule, find_masses
from ai.readers.memory import Memory


@dataclass(frozen=True, eq=False)
class MassMap:
    """What was made of an image.

    Attributes
    ----------
    mass
        Probability of a mass on a canvas, 0 to 1.
    geometry
        The way between the image and that canvas.
    prepared
        What the networks saw of the whole image, for people; see :func:`ai.readers.exams.picture`.
    """

    mass: NDArray[np.float32]
    geometry: Geometry
    prepared: NDArray[np.uint8]


ViewMap = Callable[[ViewImage], MassMap]
"""What a paper does with an image."""


class MaskThresholds(CardPart):
    """The thresholds table of a card.

    Attributes
    ----------
    mass
        Smallest detection of a finding: the mean probability within its outline.
    candidate
        Probability above which the map is a mass (0.5 in the papers).
    smallest
        Pixels of the canvas below which a candidate is noise.
    """

    mass: float = Field(ge=0, le=1)
    candidate: float = Field(ge=0, lt=1)
    smallest: int = Field(default=20, ge=1)

    @property
    def rule(self) -> LesionRule:
        """How masses are cut out of the map: where it is above ``candidate``."""
        return LesionRule(self.candidate, None, self.smallest)


class MaskFolds:
    """The networks of a model, one for each of its weights files.

    Parameters
    ----------
    model
        The model directory.
    card
        Which network.
    sides
        Rows and columns that the network will be given, and the card's key that says so.
    memory
        Where to read, and how.

    Raises
    ------
    ai.errors.ModelError
        When there is no such network, it gives no masks or does not take the sides, or weights are missing, differ from
        the card or do not fit.
    """

    def __init__(self, model: Model, card: NetworkCard, sides: tuple[str, tuple[int, int]], memory: Memory) -> None:
        self._memory = memory
        known = ARCHITECTURES.get(card.network)
        if known and not known.masks:
            raise InvalidCard(f"{model.folder / CARD}: architecture.network: {card.network} gives no masks")
        key, shape = sides
        if known and any(side % known.multiple for side in shape):
            raise InvalidCard(
                f"{model.folder / CARD}: architecture.{key}: {card.network} takes multiples of {known.multiple}, "
                f"not {shape[0]} x {shape[1]}"
            )
        self._networks = folds(card, model.weights(), memory)
        try:
            with torch.device("meta"):  # shapes alone: smp makes a first convolution anew, beside it
                build(card.network, card.options).to("meta").eval()(torch.empty(1, 1, *shape))
        except (RuntimeError, ValueError) as error:
            raise InvalidCard(f"{model.folder / CARD}: architecture.{key}: {error}") from error

    @torch.inference_mode()
    def probabilities(self, pixels: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the mean of the folds' probabilities.

        Parameters
        ----------
        pixels
            At least one canvas; all have one shape, (rows, columns).

        Returns
        -------
        numpy.ndarray
            Shape (n, rows, columns), 0 to 1.
        """
        batch = torch.from_numpy(np.stack(pixels))[:, None].to(self._memory.where)
        mean = torch.stack([network(batch).float().sigmoid() for network in self._networks]).mean(0)
        return np.asarray(mean[:, 0].cpu().numpy())


class SegmentationReader(ViewReader):
    """Reads each view alone by its map of probabilities.

    Parameters
    ----------
    model
        Who reads.
    memory
        Where, and how.
    view_map
        What the paper does with an image.
    rule, threshold
        How masses are cut out of the map, and the smallest detection of a finding.
    """

    def __init__(
        self, model: ModelIdentity, memory: Memory, view_map: ViewMap, rule: LesionRule, threshold: float
    ) -> None:
        super().__init__(model, memory)
        self._view_map = view_map
        self._rule = rule
        self._threshold = threshold

    def _read_image(self, image: ViewImage) -> ImageFindings:
        told = self._view_map(image)
        mass, geometry = told.mass, told.geometry
        candidates = find_masses(mass, None, geometry, image.spacing, self._rule, 0)
        # They are ranked by their detection: what is left out has the last numbers.
        masses = tuple(candidate for candidate in candidates if candidate.detection >= self._threshold)
        columns, rows = geometry.covered
        peak = min(float(mass[:rows, :columns].max()), self._rule.candidate)
        score = candidates[0].suspicion if candidates else round(100 * peak)
        shown = geometry.to_grid(mass, MAP_SIDE)
        return ImageFindings(
            *(image.uid, image.view, image.shape, masses, score, None, image.warnings, shown), prepared=told.prepared
        )
