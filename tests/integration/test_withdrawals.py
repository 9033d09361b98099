"""Rejection notes that arrive (rule R7) on both databases: what they take back, from which answer, and in which order."""

from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence
from sqlalchemy import Engine

from ai.exam import STANDARD_VIEWS
from config.mix import ResultKind
from config.settings import Destination
from node.intake import Outcome
from node.results.answer import AnswerStatus
from node.withdrawals import Rejection, rejection_note
from storage.states import DeliveryState, ExamState, JobState, Plan
from tests.builders import altered, key_objects, quick_header
from tests.chain import QUIET, Chain, a_chain, summary_of, text_of
from tests.doors import phantom_images
from tests.records import resent

REPORTS = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104, objects=(ResultKind.SR,))
"""Reports alone are encoded in no time."""
QUALITY, SAFETY, WORKLIST = (rejection.code for rejection in Rejection)


@pytest.fixture
def chain(tmp_path: Path, engine: Engine) -> Chain:
    return a_chain(tmp_path, engine)


def answer_again(chain: Chain) -> None:
    """Wait until the exam is closed, and let a worker answer it."""
    chain.clock.forward(QUIET.incomplete_quiet)
    assert chain.exam_clock().tick() == 1
    assert chain.worker(destinations=[REPORTS]).work_once()


def answered(chain: Chain) -> None:
    chain.close(phantom_images())
    assert chain.worker(destinations=[REPORTS]).work_once()


