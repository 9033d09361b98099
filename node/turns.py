"""A part of a process that takes its turn again and again: its troubles are told, and it is missed when it hangs."""

from collections.abc import Callable
from threading import Thread
from typing import Final

from node.pace import Due, News, Pace
from node.progress import Progress
from node.telemetry import logger
from node.troubles import Troubles
from storage.errors import StorageError

log = logger("turns")

PATIENCE: Final = 3600.0
"""Seconds that a step of a turn may take: to send or to fetch something large from a slow peer."""

Beat = Callable[[], None]
"""Says that a turn has got on by a step."""


class Turns:
    """One thread, from its start until it is stopped.

    Parameters
    ----------
    part
        What the log calls it, and the thread.
    turn
        Does what there is to do, and tells when more is due.
    poll
        Seconds between turns; may be changed.
    news
        Of the database that the turn looks at; None looks every time.
    progress
        Misses it when a step takes longer than ``PATIENCE``.
    """

    def __init__(
        self,
        part: str,
        turn: Callable[[Beat], Due],
        poll: float,
        news: News | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.poll = poll
        self._part = part
        self._turn = turn
        self._pace = Pace(news)
        self._progress = progress or Progress()
        self._thread = Thread(target=self._run, name=part, daemon=True)

    @property
    def stopped(self) -> bool:
        """Whether this turn is the last one."""
        return self._pace.stopped

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout: float = 10) -> None:
        """Stop after the turn that is being taken."""
        self._pace.stop()
        self._thread.join(timeout)

    def _run(self) -> None:
        expected, troubles = self._progress.expect(self._part, PATIENCE), Troubles()
        while not self._pace.stopped:
            expected.beat()
            due: Due = 0
            try:
                due = self._turn(expected.beat)
            except StorageError as error:
                if troubles.begin(error):
                    log.error("part waits", part=self._part, cause=str(error))  # noqa: TRY400 (the cause says it)
            except Exception as error:  # a thread that ends would go unnoticed
                if troubles.begin(error):
                    log.exception("part failed", part=self._part)
            else:
                if troubles.end():
                    log.info("goes on again", part=self._part)
            self._pace.rest(self.poll, due)
        expected.end()
