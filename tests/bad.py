"""Builders: answers that stand on odd findings and on odd headers, which get valid objects all the same; what these say."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from ai.exam import STANDARD_VIEWS, Laterality
from ai.findings import BreastScore, ExamFindings, ImageFindings, Match
from config.mix import ObjectMix, ReportClass, ResultKind, SegmentationType
from node.results.answer import Answer, AnswerStatus, Predecessor
from node.results.edition import Edition
from node.results.encode import ENCODERS, ResultObject, encode
from tests.answers import (
    CREATED_AT,
    INSTALLATION,
    MODEL,
    RIGHT,
    a_mass,
    an_answer,
    an_unread_answer,
    phantom_headers,
    stored_masks,
    unchanged,
    without_spacing,
)

Mask = NDArray[np.bool_]
ALL: ObjectMix = ObjectMix(tuple(kind for kind in ResultKind if kind in ENCODERS))
MIXES: dict[str, ObjectMix] = {
    "usual forms": ALL,
    "label map, older report": replace(ALL, segmentation=SegmentationType.LABELMAP, report=ReportClass.COMPREHENSIVE),
    "fractional": replace(ALL, objects=(ResultKind.SEG,), segmentation=SegmentationType.FRACTIONAL),
}
"""All kinds of objects, in all their forms."""
FORMER = Predecessor("2.25.1", "2.25.2", "1.2.840.10008.5.1.4.1.1.66.4", "2.25.3")


def read_answer(
    masks: Sequence[Mask], *, change: Callable[[Dataset], None] = unchanged, millimetres: bool = True
) -> Answer:
    """Return the answer of an exam of R CC and R MLO, both with these masks, most suspicious first; it has all to say.

    The images have the size of the masks and a map on a coarse grid.
    """
    rows, columns = masks[0].shape
    told = tuple(
        a_mass(mask, n, suspicion=max(95 - 2 * n, 1), millimetres=millimetres) for n, mask in enumerate(masks, start=1)
    )
    # In the order of the exam, CC first.
    base = an_answer(read=RIGHT, change=change)
    found = []
    for image in base.images:
        image.header.Rows, image.header.Columns = rows, columns
        grid = np.zeros((max(rows // 4, 1), max(columns // 4, 1)), np.float32)
        assert image.view
        found.append(ImageFindings(image.uid, image.view, (rows, columns), told, 90, 0.9, ("a warning",), grid))
    matches = (Match(Laterality.RIGHT, 1, len(told)),)
    findings = ExamFindings(MODEL, tuple(found), (BreastScore(Laterality.RIGHT, 90),), 90, matches)
    return Answer(
        "e1",
        2,
        AnswerStatus.FINDINGS,
        CREATED_AT,
        base.images,
        MODEL,
        findings,
        superseded=(FORMER,),
        changes=("New.",),
    )


def edition(answer: Answer, mix: ObjectMix = ALL, *, pictures: bool = True) -> Edition:
    """Return the edition of an answer; its pictures have the sizes that the headers state."""
    shown = {
        image.uid: np.full((int(image.header.get("Rows") or 1), int(image.header.get("Columns") or 1)), 90, np.uint8)
        for image in answer.images
        if pictures
    }
    return Edition.of(answer, mix, installation=INSTALLATION, settings_digest="settings", pictures=shown)


def drawn(shape: tuple[int, int], *windows: tuple[slice, slice]) -> list[Mask]:
    """Return a mask for each window of an image."""
    masks = [np.zeros(shape, np.bool_) for _ in windows]
    for mask, window in zip(masks, windows, strict=True):
        mask[window] = True
    return masks


def a_ring(shape: tuple[int, int]) -> Mask:
    """Return a mask with two holes, one within an island."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    far = np.hypot(y - shape[0] / 2, x - shape[1] / 2)
    return np.asarray((far < 4) & (far > 2) | (far > 8) & (far < 14))


