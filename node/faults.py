"""What may be told of an error: the text of a foreign one may quote a header, or a statement's values (rule R14)."""

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ai.errors import AIError
from config.errors import ConfigError
from node.errors import NodeError
from storage.errors import StorageError

KNOWN_FAULTS: Final = (AIError, ConfigError, NodeError, StorageError)
"""Errors whose text is ours, and says what to do."""
TELL_THEIR_TEXT: Final = (*KNOWN_FAULTS, OSError)
"""Errors whose text is ours, or the system's."""
LONGEST: Final = 500
ROOMS: Final = ("ai", "config", "node", "storage")
ROOT: Final = Path(__file__).parents[1]


def told(error: BaseException) -> str:
    """Return what an error says, or where that may hold values, what it is and where it came up."""
    return str(error) if isinstance(error, TELL_THEIR_TEXT) else described(error)


def described(error: BaseException) -> str:
    """Return of what kind an error is, with what it says where that is ours, else with where it came up."""
    if isinstance(error, KNOWN_FAULTS):
        return f"{type(error).__name__}: {error}"[:LONGEST]
    said = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
    return f"{type(error).__name__}{said}{_where(traceback.extract_tb(error.__traceback__))}"


def _where(frames: Sequence[traceback.FrameSummary]) -> str:
    """Return the innermost place, and where that is a library's, also the innermost of ours."""
    if not frames:
        return ""
    ours = [frame for frame in frames if _is_ours(Path(frame.filename))]
    places = dict.fromkeys(f"{Path(frame.filename).name}:{frame.lineno}" for frame in (frames[-1], *ours[-1:]))
    return f" in {', from '.join(places)}"


def _is_ours(file: Path) -> bool:
    return file.is_relative_to(ROOT) and file.relative_to(ROOT).parts[0] in ROOMS
