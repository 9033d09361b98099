"""The pages as a program asks for them: what they tell, what their buttons do, what they refuse."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import cv2
import httpx2
import numpy as np
import pytest
from sqlalchemy import Engine, update

from config.policy import RetentionPolicy
from node.errors import AssociationRejected
from node.phantom import phantom_exam
from node.retention import Retention
from node.scu import EchoResult
from storage.actions import actions_of_destination, actions_of_exam
from storage.database import open_database, reading, writing
from storage.exams import hold
from storage.previews import PreviewKind, previews_of
from storage.selftests import SelfTest, note
from storage.states import ExamState, JobState
from storage.tables import deliveries
from storage.workers import WorkerRecord, note_worker
from tests.builders import altered
from tests.chain import PACS, REPORTS_ONLY
from tests.databases import SQLiteDatabases
from tests.doors import an_image, phantom_images
from tests.pacs import a_free_port, a_pacs
from tests.pages import Node, a_node
from tests.peers import eventually
from tests.records import LEASE

pytestmark = pytest.mark.sqlite_alone

ADA = "Ada"
MANY_DIGITS = "7" * 5000
"""More than `int` takes."""
OPERATOR = ("read", "operate", "store")


class Visitor(httpx2.Client):
    """A program that asks for pages with a token, as a part of a page does when it is told so."""

    def button(self, path: str, **form: str) -> httpx2.Response:
        return self.post(path, data=form, headers={"HX-Request": "true"})


@pytest.fixture
def node(tmp_path: Path, engine: Engine) -> Iterator[Node]:
    with a_node(tmp_path, engine, destinations=(REPORTS_ONLY,), trust_local=False) as opened:
        yield opened


@contextmanager
def visiting(node: Node) -> Iterator[Visitor]:
    secret = node.token(ADA, *OPERATOR)
    with Visitor(base_url=node.address, headers={"Authorization": f"Bearer {secret}"}, timeout=60) as client:
        yield client


@pytest.fixture
def visitor(node: Node) -> Iterator[Visitor]:
    with visiting(node) as client:
        yield client


@pytest.fixture
def answered(node: Node) -> str:
    """The id of an exam that was answered."""
    node.chain.receive(phantom_images())
    node.read()
    return node.chain.exam.uid


@dataclass(frozen=True)
class Standing:
    """A node with an answered exam that no test changes."""

    node: Node
    visitor: Visitor
    uid: str


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory, sqlite_databases: SQLiteDatabases) -> Iterator[Standing]:
    engine = open_database(sqlite_databases.fresh())
    with a_node(tmp_path_factory.mktemp("standing"), engine, trust_local=False) as node, visiting(node) as visitor:
        node.chain.receive(phantom_images())
        node.read()
        yield Standing(node, visitor, node.chain.exam.uid)
    engine.dispose()


def text(answer: httpx2.Response) -> str:
    """Return what people read of a page."""
    assert answer.status_code == 200, answer.text
    return " ".join(re.sub(r"<[^>]+>", " ", answer.text).split())


def who_did(node: Node) -> list[tuple[str, str, str]]:
    with reading(node.chain.room.engine) as connection:
        return [(each.what, each.who, each.detail) for each in actions_of_exam(connection, node.chain.exam.id)]


# --- exams


def test_the_list_tells_each_exam_and_does_not_repeat_itself(node: Node, visitor: Visitor, answered: str) -> None:
    told = text(answer := visitor.get("/exams/lines"))
    assert answered[:8] in told
    assert "answered" in told
    assert re.search(r"\b83\b", told)
    assert "MODALITY" in told
    again = re.search(r'hx-get="([^"]+)"', answer.text)
    assert again is not None
    assert visitor.get(again[1].replace("&amp;", "&")).status_code == 204
    node.chain.receive(phantom_exam(7, small=True).images[:1])
    assert visitor.get(again[1].replace("&amp;", "&")).status_code == 200


def test_the_list_is_filtered(node: Node, visitor: Visitor, answered: str) -> None:
    node.chain.receive(phantom_exam(7, small=True).images[:1])
    expected = [
        ("", 2),
        ("state=answered", 1),
        ("state=collecting", 1),
        ("state=failed", 0),
        ("score=83", 1),
        ("score=84", 0),
        ("ae=MODALITY", 2),
        ("ae=OTHER", 0),
        ("since=2000-01-01&until=2100-01-01", 2),
        ("since=2100-01-01", 0),
        ("until=2000-01-01", 0),
        ("exam=zzzz", 0),
    ]
    for wanted, found in expected:
        page = visitor.get(f"/exams/lines?{wanted}").text
        assert page.count("<tr>") - page.count("<thead>") == found, wanted


def test_a_filter_that_is_none_is_refused(standing: Standing) -> None:
    visitor = standing.visitor
    for wrong in ("state=lost", "score=high", "since=yesterday", "until=9999-12-31", f"from={MANY_DIGITS}"):
        answer = visitor.get(f"/exams/lines?{wrong}")
        assert (answer.status_code, answer.json()["status"]) == (400, 400)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/exams/%00"),
        ("GET", "/exams/lines?exam=%00"),
        ("GET", "/exams?ae=%00"),
        ("POST", "/destinations/%00/resume"),
    ],
)
def test_a_zero_byte_which_postgresql_does_not_take_is_a_bad_request(
    standing: Standing, method: str, path: str
) -> None:
    assert standing.visitor.request(method, path).status_code == 400


def test_no_page_shows_a_patients_name_or_id_unless_it_is_to(standing: Standing, tmp_path: Path) -> None:
    node, visitor, answered = standing.node, standing.visitor, standing.uid
    exam = node.chain.exam
    paths = [
        "/exams",
        "/exams/lines",
        f"/exams/{answered}",
        f"/exams/{answered}/body",
        "/senders",
        "/destinations",
        "/system",
    ]
    for path in paths:
        page = visitor.get(path).text
        assert exam.patient.patient_id not in page, path
        assert not any(part in page for part in exam.patient.name.split("^") if part), path
    with a_node(tmp_path / "other", node.chain.room.engine, trust_local=False, show_patients=True) as showing:
        page = visitor.get(f"{showing.address}/exams/lines").text
        assert exam.patient.patient_id in page


def test_a_name_turns_no_other_text_round_whichever_way_it_is_written(tmp_path: Path, engine: Engine) -> None:
    arabic = {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "محمد^\u202eمحمد", "PatientID": "12-34/5"}
    with a_node(tmp_path, engine, show_patients=True) as node, httpx2.Client(base_url=node.address) as visitor:
        node.chain.receive([an_image(**arabic, StudyDescription="فحص 1-2")])
        exam = visitor.get(f"/exams/{node.chain.exam.uid}").text
        for page in (visitor.get("/exams/lines").text, exam):
            assert "<bdi>محمد \u202eمحمد</bdi>" in page
            assert '<bdi class="muted">12-34/5</bdi>' in page
        assert "<bdi>فحص 1-2</bdi>" in exam


# --- one exam


def test_a_page_tells_in_whose_time_it_is(standing: Standing) -> None:
    for page in ("/exams", f"/exams/{standing.uid}", "/destinations", "/senders", "/system"):
        assert re.search(r"Times are the node's own \(\S+, UTC[+-]\d{4}\)", text(standing.visitor.get(page))), page


def test_an_exam_tells_its_views_images_life_results_and_deliveries(standing: Standing) -> None:
    visitor, answered = standing.visitor, standing.uid
    page = visitor.get(f"/exams/{answered}")
    told = text(page)
    for words in ("R CC", "L CC", "R MLO", "L MLO", "score 83", "2 masses", "1: 83", "2: 21", "4 images received"):
        assert words in told
    assert told.count("used") >= 4
    assert page.text.count('data-score="83"') == 8  # outline and line of the list, four views
    assert "laterality R from" in told
    assert "findings" in told
    assert "waiting" in told


def test_every_attempt_to_deliver_is_told_and_equal_ones_are_counted(tmp_path: Path, engine: Engine) -> None:
    absent = REPORTS_ONLY.model_copy(update={"port": a_free_port(), "ae_title": "PACS"})
    with a_node(tmp_path, engine, destinations=(absent,)) as node, Visitor(base_url=node.address) as visitor:
        node.chain.receive(phantom_images())
        node.read()
        for _ in range(2):
            node.deliver()
            node.chain.clock.forward(timedelta(hours=1))
        assert "2 times: waiting" in (told := text(visitor.get(f"/exams/{node.chain.exam.uid}")))
        assert "does not answer" in told
        assert re.search(r"waiting again at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", told)  # which may be tomorrow
        with a_pacs(port=absent.port):
            node.deliver()
        assert "sent, 0000H" in text(visitor.get(f"/exams/{node.chain.exam.uid}"))
        assert "sent to ris" in text(visitor.get(f"/exams/{node.chain.exam.uid}"))


def test_pictures_are_files_as_the_exam_is_hung(standing: Standing) -> None:
    node, visitor, answered = standing.node, standing.visitor, standing.uid
    page = visitor.get(f"/exams/{answered}").text
    addresses = sorted(set(re.findall(rf'src="(/exams/{answered}/pictures/[^"]+)"', page)))
    assert len(addresses) == 12
    shapes: dict[str, list[Any]] = {}
    for address in addresses:
        answer = visitor.get(address)
        assert answer.status_code == 200
        decoded = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
        assert decoded is not None
        shapes.setdefault(address.rpartition("/")[2], []).append(decoded)
    assert {kind: len(pictures) for kind, pictures in shapes.items()} == {"view": 4, "map": 4, "prepared": 4}
    assert all(picture.shape[2] == 4 for picture in shapes["map"])
    # Chest walls meet in the middle: a right breast is at the right of its picture, a left one at the left.
    job = node.chain.job
    with reading(node.chain.room.engine) as connection:
        views = [each for each in previews_of(connection, job.id) if each.kind is PreviewKind.VIEW]
    for image in phantom_images():
        [path] = [each.path for each in views if each.image_uid == image.SOPInstanceUID]
        pixels = cv2.imread(str(node.chain.room.store.resolve(path)), cv2.IMREAD_GRAYSCALE)
        assert pixels is not None
        half = pixels.shape[1] // 2
        bright = pixels[:, half:].mean() > pixels[:, :half].mean()
        assert bright == (image.ImageLaterality == "R")


@pytest.mark.parametrize(("spacing", "shape"), [(("0.4", "0.2"), (1024, 416)), (("0.2", "0.4"), (512, 832))])
def test_a_picture_of_pixels_that_are_not_square_is_as_wide_and_high_as_the_breast(
    tmp_path: Path, engine: Engine, spacing: tuple[str, str], shape: tuple[int, int]
) -> None:
    with a_node(tmp_path, engine) as node:
        node.chain.receive([an_image(ImagerPixelSpacing=list(spacing))])
        node.read()
        with reading(node.chain.room.engine) as connection:
            [path] = [each.path for each in previews_of(connection, node.chain.job.id) if each.kind is PreviewKind.VIEW]
        picture = cv2.imread(str(node.chain.room.store.resolve(path)), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    assert picture.shape == shape


def test_pictures_go_with_what_they_show(node: Node, visitor: Visitor, answered: str) -> None:
    policy = RetentionPolicy(timedelta(days=1), None, None, unproven=True)
    folder = node.chain.room.store.root / "previews"
    page = visitor.get(f"/exams/{answered}").text
    [address, *_] = re.findall(rf'src="(/exams/{answered}/pictures/[^"]+)"', page)
    assert sum(path.is_file() for path in folder.rglob("*")) == 12
    for delivery in node.chain.outbox.of_exam(node.chain.exam.id):
        node.chain.outbox.sent(delivery, 0, node.chain.clock())
    node.chain.clock.forward(timedelta(days=2))
    retention = Retention(node.chain.room.engine, node.chain.room.store, policy, node.chain.clock, destinations=())
    assert retention.tick() == 4 + 12
    assert sum(path.is_file() for path in folder.rglob("*")) == 0
    assert visitor.get(address).status_code == 404
    assert "The picture is not kept any more." in text(visitor.get(f"/exams/{answered}"))


def test_a_picture_or_result_of_another_exam_or_place_is_not_given(standing: Standing) -> None:
    visitor, answered = standing.visitor, standing.uid
    for path in (
        f"/exams/{answered}/pictures/1/1.2.3/view",
        f"/exams/{answered}/pictures/999/1.2.3/view",
        f"/exams/{answered}/pictures/{MANY_DIGITS}/1.2.3/view",
        f"/exams/{answered}/pictures/1/..%2f..%2fa.db/view",
        f"/exams/{answered}/results/1.2.3",
        f"/exams/{answered}/results/..%2f..",
        "/exams/ffffffff",
        "/static/..%2fhouse.py",
        "/static/nothing.css",
    ):
        assert visitor.get(path).status_code == 404, path


def test_a_result_is_given_as_a_file(standing: Standing) -> None:
    node, visitor, answered = standing.node, standing.visitor, standing.uid
    record = node.chain.sent_to()[0]
    answer = visitor.get(f"/exams/{answered}/results/{record.uid}")
    assert answer.content == node.chain.room.store.resolve(record.path).read_bytes()
    assert answer.headers["content-type"] == "application/dicom"


def test_whoever_sees_something_of_an_exam_is_in_the_audit_trail_once(
    standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, answered = standing.node, standing.uid
    page = standing.visitor.get(f"/exams/{answered}").text
    [picture, *_] = re.findall(rf'src="(/exams/{answered}/pictures/[^"]+)"', page)
    result = f"/exams/{answered}/results/{node.chain.sent_to()[0].uid}"
    paths = f"/exams/{answered}", f"/exams/{answered[:8].upper()}", f"/exams/{answered}/body", picture, result
    look = "looked at", {"who": "Ida", "address": "127.0.0.1", "exam": answered}
    credentials = {"Authorization": f"Bearer {node.token('Ida', 'read')}"}
    with Visitor(base_url=node.address, headers=credentials) as visitor:
        for path in paths:
            for headers in ({}, {"HX-Request": "true"}):
                with monkeypatch.context() as patch:
                    patch.setattr("node.web.audited.LOOK", 0.0)
                    node.facts.clear()
                    assert visitor.get(path, headers=headers).status_code == 200
                assert node.facts == [look], (path, headers)
        node.facts.clear()
        for path in paths:
            visitor.get(path)
        assert node.facts == []


def test_an_earlier_revision_is_shown_as_it_was(node: Node, visitor: Visitor, answered: str) -> None:
    node.chain.receive([an_image(SOPInstanceUID="1.2.826.0.1.3680043.10.1", InstanceNumber=99)])
    node.read()
    present = text(visitor.get(f"/exams/{answered}"))
    assert "revision 2" in present
    former = text(visitor.get(f"/exams/{answered}?revision=1"))
    assert "This is revision 1" in former
    assert visitor.get(f"/exams/{answered}?revision=x").status_code == 200
    assert visitor.get(f"/exams/{answered}?revision={MANY_DIGITS}").status_code == 400
    assert 'id="re-read"' not in visitor.get(f"/exams/{answered}?revision=1").text


def test_an_image_that_stood_in_for_another_is_shown_as_the_one_that_was_used(node: Node, visitor: Visitor) -> None:
    first, *others = phantom_images()
    later = altered(first, SOPInstanceUID=f"{first.SOPInstanceUID}.2", AcquisitionTime="235959", PixelData=b"")
    uid = node.chain.close([first, *others, later]).exam_uid
    node.read()
    rows = re.findall(r"<tr.*?</tr>", visitor.get(f"/exams/{uid}").text, re.DOTALL)
    used = [row for row in rows if 'data-label="Used"' in row]
    assert [">used<" in row for row in used] == [True] * 4 + [False]
    assert "The pixel data cannot be decoded" in used[-1]
    assert f"R CC: image {first.SOPInstanceUID} was read in place of {later.SOPInstanceUID}" in text(
        visitor.get(f"/exams/{uid}")
    )


def test_a_reading_whose_worker_is_gone_is_not_told_to_run(node: Node, visitor: Visitor) -> None:
    chain = node.chain
    job = chain.close(phantom_images())
    assert chain.queue.claim("gone", chain.clock())
    reads = text(visitor.get("/exams/lines")), text(visitor.get(f"/exams/{job.exam_uid}"))
    assert all("reading" in page and "its worker is gone" not in page for page in reads)
    chain.clock.forward(LEASE + timedelta(seconds=1))
    for page in ("/exams/lines", f"/exams/{job.exam_uid}"):
        assert "waiting its worker is gone" in text(visitor.get(page)), page
    assert "workers 0" in text(visitor.get("/system"))
    assert chain.worker().work_once()
    assert "its worker is gone" not in text(visitor.get("/exams/lines"))
    with writing(chain.room.engine) as connection:
        note_worker(connection, WorkerRecord("w", "model", "digest", "cpu", chain.clock(), chain.clock()))
    assert "workers 1" in text(visitor.get("/system"))


def test_an_answer_is_not_shown_as_the_present_one_while_the_exam_is_read_again(
    node: Node, visitor: Visitor, answered: str
) -> None:
    assert "answer so far" not in text(visitor.get(f"/exams/{answered}"))
    visitor.button(f"/exams/{answered}/re-read")
    assert "waiting answer so far: findings" in text(visitor.get(f"/exams/{answered}"))
    assert node.chain.queue.claim("worker", node.chain.clock())
    assert "answer so far: findings" in text(visitor.get(f"/exams/{answered}"))


# --- buttons of an exam


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


def test_a_reading_is_cancelled_and_the_exam_is_answered_so_and_can_be_read_after_all(
    node: Node, visitor: Visitor
) -> None:
    node.chain.close(phantom_images())
    uid = node.chain.exam.uid
    assert 'id="cancel"' in visitor.get(f"/exams/{uid}").text
    assert visitor.button(f"/exams/{uid}/cancel").status_code == 204
    assert node.chain.worker(destinations=node.destinations).work_once()
    assert node.chain.exam.status == "not analysed"
    assert "The reading was cancelled by an operator." in text(visitor.get(f"/exams/{uid}"))
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


def test_a_button_works_without_a_script_too(node: Node, visitor: Visitor, answered: str) -> None:
    answer = visitor.post(f"/exams/{answered}/re-read")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/exams/{answered}")


def test_an_exam_that_still_awaits_images_cannot_be_read_again(node: Node, visitor: Visitor) -> None:
    node.chain.receive(phantom_images()[:1])
    answer = visitor.button(f"/exams/{node.chain.exam.uid}/re-read")
    assert (answer.status_code, answer.json()["status"]) == (409, 409)


# --- destinations, senders, upload, system


def test_a_lane_is_paused_and_resumed_by_whom_is_kept(node: Node, visitor: Visitor, answered: str) -> None:
    assert visitor.button("/destinations/ris/pause").status_code == 204
    assert "by Ada" in (told := text(visitor.get("/destinations")))
    assert "paused" in told
    assert node.chain.outbox.due("ris", node.chain.clock(), 9) == []
    assert visitor.button("/destinations/ris/resume").status_code == 204
    assert len(node.chain.outbox.due("ris", node.chain.clock(), 9)) > 0
    with reading(node.chain.room.engine) as connection:
        done = [(each.what, each.who) for each in actions_of_destination(connection, "ris", 9)]
    assert done == [("resume", "Ada"), ("pause", "Ada")]
    for what in ("pause", "resume", "echo"):
        assert visitor.button(f"/destinations/elsewhere/{what}").status_code == 404


def test_a_destination_is_asked_whether_it_is_there(tmp_path: Path, engine: Engine) -> None:
    with a_pacs() as (_, port):
        there = PACS.model_copy(update={"port": port})
        away = REPORTS_ONLY.model_copy(update={"port": a_free_port()})
        with a_node(tmp_path, engine, destinations=(there, away)) as node, Visitor(base_url=node.address) as visitor:
            assert "pacs answers" in visitor.button("/destinations/pacs/echo").headers["hx-trigger"]
            assert "ris does not answer" in visitor.button("/destinations/ris/echo").headers["hx-trigger"]
            told = text(visitor.get("/destinations"))
            assert "pacs open" in told
            assert "ris does not answer" in told
            assert "no connection" in told


def test_a_destination_that_did_not_answer_is_told_of_until_it_does(
    node: Node, visitor: Visitor, answered: str
) -> None:
    node.echoes.ask()
    assert "ris does not answer" in text(visitor.get("/destinations"))
    node.chain.clock.forward(timedelta(minutes=1))
    with writing(node.chain.room.engine) as connection:
        connection.execute(update(deliveries).values(sent_at=node.chain.clock()))
    assert "ris open" in text(visitor.get("/destinations"))
    node.chain.clock.forward(timedelta(minutes=1))
    node.echoes.ask()
    assert "ris does not answer" in text(visitor.get("/destinations"))
    node.echoes.note(REPORTS_ONLY, EchoResult(answered=True, seconds=0.01, message=""))
    assert "ris open" in text(visitor.get("/destinations"))


def test_senders_tell_who_called_what_was_accepted_and_what_refused_and_why(node: Node, visitor: Visitor) -> None:
    node.send(phantom_images())
    node.send([an_image(SOPInstanceUID="1.2.3.4", PatientID="other")])
    with pytest.raises(AssociationRejected):
        node.send(phantom_images()[:1], 'STRANGER"#')
    assert eventually(lambda: node.senders.write_down() == 1)  # the door notes it after it has said no
    told = text(visitor.get("/senders"))
    assert re.search(r"MODALITY 127\.0\.0\.1 known", told)
    assert "images, 14 days 5 images refused 0 associations 2 rejected 0" in told
    assert "Digital Mammography X-Ray Image Storage - For Presentation" in told
    assert "STRANGER" in told
    assert "not recognised" in told
    assert r'{ ae_title = "STRANGER\"#", address = "127.0.0.1" }' in visitor.get("/senders").text.replace("&#34;", '"')


def test_an_upload_goes_through_the_intake(node: Node, visitor: Visitor, tmp_path: Path) -> None:
    exams = set()
    for number, image in enumerate(phantom_images()):
        path = tmp_path / f"{number}.dcm"
        image.save_as(path, enforce_file_format=True)
        told = visitor.post("/upload", content=path.read_bytes()).json()
        assert (told["outcome"], told["instance"]) == ("stored", image.SOPInstanceUID)
        exams.add(told["exam"])
    assert exams == {node.chain.exam.uid}
    assert visitor.post("/upload", content=path.read_bytes()).json()["outcome"] == "known"
    refused = visitor.post("/upload", content=b"no image at all")
    assert (refused.status_code, refused.json()["status"]) == (400, 400)
    assert list(node.chain.room.store.incoming.iterdir()) == []
    node.read()
    assert node.chain.exam.status == "findings"
    assert "UPLOAD" in text(visitor.get("/exams/lines"))


def test_the_system_page_tells_disk_queue_speed_model_and_versions(standing: Standing) -> None:
    visitor = standing.visitor
    told = text(visitor.get("/system"))
    for words in (
        "free of",
        "Nothing waits.",
        "exams read 1",
        "mass-fpn-boxes",
        "CBIS-DDSM",
        "pydicom",
        "schema current",
    ):
        assert words in told
    visitor.get("/exams", headers={"Authorization": "Bearer mmn_wrong"})
    assert re.search(r"401 not authenticated 1\b", text(visitor.get("/system")))


def test_the_system_page_tells_of_the_last_self_test(node: Node, visitor: Visitor) -> None:
    now = node.chain.clock()
    assert "None was made: mammonode selftest" in text(visitor.get("/system"))
    for test, words in (
        (SelfTest(now, 60, passed=False, phase="deliver", cause="nothing came"), "phase deliver: nothing came"),
        (SelfTest(now, 12.3, passed=True), "Passed"),
    ):
        with writing(node.chain.room.engine) as connection:
            note(connection, test)
        assert words in text(visitor.get("/system"))


# --- who may


PAGES = ("/exams", "/destinations", "/senders", "/system", "/exams/lines", "/destinations/body")


def test_without_a_token_a_browser_is_sent_to_log_in_and_a_program_is_told(standing: Standing) -> None:
    node = standing.node
    with httpx2.Client(base_url=node.address) as client:
        for path in PAGES:
            browser = client.get(path, headers={"Accept": "text/html,*/*"})
            assert (browser.status_code, browser.headers["location"]) == (303, f"/login?next={path}")
            program = client.get(path)
            assert (program.status_code, program.headers["content-type"]) == (401, "application/problem+json")
        assert client.post("/upload", content=b"x").status_code == 401
        assert client.post("/destinations/ris/pause").status_code == 401


def test_who_may_only_look_sees_no_button_and_cannot_press_one(standing: Standing) -> None:
    node, answered = standing.node, standing.uid
    headers = {"Authorization": f"Bearer {node.token('Looker', 'read')}"}
    with Visitor(base_url=node.address, headers=headers) as looker:
        page = looker.get(f"/exams/{answered}").text
        assert "/re-read" not in page
        assert "/upload" not in page
        for path in (f"/exams/{answered}/re-read", f"/exams/{answered}/resend", "/destinations/ris/pause", "/upload"):
            assert looker.button(path).status_code == 403


def test_a_browser_logs_in_with_a_token_and_out(standing: Standing) -> None:
    node, answered = standing.node, standing.uid
    secret = node.token("Eve", *OPERATOR)
    same = {"Sec-Fetch-Site": "same-origin"}
    with Visitor(base_url=node.address, headers={"Accept": "text/html"}) as browser:
        wrong = browser.post("/login", data={"token": "mmn_wrong", "next": "/senders"})
        assert wrong.status_code == 401
        assert "opens nothing" in wrong.text
        right = browser.post("/login", data={"token": secret, "next": f"/exams/{answered}"})
        assert (right.status_code, right.headers["location"]) == (303, f"/exams/{answered}")
        cookie = right.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert secret not in cookie
        assert "Eve" in text(browser.get(f"/exams/{answered}"))
        assert browser.post("/destinations/ris/pause").status_code == 403  # says nothing of where it comes from
        assert browser.post("/destinations/ris/pause", headers=same).status_code == 303
        assert browser.post("/destinations/ris/resume", headers=same).status_code == 303
        assert browser.post("/logout", headers=same).status_code == 303
        assert browser.get(f"/exams/{answered}").status_code == 303


@pytest.mark.parametrize("target", ["https://evil.example", "//evil.example", "/\\evil.example", ""])
def test_logging_in_leads_to_no_other_site(standing: Standing, target: str) -> None:
    node = standing.node
    with httpx2.Client(base_url=node.address) as browser:
        answer = browser.post("/login", data={"token": node.token(f"Bob {target}", "read"), "next": target})
        assert answer.headers["location"] == "/exams"


def test_a_page_loads_nothing_from_elsewhere(standing: Standing) -> None:
    visitor, answered = standing.visitor, standing.uid
    for path in ("/exams", f"/exams/{answered}", "/destinations", "/senders", "/upload", "/system", "/login"):
        answer = visitor.get(path)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        loaded = re.findall(r'(?:src|href|action)="([^"]+)"', answer.text)
        assert loaded
        assert [address for address in loaded if not address.startswith(("/", "#"))] == []
        assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", answer.text)
        for address in {each for each in loaded if each.startswith("/static/")}:
            assert visitor.get(address).status_code == 200


def test_a_fault_shows_a_page_to_people_and_a_document_to_programs(standing: Standing) -> None:
    visitor = standing.visitor
    people = visitor.get("/exams/ffff", headers={"Accept": "text/html"})
    assert (people.status_code, people.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "No exam has this id" in people.text
    assert visitor.get("/exams/ffff").json()["title"] == "Not Found"
