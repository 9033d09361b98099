"""Stored values to presentation values: decoding, rescale, window, photometric interpretation, spacing (PS3.3 C.11)."""

import math
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import get_expected_length, pixel_array

from ai import jpeg_lossless
from ai.checks import Check
from ai.codestream import Size, stated_size
from ai.errors import CutPixels, MisplacedValues, OtherSize, TooManyPixels, UndecodablePixels, UnreadableFile
from ai.exam import Side, Spacing, SpacingRule, View, ViewImage

jpeg_lossless.be_first()

SQUARE_FILM_ASPECT = 1.65
"""Height over width of a film whose image was resized to a square: 1.5 to 1.8 in the eight CBIS-DDSM originals measured."""

POSSIBLE_SPACING: Final = 0.02, 0.5
"""Millimetres: detectors have 0.05 to 0.1, and images that were reduced more; beyond it is another unit."""

WORST_ASPECT: Final = 4.0
"""Pixels that are longer than so many of their widths are a mistake of the header."""

MOST_PIXELS: Final = 1 << 27
"""A film of 24 by 30 cm at 25 µm has 115 million, the largest detector 28; each takes 9 bytes and, with a window, 29 while it is decoded
(measured), and a few kilobytes of a compressed image can hold four billion."""


def view_image(dataset: Dataset, view: View) -> ViewImage:
    """Return a DICOM instance as an image that readers take.

    Raises
    ------
    UndecodablePixels
        When the pixel data are missing, damaged, in colour or multi-frame.
    """
    pixels = presentation_values(dataset)
    spacing = pixel_spacing(dataset)
    warnings = []
    if spacing is None:
        warnings.append(Check.NO_SPACING.words)
    elif not _is_possible(spacing):
        warnings.append(Check.ODD_SPACING.words)
    if (_number(_stated(dataset, "BitsStored")) or 16) <= 8:
        warnings.append(Check.EIGHT_BITS.words)
    if _stated(dataset, "BreastImplantPresent") == "YES":
        warnings.append(Check.IMPLANT.words)
    if _stated(dataset, "BurnedInAnnotation") == "YES":
        warnings.append(Check.BURNED_IN.words)
    uid, aspect = str(dataset.SOPInstanceUID), pixel_aspect(dataset)
    return ViewImage(uid, view, pixels, spacing, aspect, tuple(warnings), chest_wall(dataset))


def file_image(path: Path, view: View) -> ViewImage:
    """Return a JPEG, PNG or DICOM file as an image that readers take.

    A square JPEG or PNG is taken for a film that was resized without keeping its aspect (``SQUARE_FILM_ASPECT``).

    Raises
    ------
    UnreadableFile
        When the file is not there or is no image.
    UndecodablePixels
        As :func:`view_image`.
    """
    try:
        return view_image(pydicom.dcmread(path), view)
    except InvalidDicomError:
        pass
    except OSError as error:
        raise UnreadableFile(f"{path.name}: {error.strerror}") from error
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if stored is None:
        raise UnreadableFile(path.name)
    if stored.ndim == 3:
        stored = cv2.cvtColor(stored[..., :3], cv2.COLOR_BGR2GRAY)
    rows, columns = stored.shape
    aspect = SQUARE_FILM_ASPECT if rows == columns else 1.0
    return ViewImage(path.name, view, _to_unit(stored.astype(np.float32)), None, aspect, (Check.NO_SPACING.words,))


