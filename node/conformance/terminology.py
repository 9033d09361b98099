"""Codes that the code's own tables hold: the private ones, and those of which an object has one or another."""

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Final

from pydicom.sr.coding import Code

from node.results import cad_codes, codes, reasons
from node.results.reasons import SCHEME

TABLES: Final = (codes, reasons, cad_codes)


def private_codes() -> tuple[Code, ...]:
    """Return every code of our scheme, in the order of the tables."""
    found = (code for group in _groups() for code in group)
    return tuple(dict.fromkeys(code for code in found if code.scheme_designator == SCHEME))


def family(code: Code) -> tuple[Code, ...]:
    """Return all codes that may stand where a code stands: those of its table, or the code alone."""
    return next((group for group in _groups() if _plain(code) in map(_plain, group)), (code,))


def _plain(code: Code) -> tuple[str, str]:
    """Return value and scheme: to pydicom an SRT code equals its SCT code."""
    return code.value, code.scheme_designator


def _groups() -> Iterator[tuple[Code, ...]]:
    for module in TABLES:
        for value in vars(module).values():
            if group := tuple(_codes(value)):
                yield group


def _codes(value: Any) -> Iterator[Code]:
    if isinstance(value, Code):
        yield value
    elif isinstance(value, Mapping):
        yield from (each for each in value.values() if isinstance(each, Code))
    elif isinstance(value, type) and issubclass(value, Enum):
        yield from (code for each in value if isinstance(code := getattr(each, "coded", None), Code))
