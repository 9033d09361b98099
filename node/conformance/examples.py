"""Objects of every kind and form, made by the node's own encoders from a phantom's exact truth.

The annexes of the statement are read from them: what an encoder writes cannot differ from what the statement says.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage, MammographyCADSRStorage, SegmentationStorage

from ai.checks import Check
from ai.exam import STANDARD_VIEWS, Laterality, Spacing, SpacingRule, View, ViewPosition
from ai.findings import BreastScore, ExamFindings, ImageFindings, Mass, Match, ModelIdentity
from ai.phantom.lesions import Lesion
from ai.readers.lesions import measure, outline
from config.mix import FindingCodes, ObjectMix, ReportClass, ResultKind, SegmentationType
from node.phantom import PhantomExam, phantom_exam
from node.results.answer import Answer, AnswerStatus, ImageAnswer, Predecessor, answer_status
from node.results.cad_codes import MODIFIER_CODES
from node.results.edition import Edition
from node.results.encode import ENCODERS, ResultObject, encode, to_bytes
from node.results.forms import FORMS, Form

INSTALLATION: Final = "INSTALLATION"
MODEL: Final = ModelIdentity("MODEL", "VERSION", "DIGEST", ("NOTE OF THE MODEL.",))
"""Stand in for what differs from site to site."""

CREATED_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
SEED: Final = 3

SCORES: Final = (90, 85, 80)
"""Of the masses of a view, which overlap."""

STEP: Final = 8
"""Columns from one mass of a view to the next."""

MIXES: Final = (
    ObjectMix(tuple(ENCODERS), segmentation=SegmentationType.LABELMAP, threshold=SCORES[1]),
    ObjectMix((ResultKind.CAD_SR,), finding_codes=FindingCodes.SRT),
)
"""With the fallbacks and those below, all forms; the first one hides a mass."""

MIXES_ONCE: Final = (ObjectMix((ResultKind.SEG,), segmentation=SegmentationType.FRACTIONAL), ObjectMix())
"""What the richest answer alone shows; in the last one the report names the Segmentations."""

PIXELS: Final = (
    *("SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
)
KEPT: Final = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns", *PIXELS)
"""What is left of the barest header of an image that can be decoded."""


@dataclass(frozen=True, eq=False)
class Example:
    """An object, its form, and the header of the source image that it inherits from."""

    form: Form
    dataset: Dataset
    source: Dataset


def examples() -> Iterator[Example]:
    """Yield objects of all forms for answers of all kinds, the richest first."""
    exam = phantom_exam(SEED, masses=[Lesion(side, 0.6, -0.3, 0.0) for side in Laterality], small=True)
    pictures = {str(exam.image(view).SOPInstanceUID): _picture(exam.image(view)) for view in STANDARD_VIEWS}
    for number, answer in enumerate(_answers(exam)):
        headers = {image.uid: image.header for image in answer.images}
        for mix in (*MIXES, *MIXES_ONCE) if number == 0 else MIXES:
            edition = Edition.of(answer, mix, installation=INSTALLATION, settings_digest="", pictures=pictures)
            for made in encode(edition):
                for each in filter(None, (made, made.fallback)):
                    source = headers[each.image_uid or answer.images[0].uid]
                    yield Example(form_of(each), _as_sent(each.dataset), source)


def form_of(made: ResultObject) -> Form:
    """Return the form of an object; there must be one in ``node.results.forms``."""
    choices = (None, made.dataset.get("SegmentationType"))
    return next(
        form
        for form in FORMS
        if form.kind is made.kind
        and form.sop_class == made.sop_class_uid
        and (form.choice in choices or isinstance(form.choice, ReportClass))
    )


def _as_sent(dataset: Dataset) -> Dataset:
    """Return the data set as a receiver reads it."""
    return dcmread(BytesIO(to_bytes(dataset)))


def _picture(image: Dataset) -> NDArray[np.uint8]:
    return (image.pixel_array >> 4).astype(np.uint8)


def _answers(exam: PhantomExam) -> Iterator[Answer]:
    right = [view for view in STANDARD_VIEWS if view.laterality is Laterality.RIGHT]
    left = [view for view in STANDARD_VIEWS if view.laterality is Laterality.LEFT]
    spacings = dict(zip(STANDARD_VIEWS, (*(Spacing(0.45, 0.45, rule) for rule in SpacingRule), None), strict=True))
    rich = _read(exam, STANDARD_VIEWS, spacings)
    yield _superseding(rich)
    yield _superseding(_read(exam, STANDARD_VIEWS, dict.fromkeys(STANDARD_VIEWS), bare=True))
    yield _read(exam, STANDARD_VIEWS, None)
    for masses in (spacings, None):
        partial = _read(exam, right, masses, complete=False)
        [first, second] = (ImageAnswer(_header(exam, view), view, "view modifier: Magnification") for view in left)
        yield replace(partial, images=(*partial.images, first, second), missing=tuple(left))
    for status, reason in ((AnswerStatus.NOT_ANALYSED, "lossy compression"), (AnswerStatus.FAILED, "reading failed")):
        for bare in (False, True):
            unread = tuple(ImageAnswer(_header(exam, view, bare=bare), None, reason) for view in right)
            yield Answer("e1", 1, status, CREATED_AT, unread, MODEL, reasons=(reason,))


def _header(exam: PhantomExam, view: View, *, bare: bool = False) -> Dataset:
    image = exam.image(view)
    header = Dataset()
    for element in image:
        if element.keyword in KEPT if bare else element.keyword != "PixelData":
            header.add(deepcopy(element))
    if not bare:
        # What the phantom's images lack, and what the node would not write itself.
        header.TimezoneOffsetFromUTC, header.ReferringPhysicianName = "+0000", "REFERRER^PHYSICIAN"
        header.InstanceNumber, header.BurnedInAnnotation = 17, "YES"
        header.PhotometricInterpretation = "MONOCHROME1" if view.position is ViewPosition.CC else "MONOCHROME2"
        if view.laterality is Laterality.LEFT:
            header.ModalityLUTSequence, header.VOILUTSequence = [_lut()], [_lut()]
        elif view.position is ViewPosition.CC:
            header.VOILUTFunction = "SIGMOID"
        [shown] = header.ViewCodeSequence
        shown.ViewModifierCodeSequence = [_modifier()]
    return header


def _lut() -> Dataset:
    """Return an item of a LUT sequence, which stands where others have a window or a slope (PS3.3 C.11.1, C.11.2)."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [2, 0, 16])
    item.add_new("LUTData", "OW", bytes(4))
    return item


