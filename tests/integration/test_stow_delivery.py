"""Delivery by STOW-RS: lanes, statuses and proof as by C-STORE, credentials, and certificates that are checked."""

import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ValidationError
from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from config.settings import Destination, Dicom, WebService
from node import user_agent
from node.commitment import Prover
from node.delivery import Lane
from node.errors import NodeError
from node.scu import Carrier, Item, Sender
from node.status import CANNOT_UNDERSTAND, CLASS_NOT_SUPPORTED, OUT_OF_RESOURCES, stored_over_http
from node.user_agent import AskedOverHTTP, UserAgent
from storage.commitments import Commitments
from storage.database import open_database
from storage.deliveries import Delivery
from storage.outbox import Outbox
from storage.states import DeliveryState
from tests.archives import an_archive
from tests.authority import Authority
from tests.databases import Databases
from tests.doors import Clock, a_room, no_reports, phantom_images
from tests.pacs import a_free_port, a_store
from tests.records import POLICY
from tests.web import a_service, a_waiting_report, an_address, served

AGENT = UserAgent(Dicom(network_timeout=20, acse_timeout=5))


def a_web_destination(url: str, **service: Any) -> Destination:
    proof = service.pop("proof", "none")
    return Destination(name="archive", web=WebService(url=url, **service), proof=proof)


@pytest.fixture
def outbox(engine: Engine) -> Outbox:
    return Outbox(engine, POLICY)


@pytest.fixture
def elsewhere(databases: Databases) -> Iterator[Engine]:
    """The database of another node: what is found there has come there."""
    opened = open_database(databases.fresh())
    yield opened
    opened.dispose()


class StandIn:
    """A STOW-RS service that behaves as told, and remembers who asked how."""

    def __init__(self, answers: Sequence[tuple[int, Any]] = (), takes: Callable[[str], bool] = lambda _: True) -> None:
        self.answers = list(answers)
        self.takes = takes
        self.authorizations: list[str] = []
        self.bodies: list[bytes] = []
        self.tokens = 0
        self.lasts = 3600
        self.app = Starlette(
            routes=[
                Route("/dicom-web/studies", self.store, methods=["GET", "POST"]),
                Route("/token", self.token, methods=["POST"]),
            ]
        )

    async def store(self, request: Request) -> Response:
        self.authorizations.append(request.headers.get("authorization", ""))
        self.bodies.append(await request.body())
        if not self.takes(self.authorizations[-1]):
            return Response(status_code=401)
        status, document = self.answers.pop(0) if len(self.answers) > 1 else (self.answers or [(200, {})])[0]
        page = isinstance(document, str) and document.startswith("<")
        return HTMLResponse(document, status) if page else JSONResponse(document, status)

    async def token(self, request: Request) -> Response:
        form = (await request.body()).decode()
        assert "grant_type=client_credentials" in form
        self.authorizations.append(request.headers["authorization"])
        self.tokens += 1
        return JSONResponse({"access_token": f"token-{self.tokens}", "expires_in": self.lasts})


def failure(reason: int, sequence: str = "00081198") -> dict[str, Any]:
    item = {"00081197": {"vr": "US", "Value": [reason]}}
    return {sequence: {"vr": "SQ", "Value": [item]}}


def deliver(destination: Destination, outbox: Outbox, store: Any, clock: Clock | None = None) -> Delivery:
    Lane(destination, outbox, AGENT, store, clock=clock or Clock()).deliver_due()
    [delivery] = outbox.of_exam(1)
    return delivery


def test_results_reach_a_service_and_are_verified_there(
    tmp_path: Path, engine: Engine, outbox: Outbox, elsewhere: Engine
) -> None:
    store, clock = a_store(tmp_path / "sender"), Clock()
    record = a_waiting_report(store, engine, "archive")
    receiving = a_room(tmp_path / "receiver", elsewhere)
    with a_service(receiving) as service, an_address(service.app) as url:
        destination = a_web_destination(url, proof="find")
        prover = Prover(
            destination, engine, outbox, Commitments(engine, outbox), AGENT, no_reports(engine), clock=clock
        )
        lane = Lane(destination, outbox, AGENT, store, clock=clock, prover=prover)
        assert lane.deliver_due() == 1
        [sent] = outbox.of_exam(1)
        assert (sent.state, sent.status_code) == (DeliveryState.SENT, 0)
        clock.forward(timedelta(minutes=1))
        assert lane.prove_due() == 1
        [proven] = outbox.of_exam(1)
        assert proven.state is DeliveryState.VERIFIED
        assert AGENT.echo(destination).answered
        assert AGENT.find(destination, [record]) == {record.instance_uid}
    assert not AGENT.echo(destination).answered


