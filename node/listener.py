"""The server behind the DICOM door: pynetdicom's, with the TLS handshake where it holds up nobody else.

pynetdicom shakes hands in the loop that accepts connections, without a time-out: one caller who says nothing keeps all
others out. Here each connection does so in its own thread, in bounded time, and only so many at once.
"""

import socket
import ssl
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from socketserver import BaseServer
from threading import Lock, Thread
from typing import Any, Final, cast

from pynetdicom import AE
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from node.audit.notes import NOTHING, Notes
from node.telemetry import logger
from node.tls import Fault, fault_of

log = logger("listener")

A_ASSOCIATE_RQ: Final = 0x01
"""First byte of a DICOM association (PS3.8 9.3.2)."""

PATIENCE = 10.0
"""Seconds for a handshake; over the slowest lines it takes two."""
MOST = 64
"""Handshakes at once, all callers together ..."""
MOST_OF_ONE = 16
"""... and of one address, so that a machine that hangs keeps out itself only."""
LOOKS_EVERY = 60.0
"""Seconds in which the loop that accepts connections wakes up though none comes."""


class Handshakes:
    """Turns connections into TLS connections.

    Parameters
    ----------
    context
        Returns the context in force, whenever a connection comes.
    patience
        Seconds that a caller has.
    notes
        Is told who was refused, for the audit trail.
    """

    def __init__(
        self, context: Callable[[], ssl.SSLContext], patience: float = PATIENCE, notes: Notes = NOTHING
    ) -> None:
        self._notes = notes
        self._context = context
        self._patience = patience
        self._lock = Lock()
        self._open: Counter[str] = Counter()

    def shake(self, plain: socket.socket, address: str) -> ssl.SSLSocket | None:
        """Return the secured connection; None for one that was refused or went away, which is closed then."""
        with self._lock:
            crowded = self._open.total() >= MOST or self._open[address] >= MOST_OF_ONE
            if not crowded:
                self._open[address] += 1
        if crowded:
            log.warning("connection closed: too many handshakes at once", address=address)
            plain.close()
            return None
        try:
            return self._shaken(plain, address)
        finally:
            with self._lock:
                self._open[address] -= 1
                self._open += Counter()  # forgets those at 0

    def _shaken(self, plain: socket.socket, address: str) -> ssl.SSLSocket | None:
        secured: ssl.SSLSocket | None = None
        try:
            plain.settimeout(self._patience)
            first = plain.recv(1, socket.MSG_PEEK)
            if not first:  # as load balancers and port scanners do
                plain.close()
                return None
            if first[0] == A_ASSOCIATE_RQ:
                log.warning("association refused: plain DICOM at a TLS port", address=address)
                self._notes.note("caller refused", address=address, why="it does not speak TLS")
                plain.close()
                return None
            secured = self._context().wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
            secured.do_handshake()
            secured.settimeout(None)
        except OSError as error:
            fault = fault_of(error) if secured or not isinstance(error, ConnectionError) else None
            _tell(fault, address, error)
            if fault:
                self._notes.note("caller refused", address=address, why=str(fault))
            (secured or plain).close()
            return None
        return secured


def _tell(fault: Fault | None, address: str, error: OSError) -> None:
    """Say why somebody is refused; nothing of who went away before a word."""
    match fault:
        case None:
            pass
        case Fault.NO_CERTIFICATE:
            log.warning("association refused: no certificate", address=address)
        case Fault.UNKNOWN_AUTHORITY | Fault.UNFIT:
            log.warning("association refused: certificate of an unknown authority", address=address, cause=str(fault))
        case Fault.EXPIRED | Fault.NOT_YET:
            log.warning("association refused: certificate expired", address=address, cause=str(fault))
        case Fault.REVOKED:
            log.warning("association refused: certificate revoked", address=address)
        case Fault.LIST_UNUSABLE:
            log.error("association refused: no current revocation list", address=address)
        case Fault.OURS_REFUSED:
            log.warning("association refused: the caller does not take this node's certificate", address=address)
        case Fault.NOTHING_IN_COMMON:
            log.warning("association refused: no common version or cipher suite of TLS", address=address)
        case Fault.TOO_LATE:
            log.warning("association refused: handshake not ended in time", address=address)
        case _:
            reason = getattr(error, "reason", None) or type(error).__name__
            log.warning("association refused: handshake failed", address=address, cause=str(reason))


class Handler(RequestHandler):
    """Handles one connection, in a thread of its own."""

    def handle(self) -> None:
        """Shake hands, where that is asked for, and go on as pynetdicom does."""
        handshakes = cast("Listener", self.server).handshakes
        if handshakes is not None:
            secured = handshakes.shake(self.request, str(self.client_address[0]))
            if secured is None:
                return
            self.request = secured
        super().handle()


class Listener(ThreadedAssociationServer):
    """pynetdicom's server, without its handshake.

    Parameters
    ----------
    handshakes
        None for a door without TLS.
    """

    request_queue_size = 128
    """Connections that wait to be accepted: with pynetdicom's 5, a burst of them costs the others a second each."""
    daemon_threads = True
    """Who is shaking hands holds up no stop."""

    def __init__(self, *arguments: Any, handshakes: Handshakes | None, **more: Any) -> None:
        self.handshakes = handshakes
        super().__init__(*arguments, **(more | {"request_handler": Handler}))

    @classmethod
    def listen(
        cls, entity: AE, address: tuple[str, int], handlers: list[Any], handshakes: Handshakes | None
    ) -> "Listener":
        """Listen from now on.

        Raises
        ------
        OSError
            When the address cannot be listened on.
        """
        opened = entity.make_server(address, evt_handlers=handlers, server_class=cls, handshakes=handshakes)
        server = cast("Listener", opened)
        Thread(target=server.serve_forever, args=(LOOKS_EVERY,), name="DICOM door", daemon=True).start()
        return server

    def shutdown(self) -> None:
        """Accept no more, and close the port."""
        if self.socket is not None:
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)  # wakes the loop that accepts
        # pynetdicom's own also takes the server from a list that only its own `start_server` puts it on.
        BaseServer.shutdown(self)
        self.server_close()
