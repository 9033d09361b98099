"""What fails again and again: told when it begins, now and then while it lasts, and when it is over."""

import time
from collections.abc import Callable

TOLD_EVERY = 600.0
"""Seconds between two lines about the same trouble: a database that is down for a night must not fill the journal."""


class Troubles:
    """Decides whether a failure is worth a line. For one thread.

    Parameters
    ----------
    every
        Seconds after which a failure that lasts is told again.
    clock
        Seconds of a clock that is never put back.
    """

    def __init__(self, every: float = TOLD_EVERY, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = every
        self._clock = clock
        self._failing: set[int] = set()
        self._told: dict[type[Exception], float] = {}

    def begin(self, error: Exception, part: int = 0) -> bool:
        """Note that a part has failed; return whether to tell it.

        Several parts that fail for the same reason, which is the kind of the error, are told once.
        """
        self._failing.add(part)
        now, told = self._clock(), self._told.get(type(error))
        if told is not None and now - told < self._every:
            return False
        self._told[type(error)] = now
        return True

    def end(self, part: int = 0) -> bool:
        """Note that a part gets on; return whether to tell it: it was the last of those that did not."""
        if part not in self._failing:
            return False
        self._failing.discard(part)
        if self._failing:
            return False
        self._told.clear()
        return True
