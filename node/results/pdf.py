"""The answer on one page as an Encapsulated PDF (PS3.3 A.45.1)."""

from typing import Final

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import EncapsulatedPDFStorage

from config.mix import ResultKind
from node.results.edition import Edition
from node.results.equipment import bare_object, finish
from node.results.pdf_page import TITLE, document
from node.results.sc import source_reference
from node.results.source import source_header

REPORT: Final = Code("111036", "DCM", "Mammography CAD Report")
"""Title of the document, as of the CAD reports that workstations know (PS3.16 TID 4000)."""


def summary(edition: Edition) -> Dataset:
    """Return the page of an exam; every answer has one."""
    answer, uids = edition.answer, edition.uids
    header = source_header(answer.images[0].header)
    made = document(edition)
    target = bare_object(
        header,
        answer,
        uids,
        series_instance_uid=uids.series(ResultKind.PDF.value),
        series_number=edition.series_number(ResultKind.PDF),
        sop_instance_uid=uids.instance(ResultKind.PDF.value),
        sop_class_uid=EncapsulatedPDFStorage,
        instance_number=1,
        modality="DOC",
        series_description=edition.series_description(ResultKind.PDF),
    )
    target.ConversionType = "WSD"
    target.BurnedInAnnotation = "YES"  # Patient ID and study date are on the page
    target.AcquisitionDateTime = None  # Type 2; the document was acquired by nobody
    target.SourceInstanceSequence = [source_reference(image) for image in answer.images]
    target.DocumentTitle = TITLE
    target.ConceptNameCodeSequence = [hd.sr.CodedConcept.from_code(REPORT)]
    target.VerificationFlag = "UNVERIFIED"
    target.MIMETypeOfEncapsulatedDocument = "application/pdf"
    target.EncapsulatedDocumentLength = len(made)
    target.EncapsulatedDocument = made + bytes(len(made) % 2)  # OB has an even length (PS3.5 7.1)
    finish(target, answer, uids, answer.images[0].header)
    return target
