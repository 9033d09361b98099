"""Builders: answers of every form, standing on a small phantom exam and its exact truth."""

from collections.abc import Callable, Iterable
from copy import deepcopy
from datetime import UTC, datetime
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ai.exam import STANDARD_VIEWS, Laterality, Spacing, SpacingRule, View, ViewPosition
from ai.findings import BreastScore, ExamFindings, ImageFindings, Mass, ModelIdentity
from ai.pixels import view_image
from ai.readers.lesions import measure, outline
from config.mix import ObjectMix, ResultKind, SegmentationType
from node.phantom import phantom_exam
from node.results.answer import Answer, AnswerStatus, ImageAnswer, answer_status
from node.results.edition import Edition
from node.results.encode import ResultObject, encode
from tests.builders import A_MASS_IN_EACH

DEFAULT_MIX = ObjectMix()
MODEL = ModelIdentity("phantom-reader", "1.2", "ab" * 32, ("The model was trained on digitised film.",))
CREATED_AT = datetime(2026, 3, 4, 5, 6, 7, 890000, tzinfo=UTC)
INSTALLATION = "0123456789abcdef0123456789abcdef"
RIGHT = tuple(view for view in STANDARD_VIEWS if view.laterality is Laterality.RIGHT)
LEFT_CC = View(Laterality.LEFT, ViewPosition.CC)


def a_mass(mask: NDArray[np.bool_], number: int = 1, *, suspicion: int = 83, millimetres: bool = True) -> Mass:
    """Return a mass with this mask of the whole image."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    inner = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    origin = int(rows[0]), int(columns[0])
    spacing = Spacing(0.45, 0.45, SpacingRule.MAGNIFICATION) if millimetres else None
    return Mass(number, origin, inner, outline(inner, origin), measure(inner, spacing), 0.9, 0.8, suspicion)


@cache
def phantom_headers() -> dict[View, Dataset]:
    """Return the headers of a small phantom exam; copy before changing one."""
    exam = phantom_exam(3, masses=A_MASS_IN_EACH, small=True)
    headers = {view: exam.image(view) for view in STANDARD_VIEWS}
    for header in headers.values():
        del header.PixelData
    return headers


def stored_masks(segmentation: Dataset) -> NDArray[np.bool_]:
    """Return the masks of a Segmentation of ours: (segments, rows, columns), in the order of the segments."""
    frames = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    if segmentation.SegmentationType == SegmentationType.LABELMAP:
        numbers = [segment.SegmentNumber for segment in segmentation.SegmentSequence if segment.SegmentNumber]
        return np.stack([frames[0] == number for number in numbers])
    return np.asarray(frames, np.bool_)


@cache
def phantom_masks() -> dict[View, tuple[NDArray[np.bool_], ...]]:
    """Return the true masks of the same exam."""
    exam = phantom_exam(3, masses=A_MASS_IN_EACH, small=True)
    return {view: tuple(mass.mask for mass in exam.masses(view)) for view in STANDARD_VIEWS}


def findings(views: Iterable[View], *, masses: bool = True, millimetres: bool = True) -> ExamFindings:
    """Return the truth of the phantom, as a reader of these views would tell it."""
    images = []
    for view in views:
        header = phantom_headers()[view]
        found = phantom_masks()[view] if masses else ()
        told = tuple(
            a_mass(mask, n, suspicion=90 - 7 * n, millimetres=millimetres) for n, mask in enumerate(found, start=1)
        )
        shape = (header.Rows, header.Columns)
        images.append(
            ImageFindings(str(header.SOPInstanceUID), view, shape, told, 60, 0.6, probability=a_map(shape, found))
        )
    breasts = tuple(
        BreastScore(side, 60) for side in Laterality if any(image.view.laterality is side for image in images)
    )
    return ExamFindings(MODEL, tuple(images), breasts, 61)


def a_map(shape: tuple[int, int], masks: Iterable[NDArray[np.bool_]]) -> NDArray[np.float32]:
    """Return a map with 0.9 in these masks of the whole image, on a grid of a quarter of its rows and columns."""
    full = np.zeros(shape, np.float32)
    for mask in masks:
        full[mask] = 0.9
    return cv2.resize(full, (shape[1] // 4, shape[0] // 4), interpolation=cv2.INTER_AREA).astype(np.float32)


def unchanged(header: Dataset) -> None:
    """Leave a header as it is."""


def an_answer(
    *,
    read: Iterable[View] = STANDARD_VIEWS,
    complete: bool = True,
    masses: bool = True,
    millimetres: bool = True,
    not_read: dict[View, str] | None = None,
    change: Callable[[Dataset], None] = unchanged,
) -> Answer:
    """Return the answer of an exam that was read.

    Parameters
    ----------
    read, not_read
        Views that were read, and those that were not with the reason; all others have no image.
    complete
        Whether all expected views were read.
    masses, millimetres
        Whether there are masses, and whether their sizes are in millimetres.
    change
        Changes each header.
    """
    views, refused = tuple(read), not_read or {}
    found = findings(views, masses=masses, millimetres=millimetres)
    images = []
    for view in (*views, *refused):
        header = deepcopy(phantom_headers()[view])
        change(header)
        images.append(ImageAnswer(header, view, refused.get(view)))
    missing = () if complete else tuple(view for view in STANDARD_VIEWS if view not in views and view not in refused)
    status = answer_status(found, complete=complete)
    return Answer("e1", 1, status, CREATED_AT, tuple(images), MODEL, found, missing)


def an_unread_answer(status: AnswerStatus, *headers: Dataset, reason: str) -> Answer:
    """Return the answer of an exam that was not analysed or whose reading failed."""
    images = tuple(ImageAnswer(header, None, reason) for header in headers or phantom_headers().values())
    return Answer("e1", 1, status, CREATED_AT, images, MODEL, reasons=(reason,))


STANDS_IN = (
    f"R CC: image 2.25.{'1' * 59} was read in place of 2.25.{'2' * 59}, which could not be read: "
    "It could not be read in any attempt (FileNotFoundError in pathlib.py:1044: No such file or directory)."
)
"""What an answer says of an image that was read in another's place: UIDs of 64 characters, and why."""


