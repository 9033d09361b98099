"""The journal's native protocol: events with fields, so that `journalctl MAMMONODE_EXAM=…` finds them.

One datagram for each entry (https://systemd.io/JOURNAL_NATIVE_PROTOCOL); one too large goes as a sealed file.
"""

import array
import errno
import fcntl
import json
import logging
import os
import re
import socket
import struct
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Final, TextIO

from node.events import events

SOCKET: Final = Path("/run/systemd/journal/socket")
IDENTIFIER: Final = "mammonode"
PRIORITIES: Final = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
"""RFC 5424 6.2.1: 2 critical, 3 error, 4 warning, 6 informational, 7 debug."""
SKIPPED: Final = ("event", "level", "timestamp", "exception")
LONGEST_NAME: Final = 64


def is_the_journal(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether systemd has connected a stream with the journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM", "") == f"{status.st_dev}:{status.st_ino}"


def fields(event: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the fields of an entry; a list becomes one field for each item.

    Parameters
    ----------
    event
        As structlog has it: ``event``, ``level``, and data as keys.
    """
    name = str(event.get("event", ""))
    data = {key: value for key, value in event.items() if key not in SKIPPED}
    line = " ".join([name, *(f"{key}={_text(value)}" for key, value in data.items() if key != "logger")])
    yield "MESSAGE", f"{line}\n{event['exception']}" if event.get("exception") else line
    yield "PRIORITY", str(PRIORITIES.get(str(event.get("level")), 6))
    yield "SYSLOG_IDENTIFIER", IDENTIFIER
    yield "SYSLOG_PID", str(os.getpid())
    if name in events():
        yield "MESSAGE_ID", events()[name].message_id
    yield "MAMMONODE_EVENT", name
    for key, value in data.items():
        field = f"MAMMONODE_{re.sub(r'[^A-Z0-9_]', '_', key.upper())}"[:LONGEST_NAME]
        for item in value if isinstance(value, list | tuple | set | frozenset) else [value]:
            yield field, _text(item)


def entry(event: Mapping[str, Any]) -> bytes:
    """Return an entry as the protocol has it: NAME=value, or for a value of several lines its length and its bytes."""
    whole = bytearray()
    for name, value in fields(event):
        data = value.encode("utf-8", "replace")
        if b"\n" in data:
            whole += name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
        else:
            whole += name.encode() + b"=" + data + b"\n"
    return bytes(whole)


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, default=str) if isinstance(value, Mapping | list | tuple | bool) else str(value)


class JournalHandler(logging.Handler):
    """Sends what its formatter has made of a record: an entry, in Latin-1 so that every byte survives.

    Parameters
    ----------
    path
        Of the journal's socket.
    fallback
        Where an event goes, as the formatter wrote it, when the journal does not take it.
    """

    def __init__(self, path: Path, fallback: TextIO | None = None) -> None:
        super().__init__()
        self._path = str(path)
        self._fallback = fallback
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def emit(self, record: logging.LogRecord) -> None:
        """Send one entry."""
        try:
            data = self.format(record).encode("latin-1")
            self._send(data)
        except OSError:
            if self._fallback:
                self._fallback.write(data.decode("utf-8", "replace"))
                self._fallback.flush()
        except Exception:  # noqa: BLE001 (as every handler of the standard library does)
            self.handleError(record)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendto(data, self._path)
        except OSError as error:
            if error.errno not in {errno.EMSGSIZE, errno.ENOBUFS}:
                raise
            self._send_sealed(data)

    def _send_sealed(self, data: bytes) -> None:
        file = os.memfd_create("mammonode-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.write(file, data)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))
            self._socket.sendmsg([b""], [rights], 0, self._path)
        finally:
            os.close(file)


def render(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    """Return an entry as text for `JournalHandler`; the last processor of a chain."""
    return entry(event).decode("latin-1")
