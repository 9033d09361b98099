"""Who is told the trail: a syslog server over TLS (RFC 5424, RFC 5425; PS3.15 A.6), and a file."""

import os
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Final, Protocol

from sqlalchemy import Engine

from config.settings import Audit, Tls
from node.errors import NodeError
from node.telemetry import logger
from node.tls import Transport
from storage.audit import Kept, head, kept, note_told, told
from storage.database import reading, writing
from storage.errors import StorageError

log = logger("audit")

PRIORITY: Final = 10 * 8 + 5
"""Facility 10 (security), severity 5 (notice), as PS3.15 A.6 asks for."""
MESSAGE_ID: Final = "DICOM+RFC3881"
BOM: Final = "\ufeff"
"""Before a message in UTF-8 (RFC 5424 6.4)."""
TIMEOUT = 20.0
EVERY = 5.0
WAITS = 60.0
"""Seconds until a receiver that did not take its messages is tried again, or the settings name a first one."""


def syslog(each: Kept, host: str) -> bytes:
    """Return a message as RFC 5424 has it."""
    at = each.recorded_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f"<{PRIORITY}>1 {at} {host} mammonode {os.getpid()} {MESSAGE_ID} - {BOM}{each.message}".encode()


class Receiver(Protocol):
    """Somebody who is told."""

    name: str

    def take(self, messages: Sequence[Kept]) -> None:
        """Take messages.

        Raises
        ------
        OSError, NodeError
            When it does not; it is told all of them again.
        """

    def close(self) -> None:
        """Let go of what is open."""


class SyslogServer:
    """A syslog server over TLS, each message after its length (RFC 5425 4.3).

    Parameters
    ----------
    settings
        Where it is, and by which certificates both sides are known.
    """

    name = "syslog"

    def __init__(self, settings: Audit) -> None:
        self._settings = settings
        self._host = socket.gethostname() or "-"
        self._connection: socket.socket | None = None

    def take(self, messages: Sequence[Kept]) -> None:
        """Send messages; syslog answers nothing, so that those on the way when a connection breaks may be lost."""
        if self._connection and _has_ended(self._connection):
            self.close()
        connection = self._connection or self._connect()
        try:
            for each in messages:
                data = syslog(each, self._host)
                connection.sendall(f"{len(data)} ".encode() + data)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        if self._connection:
            with suppress(OSError):
                self._connection.close()
            self._connection = None

    def _connect(self) -> socket.socket:
        chosen = self._settings
        files = Tls(ca=chosen.ca, certificate=chosen.certificate, key=chosen.key)
        context = Transport.open(files, section="audit").calls
        if context is None:
            raise OSError("no audit.ca")
        plain = socket.create_connection((chosen.syslog_host, chosen.syslog_port), TIMEOUT)
        try:
            self._connection = context.wrap_socket(plain, server_hostname=chosen.syslog_host)
        except OSError:
            plain.close()
            raise
        return self._connection


def _has_ended(connection: socket.socket) -> bool:
    """Tell whether the other side has closed a connection: it says nothing else."""
    connection.settimeout(0)
    try:
        return not connection.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(TIMEOUT)


class File:
    """A file, one message a line; opened anew each time, so that it may be rotated."""

    name = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self, messages: Sequence[Kept]) -> None:
        """Write messages, and wait until they are on the disk."""
        with os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
            file.writelines(syslog(each, socket.gethostname() or "-") + b"\n" for each in messages)
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """Nothing is open."""


def receivers(settings: Audit) -> list[Receiver]:
    """Return those that the settings name."""
    found: list[Receiver] = [SyslogServer(settings)] if settings.syslog_host else []
    return [*found, *([File(Path(settings.file))] if settings.file else [])]


class Telling:
    """Tells receivers in a thread of its own, each from where it stands.

    Parameters
    ----------
    engine
        Of the database with the chain.
    settings
        Returns those in force.
    """

    def __init__(self, engine: Engine, settings: Callable[[], Audit]) -> None:
        self._engine = engine
        self._settings = settings
        self._stopping = Event()
        self._present: Audit | None = None
        self._receivers: list[Receiver] = []
        self._silent: set[str] = set()
        self._thread = Thread(target=self._run, name="audit receivers", daemon=True)

    def start(self) -> None:
        """Begin to tell."""
        self._thread.start()

    def stop(self, timeout: float = 5) -> None:
        """Tell once more, and stop."""
        self._stopping.set()
        self._thread.join(timeout)

    def waiting(self) -> dict[str, int]:
        """Return how many messages each receiver has not been told.

        Raises
        ------
        StorageError
            When the database does not answer.
        """
        with reading(self._engine) as connection:
            last = head(connection).number
            return {each.name: last - told(connection, each.name) for each in receivers(self._settings())}

    def tell(self) -> bool:
        """Tell each what is new; tell whether all have taken it."""
        if (settings := self._settings()) != self._present:
            for each in self._receivers:
                each.close()
            self._present, self._receivers = settings, receivers(settings)
        taken = [self._told(each) for each in self._receivers]
        return all(taken)

    def _told(self, receiver: Receiver) -> bool:
        try:
            while True:
                with reading(self._engine) as connection:
                    messages = kept(connection, told(connection, receiver.name))
                if not messages:
                    break
                receiver.take(messages)
                with writing(self._engine) as connection:
                    note_told(connection, receiver.name, messages[-1].link.number)
        except (OSError, NodeError, StorageError) as error:
            receiver.close()
            if receiver.name not in self._silent:
                log.error("audit messages not taken", receiver=receiver.name, cause=str(error) or type(error).__name__)  # noqa: TRY400
            self._silent.add(receiver.name)
            return False
        if receiver.name in self._silent:
            self._silent.discard(receiver.name)
            log.info("audit messages taken again", receiver=receiver.name)
        return True

    def _run(self) -> None:
        wait = EVERY
        while True:
            last = self._stopping.wait(wait)
            try:
                wait = EVERY if self.tell() and self._receivers else WAITS
            except Exception:  # a thread that ends would go unnoticed
                log.exception("audit messages not taken")
                wait = WAITS
            if last:
                for each in self._receivers:
                    each.close()
                return
