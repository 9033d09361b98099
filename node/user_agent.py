"""Requests out: STOW-RS and QIDO-RS to a destination that is a DICOMweb service (PS3.18 10.5, 10.6)."""

import json
import secrets
import ssl
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from threading import Lock
from typing import Any, Final

import httpx2
from pydicom import Dataset

from config.settings import Destination, Dicom, WebService
from node.errors import DestinationUnreachable, NodeError, QueryFailed
from node.scu import Carrier, EchoResult, Item, OnReport, Response, by_series
from node.status import CLASS_NOT_SUPPORTED, stored_over_http
from node.tls import trust_as_given
from storage.files import InstanceReference

CHUNK: Final = 1 << 20
JSON: Final = "application/dicom+json"
EARLIER: Final = 30.0
"""Seconds before its end that a token is replaced."""
LARGEST_ANSWER: Final = 16 << 20
UNREACHED: Final = (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError, ssl.SSLError)
"""What a request ends with that was not answered; an address or a token that no request can hold is among them."""


@dataclass(frozen=True)
class Answer:
    """What a service has answered: of its body no more than `LARGEST_ANSWER`, and then one byte that says so."""

    status_code: int
    reason_phrase: str
    content: bytes

    @classmethod
    def of(cls, answer: httpx2.Response) -> "Answer":
        """Read an answer that streams."""
        content = bytearray()
        for chunk in answer.iter_bytes(CHUNK):
            content += chunk
            if len(content) > LARGEST_ANSWER:
                break
        return cls(answer.status_code, answer.reason_phrase, bytes(content[: LARGEST_ANSWER + 1]))

    @property
    def is_success(self) -> bool:
        """Whether it has done what was asked."""
        return HTTPStatus.OK <= self.status_code < HTTPStatus.MULTIPLE_CHOICES

    @property
    def is_page(self) -> bool:
        """Whether it is a page for people: of a firewall or a log-in in the way, some of which say 200."""
        return b"<html" in self.content[:1024].lower()


