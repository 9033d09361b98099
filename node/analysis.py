"""From instances on disk to findings: what the worker does to an exam, and the command line to files."""

import math
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
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

from ai.appearance import appearance
from ai.checks import Check, Verdict
from ai.errors import NoBreast, UndecodablePixels
from ai.exam import Exam, View, ViewImage
from ai.findings import ExamFindings
from ai.gate import GatePolicy, noticed, shipped_reference, twins, with_warnings
from ai.pixels import number_of_pixels, view_image
from ai.readers.base import Reader
from node.faults import described
from node.records import LONGEST_VALUE, read_header

VIEWS_AT_ONCE: Final = 2
"""To decode an image takes 29 bytes a pixel for the moment (measured with a window), whatever is kept of it."""
LARGE: Final = 1 << 25
"""Pixels from which an image is decoded when no other such one is: the largest detector has 28 million, a scanned film up to 115."""
STAGES: Final = ("decode", "gate")
"""What is done to each image before the exam is read."""
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
    """What came of reading; empty where nothing was to be read.

    Attributes
    ----------
    findings
        None when no image was read.
    not_read
        SOP Instance UID → why this image could not be read.
    seconds
        Duration by stage: decode, gate, read.
    pictures
        SOP Instance UID → the image as people look at it, uint8: of each that was read, and of the first of each view.
    distances
        SOP Instance UID → how far an image that passed the gate is from its reference, in standard deviations.
    """

    findings: ExamFindings | None = None
    not_read: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    pictures: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    distances: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Gated:
    """What the gate says of one image.

    Attributes
    ----------
    image
        With what was noticed among its warnings (rule R13).
    refusal
        Why no reader may see it; '' when it may be read.
    distance
        From the gate's reference, in standard deviations; infinite where there is no breast to measure.
    """

    image: ViewImage
    refusal: str
    distance: float


def through_the_gate(image: ViewImage) -> Gated:
    """Judge an image's pixels before any reader sees them."""
    reference = shipped_reference()
    try:
        seen = appearance(image)
    except NoBreast as error:
        return Gated(image, str(error), math.inf)
    checks = noticed(image, seen, GatePolicy(), reference)
    refusal = " ".join(check.words for check in checks if check.verdict is Verdict.NOT_ANALYSED)
    return Gated(with_warnings(image, checks), refusal, reference.distance(seen))


def analyse(reader: Reader, sources: Sequence[Source], *, last: bool = False, threads: int = 1) -> Analysis:
    """Decode, judge and read the images of one exam; an image that cannot be read costs none of the others theirs.

    What the machine may be the reason of, such as a file that is not there or too little memory, is raised: it may pass.

    Parameters
    ----------
    sources
        Of those of one view, the first that can be read is read; those after it are not looked at.
    last
        Whether nobody will try again: what has not passed by now costs its image alone, unless no other was read.
    threads
        How many views are decoded and judged at once at most, see ``VIEWS_AT_ONCE``.
    """
    begin = time.perf_counter()
    alone = Lock()
    views = dict.fromkeys(source.view for source in sources)
    queues = {view: _Queue([each for each in sources if each.view == view], alone, last=last) for view in views}
    here = copy_context()  # of which exam a line of the log is
    with ThreadPoolExecutor(min(threads, VIEWS_AT_ONCE)) as pool:
        firsts = pool.map(lambda queue: here.copy().run(queue.next), queues.values())
        images = {view: image for view, image in zip(queues, firsts, strict=True) if image}
    ready = time.perf_counter() - begin
    _share(ready, queues.values())
    findings = _read(reader, queues, images)
    lost = [queue.lost for queue in queues.values() if queue.lost]
    if lost and not findings:
        raise lost[-1]
    seconds = {stage: sum(queue.seconds[stage] for queue in queues.values()) for stage in STAGES}
    seconds["read"] = time.perf_counter() - begin - sum(seconds.values())
    not_read = {uid: why for queue in queues.values() for uid, why in queue.not_read.items()}
    pictures = {uid: seen for queue in queues.values() for uid, seen in queue.pictures.items()}
    distances = {uid: far for queue in queues.values() for uid, far in queue.distances.items()}
    return Analysis(findings, not_read, seconds, pictures, distances)


