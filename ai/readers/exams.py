"""What readers share that read each image alone: the exam's findings from those of its images."""

from abc import ABC, abstractmethod
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ai.exam import Exam, Laterality, ViewImage
from ai.findings import BreastScore, ExamFindings, ImageFindings, ModelIdentity
from ai.readers.matching import MatchingPolicy, match_masses
from ai.readers.memory import Economy, Memory
from ai.readers.runtime import Runtime

MAP_SIDE: Final = 512
"""Cells along the longer side of the map that goes out with the findings."""


def picture(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return pixels of 0 to 1 as people see them, 0 to 255."""
    return np.asarray(np.round(255 * pixels.clip(0, 1)), np.uint8)


class ViewReader(ABC):
    """A reader that reads each image alone.

    A breast's score is the highest of its images', the exam's that of its breasts'. Masses of two views that may be one
    lesion are paired. When memory does not suffice, an image is read again with less of it.

    Parameters
    ----------
    model
        Who reads.
    memory
        Where, and how.
    """

    def __init__(self, model: ModelIdentity, memory: Memory) -> None:
        self._identity = model
        self._memory = memory
        self._matching = MatchingPolicy()

    @property
    def model(self) -> ModelIdentity:
        """The model that reads."""
        return self._identity

    @property
    def device(self) -> str:
        """Where it reads."""
        device, runtime = self._memory.device, self._memory.runtime
        return str(device) if runtime is Runtime.TORCH else f"{device}, {runtime}"

    def read(self, exam: Exam) -> ExamFindings:
        """Read the images of one exam."""
        self._memory.economy = Economy.NONE
        found = self._together(tuple(self._memory.read(partial(self._read_image, image)) for image in exam.images))
        breasts = tuple(
            BreastScore(side, max(image.score for image in found if image.view.laterality == side))
            for side in Laterality
            if any(image.view.laterality == side for image in found)
        )
        matches = match_masses(exam, found, self._matching)
        return ExamFindings(self._identity, found, breasts, max((b.score for b in breasts), default=0), matches)

    def _together(self, found: tuple[ImageFindings, ...]) -> tuple[ImageFindings, ...]:
        """Return what the images say in view of each other: as it is, unless the reader knows better."""
        return found

    @abstractmethod
    def _read_image(self, image: ViewImage) -> ImageFindings:
        """Read one image."""