FORMS: dict[str, Callable[[], Answer]] = {
    "findings": an_answer,
    "sizes in pixels": lambda: an_answer(millimetres=False, change=without_spacing),
    "no findings": lambda: an_answer(masses=False),
    "partial with findings": lambda: an_answer(read=RIGHT, complete=False, not_read={LEFT_CC: "spot compression"}),
    "partial without findings": lambda: an_answer(read=RIGHT, complete=False, masses=False),
    "unilateral": lambda: an_answer(read=RIGHT),
    "not analysed": lambda: an_unread_answer(AnswerStatus.NOT_ANALYSED, reason="lossy compression"),
    "failed": lambda: an_unread_answer(AnswerStatus.FAILED, reason="the reader ran out of memory"),
}
"""Every form that an answer takes (rule R3)."""


def without_spacing(header: Dataset) -> None:
    """Take every spacing from a header."""
    for keyword in ("ImagerPixelSpacing", "PixelSpacing", "EstimatedRadiographicMagnificationFactor"):
        header.pop(keyword, None)


@cache
def phantom_pictures() -> dict[str, NDArray[np.uint8]]:
    """Return the images of the same exam as people look at them, by SOP Instance UID."""
    exam = phantom_exam(3, masses=A_MASS_IN_EACH, small=True)
    shown = {}
    for view in STANDARD_VIEWS:
        instance = exam.image(view)
        pixels = view_image(instance, view).pixels
        shown[str(instance.SOPInstanceUID)] = (255 * pixels).round().astype(np.uint8)
    return shown


def an_edition(answer: Answer, mix: ObjectMix = DEFAULT_MIX, **names: str) -> Edition:
    """Return the edition of an answer for the test installation."""
    given = {"installation": INSTALLATION, "settings_digest": "settings"} | names
    return Edition.of(answer, mix, **given, pictures=phantom_pictures())


def encoded(answer: Answer, mix: ObjectMix = DEFAULT_MIX) -> tuple[ResultObject, ...]:
    """Encode an answer for the test installation."""
    return encode(an_edition(answer, mix))


def report_of(answer: Answer) -> Dataset:
    """Return the report of an answer."""
    return next(made.dataset for made in encoded(answer) if made.kind is ResultKind.SR)


def segmentations_of(answer: Answer) -> list[ResultObject]:
    """Return the Segmentations of an answer."""
    return [made for made in encoded(answer) if made.kind is ResultKind.SEG]