def usable_cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


def _share(wall: float, queues: Collection["_Queue"]) -> None:
    """Make of what the stages took in several threads at once what they took by the clock."""
    spent = sum(sum(queue.seconds.values()) for queue in queues)
    for queue in queues:
        queue.seconds = {stage: seconds * wall / spent for stage, seconds in queue.seconds.items()}


class _Queue:
    """The images of one view in the order in which they are tried; those that may not be read are noted."""

    def __init__(self, sources: Sequence[Source], alone: Lock, *, last: bool) -> None:
        self._alone = alone
        self._waiting = list(sources)
        self._first = sources[0].uid
        self._last = last
        self.not_read: dict[str, str] = {}
        self.pictures: dict[str, NDArray[np.uint8]] = {}
        self.distances: dict[str, float] = {}
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.lost: Exception | None = None

    def next(self) -> ViewImage | None:
        """Return the next image that may be read, with the gate's warnings (rule R13)."""
        while self._waiting:
            source = self._waiting.pop(0)
            with self.timed("decode"):
                image = self._decode(source)
            if image is None:
                continue
            with self.timed("gate"):
                passed = self._through_the_gate(image)
            # No other is kept: of a view repeated a hundred times they would take more memory than there is.
            if passed or source.uid == self._first:
                with self.timed("decode"):
                    self.pictures[image.uid] = picture(image.pixels)
            if passed:
                return passed
        return None

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add what is done to the seconds of a stage."""
        begin = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - begin

    def _decode(self, source: Source) -> ViewImage | None:
        try:
            dataset = pydicom.dcmread(source.path, defer_size=LONGEST_VALUE)
            with self._alone if number_of_pixels(dataset) > LARGE else nullcontext():
                return view_image(dataset, source.view)
        except UndecodablePixels as error:
            self.not_read[source.uid] = str(error)
            return None
        except Exception as error:
            if not _may_pass(error):
                # Its header was read when it came, so what pydicom stumbles over comes later: attributes after the pixel data.
                self.not_read[source.uid] = str(UndecodablePixels(type(error).__name__))
                return None
            if not self._last:
                raise
            self.lost = error
            self.not_read[source.uid] = f"It could not be read in any attempt ({described(error)})."
            return None

    def _through_the_gate(self, image: ViewImage) -> ViewImage | None:
        gated = through_the_gate(image)
        if gated.refusal:
            self.not_read[image.uid] = gated.refusal
            return None
        self.distances[image.uid] = gated.distance
        return gated.image


def _read(reader: Reader, queues: Mapping[View, _Queue], images: dict[View, ViewImage]) -> ExamFindings | None:
    while images:
        with next(iter(queues.values())).timed("gate"):
            same = twins([*images.values()])
        shown = [with_warnings(each, [Check.TWIN]) if each.uid in same else each for each in images.values()]
        try:
            return reader.read(Exam(tuple(shown)))
        except NoBreast as error:
            view = next((view for view, image in images.items() if image.uid == error.image_uid), None)
            if view is None:
                raise
            queues[view].not_read[error.image_uid] = str(error)
            if following := queues[view].next():
                images[view] = following
            else:
                del images[view]
    return None


def _may_pass(error: Exception) -> bool:
    """Tell whether the machine and not the file may be why it was not read; pydicom's own OSErrors have no number."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None)


def picture(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return presentation values of 0 to 1 as 0 to 255."""
    return np.asarray(cv2.convertScaleAbs(pixels, alpha=255), np.uint8)


def header_of(path: Path) -> Dataset:
    """Return an instance without its pixel data, private attributes, and those that say nothing in their form.

    Those cannot be read, come in a VR of another kind than the standard's (a sequence where a name belongs), or are no
    finite numbers, or not as many as belong there (one spacing for a pair). Texts that come in another VR of texts are
    read as the standard's: numbers as numbers, UIDs without what fills them up.
    """
    header = read_header(path)
    for tag in list(header.keys()):
        if tag.is_private or not _is_sound(header, tag):
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
