"""The answer of an exam as a Mammography CAD SR, what breast workstations read (PS3.3 A.35.5, PS3.16 TID 4000)."""

from collections.abc import Iterable, Iterator, Mapping

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import MammographyCADSRStorage

from config.mix import FindingCodes, ResultKind
from node.results import cad_codes as cad
from node.results import codes
from node.results.answer import Answer, AnswerStatus, ImageAnswer
from node.results.cad_findings import FindingsWriter, algorithm, impression_body, scores
from node.results.cad_items import (
    CONTAINS,
    HAS_CONCEPT_MOD,
    HAS_PROPERTIES,
    INFERRED_FROM,
    by_reference,
    code,
    coded,
    container,
)
from node.results.cad_library import library_entry
from node.results.edition import Edition
from node.results.equipment import bare_object, finish
from node.results.source import source_header
from node.results.sr import comments, completion
from node.results.uids import ObjectUIDs

LIBRARY = (1, 2)
"""Position of the Image Library: the second item below the root (TID 4000 row 3)."""


def cad_report(edition: Edition) -> Dataset:
    """Return the answer as a Mammography CAD SR.

    TID 4000 has no row for an observer: the device stands in the Enhanced General Equipment attributes, in Contributing
    Equipment and, as the algorithm, beside everything that it tells.
    """
    answer, uids = edition.answer, edition.uids
    header = source_header(answer.images[0].header)
    target = _document(edition, header)
    target.ValueType, target.ContinuityOfContent = "CONTAINER", "SEPARATE"
    target.ConceptNameCodeSequence = [coded(cad.REPORT)]
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "4000"
    target.ContentTemplateSequence = [template]
    target.ContentSequence = list(_content(answer, uids, edition.mix.finding_codes))
    finish(target, answer, uids, answer.images[0].header)
    return target


def _document(edition: Edition, header: Dataset) -> Dataset:
    """Return the data set without its content: highdicom has no class for this IOD, but one for what all have."""
    answer, uids = edition.answer, edition.uids
    target = bare_object(
        header,
        answer,
        uids,
        series_instance_uid=uids.report_series("CAD_SR"),
        series_number=edition.series_number(ResultKind.CAD_SR),
        sop_instance_uid=uids.instance("CAD_SR"),
        sop_class_uid=MammographyCADSRStorage,
        instance_number=answer.revision,
        modality="SR",
        series_description=edition.series_description(ResultKind.CAD_SR),
    )
    target.ReferencedPerformedProcedureStepSequence = []
    target.PerformedProcedureCodeSequence = []
    target.CompletionFlag = "COMPLETE" if answer.status.complete else "PARTIAL"
    target.CompletionFlagDescription = completion(answer)
    target.VerificationFlag, target.PreliminaryFlag = "UNVERIFIED", "FINAL"
    former = [each for each in answer.predecessors if each.sop_class_uid == MammographyCADSRStorage]
    if former:
        target.PredecessorDocumentsSequence = _references(
            (each.study_uid, each.series_uid, each.sop_class_uid, each.instance_uid) for each in former
        )
    target.CurrentRequestedProcedureEvidenceSequence = _references(
        (each.StudyInstanceUID, each.SeriesInstanceUID, each.SOPClassUID, each.SOPInstanceUID)
        for each in (image.header for image in answer.images)
    )
    return target


def _references(instances: Iterable[tuple[str, str, str, str]]) -> list[Dataset]:
    """Return study, series, SOP Class and SOP Instance UIDs as one item per study (PS3.3 Table 10-3b)."""
    studies: dict[str, dict[str, list[Dataset]]] = {}
    for study, series, sop_class, sop_instance in instances:
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = sop_class, sop_instance
        studies.setdefault(study, {}).setdefault(series, []).append(reference)
    items = []
    for study, in_study in studies.items():
        item = Dataset()
        item.StudyInstanceUID, item.ReferencedSeriesSequence = study, []
        for series, in_series in in_study.items():
            each = Dataset()
            each.SeriesInstanceUID, each.ReferencedSOPSequence = series, in_series
            item.ReferencedSeriesSequence.append(each)
        items.append(item)
    return items


