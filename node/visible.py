"""Texts of strangers on a terminal, which obeys what it is told: colours, another title, lines that are gone."""

import re
from typing import Final

_OBEYED: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""C0 and C1 (ECMA-48) but tabs and ends of lines, and what turns the direction of a text (UAX #9)."""


def visible(text: str) -> str:
    """Return a text in which whatever a terminal obeys is written out, as Python writes it."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
