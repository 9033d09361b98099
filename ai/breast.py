"""Where the breast is, and the reversible way from an image to the canvas that networks see."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ai.errors import NoBreast
from ai.exam import ViewImage

_WORKING_SIZE = 512  # longest side of the copy on which the breast is searched, pixels
_BORDER = 0.015  # fraction of the image at its edges where scanned films have bright borders


@dataclass(frozen=True)
class Geometry:
    """Crop, mirror and scale between an image and a canvas, in continuous coordinates.

    Coordinates are x, y with the origin at the top left corner of the first pixel (PS3.3 C.18.6.1.2): the centre of
    the first pixel is (0.5, 0.5). On the canvas the chest wall is at the left.

    Attributes
    ----------
    shape
        Rows and columns of the image.
    crop
        x, y, width, height of the breast in the image, pixels.
    mirrored
        True when the chest wall is at the right of the image.
    scale
        Canvas pixels per image pixel in x and in y.
    canvas
        Rows and columns of the canvas; what the crop does not cover is black.
    """

    shape: tuple[int, int]
    crop: tuple[int, int, int, int]
    mirrored: bool
    scale: tuple[float, float]
    canvas: tuple[int, int]

    def to_canvas(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the image, shape ``self.shape``, on the canvas."""
        x, y, width, height = self.crop
        part = pixels[y : y + height, x : x + width]
        if self.mirrored:
            part = part[:, ::-1]
        columns, rows = self.covered
        shrinks = self.scale[0] < 1 and self.scale[1] < 1
        small = cv2.resize(
            np.ascontiguousarray(part), (columns, rows), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )
        canvas = np.zeros(self.canvas, np.float32)
        canvas[:rows, :columns] = small
        return canvas

    def points_to_canvas(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map image points, shape (n, 2), x and y, to the canvas."""
        return self._apply(points, self._matrix())

    def points_to_image(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map canvas points, shape (n, 2), x and y, to the image."""
        return self._apply(points, np.asarray(cv2.invertAffineTransform(self._matrix()), np.float64))

    def patch_to_image(
        self, patch: NDArray[np.float32], origin: tuple[int, int]
    ) -> tuple[NDArray[np.float32], tuple[int, int]]:
        """Resample a part of the canvas at the image's resolution.

        Parameters
        ----------
        patch
            Values on the canvas.
        origin
            Row and column of the patch's first pixel on the canvas.

        Returns
        -------
        tuple
            The values, linearly interpolated, and row and column of their first pixel in the image. The part lies
            within the image.
        """
        row, column = origin
        height, width = patch.shape
        corners = self.points_to_image(np.array([[column, row], [column + width, row + height]], np.float64))
        left, top = np.floor(corners.min(0)).astype(int).clip(0)
        right, bottom = np.minimum(np.ceil(corners.max(0)).astype(int), self.shape[::-1])
        # cv2 takes pixel centres at integers: half a pixel less than the continuous coordinates on both sides.
        matrix = self._matrix()
        matrix[:, 2] += matrix[:, :2] @ np.array([left + 0.5, top + 0.5]) - np.array([column + 0.5, row + 0.5])
        values = cv2.warpAffine(
            patch,
            matrix,
            (int(max(right - left, 1)), int(max(bottom - top, 1))),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return values.astype(np.float32), (int(top), int(left))

    def to_grid(self, values: NDArray[np.float32], longest: int) -> NDArray[np.float32]:
        """Return the mean of canvas values in each cell of a grid that covers the whole image evenly.

        Parameters
        ----------
        values
            On the canvas.
        longest
            Cells along the image's longer side; no cell is smaller than a pixel of the image.

        Returns
        -------
        numpy.ndarray
            Shape (rows, columns) of the grid; 0 beside the crop.
        """
        rows, columns = (max(round(side * min(longest / max(self.shape), 1)), 1) for side in self.shape)
        right, bottom = self.covered
        # Two samples to a cell and side, of pixels that are no finer than that.
        sample = np.array([self.shape[1] / columns, self.shape[0] / rows]) / 2
        pixels = np.array([right, bottom])
        fewer = np.ceil(pixels / np.maximum(sample * self.scale, 1)).astype(int)
        coarse = cv2.resize(values[:bottom, :right], tuple(fewer.tolist()), interpolation=cv2.INTER_AREA)
        matrix = self._matrix() * (fewer / pixels)[:, None]
        matrix[:, :2] *= sample
        # cv2 takes pixel centres at integers: half a pixel less than the continuous coordinates on both sides.
        matrix[:, 2] += matrix[:, :2] @ np.array([0.5, 0.5]) - 0.5
        fine = cv2.warpAffine(
            coarse,
            matrix,
            (2 * columns, 2 * rows),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
        )
        return cv2.resize(fine, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)

    @property
    def covered(self) -> tuple[int, int]:
        """Columns and rows of the canvas that the crop covers."""
        _, _, width, height = self.crop
        return min(max(round(width * self.scale[0]), 1), self.canvas[1]), min(
            max(round(height * self.scale[1]), 1), self.canvas[0]
        )

    def _matrix(self) -> NDArray[np.float64]:
        x, y, width, height = self.crop
        columns, rows = self.covered
        sx, sy = columns / width, rows / height  # as cv2.resize really scales
        if self.mirrored:
            return np.array([[-sx, 0, sx * (x + width)], [0, sy, -sy * y]])
        return np.array([[sx, 0, -sx * x], [0, sy, -sy * y]])

    @staticmethod
    def _apply(points: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], np.float64)


@dataclass(frozen=True, eq=False)
class PreparedView:
    """What a network sees of one image.

    Attributes
    ----------
    pixels
        On the canvas, float32, -1 to 1: percentiles 1 and 99.5 of the breast at the ends.
    geometry
        The way back.
    """

    pixels: NDArray[np.float32]
    geometry: Geometry

    def as_bytes(self) -> NDArray[np.uint8]:
        """Return the pixels as 0 to 255."""
        return np.round(127.5 * (self.pixels + 1)).astype(np.uint8)


def breast_mask(pixels: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tell the breast from the background.

    Otsu's threshold on the smoothed square root of a small copy, without the film's bright border, then the largest
    connected component with its holes filled.

    Parameters
    ----------
    pixels
        Presentation values, 0 to 1.

    Returns
    -------
    numpy.ndarray
        Mask on the small copy, whose longest side has at most 512 pixels.

    Raises
    ------
    NoBreast
        When what is found covers less than 3 % of the image.
    """
    factor = min(_WORKING_SIZE / max(pixels.shape), 1.0)
    if round(factor * min(pixels.shape)) < 1:
        raise NoBreast
    small = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    rows, columns = small.shape
    grey = (255 * np.sqrt(cv2.GaussianBlur(small, (0, 0), 2).clip(0, 1))).astype(np.uint8)
    border = max(round(_BORDER * max(rows, columns)), 1)
    inner = np.zeros_like(grey)
    inner[border : rows - border, border : columns - border] = 1
    threshold, _ = cv2.threshold(grey[inner > 0].reshape(-1, 1), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    # Otsu separates tissue classes in dense breasts; the skin line is darker than its threshold.
    found = ((grey > 0.75 * threshold) & (inner > 0)).astype(np.uint8)
    found = cv2.morphologyEx(found, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9)))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(found)
    if count < 2:
        raise NoBreast
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    if stats[largest, cv2.CC_STAT_AREA] < 0.03 * small.size:
        raise NoBreast
    outline, _ = cv2.findContours((labels == largest).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros_like(found)
    cv2.drawContours(filled, outline, -1, 1, cv2.FILLED)
    return filled > 0


def breast_of(image: ViewImage) -> NDArray[np.bool_]:
    """Return the breast's mask on a small copy of the image, see :func:`breast_mask`.

    Raises
    ------
    NoBreast
        When there is no breast; the image is named.
    """
    try:
        return breast_mask(image.pixels)
    except NoBreast:
        raise NoBreast(image.uid) from None


def prepare(image: ViewImage, canvas: tuple[int, int]) -> PreparedView:
    """Crop to the breast, turn the chest wall to the left, fit into the canvas and normalise.

    Parameters
    ----------
    image
        A mammogram.
    canvas
        Rows and columns.

    Raises
    ------
    NoBreast
        When there is no breast.
    """
    mask = breast_of(image)
    return normalised(image, breast_geometry(image, mask, canvas), *levels(image, mask))


def levels(image: ViewImage, mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the percentiles 1 and 99.5 of the masked breast."""
    small = cv2.resize(image.pixels, mask.shape[::-1], interpolation=cv2.INTER_AREA)
    low, high = np.percentile(small[mask], (1, 99.5))
    return float(low), float(high)


def normalised(image: ViewImage, geometry: Geometry, low: float, high: float) -> PreparedView:
    """Return an image on its canvas with two of its values at -1 and 1, and what lies beyond them cut off."""
    normal = (geometry.to_canvas(image.pixels) - low) / max(high - low, 1e-6)
    columns, rows = geometry.covered
    result = np.full(geometry.canvas, -1, np.float32)
    result[:rows, :columns] = 2 * normal[:rows, :columns].clip(0, 1) - 1
    return PreparedView(result, geometry)


def breast_geometry(image: ViewImage, mask: NDArray[np.bool_], canvas: tuple[int, int]) -> Geometry:
    """Return the geometry that brings the masked breast onto the canvas, with a margin of 2 %."""
    rows, columns = image.shape
    scale_y, scale_x = rows / mask.shape[0], columns / mask.shape[1]
    used_rows, used_columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    margin = round(0.02 * max(rows, columns))
    top, left = max(int(used_rows[0] * scale_y) - margin, 0), max(int(used_columns[0] * scale_x) - margin, 0)
    bottom = min(int((used_rows[-1] + 1) * scale_y) + margin, rows)
    right = min(int((used_columns[-1] + 1) * scale_x) + margin, columns)
    width, height = right - left, bottom - top
    half = mask.shape[1] // 2
    mirrored = bool(mask[:, :half].sum() < mask[:, -half:].sum())
    scale = min(canvas[1] / width, canvas[0] / (height * image.pixel_aspect))
    return Geometry(image.shape, (left, top, width, height), mirrored, (scale, scale * image.pixel_aspect), canvas)
