"""What a job stands on: the images of its exam's revision, and what was issued before."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from node.exams import Candidate
from node.identity import TEST_ISSUER
from node.reply import Issue
from node.results.facts import FACTS
from node.views import ImageKind
from storage.conflicts import moves_into
from storage.exams import ExamImage, images_of
from storage.index import InstanceRecord, find_instance
from storage.jobs import Job
from storage.removals import removed_of_exam
from storage.results import IssuedResult, ResultRecord, results_of

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True)
class Material:
    """What a job stands on.

    Attributes
    ----------
    images
        Those of its exam revision, as decided when it was closed.
    removed
        SOP Instance UIDs of those whose files are not kept any more.
    former
        What was issued for the last revision before that was answered; None for the first.
    again
        What earlier runs of jobs have issued for this revision.
    accepts
        Kinds of image that the reader reads.
    """

    images: tuple[tuple[ExamImage, InstanceRecord], ...]
    removed: Collection[str]
    former: Issue | None
    again: tuple[Issue, ...]
    accepts: Collection[ImageKind]

    @property
    def candidates(self) -> list[Candidate]:
        """The images as they were when the revision was closed, but for those that the reader does not read."""
        return [
            Candidate.decided(record, image, accepts=self.accepts, removed=record.uid in self.removed)
            for image, record in self.images
        ]

    @property
    def shown(self) -> list[InstanceRecord]:
        """The images that an answer tells of: one that was taken back only where nothing else is left to answer for."""
        kept = [each for each in self.candidates if each.is_image and not each.removed]
        shown = {each.instance_uid for each in kept if not each.withdrawn} or {each.instance_uid for each in kept}
        return [record for _, record in self.images if record.uid in shown]

    @property
    def test(self) -> bool:
        """Whether it is the exam of a self-test: its answer goes to no place where patients are."""
        return any(record.patient.issuer == TEST_ISSUER for _, record in self.images)

    @property
    def sender(self) -> str:
        """AE title that sent the first of the images."""
        first = min((record for _, record in self.images), key=lambda record: record.received_at, default=None)
        return first.calling_ae if first else ""


def material_of(connection: Connection, job: Job, accepts: Collection[ImageKind]) -> Material:
    """Return what a job stands on, for a reader of these kinds of image."""
    images = [
        (image, record)
        for image in images_of(connection, job.exam_id, job.revision)
        if (record := find_instance(connection, image.instance_uid))
    ]
    results = results_of(connection, job.exam_id)
    moved = [(move, results_of(connection, move.exam_id)) for move in moves_into(connection, job.exam_id)]
    last = max((result.revision for result in results if result.revision < job.revision), default=0)
    former = tuple(result.record for result in reversed(results) if result.revision == last)
    # What an earlier revision has stood in for, it has superseded too.
    stands_in = {
        move.exam_uid: records
        for move, issued in moved
        if last < move.into_revision <= job.revision and (records := _last_issue(issued, move.revision))
    }
    again = _issues([result for result in reversed(results) if result.revision == job.revision])
    return Material(
        tuple(images),
        removed_of_exam(connection, job.exam_id),
        Issue(last, former, stands_in) if former or stands_in else None,
        tuple(Issue(job.revision, tuple(records)) for records in again),
        accepts,
    )


def _issues(results: Sequence[IssuedResult]) -> list[list[ResultRecord]]:
    """Return what was issued for one revision, oldest first.

    A run that gave a further destination what others have had, has no facts of its own: its objects belong to the issue before.
    """
    runs: dict[tuple[datetime, int], list[ResultRecord]] = {}
    for result in results:
        runs.setdefault((result.created_at, result.job_id), []).append(result.record)
    issues: list[list[ResultRecord]] = []
    for run in sorted(runs):
        if issues and all(record.kind != FACTS for record in runs[run]):
            issues[-1] += runs[run]
        else:
            issues.append(runs[run])
    return issues


def _last_issue(issued: Sequence[IssuedResult], revision: int) -> tuple[ResultRecord, ...]:
    """Return what the last revision was told that was answered up to this one, oldest first."""
    last = max((result.revision for result in issued if result.revision <= revision), default=0)
    return tuple(result.record for result in reversed(issued) if result.revision == last)
