"""The pages of the node itself as a program asks for them: destinations, senders, upload, system."""

import errno
import re
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, update

from node.errors import AssociationRejected
from node.scu import EchoResult
from node.web.pages.system import stages_of
from node.web.rendering import seconds
from storage.actions import actions_of_destination
from storage.database import reading, writing
from storage.overview import Reading
from storage.selftests import SelfTest, note
from storage.tables import deliveries
from tests.chain import PACS, REPORTS_ONLY
from tests.doors import an_image, phantom_images
from tests.pacs import a_free_port, a_pacs
from tests.pages import Node, Standing, Visitor, a_node, answered, node, standing, text, visitor
from tests.peers import eventually
from tests.records import NOON

__all__ = ["answered", "node", "standing", "visitor"]

pytestmark = pytest.mark.sqlite_alone


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


def test_the_stages_of_a_reading_are_those_of_exams_that_were_read() -> None:
    timings: tuple[dict[str, float], ...] = ({"read": 17, "total": 27}, {"total": 2}, {"total": 2})
    readings = [Reading(NOON, NOON, NOON, NOON, each) for each in timings]
    assert stages_of(readings) == {"read": 17, "total": 27}


def test_the_system_page_tells_of_a_store_that_is_gone(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr("shutil.disk_usage", gone)
    assert "does not answer, and nothing is received" in text(visitor.get("/system"))


def test_the_system_page_tells_how_long_a_reading_has_waited_since_it_could_begin(node: Node, visitor: Visitor) -> None:
    chain = node.chain
    chain.close(phantom_images())
    chain.clock.forward(timedelta(seconds=40))
    assert "The oldest has waited 40 s." in text(visitor.get("/system"))
    job = chain.queue.claim("worker", chain.clock())
    assert job
    chain.queue.fail(job, "worker", "broken", chain.clock())
    delay = chain.job.not_before - chain.clock()
    assert f"The next is tried again in {seconds(delay.total_seconds())}." in text(visitor.get("/system"))
    chain.clock.forward(delay + timedelta(seconds=20))
    assert "The oldest has waited 20 s." in text(visitor.get("/system"))


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
