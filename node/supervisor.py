"""``mammonode up``: serve and work as children of one process, for one machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from node.supervision import for_children
from node.telemetry import logger

log = logger("supervisor")

RESTART_AFTER = 2.0
"""Seconds before a child that ended is started again."""
STOP_WITHIN = 120.0
"""Seconds that children have to finish what they do."""
SCARCE = "has this machine memory and processes left?"


@dataclass
class Child:
    """One command of the node as a process.

    Attributes
    ----------
    refused
        Whether it ended at its first start since model or settings cannot be used (EX_CONFIG).
    """

    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    start_at: float = field(default=0.0)
    refused: bool = False

    def tend(self) -> None:
        """Start it when it does not run, after a pause when it has ended by itself."""
        if self.process is not None and self.process.poll() is not None:
            log.error(
                "child ended", child=self.name, code=self.process.returncode, check="its last lines above say why"
            )
            self.refused = self.start_at == 0 and self.process.returncode == os.EX_CONFIG
            self.process, self.start_at = None, time.monotonic() + RESTART_AFTER
        if self.process is None and not self.refused and time.monotonic() >= self.start_at:
            try:
                self.process = subprocess.Popen(self.command, env=for_children(os.environ))  # noqa: S603 (our own program)
            except OSError as error:  # the other parts go on
                self.start_at = time.monotonic() + RESTART_AFTER
                log.error("child not started", child=self.name, cause=str(error), check=SCARCE)  # noqa: TRY400 (said)
                return
            log.info("child started", child=self.name, pid=self.process.pid)

    def signal(self, number: signal.Signals) -> None:
        """Ask it to end, or to read its settings again."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def wait(self, deadline: float) -> None:
        """Wait for its end; one that takes too long is killed, and its lease brings its job back."""
        if self.process is None:
            return
        try:
            self.process.wait(max(deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            log.error("child killed", child=self.name)  # noqa: TRY400 (there is no error to trace)
            self.process.kill()
            self.process.wait()


def up(config: Path | None, workers: int = 1) -> int:
    """Run one ``serve`` and some ``work`` processes until SIGTERM or SIGINT, or until one refuses to start.

    A model that breaks later does not close the doors: its workers are started again until it is mended.

    Parameters
    ----------
    config
        Settings file that the children get.
    workers
        Number of ``work`` processes.

    Returns
    -------
    int
        Exit status.
    """
    arguments = ["--config", str(config)] if config else []
    program = [sys.executable, "-P", "-m", "node"]
    children = [Child("serve", [*program, "serve", *arguments])]
    children += [Child(f"work {number}", [*program, "work", *arguments]) for number in range(1, workers + 1)]
    stopping = False

    def on_signal(number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        if number == signal.SIGHUP:
            for child in children:
                child.signal(signal.SIGHUP)
        else:
            stopping = True

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
    try:
        while not stopping and not any(child.refused for child in children):
            for child in children:
                child.tend()
            time.sleep(0.2)
    finally:
        for child in children:
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_WITHIN
        for child in children:
            child.wait(deadline)
    return os.EX_CONFIG if any(child.refused for child in children) else 0
