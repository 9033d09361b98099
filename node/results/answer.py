"""What an exam is told: its status, the images it stands on and the findings, before any of it is DICOM (rule R3)."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from pydicom.dataset import Dataset

from ai.calibration import Likelihood
from ai.exam import View, ViewPosition
from ai.findings import ExamFindings, ImageFindings, ModelIdentity
from ai.words import counted
from config.policy import RecallLimit


class AnswerStatus(StrEnum):
    """How an exam was answered."""

    #: All expected views were read and at least one mass was found.
    FINDINGS = "findings"
    #: All expected views were read and no mass was found.
    NO_FINDINGS = "no findings"
    #: Some views were not read; in those that were, at least one mass was found.
    PARTIAL_FINDINGS = "partial, findings"
    #: Some views were not read; in those that were, no mass was found.
    PARTIAL_NO_FINDINGS = "partial, no findings"
    #: No image could be used; the reasons say why.
    NOT_ANALYSED = "not analysed"
    #: The reading failed; the reasons say why.
    FAILED = "failed"

    @property
    def complete(self) -> bool:
        """Whether all expected views were read."""
        return self in (AnswerStatus.FINDINGS, AnswerStatus.NO_FINDINGS)


def answer_status(findings: ExamFindings, *, complete: bool) -> AnswerStatus:
    """Return the status of an exam that was read.

    Parameters
    ----------
    findings
        What the reader answered.
    complete
        Whether every expected view was read; of a unilateral exam these are the two views of the one breast.
    """
    if findings.count:
        return AnswerStatus.FINDINGS if complete else AnswerStatus.PARTIAL_FINDINGS
    return AnswerStatus.NO_FINDINGS if complete else AnswerStatus.PARTIAL_NO_FINDINGS


@dataclass(frozen=True, eq=False)
class ImageAnswer:
    """One image of the exam.

    Attributes
    ----------
    header
        The instance's data set without pixel data. Study, Series, SOP Class and SOP Instance UID must be there.
    view
        The standard view it shows, or None.
    not_read
        Why it was not read, or None when it was.
    """

    header: Dataset
    view: View | None
    not_read: str | None = None

    @property
    def uid(self) -> str:
        """SOP Instance UID."""
        return str(self.header.SOPInstanceUID)


@dataclass(frozen=True)
class Predecessor:
    """An object that this answer supersedes (rule R2)."""

    study_uid: str
    series_uid: str
    sop_class_uid: str
    instance_uid: str


@dataclass(frozen=True, eq=False)
class Answer:
    """The whole answer for one revision of one exam.

    Attributes
    ----------
    exam
        The exam's public identifier.
    revision
        Its revision, 1 or more.
    status
        How it was answered.
    created_at
        Aware; every date and time in the objects is this one. It is written in the time zone that the first image
        states (0008,0201), and in the zone that the value carries when the image states none.
    images
        Chosen and rejected images, at least one, of one study.
    model
        The model that read, or that would have read.
    findings
        What it found; None when the exam was not analysed or failed.
    missing
        Expected views that were not read: no image came, or it could not be read.
    reasons
        Sentences for the report: why partial, unilateral, not analysed or failed.
    predecessors
        The reports and CAD reports of the former revision, in every form that was issued.
    superseded
        The other objects of the former revision, which stand in series of their own.
    changes
        Sentences: what is different from the former revision's answer.
    prevalence
        Share of the site's exams with cancer, 0 to 1; None: not stated.
    recall
        From which exam score on the site looks twice; None: not stated.
    hidden
        Findings that are not shown because their score is below the destination's threshold.
    """

    exam: str
    revision: int
    status: AnswerStatus
    created_at: datetime
    images: tuple[ImageAnswer, ...]
    model: ModelIdentity
    findings: ExamFindings | None = None
    missing: tuple[View, ...] = ()
    reasons: tuple[str, ...] = ()
    predecessors: tuple[Predecessor, ...] = ()
    superseded: tuple[Predecessor, ...] = ()
    changes: tuple[str, ...] = ()
    prevalence: float | None = None
    recall: RecallLimit | None = None
    hidden: int = 0
    _by_uid: dict[str, ImageFindings] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse what would make a report that contradicts itself."""
        if not self.images:
            raise ValueError("an answer stands on at least one image")
        if self.created_at.tzinfo is None:
            raise ValueError("created_at has no time zone")
        read = {image.uid for image in self.images if image.not_read is None}
        found = {image.uid: image for image in self.findings.images} if self.findings else {}
        if read != set(found):
            raise ValueError("the images marked as read are not those that the reader answered for")
        unread = self.status in (AnswerStatus.NOT_ANALYSED, AnswerStatus.FAILED)
        if unread is not (self.findings is None):
            raise ValueError(f"status {self.status!r} {'with' if unread else 'without'} findings")
        if self.findings and self.status is not answer_status(self.findings, complete=self.status.complete):
            raise ValueError(f"status {self.status!r} contradicts {self.findings.count} findings")
        object.__setattr__(self, "_by_uid", found)

    def shown_above(self, threshold: int) -> "Answer":
        """Return the answer without the findings that are less suspicious; it says how many those are (rule R1)."""
        if self.findings is None:
            return self
        images = tuple(
            replace(image, masses=tuple(mass for mass in image.masses if mass.suspicion >= threshold))
            for image in self.findings.images
        )
        shown = {(image.view, mass.number) for image in images for mass in image.masses}
        matches = tuple(
            match
            for match in self.findings.matches
            if {
                (View(match.laterality, ViewPosition.CC), match.cc),
                (View(match.laterality, ViewPosition.MLO), match.mlo),
            }
            <= shown
        )
        findings = replace(self.findings, images=images, matches=matches)
        hidden = self.findings.count - findings.count
        if not hidden:
            return self
        reason = f"{counted(hidden, 'finding')} below this destination's threshold of {threshold}."
        return replace(
            self,
            status=answer_status(findings, complete=self.status.complete),
            findings=findings,
            reasons=(*self.reasons, reason),
            hidden=hidden,
        )

    @property
    def likelihood(self) -> Likelihood | None:
        """What scores are as probabilities; None unless the card has a calibration and the site states a prevalence."""
        calibration = self.model.calibration
        return Likelihood(calibration, self.prevalence) if calibration and self.prevalence else None

    def findings_of(self, image: ImageAnswer) -> ImageFindings | None:
        """Return what was found in an image, or None when it was not read."""
        return self._by_uid.get(image.uid)
