"""The buttons of an exam: what they do, what they refuse, and who pressed them."""

import pytest
from sqlalchemy import update

from config.policy import PriorPolicy
from storage.database import writing
from storage.exams import hold
from storage.states import ExamState, JobState
from storage.tables import deliveries
from tests.builders import altered
from tests.chain import QUIET
from tests.doors import phantom_images
from tests.pages import ADA, Node, Visitor, answered, node, text, visitor, who_did

__all__ = ["answered", "node", "visitor"]

pytestmark = pytest.mark.sqlite_alone


def test_an_exam_is_read_again_and_who_wanted_it_is_kept(node: Node, visitor: Visitor, answered: str) -> None:
    answer = visitor.button(f"/exams/{answered}/re-read")
    assert (answer.status_code, "is read again" in answer.headers["hx-trigger"]) == (204, True)
    assert node.chain.job.state is JobState.QUEUED
    assert who_did(node) == [("re-read", ADA, "revision 1")]
    assert "re-read by Ada" in text(visitor.get(f"/exams/{answered}"))
    node.read()
    assert node.chain.exam.state is ExamState.ANSWERED


def test_a_reading_that_failed_is_tried_again_at_once(node: Node, visitor: Visitor) -> None:
    def fails(_exam: object) -> None:
        raise RuntimeError("broken")

    node.chain.reader.meanwhile = fails
    node.chain.receive(phantom_images())
    node.read()
    uid = node.chain.exam.uid
    assert 'id="retry"' in visitor.get(f"/exams/{uid}").text
    node.chain.reader.meanwhile = lambda _: None
    assert visitor.button(f"/exams/{uid}/retry").status_code == 204
    assert node.chain.worker().work_once()
    assert node.chain.exam.status == "findings"
    assert who_did(node) == [("retry", ADA, "revision 1")]


def test_a_prior_that_was_left_is_read_when_somebody_wants_it(node: Node, visitor: Visitor) -> None:
    node.chain.receive(altered(image, StudyDate="20240304") for image in phantom_images())
    node.chain.clock.forward(QUIET.incomplete_quiet)
    node.chain.exam_clock(priors=PriorPolicy(90, answered=False)).tick()
    uid = node.chain.exam.uid
    assert 'id="re-read">Read</button>' in visitor.get(f"/exams/{uid}").text
    answer = visitor.button(f"/exams/{uid}/re-read")
    assert (answer.status_code, "revision 2, judged anew" in answer.headers["hx-trigger"]) == (204, True)
    assert node.chain.worker().work_once()
    assert node.chain.exam.status == "findings"
    assert who_did(node) == [("re-read", ADA, "revision 2")]


def test_a_reading_is_cancelled_and_the_exam_is_answered_so_and_can_be_read_after_all(
    node: Node, visitor: Visitor
) -> None:
    node.chain.close(phantom_images())
    uid = node.chain.exam.uid
    assert 'id="cancel"' in visitor.get(f"/exams/{uid}").text
    assert visitor.button(f"/exams/{uid}/cancel").status_code == 204
    assert node.chain.worker(destinations=node.destinations).work_once()
    assert node.chain.exam.status == "not analysed"
    told = text(visitor.get(f"/exams/{uid}"))
    assert "The reading was cancelled by an operator." in told
    assert "revision 1; The reading was cancelled" not in told  # it was not, when it was queued
    assert node.chain.reader.exams == []
    assert visitor.button(f"/exams/{uid}/cancel").status_code == 409
    assert visitor.button(f"/exams/{uid}/re-read").status_code == 204
    assert node.chain.worker(destinations=node.destinations).work_once()
    assert node.chain.exam.status == "findings"
    assert [what for what, _, _ in who_did(node)] == ["cancel", "re-read"]


def test_a_worker_whose_reading_is_cancelled_meanwhile_answers_nothing(node: Node, visitor: Visitor) -> None:
    node.chain.close(phantom_images())
    uid = node.chain.exam.uid

    def cancels(_exam: object) -> None:
        assert visitor.button(f"/exams/{uid}/cancel").status_code == 204

    node.chain.reader.meanwhile = cancels
    worker = node.chain.worker(destinations=node.destinations)
    assert worker.work_once()
    assert node.chain.exam.state is ExamState.QUEUED
    assert worker.work_once()
    assert node.chain.exam.status == "not analysed"


def test_results_are_sent_again_to_one_or_to_all(node: Node, visitor: Visitor, answered: str) -> None:
    outbox = node.chain.outbox
    for delivery in outbox.of_exam(node.chain.exam.id):
        outbox.sent(delivery, 0, node.chain.clock())
    assert visitor.button(f"/exams/{answered}/resend", destination="ris").status_code == 204
    waiting = [each.destination for each in outbox.of_exam(node.chain.exam.id) if each.state == "waiting"]
    assert set(waiting) == {"ris"}
    assert visitor.button(f"/exams/{answered}/resend", destination="").status_code == 204
    assert {each.state for each in outbox.of_exam(node.chain.exam.id)} == {"waiting"}
    assert visitor.button(f"/exams/{answered}/resend", destination="elsewhere").status_code == 400
    with writing(node.chain.room.engine) as connection:
        connection.execute(update(deliveries).values(destination="gone"))
    assert visitor.button(f"/exams/{answered}/resend", destination="gone").status_code == 400
    with writing(node.chain.room.engine) as connection:
        hold(connection, node.chain.exam.id, held=True)
    assert visitor.button(f"/exams/{answered}/resend", destination="").status_code == 409
    assert [what for what, _, _ in who_did(node)] == ["resend", "resend"]


def test_what_will_not_be_taken_is_waived_with_a_reason(node: Node, visitor: Visitor, answered: str) -> None:
    outbox, exam = node.chain.outbox, node.chain.exam.id
    assert 'id="waive"' not in visitor.get(f"/exams/{answered}").text
    for delivery in outbox.of_exam(exam):
        outbox.refused(delivery, "no", 0x0122, node.chain.clock())
    number = len(outbox.of_exam(exam))
    assert 'id="waive"' in visitor.get(f"/exams/{answered}").text
    assert visitor.button(f"/exams/{answered}/waive", why=" ").status_code == 400
    assert {each.state for each in outbox.of_exam(exam)} == {"refused"}
    for told in (str(number), "0"):
        answer = visitor.button(f"/exams/{answered}/waive", why="it takes none")
        assert answer.status_code == 204
        assert f"{told} deliver" in answer.headers["hx-trigger"]
    assert {each.state for each in outbox.of_exam(exam)} == {"waived"}
    assert {each.message for each in outbox.of_exam(exam)} == {f"no; waived by {ADA}: it takes none"}
    [(what, who, detail)] = who_did(node)
    assert (what, who) == ("waive", ADA)
    assert detail.endswith("to ris refused: it takes none")
    page = visitor.get(f"/exams/{answered}").text
    assert 'id="waive"' not in page
    assert "waive by Ada" in text(visitor.get(f"/exams/{answered}"))


def test_a_button_works_without_a_script_too(node: Node, visitor: Visitor, answered: str) -> None:
    answer = visitor.post(f"/exams/{answered}/re-read")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/exams/{answered}")


def test_an_exam_that_still_awaits_images_cannot_be_read_again(node: Node, visitor: Visitor) -> None:
    node.chain.receive(phantom_images()[:1])
    answer = visitor.button(f"/exams/{node.chain.exam.uid}/re-read")
    assert (answer.status_code, answer.json()["status"]) == (409, 409)
