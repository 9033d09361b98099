"""JPEG Lossless by libjpeg-turbo (imagecodecs), a third of GDCM's time and without Python's lock; cuts are refused.

It is what mammography units compress by (PS3.5 8.2.1, A.4.2; ISO/IEC 10918-1 process 14). Both decoders fill up what is cut
off a codestream, and go on with other values where one is damaged, libjpeg-turbo without a word. So the bits that the decoded values
need are counted, and compared with those that there are: after a cut they never agree, after a damage seldom. Bits that are
changed for as many others cannot be noticed by anybody.
"""

import re
from dataclasses import dataclass
from typing import Any, Final, Self

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.pixels.decoders import gdcm
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.uid import JPEGLossless, JPEGLosslessSV1

from ai.codestream import segments

PLUGIN: Final = "mammonode"
DECODER_DEPENDENCIES: Final = {JPEGLossless: ("imagecodecs",), JPEGLosslessSV1: ("imagecodecs",)}
"""As pydicom wants it of a plugin."""
_BLOCK: Final = 1 << 23
"""Values that are counted at once: float32 counts them exactly, and each count writes a table of 65,536."""
_SOF3, _DHT, _SOS, _DRI = 0xC3, 0xC4, 0xDA, 0xDD
_WORD: Final = 8
"""Bytes that an encoder may end its last word with."""
_MARKER: Final = re.compile(rb"\xff[^\x00\xff]")
_ALLOCATED: Final = 8, 16
"""Bits for which GDCM returns; for others it ends the process."""

# The category of each difference modulo 2^16 (10918-1 H.1.2.2, table H.2): how many bits tell which of its values it is.
_SIZES: Final = np.minimum(np.arange(1 << 16), (1 << 16) - np.arange(1 << 16))
_CATEGORIES: Final = np.ceil(np.log2(_SIZES + 1)).astype(np.int64)


def is_available(uid: str) -> bool:
    """Tell whether a transfer syntax is decoded here, as pydicom wants it of a plugin."""
    return uid in DECODER_DEPENDENCIES


def decode_frame(codestream: bytes, runner: DecodeRunner) -> bytes:
    """Return the values of a frame as many bytes each as the header allocates; signed ones keep their sign in the bits stored.

    What is not the usual form (grey, first-order prediction, no restarts) is GDCM's.

    Raises
    ------
    ValueError
        When the values are not what the codestream tells, or it has another size than the header. Decoders raise their own.
    """
    scan = Scan.of(codestream)
    if scan is None or runner.samples_per_pixel != 1:
        if runner.bits_allocated not in _ALLOCATED or (runner.bits_allocated == 8 and runner.bits_stored != 8):
            raise ValueError(f"{runner.bits_stored} bits stored of {runner.bits_allocated}")
        return bytes(gdcm._decode_frame(codestream, runner))  # noqa: SLF001 (as pydicom names it to itself)
    values = imagecodecs.jpeg8_decode(codestream)
    allocated = runner.bits_allocated // 8
    if values.shape != (runner.rows, runner.columns) or values.itemsize > allocated:
        raise ValueError(f"{values.shape} of {values.itemsize} bytes instead of what the header says")
    scan.require(values)
    # The bits above those of the codestream or, where it says more than the header, of overlays and signs, are none.
    bits = max(scan.precision, runner.bits_stored)
    if not runner.pixel_representation and (greatest := int(values.max())) >> bits:
        raise ValueError(f"{greatest} has more than {bits} bits")
    return values.astype(f"<u{allocated}", copy=False).tobytes()


