"""The forms that result objects take: SOP class, modality, IOD and template of each, and what replaces which."""

from dataclasses import dataclass
from typing import Final

from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EncapsulatedPDFStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    MammographyCADSRStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from config.mix import ObjectMix, ReportClass, ResultKind, SegmentationType

FALLBACK_SEGMENTATION: Final = SegmentationType.BINARY
FALLBACK_REPORT: Final = ReportClass.COMPREHENSIVE
"""Sent where the form of the object mix is refused."""

LABEL_MAP_SEGMENTATION_STORAGE: Final = UID("1.2.840.10008.5.1.4.1.1.66.7")
"""PS3.4 B.5; pydicom 3.0.2 does not know it."""

NAMES: Final = {LABEL_MAP_SEGMENTATION_STORAGE: "Label Map Segmentation Storage"}


@dataclass(frozen=True)
class Form:
    """One form of a kind of result object.

    Attributes
    ----------
    kind
        The kind.
    choice
        The choice of the object mix that makes it; None where the kind has one form.
    sop_class
        SOP Class UID.
    modality
        Modality of its series.
    section
        Its IOD in PS3.3.
    template
        Root template of its content in PS3.16; empty where it has none.
    """

    kind: ResultKind
    choice: SegmentationType | ReportClass | None
    sop_class: UID
    modality: str
    section: str
    template: str = ""

    @property
    def name(self) -> str:
        """The kind, and the choice where there is one."""
        return f"{self.kind}, {self.choice}" if self.choice else str(self.kind)


FORMS: Final = (
    Form(ResultKind.SEG, SegmentationType.BINARY, SegmentationStorage, "SEG", "A.51"),
    Form(ResultKind.SEG, SegmentationType.LABELMAP, LABEL_MAP_SEGMENTATION_STORAGE, "SEG", "A.51"),
    Form(ResultKind.SEG, SegmentationType.FRACTIONAL, SegmentationStorage, "SEG", "A.51"),
    Form(ResultKind.SR, ReportClass.COMPREHENSIVE_3D, Comprehensive3DSRStorage, "SR", "A.35.13", "1500"),
    Form(ResultKind.SR, ReportClass.COMPREHENSIVE, ComprehensiveSRStorage, "SR", "A.35.3", "1500"),
    Form(ResultKind.CAD_SR, None, MammographyCADSRStorage, "SR", "A.35.5", "4000"),
    Form(ResultKind.GSPS, None, GrayscaleSoftcopyPresentationStateStorage, "PR", "A.33.1"),
    Form(ResultKind.SC, None, SecondaryCaptureImageStorage, "OT", "A.8.1"),
    Form(ResultKind.SC_VIEW, None, SecondaryCaptureImageStorage, "OT", "A.8.1"),
    Form(ResultKind.PDF, None, EncapsulatedPDFStorage, "DOC", "A.45.1"),
    Form(ResultKind.PMAP, None, ParametricMapStorage, "OT", "A.75"),
    Form(ResultKind.REJECTION, None, KeyObjectSelectionDocumentStorage, "KO", "A.35.4", "2010"),
)


def forms_of(mix: ObjectMix, kind: ResultKind) -> tuple[Form, ...]:
    """Return the form in which a mix sends a kind, and the one that replaces it where it is refused; or nothing."""
    if kind not in mix.objects:
        return ()
    wanted = {
        ResultKind.SEG: (mix.segmentation, FALLBACK_SEGMENTATION),
        ResultKind.SR: (mix.report, FALLBACK_REPORT),
    }.get(kind, (None,))
    return tuple(
        form for choice in dict.fromkeys(wanted) for form in FORMS if form.kind is kind and form.choice == choice
    )


def class_name(sop_class: UID) -> str:
    """Return the name of a SOP class (PS3.6 A)."""
    return NAMES.get(sop_class, sop_class.name)
