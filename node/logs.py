"""Where the log goes, from which level on. What forms its lines is imported with the first of them: most commands write none."""

import logging
import sys
import warnings
from functools import cached_property
from typing import Literal, TextIO

ROOMS = ("node", "ai", "storage", "config")
"""Loggers of our own packages; those of libraries speak from ``warning`` on."""

LogFormat = Literal["auto", "journal", "json", "text"]


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
        stdout by default; stderr where the process was started without one.
    """
    root = logging.getLogger()
    root.handlers = [Output(log_format, stream or sys.stdout or sys.stderr)]
    root.setLevel(logging.WARNING)
    for room in ROOMS:
        logging.getLogger(room).setLevel(level.upper())
    # What these say of an association, our own events say with its destination or its sender, and without a traceback.
    for silent in (f"pynetdicom.{part}" for part in ("acse", "dimse", "dul", "fsm", "transport")):
        logging.getLogger(silent).setLevel(logging.CRITICAL)
    # Both quote the values of odd headers, names among them. Not by a level: pydicom sets its own when it is imported.
    logging.getLogger("pydicom").propagate = False
    warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom(\.|$)")


class Output(logging.Handler):
    """Gives lines to `node.telemetry`'s handler, which is made with the first.

    Parameters
    ----------
    log_format, stream
        As of `configure`.
    """

    def __init__(self, log_format: LogFormat, stream: TextIO) -> None:
        super().__init__()
        self._format = log_format
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; where that fails, it costs the line and not what it tells of."""
        try:
            self._handler.handle(record)
        except Exception:  # noqa: BLE001 (as each handler does, for instance when the stream is closed)
            self.handleError(record)

    def close(self) -> None:
        """Close what writes, when there is something."""
        if "_handler" in vars(self):
            self._handler.close()
        super().close()

    @cached_property
    def _handler(self) -> logging.Handler:
        from node.telemetry import handler  # noqa: PLC0415 (structlog, and rich with it, take a tenth of a short command)

        return handler(self._format, self._stream)
