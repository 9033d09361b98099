"""Earlier exams of a patient on both databases: recognised, and told so or only kept."""

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import Dataset
from sqlalchemy import Engine

from config.mix import ResultKind
from config.policy import PriorPolicy
from config.settings import Destination
from node.results.answer import AnswerStatus
from storage.database import reading
from storage.exams import ExamRecord, list_exams
from storage.states import ExamState, Plan
from tests.builders import altered
from tests.chain import QUIET, Chain, a_chain, text_of
from tests.doors import phantom_images

REPORTS = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104, objects=(ResultKind.SR,))
ANSWERED, KEPT = PriorPolicy(90), PriorPolicy(90, answered=False)


@pytest.fixture
def chain(tmp_path: Path, engine: Engine) -> Chain:
    return a_chain(tmp_path, engine)


def of(date: str, images: Iterable[Dataset] = phantom_images(), study: str = "1.2.5") -> list[Dataset]:
    """Return the images as another study of that date."""
    return [
        altered(
            image,
            StudyDate=date,
            StudyInstanceUID=study,
            SeriesInstanceUID=f"{study}.1",
            SOPInstanceUID=f"{study}.{number}",
        )
        for number, image in enumerate(images, start=1)
    ]


def close(chain: Chain, policy: PriorPolicy) -> None:
    chain.clock.forward(QUIET.incomplete_quiet)
    chain.exam_clock(priors=policy).tick()


def exams(chain: Chain) -> dict[str, ExamRecord]:
    with reading(chain.room.engine) as connection:
        return {exam.study_uid: exam for exam in list_exams(connection, 9)}


def test_a_prior_is_told_so(chain: Chain) -> None:
    chain.receive(of("20240304"))
    close(chain, ANSWERED)
    assert (chain.job.plan, chain.job.reasons) == (Plan.NOT_ANALYSED, ("prior exam of 2024-03-04",))
    assert chain.worker(destinations=[REPORTS]).work_once()
    assert chain.exam.status == AnswerStatus.NOT_ANALYSED
    assert chain.reader.exams == []
    assert "prior exam of 2024-03-04" in text_of(chain.report)


def test_a_prior_is_only_kept_where_the_site_says_so(chain: Chain) -> None:
    chain.receive(of("20240304"))
    close(chain, KEPT)
    assert (chain.exam.state, chain.exam.reasons) == (ExamState.PRIOR, ("prior exam of 2024-03-04",))
    assert chain.queue.list_jobs(9) == []
    chain.receive(of("20240304", phantom_images()[:1] * 5)[-1:])
    assert (chain.exam.state, chain.exam.revision) == (ExamState.COLLECTING, 2)
    close(chain, KEPT)
    assert chain.exam.state is ExamState.PRIOR


def test_a_prior_and_a_new_exam_that_come_together_are_two(chain: Chain) -> None:
    chain.receive([*of("20240304", study="1.2.5"), *of("20260301", study="1.2.6")])
    close(chain, KEPT)
    found = exams(chain)
    assert (found["1.2.5"].state, found["1.2.6"].state) == (ExamState.PRIOR, ExamState.QUEUED)


def test_an_image_that_comes_a_year_later_makes_no_prior_of_an_exam_that_was_read(chain: Chain) -> None:
    *first, late = of("20260301")
    chain.receive(first)
    close(chain, ANSWERED)
    chain.clock.forward(timedelta(days=365))
    chain.receive([late])
    close(chain, ANSWERED)
    assert (chain.job.revision, chain.job.plan, chain.job.reasons) == (2, Plan.READ, ())


@pytest.mark.parametrize(
    ("date", "policy"),
    [("19991231", PriorPolicy()), ("", ANSWERED), ("2024", ANSWERED), ("20251204", ANSWERED), ("20991231", ANSWERED)],
)
def test_what_is_not_older_or_has_no_date_is_read(chain: Chain, date: str, policy: PriorPolicy) -> None:
    chain.receive(of(date))
    close(chain, policy)
    assert chain.job.plan is Plan.READ


def test_one_day_more_makes_a_prior(chain: Chain) -> None:
    chain.receive(of("20251203"))
    close(chain, ANSWERED)
    assert chain.job.plan is Plan.NOT_ANALYSED