def test_an_application_entity_without_c_find_is_asked_over_http(
    tmp_path: Path, engine: Engine, outbox: Outbox, elsewhere: Engine
) -> None:
    store, clock = a_store(tmp_path / "sender"), Clock()
    record = a_waiting_report(store, engine, "archive")
    receiving = a_room(tmp_path / "receiver", elsewhere)
    with a_service(receiving) as service, an_address(service.app) as url, an_archive(finds=False) as archive:
        entity = Destination(name="archive", ae_title="ARCHIVE", host="127.0.0.1", port=archive.port, proof="find")
        asked = entity.model_copy(update={"query": WebService(url=url)})
        alone, both = Sender(Dicom()), AskedOverHTTP(Sender(Dicom()), AGENT)
        with pytest.raises(NodeError):
            alone.find(entity, [record])

        def lane(destination: Destination, carries: Carrier) -> Lane:
            commitments = Commitments(engine, outbox)
            prover = Prover(destination, engine, outbox, commitments, carries, no_reports(engine), clock=clock)
            return Lane(destination, outbox, carries, store, clock=clock, prover=prover)

        assert lane(asked, both).deliver_due() == 1
        clock.forward(timedelta(minutes=1))
        lane(asked, both).prove_due()
        [delivery] = outbox.of_exam(1)
        assert delivery.state is DeliveryState.SENT  # the archive has it, and its web service does not know of it
        assert archive.queries == []
        [response] = AGENT.send(a_web_destination(url), [Item.of(store.resolve(delivery.path))])
        assert response.status == 0
        clock.forward(POLICY.slow)
        assert lane(asked, both).prove_due() == 1
        [delivery] = outbox.of_exam(1)
        assert delivery.state is DeliveryState.VERIFIED


def test_a_web_service_has_no_other_one_for_queries() -> None:
    service = WebService(url="http://127.0.0.1/dicom-web")
    with pytest.raises(ValidationError, match="a web service is asked itself"):
        Destination(name="archive", web=service, query=service)


