"""multipart/related in and out, as streams (RFC 2387, PS3.18 8.6)."""

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from node.errors import BadRequest, TooManyParts

CHUNK: Final = 1 << 20
"""Bytes that are in memory of a body at once."""
LONGEST_BOUNDARY: Final = 256
"""RFC 2046 5.1.1 allows 70 characters; some senders go beyond."""


class Part(Protocol):
    """Takes what is in one part."""

    def write(self, data: memoryview) -> None:
        """Take some bytes."""

    def end(self) -> None:
        """Know that they were all."""


class Reader:
    """Reads a multipart body as its bytes come; nothing of it is kept here.

    Parameters
    ----------
    boundary
        As the Content-Type says.
    begin
        Takes a part's headers, names in lower case, and returns who takes its bytes.
    maximum_parts
        How many parts there may be.
    """

    def __init__(self, boundary: str, begin: Callable[[Mapping[str, str]], Part], maximum_parts: int) -> None:
        if not 1 <= len(boundary) <= LONGEST_BOUNDARY or not boundary.isascii() or not boundary.isprintable():
            raise BadRequest("the boundary is missing or no such thing")
        self.parts = 0
        self.complete = False
        self._begin = begin
        self._maximum_parts = maximum_parts
        self._headers: dict[str, str] = {}
        self._name, self._value = bytearray(), bytearray()
        self._part: Part | None = None
        self._parser = MultipartParser(
            boundary.encode(),
            {
                "on_part_begin": self._on_begin,
                "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._on_header,
                "on_headers_finished": self._on_headers,
                "on_part_data": self._on_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def feed(self, data: bytes | bytearray) -> None:
        """Take some bytes of the body.

        Raises
        ------
        BadRequest, TooManyParts
            When it is no multipart body, or has too many parts.
        """
        try:
            self._parser.write(data)  # type: ignore[arg-type]  # it takes either
        except MultipartParseError as error:
            raise BadRequest("the multipart body is broken") from error

    def _on_begin(self) -> None:
        self.parts += 1
        if self.parts > self._maximum_parts:
            raise TooManyParts(f"more than {self._maximum_parts}")
        self._headers = {}

    def _on_header(self) -> None:
        self._headers[self._name.decode("latin-1").strip().lower()] = self._value.decode("latin-1").strip()
        self._name.clear()
        self._value.clear()

    def _on_headers(self) -> None:
        self._part = self._begin(self._headers)

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._part is not None:
            self._part.write(memoryview(data)[start:end])

    def _on_part_end(self) -> None:
        part, self._part = self._part, None
        if part is not None:
            part.end()

    def _on_end(self) -> None:
        self.complete = True


@dataclass(frozen=True)
class Piece:
    """A part that is given: its headers, and its bytes as they are needed."""

    content_type: str
    data: Iterable[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Related:
    """A multipart/related body that is given piece by piece."""

    content: str
    pieces: Iterable[Piece]
    boundary: str = field(default_factory=lambda: f"mammonode-{secrets.token_hex(16)}")

    @property
    def content_type(self) -> str:
        """For the Content-Type header."""
        return f'multipart/related; type="{self.content}"; boundary={self.boundary}'

    def __iter__(self) -> Iterator[bytes]:
        """Yield the body."""
        for piece in self.pieces:
            headers = {"Content-Type": piece.content_type, **piece.headers}
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            yield f"--{self.boundary}\r\n{lines}\r\n".encode()
            yield from piece.data
            yield b"\r\n"
        yield f"--{self.boundary}--\r\n".encode()


def file_range(path: Path, offset: int = 0, size: int | None = None) -> Iterator[bytes]:
    """Yield a file's bytes, or a range of them."""
    with path.open("rb") as file:
        file.seek(offset)
        left = size
        while left is None or left > 0:
            data = file.read(CHUNK if left is None else min(CHUNK, left))
            if not data:
                return
            left = None if left is None else left - len(data)
            yield data