def named_in(report: Dataset) -> set[str]:
    """Return the images that a report stands on."""
    return {
        str(reference.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for reference in series.ReferencedSOPSequence
    }


def test_a_withdrawn_image_leaves_the_answer_which_supersedes_the_former(chain: Chain) -> None:
    answered(chain)
    former, gone = chain.report, phantom_images()[3]
    assert chain.room.receive(key_objects([gone], QUALITY)).outcome is Outcome.STORED
    assert (chain.exam.state, chain.exam.revision) == (ExamState.COLLECTING, 2)
    answer_again(chain)
    report = chain.report
    assert gone.SOPInstanceUID in named_in(former)
    assert gone.SOPInstanceUID not in named_in(report)
    [study] = report.PredecessorDocumentsSequence
    [series] = study.ReferencedSeriesSequence
    assert former.SOPInstanceUID in {each.ReferencedSOPInstanceUID for each in series.ReferencedSOPSequence}
    assert chain.exam.status == AnswerStatus.PARTIAL_FINDINGS
    assert f"{STANDARD_VIEWS[3]} not read: withdrawn: Rejected for Quality Reasons" in text_of(report)
    assert "1 image withdrawn: Rejected for Quality Reasons" in text_of(report)
    assert f"no longer read: {STANDARD_VIEWS[3]}" in text_of(report)


def test_when_nothing_is_left_the_answer_says_so(chain: Chain) -> None:
    answered(chain)
    chain.room.receive(key_objects(phantom_images(), WORKLIST))
    answer_again(chain)
    assert (chain.exam.state, chain.exam.status) == (ExamState.ANSWERED, AnswerStatus.NOT_ANALYSED)
    assert chain.exam.reasons == ("all images were withdrawn: Incorrect Modality Worklist Entry",)
    assert chain.job.plan is Plan.NOT_ANALYSED
    assert summary_of(chain.report) == "111245"
    assert "all images were withdrawn" in text_of(chain.report)


def test_a_note_that_comes_before_its_image_counts_as_well(chain: Chain) -> None:
    *kept, gone = phantom_images()
    chain.room.receive(key_objects([gone], WORKLIST))
    chain.receive([gone, *kept])
    assert chain.exam.revision == 1
    answer_again(chain)
    assert gone.SOPInstanceUID not in named_in(chain.report)
    assert chain.exam.status == AnswerStatus.PARTIAL_FINDINGS


def test_a_repeated_view_takes_the_place_of_the_withdrawn_one(chain: Chain) -> None:
    answered(chain)
    gone = phantom_images()[0]
    chain.room.receive(key_objects([gone], QUALITY))
    chain.receive([altered(gone, SOPInstanceUID=f"{gone.SOPInstanceUID}.1", AcquisitionTime="000001")])
    chain.clock.forward(QUIET.complete_quiet)
    assert chain.exam_clock().tick() == 1
    assert chain.worker(destinations=[REPORTS]).work_once()
    assert (chain.exam.revision, chain.exam.status) == (2, AnswerStatus.FINDINGS)
    assert chain.exam.reasons == ("1 image withdrawn: Rejected for Quality Reasons",)


def test_the_same_note_again_and_another_on_the_same_images_change_nothing(chain: Chain) -> None:
    answered(chain)
    note = key_objects(phantom_images()[:1], QUALITY)
    chain.room.receive(note)
    answer_again(chain)
    assert chain.room.receive(note).outcome is Outcome.KNOWN
    chain.room.receive(key_objects(phantom_images()[:1], SAFETY, uid="1.2.77.2"))
    assert (chain.exam.state, chain.exam.revision) == (ExamState.ANSWERED, 2)


@pytest.mark.parametrize(("code", "goes_out"), [(QUALITY, True), (SAFETY, False)])
def test_what_stands_on_a_wrong_patients_images_does_not_go_out(chain: Chain, code: str, *, goes_out: bool) -> None:
    answered(chain)
    chain.room.receive(key_objects(phantom_images()[:1], code))
    deliveries = chain.outbox.of_exam(chain.exam.id)
    expected = DeliveryState.WAITING if goes_out else DeliveryState.RECALLED
    assert {delivery.state for delivery in deliveries} == {expected}
    assert bool(chain.outbox.due("pacs", chain.clock(), 99)) is goes_out
    assert bool(resent(chain.room.engine, chain.exam.id, chain.clock(), {"pacs": ResultKind})) is goes_out


def test_a_note_that_comes_while_the_reader_runs_ends_its_job(chain: Chain) -> None:
    note = key_objects(phantom_images()[:1], SAFETY)
    chain.reader.meanwhile = lambda _: None if chain.exam.revision > 1 else chain.receive([note])
    chain.close(phantom_images())
    assert chain.worker(destinations=[REPORTS]).work_once()
    assert chain.job.state is JobState.SUPERSEDED
    assert chain.issued() == []
    answer_again(chain)
    assert chain.exam.status == AnswerStatus.PARTIAL_FINDINGS


def test_other_key_objects_are_only_stored(chain: Chain) -> None:
    chain.close(phantom_images())
    for title in ("113000", "113039", "113030"):
        note = key_objects(phantom_images(), title, uid=f"1.2.77.{title}")
        assert chain.room.receive(note).outcome is Outcome.STORED
    assert (chain.exam.state, chain.exam.revision) == (ExamState.QUEUED, 1)


def test_our_own_note_that_comes_back_withdraws_nothing(chain: Chain) -> None:
    chain.close(phantom_images())
    own = key_objects(phantom_images(), QUALITY, Manufacturer="Mammonode", ManufacturerModelName="Mammonode")
    assert chain.room.receive(own).outcome is Outcome.OWN
    assert chain.exam.revision == 1


def test_what_the_content_names_counts_and_else_the_evidence() -> None:
    one, other = quick_header(SOPInstanceUID="1.2.1"), quick_header(SOPInstanceUID="1.2.2")
    note = key_objects([one, other], QUALITY)
    note.ContentSequence = Sequence(note.ContentSequence[:1])
    assert named(note) == ("1.2.1",)
    del note.ContentSequence
    assert named(note) == ("1.2.1", "1.2.2")


@pytest.mark.parametrize("uid", ["", "../../etc", "1.2.abc", "1." * 40 + "1"])
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_what_is_no_uid_is_not_withdrawn(uid: str) -> None:
    note = key_objects([quick_header(SOPInstanceUID="1.2.1")], QUALITY)
    note.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID = uid
    assert named(note) == ()


def test_a_code_of_another_scheme_is_no_rejection() -> None:
    note = key_objects([quick_header()], QUALITY)
    note.ConceptNameCodeSequence[0].CodingSchemeDesignator = "99OTHER"
    assert rejection_note(note) is None
    assert rejection_note(quick_header()) is None


def named(note: Dataset) -> tuple[str, ...]:
    found = rejection_note(note)
    assert found
    return found.instance_uids
