"""The job table as a queue: claim with a lease, renew, finish or fail; alike on SQLite and PostgreSQL.

Times come from the callers, who have to agree to within a small part of the lease: ``node.shared_clock``. When the clock
jumps back, nothing waits longer than it could have been told to (``storage.database.has_come``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Row, RowMapping, Select, func, literal, select, update

from config.policy import RetryPolicy
from storage.database import has_come, reading, writing
from storage.errors import CannotCancel, CannotRetry, LeaseLost, NoSuchJob
from storage.outbox import enqueue
from storage.removals import any_removed
from storage.states import ExamState, JobState, Plan
from storage.tables import CLAIMABLE, Moment, exams, jobs, moves

if TYPE_CHECKING:
    from storage.results import ResultRecord

CANCELLED = "The reading was cancelled by an operator."
"""Reason of a job that reads nothing because somebody said so."""

LAST_RESORTS = 3
"""How often a job whose attempts are used up is handed out to be answered "failed"."""


@dataclass(frozen=True)
class Job:
    """One reading of one exam revision by one model.

    Attributes
    ----------
    id
        Primary key.
    exam_id, exam_uid, revision
        What is read.
    model_digest
        Which model is to read, or has read.
    state
        Where it stands.
    plan, reasons
        What is to be done, and why.
    attempts
        How often it was claimed.
    last_resorts
        How often of these only to be answered "failed".
    not_before
        When it may be claimed.
    lease_owner, lease_until
        Who works on it, and until when nobody else may.
    created_at
        When the exam was closed; dates and times inside the results come from here (rule R1).
    started_at, finished_at
        When it was first claimed, and ended.
    error
        Of the last failed attempt.
    answer
        Status of the answer.
    timings
        Seconds by stage.
    suspicion
        The exam's score in the answer, 0 to 100; None when nothing was read.
    """

    id: int
    exam_id: int
    exam_uid: str
    revision: int
    model_digest: str
    state: JobState
    plan: Plan
    reasons: tuple[str, ...]
    attempts: int
    last_resorts: int
    not_before: datetime
    lease_owner: str | None
    lease_until: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None
    answer: str | None
    timings: Mapping[str, float] | None
    suspicion: float | None

    @property
    def exhausted(self) -> bool:
        """Whether its attempts are used up: answer "failed", and read nothing."""
        return self.last_resorts > 0

    @property
    def before_cancelled(self) -> tuple[Plan, tuple[str, ...]]:
        """What is to be done, and why, if nobody had cancelled it."""
        if CANCELLED not in self.reasons:
            return self.plan, self.reasons
        return Plan.READ, tuple(reason for reason in self.reasons if reason != CANCELLED)

    def log_context(self) -> dict[str, object]:
        """Return the fields of a log line about it."""
        return {"job": self.id, "exam": self.exam_uid, "revision": self.revision, "attempt": self.attempts}


class JobQueue:
    """The jobs of all workers.

    Parameters
    ----------
    engine
        The database.
    policy
        When a failed attempt is made again; once it gives up, the job is handed out up to ``LAST_RESORTS`` times more
        with ``Job.exhausted`` set, because every exam gets an answer.
    lease
        How long a claim holds without being renewed. A worker renews it well before, and what it has claimed is taken
        over by another when it dies.
    """

    def __init__(self, engine: Engine, policy: RetryPolicy, lease: timedelta) -> None:
        self._engine = engine
        self._policy = policy
        self._lease = lease

    def claim(self, owner: str, now: datetime) -> Job | None:
        """Lease the job that has waited longest and return it, or None when none is due.

        A job whose worker let its lease end counts as due.
        """
        while (job := self._take(owner, now)) is not None:
            if job.last_resorts <= LAST_RESORTS:
                return job
            self._bury(job, owner, job.error or "every worker that took it died", now)
        return None

    def renew(self, job: Job, owner: str, now: datetime) -> bool:
        """Extend the lease; False when it is lost, and the work in vain."""
        with writing(self._engine) as connection:
            statement = update(jobs).where(_held_by(owner, job)).values(lease_until=now + self._lease)
            return connection.execute(statement).rowcount == 1

    def finish(
        self,
        job: Job,
        owner: str,
        *,
        answer: str,
        results: Sequence["ResultRecord"],
        destinations: Mapping[str, Sequence[str]],
        timings: Mapping[str, float],
        now: datetime,
        suspicion: float | None = None,
        error: str | None = None,
        model_digest: str | None = None,
    ) -> None:
        """Hand the results over to the outbox and end the job, in one transaction.

        Parameters
        ----------
        answer
            Status of the answer; becomes the exam's, unless the exam has gone on to its next revision.
        results
            On the disk already; those issued before stay as they are (rule R10).
        destinations
            SOP Instance UID of a result → names of the destinations that get it.
        timings
            Seconds by stage.
        suspicion
            The exam's score, 0 to 100, which says whose results are sent first; None when nothing was read.
        error
            Why nothing could be read, when the answer says "failed": the job is dead then and the exam failed.
        model_digest
            Of the model that has read; None: the one that was to.

        Raises
        ------
        LeaseLost
            When another worker has the job, or it has ended; nothing is changed.
        ResultDiffers
            When a result was issued before with other bytes; nothing is changed.
        """
        from storage.results import add_results, after_what_was_issued  # noqa: PLC0415 (lists need neither catalogue nor index)

        with writing(self._engine) as connection:
            exam = self.lock(connection, job, owner)
            issued_at = after_what_was_issued(connection, job.exam_id, now)
            add_results(connection, job.id, results, issued_at)
            pairs = [(record.uid, name) for record in results for name in destinations.get(record.uid, ())]
            enqueue(connection, pairs, issued_at)
            state = JobState.DONE if error is None else JobState.DEAD
            told = {"answer": answer, "error": error, "timings": dict(timings), "suspicion": suspicion}
            _end(connection, job, state, now, **told, model_digest=model_digest or job.model_digest)
            if exam.revision == job.revision:
                outcome = ExamState.ANSWERED if error is None else ExamState.FAILED
                _set_exam(connection, job, state=outcome, status=answer)

    def fail(self, job: Job, owner: str, error: str, now: datetime) -> JobState:
        """Note a failed attempt and return the job's new state: queued for a later one, or dead.

        Raises
        ------
        LeaseLost
            When another worker has the job, or it has ended.
        """
        if job.last_resorts >= LAST_RESORTS:
            self._bury(job, owner, error, now)
            return JobState.DEAD
        delay = self._next_after(job, now)
        if delay is None:
            delay = self._policy.first if job.exhausted else timedelta(0)
        with writing(self._engine) as connection:
            self.lock(connection, job, owner)
            connection.execute(
                update(jobs)
                .where(jobs.c.id == job.id)
                .values(state=JobState.QUEUED, not_before=now + delay, error=error, lease_owner=None, lease_until=None)
            )
        return JobState.QUEUED

    def is_last(self, job: Job, now: datetime) -> bool:
        """Tell whether a job, should it fail now, is handed out no more but to be answered "failed"."""
        return self._next_after(job, now) is None

    def _next_after(self, job: Job, now: datetime) -> timedelta | None:
        return self._policy.delay(job.attempts, now - (job.started_at or now))

    def give_back(self, job: Job, owner: str, now: datetime) -> bool:
        """Return a job that was claimed and is not done, as if it had not been claimed; False when the lease is lost."""
        values = {
            "state": JobState.QUEUED,
            "attempts": jobs.c.attempts - 1,
            "last_resorts": max(job.last_resorts - 1, 0),
            "not_before": now,
            "lease_owner": None,
            "lease_until": None,
        }
        with writing(self._engine) as connection:
            return connection.execute(update(jobs).where(_held_by(owner, job)).values(values)).rowcount == 1

    def retry(self, job_id: int, now: datetime, also: Callable[[Connection], object] = lambda _: None) -> None:
        """Queue a job again, as if it had never been tried.

        Parameters
        ----------
        also
            Done in the same transaction.

        Raises
        ------
        NoSuchJob
            When there is none.
        CannotRetry
            When it runs, belongs to an older revision of its exam or to an exam that has moved, or when images or results
            of the exam were removed.
        """
        with writing(self._engine) as connection:
            exam, job = _both(connection, job_id)
            idle = job.state in {JobState.QUEUED, JobState.DONE, JobState.DEAD}
            if not idle or exam.revision != job.revision:
                raise CannotRetry(f"{job.state}, revision {job.revision} of {exam.revision}")
            if exam.state is ExamState.MOVED:
                raise CannotRetry("all images belong to another exam since their identity was corrected")
            if any_removed(connection, job.exam_id):
                raise CannotRetry("its images or results were removed")
            # Who reads it again has thought better of having cancelled it.
            plan, reasons = job.before_cancelled
            connection.execute(
                update(jobs)
                .where(jobs.c.id == job_id)
                .values(
                    state=JobState.QUEUED,
                    plan=plan,
                    reasons=list(reasons),
                    attempts=0,
                    last_resorts=0,
                    not_before=now,
                    started_at=None,
                    finished_at=None,
                    error=None,
                    answer=None,
                    timings=None,
                    suspicion=None,
                )
            )
            _set_exam(connection, job, state=ExamState.QUEUED, status=None)
            also(connection)

    def cancel(self, job_id: int, now: datetime) -> None:
        """Let a job read nothing: its exam is answered "not analysed", with the reason that somebody wanted it so.

        A worker that is reading goes on to its end, and its work is in vain.

        Raises
        ------
        NoSuchJob
            When there is none.
        CannotCancel
            When it has ended, belongs to an older revision of its exam, or reads nothing anyway.
        """
        with writing(self._engine) as connection:
            exam, job = _both(connection, job_id)
            unfinished = job.state in {JobState.QUEUED, JobState.RUNNING}
            if not unfinished or exam.revision != job.revision or job.plan is not Plan.READ:
                raise CannotCancel(f"{job.state}, {job.plan}, revision {job.revision} of {exam.revision}")
            connection.execute(
                update(jobs)
                .where(jobs.c.id == job_id)
                .values(
                    state=JobState.QUEUED,
                    plan=Plan.NOT_ANALYSED,
                    reasons=[*job.reasons, CANCELLED],
                    attempts=0,
                    last_resorts=0,
                    not_before=now,
                    started_at=None,
                    lease_owner=None,
                    lease_until=None,
                    error=None,
                )
            )

    def list_jobs(self, limit: int, *, exam_id: int | None = None, state: JobState | None = None) -> list[Job]:
        """Return jobs, newest first."""
        query = _jobs().order_by(jobs.c.id.desc()).limit(limit)
        if exam_id is not None:
            query = query.where(jobs.c.exam_id == exam_id)
        if state is not None:
            query = query.where(jobs.c.state == state)
        with reading(self._engine) as connection:
            return [_job(row) for row in connection.execute(query).mappings()]

    def counts(self) -> dict[JobState, int]:
        """Return the number of jobs in every state."""
        query = select(jobs.c.state, func.count()).group_by(jobs.c.state)
        with reading(self._engine) as connection:
            found = {row[0]: row[1] for row in connection.execute(query)}
        return {state: found.get(state, 0) for state in JobState}

    def _take(self, owner: str, now: datetime) -> Job | None:
        # What was never tried waits for nothing but a worker.
        may_begin = (jobs.c.attempts == 0) | has_come(jobs.c.not_before, now, self._policy.slow)
        waits = (jobs.c.state == JobState.QUEUED) & may_begin
        # Twice the lease: the clocks of two hosts are never quite one.
        abandoned = (jobs.c.state == JobState.RUNNING) & has_come(jobs.c.lease_until, now, 2 * self._lease)
        first = (
            select(jobs.c.id)
            .where(waits | abandoned, CLAIMABLE)
            .order_by(jobs.c.not_before, jobs.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)  # PostgreSQL; on SQLite there is one writer at a time
            .scalar_subquery()
        )
        statement = (
            update(jobs)
            .where(jobs.c.id == first)
            .values(
                state=JobState.RUNNING,
                attempts=jobs.c.attempts + 1,
                lease_owner=owner,
                lease_until=now + self._lease,
                started_at=func.coalesce(jobs.c.started_at, literal(now, Moment())),
            )
            .returning(jobs.c.id)
        )
        with writing(self._engine) as connection:
            number = connection.execute(statement).scalar_one_or_none()
            if number is None:
                return None
            job = _job(connection.execute(_jobs().where(jobs.c.id == number)).mappings().one())
            if not self._gave_up(job, now):
                return job
            job = replace(job, last_resorts=job.last_resorts + 1)
            connection.execute(update(jobs).where(jobs.c.id == job.id).values(last_resorts=job.last_resorts))
            return job

    def _gave_up(self, job: Job, now: datetime) -> bool:
        tried = job.attempts - 1
        return tried > 0 and self._policy.delay(tried, now - (job.started_at or now)) is None

    def _bury(self, job: Job, owner: str, error: str, now: datetime) -> None:
        with writing(self._engine) as connection:
            exam = self.lock(connection, job, owner)
            _end(connection, job, JobState.DEAD, now, error=error)
            if exam.revision == job.revision:
                _set_exam(connection, job, state=ExamState.FAILED)

    def lock(self, connection: Connection, job: Job, owner: str) -> Row[Any]:
        """Let nobody else change a job and its exam before this transaction ends, and return the exam's row.

        Raises
        ------
        LeaseLost
            When another worker has the job, or it has ended.
        """
        exam = _lock_exam(connection, job.exam_id)
        held = select(jobs.c.id).where(_held_by(owner, job)).with_for_update()
        if connection.execute(held).one_or_none() is None:
            raise LeaseLost(f"job {job.id}")
        return exam


def _both(connection: Connection, job_id: int) -> tuple[Row[Any], Job]:
    """Return a job's exam and the job, locked; `NoSuchJob` when there is none."""
    exam_id = connection.execute(select(jobs.c.exam_id).where(jobs.c.id == job_id)).scalar_one_or_none()
    if exam_id is None:
        raise NoSuchJob(job_id)
    exam = _lock_exam(connection, exam_id)
    return exam, _job(connection.execute(_jobs().where(jobs.c.id == job_id).with_for_update(of=jobs)).mappings().one())


