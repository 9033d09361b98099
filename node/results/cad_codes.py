"""Codes of the Mammography CAD SR (PS3.16 TID 4000 and the context groups it names)."""

from types import MappingProxyType
from typing import Final

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from ai.exam import Laterality, ViewPosition
from config.mix import FindingCodes
from node.results import codes


def _dcm(value: str, meaning: str) -> Code:
    return Code(value, "DCM", meaning)


def _sct(value: str, meaning: str) -> Code:
    return Code(value, "SCT", meaning)


REPORT: Final = _dcm("111036", "Mammography CAD Report")
LANGUAGE: Final = _dcm("121049", "Language of Content Item and Descendants")
ENGLISH: Final = Code("en-US", "RFC5646", "English (United States)")

IMAGE_LIBRARY: Final = _dcm("111028", "Image Library")
IMAGE_LATERALITY: Final = _dcm("111027", "Image Laterality")
IMAGE_VIEW: Final = _dcm("111031", "Image View")
IMAGE_VIEW_MODIFIER: Final = _dcm("111032", "Image View Modifier")
ORIENTATION_ROW: Final = _dcm("111044", "Patient Orientation Row")
ORIENTATION_COLUMN: Final = _dcm("111043", "Patient Orientation Column")
STUDY_DATE: Final = _dcm("111060", "Study Date")
STUDY_TIME: Final = _dcm("111061", "Study Time")
CONTENT_DATE: Final = _dcm("111018", "Content Date")
CONTENT_TIME: Final = _dcm("111019", "Content Time")
HORIZONTAL_SPACING: Final = _dcm("111026", "Horizontal Pixel Spacing")
VERTICAL_SPACING: Final = _dcm("111066", "Vertical Pixel Spacing")
MICROMETRE: Final = Code("um", "UCUM", "micrometer")

RENDERING_INTENT: Final = _dcm("111056", "Rendering Intent")
PRESENTATION_REQUIRED: Final = _dcm("111150", "Presentation Required: Rendering device is expected to present")
IMPRESSION: Final = _dcm("111034", "Individual Impression/Recommendation")
IMPRESSION_DESCRIPTION: Final = _dcm("111033", "Impression Description")
ALGORITHM_NAME: Final = _dcm("111001", "Algorithm Name")
ALGORITHM_VERSION: Final = _dcm("111003", "Algorithm Version")
ALGORITHM_PARAMETERS: Final = _dcm("111002", "Algorithm Parameters")

COMPOSITE_FEATURE: Final = _dcm("111015", "Composite Feature")
COMPOSITE_TYPE: Final = _dcm("111016", "Composite type")
RELATED_SPATIALLY: Final = _dcm("111154", "Target Content Items are related spatially")
SCOPE: Final = _dcm("111057", "Scope of Feature")
ON_MULTIPLE_IMAGES: Final = _dcm("111158", "Feature detected on multiple images")

SINGLE_IMAGE_FINDING: Final = _dcm("111059", "Single Image Finding")
TRACKING_IDENTIFIER: Final = _dcm("112039", "Tracking Identifier")
TRACKING_UID: Final = _dcm("112040", "Tracking Unique Identifier")
CENTER: Final = _dcm("111010", "Center")
OUTLINE: Final = _dcm("111041", "Outline")

SUMMARY_OF_DETECTIONS: Final = _dcm("111064", "Summary of Detections")
SUCCESSFUL_DETECTIONS: Final = _dcm("111063", "Successful Detections")
FAILED_DETECTIONS: Final = _dcm("111025", "Failed Detections")
DETECTION_PERFORMED: Final = _dcm("111022", "Detection Performed")
SUMMARY_OF_ANALYSES: Final = _dcm("111065", "Summary of Analyses")
SUCCESSFUL_ANALYSES: Final = _dcm("111062", "Successful Analyses")
FAILED_ANALYSES: Final = _dcm("111024", "Failed Analyses")
ANALYSIS_PERFORMED: Final = _dcm("111004", "Analysis Performed")
SUCCEEDED: Final = _dcm("111222", "Succeeded")
PARTIALLY_SUCCEEDED: Final = _dcm("111223", "Partially Succeeded")
FAILED: Final = _dcm("111224", "Failed")
NOT_ATTEMPTED: Final = _dcm("111225", "Not Attempted")

