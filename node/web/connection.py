"""A connection of the HTTP door: bodies come in long reads, and are copied once, or are read by the thread that stores them.

uvicorn 0.54 copies what is read of a body three times: httptools makes bytes of it, which are added to a buffer, of which bytes
are made again.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from socket import SHUT_RD, socket
from typing import Any, Final

import httptools
from starlette.requests import ClientDisconnect, Request
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from node.errors import BodyStalled, HeadTooLarge

LONG_READ: Final = 9 << 15
"""Bytes: measured, fewer take more of the processor's time and more take more memory; see docs/performance.md."""
MOST_WAITING: Final = LONG_READ + (1 << 14)
"""Bytes of a body that may wait to be taken before no more is read: one read and the rest of the one before."""


BLOCK: Final = 1 << 18
"""Bytes that a thread reads of a body before it looks at them."""
LARGEST_HEAD: Final = 1 << 16
"""Bytes of a request's target and header fields, and of the trailer fields of its body."""
OF_A_FIELD: Final = 32
"""Bytes that each field counts beyond its name and value (RFC 9113 6.5.2): what many short ones take in memory."""
MOST_UNHEARD: Final = 512
"""Connections that may be without a whole head at once; of more, the one that has waited longest is let go."""
_REST: Final = "mammonode.rest"
_TOO_LARGE: Final = "mammonode.too_large"


def room() -> memoryview:
    """Return where the connections of one event loop are read to: what is there is handed on before the next is read."""
    return memoryview(bytearray(LONG_READ))


def has_too_large_a_head(scope: Scope) -> bool:
    """Tell whether a request stands for one of which more than `LARGEST_HEAD` came before its body."""
    return _TOO_LARGE in scope.get("extensions", {})


def rest_of(request: Request) -> "Rest | None":
    """Take what is still to come of a request's body from the event loop, to be read by a thread; see `Rest`.

    None where that is not possible: the body's length is not known, all of it has come, or it is encrypted. What comes is in
    `Request.stream` then, as all before.
    """
    take = request.scope.get("extensions", {}).get(_REST)
    return take() if take else None


class Rest:
    """What is still to come of a body, for one thread to read from the connection.

    That takes 0.6 of the processor's time of the way through the event loop, for which the two wait in turn (docs/performance.md).

    Parameters
    ----------
    line
        The connection, which nobody else reads.
    left
        Bytes that are still to come.
    silence
        Seconds in which some of it must come.
    on_close
        Takes the connection back, and how many bytes of the body were not read.
    """

    def __init__(self, line: socket, left: int, silence: float, on_close: Callable[[int], None]) -> None:
        self._line = line
        self._line.settimeout(silence)
        self._left = left
        self._on_close = on_close
        self._is_read = self._is_stopped = False

    def __iter__(self) -> Iterator[bytearray]:
        """Yield it in blocks; the same one each time.

        Raises
        ------
        starlette.requests.ClientDisconnect
            When the sender has gone in the middle, or the thread was told to stop.
        BodyStalled
            When it sends no more.
        """
        self._is_read = True
        try:
            block = bytearray(min(self._left, BLOCK))
            while self._left:
                if self._left < len(block):
                    block = bytearray(self._left)
                self._fill(memoryview(block))
                yield block
        finally:
            self._is_read = False

    def _fill(self, empty: memoryview) -> None:
        while empty:
            try:
                size = 0 if self._is_stopped else self._line.recv_into(empty)
            except TimeoutError:
                raise BodyStalled(f"with {self._left} bytes to come") from None
            except OSError:
                size = 0
            if not size:
                raise ClientDisconnect
            self._left -= size
            empty = empty[size:]

    def stop(self) -> None:
        """Let the thread end, if it still reads; from another one."""
        self._is_stopped = True
        if self._is_read:
            with suppress(OSError):  # the sender has gone
                self._line.shutdown(SHUT_RD)

    def close(self) -> None:
        """Leave the connection to the event loop, in which this is called once the thread has ended."""
        self._line.close()
        self._on_close(self._left)


@dataclass
class _Section:
    """Header or trailer fields that are being received: bytes of whole ones, and of whole reads that brought nothing else."""

    is_trailer: bool
    fields: int = 0
    read: int = 0

    @property
    def is_too_large(self) -> bool:
        return max(self.fields, self.read) > LARGEST_HEAD


