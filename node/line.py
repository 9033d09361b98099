"""A connection of the DICOM door: PDUs of bounded length, in bounded time; images go to their files in long reads.

pynetdicom 3.0 reads a PDU in pieces of 4 KiB, copies it five times and wakes two threads for it. Here the fragments of a data
set that goes to a file take a short cut, while each of them is what it should be; all else is pynetdicom's.
"""

import errno
import os
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Queue
from typing import Any, Final, Protocol, TypeVar
from weakref import finalize

import pynetdicom
from pynetdicom.transport import AssociationSocket

from node.telemetry import logger

log = logger("guard")

TLS_RECORD = b"\x16\x03"
"""How a TLS handshake begins (RFC 8446 5.1); no PDU does."""

LONGEST_PDU = 4 << 20
"""Bytes of a PDU that are still read. Some senders ignore the maximum that they are told; none by 32 times."""

FRAGMENT: Final = struct.Struct(">BxLLBB")
"""A P-DATA-TF PDU with one fragment, up to its data: type, length, length, context, control (PS3.8 9.3.5, E.2)."""
P_DATA_TF: Final = 0x04
DATA_NOT_LAST: Final = 0x00

LONG_READ = 1 << 18
"""Bytes: measured, more gains nothing."""
IDLE = 0.5
"""Seconds after which an association looks around although nothing came and nothing is to be sent."""
PAUSE = 0.05
"""Seconds that a sender may take between two fragments before the association looks after other things."""
HANDED_EVERY = 1.0
"""Seconds after which pynetdicom gets a fragment too: it measures how long nothing came."""

KNOWN: Final = "3.0."
"""Versions of pynetdicom whose reading of PDUs the short cut was made for."""


def has_short_cut() -> bool:
    """Tell whether the short cut is made for the pynetdicom that is installed."""
    return pynetdicom.__version__.startswith(KNOWN)


class Wake:
    """Wakes up whoever waits in ``select``, from any thread."""

    def __init__(self) -> None:
        self._handle = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        finalize(self, os.close, self._handle)  # whoever may still set it keeps it open

    def fileno(self) -> int:
        """Return what to wait for."""
        return self._handle

    def set(self) -> None:
        """Wake."""
        os.eventfd_write(self._handle, 1)

    def clear(self) -> None:
        """Let the next wait."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._handle)


T = TypeVar("T")


class Waking(Queue[T]):
    """A queue that wakes somebody who looks at it now and then."""

    def __init__(self, wake: Callable[[], None]) -> None:
        super().__init__()
        self._wake = wake

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002 (queue's)
        """Put, and wake."""
        super().put(item, block, timeout)
        self._wake()


class Sink(Protocol):
    """What takes the data set of an instance in its parts."""

    @property
    def awaiting(self) -> int:
        """Number of the context on which fragments of an instance's data set are to come; 0 while none are."""

    def take(self, parts: Sequence[memoryview]) -> bool:
        """Take parts of such fragments, in their order; False when that failed, and the association ends."""


