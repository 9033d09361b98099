"""The page of the exams as a program asks for it: the list, and its filters."""

import re
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import Engine

from node.phantom import phantom_exam
from storage.database import writing
from storage.workers import WorkerRecord, note_worker
from tests.doors import an_image, phantom_images
from tests.pages import MANY_DIGITS, Node, Standing, Visitor, a_node, answered, node, standing, text, visitor
from tests.records import LEASE

__all__ = ["answered", "node", "standing", "visitor"]

pytestmark = pytest.mark.sqlite_alone


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


def test_a_name_turns_no_other_text_round_whichever_way_it_is_written(tmp_path: Path, engine: Engine) -> None:
    arabic = {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "محمد^\u202eمحمد", "PatientID": "12-34/5"}
    with (
        a_node(tmp_path, engine, show_patients=True) as node,
        httpx2.Client(base_url=node.address, timeout=60) as visitor,
    ):
        node.chain.receive([an_image(**arabic, StudyDescription="فحص 1-2")])
        exam = visitor.get(f"/exams/{node.chain.exam.uid}").text
        for page in (visitor.get("/exams/lines").text, exam):
            assert "<bdi>محمد \u202eمحمد</bdi>" in page
            assert '<bdi class="muted">12-34/5</bdi>' in page
        assert "<bdi>فحص 1-2</bdi>" in exam


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
