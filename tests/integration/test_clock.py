"""The exam clock on both databases: when exams are closed, into which jobs, and what an image in between changes."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from pydicom import Dataset
from sqlalchemy import Connection, Engine, update

from ai.exam import STANDARD_VIEWS, Laterality
from node.clock import ExamClock
from node.judging import Judged, Rules
from storage.database import reading, writing
from storage.exams import images_of, list_exams
from storage.states import ExamState, JobState, Plan
from storage.tables import instances
from tests.builders import altered, for_processing
from tests.chain import QUIET, Chain, a_chain
from tests.doors import phantom_images

MOMENT = timedelta(milliseconds=1)


@pytest.fixture
def chain(tmp_path: Path, engine: Engine) -> Chain:
    return a_chain(tmp_path, engine)


def of_another_patient(image: Dataset) -> Dataset:
    return altered(
        image,
        PatientID="ANOTHER",
        StudyInstanceUID=f"{image.StudyInstanceUID}.1",
        SeriesInstanceUID=f"{image.SeriesInstanceUID}.1",
        SOPInstanceUID=f"{image.SOPInstanceUID}.1",
    )


def test_four_views_are_closed_after_the_short_quiet_time_and_not_before(chain: Chain) -> None:
    chain.receive(phantom_images())
    chain.clock.forward(QUIET.complete_quiet - MOMENT)
    assert chain.exam_clock().tick() == 0
    assert chain.exam.due_at == chain.clock() + MOMENT
    chain.clock.forward(MOMENT)
    assert chain.exam_clock().tick() == 1
    assert chain.exam.state is ExamState.QUEUED
    assert (chain.job.plan, chain.job.reasons, chain.job.revision) == (Plan.READ, (), 1)
    with reading(chain.room.engine) as connection:
        decided = images_of(connection, chain.exam.id, 1)
    assert {image.view for image in decided if image.chosen} == {str(view) for view in STANDARD_VIEWS}


def test_the_clock_tells_when_the_first_exam_is_due(chain: Chain) -> None:
    clock = chain.exam_clock()
    assert clock.tick() == 0
    assert clock.due_at is None
    chain.receive(map(of_another_patient, phantom_images()[:1]))
    chain.clock.forward(timedelta(seconds=1))
    begin = chain.clock()
    chain.receive(phantom_images())
    assert clock.tick() == 0
    assert clock.due_at == begin + QUIET.complete_quiet
    chain.clock.forward(QUIET.complete_quiet)
    assert clock.tick() == 1
    assert clock.due_at == begin - timedelta(seconds=1) + QUIET.incomplete_quiet
    chain.clock.forward(QUIET.incomplete_quiet)
    assert clock.tick() == 1
    assert clock.due_at is None


def test_an_exam_that_cannot_be_judged_leaves_the_others_their_time(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = chain.exam_clock()
    chain.receive(phantom_images())
    assert clock.tick() == 0
    judge, first = Rules.judge, chain.exam.id
    chain.clock.forward(QUIET.complete_quiet)
    chain.receive(map(of_another_patient, phantom_images()))

    def fails(rules: Rules, connection: Connection, exam_id: int) -> Judged:
        if exam_id == first:
            raise LookupError
        return judge(rules, connection, exam_id)

    monkeypatch.setattr(Rules, "judge", fails)
    assert clock.tick() == 0
    assert clock.due_at == chain.clock() + QUIET.complete_quiet


def test_an_exam_is_closed_once(chain: Chain) -> None:
    chain.close(phantom_images())
    assert chain.exam_clock().tick() == 0
    assert len(chain.queue.list_jobs(9)) == 1


def test_three_views_are_awaited_for_the_long_quiet_time(chain: Chain) -> None:
    chain.receive(phantom_images()[:3])
    chain.clock.forward(QUIET.incomplete_quiet - MOMENT)
    assert chain.exam_clock().tick() == 0
    chain.clock.forward(MOMENT)
    assert chain.exam_clock().tick() == 1
    assert chain.job.plan is Plan.READ
    assert chain.job.reasons == ("L MLO not read: no image received",)


@pytest.mark.parametrize("put_back", [timedelta(0), timedelta(days=7)])
def test_images_that_keep_coming_are_cut_off_by_the_hard_cap(chain: Chain, put_back: timedelta) -> None:
    image = phantom_images()[0]
    chain.receive([image])
    chain.clock.forward(-put_back)
    begin = chain.clock()
    closed = 0
    while not closed:
        assert chain.clock() < begin + QUIET.hard_cap + QUIET.incomplete_quiet
        chain.receive([altered(image, SOPInstanceUID=f"{image.SOPInstanceUID}.{int(chain.clock().timestamp())}")])
        closed = chain.exam_clock().tick()
        chain.clock.forward(QUIET.incomplete_quiet * 0.8)


def test_for_processing_alone_waits_out_the_long_timer_and_is_not_analysed(chain: Chain) -> None:
    chain.receive(map(for_processing, phantom_images()))
    chain.clock.forward(QUIET.complete_quiet)
    assert chain.exam_clock().tick() == 0
    chain.clock.forward(QUIET.incomplete_quiet)
    assert chain.exam_clock().tick() == 1
    assert chain.job.plan is Plan.NOT_ANALYSED
    assert chain.job.reasons == ("For Processing, which the reader does not read",)


def test_one_breast_is_unilateral_where_the_site_says_that_it_suffices(chain: Chain) -> None:
    views = zip(STANDARD_VIEWS, phantom_images(), strict=True)
    chain.receive(image for view, image in views if view.laterality is Laterality.LEFT)
    chain.clock.forward(QUIET.incomplete_quiet)
    assert chain.exam_clock(rules=Rules(one_breast_suffices=True)).tick() == 1
    assert chain.job.reasons == ("unilateral: L breast only",)


def test_an_image_that_arrives_while_its_exam_is_being_closed_is_not_left_out(chain: Chain) -> None:
    *first, last = phantom_images()
    chain.receive(first)
    chain.clock.forward(QUIET.incomplete_quiet)
    late = [last]

    def now() -> datetime:  # asked after the images were looked at, and before the exam is closed
        chain.receive([late.pop()] if late else [])
        return chain.clock()

    clock = ExamClock(chain.room.engine, QUIET, "digest", now)
    assert clock.tick() == 0
    assert chain.exam.state is ExamState.COLLECTING
    chain.clock.forward(QUIET.complete_quiet)
    assert clock.tick() == 1
    assert chain.job.reasons == ()


def test_an_image_after_the_exam_was_closed_makes_a_revision_that_supersedes_the_job_that_waits(chain: Chain) -> None:
    first = chain.close(phantom_images()[:3])
    second = chain.close(phantom_images()[3:])
    assert (first.revision, second.revision) == (1, 2)
    assert [job.state for job in chain.queue.list_jobs(9)] == [JobState.QUEUED, JobState.SUPERSEDED]


def test_an_exam_that_cannot_be_judged_holds_up_no_other(chain: Chain) -> None:
    chain.receive([phantom_images()[0]])
    with writing(chain.room.engine) as connection:
        connection.execute(update(instances).values(kind="a kind of the next version"))
    chain.receive(map(of_another_patient, phantom_images()))
    chain.clock.forward(QUIET.incomplete_quiet)
    assert chain.exam_clock().tick() == 1
    with reading(chain.room.engine) as connection:
        states = {exam.patient.patient_id: exam.state for exam in list_exams(connection, 9)}
    assert states == {"PHANTOM-1": ExamState.COLLECTING, "ANOTHER": ExamState.QUEUED}
