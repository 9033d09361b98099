"""The HTTP door's frame: who may, limits, problem documents, the line in the log."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from config.settings import Http
from node import errors, status
from node.errors import NotAuthenticated
from node.readiness import Check
from node.web.access import Authentication, Guarded, Identity, Scope, ThisMachine
from node.web.app import Counts, Routes, create_app
from node.web.health import health_routes
from node.web.requests import Truncated
from storage.errors import DatabaseUnavailable, DiskLow


class ByHeader:
    """Callers say their scopes in a header; one that says "wrong" has wrong credentials."""

    def identify(self, connection: Any) -> Identity | None:
        said = connection.headers.get("x-scopes")
        if said == "wrong":
            raise NotAuthenticated
        return None if said is None else Identity("somebody", frozenset(Scope(name) for name in said.split()))


def raises(error: Exception) -> Callable[[Request], Response]:
    def endpoint(_request: Request) -> Response:
        raise error

    return endpoint


def says(text: str) -> Callable[[Request], Response]:
    def endpoint(_request: Request) -> Response:
        return PlainTextResponse(text)

    return endpoint


async def swallows(request: Request) -> Response:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    return PlainTextResponse(str(size))


def an_app(
    *routes: Guarded, counts: Counts | None = None, ways: tuple[Authentication, ...] = (), **limits: Any
) -> Starlette:
    return create_app(Http(**limits), ways or (ByHeader(),), Routes(pages=routes), counts or Counts())


def a_client(app: Starlette, **options: Any) -> TestClient:
    return TestClient(app, raise_server_exceptions=False, **options)


@pytest.mark.parametrize("hosts", [(), ("testserver", "other")])
def test_a_request_names_one_host(hosts: tuple[str, ...]) -> None:
    app = an_app(Guarded("/x", says("in"), needs=None))
    answers = list[Any]()

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        answers.append(message)

    headers = [(b"host", host.encode()) for host in hosts]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/x",
        "headers": headers,
        "query_string": b"",
    }
    asyncio.run(app(scope, receive, send))
    assert answers[0]["status"] == 400


@pytest.mark.parametrize("path", ["/x", "/x/", "/x//"])
def test_slashes_at_the_end_of_an_address_change_nothing_and_lead_nowhere_else(path: str) -> None:
    routes = Routes([Guarded("/x", says("studies"), needs=Scope.READ)], [Guarded("/x", says("page"), needs=Scope.READ)])
    client = a_client(create_app(Http(), [ByHeader()], routes, Counts()), follow_redirects=False)
    for known, expected in ({"x-scopes": "read"}, 200), ({}, 401):
        for address in path, f"/dicom-web{path}":
            assert client.get(address, headers={"host": "evil.example", **known}).status_code == expected


def test_answers_are_kept_by_no_cache_unless_they_say_so() -> None:
    def lasting(_request: Request) -> Response:
        return PlainTextResponse("style", headers={"Cache-Control": "public"})

    client = a_client(an_app(Guarded("/x", says("in"), needs=None), Guarded("/style", lasting, needs=None)))
    told = {path: client.get(path).headers.get_list("cache-control") for path in ("/x", "/nowhere", "/style")}
    assert told == {"/x": ["no-store"], "/nowhere": ["no-store"], "/style": ["public"]}


def test_strangers_are_told_whether_it_is_ready_and_no_more() -> None:
    checks = [Check("destination pacs", ok=False, needed=False, detail="silent")]
    client = a_client(an_app(*health_routes(lambda: checks, lambda: b"")))
    for scopes in {}, {"x-scopes": "store"}:
        answer = client.get("/readyz", headers=scopes)
        assert (answer.status_code, answer.json()) == (200, {"ready": True})
    assert client.get("/readyz", headers={"x-scopes": "read"}).json()["checks"][0]["name"] == "destination pacs"


def test_livez_answers_everybody() -> None:
    answer = a_client(an_app()).get("/livez")
    assert (answer.status_code, answer.text) == (200, "alive\n")


@pytest.mark.parametrize(
    ("said", "expected"),
    [(None, 401), ("wrong", 401), ("", 403), ("store operate", 403), ("read", 200), ("store read operate", 200)],
)
def test_a_route_lets_in_who_has_its_scope(said: str | None, expected: int) -> None:
    client = a_client(an_app(Guarded("/x", says("in"), needs=Scope.READ)))
    answer = client.get("/x", headers={} if said is None else {"x-scopes": said})
    assert answer.status_code == expected
    if expected != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == expected
    assert ("www-authenticate" in answer.headers) == (expected == 401)


def test_one_path_may_need_another_scope_for_another_method() -> None:
    app = an_app(
        Guarded("/x", says("got"), needs=Scope.READ), Guarded("/x", says("put"), needs=Scope.STORE, methods=["POST"])
    )
    client = a_client(app, headers={"x-scopes": "store"})
    assert (client.post("/x").text, client.get("/x").status_code) == ("put", 403)


def test_a_route_that_does_not_say_what_it_needs_is_refused_before_the_door_opens() -> None:
    with pytest.raises(ValueError, match="do not say"):
        create_app(Http(), (), Routes(dicom_web=[Route("/studies", says(""))]), Counts())


@pytest.mark.parametrize(("kind", "code"), status.HTTP_STATUSES)
def test_every_known_error_is_a_problem_document_with_its_status(kind: type[Exception], code: int) -> None:
    client = a_client(an_app(Guarded("/x", raises(kind("/srv/secret/place")), needs=None)))
    answer = client.get("/x")
    assert (answer.status_code, answer.headers["content-type"]) == (code, "application/problem+json")
    document = answer.json()
    assert document["status"] == code
    assert document["detail"]
    assert document["request"] == answer.headers["x-request-id"]
    if code >= 500:
        assert "secret" not in answer.text
        assert int(answer.headers["retry-after"]) > 0


def test_an_error_that_nobody_foresaw_tells_nothing_of_itself() -> None:
    client = a_client(an_app(Guarded("/x", raises(ValueError("Doe^Jane")), needs=None)))
    with capture_logs() as lines:
        answer = client.get("/x")
    assert answer.status_code == 500
    assert "Jane" not in answer.text
    [line] = [line for line in lines if line["event"] == "request"]
    assert line["log_level"] == "error"
    assert line["error"].startswith("ValueError in test_web_app.py:")
    assert "Jane" not in str(lines)


def test_what_is_not_there_is_a_problem_document_too() -> None:
    client = a_client(an_app(Guarded("/x", says(""), needs=None)))
    for answer, code in ((client.get("/Doe^Jane"), 404), (client.delete("/x"), 405), (client.get("/dicom-web/x"), 404)):
        assert (answer.status_code, answer.json()["status"]) == (code, code)


def test_every_request_is_one_line_without_its_query() -> None:
    client = a_client(an_app(Guarded("/studies/{uid}", says("x" * 7), needs=Scope.READ)), headers={"x-scopes": "read"})
    with capture_logs() as lines:
        client.get("/studies/1.2?PatientName=Doe^Jane")
        client.get("/Doe^Jane")
    first, second = [line for line in lines if line["event"] == "request"]
    told = {key: first[key] for key in ("method", "path", "status", "bytes", "caller", "log_level")}
    assert told == {
        "method": "GET", "path": "/studies/1.2", "status": 200, "bytes": 7, "caller": "somebody", "log_level": "info"
    }  # fmt: skip
    assert (second["status"], second["log_level"]) == (404, "warning")
    assert "Jane" not in str(lines)


def test_answers_are_counted_by_status() -> None:
    counts = Counts()
    client = a_client(an_app(Guarded("/x", says(""), needs=Scope.READ), counts=counts))
    for said in (None, "wrong", "store", "read"):
        client.get("/x", headers={} if said is None else {"x-scopes": said})
    assert counts.answers == {401: 2, 403: 1, 200: 1}


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused(*, chunked: bool) -> None:
    app = an_app(Guarded("/x", swallows, needs=None, methods=["POST"]), maximum_body_mb=0.001)
    client = a_client(app)

    def body(size: int) -> Any:
        return iter([b"x" * size]) if chunked else b"x" * size

    assert client.post("/x", content=body(1000)).text == "1000"
    answer = client.post("/x", content=body(1001))
    assert (answer.status_code, answer.json()["title"]) == (413, "Request Entity Too Large")


def test_requests_beyond_the_limit_are_told_to_come_again() -> None:
    inside, leave = threading.Event(), threading.Event()

    def waits(_request: Request) -> Response:
        inside.set()
        assert leave.wait(30)
        return PlainTextResponse("done")

    app = an_app(Guarded("/x", waits, needs=None), maximum_requests=1)
    with a_client(app) as client:
        answers: list[int] = []
        first = threading.Thread(target=lambda: answers.append(client.get("/x").status_code))
        first.start()
        assert inside.wait(30)
        answer = client.get("/x")
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
        assert client.get("/livez").status_code == 200
        leave.set()
        first.join(30)
    assert answers == [200]


def test_an_answer_that_breaks_off_is_cut() -> None:
    def half() -> Iterator[bytes]:
        yield b"half"
        raise DatabaseUnavailable

    app = an_app(Guarded("/x", lambda _request: StreamingResponse(half()), needs=None))
    with capture_logs() as lines, pytest.raises(Truncated):
        TestClient(app).get("/x")
    assert [line["cause"] for line in lines if line["event"] == "request"] == [str(DatabaseUnavailable())]


@contextmanager
def from_(address: str, host: str, app: Starlette) -> Iterator[TestClient]:
    yield a_client(app, client=(address, 40000), base_url=f"http://{host}")


@pytest.mark.parametrize(
    ("address", "host", "headers", "expected"),
    [
        ("127.0.0.1", "localhost:8080", {}, 200),
        ("127.0.0.1", "127.0.0.1:8080", {}, 200),
        ("::1", "[::1]:8080", {}, 200),
        ("127.0.0.1", "evil.example:8080", {}, 401),  # DNS rebinding
        ("127.0.0.1", "localhost", {"X-Forwarded-For": "10.0.0.9"}, 401),
        ("127.0.0.1", "localhost", {"Forwarded": "for=10.0.0.9"}, 401),
        ("10.0.0.9", "localhost", {}, 401),
    ],
)
def test_only_this_machine_itself_needs_no_credentials(
    address: str, host: str, headers: dict[str, str], expected: int
) -> None:
    app = an_app(Guarded("/x", says("in"), needs=Scope.OPERATE), ways=(ThisMachine(),))
    with from_(address, host, app) as client:
        assert client.get("/x", headers=headers).status_code == expected


def test_no_message_of_ours_is_empty() -> None:
    assert DiskLow.__doc__
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.NodeError)]
    assert all((kind.__doc__ or "").endswith(".") for kind in kinds)
