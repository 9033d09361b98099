"""What a compressed image says of itself, which its DICOM header may contradict."""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

SOC_SIZ: Final = b"\xff\x4f\xff\x51"
"""How a JPEG 2000 codestream begins (ISO/IEC 15444-1 A.4.1, A.5.1)."""
SOI: Final = b"\xff\xd8"
"""How a JPEG and a JPEG-LS codestream begin (ISO/IEC 10918-1 B.2.1, 14495-1 C.1)."""
FRAME_HEADERS: Final = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
"""SOF markers (10918-1 table B.1), and SOF55 of JPEG-LS."""

SOS: Final = 0xDA
"""Marker of a scan's header (10918-1 table B.1)."""


class Size(NamedTuple):
    """Rows, columns, and bits of a value."""

    rows: int
    columns: int
    bits: int


def stated_size(codestream: bytes) -> Size | None:
    """Return the size as the header of a JPEG, JPEG-LS or JPEG 2000 codestream has it; None where it has none."""
    try:
        if codestream.startswith(SOC_SIZ):
            right, bottom, left, top = struct.unpack_from(">4L", codestream, 8)
            return Size(bottom - top, right - left, (codestream[42] & 0x7F) + 1)  # above them, whether there is a sign
        if codestream.startswith(SOI):
            return _of_jpeg(codestream)
    except (struct.error, IndexError):  # it ends before
        pass
    return None


def segments(codestream: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield marker, parameters and where they end of each segment of a JPEG codestream up to its first scan (10918-1 B.1.1.4).

    Raises
    ------
    IndexError, struct.error
        When it ends before.
    """
    at = len(SOI)
    while codestream[at] == 0xFF:
        marker = codestream[at + 1]
        if marker == 0xFF:  # fill bytes (10918-1 B.1.1.2)
            at += 1
            continue
        end = at + 2 + struct.unpack_from(">H", codestream, at + 2)[0]
        yield marker, codestream[at + 4 : end], end
        if marker == SOS:
            return
        at = end


def _of_jpeg(codestream: bytes) -> Size | None:
    for marker, body, _ in segments(codestream):
        if marker in FRAME_HEADERS:
            bits, rows, columns = struct.unpack_from(">BHH", body)
            # The rows may be told after the first scan (B.2.5).
            return Size(rows, columns, bits) if rows and columns else None
    return None
