"""The answer of an exam as a TID 1500 Measurement Report in a Comprehensive (3D) SR (PS3.3 A.35.3, A.35.13)."""

from copy import deepcopy
from typing import Final

import highdicom as hd
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sr.codedict import codes as standard
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    MammographyCADSRStorage,
    SegmentationStorage,
)

from ai.exam import View, ViewPosition
from ai.findings import Match
from config.mix import ReportClass, ResultKind, SegmentationType
from node.identity import MANUFACTURER, RESEARCH_USE_ONLY
from node.results import codes
from node.results.answer import Answer, AnswerStatus, Predecessor
from node.results.appraisal import appraisal
from node.results.edition import Edition
from node.results.equipment import equipment, finish, observer
from node.results.groups import measurement_groups
from node.results.reasons import SCHEME, Reason
from node.results.source import orientation, plain, source_header
from node.results.uids import ObjectUIDs

MAMMOGRAMS: Final = (DigitalMammographyXRayImageStorageForPresentation, DigitalMammographyXRayImageStorageForProcessing)

CLASSES: Final = {
    ReportClass.COMPREHENSIVE_3D: hd.sr.Comprehensive3DSR,
    ReportClass.COMPREHENSIVE: hd.sr.ComprehensiveSR,
}

SOP_CLASSES: Final = {
    ReportClass.COMPREHENSIVE_3D: Comprehensive3DSRStorage,
    ReportClass.COMPREHENSIVE: ComprehensiveSRStorage,
}


def report(edition: Edition, form: ReportClass) -> Dataset:
    """Return the answer as a structured report.

    Parameters
    ----------
    edition
        The answer and the names of its objects.
    form
        SOP class of the report.
    """
    answer, uids = edition.answer, edition.uids
    headers = [source_header(image.header) for image in answer.images]
    former = [each for each in answer.predecessors if each.sop_class_uid != MammographyCADSRStorage]
    target: Dataset = CLASSES[form](
        evidence=headers,
        content=_content(answer, headers, uids)[0],
        series_instance_uid=uids.report_series("SR"),
        series_number=edition.series_number(ResultKind.SR),
        sop_instance_uid=uids.instance(f"SR {form}"),
        instance_number=answer.revision,
        series_description=edition.series_description(ResultKind.SR),
        is_complete=answer.status.complete,
        is_final=True,
        previous_versions=[_reference(each) for each in former] or None,
        specific_character_set=None,
        coding_schemes=[
            CodingSchemeIdentificationItem(
                designator=SCHEME, name="Mammonode private codes", responsible_organization=MANUFACTURER
            )
        ],
        **equipment(answer, uids),
    )
    target.CompletionFlagDescription = completion(answer)
    if evidence := _evidence(edition):
        target.PertinentOtherEvidenceSequence = [evidence]
    finish(target, answer, uids, answer.images[0].header)
    return target


def recast(made: Dataset, edition: Edition, form: ReportClass) -> Dataset:
    """Return a report as an instance of another SOP class, which says the same in the same words.

    Parameters
    ----------
    made
        What `report` returned for the same edition in any form.
    """
    target = Dataset()
    target.update(made)
    target.file_meta = deepcopy(made.file_meta)
    del target.SOPClassUID, target.SOPInstanceUID  # the elements are shared, and stay as they are there
    target.SOPClassUID = target.file_meta.MediaStorageSOPClassUID = SOP_CLASSES[form]
    target.SOPInstanceUID = target.file_meta.MediaStorageSOPInstanceUID = UID(edition.uids.instance(f"SR {form}"))
    return target


def completion(answer: Answer) -> str:
    """Return the Completion Flag Description (LO, 64 characters)."""
    if answer.status.complete:
        return "All expected views were read"
    if answer.status is AnswerStatus.NOT_ANALYSED:
        return "Not analysed, for the reasons in the comments"
    if answer.status is AnswerStatus.FAILED:
        return "The reading failed, for the reasons in the comments"
    return "Not all expected views were read, see the comments"


