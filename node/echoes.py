"""Whether destinations answer: each is asked by C-ECHO now and then, and its last answer is kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from threading import Lock

from config.settings import Destination
from node.progress import Progress
from node.scu import EchoResult
from node.telemetry import logger
from node.turns import Beat, Turns

log = logger("echoes")

EVERY = 300.0
Ask = Callable[[Destination], EchoResult]


@dataclass(frozen=True)
class Echo:
    """What a destination answered, and when it was asked."""

    result: EchoResult
    at: datetime


class Echoes:
    """Asks in a thread of its own.

    Parameters
    ----------
    clock
        Returns the present time, aware.
    progress
        Misses the thread when it hangs.
    """

    def __init__(self, clock: Callable[[], datetime], progress: Progress | None = None) -> None:
        self._clock = clock
        self._turns = Turns("echoes", self.ask, EVERY, progress=progress)
        self._lock = Lock()
        self._last: dict[str, Echo] = {}
        self._asked: tuple[Ask, tuple[Destination, ...]] | None = None

    def use(self, ask: Ask, destinations: Sequence[Destination]) -> None:
        """Ask these from now on; the self-test listens only while it runs."""
        with self._lock:
            self._asked = ask, tuple(destinations)
            names = {destination.name for destination in destinations}
            self._last = {name: echo for name, echo in self._last.items() if name in names}

    def start(self) -> None:
        """Begin to ask."""
        self._turns.start()

    def stop(self) -> None:
        """Ask no more; an answer that is waited for is not waited for here."""
        self._turns.stop(timeout=0)

    def last(self) -> dict[str, Echo]:
        """Return the last answer of each destination that was asked."""
        with self._lock:
            return dict(self._last)

    def ask(self, beat: Beat = lambda: None) -> None:
        """Ask every destination once."""
        with self._lock:
            asked = self._asked
        for destination in asked[1] if asked else ():
            if self._turns.stopped or not asked:
                return
            self.note(destination, asked[0](destination))
            beat()

    def note(self, destination: Destination, result: EchoResult) -> None:
        """Keep what a destination answered, whoever has asked it."""
        echo = Echo(result, self._clock())
        with self._lock:
            before = self._last.get(destination.name)
            self._last[destination.name] = echo
        _tell(destination, before, echo)


def _tell(destination: Destination, before: Echo | None, echo: Echo) -> None:
    if echo.result.answered and before and not before.result.answered:
        log.info("destination answers again", destination=destination.name)
    elif not echo.result.answered and (before is None or before.result.answered):
        log.warning("destination does not answer", destination=destination.name, cause=echo.result.message)
