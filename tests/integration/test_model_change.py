"""Another model on a node that has exams: who reads what was queued, read and refused for the former one, and what is told."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from sqlalchemy import Connection, Engine
from structlog.testing import capture_logs

from ai.exam import STANDARD_VIEWS, View, ViewImage
from ai.findings import ImageFindings, ModelIdentity
from config.policy import PriorPolicy
from node.judging import Judged, Rules
from node.serving import tell_of_another_model
from node.views import kinds_of
from node.worker import Worker
from storage.states import ExamState, JobState, Plan
from tests.builders import R_CC, altered
from tests.chain import Chain, FakeReader, a_chain, breaks, four, of_view, predecessors_of, text_of
from tests.records import POLICY

FORMER = FakeReader().model
NEXT = replace(FORMER, name="next", version="3", digest="cd" * 32)
A_WHILE = timedelta(minutes=10)
OF_RAW_IMAGES = replace(NEXT, accepts=("FOR PROCESSING",))


@pytest.fixture
def chain(tmp_path: Path, engine: Engine) -> Chain:
    return a_chain(tmp_path, engine)


def read_by(chain: Chain, reader: FakeReader) -> list[tuple[str, str]]:
    """Let a worker that starts now read what waits; return what it says of models."""
    with capture_logs() as logs:
        assert chain.worker(reader=reader).work_once()
    return [(line["event"], line["log_level"]) for line in logs if "model" in line["event"]]


def read_with(worker: Worker) -> list[str]:
    """Let a worker do a job; return what it says of models."""
    with capture_logs() as logs:
        assert worker.work_once()
    return [line["event"] for line in logs if "model" in line["event"]]


def test_what_was_queued_for_the_former_model_is_read_once_by_the_next_and_without_alarm(chain: Chain) -> None:
    job = chain.close(four())
    chain.clock.forward(A_WHILE)
    assert read_by(chain, FakeReader(model=NEXT)) == [("job of a former model", "info")]
    assert job.model_digest == FORMER.digest
    assert chain.job.model_digest == NEXT.digest
    assert [told["model"]["name"] for told in chain.facts()] == ["next"]
    assert not chain.worker().work_once()


def test_the_log_tells_which_model_has_read_an_exam(chain: Chain) -> None:
    chain.close(four())
    with capture_logs() as logs:
        assert chain.worker(reader=FakeReader(model=NEXT)).work_once()
    assert [line["model"] for line in logs if line["event"] == "job finished"] == ["next 3"]


def test_a_model_that_has_read_nothing_here_is_told_of_until_it_has(chain: Chain) -> None:
    def told(model: ModelIdentity) -> list[str]:
        with capture_logs() as logs:
            tell_of_another_model(chain.room.engine, model)
        return [f"{line['model']} {line['former']}" for line in logs]

    assert told(NEXT) == [], "nothing was read here"
    chain.close(four())
    assert chain.worker().work_once()
    assert told(FORMER) == []
    assert told(NEXT) == [f"next 3 {FORMER.digest[:12]}"]
    chain.clock.forward(A_WHILE)
    chain.queue.retry(chain.job.id, chain.clock())
    assert chain.worker(reader=FakeReader(model=NEXT)).work_once()
    assert told(NEXT) == []
    assert told(FORMER) == [f"phantom-reader 1.2 {NEXT.digest[:12]}"]


def test_a_worker_that_the_exam_clock_knows_nothing_of_says_so(chain: Chain) -> None:
    worker = chain.worker(reader=FakeReader(model=NEXT))
    chain.close(four())
    with capture_logs() as logs:
        assert worker.work_once()
    assert ("job was meant for another model", "warning") in [(line["event"], line["log_level"]) for line in logs]


def test_each_model_that_reads_an_exam_again_supersedes_the_one_before(chain: Chain) -> None:
    job = chain.close(four())
    reports = []
    for model in (FORMER, NEXT, FORMER):
        read_by(chain, FakeReader(model=model))
        reports.append(chain.report)
        chain.clock.forward(A_WHILE)
        chain.queue.retry(job.id, chain.clock())
    first, second, third = (str(report.SOPInstanceUID) for report in reports)
    assert len({first, second, third}) == 3
    assert first in predecessors_of(reports[1])
    assert second in predecessors_of(reports[2])
    assert "read by next 3 (was phantom-reader 1.2)" in text_of(reports[1])
    assert "read by phantom-reader 1.2 (was next 3)" in text_of(reports[2])


def test_pictures_of_the_former_model_that_the_next_does_not_make_are_not_left_for_ever(chain: Chain) -> None:
    class WithMaps(FakeReader):
        def found(self, image: ViewImage) -> ImageFindings:
            return replace(super().found(image), probability=np.zeros(image.shape, np.float32))

    job = chain.close(four())
    read_by(chain, WithMaps())
    pictures = chain.room.store.root / "previews"
    assert len([*pictures.rglob("*.map.png")]) == 4
    chain.queue.retry(job.id, chain.clock())
    read_by(chain, FakeReader(model=NEXT))
    assert sorted(path.suffix for path in pictures.rglob("*.*")) == 4 * [".jpg"]


def test_a_model_reads_no_image_of_a_kind_that_only_the_former_one_reads(chain: Chain) -> None:
    assert chain.close(four()).plan is Plan.READ
    reader = FakeReader(model=OF_RAW_IMAGES)
    read_by(chain, reader)
    assert reader.exams == []
    assert (chain.exam.state, chain.exam.status) == (ExamState.ANSWERED, "not analysed")
    assert "For Presentation, which the reader does not read" in text_of(chain.report)
    assert chain.facts()[0]["reasons"]


def test_what_came_for_the_former_model_and_still_collects_is_judged_for_the_next(chain: Chain) -> None:
    # Taken in for a model that does not read them; processed all the same, or the gate would refuse them.
    chain.receive(altered(image, PresentationIntentType="FOR PROCESSING") for image in four())
    chain.reader = FakeReader(model=OF_RAW_IMAGES)
    chain.clock.forward(A_WHILE)
    assert chain.exam_clock(rules=Rules(kinds_of(OF_RAW_IMAGES.accepts))).tick() == 1
    assert chain.job.plan is Plan.READ
    assert chain.worker().work_once()
    assert chain.exam.status == "findings"
    assert len(chain.reader.exams[0].images) == 4


OF_BOTH = replace(NEXT, accepts=("FOR PRESENTATION", "FOR PROCESSING"))


def raw(view: View) -> Dataset:
    """Return an image that only ``OF_BOTH`` reads, processed all the same, or the gate would refuse it."""
    return altered(of_view(view), PresentationIntentType="FOR PROCESSING")


@pytest.mark.parametrize(
    ("views", "status"), [(STANDARD_VIEWS, "not analysed"), ((R_CC,), "partial, findings")], ids=["all", "one"]
)
def test_what_waits_is_judged_again_by_a_model_that_reads_more_kinds_of_image(
    chain: Chain, views: Sequence[View], status: str
) -> None:
    job = chain.close(raw(view) if view in views else of_view(view) for view in STANDARD_VIEWS)
    assert job.reasons
    chain.clock.forward(A_WHILE)
    worker = chain.worker(reader=FakeReader(model=OF_BOTH))
    assert read_with(worker) == ["job of a former model", "judged again for another model"]
    assert chain.queue.list_jobs(9)[1].state is JobState.SUPERSEDED
    assert worker.work_once()
    assert not worker.work_once()
    assert (chain.exam.revision, chain.exam.status, chain.exam.reasons) == (2, "findings", ())
    assert "which the reader does not read" not in text_of(chain.report)
    assert [told["status"] for told in chain.facts()] == ["findings"], f"{status} was never told"


def test_what_would_be_closed_alike_for_both_models_is_not_judged_again(chain: Chain) -> None:
    chain.close([*four(), altered(raw(R_CC), SOPInstanceUID=f"{of_view(R_CC).SOPInstanceUID}.1")])
    chain.clock.forward(A_WHILE)
    assert chain.worker(reader=FakeReader(model=OF_BOTH)).work_once()
    assert (chain.exam.revision, chain.exam.status) == (1, "findings")


def test_what_is_not_to_be_read_for_another_reason_is_not_judged_again(chain: Chain) -> None:
    job = chain.close([*(of_view(view) for view in STANDARD_VIEWS if view != R_CC), raw(R_CC)])
    chain.queue.cancel(job.id, chain.clock())
    chain.clock.forward(A_WHILE)
    reader = FakeReader(model=OF_BOTH)
    assert chain.worker(reader=reader).work_once()
    assert (chain.exam.revision, chain.exam.status, reader.exams) == (1, "not analysed", [])
    assert "The reading was cancelled by an operator." in text_of(chain.report)


def test_a_prior_is_not_read_because_another_model_reads_more(chain: Chain) -> None:
    chain.receive(altered(raw(view), StudyDate="20100101") for view in STANDARD_VIEWS)
    chain.clock.forward(A_WHILE)
    assert chain.exam_clock(priors=PriorPolicy(90)).tick() == 1
    chain.clock.forward(A_WHILE)
    reader = FakeReader(model=OF_BOTH)
    assert chain.worker(reader=reader).work_once()
    assert (chain.exam.revision, chain.exam.status, reader.exams) == (1, "not analysed", [])


def test_a_reading_that_is_cancelled_while_it_is_judged_again_stays_cancelled(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = chain.close(raw(view) if view == R_CC else of_view(view) for view in STANDARD_VIEWS)
    chain.clock.forward(A_WHILE)
    judge = Rules.judge

    def cancelled_meanwhile(rules: Rules, connection: Connection, exam_id: int) -> Judged:
        chain.queue.cancel(job.id, chain.clock())
        return judge(rules, connection, exam_id)

    monkeypatch.setattr(Rules, "judge", cancelled_meanwhile)
    with capture_logs() as logs:
        assert chain.worker(reader=FakeReader(model=OF_BOTH)).work_once()
    assert "job lost" in {line["event"] for line in logs}
    assert (chain.job.state, chain.job.plan, chain.exam.revision) == (JobState.QUEUED, Plan.NOT_ANALYSED, 1)


def used_up(chain: Chain) -> None:
    """Let the former model fail as often as it may, and another come."""
    chain.reader.meanwhile = breaks
    chain.close(four())
    assert POLICY.attempts
    for _ in range(POLICY.attempts):
        assert chain.worker().work_once()
        chain.clock.forward(A_WHILE)
    assert (chain.job.state, chain.job.attempts) == (JobState.QUEUED, POLICY.attempts)


def test_what_the_former_model_could_not_read_the_next_tries_before_it_says_so(chain: Chain) -> None:
    used_up(chain)
    assert read_by(chain, FakeReader(model=NEXT)) == [("job of a former model", "info")]
    assert (chain.exam.status, chain.job.state, chain.job.error) == ("findings", JobState.DONE, None)
    assert [told["model"]["name"] for told in chain.facts()] == ["next"]


def test_what_neither_model_could_read_is_answered_with_failed_after_one_attempt(chain: Chain) -> None:
    used_up(chain)
    reader = FakeReader(model=NEXT, meanwhile=breaks)
    for _ in range(2):
        assert chain.worker(reader=reader).work_once()
        chain.clock.forward(A_WHILE)
    assert len(reader.exams) == 1
    assert (chain.exam.status, chain.job.state) == ("failed", JobState.DEAD)
    assert POLICY.attempts
    assert f"The reading failed {POLICY.attempts + 1} times." in text_of(chain.report)
