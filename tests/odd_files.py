"""Files that no modality should send: mammograms changed byte by byte, and the classics of hostile data sets."""

import random
import struct
import zlib
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from tests.doors import phantom_images
from tests.fuzz import SIZES

SHORT_VRS = (b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"IS", b"LO", b"PN", b"SH", b"TM", b"UI", b"US")
LONG_VRS = (b"OB", b"OW", b"OF", b"SQ", b"UN", b"UT", b"UC", b"UR", b"OD", b"OL", b"OV", b"SV", b"UV")


@dataclass(frozen=True)
class OddFile:
    """A file and what is odd about it."""

    name: str
    content: bytes


def written(image: Dataset) -> bytes:
    """Return an image as a file."""
    stream = BytesIO()
    image.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


@cache
def plain_file(uid: str, view: int = 0) -> bytes:
    """Return the file of a small mammogram, in a study of its own."""
    image = deepcopy(phantom_images()[view])
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    image.StudyInstanceUID, image.SeriesInstanceUID = f"{uid}.1", f"{uid}.2"
    image.PatientID = f"P{uid}"
    return written(image)


def data_set(content: bytes) -> int:
    """Return where the data set begins."""
    return 144 + int(struct.unpack("<L", content[140:144])[0])


def elements(content: bytes) -> list[int]:
    """Return where the top elements of an explicit little endian file begin, without the last, the pixels."""
    at, found = data_set(content), []
    while at < len(content) and content[at : at + 4] != b"\xe0\x7f\x10\x00":
        found.append(at)
        vr = content[at + 4 : at + 6]
        if vr == b"SQ":
            at = next_top_element(content, at)
        elif vr in LONG_VRS:
            at += 12 + struct.unpack("<L", content[at + 8 : at + 12])[0]
        else:
            at += 8 + struct.unpack("<H", content[at + 6 : at + 8])[0]
    return found


def next_top_element(content: bytes, at: int) -> int:
    """Return where the element after a sequence begins."""
    length = struct.unpack("<L", content[at + 8 : at + 12])[0]
    if length != 0xFFFFFFFF:
        return int(at + 12 + length)
    depth, here = 1, at + 12
    while depth:  # markers of nested sequences: (FFFE,E0DD) ends one, an SQ of undefined length begins one
        if content[here : here + 4] == b"\xfe\xff\xdd\xe0":
            depth -= 1
            here += 8
        elif content[here + 4 : here + 6] == b"SQ" and content[here + 8 : here + 12] == b"\xff" * 4:
            depth += 1
            here += 12
        else:
            here += 1
    return here


def element(tag: int, vr: bytes, value: bytes, claimed: int | None = None) -> bytes:
    """Return an explicit little endian element, whose length may be a lie."""
    length = len(value) if claimed is None else claimed
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    if vr in LONG_VRS:
        return head + struct.pack("<HL", 0, length & 0xFFFFFFFF) + value
    return head + struct.pack("<H", length & 0xFFFF) + value


def nested(depth: int, *, defined: bool = False) -> bytes:
    """Return a sequence in a sequence in a sequence."""
    if defined:
        inner = b""
        for _ in range(depth):
            inner = element(0x00081140, b"SQ", struct.pack("<HHL", 0xFFFE, 0xE000, len(inner)) + inner)
        return inner
    opening = element(0x00081140, b"SQ", b"\xfe\xff\x00\xe0\xff\xff\xff\xff", 0xFFFFFFFF)
    closing = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    return opening * depth + closing * depth


def replaced(content: bytes, tag: int, new: bytes) -> bytes:
    """Return a file with one top element exchanged, or added in its place."""
    places = [*elements(content), content.index(b"\xe0\x7f\x10\x00")]
    for here, following in zip(places, [*places[1:], len(content)], strict=True):
        found = struct.unpack("<HH", content[here : here + 4])
        number = found[0] << 16 | found[1]
        if number == tag:
            return content[:here] + new + content[following:]
        if number > tag:
            return content[:here] + new + content[here:]
    return content + new


