"""The answer of an exam as a Comprehensive 3D SR with a TID 1500 Measurement Report (PS3.3 A.35.13, PS3.16 TID 1500)."""

from collections.abc import Sequence
from typing import Final

import highdicom as hd
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as standard
from pydicom.uid import (
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
)

from node.identity import MANUFACTURER, MODEL_NAME, RESEARCH_USE_ONLY
from node.results import codes
from node.results.answer import Answer, AnswerStatus, Predecessor
from node.results.equipment import equipment, finish
from node.results.groups import measurement_groups
from node.results.source import plain, source_header
from node.results.uids import ObjectUIDs

SERIES_NUMBER: Final = 9000
"""Series Number of the reports; far from those that modalities use."""

MAMMOGRAMS: Final = (DigitalMammographyXRayImageStorageForPresentation, DigitalMammographyXRayImageStorageForProcessing)


def report(answer: Answer, segmentations: Sequence[Dataset], uids: ObjectUIDs) -> Dataset:
    """Return the answer as a structured report.

    Parameters
    ----------
    answer, uids
        The answer and the names of its objects.
    segmentations
        The Segmentations of this answer; listed as evidence.
    """
    headers = [source_header(image.header) for image in answer.images]
    target = hd.sr.Comprehensive3DSR(
        evidence=headers,
        content=_content(answer, headers, uids)[0],
        series_instance_uid=answer.predecessor.series_uid if answer.predecessor else uids.report_series(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=uids.instance("SR"),
        instance_number=answer.revision,
        series_description="AI mammography report, research use only",
        is_complete=answer.status.complete,
        is_final=True,
        previous_versions=[_reference(answer.predecessor)] if answer.predecessor else None,
        specific_character_set=None,
        coding_schemes=[
            CodingSchemeIdentificationItem(
                designator=codes.SCHEME, name="Mammonode private codes", responsible_organization=MANUFACTURER
            )
        ],
        **equipment(answer, uids),
    )
    target.CompletionFlagDescription = completion(answer)
    if segmentations:
        target.PertinentOtherEvidenceSequence = [_evidence(segmentations)]
    finish(target, answer, uids, answer.images[0].header)
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
    """Return the sentences of the report, in ASCII: the status, what was not read and why, and how to take the scores."""
    lines = [RESEARCH_USE_ONLY, f"Answer: {answer.status}."]
    lines += answer.reasons
    if answer.missing:
        lines.append(f"Views not read: {', '.join(map(str, answer.missing))}.")
    lines += [
        f"NOT READ: {image.view or 'image'} {image.uid}: {image.not_read}"
        for image in answer.images
        if image.not_read is not None
    ]
    if answer.findings:
        lines.append("Scores are suspicion scores from 0 to 100, not probabilities.")
        lines += [f"{image.view}: {warning}" for image in answer.findings.images for warning in image.warnings]
    lines += answer.model.notes
    return [plain(line) for line in lines]


def _content(answer: Answer, headers: list[Dataset], uids: ObjectUIDs) -> hd.sr.MeasurementReport:
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=uids.device(),
        name=plain(answer.model.name),
        manufacturer_name=MANUFACTURER,
        model_name=MODEL_NAME,
        serial_number=uids.installation,
    )
    observer = hd.sr.ObserverContext(observer_type=standard.DCM.Device, observer_identifying_attributes=device)
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
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
    container.ContentSequence = hd.sr.ContentSequence([summary, *texts])
    return container


def _library_header(header: Dataset) -> Dataset:
    """Return the header for the image library; one that lacks what TID 1603 wants is described without TID 1603."""
    if len(header.get("PatientOrientation") or ()) == 2 and len(header.get("ImagerPixelSpacing") or ()) == 2:
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


def _evidence(segmentations: Sequence[Dataset]) -> Dataset:
    """Return the Segmentations as one item of Pertinent Other Evidence (PS3.3 C.17.2), each in its own series."""
    study = Dataset()
    study.StudyInstanceUID = segmentations[0].StudyInstanceUID
    study.ReferencedSeriesSequence = []
    for segmentation in segmentations:
        instance, series = Dataset(), Dataset()
        instance.ReferencedSOPClassUID = segmentation.SOPClassUID
        instance.ReferencedSOPInstanceUID = segmentation.SOPInstanceUID
        series.SeriesInstanceUID = segmentation.SeriesInstanceUID
        series.ReferencedSOPSequence = [instance]
        study.ReferencedSeriesSequence.append(series)
    return study
