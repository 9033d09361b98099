"""Numbers in sentences, and what is wrong with a file that somebody wrote."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


def counted(number: float, one: str, many: str = "") -> str:
    """Return a number with what is counted: ``1 image``, ``2 images``; ``many`` where it is not ``one`` with an s."""
    told = number if isinstance(number, int) else f"{number:g}"
    return f"{told} {one if number == 1 else many or f'{one}s'}"


def took(timings: Mapping[str, float]) -> str:
    """Return how long a reading took, and its stages: ``4.05 s: decode 0.12, read 3.66``; '' where that is not known.

    Parameters
    ----------
    timings
        Stage → seconds; ``total`` is all of it.
    """
    if "total" not in timings:
        return ""
    stages = [f"{stage} {seconds:.2f}" for stage, seconds in timings.items() if stage != "total"]
    return ": ".join(filter(None, (f"{timings['total']:.2f} s", ", ".join(stages))))


def first_fault(error: "ValidationError", *parents: str) -> str:
    """Return what is wrong first, with its place: ``sets.0.weight: there is no such key``.

    Parameters
    ----------
    parents
        Keys above what was validated.
    """
    place, what = place_and_fault(error)
    return f"{'.'.join(map(str, (*parents, *place)))}: {what}"


def place_and_fault(error: "ValidationError") -> tuple[tuple[int | str, ...], str]:
    """Return where something is wrong first, and what."""
    first = error.errors()[0]
    return first["loc"], "there is no such key" if first["type"] == "extra_forbidden" else first["msg"]