def text(tag: int, vr: bytes, value: bytes) -> Callable[[bytes], bytes]:
    """Return a change that sets an element to raw bytes."""
    return lambda content: replaced(content, tag, element(tag, vr, value + b" " * (len(value) % 2)))


def deflated(size: int) -> Callable[[bytes], bytes]:
    """Return a change that writes a file deflated, with so many zeros in it."""

    def change(content: bytes) -> bytes:
        image = dcmread(BytesIO(content))
        image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        image.remove_private_tags()
        del image.PixelData
        stream = BytesIO()
        image.save_as(stream, enforce_file_format=True)
        whole = stream.getvalue()
        body = zlib.decompress(whole[data_set(whole) :], -zlib.MAX_WBITS)
        packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        bomb = packer.compress(body + struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, size))
        for _ in range(size >> 20):
            bomb += packer.compress(bytes(1 << 20))
        return whole[: data_set(whole)] + bomb + packer.flush()

    return change


def without_everything(content: bytes) -> bytes:
    """Leave the UIDs alone."""
    image = dcmread(BytesIO(content))
    kept = {"SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"}
    for each in list(image):
        if each.keyword not in kept:
            del image[each.tag]
    return written(image)


def setting(**values: Any) -> Callable[[bytes], bytes]:
    """Return a change that sets attributes."""

    def change(content: bytes) -> bytes:
        image = dcmread(BytesIO(content))
        for keyword, value in values.items():
            setattr(image, keyword, value)
        return written(image)

    return change


UIDS = {"instance": 0x00080018, "study": 0x0020000D, "series": 0x0020000E, "class": 0x00080016}

