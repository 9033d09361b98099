"""Log configuration: one event a line on stdout, with data as keys and no patient names (rule R14)."""

import logging
import sys
import warnings
from typing import Any, Literal, TextIO

import structlog

ROOMS = ("node", "ai", "storage", "config")
"""Loggers of our own packages; those of libraries speak from ``warning`` on."""

LogFormat = Literal["auto", "json", "text"]


def configure(log_format: LogFormat = "auto", level: str = "info", stream: TextIO | None = None) -> None:
    """Send our events, and the warnings of the libraries, to one stream in one form.

    Parameters
    ----------
    log_format
        ``auto`` is text on a terminal and JSON elsewhere.
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
    ]
    renderer: list[Any] = (
        [structlog.dev.ConsoleRenderer(colors=target.isatty())]
        if plain
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(sort_keys=False)]
    )
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


def logger(part: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a part of the node, for example ``intake``."""
    bound: structlog.stdlib.BoundLogger = structlog.get_logger(f"node.{part}")
    return bound
