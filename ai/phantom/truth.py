"""What is known of a phantom's views, exactly."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai.exam import View
from ai.phantom.lesions import Kind, Lesion


@dataclass(frozen=True, eq=False)
class PhantomMass:
    """One mass in one view.

    Attributes
    ----------
    view
        The view it is in.
    lesion
        The lesion that it shows: the same in CC and MLO.
    mask
        Shape (rows, columns) of the image, bool: exactly the pixels whose centre is within the mass's outline. The
        spicules of a spiculated one go beyond it.
    centre
        Row and column.
    """

    view: View
    lesion: Lesion
    mask: NDArray[np.bool_]
    centre: tuple[float, float]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Bounding box x, y, width, height in pixels."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        left, top = int(columns[0]), int(rows[0])
        return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top


@dataclass(frozen=True)
class PhantomMark:
    """Something in one view that is no mass.

    Attributes
    ----------
    view
        The view it is in.
    kind
        What it is.
    centre
        Row and column.
    radius
        In mm.
    """

    view: View
    kind: Kind
    centre: tuple[float, float]
    radius: float


@dataclass(frozen=True, eq=False)
class PhantomView:
    """One view with its truth.

    Attributes
    ----------
    view
        Which.
    pixels
        Shape (rows, columns), uint16: For Presentation, bright is dense, 0 outside of the breast.
    raw
        The same shape: what it was made of, For Processing, in proportion to the exposure.
    masses
        The masses in it.
    marks
        What else is in it.
    nipple
        Row and column.
    """

    view: View
    pixels: NDArray[np.uint16]
    raw: NDArray[np.uint16]
    masses: tuple[PhantomMass, ...]
    marks: tuple[PhantomMark, ...]
    nipple: tuple[float, float]

    def as_json(self, spacing: float, lesions: tuple[Lesion, ...]) -> Mapping[str, Any]:
        """Return the truth as JSON has it: pixels as x and y, sizes and distances in mm.

        Parameters
        ----------
        spacing
            Of the pixels in mm.
        lesions
            All of the exam; a mass is told by the place of its lesion among them.
        """
        return {
            "view": str(self.view),
            "rows": self.pixels.shape[0],
            "columns": self.pixels.shape[1],
            "spacing_mm": spacing,
            "nipple_xy": _xy(self.nipple),
            "masses": [
                {
                    "lesion": lesions.index(mass.lesion) + 1,
                    "box_xywh": mass.box,
                    "centre_xy": _xy(mass.centre),
                    "area_mm2": round(float(mass.mask.sum()) * spacing**2, 2),
                    "nipple_distance_mm": round(float(np.hypot(*np.subtract(mass.centre, self.nipple))) * spacing, 1),
                }
                for mass in self.masses
            ],
            "other": [
                {"kind": str(mark.kind), "centre_xy": _xy(mark.centre), "radius_mm": round(mark.radius, 2)}
                for mark in self.marks
            ],
        }


def lesion_as_json(number: int, lesion: Lesion) -> Mapping[str, Any]:
    """Return what is known of a lesion."""
    return {
        "lesion": number,
        "laterality": str(lesion.laterality),
        "depth_lateral_vertical": [round(value, 4) for value in lesion.point],
        "radius_mm": round(lesion.radius, 2),
        "irregularity": round(lesion.irregularity, 4),
        "margin": str(lesion.margin),
        "conspicuity": round(lesion.conspicuity, 4),
        "probability_of_malignancy": round(lesion.malignancy, 4),
        "malignant": lesion.malignant,
    }


def _xy(point: tuple[float, float]) -> list[float]:
    row, column = point
    return [round(column, 1), round(row, 1)]
