"""An image of 17 MB that every sender of the benchmark sends, each time under new UIDs, at next to no cost.

The UIDs in it are tokens of a fixed length. Who sends an image puts others in their place at its beginning; the pixels,
cut into PDUs once, are the same bytes each time.
"""

import json
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TOKENS = {
    "study": b"2.25." + b"7" * 39,
    "series": b"2.25." + b"8" * 39,
    "instance": b"2.25." + b"9" * 39,
    "patient": b"P" * 16,
}
HEADER, CONTROL = ">BBI", ">IBB"
DATA, LAST_DATA, LAST_COMMAND = 0, 2, 3
"""Message control headers (PS3.8 E.2)."""


@dataclass(frozen=True, eq=False)
class Image:
    """The data set of an image, encoded in Explicit VR Little Endian, with tokens for UIDs.

    Attributes
    ----------
    sop_class
        Its SOP Class UID.
    head, pixels
        All before the value of Pixel Data, and that value.
    """

    sop_class: bytes
    head: bytes
    pixels: bytes

    def under(self, names: dict[str, bytes]) -> bytes:
        """Return the head with names in the places of the tokens."""
        head = self.head
        for token, name in names.items():
            head = head.replace(TOKENS[token], name)
        return head

    def save(self, folder: Path) -> None:
        """Keep it for senders."""
        sizes = {"sop_class": self.sop_class.decode(), "head": len(self.head)}
        (folder / "image.json").write_text(json.dumps(sizes))
        (folder / "image.bin").write_bytes(self.head + self.pixels)

    @classmethod
    def load(cls, folder: Path) -> "Image":
        """Return what was kept."""
        sizes, data = json.loads((folder / "image.json").read_text()), (folder / "image.bin").read_bytes()
        return cls(sizes["sop_class"].encode(), data[: sizes["head"]], data[sizes["head"] :])


def names(count: int) -> Iterator[dict[str, bytes]]:
    """Yield new names for so many images, four of one study each."""
    for number in range(count):
        if number % 4 == 0:
            exam = {"study": a_uid(), "series": a_uid(), "patient": uuid.uuid4().hex[:16].encode()}
        yield {**exam, "instance": a_uid()}


def a_uid() -> bytes:
    """Return a new UID of 44 characters (PS3.5 B.2)."""
    return b"2.25." + str(uuid.uuid4().int % 10**39).rjust(39, "1").encode()


class Stream:
    """The PDUs of C-STORE requests with an image, of at most so many bytes each (PS3.8 9.3.5)."""

    def __init__(self, image: Image, maximum: int) -> None:
        self._image = image
        room = maximum - 6
        whole = len(image.head) + len(image.pixels)
        self._first = room - len(image.head)
        if self._first < 0:
            raise ValueError(maximum)
        rest = memoryview(image.pixels)[self._first :]
        parts = bytearray()
        for start in range(0, len(rest), room):
            parts += _fragment(rest[start : start + room], LAST_DATA if start + room >= len(rest) else DATA)
        self.rest, self.size = bytes(parts), whole

    def request(self, names: dict[str, bytes], message: int) -> bytes:
        """Return the PDUs of the command and the first of the data set; ``rest`` follows."""
        command = _command(self._image.sop_class, names["instance"], message)
        first = self._image.under(names) + self._image.pixels[: self._first]
        return _fragment(command, LAST_COMMAND) + _fragment(first, DATA)


def _fragment(value: bytes | memoryview, control: int) -> bytes:
    return struct.pack(HEADER, 4, 0, len(value) + 6) + struct.pack(CONTROL, len(value) + 2, 1, control) + value


def _command(sop_class: bytes, instance: bytes, message: int) -> bytes:
    body = b"".join(
        (
            _element(0x0002, sop_class),
            _element(0x0100, struct.pack("<H", 0x0001)),
            _element(0x0110, struct.pack("<H", message)),
            _element(0x0700, struct.pack("<H", 0)),
            _element(0x0800, struct.pack("<H", 0)),
            _element(0x1000, instance),
        )
    )
    return _element(0x0000, struct.pack("<I", len(body))) + body


def _element(number: int, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHI", 0, number, len(value)) + value
