"""JPEG Lossless by libjpeg-turbo (imagecodecs), which is asked before GDCM: a third of its time, and without Python's lock.

It is what mammography units compress by (PS3.5 8.2.1, A.4.2; ISO/IEC 10918-1 process 14).
"""

from typing import Final

import imagecodecs
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.uid import JPEGLossless, JPEGLosslessSV1

PLUGIN: Final = "imagecodecs"
DECODER_DEPENDENCIES: Final = {JPEGLossless: ("imagecodecs",), JPEGLosslessSV1: ("imagecodecs",)}
"""As pydicom wants it of a plugin."""
EOI: Final = b"\xff\xd9"
"""How a codestream ends (10918-1 B.2.1); DICOM pads it to an even length."""


def is_available(uid: str) -> bool:
    """Tell whether a transfer syntax is decoded here, as pydicom wants it of a plugin."""
    return uid in DECODER_DEPENDENCIES


def decode_frame(codestream: bytes, runner: DecodeRunner) -> bytes:
    """Return the values of a grey frame; a signed one's keep their sign in the bits that are stored.

    Raises
    ------
    ValueError
        For colour, for another size than the header's, and where the end of the codestream is missing: libjpeg makes up what
        is cut off. The next decoder is asked then. imagecodecs raises its own errors where the codestream is damaged.
    """
    if not codestream[-8:].rstrip(b"\0").endswith(EOI):
        raise ValueError("it has no end")
    if runner.samples_per_pixel != 1:
        raise ValueError(f"{runner.samples_per_pixel} samples per pixel")
    values = imagecodecs.jpeg8_decode(codestream)
    if values.shape != (runner.rows, runner.columns):
        raise ValueError(f"{values.shape} instead of {runner.rows} rows and {runner.columns} columns")
    runner.set_option("bits_allocated", 8 * values.itemsize)
    return values.tobytes()


def be_first() -> None:
    """Let pydicom ask this decoder before its own, which it asks in the order in which they were added."""
    for decoder in map(get_decoder, DECODER_DEPENDENCIES):
        others = [label for label in decoder.available_plugins if label != PLUGIN]
        for label in decoder.available_plugins:
            decoder.remove_plugin(label)
        decoder.add_plugin(PLUGIN, (__name__, decode_frame.__name__))
        for label in others:
            decoder.add_plugin(label, (f"pydicom.pixels.decoders.{label}", "_decode_frame"))
