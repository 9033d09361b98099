"""Exams that are read again: a reading that failed or lost its lease, a late image, a second answer and what it names."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ai.exam import Exam
from config.mix import ResultKind
from storage.states import ExamState, JobState
from tests.builders import R_CC, altered
from tests.chain import (
    Chain,
    a_chain,
    breaks,
    exhaust,
    four,
    of_view,
    predecessors_of,
    summary_of,
    text_of,
)
from tests.peers import eventually
from tests.records import LEASE


@pytest.fixture
def chain(tmp_path: Path, engine: Engine) -> Chain:
    return a_chain(tmp_path, engine)


def test_reading_an_unchanged_exam_again_gives_the_same_bytes_and_sends_nothing_twice(chain: Chain) -> None:
    job = chain.close(four())
    chain.worker("first").work_once()
    issued, deliveries = chain.issued(), chain.outbox.of_exam(chain.exam.id)
    files = {path: (chain.room.store.root / path).read_bytes() for path in chain.room.files()}
    chain.clock.forward(timedelta(days=3))
    chain.queue.retry(job.id, chain.clock())
    assert chain.worker("second").work_once()
    assert chain.exam.state is ExamState.ANSWERED
    assert len(chain.reader.exams) == 2
    assert chain.issued() == issued
    assert chain.outbox.of_exam(chain.exam.id) == deliveries
    assert {path: (chain.room.store.root / path).read_bytes() for path in chain.room.files()} == files


def test_a_late_image_is_answered_anew_and_the_report_names_its_predecessor(chain: Chain) -> None:
    chain.close(four())
    chain.worker().work_once()
    former, segmentations = chain.report, chain.of_kind(ResultKind.SEG)
    repeat = altered(of_view(R_CC), SOPInstanceUID=f"{of_view(R_CC).SOPInstanceUID}.2", AcquisitionTime="235959")
    assert chain.close([repeat]).revision == 2
    chain.worker().work_once()
    report = chain.report
    assert former.SOPInstanceUID in predecessors_of(report)
    assert report.SOPInstanceUID not in predecessors_of(report)
    assert report.SeriesInstanceUID == former.SeriesInstanceUID
    renewed = {str(seg.SeriesInstanceUID) for seg in chain.of_kind(ResultKind.SEG)[:4]}
    assert renewed.isdisjoint(str(seg.SeriesInstanceUID) for seg in segmentations)
    assert repeat.SOPInstanceUID in {image.uid for image in chain.reader.exams[-1].images}
    assert f"NOT READ: image {of_view(R_CC).SOPInstanceUID}: R CC repeated" in text_of(report)


def test_a_reading_that_failed_is_tried_again_later(chain: Chain) -> None:
    chain.reader.meanwhile = breaks
    chain.close(four())
    assert chain.worker().work_once()
    assert chain.job.state is JobState.QUEUED
    assert not chain.worker().work_once()
    chain.clock.forward(timedelta(seconds=1))
    chain.reader.meanwhile = lambda _: None
    assert chain.worker().work_once()
    assert chain.exam.status == "findings"
    assert chain.job.attempts == 2


def test_an_exam_whose_reading_always_fails_is_answered_with_failed(chain: Chain) -> None:
    chain.reader.meanwhile = breaks
    chain.close(four())
    exhaust(chain)
    assert len(chain.reader.exams) == 3
    assert chain.exam.state is ExamState.FAILED
    assert chain.exam.status == "failed"
    assert chain.job.state is JobState.DEAD
    assert [record.kind for record in chain.sent_to("pacs")] == [ResultKind.SR]
    assert summary_of(chain.report) == "111245"
    assert "The reading failed 3 times." in text_of(chain.report)
    assert {delivery.kind for delivery in chain.outbox.of_exam(chain.exam.id)} == {"SR"}


def test_an_error_is_noted_with_its_place_and_without_what_it_quotes(chain: Chain) -> None:
    chain.reader.meanwhile = breaks
    chain.close(four())
    chain.worker().work_once()
    assert (chain.job.error or "").startswith("RuntimeError in chain.py:")
    assert "FOUR VIEWS" not in (chain.job.error or "")


def test_a_reading_that_succeeds_after_failed_was_answered_names_that_report_as_its_predecessor(chain: Chain) -> None:
    chain.reader.meanwhile = breaks
    job = chain.close(four())
    exhaust(chain)
    failed = chain.report.SOPInstanceUID
    chain.reader.meanwhile = lambda _: None
    for _ in range(2):
        chain.queue.retry(job.id, chain.clock())
        chain.worker().work_once()
        assert chain.exam.state is ExamState.ANSWERED
        reports = {str(report.SOPInstanceUID): report for report in chain.of_kind(ResultKind.SR)}
        assert len(reports) == 2
        [renewed] = [report for uid, report in reports.items() if uid != failed]
        assert failed in predecessors_of(renewed)


def a_late_worker(chain: Chain) -> Callable[[Exam], None]:
    """Let the lease end during the reading, and another worker take the job over."""

    def meanwhile(_exam: Exam) -> None:
        chain.clock.forward(2 * LEASE)
        assert chain.queue.claim("another", chain.clock())

    return meanwhile


def test_a_worker_that_lost_its_lease_hands_nothing_over(chain: Chain) -> None:
    chain.reader.meanwhile = a_late_worker(chain)
    chain.close(four())
    assert chain.worker().work_once()
    assert chain.issued() == []
    assert chain.job.state is JobState.RUNNING
    assert chain.job.lease_owner == "another"


def test_a_worker_that_lost_its_lease_and_then_fails_leaves_the_job_to_the_other(chain: Chain) -> None:
    lose = a_late_worker(chain)

    def meanwhile(exam: Exam) -> None:
        lose(exam)
        breaks(exam)

    chain.reader.meanwhile = meanwhile
    chain.close(four())
    assert chain.worker().work_once()
    assert chain.job.lease_owner == "another"
    assert chain.job.error is None


def test_the_lease_is_renewed_while_the_exam_is_read(chain: Chain) -> None:
    def meanwhile(_exam: Exam) -> None:
        for _ in range(3):
            chain.clock.forward(LEASE * 0.9)
            until = chain.clock() + LEASE
            assert eventually(lambda: chain.job.lease_until == until)  # noqa: B023
            assert chain.queue.claim("another", chain.clock()) is None

    chain.reader.meanwhile = meanwhile
    chain.close(four())
    chain.worker(heartbeat=0.01).work_once()
    assert chain.exam.status == "findings"
    assert chain.job.attempts == 1


@pytest.mark.parametrize("cancelled", [False, True])
def test_what_was_said_before_the_last_answer_is_said_anew(chain: Chain, *, cancelled: bool) -> None:
    job = chain.close(four())
    chain.worker().work_once()
    first = {str(report.SOPInstanceUID) for report in chain.of_kind(ResultKind.SR)}
    chain.clock.forward(timedelta(hours=1))
    chain.queue.retry(job.id, chain.clock())
    if cancelled:
        chain.queue.cancel(job.id, chain.clock())
        chain.worker().work_once()
    else:
        chain.reader.meanwhile = breaks
        exhaust(chain)
        chain.reader.meanwhile = lambda _: None
    [second] = {str(report.SOPInstanceUID) for report in chain.of_kind(ResultKind.SR)} - first
    for _ in range(2):  # the second reading says the same
        chain.clock.forward(timedelta(hours=1))
        chain.queue.retry(job.id, chain.clock())
        chain.worker().work_once()
        assert chain.exam.status == "findings"
        reports = {str(report.SOPInstanceUID): report for report in chain.of_kind(ResultKind.SR)}
        [third] = reports.keys() - first - {second}
        assert second in predecessors_of(reports[third])
        assert first.isdisjoint(predecessors_of(reports[third]))
        assert summary_of(reports[third]) == "111242"