class LongReading(HttpToolsProtocol, asyncio.BufferedProtocol):
    """uvicorn's HTTP protocol, reading into a room of its own.

    Parameters
    ----------
    here
        The `room` of the event loop.
    silence
        Seconds in which something must come of a request that has begun, or be taken of an answer.
    uvicorns
        What uvicorn makes its protocol with.

    Attributes
    ----------
    unheard_since
        When it was opened, or its present request began, by the event loop's clock; None once a whole head has come.
    """

    def __init__(self, here: memoryview, silence: float, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._room = here
        self._patience = silence
        self._came = 0
        self._unseen = 0
        self._silence: asyncio.TimerHandle | None = None
        self._unwritten: asyncio.TimerHandle | None = None
        self._section: _Section | None = None
        self._is_refused = False
        self.unheard_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Wait for a request, but not for ever."""
        super().connection_made(transport)
        self.unheard_since = self.loop.time()
        self._wait()
        unheard = [
            each for each in self.connections if isinstance(each, LongReading) and each.unheard_since is not None
        ]
        if len(unheard) > MOST_UNHEARD:
            min(unheard, key=lambda each: each.unheard_since or 0).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._heard()
        if self._unwritten:
            self._unwritten.cancel()
        super().connection_lost(exc)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 (asyncio's)
        """Return where to read to."""
        return self._room[: self._unseen] if self._unseen else self._room

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        if self._is_refused:
            return
        if not self._unseen:
            self._parse(nbytes)
            return
        # Of a body whose thread has ended before it.
        self._unset_keepalive_if_required()
        self._unseen -= nbytes
        if not self._unseen:
            self._end_body()

    def _parse(self, nbytes: int) -> None:
        section, scope, is_idle = self._section, self.scope, self.timeout_keep_alive_task is not None
        self.data_received(self._room[:nbytes])  # type: ignore[arg-type]  # httptools takes any buffer
        if self._section is not section:
            return
        if section:
            section.read += nbytes
            if section.is_too_large:
                self._refuse(section)
        elif is_idle and self.scope is scope:  # empty lines before a request (RFC 9112 2.2): uvicorn waits no more
            self._wait()

    def on_message_begin(self) -> None:
        """Wait for the rest of the headers, but not for ever."""
        self._wait()
        self.unheard_since = self.loop.time()
        self._section = _Section(is_trailer=False)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header field; those after a body are no headers (RFC 9110 6.5.1), and nobody asks for them."""
        self._count(len(name) + len(value) + OF_A_FIELD)
        if self._section and not self._section.is_trailer:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Let whoever answers take the body."""
        self._heard()
        self.unheard_since = self._section = None
        self._came = 0
        self.scope["extensions"] = {_REST: partial(self._take, self.scope)}  # type: ignore[dict-item]
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """Wait for a chunk or, after the last one, trailer fields."""
        self._section = _Section(is_trailer=True)

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        self._section = None
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or was more of it than is taken."""
        if self._section and self._section.is_too_large:
            self._refuse(self._section)
        else:
            super().send_400_response(msg)

    def _count(self, size: int) -> None:
        if self._section:
            self._section.fields += size
            if self._section.is_too_large:
                raise HeadTooLarge  # the parser's error then, which ends in `send_400_response`

    def _refuse(self, section: _Section) -> None:
        """Read no more, and answer a request in the place of one whose head is too large."""
        self._is_refused = True
        if section.is_trailer:
            self.transport.abort()
            return
        self.url = b"/"
        self.headers.clear()
        self._heard()
        self.unheard_since = self._section = None
        self.scope["extensions"] = {_TOO_LARGE: {}}
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body: bytes that are added to no bytes, and made bytes, stay where they are.

        uvicorn reads on only when 64 KiB or less wait, which is never the case after a long read: the sender would stop and
        start each time.
        """
        self._section = None
        self._came += len(body)
        waiting = getattr(self.cycle, "body", None)
        if waiting == b"":
            self.cycle.body = b""  # type: ignore[assignment]
        enough = waiting is None or len(waiting) + len(body) > MOST_WAITING
        if enough or self.cycle.response_complete or self.parser.should_upgrade():
            super().on_body(body)
            return
        self.cycle.body += body
        self.cycle.message_event.set()

    def on_response_complete(self) -> None:
        """Wait for what nobody reads of a body, but not for ever."""
        super().on_response_complete()
        if self._unseen or self.cycle.more_body:
            self._wait()

    def pause_writing(self) -> None:
        """Wait for whoever takes no more of an answer, but not for ever."""
        super().pause_writing()
        self._watch(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Write on."""
        if self._unwritten:
            self._unwritten.cancel()
        super().resume_writing()

    def _watch(self, waiting: int) -> None:
        self._unwritten = self.loop.call_later(self._patience, self._require_less_than, waiting)

    def _require_less_than(self, waiting: int) -> None:
        if self.transport.get_write_buffer_size() < waiting:
            self._watch(self.transport.get_write_buffer_size())
        else:
            self.transport.abort()

    def _wait(self) -> None:
        self._heard()
        self._silence = self.loop.call_later(self._patience, self.timeout_keep_alive_handler)

    def _heard(self) -> None:
        if self._silence:
            self._silence.cancel()

    def _take(self, scope: object) -> Rest | None:
        cycle = self.cycle
        is_over = cycle.scope is not scope or cycle.disconnected or cycle.response_complete
        if is_over or cycle.body or self._unseen or self.scheme == "https":
            return None
        self._unseen = max(int(dict(self.headers).get(b"content-length", b"0")) - self._came, 0)
        if not self._unseen:
            return None
        self.transport.pause_reading()
        self.flow.read_paused = False  # it is not the flow's to read on
        return Rest(self.transport.get_extra_info("socket").dup(), self._unseen, self._patience, self._take_back)

    def _take_back(self, left: int) -> None:
        self._unseen = left
        if not self.transport.is_closing():
            self.transport.resume_reading()
            if not left:
                self._end_body()

    def _end_body(self) -> None:
        # The parser waits for bytes that it did not see.
        self.parser = httptools.HttpRequestParser(self)
        self.on_message_complete()