def presentation_values(dataset: Dataset) -> NDArray[np.float32]:
    """Return the image as it is meant to be seen: (rows, columns), float32, 0 (black) to 1 (white).

    Modality LUT, the first VOI window or LUT, then MONOCHROME1 or an inverse presentation LUT shape are applied, in
    the order of PS3.4 N.2. Values outside the window are clipped by it.

    Raises
    ------
    UndecodablePixels
        When the pixel data are missing, damaged, in colour or multi-frame, or a LUT or window is not valid; CutPixels,
        MisplacedValues, OtherSize and TooManyPixels where it is known what is wrong.
    """
    require_size(dataset, _number(_stated(dataset, "NumberOfFrames")) or 1)
    try:
        stored = dataset.pixel_array
    except (MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the decoders of pydicom's plugins raise whatever they like, Rust's panics among it
        raise (CutPixels() if _is_cut(dataset) else UndecodablePixels(type(error).__name__)) from error
    if stored.ndim != 2:
        raise UndecodablePixels(f"{stored.ndim} dimensions instead of one grey frame")
    if _is_misplaced(dataset):
        raise MisplacedValues
    padding = _padding(dataset, stored)
    try:
        values = _voi(_modality(stored, dataset), dataset).astype(np.float32)
    except Exception as error:  # pydicom meets LUTs and windows that break their module as they come
        raise UndecodablePixels(f"LUT or window: {error}") from error
    if padding is not None and not padding.all():
        values[padding] = values[~padding].min()
    unit = _to_unit(values)
    inverse = ("PhotometricInterpretation", "MONOCHROME1"), ("PresentationLUTShape", "INVERSE")
    if any(_stated(dataset, keyword) == value for keyword, value in inverse):
        unit = 1 - unit
        if padding is not None:
            unit[padding] = 0
    return unit


def _compressed_size(dataset: Dataset) -> Size | None:
    """Return the size that the first frame of compressed pixel data states, None where it states none."""
    try:
        if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            return stated_size(next(generate_frames(dataset.PixelData, number_of_frames=1)))
    except Exception:  # noqa: BLE001 - an image that is broken in another way, which decoding tells
        return None
    return None


def _is_cut(dataset: Dataset) -> bool:
    """Tell whether uncompressed pixel data are shorter than the image."""
    try:
        return not dataset.file_meta.TransferSyntaxUID.is_encapsulated and len(dataset.PixelData) < get_expected_length(
            dataset
        )
    except Exception:  # noqa: BLE001 - an image that is broken in another way, in whatever way
        return False


def _is_misplaced(dataset: Dataset) -> bool:
    """Tell whether values lie at other bits than the low ones, of which pydicom would keep the wrong half (PS3.5 8.1.1)."""
    if _stated(dataset, "HighBit") in (None, dataset.BitsStored - 1):
        return False
    beyond = pixel_array(dataset, correct_unused_bits=False) >> dataset.BitsStored
    return not np.isin(beyond, (0, -1)).all()  # -1 is the sign of a negative value that fits


def require_size(dataset: Dataset, frames: float = 1) -> None:
    """Refuse so many frames that take too much memory, and what pydicom would cut into other rows or values than it has.

    Raises
    ------
    TooManyPixels, OtherSize
        By the header and, where the pixel data are there and compressed, by what they say of themselves.
    """
    rows, columns = _sides(dataset)
    size = _compressed_size(dataset)
    if number_of_pixels(dataset) * frames > MOST_PIXELS:
        raise TooManyPixels
    # More rows than the header says are what some encoders fill the last block up with: the first are the image.
    if size and (
        size.columns != columns
        or size.rows < rows
        or size.bits > (_number(_stated(dataset, "BitsAllocated")) or size.bits)
    ):
        raise OtherSize


def number_of_pixels(dataset: Dataset) -> float:
    """Return how many pixels an image has, by its header or, where they are more, by what compressed pixel data say."""
    rows, columns = _sides(dataset)
    size = _compressed_size(dataset)
    return max(rows * columns, size.rows * size.columns if size else 0)


def _sides(dataset: Dataset) -> tuple[float, float]:
    rows, columns = (_number(_stated(dataset, each)) or 1 for each in ("Rows", "Columns"))
    return rows, columns


def pixel_spacing(dataset: Dataset) -> Spacing | None:
    """Return the spacing by rule R11, or None.

    PixelSpacing counts when it is calibrated (PS3.3 10.7.1.2); ImagerPixelSpacing is divided by the magnification.
    """
    calibrated, imager = _pair(dataset, "PixelSpacing"), _pair(dataset, "ImagerPixelSpacing")
    if calibrated and (_stated(dataset, "PixelSpacingCalibrationType") or imager is None or calibrated != imager):
        return Spacing(*calibrated, SpacingRule.CALIBRATED)
    if imager is None:
        return None
    factor = _number(_stated(dataset, "EstimatedRadiographicMagnificationFactor"))
    if factor:
        return Spacing(imager[0] / factor, imager[1] / factor, SpacingRule.MAGNIFICATION)
    return Spacing(*imager, SpacingRule.DETECTOR)


def pixel_aspect(dataset: Dataset) -> float:
    """Return height over width of a pixel by a possible spacing, else by Pixel Aspect Ratio (PS3.3 C.7.6.3.1.7), else 1."""
    spacing = pixel_spacing(dataset)
    told = (spacing.row, spacing.column) if spacing and _is_possible(spacing) else _pair(dataset, "PixelAspectRatio")
    row, column = told or (1.0, 1.0)
    aspect = row / column
    # Rounded spacings of square pixels differ in their last digit.
    return aspect if abs(aspect - 1) > 0.01 and 1 / WORST_ASPECT <= aspect <= WORST_ASPECT else 1.0


def _is_possible(spacing: Spacing) -> bool:
    return all(POSSIBLE_SPACING[0] <= side <= POSSIBLE_SPACING[1] for side in (spacing.row, spacing.column))


def chest_wall(dataset: Dataset) -> Side | None:
    """Return the side of the chest wall by Patient Orientation (PS3.3 C.7.6.1.1.1), None when it names none.

    It describes the image as it is stored, whatever Field of View Horizontal Flip (0018,7034) says was done before.
    """
    value = _stated(dataset, "PatientOrientation")
    if not isinstance(value, MultiValue) or len(value) != 2:
        return None
    along_rows, along_columns = (str(direction)[:1] for direction in value)
    ends = {"A": (Side.LEFT, Side.TOP), "P": (Side.RIGHT, Side.BOTTOM)}
    if along_rows in ends:
        return ends[along_rows][0]
    return ends[along_columns][1] if along_columns in ends else None


def _stated(dataset: Dataset, keyword: str) -> Any:
    """Return an attribute's value; None when it is absent or nobody can read it: its image may still be seen."""
    try:
        return dataset.get(keyword)
    except Exception:  # noqa: BLE001 - pydicom converts at access, and its converters raise whatever odd bytes make them
        return None


def _pair(dataset: Dataset, keyword: str) -> tuple[float, float] | None:
    try:
        row, column = (float(v) for v in _stated(dataset, keyword) or ())
    except (TypeError, ValueError):
        return None
    return (row, column) if 0 < row < float("inf") and 0 < column < float("inf") else None


def _number(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if 0 < number < float("inf") else None


def _modality(stored: NDArray[Any], dataset: Dataset) -> NDArray[Any]:
    """Apply the Modality LUT or the rescale; a rescale that is empty throughout says no more than none does (PS3.3 C.11.1)."""
    rescale = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    says = bool(dataset.get("ModalityLUTSequence")) or any(value not in (None, "") for value in rescale)
    return apply_modality_lut(stored, dataset) if says else stored


def _voi(values: NDArray[Any], dataset: Dataset) -> NDArray[Any]:
    """Apply the first VOI LUT, else the first window (PS3.3 C.11.2, C.8.11.3.1.5).

    Not pydicom's own for LUTs: 3.0.2 looks up 8-bit LUTs of more than 256 entries with an 8-bit index.
    """
    lut = (dataset.get("VOILUTSequence") or [None])[0]
    if lut is None or "LUTDescriptor" not in lut or "LUTData" not in lut:
        if "VOILUTFunction" in dataset and not _stated(dataset, "VOILUTFunction"):
            dataset = dataset[0x00280000:0x00290000]
            del dataset.VOILUTFunction  # pydicom refuses an empty one, which says no more than none does: linear
        return apply_voi_lut(values, dataset)
    entries, first, _ = lut.LUTDescriptor
    data = lut.LUTData
    entry = "u1" if isinstance(data, bytes) and len(data) == entries else "<u2"
    table: NDArray[Any] = np.frombuffer(data, entry) if isinstance(data, bytes) else np.asarray(data)
    index = np.rint(values).astype(np.int64) - first
    return np.asarray(table[index.clip(0, (entries or 1 << 16) - 1)])


def _padding(dataset: Dataset, stored: NDArray[np.int64]) -> NDArray[np.bool_] | None:
    """Pixel Padding Value and Range Limit (PS3.3 C.7.5.1.1.2)."""
    value = _stated(dataset, "PixelPaddingValue")
    if not isinstance(value, int):
        return None
    limit = _stated(dataset, "PixelPaddingRangeLimit")
    low, high = sorted((value, limit if isinstance(limit, int) else value))
    return (stored >= low) & (stored <= high)


def _to_unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    low, high = float(values.min()), float(values.max())
    if not math.isfinite(high - low):
        raise UndecodablePixels("LUT or window: values beyond all numbers")
    if high <= low:
        return np.zeros_like(values)
    return (values - low) / (high - low)
