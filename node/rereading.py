"""Reading an exam again: as it was closed, or as the rules of today would close it; because somebody wants it, or another model came."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine

from node.exams import Close, closed_with
from node.judging import Judged, Rules
from node.parts import Parts
from node.views import refusal
from storage import exams
from storage.database import reading, writing
from storage.errors import CannotRetry
from storage.exams import ExamImage, ExamRecord
from storage.jobs import Job, JobQueue
from storage.removals import any_removed
from storage.states import ExamState, JobState, Plan


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
    if job is not None and _stands(job, decided, judged, close):
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


def judged_again(
    engine: Engine, queue: JobQueue, rules: Rules, model_digest: str, job: Job, owner: str, now: datetime
) -> Again | None:
    """Make the next revision of a job's exam where this model reads images that the one refused for which it was closed.

    What an operator or the date of the study has decided stays so, and what has changed meanwhile is closed anew in any case.

    Parameters
    ----------
    rules, model_digest
        By what it is judged, and which model is to read it.
    job, owner
        Claimed, and by whom; superseded afterwards.

    Returns
    -------
    Again or None
        None where the job does what it would be told today.

    Raises
    ------
    LeaseLost
        When the job was cancelled or taken over meanwhile.
    """
    with reading(engine) as connection:
        exam = exams.get_exam(connection, job.exam_id)
        decided = exams.images_of(connection, exam.id, job.revision)
        judged = rules.judge(connection, exam.id)
        removed = any_removed(connection, exam.id)
    close = closed_with(judged.assembly, judged.candidates)
    if removed or not _refuses(job, decided, rules) or _stands(job, decided, judged, close):
        return None
    with writing(engine) as connection:
        queue.lock(connection, job, owner)
        present = exams.get_exam(connection, exam.id)
        if (present.revision, present.arrivals) != (job.revision, exam.arrivals):
            return None
        revised = exams.revise(connection, exam.id, now)
        number = judged.close(connection, revised, close, model_digest, now)
    return Again(number, revised.revision, anew=True)


def _refuses(job: Job, decided: Sequence[ExamImage], rules: Rules) -> bool:
    """Tell whether kinds of image that the rules accept were refused, and whether these alone kept a job from reading."""
    refused = any(refusal(kind) in each.reason for each in decided for kind in rules.accepts)
    of_images = all(any(reason in each.reason for each in decided) for reason in job.reasons)
    return refused and (job.plan is Plan.READ or of_images)


def _stands(job: Job, decided: Sequence[ExamImage], judged: Judged, close: Close) -> bool:
    """Tell whether a job does what it would be told today, its having been cancelled aside."""
    chosen: Mapping[str, str | None] = {each.instance_uid: each.view for each in decided if each.chosen}
    return (*job.before_cancelled, chosen) == (close.plan, close.reasons, judged.chosen)
