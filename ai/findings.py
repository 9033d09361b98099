"""What a reader answers: masses with mask and outline, scores per image, breast and exam."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from ai.calibration import Calibration
from ai.exam import Laterality, SpacingRule, View


class LengthUnit(StrEnum):
    """Unit of a size, as a UCUM code: millimetres, or pixels where no spacing is known."""

    MILLIMETRE = "mm"
    PIXEL = "{pixels}"


@dataclass(frozen=True)
class Size:
    """Area and axes of a mass.

    Attributes
    ----------
    area
        In unit squared.
    long_axis, short_axis
        Axes of the ellipse with the mask's second moments, in unit.
    unit
        Millimetres, or pixels when the image has no spacing.
    rule
        Where the millimetres come from (rule R11); None for pixels.
    """

    area: float
    long_axis: float
    short_axis: float
    unit: LengthUnit
    rule: SpacingRule | None


@dataclass(frozen=True, eq=False)
class Mass:
    """One mass in one view.

    Attributes
    ----------
    number
        1, 2, … within its image, by falling suspicion.
    origin
        Row and column of the mask's first pixel in the image.
    mask
        Shape (height, width), bool: the mass within its bounding box.
    contour
        Shape (n, 2), float64, x (column) and y (row), closed (first point = last point), in image coordinates whose
        origin is the top left corner of the first pixel, so that a pixel's centre is at +0.5 (PS3.3 C.18.6.1.2).
    size
        Area and axes.
    detection
        0 to 1, how sure the reader is that a mass is here.
    malignancy
        0 to 1, how malignant it looks, or None when the reader does not classify. A score, not a probability.
    suspicion
        0 to 100, the score that is shown (rule R4). A score, not a probability.
    """

    number: int
    origin: tuple[int, int]
    mask: NDArray[np.bool_]
    contour: NDArray[np.float64]
    size: Size
    detection: float
    malignancy: float | None
    suspicion: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Bounding box x, y, width, height in pixels."""
        height, width = self.mask.shape
        return self.origin[1], self.origin[0], width, height

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the bounding box in the image."""
        row, column = self.origin
        height, width = self.mask.shape
        return slice(row, row + height), slice(column, column + width)

    def full_mask(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Return the mask in an image of the given rows and columns."""
        full = np.zeros(shape, np.bool_)
        full[self.window] = self.mask
        return full


@dataclass(frozen=True, eq=False)
class ImageFindings:
    """What was found in one image.

    Attributes
    ----------
    uid
        The image's SOP Instance UID.
    view
        Its view.
    shape
        Rows and columns.
    masses
        Masses at or above the model's threshold, by falling suspicion.
    score
        0 to 100, suspicion of the image (rule R4), never below that of its most suspicious mass.
    malignancy
        0 to 1, how malignant the image as a whole looks, with the other view of its breast where the reader takes both
        together; None when the reader does not classify.
    warnings
        What the gate noticed, in words.
    probability
        Shape (h, w) with h ≤ rows and w ≤ columns, float32, 0 to 1: how sure the reader is that a mass covers this
        part of the image, on a coarse grid that covers the whole image evenly; None when the reader makes no map.
    prepared
        Shape (h, w), uint8: the image as the network saw it, for people who ask why; None when the reader doesn't tell.
    span
        Lowest and highest score of the image when each network, each way up, speaks for itself; None when the reader
        doesn't tell.
    """

    uid: str
    view: View
    shape: tuple[int, int]
    masses: tuple[Mass, ...]
    score: int
    malignancy: float | None
    warnings: tuple[str, ...] = ()
    probability: NDArray[np.float32] | None = None
    prepared: NDArray[np.uint8] | None = None
    span: tuple[int, int] | None = None


@dataclass(frozen=True)
class BreastScore:
    """Suspicion of one breast, 0 to 100 (rule R4)."""

    laterality: Laterality
    score: int


@dataclass(frozen=True)
class Match:
    """A mass in the CC and one in the MLO view of a breast that may be one lesion, by their numbers."""

    laterality: Laterality
    cc: int
    mlo: int


@dataclass(frozen=True)
class ModelIdentity:
    """Name, version and digest (SHA-256 of the weights and the card) of the model that read, with what reports need.

    Attributes
    ----------
    name, version, digest
        Who it is.
    notes
        Sentences for every report.
    calibration
        What its scores meant on other patients; None when the card does not say.
    accepts
        Presentation intents that it reads.
    """

    name: str
    version: str
    digest: str
    notes: tuple[str, ...] = ()
    calibration: Calibration | None = None
    accepts: tuple[str, ...] = ("FOR PRESENTATION",)


@dataclass(frozen=True, eq=False)
class ExamFindings:
    """The reader's answer for one exam.

    Attributes
    ----------
    model
        Who read.
    images
        One entry per image that was read, in the order of the exam.
    breasts
        One score per breast that was read.
    score
        0 to 100, suspicion of the exam (rule R4).
    matches
        Pairs of masses that may be one lesion; each mass in at most one.
    """

    model: ModelIdentity
    images: tuple[ImageFindings, ...]
    breasts: tuple[BreastScore, ...]
    score: int
    matches: tuple[Match, ...] = ()

    @property
    def count(self) -> int:
        """Number of masses in all images."""
        return sum(len(image.masses) for image in self.images)

    @property
    def span(self) -> tuple[int, int] | None:
        """Lowest and highest score of the exam by its images' spans; None when an image has none."""
        return _span(self.images)

    def span_of(self, breast: Laterality) -> tuple[int, int] | None:
        """Return the same of one breast."""
        return _span([image for image in self.images if image.view.laterality is breast])


def _span(images: Sequence[ImageFindings]) -> tuple[int, int] | None:
    """Return the span of the worst of some images, as their score is that of the worst."""
    spans = [image.span for image in images if image.span is not None]
    if not spans or len(spans) < len(images):
        return None
    return max(low for low, _ in spans), max(high for _, high in spans)
