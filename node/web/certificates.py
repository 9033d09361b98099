"""Callers that show a certificate (mutual TLS)."""

import asyncio
import ssl
from collections.abc import Sequence

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from config.settings import Client
from node.telemetry import logger
from node.tls import common_name, subject
from node.web.access import Identity
from node.web.connection import LongReading

log = logger("web")


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


class Handshake(ssl.SSLObject):
    """One that says why a client's certificate was refused; with TLS 1.3 the client hears only that the connection ended."""

    def do_handshake(self) -> None:
        """Shake hands; asyncio keeps to itself what goes wrong."""
        try:
            super().do_handshake()
        except ssl.SSLCertVerificationError as error:
            log.warning("client certificate refused", cause=error.verify_message)
            raise


class CertifyingProtocol(LongReading):
    """An HTTP connection that puts the client's certificate beside each request; uvicorn itself drops it."""

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
