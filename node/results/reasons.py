"""Why an image or an exam was not read, or not read as expected: a code for every sentence that says so."""

import re
from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING

from ai.checks import Check

if TYPE_CHECKING:
    from pydicom.sr.coding import Code

SCHEME = "99MAMMONODE"
"""Coding Scheme Designator of the private codes; 99 marks a private scheme (PS3.16 8.2)."""


class Reason(Enum):
    """Code value, meaning, and the words by which a sentence is known."""

    FAILED = "failed", "The reading failed", r"reading failed"
    UNDECODABLE = (
        "no-pixels",
        "Pixel data missing or undecodable",
        r"cannot be decoded|pixel data end before|High Bit is not|more pixels than any|other rows or columns|\bno pixels",
    )
    NO_BREAST = "no-breast", "No breast to be seen", r"No breast can"
    INVERTED = Check.INVERTED.code, Check.INVERTED.meaning, re.escape(Check.INVERTED.words)
    NOISE = Check.NOISE.code, Check.NOISE.meaning, re.escape(Check.NOISE.words)
    NO_CHEST_WALL = Check.NO_CHEST_WALL.code, Check.NO_CHEST_WALL.meaning, re.escape(Check.NO_CHEST_WALL.words)
    NO_OUTLINE = Check.NO_OUTLINE.code, Check.NO_OUTLINE.meaning, re.escape(Check.NO_OUTLINE.words)
    LOSSY = "lossy", "Lossy compression", r"\blossy\b"
    PROCESSING = "for-processing", "For Processing image", r"For Processing, which"
    TOMOSYNTHESIS = "tomosynthesis", "Tomosynthesis, or made from one", r"tomosynthesis|breast projection, which"
    CONTRAST = "contrast", "Contrast-enhanced mammogram", r"contrast-enhanced"
    FOREIGN = (
        "not-mammogram",
        "Not a digital mammogram",
        r"(Secondary Capture|other image), which|several frames|colour im|not the breast",
    )
    QUALITY = "quality-control", "Quality control image", r"quality control image"
    MODIFIED = (
        "modified-view",
        "Magnified, partial or otherwise modified view",
        r"magnified \d|view modifier|partial view",
    )
    REPEATED = "repeated-view", "Another image of the view was read", r"\brepeated: "
    LATERALITY = "laterality", "Laterality missing or contradictory", r"no laterality in|laterality contradictory"
    VIEW = "view", "View missing, contradictory or not standard", r"no view in|view contradictory|not a standard view"
    MISSING = "no-image", "No image of an expected view received", r"no image received"
    UNILATERAL = "unilateral", "One breast examined", r"^unilateral"
    PRIOR = "prior", "Prior exam", r"^prior exam of"
    REMOVED = "removed", "Image no longer kept", r"\bremoved after its time\b"
    WITHDRAWN = "withdrawn", "Image withdrawn by a rejection note", r"\bwithdrawn\b"
    CANCELLED = "cancelled", "Reading cancelled by an operator", r"reading was cancelled"
    IDENTITY = "identity", "Images state different patients", r"state different patients"
    HIDDEN = "below-threshold", "Findings below the destination's threshold", r"below this destination's threshold"
    OTHER = "other", "Another reason, in words", r"(?!)"

    def __init__(self, value: str, meaning: str, words: str) -> None:
        self.code = value
        self._meaning = meaning
        self.words = re.compile(words)

    @property
    def coded(self) -> "Code":
        """The code that results tell."""
        from pydicom.sr.coding import Code  # noqa: PLC0415 (14 MB, which the doors do without)

        return Code(self.code, SCHEME, self._meaning)

    @classmethod
    def named_in(cls, sentences: Iterable[str]) -> "list[Reason]":
        """Return the reasons that sentences give, each once, in the order of this list."""
        found = set()
        for sentence in sentences:
            found |= {reason for reason in cls if reason.words.search(sentence)} or {cls.OTHER}
        return [reason for reason in cls if reason in found]
