"""What a reader is given: the images of one exam, as arrays, with their views."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Laterality(StrEnum):
    """Side of the imaged breast, as in Image Laterality (0020,0062)."""

    LEFT = "L"
    RIGHT = "R"


class ViewPosition(StrEnum):
    """The two projections of a screening exam, as in View Position (0018,5101)."""

    CC = "CC"
    MLO = "MLO"


class View(NamedTuple):
    """One of the four standard views."""

    laterality: Laterality
    position: ViewPosition

    def __str__(self) -> str:
        """Return the view as radiologists say it, for example ``R MLO``."""
        return f"{self.laterality} {self.position}"

    @classmethod
    def parse(cls, text: str) -> "View":
        """Read ``RCC``, ``R CC``, ``r-mlo`` or ``LEFT_CC``.

        Raises
        ------
        ValueError
            When the text names no standard view.
        """
        letters = "".join(c for c in text.upper() if c.isalpha()).replace("LEFT", "L").replace("RIGHT", "R")
        return cls(Laterality(letters[:1]), ViewPosition(letters[1:]))


STANDARD_VIEWS = tuple(
    View(side, position) for position in ViewPosition for side in (Laterality.RIGHT, Laterality.LEFT)
)
"""R CC, L CC, R MLO, L MLO: the order in which views are listed everywhere."""


class SpacingRule(StrEnum):
    """Where millimetres come from (rule R11)."""

    CALIBRATED = "PixelSpacing, calibrated"
    MAGNIFICATION = "ImagerPixelSpacing / EstimatedRadiographicMagnificationFactor"
    DETECTOR = "ImagerPixelSpacing, detector plane"


@dataclass(frozen=True)
class Spacing:
    """Distance between pixel centres in mm, between rows and between columns (PS3.3 10.7.1.3)."""

    row: float
    column: float
    rule: SpacingRule


class Side(StrEnum):
    """A side of an image as it is displayed."""

    LEFT = "left"
    RIGHT = "right"
    TOP = "top"
    BOTTOM = "bottom"


@dataclass(frozen=True, eq=False)
class ViewImage:
    """One mammogram as presentation values.

    Attributes
    ----------
    uid
        SOP Instance UID, or the file's name when the image is no DICOM instance.
    view
        The view it shows.
    pixels
        Shape (rows, columns), float32, 0 to 1; dense tissue is bright (MONOCHROME2).
    spacing
        Pixel spacing, or None when the headers have none.
    pixel_aspect
        Height of a pixel divided by its width; 1 except for images that were resized without keeping their aspect.
    warnings
        What the gate noticed (rule R13), in words.
    chest_wall
        The side on which the chest wall lies by the header; None when the header does not say.
    """

    uid: str
    view: View
    pixels: NDArray[np.float32]
    spacing: Spacing | None = None
    pixel_aspect: float = 1.0
    warnings: tuple[str, ...] = ()
    chest_wall: Side | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.pixels.shape
        return rows, columns


@dataclass(frozen=True, eq=False)
class Exam:
    """The images of one patient's screening study that are read together, at most one per view."""

    images: tuple[ViewImage, ...]

    def __post_init__(self) -> None:
        """Refuse two images of one view."""
        views = [image.view for image in self.images]
        if len(set(views)) != len(views):
            raise ValueError(f"two images of one view: {sorted(map(str, views))}")