@pytest.mark.sqlite_alone
@pytest.mark.parametrize(
    ("answers", "state", "status"),
    [
        ([(202, failure(0x0122))], DeliveryState.REFUSED, 0x0122),
        ([(409, failure(0xA900))], DeliveryState.REFUSED, 0xA900),
        ([(409, failure(0xA700, "0008119A"))], DeliveryState.WAITING, 0xA700),
        ([(409, {})], DeliveryState.WAITING, CANNOT_UNDERSTAND),
        ([(415, {})], DeliveryState.REFUSED, CLASS_NOT_SUPPORTED),
        ([(503, {})], DeliveryState.WAITING, OUT_OF_RESOURCES),
        ([(403, {})], DeliveryState.WAITING, None),
        ([(500, "nonsense")], DeliveryState.WAITING, None),
        ([(409, failure(0xB00F))], DeliveryState.WAITING, None),
        ([(409, failure(0xB00E))], DeliveryState.SENT, 0x0111),
        ([(409, failure(0x0111))], DeliveryState.SENT, 0x0111),
        ([(202, "")], DeliveryState.SENT, 0),
        ([(202, failure(0))], DeliveryState.WAITING, None),
        ([(202, [failure(0xA700)])], DeliveryState.WAITING, OUT_OF_RESOURCES),
        (
            [(202, {"00081198": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1.2"]}}]}})],
            DeliveryState.WAITING,
            None,
        ),
        ([(200, {"00081198": {"vr": "SQ"}, "0008119A": {"vr": "SQ", "Value": [{}]}})], DeliveryState.SENT, 0),
        ([(200, "<!DOCTYPE html><html><title>Request Rejected</title></html>")], DeliveryState.WAITING, None),
        (
            [(200, {"00081199": {"vr": "SQ", "Value": [{"00081196": {"vr": "US", "Value": [0xB000]}}]}})],
            DeliveryState.SENT,
            0xB000,
        ),
    ],
)
def test_what_a_service_says_is_taken_as_a_status(
    tmp_path: Path, engine: Engine, outbox: Outbox, answers: Any, state: DeliveryState, status: int | None
) -> None:
    store = a_store(tmp_path)
    a_waiting_report(store, engine, "archive")
    with served(StandIn(answers).app) as url:
        delivery = deliver(a_web_destination(f"{url}/dicom-web"), outbox, store)
    assert (delivery.state, delivery.status_code) == (state, status)
    assert delivery.attempts == 1


def test_what_is_not_understood_three_times_is_refused(tmp_path: Path, engine: Engine, outbox: Outbox) -> None:
    store, clock = a_store(tmp_path), Clock()
    a_waiting_report(store, engine, "archive")
    with served(StandIn([(400, {})]).app) as url:
        states = []
        for _ in range(3):
            states.append(deliver(a_web_destination(f"{url}/dicom-web"), outbox, store, clock).state)
            clock.forward(timedelta(hours=1))
    assert states == [DeliveryState.WAITING, DeliveryState.WAITING, DeliveryState.REFUSED]


def test_a_service_that_does_not_answer_is_tried_again(tmp_path: Path, engine: Engine, outbox: Outbox) -> None:
    store = a_store(tmp_path)
    a_waiting_report(store, engine, "archive")
    delivery = deliver(a_web_destination(f"http://127.0.0.1:{a_free_port()}/dicom-web"), outbox, store)
    assert (delivery.state, delivery.status_code) == (DeliveryState.WAITING, None)
    assert "archive" in (delivery.message or "")


@pytest.fixture
def item(tmp_path: Path) -> Item:
    path = tmp_path / "image.dcm"
    phantom_images()[0].save_as(path, enforce_file_format=True)
    return Item.of(path)


class Hurried(BaseHTTPRequestHandler):
    """Takes what is small, and hangs up on all else without a word."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        if size > 1 << 20:
            self.close_connection = True
            return
        self.rfile.read(size)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        """Say nothing."""


def test_an_item_that_a_service_hangs_up_on_is_no_fault_of_those_behind_it(item: Item, tmp_path: Path) -> None:
    large = Item(tmp_path / "large.dcm", item.sop_class_uid)
    large.path.write_bytes(bytes(16 << 20))
    with ThreadingHTTPServer(("127.0.0.1", 0), Hurried) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        place = a_web_destination(f"http://127.0.0.1:{server.server_port}")
        try:
            responses = list(AGENT.send(place, [item, large, item]))
        finally:
            server.shutdown()
            thread.join()
    assert [response.status for response in responses] == [0, None]


def test_a_page_in_the_way_of_a_service_is_no_answer_of_it() -> None:
    with served(StandIn([(200, "<html><title>Log in</title></html>")]).app) as url:
        echo = AGENT.echo(a_web_destination(f"{url}/dicom-web"))
    assert not echo.answered
    assert echo.message == "HTTP 200 OK, with a page for people"


def test_a_file_that_cannot_be_read_stops_no_other(item: Item, tmp_path: Path) -> None:
    with served(StandIn().app) as url:
        responses = list(AGENT.send(a_web_destination(f"{url}/dicom-web"), [Item(tmp_path, "1.2"), item]))
    assert [response.status for response in responses] == [None, 0]
    assert responses[0].message == "the file cannot be sent: IsADirectoryError"


def test_the_file_is_sent_as_it_is_with_the_credentials_of_the_settings(item: Item) -> None:
    for service, expected in (
        ({}, ""),
        ({"authentication": "basic", "username": "node", "password": "secret"}, "Basic bm9kZTpzZWNyZXQ="),
        ({"authentication": "bearer", "token": "abc"}, "Bearer abc"),
    ):
        stand_in = StandIn()
        with served(stand_in.app) as url:
            [response] = AGENT.send(a_web_destination(f"{url}/dicom-web", **service), [item])
        assert response.status == 0
        assert stand_in.authorizations == [expected]
        assert item.path.read_bytes() in stand_in.bodies[0]


def test_a_token_is_had_by_client_credentials_kept_and_replaced_when_it_is_refused(item: Item) -> None:
    stand_in = StandIn(takes=lambda said: said in {"Bearer token-1", "Bearer token-2"})
    agent = UserAgent(Dicom())
    with served(stand_in.app) as url:
        destination = a_web_destination(
            f"{url}/dicom-web",
            authentication="oauth2",
            token_url=f"{url}/token",
            client_id="node",
            client_secret="secret",  # noqa: S106 - of the stand-in
            scope="store",
        )
        assert [response.status for response in agent.send(destination, [item, item])] == [0, 0]
        assert stand_in.tokens == 1
        stand_in.takes = lambda said: said == "Bearer token-2"
        assert [response.status for response in agent.send(destination, [item])] == [0]
        assert stand_in.tokens == 2
        stand_in.takes = lambda _: False
        [response] = agent.send(destination, [item])
        assert response.status is None
        assert "401" in response.message


def test_an_answer_without_end_is_not_read_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []

    def much() -> Iterator[bytes]:
        for number in range(64):
            given.append(number)
            yield bytes(1 << 20)

    monkeypatch.setattr(user_agent, "LARGEST_ANSWER", 1 << 20)
    monkeypatch.setattr(httpx2.HTTPTransport, "handle_request", lambda *_: httpx2.Response(200, content=much()))
    assert AGENT.echo(a_web_destination("http://archive.invalid")).answered
    assert len(given) < 64


def test_certificates_are_checked(item: Item, tmp_path: Path) -> None:
    authority, files = certificates(tmp_path)
    stand_in = StandIn()
    with served(stand_in.app, ssl_certfile=str(files[0]), ssl_keyfile=str(files[1])) as url:
        secure = url.replace("http:", "https:")
        trusting = a_web_destination(f"{secure}/dicom-web", ca_file=authority)
        assert [response.status for response in AGENT.send(trusting, [item])] == [0]
        told = AGENT.echo(a_web_destination(f"{secure}/dicom-web"))
        assert not told.answered
        assert "certificate verify failed" in told.message.lower()
        assert len(stand_in.bodies) == 1


def test_an_issuing_authority_is_enough_without_its_root(tmp_path: Path) -> None:
    issuing = Authority(tmp_path, "issuing", issuer=Authority(tmp_path, "root"))
    with served(StandIn().app, ssl_certfile=str(issuing.signed("archive"))) as url:
        secure = url.replace("http:", "https:")
        assert AGENT.echo(a_web_destination(f"{secure}/dicom-web", ca_file=issuing.path)).answered


def test_a_service_may_ask_for_our_certificate(item: Item, tmp_path: Path) -> None:
    authority, files = certificates(tmp_path)
    mutual: dict[str, Any] = {"ssl_ca_certs": str(authority), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    with served(StandIn().app, ssl_certfile=str(files[0]), ssl_keyfile=str(files[1]), **mutual) as url:
        secure = url.replace("http:", "https:")
        known = a_web_destination(f"{secure}/dicom-web", ca_file=authority, certificate=files[0], key=files[1])
        assert [response.status for response in AGENT.send(known, [item])] == [0]
        assert not AGENT.echo(a_web_destination(f"{secure}/dicom-web", ca_file=authority)).answered


def certificates(folder: Path) -> tuple[Path, tuple[Path, Path]]:
    """Return a certificate that is its own authority, for this machine, and the same with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, secret = folder / "node.pem", folder / "node-key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, (certificate, secret)


@pytest.mark.parametrize(
    "service",
    [
        {"url": "https://pacs..example.org"},
        {"url": "https://pacs.example.org:70000"},
        {"url": "https://pacs.example.org/\x07"},
        {
            "url": "http://127.0.0.1:9",
            "authentication": "bearer",
            "token": "schl\N{LATIN SMALL LETTER U WITH DIAERESIS}ssel",
        },
    ],
)
def test_what_no_request_can_hold_is_a_service_that_does_not_answer(service: dict[str, str]) -> None:
    echo = AGENT.echo(a_web_destination(**service))
    assert not echo.answered
    assert "archive: http" in echo.message


def test_a_response_that_is_no_document_counts_by_its_http_status() -> None:
    assert stored_over_http(200, None, "OK") == (0, "")
    assert stored_over_http(200, [1, {"00081198": 5}], "OK") == (0, "")
    assert (
        stored_over_http(409, {"00081198": {"Value": [{"00081197": {"Value": ["x"]}}]}}, "Conflict")[0]
        == CANNOT_UNDERSTAND
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"ae_title": "A", "host": "h"},
        {"web": {"url": "ftp://x"}},
        {"web": {"url": "https://user:secret@x"}},
        {"web": {"url": "https://x", "authentication": "basic"}},
        {"web": {"url": "https://x", "authentication": "oauth2", "client_id": "a"}},
        {"web": {"url": "https://x", "certificate": "a.pem"}},
        {"web": {"url": "https://x"}, "ae_title": "A", "host": "h", "port": 1},
        {"web": {"url": "https://x"}, "proof": "commitment"},
    ],
)
def test_a_destination_is_one_place_and_complete(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Destination(name="a", **fields)