class Line(AssociationSocket):
    """A connection whose PDUs have a bounded length, and a time within which they must be there.

    Parameters
    ----------
    former
        The connection, as pynetdicom has it.
    told
        Returns what log lines say of its sender.
    sink
        Where the data sets of instances go; None without the short cut.
    """

    def __init__(self, former: AssociationSocket, told: Callable[[], dict[str, str]], sink: Sink | None) -> None:
        vars(self).update(vars(former))  # the constructor would announce the connection a second time
        self._told = told
        self._sink = sink
        self._room = memoryview(b"")
        self._ahead = memoryview(b"")
        self._parts: list[memoryview] = []
        self._is_taken = True
        self._handed = 0.0
        self._wake = Wake()
        self.assoc.dul.to_provider_queue = Waking(self._wake.set)

    @property
    def _patience(self) -> float:
        association = self.assoc
        return (association.network_timeout if association.is_established else association.acse_timeout) or 60

    @property
    def ready(self) -> bool:
        """Whether there is something for pynetdicom to read; what takes the short cut has taken it first."""
        dul = self.assoc.dul
        try:
            while self._sink and dul.state_machine.current_state == "Sta6" and dul.to_provider_queue.empty():
                length = self._next_fragment(self._sink)
                if length is None:
                    break
                self._pass_on(length)
                if not self._is_taken:
                    return False
            self._hand_on()
            if not self._is_taken:
                return False
        except OSError as error:
            self._tell(error)
            self.event_queue.put("Evt17")
            return False
        return bool(self._ahead) or self._comes(IDLE if dul.state_machine.current_state == "Sta6" else 0)

    def recv(self, nr_bytes: int) -> bytearray:
        """Read so many bytes, or what there is until the other side closes.

        Raises
        ------
        OSError
            When they are too many, or do not come in time: pynetdicom closes the connection then.
        """
        if nr_bytes > LONGEST_PDU:
            log.warning("association cut: a PDU longer than any that is read", **self._told(), claimed=nr_bytes)
            raise OSError(nr_bytes)
        if self.socket is None:
            raise OSError("closed")
        buffer = bytearray(nr_bytes)
        here = min(nr_bytes, len(self._ahead))
        buffer[:here], self._ahead = self._ahead[:here], self._ahead[here:]
        until = time.monotonic() + self._patience
        try:
            with memoryview(buffer) as view:
                while here < nr_bytes and (count := self._receive(view[here:], until)):
                    here += count
        except TimeoutError as error:
            self._tell(error)
            raise
        if not self.assoc.is_established and buffer[:2] == TLS_RECORD:
            log.warning("association refused: TLS at a port without it", **self._told())
            raise OSError(errno.EPROTO, "TLS")
        return buffer if here == nr_bytes else buffer[:here]

    def send(self, bytestream: bytes) -> None:
        """Send, and give up on a peer that does not read."""
        if self.socket is not None:
            self.socket.settimeout(self._patience)
        super().send(bytestream)

    def _comes(self, patience: float) -> bool:
        """Wait until there is something to read, or to send; return whether there is something to read."""
        if self.socket is None or not self._is_connected:
            return False
        if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            return True
        try:
            awaited: list[Any] = [self.socket, self._wake]
            here, _, _ = select.select(awaited, [], [], patience)
        except (OSError, ValueError):  # closed meanwhile
            self.event_queue.put("Evt17")
            return False
        if self._wake in here:
            self._wake.clear()
        return len(here) > (self._wake in here)

    def _next_fragment(self, sink: Sink) -> int | None:
        """Return how many bytes of data follow that take the short cut, their header gone; None when none do."""
        if not sink.awaiting:
            return None
        if len(self._ahead) < FRAGMENT.size:
            try:
                self._read_ahead(time.monotonic() + PAUSE)
            except TimeoutError:
                return None
        if len(self._ahead) < FRAGMENT.size:
            return None
        kind, length, item, context, control = FRAGMENT.unpack_from(self._ahead)
        is_usual = (kind, item, control) == (P_DATA_TF, length - 4, DATA_NOT_LAST) and 6 <= length <= LONGEST_PDU
        now = time.monotonic()
        if not is_usual or context != sink.awaiting or now - self._handed > HANDED_EVERY:
            self._handed = now
            return None
        self._ahead = self._ahead[FRAGMENT.size :]
        return int(length) - 6

    def _pass_on(self, left: int) -> None:
        """Let so many bytes go to the sink; those that it does not take come to their end nevertheless."""
        until = time.monotonic() + self._patience
        while left:
            if not self._ahead and not self._read_ahead(until):
                raise ConnectionResetError
            part = self._ahead[:left]
            self._parts.append(part)
            self._ahead, left = self._ahead[len(part) :], left - len(part)

    def _hand_on(self) -> None:
        """Give what was read to the sink at once: every call of the system lets other threads in, and waits for them."""
        if self._parts and self._sink:
            self._is_taken = self._is_taken and self._sink.take(self._parts)
            self._parts.clear()

    def _read_ahead(self, until: float) -> int:
        self._hand_on()
        self._room = self._room or memoryview(bytearray(LONG_READ))
        rest = len(self._ahead)
        self._room[:rest] = self._ahead
        self._ahead = self._room[:rest]
        count = self._receive(self._room[rest:], until)
        self._ahead = self._room[: rest + count]
        return count

    def _receive(self, view: memoryview, until: float) -> int:
        """Read what there is, and wait for it until then; return how much came, 0 when the other side has closed."""
        if self.socket is None:
            return 0
        if isinstance(self.socket, ssl.SSLSocket):
            self.socket.settimeout(_left(until))
            return self.socket.recv_into(view)
        # With a time-out Python asks first whether there is something, and before that sets it: three calls for one.
        if self.socket.gettimeout() != 0:
            self.socket.settimeout(0)
        while True:
            try:
                return self.socket.recv_into(view)
            except BlockingIOError:
                _await(self.socket, _left(until))

    def _tell(self, error: OSError) -> None:
        if isinstance(error, TimeoutError):
            log.warning("association cut: a PDU that did not end in time", **self._told(), seconds=self._patience)


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _await(line: socket.socket, seconds: float) -> None:
    """Wait until there is something to read, or the other side has closed."""
    if line.fileno() < 0:
        raise OSError(errno.EBADF, "closed")
    waiting = select.poll()
    waiting.register(line, select.POLLIN)
    if not waiting.poll(1000 * seconds):
        raise TimeoutError
