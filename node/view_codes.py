"""Names and codes of mammography views and their modifiers, and how they are found in the texts of headers."""

import re
from dataclasses import dataclass

from ai.exam import Laterality

CODING_SCHEMES = frozenset({"SCT", "SRT", "SNM3", "99SDM"})
"""SNOMED CT, and the designators of the SNOMED RT style codes that it replaced (PS3.16 8.1)."""

VIEWS = {
    "399162004": "CC",
    "R-10242": "CC",
    "399368009": "MLO",
    "R-10226": "MLO",
    "399260004": "ML",
    "R-10224": "ML",
    "399352003": "LM",
    "R-10228": "LM",
    "399099002": "LMO",
    "R-10230": "LMO",
    "399196006": "FB",
    "R-10244": "FB",
    "399188001": "SIO",
    "R-102D0": "SIO",
    "441555000": "ISO",
    "R-40AAA": "ISO",
    "399192008": "XCCL",
    "R-1024A": "XCCL",
    "399101009": "XCCM",
    "R-1024B": "XCCM",
    "127457009": "SPECIMEN",
    "G-8310": "SPECIMEN",
}
"""PS3.16 CID 4014 View for Mammography: code value → short name."""

MODIFIERS = {
    "399161006": "cleavage",
    "R-102D2": "cleavage",
    "399011000": "axillary tail",
    "R-102D1": "axillary tail",
    "399197002": "rolled lateral",
    "R-102D3": "rolled lateral",
    "399226006": "rolled medial",
    "R-102D4": "rolled medial",
    "414493004": "rolled inferior",
    "R-102CA": "rolled inferior",
    "415670009": "rolled superior",
    "R-102C9": "rolled superior",
    "399209000": "implant displaced",
    "R-102D5": "implant displaced",
    "399163009": "magnification",
    "R-102D6": "magnification",
    "399055006": "spot compression",
    "R-102D7": "spot compression",
    "399110001": "tangential",
    "R-102C2": "tangential",
    "442581004": "nipple in profile",
    "R-40AB3": "nipple in profile",
    "441752004": "anterior compression",
    "P2-00161": "anterior compression",
    "442593008": "infra-mammary fold",
    "R-40ABE": "infra-mammary fold",
    "442580003": "axillary tissue",
    "R-40AB2": "axillary tissue",
}
"""PS3.16 CID 4015 View Modifier for Mammography: code value → name."""

MODIFIER_WORDS = {
    "M": "magnification",
    "MAG": "magnification",
    "MAGN": "magnification",
    "MAGNIFIED": "magnification",
    "MAGNIFICATION": "magnification",
    "S": "spot compression",
    "SPOT": "spot compression",
    "ID": "implant displaced",
    "EKLUND": "implant displaced",
    "AT": "axillary tail",
    "CV": "cleavage",
    "RL": "rolled lateral",
    "RM": "rolled medial",
    "RI": "rolled inferior",
    "RS": "rolled superior",
    "TAN": "tangential",
}
"""Abbreviations of the ACR (BI-RADS) and words that technologists write."""

LONG_WORDS = frozenset({"MAG", "MAGN", "MAGNIFIED", "MAGNIFICATION", "SPOT", "EKLUND"})
"""Those that mean a modifier where they stand alone; in descriptions the short ones only count as in ``RCCID``."""

LATERALITY_WORDS = {
    "L": Laterality.LEFT,
    "LT": Laterality.LEFT,
    "LEFT": Laterality.LEFT,
    "R": Laterality.RIGHT,
    "RT": Laterality.RIGHT,
    "RIGHT": Laterality.RIGHT,
}

VIEW_WORD = re.compile(
    r"(?P<side>L|R|LT|RT|LEFT|RIGHT)?(?P<before>M|S)?(?P<view>MLO|LMO|XCCL|XCCM|XCC|CC|ML|LM|FB|SIO)"
    r"(?P<after>MAG|M|SPOT|S|ID|AT|CV|RL|RM|RI|RS|TAN)?"
)


@dataclass(frozen=True)
class ViewWords:
    """What a text says of a view; None where it says nothing or names two."""

    laterality: Laterality | None = None
    position: str | None = None
    modifiers: tuple[str, ...] = ()


def read_text(text: str, *, code: bool = False) -> ViewWords:
    """Find laterality, view and modifiers in a text such as ``R MLO``, ``LCCID`` or ``Left CC spot``.

    Only whole words count, so that ``HTML`` names no view.

    Parameters
    ----------
    code
        Whether the text speaks of the view alone, so that ``CC ID`` means implant displaced; in a description it need not.
    """
    sides: set[Laterality] = set()
    views: set[str] = set()
    modifiers: set[str] = set()
    for word in re.findall(r"[A-Z0-9]+", text.upper()):
        if match := VIEW_WORD.fullmatch(word):
            views.add(match["view"])
            sides |= {LATERALITY_WORDS[match["side"]]} if match["side"] else set()
            several = match["after"] == "S" and not match["side"]  # "CCs", "MLOs": of "RCCS" there is one
            found = [match["before"], None if several else match["after"]]
            modifiers |= {MODIFIER_WORDS[each] for each in found if each}
        elif word in LATERALITY_WORDS:
            sides.add(LATERALITY_WORDS[word])
        elif word in LONG_WORDS or (code and word in MODIFIER_WORDS):
            modifiers.add(MODIFIER_WORDS[word])
    return ViewWords(
        laterality=sides.pop() if len(sides) == 1 else None,
        position=views.pop() if len(views) == 1 else None,
        modifiers=tuple(sorted(modifiers)),
    )


def says_unilateral(descriptions: tuple[str, ...], laterality: Laterality) -> bool:
    """Return whether a description orders this breast alone.

    ``Unilateral`` does, and so does ``Mammogram left``; anything that names the other side or both does not.

    Parameters
    ----------
    descriptions
        Study and series description, procedure and protocol names.
    laterality
        The breast of which there are images.
    """
    sides: set[Laterality] = set()
    unilateral = False
    for description in descriptions:
        words = re.findall(r"[A-Z]+", description.upper())
        if {"BILATERAL", "BILAT", "BOTH"} & set(words):
            return False
        unilateral |= bool({"UNILATERAL", "UNILAT"} & set(words))
        named = {LATERALITY_WORDS[word] for word in words if word in LATERALITY_WORDS}
        sides |= named
        # "R CC" names an image; only together with the examination does a side name what was ordered.
        if named and any(word.startswith(("MAMMO", "MG")) for word in words):
            unilateral = True
    return unilateral and sides <= {laterality}
