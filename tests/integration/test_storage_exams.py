"""Exams on both databases: opening, collecting, closing into a job."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import Engine, func, select

from storage.database import reading, writing
from storage.errors import AmbiguousExam, ExamChanged, NoSuchExam
from storage.exams import (
    ExamImage,
    ExamRecord,
    close,
    collecting,
    exam_of_study,
    find_exam,
    get_exam,
    hold,
    images_of,
    list_exams,
    set_due,
    touch,
)
from storage.index import add_instance
from storage.jobs import JobQueue
from storage.patients import PatientRecord
from storage.states import ExamState, JobState, Plan
from storage.tables import exam_images, jobs
from tests.records import ANNE, LEASE, MODEL, NOON, POLICY, SECOND, STUDY, a_closed_exam, an_exam, an_instance


def again(engine: Engine, exam: ExamRecord) -> ExamRecord:
    with reading(engine) as connection:
        return get_exam(connection, exam.id)


def close_it(engine: Engine, exam: ExamRecord, now_after: int = 20) -> int:
    with writing(engine) as connection:
        return close(
            connection,
            exam,
            chosen={"1.2.3.1.1": "R CC"},
            rejected={},
            plan=Plan.READ,
            reasons=(),
            model_digest=MODEL,
            now=NOON + now_after * SECOND,
        )


def test_the_first_image_opens_an_exam_and_the_next_joins_it(engine: Engine) -> None:
    first = an_exam(engine)
    second = an_exam(engine, "1.2.3.1.2", now=NOON + SECOND)
    assert (first.state, first.revision, first.arrivals) == (ExamState.COLLECTING, 1, 1)
    assert (second.id, second.revision, second.arrivals) == (first.id, 1, 2)
    assert (second.opened_at, second.last_image_at) == (NOON, NOON + SECOND)


def test_the_public_id_depends_on_patient_issuer_and_study_alone(engine: Engine) -> None:
    def uid_of(patient: PatientRecord, study: str, instance: str) -> str:
        record = an_instance(instance, patient=patient, study=study)
        with writing(engine) as connection:
            add_instance(connection, record)
            return touch(connection, patient, study, NOON).uid

    one = uid_of(ANNE, STUDY, "1.1")
    assert one == uid_of(ANNE, STUDY, "1.2")
    others = {
        uid_of(ANNE, "9", "1.3"),
        uid_of(PatientRecord("", "4711"), STUDY, "1.4"),
        uid_of(PatientRecord("HOSPITAL", "1"), STUDY, "1.5"),
    }
    assert len(others - {one}) == 3


def test_images_that_arrive_at_once_open_one_exam(engine: Engine) -> None:
    with ThreadPoolExecutor(8) as senders:
        seen = list(senders.map(lambda number: an_exam(engine, f"1.2.3.1.{number}"), range(8)))
    assert {exam.id for exam in seen} == {seen[0].id}
    assert sorted(exam.arrivals for exam in seen) == list(range(1, 9))


def test_closing_writes_images_state_and_job_together(engine: Engine) -> None:
    exam, job = a_closed_exam(engine, rejected={})
    assert (exam.state, exam.reasons, exam.due_at) == (ExamState.QUEUED, ("L CC missing",), None)
    with reading(engine) as connection:
        assert images_of(connection, exam.id, 1) == [ExamImage("1.2.3.1.1", "R CC", chosen=True, reason="")]
    [queued] = JobQueue(engine, POLICY, LEASE).list_jobs(9)
    assert (queued.id, queued.exam_uid, queued.revision, queued.state) == (job, exam.uid, 1, JobState.QUEUED)
    assert (queued.model_digest, queued.plan, queued.reasons) == (MODEL, Plan.READ, ("L CC missing",))


def test_a_close_that_fails_half_way_leaves_no_trace(engine: Engine) -> None:
    exam = an_exam(engine)

    def close_and_fail() -> None:
        with writing(engine) as connection:
            close(
                connection,
                exam,
                chosen={"1.2.3.1.1": "R CC"},
                rejected={},
                plan=Plan.READ,
                reasons=(),
                model_digest=MODEL,
                now=NOON,
            )
            raise LookupError

    with pytest.raises(LookupError):
        close_and_fail()
    assert again(engine, exam) == exam
    with reading(engine) as connection:
        assert connection.execute(select(func.count()).select_from(jobs)).scalar() == 0
        assert connection.execute(select(func.count()).select_from(exam_images)).scalar() == 0


def test_rejected_images_are_kept_with_their_reasons(engine: Engine) -> None:
    exam = an_exam(engine, "1.2.3.1.2")
    exam, _ = a_closed_exam(engine, rejected={"1.2.3.1.2": "For Processing"})
    with reading(engine) as connection:
        images = images_of(connection, exam.id, 1)
    assert [(image.instance_uid, image.chosen, image.reason) for image in images] == [
        ("1.2.3.1.1", True, ""),
        ("1.2.3.1.2", False, "For Processing"),
    ]


def test_an_image_that_arrives_while_the_exam_is_being_closed_is_not_lost(engine: Engine) -> None:
    seen = an_exam(engine)
    an_exam(engine, "1.2.3.1.2")  # in the same instant, in the same revision
    with pytest.raises(ExamChanged):
        close_it(engine, seen)
    assert again(engine, seen).state is ExamState.COLLECTING
    close_it(engine, again(engine, seen))


def test_closing_twice_makes_one_job(engine: Engine) -> None:
    exam = an_exam(engine)
    assert close_it(engine, exam) == close_it(engine, exam)
    assert sum(JobQueue(engine, POLICY, LEASE).counts().values()) == 1


def test_clocks_that_close_at_once_make_one_job(engine: Engine) -> None:
    exam = an_exam(engine)
    with ThreadPoolExecutor(4) as clocks:
        assert len(set(clocks.map(lambda _: close_it(engine, exam), range(4)))) == 1


def test_an_image_after_closing_begins_the_next_revision(engine: Engine) -> None:
    exam, _ = a_closed_exam(engine)
    exam = an_exam(engine, "1.2.3.1.2", now=NOON + timedelta(hours=1))
    assert (exam.state, exam.revision, exam.opened_at) == (ExamState.COLLECTING, 2, NOON + timedelta(hours=1))
    assert (exam.status, exam.reasons) == (None, ())


def test_the_job_of_an_older_revision_waits_until_the_newer_is_closed(engine: Engine) -> None:
    queue = JobQueue(engine, POLICY, LEASE)
    _, first = a_closed_exam(engine)
    exam = an_exam(engine, "1.2.3.1.2", now=NOON + SECOND)
    assert queue.counts()[JobState.QUEUED] == 1
    second = close_it(engine, exam)
    states = {job.id: job.state for job in queue.list_jobs(9)}
    assert states == {first: JobState.SUPERSEDED, second: JobState.QUEUED}


def test_only_collecting_exams_are_looked_at_by_the_clock(engine: Engine) -> None:
    a_closed_exam(engine)
    later = an_exam(engine, "1.2.4.1.1", study="1.2.4", now=NOON + SECOND)
    earlier = an_exam(engine, "1.2.5.1.1", study="1.2.5")
    with reading(engine) as connection:
        assert collecting(connection) == [earlier, later]


def test_the_time_of_the_next_look_is_forgotten_when_an_image_arrives(engine: Engine) -> None:
    exam = an_exam(engine)
    with writing(engine) as connection:
        set_due(connection, exam, NOON + SECOND)
    assert again(engine, exam).due_at == NOON + SECOND
    assert an_exam(engine, "1.2.3.1.2").due_at is None
    with writing(engine) as connection:
        set_due(connection, exam, NOON + SECOND)  # from a look before the image
    assert again(engine, exam).due_at is None


def test_an_exam_is_found_by_the_beginning_of_its_id(engine: Engine) -> None:
    exams = [an_exam(engine, f"1.{number}.1", study=f"1.{number}") for number in range(20)]
    with reading(engine) as connection:
        assert find_exam(connection, exams[0].uid[:12].upper()) == exams[0]
        for nothing in ("", "xyz", "%", "_", exams[0].uid + "0"):
            with pytest.raises(NoSuchExam):
                find_exam(connection, nothing)
        [shared, *_] = [each for each in "0123456789abcdef" if sum(exam.uid[0] == each for exam in exams) > 1]
        with pytest.raises(AmbiguousExam):
            find_exam(connection, shared)
        with pytest.raises(NoSuchExam):
            get_exam(connection, 0)


def test_the_exam_of_a_study_is_that_of_the_same_patient(engine: Engine) -> None:
    exam = an_exam(engine)
    with reading(engine) as connection:
        assert exam_of_study(connection, ANNE, STUDY) == exam
        assert exam_of_study(connection, PatientRecord("", "4711"), STUDY) is None


def test_exams_are_listed_newest_first_and_by_state(engine: Engine) -> None:
    closed, _ = a_closed_exam(engine)
    newest = an_exam(engine, "1.2.4.1.1", study="1.2.4", now=NOON + SECOND)
    with reading(engine) as connection:
        assert list_exams(connection, 9) == [newest, closed]
        assert list_exams(connection, 1) == [newest]
        assert list_exams(connection, 9, ExamState.QUEUED) == [closed]


def test_holding_an_exam_is_remembered(engine: Engine) -> None:
    exam = an_exam(engine)
    for held in (True, False):
        with writing(engine) as connection:
            hold(connection, exam.id, held=held)
        assert again(engine, exam).held is held
