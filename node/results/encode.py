"""An answer becomes DICOM objects: a Segmentation for each image with masses, and one report."""

from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO

from pydicom.dataset import Dataset

from node.results.answer import Answer
from node.results.seg import segmentation
from node.results.sr import report
from node.results.uids import ObjectUIDs


class ResultKind(StrEnum):
    """Kinds of result objects."""

    #: Masses of one image.
    SEG = "SEG"
    #: The answer for the exam.
    SR = "SR"


@dataclass(frozen=True, eq=False)
class ResultObject:
    """A result object and, for one that belongs to an image, that image's SOP Instance UID."""

    kind: ResultKind
    dataset: Dataset
    image_uid: str | None = None

    @property
    def instance_uid(self) -> str:
        """SOP Instance UID."""
        return str(self.dataset.SOPInstanceUID)

    @property
    def sop_class_uid(self) -> str:
        """SOP Class UID."""
        return str(self.dataset.SOPClassUID)

    @property
    def series_uid(self) -> str:
        """Series Instance UID."""
        return str(self.dataset.SeriesInstanceUID)

    @property
    def study_uid(self) -> str:
        """Study Instance UID."""
        return str(self.dataset.StudyInstanceUID)


def encode(answer: Answer, *, installation: str, settings_digest: str) -> tuple[ResultObject, ...]:
    """Return the objects that answer an exam: the Segmentations in the order of the images, the report last.

    Parameters
    ----------
    answer
        What the exam is told.
    installation
        Random identifier of this installation, 64 characters at most.
    settings_digest
        Digest of every setting that changes the objects' content (rule R1).
    """
    uids = ObjectUIDs.of(answer, installation, settings_digest)
    segmentations = [
        ResultObject(ResultKind.SEG, segmentation(answer, image, found, uids), image.uid)
        for image in answer.images
        if (found := answer.findings_of(image)) and found.masses
    ]
    return (*segmentations, ResultObject(ResultKind.SR, report(answer, [seg.dataset for seg in segmentations], uids)))


def to_bytes(dataset: Dataset) -> bytes:
    """Return the data set as a DICOM file (PS3.10); equal data sets give equal bytes."""
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