@dataclass(frozen=True)
class Scan:
    """The only scan of a codestream in the usual form.

    Attributes
    ----------
    bits
        It has, stuffing left out (10918-1 F.1.2.3).
    padding
        Of them, in whole bytes at its end that are all 0 or all 1, as some encoders may add.
    lengths
        Category of a difference → bits of its code; 0 where it has none.
    precision
        Bits of a value.
    """

    bits: int
    padding: int
    lengths: tuple[int, ...]
    precision: int

    @classmethod
    def of(cls, codestream: bytes) -> Self | None:
        """Read the header of a codestream, None where it has another form, or no end."""
        lengths: dict[int, tuple[int, ...]] = {}
        precision = None
        for marker, body, end in segments(codestream):
            if marker == _SOF3 and len(body) == 9:  # one component
                precision = body[0]
            elif marker == _DHT:
                lengths |= _tables(body)
            elif marker == _DRI and any(body):
                return None
            elif marker == _SOS:
                # One component, its table, Ss = 1 for prediction from the left, and Se, Ah and Al = 0 (H.1.2.1, B.2.3).
                table = body[2] >> 4 if len(body) == 6 else None
                following = _MARKER.search(codestream, end)
                if precision is None or table not in lengths or body[3:] != b"\1\0\0" or following is None:
                    return None
                last = following.start()
                while codestream[last - 1] == 0xFF:  # fill bytes (B.1.1.2)
                    last -= 1
                tail = codestream[max(last - _WORD, end) : last]
                scan = np.frombuffer(codestream, np.uint8, last - end, end)
                # Each is followed by a zero that is none of the bits, or there is a damage, and one byte less hides none.
                stuffed = np.count_nonzero(scan == 0xFF)
                return cls(
                    8 * (len(scan) - int(stuffed)),
                    8 * (len(tail) - len(tail.rstrip(b"\0\xff"))),
                    lengths[table],
                    precision,
                )
        return None

    def require(self, values: NDArray[Any]) -> None:
        """Refuse values that need more or fewer bits than there are.

        Parameters
        ----------
        values
            (rows, columns), unsigned.

        Raises
        ------
        ValueError
            When they do.
        """
        counts = np.zeros(1 << 16)
        rows = max(_BLOCK // values.shape[1], 1)
        for top in range(0, len(values), rows):
            counts += _differences(values[max(top - 1, 0) : top + rows], self.precision if top == 0 else None)
        found = np.bincount(_CATEGORIES, counts, 17).astype(int).tolist()
        needed = sum(
            number * (length + category) if category < 16 else number * length  # H.1.2.2: no more bits for 32768
            for category, (number, length) in enumerate(zip(found, self.lengths, strict=True))
        )
        uncoded = any(number and not length for number, length in zip(found, self.lengths, strict=True))
        # Less than 8 bits fill the last byte.
        if uncoded or not 0 <= self.bits - needed < 8 + self.padding:
            raise ValueError(f"the values need {needed} bits, and there are {self.bits}")


def _tables(body: bytes) -> dict[int, tuple[int, ...]]:
    """Return Huffman table → code length by category (10918-1 B.2.4.2)."""
    found: dict[int, tuple[int, ...]] = {}
    while len(body) > 17:
        counts, lengths = body[1:17], [0] * 17
        symbols = body[17 : 17 + sum(counts)]
        coded = [length for length, count in enumerate(counts, 1) for _ in range(count)]
        for symbol, length in zip(symbols, coded, strict=False):
            if symbol < len(lengths):
                lengths[symbol] = length
        found[body[0]] = tuple(lengths)  # class and number: tables of class 1 are for other processes
        body = body[17 + len(coded) :]
    return found


def _differences(values: NDArray[Any], precision: int | None) -> NDArray[np.float32]:
    """Return how many there are of each difference modulo 2^16.

    Parameters
    ----------
    values
        Rows below each other, the first of which is only there for the second's, but for the top of the image.
    precision
        Of the values where the first row is the image's; None below.
    """
    wide = values.astype(np.uint16, copy=False)
    differences = np.empty_like(wide)
    np.subtract(wide[:, 1:], wide[:, :-1], out=differences[:, 1:])
    differences[1:, 0] = wide[1:, 0] - wide[:-1, 0]
    if precision is None:
        differences = differences[1:]
    else:
        differences[0, 0] = (int(wide[0, 0]) - (1 << precision - 1)) % (1 << 16)
    counts = cv2.calcHist([np.ascontiguousarray(differences)], [0], None, [1 << 16], [0, 1 << 16])
    return np.asarray(counts, np.float32).ravel()


def be_first() -> None:
    """Let pydicom decode by this alone: what another decoder makes of a damaged codestream is no better."""
    for decoder in map(get_decoder, DECODER_DEPENDENCIES):
        for label in decoder.available_plugins:
            decoder.remove_plugin(label)
        decoder.add_plugin(PLUGIN, (__name__, decode_frame.__name__))
