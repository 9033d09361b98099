"""Codes that the code's own tables hold: the private ones, and those of which an object has one or another."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from enum import Enum
from typing import Any, Final

from pydicom.sr.coding import Code

from config.mix import FindingCodes
from node.results import cad_codes, codes, reasons
from node.results.reasons import SCHEME

TABLES: Final = (codes, reasons, cad_codes)


def private_codes() -> tuple[Code, ...]:
    """Return every code of our scheme, in the order of the tables."""
    found = (code for group in _groups() for code in group)
    return tuple(dict.fromkeys(code for code in found if code.scheme_designator == SCHEME))


def family(code: Code) -> tuple[Code, ...]:
    """Return all codes that may stand where a code stands: those of its largest table, or the code alone."""
    found = [group for group in _groups() if _plain(code) in map(_plain, group)]
    return max(found, key=len, default=(code,))


def _plain(code: Code) -> tuple[str, str]:
    """Return value and scheme: to pydicom an SRT code equals its SCT code."""
    return code.value, code.scheme_designator


def _groups() -> Iterator[tuple[Code, ...]]:
    for module in TABLES:
        for value in vars(module).values():
            if group := tuple(_codes(value)):
                yield group
                yield from _legacy(group)


def _codes(value: Any) -> Iterator[Code]:
    if isinstance(value, Code):
        yield value
    elif isinstance(value, Mapping):
        yield from (each for each in value.values() if isinstance(each, Code))
    elif isinstance(value, type) and issubclass(value, Enum):
        yield from (code for each in value if isinstance(code := getattr(each, "coded", None), Code))
    elif value in (cad_codes.VIEW_CODES, cad_codes.MODIFIER_CODES):
        yield from (Code(sct, "SCT", meaning) for meaning, sct, _ in value)


def _legacy(group: tuple[Code, ...]) -> Iterator[tuple[Code, ...]]:
    """Yield the group in SNOMED RT, where it has such codes."""
    with suppress(KeyError):
        yield tuple(cad_codes.in_scheme(code, FindingCodes.SRT) for code in group)
