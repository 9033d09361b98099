"""Bodies of requests over a real connection: read by the thread that stores them, whole, and not waited for for ever."""

import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid
from starlette.requests import Request

from node.results.encode import to_bytes
from node.web import connection, stow
from node.web.connection import BLOCK, LARGEST_HEAD, LONG_READ, OF_A_FIELD, Rest
from tests.authority import Authority
from tests.doors import Room, phantom_images
from tests.peers import eventually
from tests.web import a_service, content_type, related, served

pytestmark = pytest.mark.sqlite_alone
LIVING = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


def images(count: int = 4) -> list[Dataset]:
    """Return so many images, each longer than two blocks."""
    made = []
    for number in range(count):
        image = deepcopy(phantom_images()[number % 4])
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.add_new(0x00091010, "OB", bytes(range(256)) * (2 * BLOCK // 256))
        image.add_new(0x00090010, "LO", "OF THE TEST")
        made.append(image)
    return made


def head(length: int | str, *more: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in (f"Content-Type: {content_type()}", *more))
    stated = f"Content-Length: {length}\r\n" if length else ""
    return f"POST /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\n{lines}{stated}\r\n".encode()


class Kept(BufferedReader):
    """Stays open: another answer may be in it."""

    def close(self) -> None:
        return


class Line:
    """A connection to the door, and what comes over it."""

    def __init__(self, address: str) -> None:
        self.socket = socket.create_connection((urlsplit(address).hostname, urlsplit(address).port or 0), timeout=20)
        self._file = Kept(cast("RawIOBase", self.socket.makefile("rb", buffering=0)))

    def makefile(self, _mode: str) -> BufferedReader:
        return self._file

    def send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def answer(self) -> tuple[int, bytes]:
        found = HTTPResponse(cast("socket.socket", self))
        found.begin()
        return found.status, found.read()

    def ends(self) -> bool:
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True


@contextmanager
def a_door(room: Room, silence: float = 60) -> Iterator[str]:
    with (
        a_service(room, network_timeout=silence) as service,
        served(service.app, silence, timeout_graceful_shutdown=1) as address,
    ):
        yield address


@pytest.fixture
def door(room: Room) -> Iterator[str]:
    with a_door(room) as address:
        yield address


@pytest.fixture
def line(door: str) -> Iterator[Line]:
    opened = Line(door)
    yield opened
    opened.socket.close()


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> list[Rest]:
    """What is read by the thread that stores it."""
    found: list[Rest] = []

    def rest_of(request: Request) -> Rest | None:
        rest = connection.rest_of(request)
        if rest:
            found.append(rest)
        return rest

    monkeypatch.setattr(stow, "rest_of", rest_of)
    return found


def kept(room: Room) -> set[bytes]:
    files = [room.store.root / name for name in room.files() if name.endswith(".dcm")]
    return {path.read_bytes() for path in files}


@pytest.mark.parametrize("size", [1 << 30, 3 * BLOCK + 1, 70_001])
def test_images_are_kept_as_they_were_sent_however_they_come(
    room: Room, line: Line, beside: list[Rest], size: int
) -> None:
    sent = [to_bytes(image) for image in images()]
    body = related(sent)
    line.send(head(len(body)))
    for at in range(0, len(body), size):
        line.send(body[at : at + size])
        time.sleep(0.005)
    status, answer = line.answer()
    assert (status, answer.count(b"00081199")) == (200, 1)
    assert len(beside) == 1
    assert kept(room) == set(sent)


def test_the_connection_is_good_for_the_next_request_also_one_that_is_sent_at_once(line: Line, room: Room) -> None:
    for count in (2, 1):
        body = related([to_bytes(image) for image in images(count)])
        line.send(head(len(body)), body, LIVING, head(len(body)), body)
        assert [line.answer()[0] for _ in range(3)] == [200] * 3
    assert room.rows()[0] == 3


def test_a_body_of_unknown_length_goes_through_the_event_loop(room: Room, door: str, beside: list[Rest]) -> None:
    sent = [to_bytes(image) for image in images(2)]
    client = HTTPConnection(urlsplit(door).netloc, timeout=20)
    pieces = (related(sent)[at : at + 100_000] for at in range(0, len(related(sent)), 100_000))
    client.request("POST", "/dicom-web/studies", pieces, {"Content-Type": content_type()}, encode_chunked=True)
    assert client.getresponse().status == 200
    client.close()
    assert not beside
    assert kept(room) == set(sent)


def test_an_encrypted_body_goes_through_the_event_loop(room: Room, tmp_path: Path, beside: list[Rest]) -> None:
    sent = [to_bytes(image) for image in images(2)]
    authority = Authority(tmp_path, "hospital")
    certificate = authority.signed("localhost")
    with a_service(room) as service, served(service.app, ssl_certfile=str(certificate)) as address:
        context = ssl.create_default_context(cafile=str(authority.path))
        client = HTTPSConnection(f"localhost:{urlsplit(address).port}", context=context, timeout=20)
        for _ in range(2):
            client.request("POST", "/dicom-web/studies", related(sent), {"Content-Type": content_type()})
            assert client.getresponse().read().count(b"00081199") == 1
        client.close()
    assert not beside
    assert kept(room) == set(sent)


def test_a_sender_that_asks_first_is_told_to_go_on(line: Line, beside: list[Rest]) -> None:
    body = related([to_bytes(images(1)[0])])
    line.send(head(len(body), "Expect: 100-continue"))
    assert line.socket.recv(100).startswith(b"HTTP/1.1 100 ")
    line.send(body)
    assert line.answer()[0] == 200
    assert beside


def test_what_is_refused_in_the_middle_is_read_to_its_end_and_the_connection_goes_on(room: Room, line: Line) -> None:
    body = related([({"Content-Type": "text/plain"}, bytes(20 * BLOCK))])
    line.send(head(len(body)), body[: 2 * BLOCK])
    assert line.answer()[0] == 415
    line.send(body[2 * BLOCK :], LIVING)
    assert line.answer() == (200, b"alive\n")
    assert room.files() == set()


def test_what_is_refused_by_the_thread_that_reads_it_leaves_the_connection_good(
    room: Room, line: Line, beside: list[Rest]
) -> None:
    body = related([to_bytes(images(1)[0]), ({"Content-Type": "text/plain"}, bytes(20 * BLOCK))])
    line.send(head(len(body)), body[:100])
    assert eventually(lambda: bool(beside))
    line.send(body[100 : 5 * BLOCK])
    assert line.answer()[0] == 202
    line.send(body[5 * BLOCK :], LIVING)
    assert line.answer() == (200, b"alive\n")
    assert room.rows()[0] == 1


def test_a_sender_that_goes_in_the_middle_loses_what_was_not_whole_alone(room: Room, line: Line) -> None:
    sent = [to_bytes(image) for image in images(2)]
    body = related(sent)
    line.send(head(len(body)), body[: -3 * BLOCK // 2])
    assert eventually(lambda: room.rows()[0] == 1)
    line.socket.shutdown(socket.SHUT_RDWR)
    assert eventually(lambda: not any("incoming" in name for name in room.files()) and kept(room) == {sent[0]})


def test_a_door_that_closes_does_not_wait_for_a_sender_that_is_silent(room: Room, beside: list[Rest]) -> None:
    with a_door(room) as address:
        line = Line(address)
        body = related([to_bytes(images(1)[0])])
        line.send(head(len(body)), body[:BLOCK])
        assert eventually(lambda: bool(beside))
        began = time.monotonic()
    assert time.monotonic() - began < 30  # it is waited for a minute else
    assert line.ends() or line.answer()[0] == 500
    assert not any("incoming" in name for name in room.files())
    line.socket.close()


class TestHeads:
    """What comes before a body, and after one, is taken within bounds."""

    @pytest.mark.parametrize(
        "fields",
        [
            b"X-A: " + b"a" * LARGEST_HEAD + b"\r\n\r\n",
            b"a:b\r\n" * (LARGEST_HEAD // OF_A_FIELD) + b"\r\n",
        ],
        ids=["long", "many"],
    )
    def test_a_head_that_is_too_large_is_refused_and_the_connection_closed(self, line: Line, fields: bytes) -> None:
        line.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n", fields)
        status, answer = line.answer()
        assert (status, json.loads(answer)["status"]) == (431, 431)
        assert line.ends()

    @pytest.mark.parametrize("begun", [b"GET /livez?", b"GET /livez HTTP/1.1\r\nX-A: "], ids=["target", "field"])
    def test_what_has_no_end_is_refused(self, line: Line, begun: bytes) -> None:
        line.send(begun)
        time.sleep(0.02)
        line.send(b"a" * (LARGEST_HEAD + 1))
        assert line.answer()[0] == 431
        assert line.ends()

    def test_a_head_of_the_size_that_is_taken_is_also_when_it_comes_in_pieces(self, line: Line) -> None:
        field = b"X-A: " + b"a" * (LARGEST_HEAD - 200) + b"\r\n"
        whole = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + field + b"\r\n"
        for _ in range(3):
            for at in range(0, len(whole), 1 << 15):
                line.send(whole[at : at + (1 << 15)])
            assert line.answer() == (200, b"alive\n")

    def test_one_refused_waits_for_the_answer_before_it(self, line: Line) -> None:
        line.send(LIVING, LIVING[:-2], b"X-A: " + b"a" * LARGEST_HEAD + b"\r\n\r\n")
        assert [line.answer()[0] for _ in range(2)] == [200, 431]

    def test_an_endless_trailer_is_cut_off(self, line: Line) -> None:
        line.send(head("", "Transfer-Encoding: chunked"), b"5\r\n--a-b\r\n0\r\nX-A: ")
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            line.send(*[b"a" * LONG_READ] * 1000)

    def test_long_chunks_are_no_trailers(self, line: Line, room: Room) -> None:
        body = related([to_bytes(images(1)[0])])
        line.send(head("", "Transfer-Encoding: chunked"), b"%x\r\n" % len(body))
        time.sleep(0.02)
        line.send(body, b"\r\n0\r\nX-A: a\r\n\r\n", LIVING)
        assert [line.answer()[0] for _ in range(2)] == [200, 200]
        assert room.rows()[0] == 1

    def test_of_too_many_that_have_said_nothing_the_first_is_let_go(
        self, door: str, line: Line, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connection, "MOST_UNHEARD", 2)
        line.send(LIVING)
        line.answer()
        others = [Line(door) for _ in range(3)]
        assert others[0].ends()
        for each in (*others[1:], line):
            each.send(LIVING)
            assert each.answer()[0] == 200
        for each in others:
            each.socket.close()


class TestSilence:
    """Whoever sends no more is told so, and let go."""

    @pytest.fixture
    def door(self, room: Room) -> Iterator[str]:
        with a_door(room, 1) as address:  # five times as long as whoever sends slowly rests
            yield address

    def test_before_anything_was_kept(self, line: Line, room: Room) -> None:
        body = related([to_bytes(images(1)[0])])
        line.send(head(len(body)), body[: BLOCK + 1])
        status, answer = line.answer()
        assert status == 408
        assert b"sender" in answer
        assert line.ends()
        assert room.files() == set()

    def test_after_an_image_was_kept(self, line: Line, room: Room) -> None:
        body = related([to_bytes(image) for image in images(2)])
        line.send(head(len(body)), body[:-BLOCK])
        status, answer = line.answer()
        assert status == 202
        assert b"0008119A" in answer
        assert room.rows()[0] == 1
        assert line.ends()

    def test_of_headers(self, line: Line) -> None:
        line.send(b"GET /livez HTTP/1.1\r\n")
        assert line.ends()

    def test_from_the_beginning(self, line: Line) -> None:
        assert line.ends()

    def test_after_an_answer_and_an_empty_line(self, line: Line) -> None:
        line.send(LIVING)
        line.answer()
        line.send(b"\r\n")
        assert line.ends()

    def test_whoever_sends_slowly_is_waited_for(self, line: Line) -> None:
        body = related([to_bytes(images(1)[0])])
        line.send(head(len(body)), body[:BLOCK])
        for at in range(6):
            time.sleep(0.2)
            line.send(body[BLOCK + at : BLOCK + at + 1])
        line.send(body[BLOCK + 6 :])
        assert line.answer()[0] == 200

    def test_of_a_body_of_unknown_length(self, line: Line) -> None:
        line.send(head("", "Transfer-Encoding: chunked"), b"5\r\n--a-b\r\n")
        assert line.answer()[0] == 408
        assert line.ends()
