"""Rejection notes that arrive: Key Object Selections that take images back (rule R7; PS3.3 A.35.4, IHE RAD IOCM)."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from pydicom import Dataset
from pydicom.uid import KeyObjectSelectionDocumentStorage

from node.headers import first, items
from storage.errors import MalformedUID
from storage.files import InstanceReference


class Rejection(Enum):
    """Document titles (PS3.16 CID 7010) that withdraw what a note names: code value, and meaning.

    Data Retention Policy Expired (113039) says that an archive keeps the images no longer, and nothing about what they
    show: the answer stands. No other title takes anything back.
    """

    #: They are of no use; better ones follow, or none do.
    QUALITY = "113001", "Rejected for Quality Reasons"
    #: They do not show what they say, for example another patient.
    SAFETY = "113037", "Rejected for Patient Safety Reasons"
    #: They were taken under another worklist entry; they come again under new UIDs.
    WORKLIST = "113038", "Incorrect Modality Worklist Entry"

    def __init__(self, code: str, meaning: str) -> None:
        self.code = code
        self.meaning = meaning

    @property
    def recalls(self) -> bool:
        """Whether an answer that stands on such images must not go out any more."""
        return self is not Rejection.QUALITY


@dataclass(frozen=True)
class RejectionNote:
    """What a note says: why, and the SOP Instance UIDs of what it withdraws, each once."""

    rejection: Rejection
    instance_uids: tuple[str, ...]


def rejection_note(header: Dataset) -> RejectionNote | None:
    """Return what a data set withdraws; None when it is no rejection note.

    What its content names counts. Only where that names nothing, what stands in its evidence does, which ought to be
    the same (PS3.3 C.17.6.2).
    """
    if first(header, "SOPClassUID") != KeyObjectSelectionDocumentStorage:
        return None
    titles = {
        first(title, "CodeValue")
        for title in items(header, "ConceptNameCodeSequence")
        if first(title, "CodingSchemeDesignator") == "DCM"
    }
    found = [rejection for rejection in Rejection if rejection.code in titles]
    if not found:
        return None
    named = tuple(dict.fromkeys(_content(header))) or tuple(dict.fromkeys(_evidence(header)))
    return RejectionNote(found[0], tuple(uid for uid in named if _is_uid(uid)))


def _content(item: Dataset) -> Iterator[str]:
    for child in items(item, "ContentSequence"):
        for reference in items(child, "ReferencedSOPSequence"):
            yield first(reference, "ReferencedSOPInstanceUID")


def _evidence(header: Dataset) -> Iterator[str]:
    for study in items(header, "CurrentRequestedProcedureEvidenceSequence"):
        for series in items(study, "ReferencedSeriesSequence"):
            for reference in items(series, "ReferencedSOPSequence"):
                yield first(reference, "ReferencedSOPInstanceUID")


def _is_uid(text: str) -> bool:
    try:
        InstanceReference(text, text, text)
    except MalformedUID:
        return False
    return True
