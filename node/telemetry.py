"""Log configuration: one event a line, to the journal or on stdout, with data as keys and no patient names (rule R14)."""

import logging
import sys
import traceback
import warnings
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any, Literal, TextIO

import structlog

from ai.errors import AIError
from config.errors import ConfigError
from node import journal
from node.errors import NodeError
from node.events import events
from storage.errors import StorageError

ROOMS = ("node", "ai", "storage", "config")
"""Loggers of our own packages; those of libraries speak from ``warning`` on."""

LogFormat = Literal["auto", "journal", "json", "text"]

GRAVE = ("warning", "error", "critical")
TELL_THEIR_TEXT = (AIError, ConfigError, NodeError, StorageError, OSError)
"""Errors whose text is ours, or the system's; that of any other may quote a header (rule R14)."""


def configure(log_format: LogFormat = "auto", level: str = "info", stream: TextIO | None = None) -> None:
    """Send our events, and the warnings of the libraries, to one place in one form.

    Parameters
    ----------
    log_format
        ``journal`` sends entries with fields to systemd's journal; ``auto`` does so where systemd has connected the
        stream with it, and is else text on a terminal and JSON elsewhere.
    level
        The least level of our own events: ``debug``, ``info``, ``warning`` or ``error``.
    stream
        stdout by default.
    """
    target = stream or sys.stdout
    plain = log_format == "text" or (log_format == "auto" and target.isatty())
    common: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        explain,
        tell_exception,
    ]
    handler: logging.Handler
    if log_format == "journal" or (log_format == "auto" and journal.is_the_journal(target)):
        renderer: list[Any] = [journal.render]
        handler = journal.JournalHandler(journal.SOCKET, target)
    else:
        renderer = [
            structlog.dev.ConsoleRenderer(colors=target.isatty())
            if plain
            else structlog.processors.JSONRenderer(sort_keys=False)
        ]
        handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
            foreign_pre_chain=common,
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for room in ROOMS:
        logging.getLogger(room).setLevel(level.upper())
    # What these say of an association, our own events say with its destination or its sender, and without a traceback.
    for silent in (f"pynetdicom.{part}" for part in ("acse", "dimse", "dul", "fsm", "transport")):
        logging.getLogger(silent).setLevel(logging.CRITICAL)
    # Both quote the values of odd headers, names among them.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom(\.|$)")
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *common,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def explain(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Say in which phase an event of ours comes, and what to check when it is grave."""
    known = events().get(str(event.get("event", "")))
    if known:
        event.setdefault("phase", known.phase)
        if event.get("level") in GRAVE and known.check and "remedy" not in event:
            event.setdefault("check", known.check)
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
