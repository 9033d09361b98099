"""Pictures as Secondary Captures (PS3.3 A.8.1): all views of an exam on one page, or one view; outlines burned in."""

from collections.abc import Sequence
from typing import Final

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian

from ai.findings import ImageFindings
from config.mix import ResultKind
from node.identity import RESEARCH_USE_ONLY
from node.results.answer import ImageAnswer
from node.results.drawing import Panel, Picture, draw_page, draw_single
from node.results.edition import Edition
from node.results.equipment import equipment, finish
from node.results.pages import PRIMARY, origin, page, warning
from node.results.source import orientation, source_header

SOURCE: Final = Code("121322", "DCM", "Source image for image processing operation")
"""PS3.16 CID 7202."""

SMALLEST: Final = 480
"""Rows and columns that a picture of a view has at least, so that its words can be read."""


def overview(edition: Edition) -> Dataset:
    """Return the page of an exam; it has words where there is no picture, so that every answer has one.

    It shows both breasts: neither Laterality nor Patient Orientation says otherwise.
    """
    images = edition.answer.images
    target = _capture(edition, ResultKind.SC, draw_page(page(edition)), images[0], images)
    target.SeriesDescription = edition.series_description(ResultKind.SC)
    # Type 2C both (PS3.3 C.7.3.1, C.7.6.1): there, and empty.
    target.Laterality = target.PatientOrientation = None
    return target


def view_capture(edition: Edition, image: ImageAnswer, findings: ImageFindings, panel: Panel) -> Dataset:
    """Return a view that was read, at half its resolution, oriented as its source.

    Parameters
    ----------
    panel
        The view's picture with what was found in it.
    """
    rows, columns = (max(side // 2, SMALLEST) for side in findings.shape)
    lines = [warning(edition.answer), *origin(edition.answer)]
    target = _capture(edition, ResultKind.SC_VIEW, draw_single(panel, lines, (rows, columns)), image, [image])
    target.SeriesDescription = edition.series_description(ResultKind.SC_VIEW, findings.view)
    target.Laterality = findings.view.laterality.value
    target.PatientOrientation = list(orientation(image.header) or ()) or None
    return target


def _capture(
    edition: Edition, kind: ResultKind, picture: Picture, image: ImageAnswer, sources: Sequence[ImageAnswer]
) -> Dataset:
    """Return a picture as a Secondary Capture without spacing: it is not for measuring."""
    answer, uids = edition.answer, edition.uids
    single = image if kind is ResultKind.SC_VIEW else None
    name = single.uid if single else ""
    target: Dataset = hd.sc.SCImage.from_ref_dataset(
        ref_dataset=source_header(image.header),
        pixel_array=picture,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),  # asked for by highdicom; written by the callers
        series_instance_uid=uids.series(kind.value, name),
        series_number=edition.series_number(kind, single),
        sop_instance_uid=uids.instance(kind.value, name),
        instance_number=1,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        specific_character_set=None,
        **equipment(answer, uids),
    )
    del target.DateOfSecondaryCapture, target.TimeOfSecondaryCapture
    target.ConversionType = "WSD"
    # The page has no patient on it: the attribute tells of what identifies (PS3.3 C.7.6.1). A source may have.
    burned = any(each.header.get("BurnedInAnnotation") == "YES" for each in sources if each.not_read is None)
    target.BurnedInAnnotation = "YES" if burned else "NO"
    target.DerivationDescription = f"Outlines and scores by an algorithm. {PRIMARY} {RESEARCH_USE_ONLY}"
    target.ImageComments = warning(answer)
    target.SourceImageSequence = [source_reference(each) for each in sources]
    finish(target, answer, uids, image.header)
    return target


def source_reference(image: ImageAnswer) -> Dataset:
    """Return an item of Source Image or Source Instance Sequence (PS3.3 C.7.6.1, C.24.2)."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.header.SOPClassUID, image.header.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = [hd.sr.CodedConcept.from_code(SOURCE)]
    return item
