"""Markdown, as far as a statement needs it."""

from collections.abc import Iterable, Sequence

from pydicom.sr.coding import Code
from pydicom.uid import UID

from node.results.forms import class_name


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; a bar or a line break within a cell does not end it."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)


def coded(code: Code) -> str:
    """Return a code as the standard writes it (PS3.16 6)."""
    return f'({code.value}, {code.scheme_designator}, "{code.meaning}")'


def named(uid: str) -> tuple[str, str]:
    """Return name and UID of a SOP class or transfer syntax."""
    return class_name(UID(uid)), str(uid)


def status(value: int) -> str:
    """Return a DIMSE status in the standard's notation."""
    return f"{value:04X}H"


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
