"""Rejections and C-STORE statuses, both ways, as tables: read from ``node.scp`` and from ``node.status`` itself."""

from collections.abc import Iterable
from typing import Final

from node.conformance.markdown import status, table
from node.scp import REJECTIONS
from node.status import (
    MEANINGS,
    STATUSES,
    SUCCESS,
    TRIES_BEFORE_CANNOT_UNDERSTAND_IS_FINAL,
    Outcome,
    error_comment,
    is_warning,
    receiving_status,
    sending_outcome,
)

NO_STATUS: Final = "none: no response, a time-out, an abort, a rejected association"


class Unforeseen(Exception):
    """Anything else."""


def rejections() -> str:
    """Return when an association is rejected, and with what."""
    rows = [(each.result, each.source, each.diagnostic, each.reason) for each in REJECTIONS]
    return table(("Result", "Source", "Reason/Diag.", "When"), rows)


def returned_statuses() -> str:
    """Return the statuses with which a C-STORE is answered, with reason and Error Comment (0000,0902)."""
    rows = [(status(SUCCESS), MEANINGS[SUCCESS], "stored, flushed and indexed", "")]
    rows += [
        (status(code), MEANINGS[code], f"`{kind.__name__}`", f"`{error_comment(kind)}`") for kind, code in STATUSES
    ]
    code = receiving_status(Unforeseen())
    rows.append((status(code), MEANINGS[code], "any other error", "that of the error"))
    return table(("Status", "Meaning", "Reason", "Error Comment"), rows)


def received_statuses() -> str:
    """Return what each status means for an object that is sent, by asking for every one of them."""
    behaviours: dict[tuple[str, str], list[int]] = {}
    for value in range(0x10000):
        behaviours.setdefault((_kind(value), _behaviour(value)), []).append(value)
    rows = [
        (", ".join(_ranges(values)), kind, _meaning(values), behaviour)
        for (kind, behaviour), values in behaviours.items()
    ]
    return table(("Status", "Class", "Meaning", "Behaviour"), [*rows, (NO_STATUS, "", "", _behaviour(None))])


def _kind(value: int) -> str:
    if value == SUCCESS:
        return "Success"
    return "Warning" if is_warning(value) else "Failure"


def _behaviour(value: int | None) -> str:
    tries = TRIES_BEFORE_CANNOT_UNDERSTAND_IS_FINAL
    refused = "refused for good; the fallback, where there is one, is sent instead"
    match sending_outcome(value, 1), sending_outcome(value, tries):
        case Outcome.SENT, _:
            return "delivered" if value == SUCCESS else "delivered; the log names the status"
        case Outcome.REFUSED, _:
            return refused
        case _, Outcome.REFUSED:
            return f"tried again; after {tries} tries {refused}"
        case _:
            return "tried again"


def _meaning(values: Iterable[int]) -> str:
    known = [MEANINGS[value] for value in values if value in MEANINGS]
    return ", ".join(known) if len(known) < len(MEANINGS) else ""


def _ranges(values: list[int]) -> list[str]:
    """Return runs of numbers, for example ``A900H-A9FFH``."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1][-1:] = [value] if len(runs[-1]) > 1 else [runs[-1][0], value]
        else:
            runs.append([value])
    return ["-".join(status(value) for value in run) for run in runs]