def _lock_exam(connection: Connection, exam_id: int) -> Row[Any]:
    # Exam before job, as in storage.exams.close: whoever needs both rows takes them in this order.
    return connection.execute(select(exams).where(exams.c.id == exam_id).with_for_update()).one()


def _held_by(owner: str, job: Job) -> Any:
    # The attempt makes the lease this one, should one owner have claimed the job twice.
    return (
        (jobs.c.id == job.id)
        & (jobs.c.state == JobState.RUNNING)
        & (jobs.c.lease_owner == owner)
        & (jobs.c.attempts == job.attempts)
    )


def _end(connection: Connection, job: Job, state: JobState, now: datetime, **values: object) -> None:
    values |= {"state": state, "finished_at": now, "lease_owner": None, "lease_until": None}
    connection.execute(update(jobs).where(jobs.c.id == job.id).values(values))


def was_read(connection: Connection, exam_id: int) -> bool:
    """Tell whether an exam, or one that was moved into it, was ever to be read."""
    moved = select(moves.c.exam_id).where(moves.c.into_exam_id == exam_id)
    its = (jobs.c.exam_id == exam_id) | jobs.c.exam_id.in_(moved)
    query = select(jobs.c.id).where(its, jobs.c.plan == Plan.READ).limit(1)
    return connection.execute(query).one_or_none() is not None


def _set_exam(connection: Connection, job: Job, **values: object) -> None:
    connection.execute(update(exams).where(exams.c.id == job.exam_id).values(values))


def _jobs() -> Select[Any]:
    return select(jobs, exams.c.uid.label("exam_uid")).join(exams, exams.c.id == jobs.c.exam_id)


def _job(row: RowMapping) -> Job:
    return Job(**{**row, "reasons": tuple(row.reasons)})
