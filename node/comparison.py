"""Two instances with one SOP Instance UID: are they the same, apart from their encoding? (rule R6)."""

import multiprocessing
import resource
import sys
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import Dataset, dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.pixels.utils import iter_pixels
from pydicom.tag import BaseTag, Tag

from node.errors import UnparsableDataset
from node.records import LONGEST_VALUE, HeaderFile, bulky

IDENTITY = frozenset(
    {
        "PatientID",
        "IssuerOfPatientID",
        "PatientName",
        "PatientBirthDate",
        "StudyInstanceUID",
        "SeriesInstanceUID",
    }
)
"""Attributes that say whose image it is and what it belongs to."""

PIXEL_DATA = Tag("PixelData")
PADDING = Tag("DataSetTrailingPadding")
BEYOND_BOUNDS = "a header beyond all bounds"
BLOCK = 1 << 20
DECODING_SECONDS = 300
MEMORY = 6 << 30
"""Bytes of address space for it, as a decoder of the HTTP door has."""


def differences(first: Path, second: Path) -> tuple[str, ...]:
    """Return the keywords of the attributes, or tags of the private ones, in which two files differ.

    File Meta Information, group lengths and padding do not count, nor do the encoding of numbers, texts and pixels.
    Compressed pixels are decoded in a process of their own, so that a decoder that aborts takes nothing with it; pixels
    that cannot be decoded differ, as do values of megabytes that are encoded otherwise.
    """
    with first.open("rb") as one, second.open("rb") as other:
        try:
            found = tuple(_headers_differ(one, other))
        except UnparsableDataset:
            return (BEYOND_BOUNDS,)
        # Both files now stand at their pixels.
        if same_bytes(one, other):
            return found
    decoding = multiprocessing.get_context("spawn").Process(target=exit_with_comparison, args=(first, second, MEMORY))
    decoding.start()
    decoding.join(DECODING_SECONDS)
    if decoding.is_alive():
        decoding.kill()
        decoding.join()
    return found if decoding.exitcode == 0 else (*found, "PixelData")


def _headers_differ(one: BinaryIO, other: BinaryIO) -> list[str]:
    """Return what differs before the pixels, to which both files are moved; what is too long is compared as it is encoded."""
    headers = []
    for file in (one, other):
        with HeaderFile(Path(file.name), skips=False) as bounded:
            headers.append(dcmread(bounded, stop_before_pixels=True, defer_size=LONGEST_VALUE))
            file.seek(bounded.tell())
    first, second = headers
    long = {tag for header in headers for tag in bulky(header)}
    differing = [tag for tag in sorted(long) if not _same_long_value(one, other, first, second, tag)]
    for tag in long:
        for header in headers:
            header.pop(tag, None)
    return [*(_name(tag) for tag in differing), *header_differences(first, second)]


def _same_long_value(one: BinaryIO, other: BinaryIO, first: Dataset, second: Dataset, tag: BaseTag) -> bool:
    if not (tag in first and tag in second):
        return False
    a, b = _encoded_element(first, tag), _encoded_element(second, tag)
    if not (a and b and a.length == b.length):
        return False
    pixels = one.tell(), other.tell()
    one.seek(a.value_tell)
    other.seek(b.value_tell)
    same = same_bytes(one, other, a.length)
    one.seek(pixels[0])
    other.seek(pixels[1])
    return same


def _encoded_element(header: Dataset, tag: BaseTag) -> RawDataElement | None:
    element: Any = header.get_item(tag, keep_deferred=True)
    return element if isinstance(element, RawDataElement) else None


def same_bytes(one: BinaryIO, other: BinaryIO, size: int | None = None) -> bool:
    """Tell whether so many bytes, or all, of two files are equal from where they stand."""
    left = sys.maxsize if size is None else size
    while True:
        block = one.read(min(BLOCK, left))
        if block != other.read(min(BLOCK, left)):
            return False
        if not block:
            return True
        left -= len(block)


def header_differences(first: Dataset, second: Dataset) -> Iterator[str]:
    """Yield the attributes in which two data sets differ."""
    for tag in sorted(set(first.keys()) | set(second.keys())):
        if tag.element == 0 or tag == PADDING:
            continue
        if not (tag in first and tag in second and same_element(first, second, tag)):
            yield _name(tag)


def _name(tag: BaseTag) -> str:
    return keyword_for_tag(tag) or str(tag)


def same_element(first: Dataset, second: Dataset, tag: BaseTag) -> bool:
    """Tell whether an attribute that both have is equal."""
    try:
        one, other = first[tag], second[tag]
        if one.VR == other.VR == "SQ":
            pairs = zip_longest(one.value, other.value, fillvalue=Dataset())
            return len(one.value) == len(other.value) and not any(any(header_differences(*pair)) for pair in pairs)
        # The VR of a private attribute is lost on the way through Implicit VR: then the bytes count.
        return bool(one.value == other.value) or (one.VR != other.VR and encoded(one) == encoded(other))
    except Exception:  # noqa: BLE001 - pydicom converts at access, and its converters raise whatever odd bytes make them
        return bool(first.get_item(tag).value == second.get_item(tag).value)


def encoded(element: DataElement) -> bytes:
    """Return an element as Implicit VR Little Endian."""
    buffer = DicomBytesIO()
    buffer.is_little_endian = buffer.is_implicit_VR = True
    write_data_element(buffer, element, "utf8")
    return bytes(buffer.getvalue())


def exit_with_comparison(first: Path, second: Path, memory: int) -> None:
    """End this process, which gets so much memory, with 0 when pixels, and what follows them, are equal, else with 1."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    try:
        equal = same_pixels(first, second)
    except Exception:  # noqa: BLE001 - decoders raise what they like, and their texts do not belong into the log
        equal = False
    sys.exit(0 if equal else 1)


def same_pixels(first: Path, second: Path) -> bool:
    """Decode two files frame by frame and tell whether pixels, and what follows them, are equal."""
    one, other = (dcmread(path, defer_size=BLOCK) for path in (first, second))
    rest = [dataset[PIXEL_DATA + 1 :] for dataset in (one, other)]
    if any(header_differences(*rest)):
        return False
    frames = zip_longest(iter_pixels(first, raw=True), iter_pixels(second, raw=True))
    return all(a is not None and b is not None and a.shape == b.shape and bool((a == b).all()) for a, b in frames)
