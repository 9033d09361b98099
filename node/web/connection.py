"""A connection of the HTTP door: bodies come in long reads, and are copied once.

uvicorn 0.54 copies what is read of a body three times: httptools makes bytes of it, which are added to a buffer, of which bytes
are made again.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LONG_READ: Final = 9 << 15
"""Bytes: measured, fewer take more of the processor's time and more take more memory; see docs/performance.md."""
MOST_WAITING: Final = LONG_READ + (1 << 14)
"""Bytes of a body that may wait to be taken before no more is read: one read and the rest of the one before."""


def room() -> memoryview:
    """Return where the connections of one event loop are read to: what is there is handed on before the next is read."""
    return memoryview(bytearray(LONG_READ))


class LongReading(HttpToolsProtocol, asyncio.BufferedProtocol):
    """uvicorn's HTTP protocol, reading into a room of its own.

    Parameters
    ----------
    here
        The `room` of the event loop.
    uvicorns
        What uvicorn makes its protocol with.
    """

    def __init__(self, here: memoryview, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._room = here

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 (asyncio's)
        """Return where to read to."""
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        self.data_received(self._room[:nbytes])  # type: ignore[arg-type]  # httptools takes any buffer

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body: bytes that are added to no bytes, and made bytes, stay where they are.

        uvicorn reads on only when 64 KiB or less wait, which is never the case after a long read: the sender would stop and
        start each time.
        """
        waiting = getattr(self.cycle, "body", None)
        if waiting == b"":
            self.cycle.body = b""  # type: ignore[assignment]
        enough = waiting is None or len(waiting) + len(body) > MOST_WAITING
        if enough or self.cycle.response_complete or self.parser.should_upgrade():
            super().on_body(body)
            return
        self.cycle.body += body
        self.cycle.message_event.set()
