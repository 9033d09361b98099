"""From instances on disk to findings: what the worker does to an exam, and the command line to files."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.datadict import dictionary_has_tag, dictionary_VM, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.valuerep import FLOAT_VR, INT_VR, STR_VR

from ai.checks import Check, Verdict
from ai.errors import NoBreast, UndecodablePixels
from ai.exam import Exam, View, ViewImage
from ai.findings import ExamFindings
from ai.gate import GatePolicy, inspect, shipped_reference, twins, with_warnings
from ai.pixels import view_image
from ai.readers.base import Reader
from node.faults import described

NUMBERS: Final = INT_VR | FLOAT_VR
"""VRs whose values are numbers (PS3.5 6.2)."""


@dataclass(frozen=True)
class Source:
    """An instance to read, and the view it shows."""

    uid: str
    path: Path
    view: View


@dataclass(frozen=True, eq=False)
class Analysis:
    """What came of reading.

    Attributes
    ----------
    findings
        None when no image could be read.
    not_read
        SOP Instance UID → why this image could not be read.
    seconds
        Duration by stage: decode, gate, read.
    pictures
        SOP Instance UID → the image as people look at it, uint8, where pictures were asked for.
    """

    findings: ExamFindings | None
    not_read: Mapping[str, str]
    seconds: Mapping[str, float]
    pictures: Mapping[str, NDArray[np.uint8]]


def analyse(reader: Reader, sources: Sequence[Source], *, pictures: bool = False, last: bool = False) -> Analysis:
    """Decode, judge and read the images of one exam; an image that cannot be read costs none of the others theirs.

    What the machine may be the reason of, such as a file that is not there or too little memory, is raised: it may pass.

    Parameters
    ----------
    pictures
        Whether the images are kept as pictures: 20 MB for one of 5000 rows and 4000 columns.
    last
        Whether nobody will try again: what has not passed by now costs its image alone, unless no other was read.
    """
    begin = time.perf_counter()
    images: list[ViewImage] = []
    not_read: dict[str, str] = {}
    lost: Exception | None = None
    for source in sources:
        try:
            image = view_image(pydicom.dcmread(source.path), source.view)
        except UndecodablePixels as error:
            not_read[source.uid] = str(error)
        except Exception as error:
            if _may_pass(error):
                if not last:
                    raise
                lost = error
                not_read[source.uid] = f"It could not be read in any attempt ({described(error)})."
                continue
            # Its header was read when it came, so what pydicom stumbles over comes later: attributes after the pixel data.
            not_read[source.uid] = str(UndecodablePixels(type(error).__name__))
        else:
            images.append(image)
    shown = {image.uid: picture(image.pixels) for image in images} if pictures else {}
    decoded = time.perf_counter()
    passed = _through_the_gate(images, not_read)
    gated = time.perf_counter()
    findings = _read(reader, passed, not_read)
    if lost and not findings:
        raise lost
    seconds = {"decode": decoded - begin, "gate": gated - decoded, "read": time.perf_counter() - gated}
    return Analysis(findings, not_read, seconds, shown)


def _may_pass(error: Exception) -> bool:
    """Tell whether the machine and not the file may be why it was not read; pydicom's own OSErrors have no number."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None)


def picture(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return presentation values of 0 to 1 as 0 to 255."""
    return np.asarray(cv2.convertScaleAbs(pixels, alpha=255), np.uint8)


def header_of(path: Path) -> Dataset:
    """Return an instance without its pixel data, and without the attributes that say nothing in their form.

    Those cannot be read, come in a VR of another kind than the standard's (a sequence where a name belongs), or are no
    finite numbers, or not as many as belong there (one spacing for a pair). Texts that come in another VR of texts are
    read as the standard's: numbers as numbers, UIDs without what fills them up.
    """
    header = pydicom.dcmread(path, stop_before_pixels=True)
    for tag in list(header.keys()):
        if not _is_sound(header, tag):
            del header[tag]
    return header


def _is_sound(header: Dataset, tag: BaseTag) -> bool:
    expected = dictionary_VR(tag) if dictionary_has_tag(tag) else ""
    try:
        raw = cast("DataElement | RawDataElement", header.get_item(tag))
        if isinstance(raw, RawDataElement) and expected != raw.VR and {raw.VR, expected} <= STR_VR:
            header[tag] = raw._replace(VR=expected)
        element = header[tag]
    except Exception:  # noqa: BLE001 (pydicom converts at access, and its converters raise whatever odd bytes make them)
        return False
    if not expected:
        return True
    if element.VR in NUMBERS and not _are_numbers(element):
        return False
    return element.VR in expected or {element.VR, expected} <= STR_VR


def _are_numbers(element: DataElement) -> bool:
    several = element.value if element.VM > 1 else [element.value]
    stated = [value for value in several if value is not None and value != ""]
    # pydicom leaves a text that is no number as it is, and takes as many numbers as there are.
    expected = dictionary_VM(element.tag)
    fits = element.VM == 0 or not expected.isdigit() or int(expected) == len(stated) == element.VM
    return fits and all(isinstance(value, int | float) and math.isfinite(value) for value in stated)


def _through_the_gate(images: list[ViewImage], not_read: dict[str, str]) -> list[ViewImage]:
    """Return the images that may be read, with the gate's warnings; why the others may not is noted (rule R13)."""
    passed, same = [], twins(images)
    for image in images:
        try:
            checks = inspect(image, GatePolicy(), shipped_reference())
        except NoBreast as error:
            not_read[image.uid] = str(error)
            continue
        if refused := [check.words for check in checks if check.verdict is Verdict.NOT_ANALYSED]:
            not_read[image.uid] = " ".join(refused)
        else:
            passed.append(with_warnings(image, [*checks, *([Check.TWIN] if image.uid in same else [])]))
    return passed


def _read(reader: Reader, images: list[ViewImage], not_read: dict[str, str]) -> ExamFindings | None:
    while images:
        try:
            return reader.read(Exam(tuple(images)))
        except NoBreast as error:
            if all(image.uid != error.image_uid for image in images):
                raise
            not_read[error.image_uid] = str(error)
            images = [image for image in images if image.uid != error.image_uid]
    return None
