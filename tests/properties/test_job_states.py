"""The job queue against a model of it, on both databases: any order of arrivals, claims, failures and crashes."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine

from storage.database import reading, writing
from storage.errors import CannotRetry, LeaseLost
from storage.exams import close, list_exams
from storage.jobs import LAST_RESORTS, Job, JobQueue
from storage.outbox import Outbox
from storage.states import ExamState, JobState, Plan
from tests.databases import wipe
from tests.records import LEASE, MODEL, NOON, POLICY, SECOND, a_result, an_exam

STUDIES = st.sampled_from(["1.1", "1.2", "1.3"])
OWNERS = st.sampled_from(["ann", "ben"])


@dataclass
class ModelJob:
    """What a job should be."""

    study: str
    revision: int
    not_before: datetime
    state: JobState = JobState.QUEUED
    attempts: int = 0
    last_resorts: int = 0
    started_at: datetime | None = None
    lease: tuple[str, int] | None = None
    lease_until: datetime = NOON


@dataclass
class ModelExam:
    """What an exam should be."""

    state: ExamState = ExamState.COLLECTING
    revision: int = 1


@dataclass
class Model:
    """What the tables should say."""

    exams: dict[str, ModelExam] = field(default_factory=dict)
    jobs: dict[int, ModelJob] = field(default_factory=dict)
    issued: set[str] = field(default_factory=set)

    def end(self, job: ModelJob, state: JobState) -> None:
        job.state, job.lease = state, None
        exam = self.exams[job.study]
        if exam.revision == job.revision:
            exam.state = ExamState.ANSWERED if state is JobState.DONE else ExamState.FAILED

    def due(self, now: datetime) -> list[int]:
        def is_due(job: ModelJob) -> bool:
            waits = job.state is JobState.QUEUED and job.not_before <= now
            return waits or (job.state is JobState.RUNNING and job.lease_until <= now)

        return sorted((n for n, job in self.jobs.items() if is_due(job)), key=lambda n: (self.jobs[n].not_before, n))


def gave_up(job: ModelJob, attempts: int, now: datetime) -> bool:
    return attempts > 0 and POLICY.delay(attempts, now - (job.started_at or now)) is None


class JobStates(RuleBasedStateMachine):
    """Exams arrive and are closed; workers claim, renew, finish, fail, or are never heard of again."""

    claims: Bundle[tuple[Job, str]] = Bundle("claims")

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        wipe(engine)
        self.engine = engine
        self.queue = JobQueue(engine, POLICY, LEASE)
        self.model = Model()
        self.now = NOON
        self.images = 0

    @rule(study=STUDIES)
    def an_image_arrives(self, study: str) -> None:
        self.images += 1
        an_exam(self.engine, f"{study}.1.{self.images}", study=study, now=self.now)
        exam = self.model.exams.setdefault(study, ModelExam())
        if exam.state is not ExamState.COLLECTING:
            exam.state, exam.revision = ExamState.COLLECTING, exam.revision + 1

    @precondition(lambda self: any(exam.state is ExamState.COLLECTING for exam in self.model.exams.values()))
    @rule(data=st.data())
    def an_exam_is_closed(self, data: st.DataObject) -> None:
        open_exams = [study for study, exam in self.model.exams.items() if exam.state is ExamState.COLLECTING]
        study = data.draw(st.sampled_from(open_exams))
        with writing(self.engine) as connection:
            [record] = [exam for exam in list_exams(connection, 9) if exam.study_uid == study]
            values: dict[str, Any] = {"chosen": {}, "rejected": {}, "plan": Plan.READ, "reasons": ()}
            number = close(connection, record, model_digest=MODEL, now=self.now, **values)
        exam = self.model.exams[study]
        for job in self.model.jobs.values():
            if job.study == study and job.state in {JobState.QUEUED, JobState.RUNNING}:
                job.state, job.lease = JobState.SUPERSEDED, None
        exam.state = ExamState.QUEUED
        self.model.jobs[number] = ModelJob(study, exam.revision, self.now)

    @rule(target=claims, owner=OWNERS)
    def a_worker_claims(self, owner: str) -> Any:
        job = self.queue.claim(owner, self.now)
        for number in self.model.due(self.now):
            expected = self.model.jobs[number]
            expected.attempts += 1
            expected.started_at = expected.started_at or self.now
            if gave_up(expected, expected.attempts - 1, self.now):
                expected.last_resorts += 1
            if expected.last_resorts > LAST_RESORTS:
                self.model.end(expected, JobState.DEAD)
                continue
            expected.state, expected.lease = JobState.RUNNING, (owner, expected.attempts)
            expected.lease_until = self.now + LEASE
            assert job is not None
            assert (job.id, job.exhausted) == (number, expected.last_resorts > 0)
            return job, owner
        assert job is None
        return multiple()

    @rule(claim=claims)
    def a_worker_renews(self, claim: tuple[Job, str]) -> None:
        job, owner = claim
        held = self.holds(claim)
        assert self.queue.renew(job, owner, self.now) == held
        if held:
            self.model.jobs[job.id].lease_until = self.now + LEASE

    @rule(claim=consumes(claims), succeeds=st.booleans())
    def a_worker_finishes(self, claim: tuple[Job, str], *, succeeds: bool) -> None:
        job, owner = claim
        held = self.holds(claim)
        result = a_result(f"2.25.{job.id}")
        try:
            self.queue.finish(
                job,
                owner,
                answer="findings",
                results=[result],
                destinations={result.uid: ["pacs"]},
                timings={},
                now=self.now,
                error=None if succeeds else "broken",
            )
        except LeaseLost:
            assert not held
            return
        assert held
        self.model.issued.add(result.uid)
        self.model.end(self.model.jobs[job.id], JobState.DONE if succeeds else JobState.DEAD)

    @rule(claim=claims)
    def a_worker_fails(self, claim: tuple[Job, str]) -> None:
        job, owner = claim
        held = self.holds(claim)
        try:
            state = self.queue.fail(job, owner, "broken", self.now)
        except LeaseLost:
            assert not held
            return
        assert held
        expected = self.model.jobs[job.id]
        if expected.last_resorts == LAST_RESORTS:
            self.model.end(expected, JobState.DEAD)
        else:
            delay = POLICY.delay(expected.attempts, self.now - (expected.started_at or self.now))
            if delay is None:
                delay = POLICY.first if expected.last_resorts else timedelta(0)
            expected.state, expected.lease, expected.not_before = JobState.QUEUED, None, self.now + delay
        assert state is expected.state

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data())
    def an_operator_retries(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.model.jobs)))
        job = self.model.jobs[number]
        exam = self.model.exams[job.study]
        may = job.state not in {JobState.RUNNING, JobState.SUPERSEDED} and exam.revision == job.revision
        try:
            self.queue.retry(number, self.now)
        except CannotRetry:
            assert not may
            return
        assert may
        self.model.jobs[number] = ModelJob(job.study, job.revision, self.now)
        exam.state = ExamState.QUEUED

    @rule(seconds=st.sampled_from([1, 2, 29, 31, 3600, 90000]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds * SECOND

    @invariant()
    def the_tables_say_what_the_model_says(self) -> None:
        jobs = {job.id: job for job in self.queue.list_jobs(999)}
        assert {n: (job.state, job.attempts, job.last_resorts) for n, job in jobs.items()} == {
            n: (job.state, job.attempts, job.last_resorts) for n, job in self.model.jobs.items()
        }
        with reading(self.engine) as connection:
            exams = {exam.study_uid: (exam.state, exam.revision) for exam in list_exams(connection, 9)}
        assert exams == {study: (exam.state, exam.revision) for study, exam in self.model.exams.items()}

    @invariant()
    def a_queued_exam_has_exactly_one_job_to_come(self) -> None:
        jobs = self.queue.list_jobs(999)
        for study, exam in self.model.exams.items():
            to_come = [
                job.revision
                for job in jobs
                if job.state in {JobState.QUEUED, JobState.RUNNING} and self.model.jobs[job.id].study == study
            ]
            if exam.state is ExamState.COLLECTING:
                assert len(to_come) <= 1
            else:
                assert to_come == ([exam.revision] if exam.state is ExamState.QUEUED else [])

    @invariant()
    def a_result_is_in_the_outbox_once(self) -> None:
        due = [delivery.result_uid for delivery in Outbox(self.engine, POLICY).due("pacs", self.now, 999)]
        assert sorted(due) == sorted(self.model.issued)

    def holds(self, claim: tuple[Job, str]) -> bool:
        job, owner = claim
        return self.model.jobs[job.id].lease == (owner, job.attempts)


@pytest.mark.timeout(900)  # the long profile took four minutes on PostgreSQL
def test_the_queue_keeps_to_its_model(engine: Engine) -> None:
    class OnEngine(JobStates):
        def __init__(self) -> None:
            super().__init__(engine)

    run_state_machine_as_test(OnEngine)