def _content(answer: Answer, uids: ObjectUIDs, scheme: FindingCodes) -> Iterator[Dataset]:
    """Yield the items below the root, in the order of TID 4000."""
    places = {image.uid: (*LIBRARY, position) for position, image in enumerate(answer.images, start=1)}
    yield code(HAS_CONCEPT_MOD, cad.LANGUAGE, cad.ENGLISH)
    yield container(CONTAINS, cad.IMAGE_LIBRARY, [library_entry(CONTAINS, image, scheme) for image in answer.images])
    yield code(
        CONTAINS,
        codes.SUMMARY,
        codes.SUMMARY_OF[answer.status],
        [
            *impression_body(HAS_PROPERTIES, "\r\n".join([*comments(answer), *scores(answer)]), answer.model),
            *FindingsWriter(answer, uids, scheme, places).impressions(),
        ],
    )
    yield from _summaries(answer, scheme, places)


def _summaries(answer: Answer, scheme: FindingCodes, places: Mapping[str, tuple[int, ...]]) -> Iterator[Dataset]:
    """Yield on which images masses were looked for and compared, and where that failed (TID 4015 to 4018, rule R3).

    What was not attempted is not listed. The images that a partial answer did not read are failed detections. Where
    the views that miss have no image, nothing that was attempted failed: the Impression Description names them.
    Masses of two views count as compared where the reader paired them.
    """
    read = [image for image in answer.images if image.not_read is None]
    unread = [image for image in answer.images if image.not_read is not None]
    failed = answer.status is AnswerStatus.FAILED
    partial = answer.status in (AnswerStatus.PARTIAL_FINDINGS, AnswerStatus.PARTIAL_NO_FINDINGS)
    mass, collocation = cad.in_scheme(cad.DENSITY, scheme), cad.in_scheme(cad.COLLOCATION, scheme)

    def performed(heading: Code, name: Code, value: Code, images: list[ImageAnswer]) -> list[Dataset]:
        if not images:
            return []
        links = [by_reference(HAS_PROPERTIES, places[image.uid]) for image in images]
        done = code(CONTAINS, name, value, [*algorithm(HAS_PROPERTIES, answer.model), *links])
        return [container(INFERRED_FROM, heading, [done])]

    lost = unread if failed or partial else []
    yield code(
        CONTAINS,
        cad.SUMMARY_OF_DETECTIONS,
        _outcome(succeeded=bool(read), failed=bool(lost)),
        [
            *performed(cad.SUCCESSFUL_DETECTIONS, cad.DETECTION_PERFORMED, mass, read),
            *performed(cad.FAILED_DETECTIONS, cad.DETECTION_PERFORMED, mass, lost),
        ],
    )
    sides = {match.laterality for match in (answer.findings.matches if answer.findings else ())}
    compared = [image for image in read if image.view and image.view.laterality in sides]
    lost = unread if failed else []
    yield code(
        CONTAINS,
        cad.SUMMARY_OF_ANALYSES,
        _outcome(succeeded=bool(compared), failed=bool(lost)),
        [
            *performed(cad.SUCCESSFUL_ANALYSES, cad.ANALYSIS_PERFORMED, collocation, compared),
            *performed(cad.FAILED_ANALYSES, cad.ANALYSIS_PERFORMED, collocation, lost),
        ],
    )


def _outcome(*, succeeded: bool, failed: bool) -> Code:
    """Return the status of detections or analyses (CID 6042)."""
    if succeeded:
        return cad.PARTIALLY_SUCCEEDED if failed else cad.SUCCEEDED
    return cad.FAILED if failed else cad.NOT_ATTEMPTED