class UserAgent:
    """Speaks to DICOMweb services.

    Parameters
    ----------
    settings
        How long anything may take: as for associations.
    """

    def __init__(self, settings: Dicom) -> None:
        self._timeout = httpx2.Timeout(settings.network_timeout, connect=settings.acse_timeout)
        self._tokens: dict[str, tuple[str, float]] = {}
        self._lock = Lock()

    def echo(self, destination: Destination) -> EchoResult:
        """Ask a service whether it is there, and answers us."""
        started = time.monotonic()
        try:
            with self._client(destination) as client:
                answer = self._request(client, destination, "GET", "/studies", params={"limit": "1"})
            message = "" if answer.is_success and not answer.is_page else _words(answer)
        except NodeError as error:
            message = str(error)
        return EchoResult(answered=not message, seconds=time.monotonic() - started, message=message)

    def send(self, destination: Destination, items: Sequence[Item]) -> Generator[Response]:
        """Send files, each in a request of its own on one connection, and yield what came of each, in their order.

        Raises
        ------
        DestinationUnreachable
            When no connection comes about. One that ends is the last response; what follows was not sent.
        """
        with self._client(destination) as client:
            for item in items:
                try:
                    response = self._store(client, destination, item)
                except DestinationUnreachable as error:
                    if not _was_reached(error):
                        raise
                    # What ended may be this item's fault, as where a proxy takes none of its size: the others are not tried with it.
                    yield Response(None, str(error))
                    return
                yield response

    def find(self, destination: Destination, sought: Sequence[InstanceReference]) -> set[str]:
        """Return the SOP Instance UIDs, of those sought, that a service finds by QIDO-RS.

        Raises
        ------
        DestinationUnreachable, QueryFailed
            When it cannot be asked, or does not answer.
        """
        found: set[str] = set()
        with self._client(destination) as client:
            for (study_uid, series_uid), wanted in by_series(sought).items():
                where = f"/studies/{study_uid}/series/{series_uid}/instances"
                only = {"SOPInstanceUID": next(iter(wanted))} if len(wanted) == 1 else {}
                answer = self._request(client, destination, "GET", where, params=only)
                if answer.status_code in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_FOUND}:
                    continue
                if answer.status_code != HTTPStatus.OK:
                    raise QueryFailed(_words(answer))
                found |= wanted & set(_uids(_json(answer)))
        return found

    def retrieve(self, service: WebService, url: str, take: Callable[[str, Iterator[bytes]], None]) -> None:
        """Retrieve what an address names by WADO-RS, as DICOM files in whatever transfer syntax they have.

        Parameters
        ----------
        service
            Which the address belongs to.
        take
            Takes Content-Type and body, as it comes.

        Raises
        ------
        DestinationUnreachable, QueryFailed
            When it cannot be had.
        """
        destination = Destination(name="source", web=service)
        accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        try:
            with self._client(destination) as client:
                headers = {"Accept": accept, **self._authorization(client, destination, fresh=False)}
                with client.stream("GET", url, headers=headers) as answer:
                    if answer.status_code != HTTPStatus.OK:
                        raise QueryFailed(_words(answer))
                    take(answer.headers.get("content-type", ""), answer.iter_bytes(CHUNK))
        except UNREACHED as error:
            raise DestinationUnreachable(f"{service.url}: {_cause(error)}") from error

    def ask_commitment(
        self, destination: Destination, information: Dataset, on_report: OnReport, wait: float
    ) -> Response:
        """Say that there is no Storage Commitment over HTTP; the settings allow none."""
        del destination, information, on_report, wait
        return Response(CLASS_NOT_SUPPORTED, "a web service takes no Storage Commitment")

    def _store(self, client: httpx2.Client, destination: Destination, item: Item) -> Response:
        boundary = f"mammonode-{secrets.token_hex(16)}"
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        try:
            size = len(head) + item.path.stat().st_size + len(tail)
        except OSError as error:
            return Response(None, f"the file cannot be sent: {type(error).__name__}")
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Content-Length": str(size),
        }

        def body() -> Iterator[bytes]:
            yield head
            with item.path.open("rb") as file:
                while data := file.read(CHUNK):
                    yield data
            yield tail

        try:
            answer = self._request(client, destination, "POST", "/studies", headers=headers, body=body)
        except DestinationUnreachable as error:
            if not isinstance(error.__cause__, OSError) or isinstance(error.__cause__, ssl.SSLError):
                raise
            return Response(None, f"the file cannot be sent: {_cause(error.__cause__)}")
        if answer.is_success and answer.is_page:
            return Response(None, _words(answer))
        return Response(*stored_over_http(answer.status_code, _json(answer), answer.reason_phrase))

    def _request(
        self,
        client: httpx2.Client,
        destination: Destination,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> Answer:
        """Make a request; once more when a token that was had earlier is not taken any more."""
        service = _service(destination)
        for fresh in (False, True):
            try:
                authorization = self._authorization(client, destination, fresh=fresh)
                with client.stream(
                    method,
                    service.url.rstrip("/") + path,
                    params=params,
                    headers={"Accept": JSON, **authorization, **(headers or {})},
                    content=body() if body else None,
                ) as streaming:
                    answer = Answer.of(streaming)
            except (*UNREACHED, OSError) as error:
                raise DestinationUnreachable(f"{destination.name}: {service.url}: {_cause(error)}") from error
            if answer.status_code != HTTPStatus.UNAUTHORIZED or service.authentication != "oauth2":
                break
        return answer

    def _authorization(self, client: httpx2.Client, destination: Destination, *, fresh: bool) -> dict[str, str]:
        service = _service(destination)
        match service.authentication:
            case "bearer":
                return {"Authorization": f"Bearer {service.token.get_secret_value()}"}
            case "oauth2":
                return {"Authorization": f"Bearer {self._token(client, destination, service, fresh=fresh)}"}
            case _:  # "basic" is the client's
                return {}

    def _token(self, client: httpx2.Client, destination: Destination, service: WebService, *, fresh: bool) -> str:
        """Return an access token by client credentials (RFC 6749 4.4)."""
        with self._lock:
            token, until = self._tokens.get(destination.name, ("", 0.0))
            if token and not fresh and time.monotonic() < until:
                return token
            form = {"grant_type": "client_credentials"} | ({"scope": service.scope} if service.scope else {})
            credentials = httpx2.BasicAuth(service.client_id, service.client_secret.get_secret_value())
            headers = {"Accept": "application/json"}
            with client.stream("POST", service.token_url, data=form, auth=credentials, headers=headers) as streaming:
                answer = Answer.of(streaming)
            said = _json(answer)
            if answer.status_code != HTTPStatus.OK or not isinstance(said, dict) or not said.get("access_token"):
                raise DestinationUnreachable(f"{destination.name}: no token from {service.token_url}: {_words(answer)}")
            token, lasts = str(said["access_token"]), said.get("expires_in")
            lasts = float(lasts) if isinstance(lasts, int | float) else 60.0
            self._tokens[destination.name] = token, time.monotonic() + max(lasts - EARLIER, 0)
            return token

    @contextmanager
    def _client(self, destination: Destination) -> Iterator[httpx2.Client]:
        service = _service(destination)
        basic = None
        if service.authentication == "basic":
            basic = httpx2.BasicAuth(service.username, service.password.get_secret_value())
        try:
            verified = _verified(service)
        except (OSError, ssl.SSLError) as error:
            raise DestinationUnreachable(
                f"{destination.name}: certificates of the settings: {_cause(error)}"
            ) from error
        # Redirections are not followed: they would take credentials to somebody else.
        with httpx2.Client(auth=basic, verify=verified, timeout=self._timeout, trust_env=False) as client:
            yield client


class AskedOverHTTP:
    """Takes results to an application entity by associations, and finds them there by QIDO-RS: it has no C-FIND for us.

    Parameters
    ----------
    sender
        Opens the associations.
    agent
        Asks the destination's ``query``.
    """

    def __init__(self, sender: Carrier, agent: UserAgent) -> None:
        self._sender = sender
        self._agent = agent
        self.echo = sender.echo
        self.send = sender.send
        self.ask_commitment = sender.ask_commitment

    def find(self, destination: Destination, sought: Sequence[InstanceReference]) -> set[str]:
        """Return the SOP Instance UIDs, of those sought, that the destination's web service finds.

        Raises
        ------
        DestinationUnreachable, QueryFailed
            When it cannot be asked, or does not answer.
        """
        return self._agent.find(Destination(name=destination.name, web=destination.query), sought)


def _service(destination: Destination) -> WebService:
    if destination.web is None:
        raise ValueError(f"{destination.name} is no web service")
    return destination.web


def _verified(service: WebService) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(service.ca_file) if service.ca_file else None)
    trust_as_given(context)
    if service.certificate:
        context.load_cert_chain(service.certificate, service.key)
    return context


def _was_reached(error: DestinationUnreachable) -> bool:
    """Tell whether a connection was there, and ended."""
    return isinstance(error.__cause__, httpx2.TransportError) and not isinstance(
        error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError
    )


def _cause(error: Exception) -> str:
    """Say what was wrong with a connection; of TLS what the check said."""
    text = str(error)
    return text if "CERTIFICATE" in text.upper() else type(error).__name__


def _json(answer: Answer) -> Any:
    try:
        return json.loads(answer.content) if len(answer.content) <= LARGEST_ANSWER else None
    except (ValueError, RecursionError):
        return None


def _uids(documents: Any) -> Iterator[str]:
    for each in documents if isinstance(documents, list) else ():
        try:
            yield str(each["00080018"]["Value"][0])
        except (KeyError, IndexError, TypeError):
            continue


def _words(answer: Answer | httpx2.Response) -> str:
    page = ", with a page for people" if isinstance(answer, Answer) and answer.is_page else ""
    return f"HTTP {answer.status_code} {answer.reason_phrase}{page}"