def islands(shape: tuple[int, int]) -> Mask:
    """Return a mask of single pixels that touch at most by their corners, the image's four corners among them."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    mask = np.asarray((y % 3 == 0) & (x % 4 == 0))
    mask[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    return mask


def forty(shape: tuple[int, int]) -> list[Mask]:
    """Return forty masses, which overlap in part."""
    rng = np.random.default_rng(1)
    corners = [(int(rng.integers(shape[0] - 9)), int(rng.integers(shape[1] - 9))) for _ in range(40)]
    return drawn(shape, *(np.s_[row : row + 9, column : column + 9] for row, column in corners))


SHAPE = (80, 60)
WHOLE = np.s_[:, :]
MIDDLE = drawn(SHAPE, np.s_[30:50, 20:40], np.s_[40:60, 30:50])

FINDINGS: dict[str, Callable[[], Answer]] = {
    "the whole image": lambda: read_answer(drawn(SHAPE, WHOLE)),
    "along every border": lambda: read_answer(
        drawn(SHAPE, np.s_[0:1, :], np.s_[-1:, :], np.s_[:, 0:1], np.s_[:, -1:], np.s_[-9:, -9:])
    ),
    "one pixel in each corner": lambda: read_answer(
        drawn(SHAPE, *(np.s_[row : row + 1, column : column + 1] for row in (0, 79) for column in (0, 59)))
    ),
    "holes": lambda: read_answer([a_ring(SHAPE)]),
    "many parts": lambda: read_answer([islands(SHAPE)]),
    "one over the other": lambda: read_answer([*MIDDLE, *MIDDLE]),
    "forty": lambda: read_answer(forty((512, 416))),
    **{
        f"image of {rows}x{columns}": partial(lambda shape: read_answer(drawn(shape, WHOLE)), (rows, columns))
        for rows, columns in ((1, 1), (1, 2), (2, 1), (2, 3), (1, 700), (700, 1))
    },
}
"""Findings that no reader should make and every object has to bear."""


def dropping(*keywords: str) -> Callable[[Dataset], None]:
    """Return a change that takes attributes away, with the functional groups that say the same."""

    def drop(header: Dataset) -> None:
        for keyword in keywords:
            header.pop(keyword, None)

    return drop


def setting(**values: object) -> Callable[[Dataset], None]:
    """Return a change that sets attributes."""

    def change(header: Dataset) -> None:
        for keyword, value in values.items():
            vr = dictionary_VR(keyword)
            header[keyword] = DataElement(keyword, vr, value, validation_mode=IGNORE)

    return change


LOSSY = setting(
    LossyImageCompression="01", LossyImageCompressionRatio=["12.5", "3"], LossyImageCompressionMethod="ISO_10918_1"
)
DATES = ("StudyDate", "StudyTime", "SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime", "ContentDate")
PROCESSING = setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.1.2.1", PresentationIntentType="FOR PROCESSING")

HEADERS: dict[str, Callable[[Dataset], None]] = {
    "no spacing": without_spacing,
    "spacing of two kinds": setting(PixelSpacing=["0.1", "0.2"]),
    "For Processing": PROCESSING,
    "lossy": LOSSY,
    "no laterality": dropping("ImageLaterality", "Laterality", "FrameLaterality"),
    "laterality that is none": setting(ImageLaterality="X"),
    "no view": dropping("ViewPosition", "ViewCodeSequence"),
    "no orientation": dropping("PatientOrientation"),
    "orientation that is none": setting(PatientOrientation=["SIDEWAYS"]),
    "orientation in words": setting(PatientOrientation=["POSTERIOR", "left"]),
    "no dates": dropping(*DATES, "ContentTime", "PatientBirthDate", "TimezoneOffsetFromUTC"),
    "dates that are none": setting(StudyDate="yesterday", StudyTime="noon", ContentDate="99999999"),
    "nobody's": dropping("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"),
    "no window": dropping("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    "MONOCHROME1": setting(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE"),
    "long texts": setting(Manufacturer="m" * 200, InstitutionName="i" * 200, StationName="s" * 40),
    "a Frame of Reference": setting(FrameOfReferenceUID="2.25.9", PositionReferenceIndicator=""),
    "nothing but the UIDs and the size": lambda header: dropping(
        *(
            {element.keyword for element in header}
            - {"StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID", "Rows", "Columns"}
        )
    )(header),
}
"""Changes of a header that senders make."""

UNREAD: dict[str, Callable[[], Answer]] = {
    **{
        f"not analysed, {name}": partial(
            lambda change, name: an_unread_answer(
                AnswerStatus.NOT_ANALYSED, *changed_headers(change), reason=f"{name}, which this node does not read"
            ),
            change,
            name,
        )
        for name, change in HEADERS.items()
    },
    "failed, nothing but the UIDs": lambda: an_unread_answer(
        AnswerStatus.FAILED,
        *changed_headers(lambda header: dropping(*(e.keyword for e in header if "UID" not in e.keyword))(header)),
        reason="the reading failed",
    ),
}
"""Clear answers to what was not read."""


def changed_headers(change: Callable[[Dataset], None]) -> list[Dataset]:
    """Return the four headers of the phantom, changed."""
    headers = []
    for view in STANDARD_VIEWS:
        header = Dataset()
        header.update(phantom_headers()[view])
        change(header)
        headers.append(header)
    return headers


BAD: dict[str, Callable[[], Answer]] = {
    **{f"findings: {name}": build for name, build in FINDINGS.items()},
    **{
        f"header: {name}": partial(lambda change: read_answer(MIDDLE, change=change), change)
        for name, change in HEADERS.items()
    },
    **UNREAD,
}
"""Everything above."""


PER_IMAGE = {ResultKind.SEG, ResultKind.GSPS, ResultKind.SC_VIEW, ResultKind.PMAP}


def all_objects(made_for: Edition) -> Iterator[ResultObject]:
    """Yield each object, those sent in another's place too."""
    for made in encode(made_for):
        yield made
        if made.fallback:
            yield made.fallback


def assert_all_said(given_edition: Edition, objects: Iterable[tuple[ResultObject, Dataset]]) -> None:
    """Every kind that has something to say is there, once for each image where it belongs to one, with its masks.

    Parameters
    ----------
    objects
        What was made, each with what was read from its file.
    """
    answer = given_edition.answer
    kinds, uids = [], set()
    for made, stored in objects:
        assert stored.SOPInstanceUID == made.instance_uid
        kinds.append(made.kind)
        uids.add(made.instance_uid)
        found = answer.findings and next((f for f in answer.findings.images if f.uid == made.image_uid), None)
        if made.kind is ResultKind.SEG:
            assert found
            masks = np.stack([mass.full_mask(found.shape) for mass in found.masses])
            if stored.SegmentationType == SegmentationType.LABELMAP:
                masks &= np.cumsum(masks, axis=0) == 1
            np.testing.assert_array_equal(stored_masks(stored), masks)
        if made.kind in PER_IMAGE:
            assert found
            assert str(found.uid) in str(stored)
    assert len(uids) == len(kinds)
    unread = answer.findings is None
    expected = set(given_edition.mix.objects) - ((PER_IMAGE | {ResultKind.REJECTION}) if unread else set())
    assert set(kinds) - {ResultKind.SC_VIEW} == expected - {ResultKind.SC_VIEW}
