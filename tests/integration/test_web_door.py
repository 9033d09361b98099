"""The HTTP door over a real socket: opened, drained, closed; and closed to the network while it is not protected."""

import asyncio
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from config.settings import Http, Settings, Storage
from node.errors import CannotListen, CertificateUnusable, NotProtected
from node.parts import Parts, open_parts
from node.service import web_door
from node.web.access import Guarded, ThisMachine
from node.web.app import Counts, Routes, create_app
from node.web.bearer import Uses
from node.web.certificates import CertifyingProtocol
from node.web.connection import LONG_READ, MOST_WAITING
from node.web.server import WebDoor
from storage.database import writing
from storage.tokens import add_token, revoke_token


@contextmanager
def a_door(*routes: Guarded, **http: Any) -> Iterator[WebDoor]:
    settings = Http(port=0, **http)
    door = WebDoor(settings, create_app(settings, [ThisMachine()], Routes(pages=routes), Counts()))
    door.start()
    try:
        yield door
    finally:
        door.stop()


def test_it_answers_from_the_moment_it_is_open_until_it_is_closed() -> None:
    with a_door() as door:
        address = f"http://127.0.0.1:{door.port}/livez"
        assert httpx2.get(address, timeout=60).text == "alive\n"
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(address)


def test_every_answer_tells_its_time_once() -> None:
    with a_door() as door:
        for path in ("livez", "nowhere"):
            [told] = httpx2.get(f"http://127.0.0.1:{door.port}/{path}", timeout=60).headers.get_list("date")
            assert abs(datetime.now(UTC) - parsedate_to_datetime(told)) < timedelta(minutes=1)


