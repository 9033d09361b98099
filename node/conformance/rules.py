"""What holds for all objects, and what each kind is, in words."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from ai.exam import SpacingRule
from config.mix import ResultKind
from node.identity import RESEARCH_USE_ONLY
from node.results import codes

RULES: Final = (
    ("Use", RESEARCH_USE_ONLY),
    (
        "UIDs (R1)",
        (
            "`2.25.` and the decimal of a name-based UUID: 128 bits of SHA-256 over the installation's random identifier, "
            "Study Instance UID, the SOP Instance UIDs that were read, the digests of the model, of the object mix and of "
            "every setting that changes content, the answer itself, kind of object and image. The same reading gives the "
            "same UIDs and bytes; no other reading gives them. Dates and times are those of the answer."
        ),
    ),
    (
        "Superseding (R2)",
        (
            "A new revision's SR and CAD_SR stay in their series and name their predecessor (Predecessor Documents "
            "Sequence). Every other object has a series of its own, with the revision in Series Description. REJECTION, "
            "where the object mix has it, withdraws those of the former revision."
        ),
    ),
    (
        "Scores (R4)",
        (
            f"0 to 100, whole numbers, unit {codes.NO_UNIT.value}. They are suspicion scores and not probabilities, and are "
            f"coded as such: {codes.FINDING_SCORE.value}, {codes.IMAGE_SCORE.value}, {codes.BREAST_SCORE.value}, "
            f"{codes.EXAM_SCORE.value}. Where the model's card has a calibration and reader.prevalence is set, findings and "
            f"images have {codes.PROBABILITY.meaning} ({codes.PROBABILITY.value}, {codes.PROBABILITY.scheme_designator}) "
            "beside them, and the algorithm's parameters name that prevalence."
        ),
    ),
    (
        "Sizes (R11)",
        (
            f"Millimetres by the first of these that the image allows: {'; '.join(rule.value for rule in SpacingRule)}; else "
            "pixels only. The rule stands beside every size. Pixel measures follow it."
        ),
    ),
    (
        "Coordinates",
        (
            "Image relative, in pixels: columns, rows, with 0\\0 at the top left corner of the first pixel, whose centre is "
            "at 0.5\\0.5 (PS3.3 C.18.6.1.2, C.10.5.1.2). Outlines are closed polylines."
        ),
    ),
    (
        "Plane orientation and position",
        (
            "In SEG and PMAP a convention that viewers need, [1,0,0,0,1,0] from the centre of the source's first pixel: not "
            "anatomy, for a mammogram has no Frame of Reference."
        ),
    ),
    (
        "Series Number",
        "Table 8.1-2; plus 10 for each former revision and the image's place in the exam, where each object has a series.",
    ),
    (
        "Tracking",
        "A mass has one Tracking UID in SEG, SR, CAD_SR and GSPS, whatever the object mix.",
    ),
    (
        "Identity",
        (
            "Patient's name, character set and time zone are written as the source image has them. What the node writes "
            "itself is ASCII."
        ),
    ),
)


class Title(NamedTuple):
    """What a kind is called, and what it is."""

    title: str
    words: str


TITLES: Final[Mapping[ResultKind, Title]] = {
    ResultKind.SEG: Title(
        "Segmentation",
        "One for each image with masses, with a segment for each mass, Rows and Columns as in the source. BINARY is what "
        "destinations get unless their mix says otherwise. In a LABELMAP overlapping masses go to the more suspicious "
        "one. FRACTIONAL has 0 or the maximum: occupancy, no probability.",
    ),
    ResultKind.SR: Title(
        "Imaging Measurement Report",
        "One for each answer. Each image has a group with its border as region, tracking identifier `Image summary, not "
        "a finding` or `NOT READ:` and the reason; each mass has a group with its outline. No group is without a region.",
    ),
    ResultKind.CAD_SR: Title(
        "Mammography CAD SR",
        "One for each answer. Scores stand in the Impression Descriptions, since no concept of TID 4000 means them. A "
        "failed reading has (111224, DCM) in both summaries, an exam that was not analysed (111225, DCM).",
    ),
    ResultKind.GSPS: Title(
        "Grayscale Softcopy Presentation State",
        "One for each image that was read, with outlines, numbers, scores and sentences. Modality LUT, first window or "
        "VOI LUT and polarity are the image's own.",
    ),
    ResultKind.SC: Title(
        "Secondary Capture of the exam", "One for each answer: all views on one page, outlines and scores burned in."
    ),
    ResultKind.SC_VIEW: Title(
        "Secondary Capture of a view", "One for each image that was read, outlines and scores burned in."
    ),
    ResultKind.PDF: Title(
        "Encapsulated PDF", "One for each answer, one page: views, findings, scores, and what was not read and why."
    ),
    ResultKind.PMAP: Title(
        "Parametric Map",
        "One for each image whose reader makes a map: 32-bit floats from 0 to 1 on a coarser grid that covers the image "
        "evenly. Not a calibrated probability.",
    ),
    ResultKind.REJECTION: Title(
        "Key Object Selection, rejection note",
        "One for each answer that supersedes another: names the former revision's objects that no report names (IHE IOCM).",
    ),
}
