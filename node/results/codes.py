"""Codes that the results use: SNOMED CT and DCM where the standard has one, a private scheme where it has none."""

from typing import Final

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from ai.checks import Check, Verdict
from ai.exam import Laterality, SpacingRule
from ai.findings import LengthUnit
from node.results.answer import AnswerStatus
from node.results.reasons import SCHEME

BREAST: Final = Code("76752008", "SCT", "Breast")
SIDE: Final = {
    Laterality.LEFT: Code("7771000", "SCT", "Left"),
    Laterality.RIGHT: Code("24028007", "SCT", "Right"),
}
MORPHOLOGY: Final = Code("49755003", "SCT", "Morphologically Abnormal Structure")
MASS: Final = Code("4147007", "SCT", "Mass")
MAMMOGRAPHY: Final = Code("71651007", "SCT", "Mammography")
ALGORITHM_FAMILY: Final = codes.cid7162.ArtificialIntelligence
ACQUISITION_EQUIPMENT: Final = Code("109101", "DCM", "Acquisition Equipment")
PROCESSING_EQUIPMENT: Final = Code("109102", "DCM", "Processing Equipment")

SUMMARY: Final = Code("111017", "DCM", "CAD Processing and Findings Summary")
SUMMARY_OF: Final = {
    AnswerStatus.FINDINGS: Code("111242", "DCM", "All algorithms succeeded; with findings"),
    AnswerStatus.NO_FINDINGS: Code("111241", "DCM", "All algorithms succeeded; without findings"),
    AnswerStatus.PARTIAL_FINDINGS: Code("111244", "DCM", "Not all algorithms succeeded; with findings"),
    AnswerStatus.PARTIAL_NO_FINDINGS: Code("111243", "DCM", "Not all algorithms succeeded; without findings"),
    AnswerStatus.NOT_ANALYSED: Code("111245", "DCM", "No algorithms succeeded; without findings"),
    AnswerStatus.FAILED: Code("111245", "DCM", "No algorithms succeeded; without findings"),
}
"""Value of the summary for each status (rule R3; PS3.16 CID 6047)."""

QUALITATIVE_EVALUATIONS: Final = Code("C0034375", "UMLS", "Qualitative Evaluations")
REASON: Final = Code("reason", SCHEME, "Reason for not reading, or for reading otherwise than expected")
"""Concept of the codes of ``node.results.reasons``."""
WARNING: Final = Code("warning", SCHEME, "Warning about an image that was read")
WARNING_OF: Final = {check: Code(check.code, SCHEME, check.meaning) for check in Check if check.verdict is Verdict.WARN}
"""What the gate noticed about an image that was read (rule R13)."""
COMMENT: Final = Code("121106", "DCM", "Comment")

AREA: Final = Code("42798000", "SCT", "Area")
LONG_AXIS: Final = Code("103339001", "SCT", "Long Axis")
SHORT_AXIS: Final = Code("103340004", "SCT", "Short Axis")

FINDING_SCORE: Final = Code("finding-score", SCHEME, "Suspicion score, 0-100, not a probability")
IMAGE_SCORE: Final = Code("image-score", SCHEME, "Suspicion score of image, 0-100, not a probability")
BREAST_SCORE: Final = Code("breast-score", SCHEME, "Suspicion score of breast, 0-100, not a probability")
EXAM_SCORE: Final = Code("exam-score", SCHEME, "Suspicion score of exam, 0-100, not a probability")

PROBABILITY: Final = Code("111047", "DCM", "Probability of cancer")
"""Only where the model's card has a calibration and the site states a prevalence (rule R4)."""

MASS_MAP: Final = Code("mass-map", SCHEME, "Output of mass network, 0-1, not a calibrated probability")
"""Quantity of the mass map: CID 7180 has class activation and saliency, which say something else."""

SPACING: Final = {
    SpacingRule.CALIBRATED: Code("spacing-cal", SCHEME, SpacingRule.CALIBRATED.value),
    SpacingRule.MAGNIFICATION: Code("spacing-mag", SCHEME, SpacingRule.MAGNIFICATION.value),
    SpacingRule.DETECTOR: Code("spacing-det", SCHEME, SpacingRule.DETECTOR.value),
}
"""Measurement method of a size: where its millimetres come from (rule R11)."""

PERCENT: Final = Code("%", "UCUM", "percent")
NO_UNIT: Final = Code("1", "UCUM", "no units")
LENGTH: Final = {
    LengthUnit.MILLIMETRE: Code("mm", "UCUM", "millimeter"),
    LengthUnit.PIXEL: Code("{pixels}", "UCUM", "pixels"),
}
SURFACE: Final = {
    LengthUnit.MILLIMETRE: Code("mm2", "UCUM", "square millimeter"),
    # The area of a region in pixels is the number of its pixels.
    LengthUnit.PIXEL: Code("{pixels}", "UCUM", "pixels"),
}
