"""Another model on a node that has exams: who reads what was queued, read and refused for the former one, and what is told."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs

from ai.exam import ViewImage
from ai.findings import ImageFindings, ModelIdentity
from node.judging import Rules
from node.serving import tell_of_another_model
from node.views import kinds_of
from storage.states import ExamState, Plan
from tests.builders import altered
from tests.chain import Chain, FakeReader, a_chain, four, predecessors_of, text_of

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
