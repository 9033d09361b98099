"""Modules of each kind of object (PS3.3 A): the mandatory ones, and those of the others that are used."""

from collections.abc import Mapping
from typing import Final

from config.mix import ResultKind

SUBJECT: Final = ("Patient", "General Study", "Patient Study")
DOCUMENT: Final = (
    *SUBJECT,
    *("SR Document Series", "General Equipment", "SR Document General", "SR Document Content", "SOP Common"),
)
CAPTURE: Final = (
    *("Patient", "General Study", "General Series", "General Equipment", "SC Equipment", "General Acquisition"),
    *("General Image", "General Reference", "Image Pixel", "SC Image", "SOP Common"),
)

MODULES: Final[Mapping[ResultKind, tuple[str, ...]]] = {
    ResultKind.SEG: (
        *SUBJECT,
        *("General Series", "Segmentation Series", "General Equipment", "Enhanced General Equipment"),
        *("General Image", "General Reference", "Image Pixel", "Segmentation Image"),
        *("Segmentation Multi-frame Functional Groups", "Multi-frame Dimension", "Common Instance Reference"),
        "SOP Common",
    ),
    ResultKind.SR: DOCUMENT,
    ResultKind.CAD_SR: DOCUMENT,
    ResultKind.GSPS: (
        *SUBJECT,
        *("General Series", "Presentation Series", "General Equipment", "Presentation State Identification"),
        *("Presentation State Relationship", "Presentation State Shutter", "Presentation State Mask"),
        *("Displayed Area", "Graphic Annotation", "Graphic Layer", "Modality LUT", "Softcopy VOI LUT"),
        *("Softcopy Presentation LUT", "SOP Common"),
    ),
    ResultKind.SC: CAPTURE,
    ResultKind.SC_VIEW: CAPTURE,
    ResultKind.PDF: (
        *SUBJECT,
        *("Encapsulated Document Series", "General Equipment", "SC Equipment", "Encapsulated Document", "SOP Common"),
    ),
    ResultKind.PMAP: (
        *SUBJECT,
        *("General Series", "Parametric Map Series", "Frame of Reference", "General Equipment"),
        *("Enhanced General Equipment", "General Image", "General Reference", "Floating Point Image Pixel"),
        *("Parametric Map Image", "Parametric Map Multi-frame Functional Groups", "Multi-frame Dimension"),
        *("Acquisition Context", "Common Instance Reference", "SOP Common"),
    ),
    ResultKind.REJECTION: (
        *("Patient", "General Study", "Key Object Document Series", "General Equipment", "Key Object Document"),
        *("SR Document Content", "SOP Common"),
    ),
}
