"""Exams that somebody has read again: as they were closed, or as the rules of today would close them, on both databases."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import Dataset
from sqlalchemy import Engine

from ai.exam import Laterality
from config.policy import PriorPolicy
from config.settings import Settings, Storage
from node.corrections import Corrections
from node.judging import Rules
from node.parts import Parts
from node.rereading import Again, read_again
from node.views import ImageKind
from storage.conflicts import list_conflicts
from storage.database import reading
from storage.errors import CannotRetry
from storage.exams import list_exams
from storage.states import ExamState, JobState, Plan
from tests.builders import altered
from tests.chain import QUIET, Chain, a_chain, four, predecessors_of

RAW = Rules(frozenset({ImageKind.FOR_PRESENTATION, ImageKind.FOR_PROCESSING}))
KEPT = PriorPolicy(90, answered=False)
A_WHILE = timedelta(minutes=10)


@pytest.fixture
def chain(tmp_path: Path, engine: Engine) -> Chain:
    return a_chain(tmp_path, engine)


def again(chain: Chain, rules: Rules = Rules(), notes: list[int] | None = None) -> Again:  # noqa: B008 (frozen)
    """Have the exam read again as an operator would."""
    settings = Settings(storage=Storage(folder=chain.room.store.root))
    parts = Parts(settings, chain.room.engine, chain.room.store, chain.queue, chain.outbox)
    chain.clock.forward(A_WHILE)
    told: list[int] = [] if notes is None else notes
    return read_again(
        parts, rules, chain.reader.model.digest, chain.exam, chain.clock(), lambda _, revision: told.append(revision)
    )


def raw(images: Sequence[Dataset]) -> list[Dataset]:
    """Return images as the detector made them."""
    return [altered(image, PresentationIntentType="FOR PROCESSING") for image in images]


def of_the_left(images: Sequence[Dataset]) -> list[Dataset]:
    return [image for image in images if image.ImageLaterality == Laterality.LEFT]


def test_what_would_be_closed_alike_is_the_same_revision(chain: Chain) -> None:
    job = chain.close(four())
    assert chain.worker().work_once()
    notes: list[int] = []
    assert again(chain, notes=notes) == Again(job.id, 1, anew=False)
    assert notes == [1]
    assert chain.worker().work_once()
    assert len(chain.facts()) == 1


def test_what_no_model_read_is_read_once_one_reads_it(chain: Chain) -> None:
    chain.close(raw(four()))
    assert chain.worker().work_once()
    assert (chain.exam.status, chain.reader.exams) == ("not analysed", [])
    former = chain.report
    assert not again(chain).anew
    assert chain.worker().work_once()
    assert chain.exam.revision == 1
    chain.reader.model = replace(chain.reader.model, digest="cd" * 32, accepts=("FOR PRESENTATION", "FOR PROCESSING"))
    notes: list[int] = []
    found = again(chain, RAW, notes)
    assert (found.revision, found.anew, notes) == (2, True, [2])
    assert (chain.job.id, chain.job.plan, chain.exam.state) == (found.job, Plan.READ, ExamState.QUEUED)
    assert chain.worker().work_once()
    assert chain.exam.status == "findings"
    assert str(former.SOPInstanceUID) in predecessors_of(chain.report)


def test_a_partial_answer_becomes_whole_when_the_site_says_that_one_breast_suffices(chain: Chain) -> None:
    chain.close(of_the_left(four()))
    assert chain.worker().work_once()
    assert chain.exam.status == "partial, findings"
    assert again(chain, Rules(one_breast_suffices=True)).revision == 2
    assert chain.job.reasons == ("unilateral: L breast only",)


@pytest.mark.parametrize("policy", [KEPT, PriorPolicy(90)])
def test_a_prior_is_read_when_somebody_wants_it_and_stays_so_when_an_image_comes_late(
    chain: Chain, policy: PriorPolicy
) -> None:
    *first, late = [altered(image, StudyDate="20240304") for image in four()]
    chain.receive(first)
    chain.clock.forward(QUIET.incomplete_quiet)
    chain.exam_clock(priors=policy).tick()
    if policy.answered:
        assert chain.worker().work_once()
    assert again(chain).anew
    assert (chain.job.plan, chain.exam.revision) == (Plan.READ, 2)
    assert chain.worker().work_once()
    assert chain.exam.status == "partial, findings"
    chain.receive([late])
    chain.clock.forward(QUIET.incomplete_quiet)
    chain.exam_clock(priors=policy).tick()
    assert (chain.job.plan, chain.job.reasons, chain.job.revision) == (Plan.READ, (), 3)


def test_a_prior_that_was_read_is_answered_anew_under_the_identity_that_is_put_right(chain: Chain) -> None:
    images = [altered(image, StudyDate="20240304") for image in four()]
    chain.receive(images)
    chain.clock.forward(QUIET.incomplete_quiet)
    chain.exam_clock(priors=KEPT).tick()
    assert again(chain).anew
    assert chain.worker().work_once()
    chain.receive(altered(image, PatientID="RIGHT") for image in images)
    decisions = Corrections(chain.room.engine, chain.room.store, frozenset(Rules().accepts), chain.clock)
    with reading(chain.room.engine) as connection:
        waiting = list_conflicts(connection)
    for conflict in waiting:
        decisions.accept(conflict.id)
    chain.clock.forward(QUIET.incomplete_quiet)
    chain.exam_clock(priors=KEPT).tick()
    with reading(chain.room.engine) as connection:
        states = {exam.patient.patient_id: exam.state for exam in list_exams(connection, 9)}
    assert states == {"PHANTOM-1": ExamState.MOVED, "RIGHT": ExamState.QUEUED}
    assert chain.job.plan is Plan.READ


def test_what_was_cancelled_is_read_as_it_was_closed(chain: Chain) -> None:
    job = chain.close(of_the_left(four()))
    chain.queue.cancel(job.id, chain.clock())
    assert again(chain) == Again(job.id, 1, anew=False)
    assert (chain.job.plan, chain.job.reasons) == (Plan.READ, job.reasons)


def test_what_was_cancelled_is_judged_anew_as_anything_else_is(chain: Chain) -> None:
    chain.queue.cancel(chain.close(of_the_left(four())).id, chain.clock())
    assert again(chain, Rules(one_breast_suffices=True)).revision == 2
    assert (chain.job.plan, chain.job.reasons) == (Plan.READ, ("unilateral: L breast only",))


def test_an_exam_that_collects_or_is_being_read_is_left_alone(chain: Chain) -> None:
    chain.receive(four())
    with pytest.raises(CannotRetry, match="still awaited"):
        again(chain)
    chain.clock.forward(QUIET.incomplete_quiet)
    chain.exam_clock().tick()
    assert chain.queue.claim("worker", chain.clock())
    for rules in (Rules(), Rules(frozenset())):
        with pytest.raises(CannotRetry, match="running"):
            again(chain, rules)
    assert (chain.exam.revision, chain.job.state) == (1, JobState.RUNNING)


def test_what_changes_while_it_is_judged_is_not_closed_on_images_that_nobody_looked_at(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    *first, late = raw(four())
    chain.close(first)
    assert chain.worker().work_once()
    judge = Rules.judge

    def slowly(rules: Rules, *args: object) -> object:
        judged = judge(rules, *args)  # type: ignore[arg-type]
        chain.receive([late])
        return judged

    monkeypatch.setattr(Rules, "judge", slowly)
    with pytest.raises(CannotRetry, match="changed meanwhile"):
        again(chain, RAW)
    assert chain.exam.state is ExamState.COLLECTING
