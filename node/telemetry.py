"""Lines of the log: one event a line, to the journal or on stdout, with data as keys and no patient names (rule R14)."""

import logging
import sys
import traceback
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any, Final, TextIO

import structlog

from node import journal
from node.events import events
from node.faults import TELL_THEIR_TEXT
from node.logs import LogFormat
from node.visible import visible

GRAVE = ("warning", "error", "critical")


def handler(log_format: LogFormat, stream: TextIO) -> logging.Handler:
    """Return what writes lines of a form (`node.logs.configure`), our events' and the libraries'."""
    plain = log_format == "text" or (log_format == "auto" and stream.isatty())
    made: logging.Handler
    if log_format == "journal" or (log_format == "auto" and journal.is_the_journal(stream)):
        renderer: list[Any] = [journal.render]
        made = journal.JournalHandler(journal.SOCKET, stream)
    else:
        renderer = (
            [make_visible, structlog.dev.ConsoleRenderer(colors=stream.isatty())]
            if plain
            else [structlog.processors.JSONRenderer(sort_keys=False)]
        )
        made = logging.StreamHandler(stream)
    made.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(allow=DATA), *COMMON],
        )
    )
    return made


def explain(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Say in which phase an event of ours comes, and what to check when it is grave."""
    known = events().get(str(event.get("event", "")))
    if known:
        event.setdefault("phase", known.phase)
        if event.get("level") in GRAVE and known.check and "remedy" not in event:
            event.setdefault("check", known.check)
    return event


def make_visible(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Write out what a terminal would obey, as an address that somebody asked for may have it."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = visible(value)
    return event


def tell_exception(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Turn an exception into text without what a stranger's error says: it may quote a name from a header (rule R14)."""
    told = event.pop("exc_info", None)
    error = told if isinstance(told, BaseException) else told[1] if isinstance(told, tuple) else None
    error = error or (sys.exc_info()[1] if told is True else None)
    if error is not None:
        event["exception"] = "\n".join(_told(error))
    return event


def _told(error: BaseException) -> Iterator[str]:
    if error.__cause__ or (error.__context__ and not error.__suppress_context__):
        yield from _told(error.__cause__ or error.__context__)  # type: ignore[arg-type]
        yield "which led to"
    for frame in traceback.extract_tb(error.__traceback__):
        yield f"  {Path(frame.filename).name}:{frame.lineno} in {frame.name}"
    text = f": {error}" if isinstance(error, TELL_THEIR_TEXT) else ""
    yield f"{type(error).__module__}.{type(error).__qualname__}{text}"


def logger(part: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a part of the node, for example ``intake``."""
    bound: structlog.stdlib.BoundLogger = structlog.get_logger(f"node.{part}")
    return bound


COMMON: Final[list[Any]] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    explain,
    tell_exception,
]
DATA: Final = ("was_read",)
"""Data of events that `ai` tells by the standard library; any other of a stranger's record may be a name (rule R14)."""

# Our events go the way of all others, through the standard library's loggers, and are formed where they are written.
structlog.configure(
    processors=[structlog.stdlib.filter_by_level, *COMMON, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=False,
)
