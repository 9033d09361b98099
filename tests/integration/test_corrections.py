"""Copies with another identity (rule R6) on both databases: what an operator's decision changes, and what goes out."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from sqlalchemy import Engine

from config.mix import ResultKind
from config.settings import Destination
from node.corrections import Corrections
from node.identity import MANUFACTURER, MODEL_NAME
from node.intake import Intake, Outcome
from node.results.answer import AnswerStatus
from node.views import ImageKind
from storage.conflicts import Conflict, list_conflicts
from storage.database import reading
from storage.errors import CannotDecide, CannotRetry, DatabaseUnavailable, NoSuchConflict
from storage.exams import ExamRecord, find_exam, list_exams
from storage.index import find_instance
from storage.results import results_of
from storage.states import ConflictState, DeliveryState, ExamState
from tests.builders import altered
from tests.chain import QUIET, Chain, a_chain, text_of
from tests.doors import ROOM_ENOUGH, Room, phantom_images
from tests.records import resent

REPORTS = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104, objects=(ResultKind.SR,))
NOTED = Destination(
    **{**REPORTS.model_dump(), "name": "archive", "objects": (ResultKind.SR, ResultKind.GSPS, ResultKind.REJECTION)}
)
RIGHT = {"PatientID": "RIGHT", "PatientName": "Right^Anne"}


@pytest.fixture
def chain(tmp_path: Path, engine: Engine) -> Chain:
    return a_chain(tmp_path, engine)


def corrections(chain: Chain) -> Corrections:
    kinds = frozenset({ImageKind.FOR_PRESENTATION})
    return Corrections(chain.room.engine, chain.room.store, kinds, chain.clock)


def corrected(images: Iterable[Dataset]) -> list[Dataset]:
    return [altered(image, **RIGHT) for image in images]


def waiting(chain: Chain) -> list[Conflict]:
    with reading(chain.room.engine) as connection:
        return list_conflicts(connection, state=ConflictState.OPEN)


def exams(chain: Chain) -> dict[str, ExamRecord]:
    with reading(chain.room.engine) as connection:
        return {exam.patient.patient_id: exam for exam in list_exams(connection, 9)}


def answer(chain: Chain, destination: Destination = REPORTS) -> None:
    chain.clock.forward(QUIET.incomplete_quiet)
    chain.exam_clock().tick()
    while chain.worker(destinations=[destination]).work_once():
        pass


def newest(chain: Chain, exam: ExamRecord, kind: ResultKind) -> Dataset:
    with reading(chain.room.engine) as connection:
        [found, *_] = [issued.record for issued in results_of(connection, exam.id) if issued.record.kind == kind]
    return dcmread(chain.room.store.resolve(found.path))


def references(study: Dataset) -> set[str]:
    return {
        str(each.ReferencedSOPInstanceUID)
        for series in study.ReferencedSeriesSequence
        for each in series.ReferencedSOPSequence
    }


def test_all_images_of_another_patient_move_the_exam_which_is_answered_anew(chain: Chain) -> None:
    chain.receive(phantom_images())
    answer(chain, NOTED)
    wrong = chain.exam
    with reading(chain.room.engine) as connection:
        issued = [each.record for each in results_of(connection, wrong.id) if each.record.sop_class_uid]
    chain.receive(corrected(phantom_images()))
    assert chain.exam.held
    for conflict in waiting(chain):
        corrections(chain).accept(conflict.id)
    moved, right = exams(chain)["PHANTOM-1"], exams(chain)["RIGHT"]
    assert (moved.state, moved.held, right.state) == (ExamState.MOVED, False, ExamState.COLLECTING)
    assert moved.reasons == (f"all images belong to exam {right.uid} since their identity was corrected",)
    assert {d.state for d in chain.outbox.of_exam(wrong.id)} == {DeliveryState.RECALLED}
    answer(chain, NOTED)
    right = exams(chain)["RIGHT"]
    assert (right.state, right.status, right.revision) == (ExamState.ANSWERED, AnswerStatus.FINDINGS, 1)
    report, note = newest(chain, right, ResultKind.SR), newest(chain, right, ResultKind.REJECTION)
    assert (report.PatientID, report.PatientName) == ("RIGHT", "Right^Anne")
    reports = {record.uid for record in issued if record.kind == ResultKind.SR}
    assert references(report.PredecessorDocumentsSequence[0]) == reports
    assert references(note.CurrentRequestedProcedureEvidenceSequence[0]) == {record.uid for record in issued}
    assert f"stands in for the answer of exam {moved.uid}" in text_of(report)
    assert chain.outbox.due(NOTED.name, chain.clock(), 99)


def test_a_corrected_study_names_its_predecessor_in_the_former_one(chain: Chain) -> None:
    image = phantom_images()[0]
    chain.receive([image])
    answer(chain, NOTED)
    former = newest(chain, chain.exam, ResultKind.SR)
    chain.receive([altered(image, StudyInstanceUID="1.2.99", SeriesInstanceUID="1.2.99.1")])
    [joined, _] = corrections(chain).accept(waiting(chain)[0].id)
    assert joined.study_uid == "1.2.99"
    with pytest.raises(CannotRetry, match="belong to another exam"):
        chain.queue.retry(1, chain.clock())
    answer(chain, NOTED)
    report = newest(chain, joined, ResultKind.SR)
    [study] = report.PredecessorDocumentsSequence
    assert (report.StudyInstanceUID, study.StudyInstanceUID) == ("1.2.99", former.StudyInstanceUID)
    assert former.SOPInstanceUID in references(study)
    [study] = newest(chain, joined, ResultKind.REJECTION).CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == former.StudyInstanceUID


def test_a_corrected_name_is_answered_anew_in_the_same_exam(chain: Chain) -> None:
    chain.receive(phantom_images())
    answer(chain)
    chain.receive([altered(image, PatientName="Right^Anne") for image in phantom_images()])
    for conflict in waiting(chain):
        corrections(chain).accept(conflict.id)
    assert {d.state for d in chain.outbox.of_exam(chain.exam.id)} == {DeliveryState.RECALLED}
    answer(chain)
    assert (chain.exam.revision, chain.exam.held, chain.exam.patient.name) == (2, False, "Right^Anne")
    first, second = chain.of_kind(ResultKind.SR)[::-1]
    assert (first.PatientName, second.PatientName) == ("PHANTOM^FOUR VIEWS", "Right^Anne")
    assert first.SOPInstanceUID in references(second.PredecessorDocumentsSequence[0])


def test_one_image_of_another_patient_leaves_an_exam_that_is_answered_without_it(chain: Chain) -> None:
    chain.receive(phantom_images())
    answer(chain)
    for delivery in chain.outbox.due("pacs", chain.clock(), 99):
        chain.outbox.sent(delivery, 0, chain.clock())
    chain.receive(corrected(phantom_images()[:1]))
    joined, left = corrections(chain).accept(waiting(chain)[0].id)
    assert (joined.revision, left.revision, left.state) == (1, 2, ExamState.COLLECTING)
    assert {(d.state, d.sent_at is not None) for d in chain.outbox.of_exam(left.id)} == {(DeliveryState.RECALLED, True)}
    assert resent(chain.room.engine, left.id, chain.clock(), {"pacs": ResultKind}) == 0
    answer(chain)
    assert {exam.status for exam in exams(chain).values()} == {AnswerStatus.PARTIAL_FINDINGS}


def test_no_copy_is_lost_and_each_is_known_when_it_comes_again(chain: Chain) -> None:
    first, later = phantom_images()[0], corrected(phantom_images()[:1])[0]
    chain.receive([first, later])
    before = {file: chain.room.store.resolve(file).read_bytes() for file in chain.room.files()}
    [conflict] = waiting(chain)
    corrections(chain).accept(conflict.id)
    assert {file: chain.room.store.resolve(file).read_bytes() for file in chain.room.files()} == before
    with reading(chain.room.engine) as connection:
        record = find_instance(connection, first.SOPInstanceUID)
        [decided] = list_conflicts(connection)
    assert record
    assert record.path == conflict.copy.path
    assert dcmread(chain.room.store.resolve(record.path)).PatientID == "RIGHT"
    assert dcmread(chain.room.store.resolve(decided.copy.path)).PatientID == "PHANTOM-1"
    assert [chain.room.receive(copy).outcome for copy in (first, later)] == [Outcome.KNOWN, Outcome.KNOWN]


def test_rejecting_lets_the_deliveries_go_on_when_nothing_else_holds_them(chain: Chain) -> None:
    chain.receive(phantom_images())
    answer(chain)
    chain.receive(corrected(phantom_images()[:2]))
    one, other = waiting(chain)
    [exam] = corrections(chain).reject(one.id)
    assert exam.held
    [exam] = corrections(chain).reject(other.id)
    assert not exam.held
    assert (exam.revision, exam.state) == (1, ExamState.ANSWERED)
    assert chain.outbox.due("pacs", chain.clock(), 99)


def test_a_copy_that_differs_otherwise_is_read_once_it_is_accepted(chain: Chain) -> None:
    chain.receive(phantom_images())
    answer(chain)
    chain.receive([altered(phantom_images()[0], ViewPosition="ML", ViewCodeSequence=None)])
    assert not chain.exam.held
    [exam] = corrections(chain).accept(waiting(chain)[0].id)
    assert (exam.revision, exam.state) == (2, ExamState.COLLECTING)
    assert {d.state for d in chain.outbox.of_exam(exam.id)} == {DeliveryState.WAITING}


def test_a_decision_is_made_once(chain: Chain) -> None:
    chain.receive([phantom_images()[0], *corrected(phantom_images()[:1])])
    [conflict] = waiting(chain)
    corrections(chain).accept(conflict.id)
    for decide in (corrections(chain).accept, corrections(chain).reject):
        with pytest.raises(CannotDecide, match="accepted already"):
            decide(conflict.id)
        with pytest.raises(NoSuchConflict):
            decide(99)


def test_where_the_site_says_so_a_mere_correction_needs_no_operator(tmp_path: Path, engine: Engine) -> None:
    chain = a_chain(tmp_path, engine)
    intake = Intake(chain.room.store, engine, ROOM_ENOUGH, clock=chain.clock, accept_corrections=True)
    room = Room(chain.room.store, engine, intake)
    first, second = phantom_images()[:2]
    for image in (first, second):
        room.receive(image)
    receipt = room.receive(altered(first, **RIGHT))
    assert receipt.outcome is Outcome.CORRECTED
    assert receipt.exam_uid == exams(chain)["RIGHT"].uid
    other_picture = altered(second, **RIGHT, PixelData=bytes(len(second.PixelData)))
    assert room.receive(other_picture).outcome is Outcome.CONFLICT
    assert exams(chain)["PHANTOM-1"].held
    with reading(engine) as connection:
        assert not find_exam(connection, exams(chain)["RIGHT"].uid).held


@pytest.mark.parametrize("answered", [True, False])
def test_a_corrected_report_from_elsewhere_changes_nothing_about_the_answer(chain: Chain, *, answered: bool) -> None:
    report = altered(
        phantom_images()[0],
        SOPInstanceUID="1.2.3.4.5.6.7",
        SeriesInstanceUID="1.2.3.4.5.6",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.88.67",
        Modality="SR",
    )
    for keyword in ("PixelData", "Rows", "Columns", "BitsStored", "BitsAllocated", "HighBit", "PixelRepresentation"):
        delattr(report, keyword)
    chain.receive([report])
    chain.close(phantom_images())
    if answered:
        assert chain.worker().work_once()
    chain.receive([altered(report, PatientName="Right^Anne")])
    [conflict] = waiting(chain)
    corrections(chain).accept(conflict.id)
    assert not chain.exam.held
    assert chain.worker().work_once() is not answered
    assert chain.exam.state is ExamState.ANSWERED
    assert {delivery.state for delivery in chain.outbox.of_exam(chain.exam.id)} == {DeliveryState.WAITING}


def test_a_correction_that_was_cut_off_is_made_when_the_image_comes_again(
    chain: Chain, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = Intake(chain.room.store, engine, ROOM_ENOUGH, clock=chain.clock, accept_corrections=True)
    room = Room(chain.room.store, engine, intake)
    first = phantom_images()[0]
    room.receive(first)

    def gone(*_: object) -> None:
        raise DatabaseUnavailable("gone")

    with monkeypatch.context() as patched:
        patched.setattr("node.intake.accept", gone)
        with pytest.raises(DatabaseUnavailable):
            room.receive(altered(first, **RIGHT))
    assert not exams(chain)["PHANTOM-1"].held
    assert room.receive(altered(first, **RIGHT)).outcome is Outcome.CORRECTED
    assert exams(chain)["PHANTOM-1"].state is ExamState.MOVED


def test_a_copy_that_is_no_mammogram_any_more_waits_for_an_operator(tmp_path: Path, engine: Engine) -> None:
    chain = a_chain(tmp_path, engine)
    intake = Intake(chain.room.store, engine, ROOM_ENOUGH, clock=chain.clock, accept_corrections=True)
    room = Room(chain.room.store, engine, intake)
    first = phantom_images()[0]
    room.receive(first)
    assert (
        room.receive(altered(first, **RIGHT, Manufacturer=MANUFACTURER, ManufacturerModelName=MODEL_NAME)).outcome
        is Outcome.CONFLICT
    )
    assert exams(chain)["PHANTOM-1"].held