def _modifier() -> Dataset:
    """Return a view modifier that a header may have."""
    meaning, value, _ = MODIFIER_CODES[0]
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item


def _read(
    exam: PhantomExam,
    views: list[View] | tuple[View, ...],
    spacings: Mapping[View, Spacing | None] | None,
    *,
    complete: bool = True,
    bare: bool = False,
) -> Answer:
    """Return the answer of an exam that was read; without spacings there are no masses, in a bare one is one."""
    images, read = [], []
    for view in views:
        header = _header(exam, view, bare=bare)
        masses = (
            () if spacings is None else tuple(_masses(exam.masses(view)[0].mask, spacings[view]))[: 1 if bare else None]
        )
        shape = (int(header.Rows), int(header.Columns))
        probability = np.zeros((shape[0] // 4, shape[1] // 4), np.float32)
        images.append(ImageAnswer(header, view))
        warnings = ("WARNING", *((Check.UNLIKE.words,) if view.position is ViewPosition.CC else ()))
        read.append(ImageFindings(str(header.SOPInstanceUID), view, shape, masses, 90, None, warnings, probability))
    sides = tuple(side for side in Laterality if any(view.laterality is side for view in views))
    matches = tuple(Match(side, 1, 1) for side in sides if spacings is not None)
    found = ExamFindings(MODEL, tuple(read), tuple(BreastScore(side, 90) for side in sides), 90, matches)
    status = answer_status(found, complete=complete)
    return Answer("e1", 1, status, CREATED_AT, tuple(images), MODEL, found)


def _masses(first: NDArray[np.bool_], spacing: Spacing | None) -> Iterator[Mass]:
    for number, score in enumerate(SCORES, start=1):
        mask = np.roll(first, STEP * (number - 1), axis=1)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        inner = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        origin = int(rows[0]), int(columns[0])
        yield Mass(number, origin, inner, outline(inner, origin), measure(inner, spacing), 0.9, None, score)


def _superseding(answer: Answer) -> Answer:
    """Return the answer as one that supersedes another."""
    study = str(answer.images[0].header.StudyInstanceUID)

    def former(sop_class: str, number: int) -> Predecessor:
        return Predecessor(study, f"2.25.{number}", sop_class, f"2.25.{number + 1}")

    return replace(
        answer,
        revision=2,
        predecessors=(former(ComprehensiveSRStorage, 1), former(MammographyCADSRStorage, 3)),
        superseded=(former(SegmentationStorage, 5),),
        changes=("Supersedes the answer to revision 1: the same findings.",),
    )