def test_no_part_of_a_response_waits_until_the_one_before_was_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once: list[int] = []
    made = CertifyingProtocol.connection_made

    def noted(protocol: CertifyingProtocol, transport: Any) -> None:
        line = transport.get_extra_info("socket")
        at_once.append(line.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        made(protocol, transport)

    monkeypatch.setattr(CertifyingProtocol, "connection_made", noted)
    with a_door() as door:
        assert httpx2.get(f"http://127.0.0.1:{door.port}/livez", timeout=60).text == "alive\n"
    assert at_once == [1]


def test_a_body_comes_whole_to_whoever_reads_it_slowly_and_in_pieces_of_bounded_size() -> None:
    body = bytes(range(251)) * (5 * LONG_READ // 251)
    sizes: list[list[int]] = []

    async def digested(request: Request) -> Response:
        made, own = hashlib.sha256(), list[int]()
        sizes.append(own)
        async for piece in request.stream():
            made.update(piece)
            own.append(len(piece))
            await asyncio.sleep(0.01)
        return PlainTextResponse(made.hexdigest())

    def pieces(size: int) -> Iterator[bytes]:
        yield from (body[at : at + size] for at in range(0, len(body), size))

    with a_door(Guarded("/digest", digested, needs=None, methods=("POST",))) as door:
        address = f"http://127.0.0.1:{door.port}/digest"
        with httpx2.Client(timeout=60) as first, httpx2.Client(timeout=60) as second:
            for content in (body, pieces(100_000), pieces(3 * LONG_READ)):
                assert first.post(address, content=content).text == hashlib.sha256(body).hexdigest()
            assert first.post(address, content=b"").text == hashlib.sha256().hexdigest()
            # Both are read to one place.
            answers: list[str] = []
            thread = threading.Thread(target=lambda: answers.append(second.post(address, content=body).text))
            thread.start()
            other = bytes(len(body))
            assert first.post(address, content=other).text == hashlib.sha256(other).hexdigest()
            thread.join()
        assert answers == [hashlib.sha256(body).hexdigest()]
    # A sender is stopped when more than one read waits, and not before.
    assert LONG_READ < max(map(max, filter(None, sizes))) <= MOST_WAITING + LONG_READ


def test_whoever_takes_no_more_of_an_answer_is_let_go() -> None:
    ended = threading.Event()

    def pieces(count: int, seconds: float) -> Iterator[bytes]:
        for _ in range(count):
            time.sleep(seconds)
            yield bytes(1 << 20)

    class Noted(StreamingResponse):
        async def __call__(self, *given: Any) -> None:
            try:
                await super().__call__(*given)
            finally:
                ended.set()

    async def much(_request: Request) -> Response:
        return Noted(pieces(400, 0))

    async def long(_request: Request) -> Response:
        return Response(bytes(48 << 20))

    async def slow(_request: Request) -> Response:
        return StreamingResponse(pieces(6, 0.2))

    routes = (
        Guarded(f"/{name}", answer, needs=None) for name, answer in {"much": much, "long": long, "slow": slow}.items()
    )
    with a_door(*routes, network_timeout=1) as door:
        address = "127.0.0.1", door.port
        with socket.create_connection(address, timeout=20) as line:
            line.sendall(b"GET /much HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert ended.wait(20)
            taken = 0
            with suppress(ConnectionResetError):
                while data := line.recv(1 << 20):
                    taken += len(data)
            assert taken < 400 << 20
        # Whoever takes a long one slowly is waited for, though it stays beyond what may wait.
        with socket.create_connection(address, timeout=20) as line:
            line.sendall(b"GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n")
            taken, began = 0, time.monotonic()
            while taken < 48 << 20:
                time.sleep(0.004)
                data = line.recv(1 << 16)
                assert data
                taken += len(data)
            assert time.monotonic() - began > 1
        # An answer that takes longer is not given up while it is taken.
        assert len(httpx2.get(f"http://{address[0]}:{address[1]}/slow", timeout=60).content) == 6 << 20


def test_it_lets_what_has_begun_end_before_it_closes() -> None:
    inside, leave = threading.Event(), threading.Event()

    def waits(_request: Request) -> Response:
        inside.set()
        assert leave.wait(30)
        return PlainTextResponse("whole")

    answers: list[str] = []
    with a_door(Guarded("/x", waits, needs=None)) as door:
        address = f"http://127.0.0.1:{door.port}/x"
        asking = threading.Thread(target=lambda: answers.append(httpx2.get(address, timeout=60).text))
        asking.start()
        assert inside.wait(30)
        closing = threading.Thread(target=door.stop)
        closing.start()
        leave.set()
        closing.join(60)
        asking.join(60)
    assert answers == ["whole"]


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Http(port=taken.getsockname()[1])
        door = WebDoor(settings, create_app(settings, [], Routes(), Counts()))
        with pytest.raises(CannotListen, match=rf"http, 127\.0\.0\.1:{settings.port}"):
            door.start()


def opened(parts: Parts) -> WebDoor | None:
    return web_door(parts, Routes(), Counts(), Uses(parts.engine))


@pytest.fixture
def parts_with(tmp_path: Path) -> Iterator[Callable[..., Parts]]:
    made: list[Parts] = []

    def parts(**http: Any) -> Parts:
        settings = Settings(storage=Storage(folder=tmp_path), http=Http(port=0, **http))
        made.append(open_parts(settings))
        return made[-1]

    yield parts
    for each in made:
        each.engine.dispose()


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "192.0.2.1", "node.example"])  # noqa: S104 (refused here)
def test_it_does_not_open_to_the_network_unprotected(bind: str, parts_with: Callable[..., Parts]) -> None:
    with pytest.raises(NotProtected, match="mammonode tokens add"):
        opened(parts_with(bind=bind))


def test_it_opens_to_the_network_once_callers_must_say_who_they_are(parts_with: Callable[..., Parts]) -> None:
    outside = {"bind": "0.0.0.0"}  # noqa: S104 (not opened here)
    parts = parts_with(**outside)
    now = datetime.now(UTC)
    with writing(parts.engine) as connection:
        add_token(connection, "pacs", ["read"], now, now + timedelta(days=1))
    assert opened(parts) is not None
    with writing(parts.engine) as connection:
        revoke_token(connection, "pacs", now)
    with pytest.raises(NotProtected):
        opened(parts)
    assert opened(parts_with(**outside, oidc_issuer="https://id.example", oidc_audience="mammonode")) is not None


@pytest.mark.parametrize("bind", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_it_opens_to_this_machine(bind: str, parts_with: Callable[..., Parts]) -> None:
    assert opened(parts_with(bind=bind)) is not None


def test_it_stays_closed_where_the_settings_say_so(parts_with: Callable[..., Parts]) -> None:
    assert opened(parts_with(enabled=False)) is None


def test_a_certificate_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    for content in (None, "no certificate"):
        path = tmp_path / "node.pem"
        if content:
            path.write_text(content)
        settings = Http(port=0, certificate=str(path))
        with pytest.raises(CertificateUnusable, match=r"in \[http\]"):
            WebDoor(settings, create_app(settings, [], Routes(), Counts())).start()
