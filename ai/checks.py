"""What the gate may notice about an image: a code, the words that people and reports get, and what follows (R12, R13)."""

from collections.abc import Iterable
from enum import Enum, StrEnum


class Verdict(StrEnum):
    """What follows for an image of which something was noticed."""

    #: It is read, and the answer says what was noticed.
    WARN = "warn"
    #: No reader sees it, and the answer says why.
    NOT_ANALYSED = "not analysed"


class Check(Enum):
    """One thing that may be wrong with an image.

    Attributes
    ----------
    code
        Of at most 16 characters (SH, PS3.5 6.2).
    meaning
        Of at most 64 (LO).
    verdict
        What follows by itself.
    words
        The sentence in reports and pages.
    """

    code: str
    meaning: str
    verdict: Verdict
    words: str

    INVERTED = (
        "inverted",
        "Black and white exchanged",
        Verdict.NOT_ANALYSED,
        "The background is brighter than the breast; check Photometric Interpretation and Presentation LUT Shape.",
    )
    NOISE = (
        "noise",
        "Nothing but fine structure to be seen",
        Verdict.NOT_ANALYSED,
        "The picture is nothing but fine structure; check that the image is a mammogram.",
    )
    NO_CHEST_WALL = (
        "no-chest-wall",
        "No chest wall to be seen",
        Verdict.NOT_ANALYSED,
        "What is seen stands free in the image and has no chest wall; check that the image is a mammogram.",
    )
    NO_OUTLINE = (
        "no-outline",
        "Filled from side to side, no outline of a breast",
        Verdict.NOT_ANALYSED,
        "What is seen fills the image from side to side without a breast's outline; check that it is a whole mammogram.",
    )
    FILLED = (
        "filled",
        "Outline of the breast not seen",
        Verdict.WARN,
        "Nearly the whole image is taken for breast, and its outline is not seen; check that it is a mammogram.",
    )
    TURNED = (
        "turned",
        "Image seems to be turned by 90 degrees",
        Verdict.WARN,
        "The chest wall seems to lie at the upper or lower border; check that the image is upright.",
    )
    SIDE = (
        "side",
        "Breast lies on the other side than the header says",
        Verdict.WARN,
        "The breast lies on the other side than Patient Orientation says; check it, the laterality and the image.",
    )
    VIEW = (
        "view-in-doubt",
        "Looks like the other view",
        Verdict.WARN,
        "The picture looks like the other view; check View Position.",
    )
    SMALL = (
        "small-breast",
        "Little of the image is breast",
        Verdict.WARN,
        "What is taken for breast covers little of the image.",
    )
    CUT = (
        "cut",
        "Breast cut off by the border",
        Verdict.WARN,
        "The image's border cuts the breast off; what lies beyond was not seen.",
    )
    IMPLANT = (
        "implant",
        "Breast implant present",
        Verdict.WARN,
        "Breast implant present: what it covers was not seen, and marks on it are no masses.",
    )
    PLATEAU = (
        "bright-area",
        "Large evenly bright area, as of an implant",
        Verdict.WARN,
        "A large area is evenly bright, as an implant is: what it covers was not seen, and marks on it are no masses.",
    )
    CLIPPED = (
        "clipped",
        "Part of the breast without structure, overexposed",
        Verdict.WARN,
        "Part of the breast is as bright as the image can be, without structure.",
    )
    FEW_LEVELS = "few-levels", "Few grey levels", Verdict.WARN, "The image has few grey levels."
    EIGHT_BITS = "eight-bits", "Only 8 bits stored", Verdict.WARN, "only 8 bits stored"
    BURNED_IN = (
        "burned-in",
        "Annotation burned into the pixels",
        Verdict.WARN,
        "Burned In Annotation says that something is drawn into the picture: marks on it are no masses.",
    )
    ODD_SPACING = (
        "odd-spacing",
        "Pixel spacing that no mammogram has",
        Verdict.WARN,
        "The pixel spacing is one that no mammogram has, so sizes are wrong; check Imager Pixel Spacing.",
    )
    TWIN = (
        "twin",
        "Two images of the exam have the same pixels",
        Verdict.WARN,
        "Another image of this exam has the same pixels; check which view they show.",
    )
    NO_SPACING = "no-spacing", "No pixel spacing", Verdict.WARN, "no pixel spacing: sizes are in pixels"
    UNLIKE = (
        "unlike-training",
        "Unlike the images of the training",
        Verdict.WARN,
        "The picture is unlike those that the gate was made on.",
    )

    def __init__(self, code: str, meaning: str, verdict: Verdict, words: str) -> None:
        self.code, self.meaning, self.verdict, self.words = code, meaning, verdict, words

    @classmethod
    def named_in(cls, sentences: Iterable[str]) -> "list[Check]":
        """Return the checks whose words stand in the sentences, each once, in the order of this list."""
        told = " ".join(sentences)
        return [check for check in cls if check.words in told]
