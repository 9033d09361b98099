"""Reading an exam again because somebody wants it: as it was closed, or as the rules of today would close it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from node.exams import Close, closed_with
from node.judging import Judged, Rules
from node.parts import Parts
from storage import exams
from storage.database import reading, writing
from storage.errors import CannotRetry
from storage.exams import ExamRecord
from storage.jobs import Job
from storage.removals import any_removed
from storage.states import ExamState, JobState


@dataclass(frozen=True)
class Again:
    """The job that is to read an exam again, the exam's revision, and whether that is a new one."""

    job: int
    revision: int
    anew: bool


def read_again(
    parts: Parts,
    rules: Rules,
    model_digest: str,
    exam: ExamRecord,
    now: datetime,
    also: Callable[[Connection, int], object] = lambda *_: None,
) -> Again:
    """Have an exam read again.

    What its present revision was closed with is read again as it is. Where it would be closed otherwise by now, since another
    model reads other images or the site has other settings, and where it was left as a prior, it becomes its next revision
    at once: whoever asks for it by name wants a prior to be read, too.

    Parameters
    ----------
    rules, model_digest
        By what it is judged, and which model is to read it.
    also
        Done in the same transaction, with the revision.

    Raises
    ------
    CannotRetry
        While images are awaited or the exam is read; when all its images belong to another one, or some were removed.
    """
    if exam.state is ExamState.COLLECTING:
        raise CannotRetry("this revision has no reading yet: its images are still awaited")
    with reading(parts.engine) as connection:
        judged = rules.judge(connection, exam.id)
        decided = exams.images_of(connection, exam.id, exam.revision)
    close = closed_with(judged.assembly, judged.candidates)
    job = next((job for job in parts.queue.list_jobs(10, exam_id=exam.id) if job.revision == exam.revision), None)
    if job is not None and _stands(
        job, {each.instance_uid: each.view for each in decided if each.chosen}, judged, close
    ):
        parts.queue.retry(job.id, now, lambda connection: also(connection, exam.revision))
        return Again(job.id, exam.revision, anew=False)
    if exam.state is ExamState.MOVED:
        raise CannotRetry("all images belong to another exam since their identity was corrected")
    if job is not None and job.state is JobState.RUNNING:
        raise CannotRetry(f"{job.state}, revision {job.revision} of {exam.revision}")
    with writing(parts.engine) as connection:
        exams.lock_keys(connection, [exam.id])
        if any_removed(connection, exam.id):
            raise CannotRetry("its images or results were removed")
        if exams.get_exam(connection, exam.id) != exam:
            raise CannotRetry("it has changed meanwhile: look at it again")
        revised = exams.revise(connection, exam.id, now)
        number = judged.close(connection, revised, close, model_digest, now)
        also(connection, revised.revision)
    return Again(number, revised.revision, anew=True)


def _stands(job: Job, chosen: Mapping[str, str | None], judged: Judged, close: Close) -> bool:
    """Tell whether a job does what it would be told today, its having been cancelled aside."""
    return (*job.before_cancelled, chosen) == (close.plan, close.reasons, judged.chosen)
