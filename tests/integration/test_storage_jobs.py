"""The job queue on both databases."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from config.policy import RetryPolicy
from storage.database import reading
from storage.errors import CannotRetry, LeaseLost, NoSuchJob, ResultDiffers
from storage.exams import ExamRecord, get_exam
from storage.jobs import LAST_RESORTS, Job, JobQueue
from storage.outbox import Outbox
from storage.results import ResultRecord, results_of
from storage.states import ExamState, JobState
from tests.records import LEASE, NOON, POLICY, SECOND, a_closed_exam, a_result, an_exam

HOUR = timedelta(hours=1)


@pytest.fixture
def queue(engine: Engine) -> JobQueue:
    return JobQueue(engine, POLICY, LEASE)


def claimed(queue: JobQueue, owner: str = "ann", after: timedelta = timedelta(0)) -> Job:
    job = queue.claim(owner, NOON + after)
    assert job is not None
    return job


def finish(queue: JobQueue, job: Job, owner: str = "ann", *results: ResultRecord, error: str | None = None) -> None:
    queue.finish(
        job,
        owner,
        answer="findings" if error is None else "failed",
        results=results,
        destinations={record.uid: ["pacs", "archive"] for record in results},
        timings={"read": 1.5},
        now=NOON + SECOND,
        error=error,
    )


def exam_of(engine: Engine, job: Job) -> ExamRecord:
    with reading(engine) as connection:
        return get_exam(connection, job.exam_id)


def used_up(queue: JobQueue) -> Job:
    """Fail every attempt that the policy allows, and claim the first last resort."""
    for attempt in range(1, 4):
        queue.fail(claimed(queue, after=attempt * HOUR), "ann", f"error {attempt}", NOON + attempt * HOUR)
    return claimed(queue, after=4 * HOUR)


def test_an_empty_queue_gives_nothing(queue: JobQueue) -> None:
    assert queue.claim("ann", NOON) is None


def test_a_claimed_job_tells_what_to_read_and_is_leased(engine: Engine, queue: JobQueue) -> None:
    exam, number = a_closed_exam(engine)
    job = claimed(queue)
    assert (job.id, job.exam_id, job.exam_uid, job.revision) == (number, exam.id, exam.uid, 1)
    assert (job.state, job.attempts, job.exhausted) == (JobState.RUNNING, 1, False)
    assert (job.lease_owner, job.lease_until, job.started_at) == ("ann", NOON + LEASE, NOON)
    assert job.log_context() == {"job": number, "exam": exam.uid, "revision": 1, "attempt": 1}
    assert queue.list_jobs(9) == [job]


def test_a_leased_job_is_given_to_nobody_else(engine: Engine, queue: JobQueue) -> None:
    a_closed_exam(engine)
    claimed(queue)
    assert queue.claim("ben", NOON + LEASE - SECOND) is None


def test_a_job_that_is_given_back_is_as_if_it_had_not_been_claimed(engine: Engine, queue: JobQueue) -> None:
    a_closed_exam(engine)
    job = claimed(queue)
    assert not queue.give_back(job, "ben", NOON)
    assert queue.give_back(job, "ann", NOON)
    assert not queue.renew(job, "ann", NOON)
    again = claimed(queue, "ben")
    assert (again.id, again.attempts, again.lease_owner) == (job.id, 1, "ben")
    assert not queue.give_back(job, "ann", NOON)


def test_a_last_resort_that_is_given_back_is_not_counted(engine: Engine, queue: JobQueue) -> None:
    a_closed_exam(engine)
    job = used_up(queue)
    assert queue.give_back(job, "ann", NOON + 4 * HOUR)
    again = claimed(queue, after=4 * HOUR)
    assert (again.attempts, again.last_resorts, again.exhausted) == (job.attempts, job.last_resorts, True)


def test_jobs_are_given_in_the_order_they_were_closed(engine: Engine, queue: JobQueue) -> None:
    numbers = [a_closed_exam(engine, f"1.{n}.1", study=f"1.{n}", now=NOON - n * SECOND)[1] for n in (3, 1, 2)]
    assert [claimed(queue).id for _ in range(3)] == [numbers[0], numbers[2], numbers[1]]


def test_a_job_whose_lease_ended_is_taken_over(engine: Engine, queue: JobQueue) -> None:
    a_closed_exam(engine)
    claimed(queue)
    job = claimed(queue, "ben", LEASE)
    assert (job.lease_owner, job.attempts, job.started_at) == ("ben", 2, NOON)


def test_a_renewed_lease_holds_longer(engine: Engine, queue: JobQueue) -> None:
    a_closed_exam(engine)
    job = claimed(queue)
    assert queue.renew(job, "ann", NOON + LEASE - SECOND)
    assert queue.claim("ben", NOON + LEASE) is None
    assert queue.claim("ben", NOON + 2 * LEASE - SECOND) is not None


def test_a_lost_lease_can_neither_be_renewed_nor_used(engine: Engine, queue: JobQueue) -> None:
    a_closed_exam(engine)
    lost = claimed(queue)
    job = claimed(queue, "ben", LEASE)
    assert not queue.renew(lost, "ann", NOON + LEASE)
    with pytest.raises(LeaseLost):
        finish(queue, lost, "ann", a_result())
    with pytest.raises(LeaseLost):
        queue.fail(lost, "ann", "too late", NOON + LEASE)
    assert queue.list_jobs(9) == [job]
    assert Outbox(engine, POLICY).of_exam(job.exam_id) == []


def test_an_owner_that_claims_its_own_job_again_holds_only_the_later_lease(engine: Engine, queue: JobQueue) -> None:
    a_closed_exam(engine)
    first = claimed(queue)
    second = claimed(queue, "ann", LEASE)
    assert not queue.renew(first, "ann", NOON + LEASE)
    assert queue.renew(second, "ann", NOON + LEASE)


def test_finishing_hands_results_over_and_ends_job_and_exam_together(engine: Engine, queue: JobQueue) -> None:
    a_closed_exam(engine)
    job = claimed(queue)
    finish(queue, job, "ann", a_result("2.25.1"), a_result("2.25.2"))
    [done] = queue.list_jobs(9)
    assert (done.state, done.answer, done.timings, done.finished_at) == (
        JobState.DONE,
        "findings",
        {"read": 1.5},
        NOON + SECOND,
    )
    assert (done.lease_owner, done.lease_until, done.error) == (None, None, None)
    exam = exam_of(engine, job)
    assert (exam.state, exam.status) == (ExamState.ANSWERED, "findings")
    deliveries = Outbox(engine, POLICY).of_exam(job.exam_id)
    assert {(delivery.result_uid, delivery.destination) for delivery in deliveries} == {
        (uid, name) for uid in ("2.25.1", "2.25.2") for name in ("pacs", "archive")
    }


def test_a_finished_job_cannot_be_finished_again(engine: Engine, queue: JobQueue) -> None:
    a_closed_exam(engine)
    job = claimed(queue)
    finish(queue, job, "ann", a_result())
    with pytest.raises(LeaseLost):
        finish(queue, job, "ann", a_result("2.25.2"))
    assert len(Outbox(engine, POLICY).of_exam(job.exam_id)) == 2


def test_a_second_reading_with_the_same_results_issues_nothing_new(engine: Engine, queue: JobQueue) -> None:
    a_closed_exam(engine)
    finish(queue, claimed(queue), "ann", a_result())
    before = Outbox(engine, POLICY).of_exam(1)
    queue.retry(1, NOON)
    finish(queue, claimed(queue), "ann", a_result())
    assert Outbox(engine, POLICY).of_exam(1) == before
    assert queue.list_jobs(9)[0].state is JobState.DONE


def test_one_uid_is_never_issued_with_two_contents(engine: Engine, queue: JobQueue) -> None:
    a_closed_exam(engine)
    finish(queue, claimed(queue), "ann", a_result())
    queue.retry(1, NOON)
    job = claimed(queue)
    with pytest.raises(ResultDiffers, match=r"2\.25\.1"):
        finish(queue, job, "ann", a_result("2.25.3"), a_result(path="results/other.dcm"))
    assert len(Outbox(engine, POLICY).of_exam(job.exam_id)) == 2
    assert queue.renew(job, "ann", NOON)


def test_a_result_goes_only_where_it_is_meant_to_go(engine: Engine, queue: JobQueue) -> None:
    a_closed_exam(engine)
    job = claimed(queue)
    queue.finish(job, "ann", answer="no_findings", results=[a_result()], destinations={}, timings={}, now=NOON)
    assert Outbox(engine, POLICY).of_exam(job.exam_id) == []
    with reading(engine) as connection:
        assert [issued.record for issued in results_of(connection, job.exam_id)] == [a_result()]


def test_a_failed_attempt_waits_as_the_policy_says(engine: Engine, queue: JobQueue) -> None:
    a_closed_exam(engine)
    assert queue.fail(claimed(queue), "ann", "out of memory", NOON) is JobState.QUEUED
    [job] = queue.list_jobs(9)
    assert (job.not_before, job.error, job.lease_owner) == (NOON + SECOND, "out of memory", None)
    assert queue.claim("ben", NOON) is None
    queue.fail(claimed(queue, "ben", SECOND), "ben", "out of memory", NOON)
    assert queue.list_jobs(9)[0].not_before == NOON + 2 * SECOND


def test_a_job_whose_attempts_are_used_up_comes_back_to_be_answered_failed(engine: Engine, queue: JobQueue) -> None:
    a_closed_exam(engine)
    job = used_up(queue)
    assert (job.attempts, job.exhausted, job.error) == (4, True, "error 3")
    finish(queue, job, "ann", a_result(), error="error 3")
    [dead] = queue.list_jobs(9)
    assert (dead.state, dead.error, dead.answer) == (JobState.DEAD, "error 3", "failed")
    exam = exam_of(engine, job)
    assert (exam.state, exam.status) == (ExamState.FAILED, "failed")
    assert len(Outbox(engine, POLICY).of_exam(job.exam_id)) == 2


def test_a_job_that_cannot_even_be_answered_failed_dies_with_its_error(engine: Engine, queue: JobQueue) -> None:
    a_closed_exam(engine)
    job = used_up(queue)
    for resort in range(1, LAST_RESORTS):
        now = (4 + resort) * HOUR
        assert queue.fail(job, "ann", "disk full", NOON + now) is JobState.QUEUED
        job = claimed(queue, after=now + HOUR)
    assert queue.fail(job, "ann", "disk full", NOON + 9 * HOUR) is JobState.DEAD
    assert queue.claim("ann", NOON + 99 * HOUR) is None
    [dead] = queue.list_jobs(9)
    assert (dead.state, dead.error) == (JobState.DEAD, "disk full")
    assert exam_of(engine, job).state is ExamState.FAILED


def test_a_job_that_kills_every_worker_ends_too(engine: Engine, queue: JobQueue) -> None:
    a_closed_exam(engine)
    jobs = [queue.claim("ann", NOON + crash * LEASE) for crash in range(20)]
    assert [job.exhausted for job in jobs if job is not None] == [False] * 3 + [True] * LAST_RESORTS
    [dead] = queue.list_jobs(9)
    assert (dead.state, dead.error) == (JobState.DEAD, "every worker that took it died")
    assert exam_of(engine, dead).state is ExamState.FAILED


def test_a_dead_job_does_not_hold_up_the_next(engine: Engine, queue: JobQueue) -> None:
    a_closed_exam(engine)
    for crash in range(6):
        claimed(queue, after=crash * LEASE)
    _, second = a_closed_exam(engine, "1.9.1", study="1.9")
    assert claimed(queue, after=6 * LEASE).id == second


def test_a_clock_that_was_put_back_holds_up_no_job(engine: Engine, queue: JobQueue) -> None:
    back = timedelta(days=30)
    a_closed_exam(engine)
    first = queue.claim("ann", NOON)
    assert first
    queue.fail(first, "ann", "no luck", NOON)
    assert queue.claim("bob", NOON) is None
    second = queue.claim("bob", NOON - back)
    assert second
    assert second.attempts == 2
    # The lease that bob has now was taken by the new clock, and holds; one from before the jump does not.
    assert queue.claim("cat", NOON - back) is None
    assert queue.claim("cat", NOON - 2 * back)


def test_time_alone_can_use_a_job_up(engine: Engine) -> None:
    policy = RetryPolicy(quick=2, first=SECOND, slow=SECOND, give_up_after=HOUR)
    queue = JobQueue(engine, policy, LEASE)
    a_closed_exam(engine)
    queue.fail(claimed(queue), "ann", "", NOON)
    assert not claimed(queue, after=HOUR / 2).exhausted
    assert claimed(queue, after=HOUR).exhausted


def test_an_answer_to_an_older_revision_is_delivered_but_does_not_end_the_exam(engine: Engine, queue: JobQueue) -> None:
    a_closed_exam(engine)
    job = claimed(queue)
    an_exam(engine, "1.2.3.1.2", now=NOON + SECOND)
    finish(queue, job, "ann", a_result())
    exam = exam_of(engine, job)
    assert (exam.state, exam.revision, exam.status) == (ExamState.COLLECTING, 2, None)
    assert len(Outbox(engine, POLICY).of_exam(job.exam_id)) == 2


def test_no_older_answer_follows_once_a_newer_revision_is_queued(engine: Engine, queue: JobQueue) -> None:
    a_closed_exam(engine)
    older = claimed(queue)
    _, newer = a_closed_exam(engine, "1.2.3.1.2", now=NOON + SECOND)
    assert not queue.renew(older, "ann", NOON + SECOND)
    with pytest.raises(LeaseLost):
        finish(queue, older, "ann", a_result())
    assert claimed(queue, after=HOUR).id == newer
    assert queue.claim("ben", NOON + HOUR) is None


def test_results_are_listed_newest_revision_first(engine: Engine, queue: JobQueue) -> None:
    a_closed_exam(engine)
    finish(queue, claimed(queue), "ann", a_result("2.25.1"))
    exam, _ = a_closed_exam(engine, "1.2.3.1.2", now=NOON + SECOND)
    finish(queue, claimed(queue, after=HOUR), "ann", a_result("2.25.2"))
    with reading(engine) as connection:
        issued = results_of(connection, exam.id)
    assert [(result.record.uid, result.revision) for result in issued] == [("2.25.2", 2), ("2.25.1", 1)]


def test_retrying_a_dead_job_begins_anew(engine: Engine, queue: JobQueue) -> None:
    a_closed_exam(engine)
    finish(queue, used_up(queue), "ann", error="broken")
    queue.retry(1, NOON)
    job = claimed(queue)
    assert (job.attempts, job.exhausted, job.error, job.answer) == (1, False, None, None)
    exam = exam_of(engine, job)
    assert (exam.state, exam.status) == (ExamState.QUEUED, None)


def test_retrying_cuts_a_wait_short(engine: Engine, queue: JobQueue) -> None:
    a_closed_exam(engine)
    queue.fail(claimed(queue), "ann", "", NOON)
    queue.retry(1, NOON)
    assert queue.claim("ann", NOON) is not None


def test_only_an_idle_job_of_the_present_revision_can_be_retried(engine: Engine, queue: JobQueue) -> None:
    with pytest.raises(NoSuchJob):
        queue.retry(1, NOON)
    a_closed_exam(engine)
    job = claimed(queue)
    with pytest.raises(CannotRetry, match="running"):
        queue.retry(1, NOON)
    finish(queue, job)
    an_exam(engine, "1.2.3.1.2")
    with pytest.raises(CannotRetry, match="revision 1 of 2"):
        queue.retry(1, NOON)


def test_jobs_are_listed_by_exam_and_state_and_counted(engine: Engine, queue: JobQueue) -> None:
    first, _ = a_closed_exam(engine)
    second, _ = a_closed_exam(engine, "1.9.1", study="1.9")
    claimed(queue)
    assert [job.exam_id for job in queue.list_jobs(9)] == [second.id, first.id]
    assert [job.exam_id for job in queue.list_jobs(9, exam_id=first.id)] == [first.id]
    assert [job.exam_id for job in queue.list_jobs(9, state=JobState.QUEUED)] == [second.id]
    expected = dict.fromkeys(JobState, 0) | {JobState.QUEUED: 1, JobState.RUNNING: 1}
    assert queue.counts() == expected
