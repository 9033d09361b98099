"""Which objects a destination gets and in which form: ready profiles, and what a site changes in them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class ResultKind(StrEnum):
    """Kinds of result objects."""

    #: Masses of one image: Segmentation.
    SEG = "SEG"
    #: The answer for the exam: TID 1500 measurement report.
    SR = "SR"
    #: The answer for breast workstations: Mammography CAD SR.
    CAD_SR = "CAD_SR"
    #: Outlines and scores of one image: Grayscale Softcopy Presentation State.
    GSPS = "GSPS"
    #: The views on one page, outlines and scores burned in: Secondary Capture.
    SC = "SC"
    #: The same for each view.
    SC_VIEW = "SC_VIEW"
    #: The answer on one page: Encapsulated PDF.
    PDF = "PDF"
    #: Mass probability of one image: Parametric Map.
    PMAP = "PMAP"
    #: Withdraws the former revision's objects, as far as no report names them: Key Object Selection (rule R2).
    REJECTION = "REJECTION"


class SegmentationType(StrEnum):
    """How a Segmentation codes its masks (PS3.3 C.8.20.2)."""

    #: One bit per pixel and segment: what every tool that was tried reads.
    BINARY = "BINARY"
    #: One label per pixel; overlapping masses go to the more suspicious one.
    LABELMAP = "LABELMAP"
    #: One byte per pixel and segment, 0 or the maximum.
    FRACTIONAL = "FRACTIONAL"


class ReportClass(StrEnum):
    """SOP class of the TID 1500 report."""

    #: Comprehensive 3D SR, what IHE AI Results asks for.
    COMPREHENSIVE_3D = "COMPREHENSIVE_3D"
    #: Comprehensive SR, for older PACS.
    COMPREHENSIVE = "COMPREHENSIVE"


class FindingCodes(StrEnum):
    """Coding scheme of anatomy and findings in the Mammography CAD SR."""

    #: SNOMED CT.
    SCT = "SCT"
    #: SNOMED RT identifiers, which old workstations know (PS3.16 Annex O, retired).
    SRT = "SRT"


@dataclass(frozen=True)
class ObjectMix:
    """What one destination gets.

    Attributes
    ----------
    objects
        Kinds of objects, at least one.
    segmentation, report, finding_codes
        Their form. A form that a destination refuses is replaced by BINARY and by Comprehensive SR.
    threshold
        0 to 100: findings with a lower suspicion score are not shown; the answer says how many.
    negatives
        Whether answers "no findings" are sent. An answer that follows another, or that hides findings below the
        threshold, is always sent.
    series_descriptions
        Kind → the first words of Series Description.
    """

    objects: tuple[ResultKind, ...] = (ResultKind.SEG, ResultKind.SR)
    segmentation: SegmentationType = SegmentationType.BINARY
    report: ReportClass = ReportClass.COMPREHENSIVE_3D
    finding_codes: FindingCodes = FindingCodes.SCT
    threshold: int = 0
    negatives: bool = True
    series_descriptions: Mapping[ResultKind, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)

    @property
    def digest(self) -> str:
        """Digest of everything above (rule R1)."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        return hashlib.sha256(json.dumps(plain, default=dict, sort_keys=True).encode()).hexdigest()


PROFILES: Final[Mapping[str, ObjectMix]] = MappingProxyType(
    {
        # Segmentations and the report: what OHIF draws.
        "ohif": ObjectMix(),
        # Everything that a long-lived archive can give to whatever reads it later.
        "archive": ObjectMix(
            (ResultKind.SEG, ResultKind.SR, ResultKind.CAD_SR, ResultKind.GSPS, ResultKind.SC, ResultKind.PDF)
        ),
        # What dedicated mammography workstations read.
        "breast-workstation": ObjectMix((ResultKind.CAD_SR, ResultKind.GSPS)),
        # A picture and a report for viewers that know neither SEG nor CAD SR.
        "plain-pacs": ObjectMix((ResultKind.SC, ResultKind.SR), report=ReportClass.COMPREHENSIVE),
    }
)
"""Mixes ready to use, by name."""