def comments(answer: Answer) -> list[str]:
    """Return the sentences of the report, in ASCII: the status, what was not read and why, what was found and how to take it."""
    lines = [RESEARCH_USE_ONLY, f"Answer: {answer.status}."]
    lines += answer.reasons
    lines += answer.changes
    if answer.missing:
        lines.append(f"Views not read: {', '.join(map(str, answer.missing))}.")
    lines += [
        f"NOT READ: {image.view or 'image'} {image.uid}: {image.not_read}"
        for image in answer.images
        if image.not_read is not None
    ]
    if answer.findings:
        lines += [matched(match) for match in answer.findings.matches]
        lines.append("Scores are suspicion scores from 0 to 100, not probabilities.")
        lines += appraisal(answer)
        lines += [f"{image.view}: {warning}" for image in answer.findings.images for warning in image.warnings]
    lines += answer.model.notes
    return [plain(line) for line in lines]


def matched(match: Match) -> str:
    """Return the sentence on two masses that may be one lesion.

    A sentence: a group that named both regions would be one without SCOORD of its own, and those crash viewers.
    """
    cc, mlo = (View(match.laterality, position) for position in (ViewPosition.CC, ViewPosition.MLO))
    return f"Mass {match.cc} in {cc} and mass {match.mlo} in {mlo} may be one lesion."


def _content(answer: Answer, headers: list[Dataset], uids: ObjectUIDs) -> hd.sr.MeasurementReport:
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer(answer, uids)),
        procedure_reported=codes.MAMMOGRAPHY,
        imaging_measurements=measurement_groups(answer, uids),
        title=standard.DCM.ImagingMeasurementReport,
        referenced_images=[_library_header(header) for header in headers if header.SOPClassUID in MAMMOGRAMS],
    )
    content[0].ContentSequence.append(_evaluations(answer))
    return content


def _evaluations(answer: Answer) -> hd.sr.ContainerContentItem:
    """Return the exam's summary and the comments: rows 12 to 14 of TID 1500, outside any measurement group."""
    contains = hd.sr.RelationshipTypeValues.CONTAINS
    container = hd.sr.ContainerContentItem(codes.QUALITATIVE_EVALUATIONS, relationship_type=contains)
    summary = hd.sr.CodeContentItem(codes.SUMMARY, codes.SUMMARY_OF[answer.status], relationship_type=contains)
    texts = [hd.sr.TextContentItem(codes.COMMENT, text, relationship_type=contains) for text in comments(answer)]
    reasons = [
        hd.sr.CodeContentItem(codes.REASON, why.coded, relationship_type=contains)
        for why in Reason.named_in(answer.reasons)
    ]
    container.ContentSequence = hd.sr.ContentSequence([summary, *reasons, *texts])
    return container


def _library_header(header: Dataset) -> Dataset:
    """Return the header for the image library; one that lacks what TID 1603 wants is described without TID 1603."""
    spacing = header.get("ImagerPixelSpacing")
    pairs = orientation(header) and isinstance(spacing, MultiValue) and len(spacing) == 2
    if pairs and header.get("Rows") and header.get("Columns"):
        described = header
    else:
        described = Dataset()
        described.Modality = ""
        described.SOPClassUID, described.SOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
        described.Rows, described.Columns = header.get("Rows") or 1, header.get("Columns") or 1
    return described


def _reference(predecessor: Predecessor) -> Dataset:
    reference = Dataset()
    reference.StudyInstanceUID, reference.SeriesInstanceUID = predecessor.study_uid, predecessor.series_uid
    reference.SOPClassUID, reference.SOPInstanceUID = predecessor.sop_class_uid, predecessor.instance_uid
    return reference


def _evidence(edition: Edition) -> Dataset | None:
    """Return the Segmentations as one item of Pertinent Other Evidence (PS3.3 C.17.2), each in its own series.

    One that may be replaced by another form on its way is not listed: the report would name what is not there.
    """
    mix, uids = edition.mix, edition.uids
    images = [image for image in edition.answer.images if (found := edition.answer.findings_of(image)) and found.masses]
    if not images or ResultKind.SEG not in mix.objects or mix.segmentation is not SegmentationType.BINARY:
        return None
    study = Dataset()
    study.StudyInstanceUID = uids.study
    study.ReferencedSeriesSequence = []
    for image in images:
        instance, series = Dataset(), Dataset()
        instance.ReferencedSOPClassUID = SegmentationStorage
        instance.ReferencedSOPInstanceUID = uids.instance(f"SEG {mix.segmentation}", image.uid)
        series.SeriesInstanceUID = uids.series(f"SEG {mix.segmentation}", image.uid)
        series.ReferencedSOPSequence = [instance]
        study.ReferencedSeriesSequence.append(series)
    return study
