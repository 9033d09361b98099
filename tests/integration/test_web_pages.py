"""What all pages share: whom they let in, what they keep to themselves, in whose time they tell."""

import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from node.web.pages import login
from tests.pages import OPERATOR, Standing, Visitor, a_node, standing, text

__all__ = ["standing"]

pytestmark = pytest.mark.sqlite_alone

PAGES = ("/exams", "/destinations", "/senders", "/system", "/exams/lines", "/destinations/body")


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


def test_a_page_tells_in_whose_time_it_is(standing: Standing) -> None:
    for page in ("/exams", f"/exams/{standing.uid}", "/destinations", "/senders", "/system"):
        assert re.search(r"Times are the node's own \(\S+, UTC[+-]\d{4}\)", text(standing.visitor.get(page))), page


def test_without_a_token_a_browser_is_sent_to_log_in_and_a_program_is_told(standing: Standing) -> None:
    node = standing.node
    with httpx2.Client(base_url=node.address, timeout=60) as client:
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
        for path in (
            f"/exams/{answered}/re-read",
            f"/exams/{answered}/resend",
            f"/exams/{answered}/waive",
            "/destinations/ris/pause",
            "/upload",
        ):
            assert looker.button(path).status_code == 403


def test_a_stranger_who_sends_the_form_byte_by_byte_keeps_no_place(
    standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login, "FORM_WITHIN", 0.1)
    where = urlsplit(standing.node.address)
    with socket.create_connection((str(where.hostname), int(where.port or 0)), 15) as line:
        line.sendall(b"POST /login HTTP/1.1\r\nHost: " + where.netloc.encode())
        line.sendall(b"\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 90\r\n\r\ntoken=m")
        assert line.recv(12) == b"HTTP/1.1 408"


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
    with httpx2.Client(base_url=node.address, timeout=60) as browser:
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


@pytest.mark.parametrize("name", ["no.css", "a" * 5000, "..%2flogin.py"])
def test_what_is_no_file_of_a_page_is_not_found(standing: Standing, name: str) -> None:
    assert standing.visitor.get(f"/static/{name}").status_code == 404


def test_a_fault_shows_a_page_to_people_and_a_document_to_programs(standing: Standing) -> None:
    visitor = standing.visitor
    people = visitor.get("/exams/ffff", headers={"Accept": "text/html"})
    assert (people.status_code, people.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "No exam has this id" in people.text
    assert visitor.get("/exams/ffff").json()["title"] == "Not Found"
