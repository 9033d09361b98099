"""What a compressed image says of itself, which its DICOM header may contradict."""

import struct
from typing import Final

SOC_SIZ: Final = b"\xff\x4f\xff\x51"
"""How a JPEG 2000 codestream begins (ISO/IEC 15444-1 A.4.1, A.5.1)."""
SOI: Final = b"\xff\xd8"
"""How a JPEG and a JPEG-LS codestream begin (ISO/IEC 10918-1 B.2.1, 14495-1 C.1)."""
FRAME_HEADERS: Final = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
"""SOF markers (10918-1 table B.1), and SOF55 of JPEG-LS."""


def stated_size(codestream: bytes) -> tuple[int, int] | None:
    """Return rows and columns as the header of a JPEG, JPEG-LS or JPEG 2000 codestream has them; None where it has none."""
    try:
        if codestream.startswith(SOC_SIZ):
            right, bottom, left, top = struct.unpack_from(">4L", codestream, 8)
            return bottom - top, right - left
        if codestream.startswith(SOI):
            return _of_jpeg(codestream)
    except (struct.error, IndexError):  # it ends before
        pass
    return None


def _of_jpeg(codestream: bytes) -> tuple[int, int] | None:
    at = len(SOI)
    while codestream[at] == 0xFF:
        marker = codestream[at + 1]
        if marker == 0xFF:  # fill bytes (10918-1 B.1.1.2)
            at += 1
            continue
        if marker in FRAME_HEADERS:
            rows, columns = struct.unpack_from(">HH", codestream, at + 5)
            return (rows, columns) if rows and columns else None  # the rows may be told after the first scan (B.2.5)
        at += 2 + struct.unpack_from(">H", codestream, at + 2)[0]
    return None
