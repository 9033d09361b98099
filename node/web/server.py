"""The HTTP door: uvicorn in a thread of ``serve``, opened and drained as the DICOM door is."""

import asyncio
import socket
import ssl
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from config.settings import Http
from node.errors import CannotListen, CertificateUnusable
from node.telemetry import logger
from node.tls import reason_of, trust_as_given
from node.web.certificates import CertifyingProtocol, CertifyingSocket, Handshake
from node.web.connection import room

log = logger("web")

BACKLOG = 256
LEEWAY = 5.0
"""Seconds that threads have to end whose requests were not waited for any longer."""


class Server(uvicorn.Server):
    """uvicorn's, which is woken to stop: to look ten times a second whether it is to cost 0.3 % of a core."""

    _wake: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    async def main_loop(self) -> None:
        """Do nothing until told to stop; the rest of what uvicorn does here is to keep its Date header right."""
        stop = asyncio.Event()
        self._wake = asyncio.get_running_loop(), stop
        if not self.should_exit:
            await stop.wait()

    def stop(self) -> None:
        """Stop at once; from another thread."""
        self.should_exit = True
        if self._wake:
            loop, stop = self._wake
            with suppress(RuntimeError):  # it has ended by itself
                loop.call_soon_threadsafe(stop.set)


class WebDoor:
    """Answers HTTP until it is stopped.

    Parameters
    ----------
    settings
        Where it listens.
    app
        What answers.
    drain
        Seconds that requests get to end when it is stopped.
    """

    def __init__(self, settings: Http, app: ASGIApp, drain: float = 10) -> None:
        self._settings = settings
        self._drain = drain
        self._secured = Secured(ssl.PROTOCOL_TLS_SERVER)
        self._server = Server(
            uvicorn.Config(
                app,
                loop="asyncio",
                http=cast("type[asyncio.Protocol]", partial(CertifyingProtocol, room(), settings.network_timeout)),
                ws=CertifyingSocket,
                ssl_context_factory=(lambda *_: self._secured) if settings.certificate else None,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,  # `Requests` gives the time of each answer
                proxy_headers=False,
                timeout_graceful_shutdown=int(drain),
            )
        )
        self._socket: socket.socket | None = None
        self._thread: Thread | None = None

    @property
    def port(self) -> int:
        """The TCP port that it listens on."""
        if self._socket is None:
            raise RuntimeError("not started")
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        """Open the door.

        Raises
        ------
        CannotListen
            When the address cannot be listened on.
        CertificateUnusable
            When a certificate, its key or the client authority cannot be read.
        """
        bind, port = self._settings.bind, self._settings.port
        self.renew()
        self._server.config.load()
        try:
            # Listened on here already: what connects before the thread runs waits, and is not refused.
            self._socket = socket.create_server((bind, port), family=_family(bind), backlog=BACKLOG)
        except OSError as error:
            raise CannotListen(f"http, {bind}:{port}: {error.strerror}") from error
        # asyncio does so only for sockets that say that they are of TCP, and this one does not: without it the second
        # part of every response waits 40 ms for the first one's acknowledgement.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # In a thread of its own uvicorn leaves the signals alone; `serve` has its own.
        self._thread = Thread(target=self._server.run, args=([self._socket],), name="http", daemon=True)
        self._thread.start()
        log.info("listening", address=bind, port=self.port)

    def renew(self) -> None:
        """Read certificate, key and client authority again, for the connections from now on.

        Raises
        ------
        CertificateUnusable
            When they cannot be used; those that there were stay.
        """
        self._secured.now = require_usable(self._settings)

    def shut(self) -> None:
        """Take no new connection from now on; the requests that are there get some seconds to end."""
        if self._thread is not None:
            self._server.stop()

    def stop(self) -> None:
        """Close the door: no new connection, then wait for the requests that are there."""
        if self._thread is None:
            return
        self.shut()
        self._thread.join(self._drain + LEEWAY)
        self._thread, self._socket = None, None
        log.info("stopped listening")


class Secured(ssl.SSLContext):
    """What a server is given for good; each connection shakes hands by the files as they were read last."""

    now: ssl.SSLContext

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Return a connection that is to shake hands."""
        return self.now.wrap_bio(*args, **kwargs)


def require_usable(settings: Http) -> ssl.SSLContext:
    """Return what the files of [http] make.

    Raises
    ------
    CertificateUnusable
        When one cannot be read, or does not fit to another; it is named.
    """
    named = {key: str(getattr(settings, key)) for key in ("certificate", "key", "client_ca") if getattr(settings, key)}
    for key, name in named.items():
        try:
            Path(name).read_bytes()
        except OSError as error:
            raise CertificateUnusable(f"http.{key} = {name}: {error.strerror}") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = Handshake
    if not settings.certificate:
        return context
    tried: tuple[str, ...] = ("certificate", "key")
    try:
        # A key with a password fails: there is nobody to ask.
        context.load_cert_chain(settings.certificate, settings.key or None, password="")
        tried = ("client_ca",)
        if settings.client_ca:
            context.load_verify_locations(settings.client_ca)
            trust_as_given(context)
            # Optional: a browser without a certificate may log in with a token.
            context.verify_mode = ssl.CERT_OPTIONAL
    except (OSError, ValueError) as error:
        files = ", ".join(f"http.{key} = {named[key]}" for key in tried if key in named)
        held = Path(settings.key or settings.certificate).read_bytes() if "key" in tried else None
        raise CertificateUnusable(f"{files}: {reason_of(error, held)}") from error
    return context


def _family(bind: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in bind else socket.AF_INET