CLASSICS: dict[str, Callable[[bytes], bytes]] = {
    **{
        f"{name} UID {value!r}": text(tag, b"UI", value)
        for name, tag in UIDS.items()
        for value in (b"../../x", b"/etc/passwd", b"", b"1.2\0.3", b"1" * 70, b"\xff\xfe", b"1.2\\1.3", b"..")
    },
    "a NUL within the Patient ID": text(0x00100020, b"LO", b"A\0B"),
    "a NUL within the name": text(0x00100010, b"PN", b"A\0B"),
    "a NUL within the description": text(0x0008103E, b"LO", b"A\0B"),
    "bytes that are no text": text(0x00100020, b"LO", b"\xff\xfe\xed\xa0\x80"),
    "a broken escape sequence": lambda content: text(0x00100010, b"PN", b"\x1b$B\x1b(Z\xff")(
        text(0x00080005, b"CS", b"\\ISO 2022 IR 87")(content)
    ),
    "lone surrogates": lambda content: text(0x00100020, b"LO", b"\xed\xa0\x80")(
        text(0x00080005, b"CS", b"ISO_IR 192")(content)
    ),
    "an unknown character set": text(0x00080005, b"CS", b"KLINGON"),
    "many character sets": text(0x00080005, b"CS", b"\\".join([b"ISO 2022 IR 87"] * 400)),
    "a name of 60,000 letters": text(0x00100010, b"PN", b"N" * 60000),
    "a Patient ID of 60,000 letters": text(0x00100020, b"LO", b"N" * 60000),
    "a number of 60,000 digits": text(0x00200013, b"IS", b"9" * 60000),
    "30,000 numbers": text(0x00200013, b"IS", b"1\\" * 30000),
    "an infinite number": text(0x00181114, b"DS", b"inf"),
    "a number that is none": text(0x00181114, b"DS", b"1e999999"),
    "a date that is none": text(0x00080020, b"DA", b"2026\0\0\0\0"),
    "a private giant": lambda content: replaced(content, 0x00091010, element(0x00091010, b"OB", bytes(4 << 20))),
    "a sequence 10,000 deep": lambda content: replaced(content, 0x00081140, nested(10000)),
    "a sequence 300 deep": lambda content: replaced(content, 0x00081140, nested(300)),
    "a sequence of known length 10,000 deep": lambda content: replaced(content, 0x00081140, nested(2000, defined=True)),
    "a view code 2,000 deep": lambda content: replaced(
        content, 0x00540220, nested(2000, defined=True).replace(b"\x08\0\x40\x11", b"\x54\0\x20\x02")
    ),
    "a sequence that does not end": lambda content: replaced(content, 0x00081140, nested(3)[:-16]),
    "a text that does not end": lambda content: replaced(
        content, 0x00104000, element(0x00104000, b"UT", b"x", 1 << 31)
    ),
    "a text as a sequence": lambda content: replaced(content, 0x00100010, element(0x00100010, b"SQ", b"NOTHING^HERE")),
    "a sequence as a text": text(0x00540220, b"LO", b"CC"),
    "elements out of order": lambda content: (
        content[: data_set(content)] + element(0x00200013, b"IS", b"1 ") + content[data_set(content) :]
    ),
    "an element twice": lambda content: (
        content[: data_set(content)] + element(0x00080018, b"UI", b"1.2.9\0") + content[data_set(content) :]
    ),
    "nothing but the UIDs": without_everything,
    "nothing": lambda content: content[: data_set(content)],
    "no preamble": lambda content: content[132:],
    "empty": lambda _: b"",
    "text": lambda _: b"<html>" * 100,
    "deflated": deflated(0),
    "a bomb of 300 MB": deflated(300 << 20),
    "65535 rows and columns": setting(Rows=65535, Columns=65535),
    "no rows": setting(Rows=0, Columns=0),
    "60,000 frames": setting(NumberOfFrames=60000),
    "a stored bit depth that is none": setting(BitsAllocated=16, BitsStored=40, HighBit=99),
    "three samples": setting(SamplesPerPixel=3, PhotometricInterpretation="RGB"),
    "no pixels": lambda content: content[: content.index(b"\xe0\x7f\x10\x00")],
    "half of the pixels": lambda content: content[: -len(content) // 3],
    "a window of no width": setting(WindowWidth="0", WindowCenter="0"),
    "a spacing of nothing": setting(ImagerPixelSpacing=["0", "0"]),
    "a spacing below nothing": setting(ImagerPixelSpacing=["-1", "1e30"]),
}
"""What a hostile or a broken sender is known to do."""


def odd_file(seed: int, number: int) -> OddFile:
    """Return a mammogram with a few bytes changed; the same for the same seed and number."""
    rng = random.Random(f"{seed}/{number}")  # noqa: S311
    content = plain_file(f"1.2.{seed}.{number}")
    changed, places = bytearray(content), elements(content)
    kind = rng.choice(("bytes", "length", "VR", "tag", "cut", "swap"))
    for _ in range(rng.choice((1, 1, 2, 5))):
        here = rng.choice(places)
        if kind == "bytes":
            changed[rng.randrange(data_set(content), places[-1])] = rng.choice((0, 0x7F, 0xFF, rng.randrange(256)))
        elif kind == "length":
            size = rng.choice(SIZES)
            if bytes(content[here + 4 : here + 6]) in LONG_VRS:
                changed[here + 8 : here + 12] = struct.pack("<L", size)
            else:
                changed[here + 6 : here + 8] = struct.pack("<H", size & 0xFFFF)
        elif kind == "VR":
            changed[here + 4 : here + 6] = rng.choice((*SHORT_VRS, *LONG_VRS, b"\0\0", b"ZZ"))
        elif kind == "tag":
            changed[here : here + 4] = rng.choice(
                (b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0", b"\0" * 4, rng.randbytes(4))
            )
        elif kind == "swap":
            there = rng.choice(places)
            changed[here : here + 8], changed[there : there + 8] = changed[there : there + 8], changed[here : here + 8]
        else:
            del changed[rng.randrange(data_set(content), len(changed)) :]
            break
    return OddFile(f"{kind}: odd_file({seed}, {number})", bytes(changed))


def classic(name: str) -> OddFile:
    """Return one of the classics."""
    number = list(CLASSICS).index(name) + 1
    return OddFile(name, CLASSICS[name](plain_file(f"1.2.999.{number}")))