DENSITY: Final = _sct("129793001", "Mammography breast density")
"""A mass as one image shows it: CID 6014 has no other code for it."""

MASS: Final = _sct("129788004", "Mammographic breast mass")
"""A mass that two views show (CID 6016)."""

COLLOCATION: Final = _sct("133884007", "Spatial collocation analysis")
"""The same lesion looked for in two views (CID 6043)."""

BREASTS: Final = MappingProxyType(
    {
        Laterality.LEFT.value: _sct("80248007", "Left breast"),
        Laterality.RIGHT.value: _sct("73056007", "Right breast"),
        "B": _sct("63762007", "Both breasts"),
    }
)
"""Image Laterality (0020,0062) → CID 6022."""

VIEWS: Final = MappingProxyType(
    {
        ViewPosition.CC: _sct("399162004", "cranio-caudal"),
        ViewPosition.MLO: _sct("399368009", "medio-lateral oblique"),
    }
)

SRT: Final = MappingProxyType(
    {
        # What the algorithm tells.
        "129793001": "F-01796",
        "129788004": "F-01791",
        "133884007": "P5-B3402",
        codes.LONG_AXIS.value: "G-A185",
        codes.SHORT_AXIS.value: "G-A186",
        codes.AREA.value: "G-A166",
        # CID 6022
        "80248007": "T-04030",
        "73056007": "T-04020",
        "63762007": "T-04080",
    }
)
"""SNOMED CT concept → SNOMED RT identifier (PS3.16 Annex O, retired), without views and their modifiers."""

# Meaning, SNOMED CT concept and SNOMED RT identifier.
VIEW_CODES: Final = (
    ("cranio-caudal", "399162004", "R-10242"),
    ("medio-lateral oblique", "399368009", "R-10226"),
    ("medial-lateral", "399260004", "R-10224"),
    ("latero-medial", "399352003", "R-10228"),
    ("latero-medial oblique", "399099002", "R-10230"),
    ("caudo-cranial", "399196006", "R-10244"),
    ("superolateral to inferomedial oblique", "399188001", "R-102D0"),
    ("inferomedial to superolateral oblique", "441555000", "R-40AAA"),
    ("cranio-caudal exaggerated laterally", "399192008", "R-1024A"),
    ("cranio-caudal exaggerated medially", "399101009", "R-1024B"),
    ("tissue specimen from breast", "127457009", "G-8310"),
)
"""CID 4014."""

MODIFIER_CODES: Final = (
    ("Cleavage", "399161006", "R-102D2"),
    ("Axillary Tail", "399011000", "R-102D1"),
    ("Rolled Lateral", "399197002", "R-102D3"),
    ("Rolled Medial", "399226006", "R-102D4"),
    ("Rolled Inferior", "414493004", "R-102CA"),
    ("Rolled Superior", "415670009", "R-102C9"),
    ("Implant Displaced", "399209000", "R-102D5"),
    ("Magnification", "399163009", "R-102D6"),
    ("Spot Compression", "399055006", "R-102D7"),
    ("tangential", "399110001", "R-102C2"),
    ("Nipple in profile", "442581004", "R-40AB3"),
    ("Anterior compression", "441752004", "P2-00161"),
    ("Infra-mammary fold", "442593008", "R-40ABE"),
    ("Axillary tissue", "442580003", "R-40AB2"),
)
"""CID 4015."""


def in_scheme(code: Code, scheme: FindingCodes) -> Code:
    """Return a SNOMED CT code in the scheme that a destination knows; other codes as they are."""
    if scheme is FindingCodes.SCT or code.scheme_designator != "SCT":
        return code
    legacy = dict(SRT) | {sct: srt for _, sct, srt in (*VIEW_CODES, *MODIFIER_CODES)}
    return Code(legacy[code.value], "SRT", code.meaning)


def known(item: Dataset, table: tuple[tuple[str, str, str], ...]) -> Code | None:
    """Return the code of a sequence item as SNOMED CT, or None when the table has no such code in either scheme."""
    value = str(item.get("CodeValue") or "")
    return next((_sct(sct, meaning) for meaning, sct, srt in table if value in (sct, srt)), None)
