"""A Key Object rejection note: withdraws the former revision's objects that no report names (PS3.3 A.35.4, IHE IOCM)."""

from typing import Final

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import UID

from config.mix import ResultKind
from node.identity import MANUFACTURER, MODEL_NAME, RESEARCH_USE_ONLY
from node.results.answer import Predecessor
from node.results.edition import Edition
from node.results.equipment import finish, observer
from node.results.source import source_header

REJECTED: Final = Code("113001", "DCM", "Rejected for Quality Reasons")
"""The title for what is replaced by something better; the others of IOCM mean the wrong patient or expiry."""

NOT_IMAGES: Final = ("Presentation State", "Encapsulated")
"""Words in the names of our SOP classes whose instances have no pixels (PS3.6 A)."""


def rejection_note(edition: Edition) -> Dataset:
    """Return the note that withdraws ``answer.superseded``; there must be at least one object."""
    answer, uids = edition.answer, edition.uids
    header = source_header(answer.images[0].header)
    withdrawn = [_withdrawn(each, header) for each in answer.superseded]
    target: Dataset = hd.ko.KeyObjectSelectionDocument(
        evidence=withdrawn,
        content=hd.ko.KeyObjectSelection(
            document_title=REJECTED,
            referenced_objects=withdrawn,
            observer_device_context=observer(answer, uids),
            description=f"Superseded by revision {answer.revision} of the AI results. {RESEARCH_USE_ONLY}",
        ),
        series_instance_uid=uids.series("REJECTION"),
        series_number=edition.series_number(ResultKind.REJECTION),
        sop_instance_uid=uids.instance("REJECTION"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        specific_character_set=None,
    )
    target.SeriesDescription = edition.series_description(ResultKind.REJECTION)
    target.ManufacturerModelName = MODEL_NAME
    target.ContributingEquipmentSequence = []
    finish(target, answer, uids, answer.images[0].header)
    return target


def _withdrawn(each: Predecessor, header: Dataset) -> Dataset:
    """Return the reference in the form that highdicom reads: what has rows is an IMAGE content item."""
    reference = Dataset()
    for keyword in (
        *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "ReferringPhysicianName"),
        *("StudyID", "StudyDate", "StudyTime"),
    ):
        setattr(reference, keyword, header.get(keyword))
    reference.StudyInstanceUID, reference.SeriesInstanceUID = each.study_uid, each.series_uid
    reference.SOPClassUID, reference.SOPInstanceUID = UID(each.sop_class_uid), each.instance_uid
    if not any(word in UID(each.sop_class_uid).name for word in NOT_IMAGES):
        reference.Rows = reference.Columns = 1
    return reference
