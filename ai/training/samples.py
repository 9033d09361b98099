"""Images on the canvas of the mass network, with their truth."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ai.breast import Geometry, prepare
from ai.datasets.records import Box, Record
from ai.datasets.truth import Truth, kind_of, mass_mask
from ai.errors import AIError, InvalidDataset
from ai.pixels import file_image


@dataclass(frozen=True, eq=False)
class Sample:
    """One image on the canvas, with its truth.

    Attributes
    ----------
    record
        Where it comes from.
    pixels
        uint8, canvas shape: -1 to 1 as 0 to 255.
    mass
        uint8, canvas shape: 1 where more than half of a pixel is mass by masks or outlines; where there are boxes
        alone, within the ellipses inscribed in them. That is a weak label: supervision only.
    boxes
        x1, y1, x2, y2 of the masses on the canvas, shape (n, 4).
    geometry
        The way back to the file's pixels.
    """

    record: Record
    pixels: NDArray[np.uint8]
    mass: NDArray[np.uint8]
    boxes: NDArray[np.float64]
    geometry: Geometry


def load_samples(
    folder: Path, records: Iterable[Record], canvas: tuple[int, int], on_image: Callable[[], None] = lambda: None
) -> list[Sample]:
    """Prepare every image of the records; ``on_image`` is called after each.

    Raises
    ------
    InvalidDataset
        When an image or a mask cannot be used; it is named.
    """
    samples = []
    for record in records:
        try:
            image = file_image(folder / record.path, record.view)
            prepared = prepare(image, canvas)
        except AIError as error:
            raise InvalidDataset(f"{record.file}: {error}") from error
        pixels = prepared.as_bytes()
        if kind_of(record) in (Truth.MASK, Truth.OUTLINE):
            truth = mass_mask(record, folder, image.shape)[0]
            mass = (prepared.geometry.to_canvas(truth.astype(np.float32)) > 0.5).astype(np.uint8)
        else:
            mass = ellipses(record.boxes, prepared.geometry)
        boxes = [box_on_canvas(box, prepared.geometry) for box in record.boxes]
        samples.append(Sample(record, pixels, mass, np.reshape(boxes, (-1, 4)).astype(np.float64), prepared.geometry))
        on_image()
    return samples


def ellipses(boxes: Iterable[Box], geometry: Geometry) -> NDArray[np.uint8]:
    """Draw the ellipses inscribed in boxes (image pixels) on the canvas."""
    mass = np.zeros(geometry.canvas, np.uint8)
    for box in boxes:
        corners = box_on_canvas(box, geometry).reshape(2, 2)
        centre, size = corners.mean(0) - 0.5, corners[1] - corners[0]
        cv2.ellipse(mass, (tuple(centre.tolist()), tuple(size.tolist()), 0.0), 1, cv2.FILLED)
    return mass


def box_on_canvas(box: Box, geometry: Geometry) -> NDArray[np.float64]:
    """Return x1, y1, x2, y2 on the canvas of a box in image pixels."""
    x, y, width, height = box
    corners = geometry.points_to_canvas(np.array([[x, y], [x + width, y + height]], np.float64))
    return np.concatenate([corners.min(0), corners.max(0)])
