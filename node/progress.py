"""Whether every part of a process gets on with its work: what the watchdog is fed by."""

import time
from collections.abc import Callable
from threading import Lock

Clock = Callable[[], float]


class Part:
    """One part of a process: a thread, a door.

    A part gets on when it comes to the end of a turn, whether that ended well or not: a database that does not answer is
    no reason to end the process, a turn that hangs is.

    Parameters
    ----------
    name
        For the log.
    patience
        Seconds that a turn may take.
    clock
        Seconds of a clock that is never put back.
    """

    def __init__(self, name: str, patience: float, clock: Clock = time.monotonic) -> None:
        self.name = name
        self._patience = patience
        self._clock = clock
        self._last: float | None = clock()

    def beat(self) -> None:
        """Note that it has got on."""
        self._last = self._clock()

    def end(self) -> None:
        """Note that it has ended, as it should: nothing is expected of it any more."""
        self._last = None

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._last is None

    @property
    def stuck(self) -> bool:
        """Whether it has not got on for longer than it may."""
        last = self._last
        return last is not None and self._clock() - last > self._patience


class Progress:
    """The parts of a process that must get on.

    Parameters
    ----------
    clock
        As of its parts.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._parts: list[Part] = []
        self._lock = Lock()

    def expect(self, name: str, patience: float) -> Part:
        """Return a new part, of which a beat is expected every so many seconds from now on."""
        part = Part(name, patience, self._clock)
        with self._lock:
            self._parts = [other for other in self._parts if not other.ended] + [part]
        return part

    def stuck(self) -> list[str]:
        """Return the names of the parts that have not got on for longer than they may."""
        with self._lock:
            return sorted(part.name for part in self._parts if part.stuck)
