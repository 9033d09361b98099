"""Callers that show a certificate (mutual TLS)."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from config.settings import Client
from node.telemetry import logger
from node.web.access import Identity

if TYPE_CHECKING:
    import ssl

log = logger("web")

SHORT: Final = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "stateOrProvinceName": "ST",
    "localityName": "L",
    "domainComponent": "DC",
    "serialNumber": "serialNumber",
    "emailAddress": "emailAddress",
}
"""Attribute types as RFC 2253 and OpenSSL write them."""


class Certificates:
    """Certificates that the client authority has signed; what they open stands in the settings."""

    def __init__(self, clients: Sequence[Client]) -> None:
        self._clients = tuple(clients)

    def identify(self, connection: HTTPConnection) -> Identity | None:
        """Return the subject of the certificate of this connection; None without one that opens something."""
        certificate = connection.scope.get("client_certificate")
        if not certificate:
            return None
        names = subject(certificate), common_name(certificate)
        for client in self._clients:
            if client.subject in names:
                return Identity(client.subject, frozenset(client.scopes))
        log.warning("certificate opens nothing", subject=names[0], remedy="add it to clients in [http]")
        return None


def subject(certificate: dict[str, Any]) -> str:
    """Return a certificate's subject as RFC 2253 writes it: the last part first."""
    parts = [
        "+".join(f"{SHORT.get(kind, kind)}={_escaped(value)}" for kind, value in part)
        for part in certificate.get("subject", ())
    ]
    return ",".join(reversed(parts))


def common_name(certificate: dict[str, Any]) -> str:
    """Return a certificate's CN, '' without one."""
    return next((value for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName"), "")


def _escaped(value: str) -> str:
    escaped = "".join(f"\\{letter}" if letter in ',+"\\<>;' else letter for letter in value)
    return f"\\{escaped}" if escaped.startswith(("#", " ")) else escaped


class CertifyingProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which puts the client's certificate beside each request; uvicorn itself drops it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep the certificate of a connection for its requests."""
        super().connection_made(transport)
        self.app = _with(self.app, transport)


class CertifyingSocket(WebSocketsSansIOProtocol):
    """The same for WebSockets, which a connection becomes in the middle."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep the certificate of a connection for its requests."""
        super().connection_made(transport)
        self.app = _with(self.app, transport)


def _with(app: ASGIApp, transport: asyncio.Transport) -> ASGIApp:
    secured: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    certificate = secured.getpeercert() if secured else None
    if not certificate:
        return app

    async def certified(scope: Connection, receive: Receive, send: Send) -> None:
        scope["client_certificate"] = certificate
        await app(scope, receive, send)

    return certified
