"""How long a loop that serves the database rests: until something was committed, or may be due."""

from datetime import datetime
from threading import Event, Lock
from typing import Final
from weakref import WeakSet

from storage.changes import Changes, Version

LOOKS: Final = 10
"""So many times its ``poll`` a loop that is told of commits rests while something waits that it could not do."""
LONGEST: Final = 300.0
"""Seconds of any rest: a clock may have been put right meanwhile."""

Due = float | None
"""Seconds until something is due that no commit will tell of; 0 or less: it is, and cannot be done; None: nothing is."""


def until(moment: datetime | None, now: datetime) -> Due:
    """Return how long it is to a time, if there is one."""
    return None if moment is None else (moment - now).total_seconds()


class News:
    """Tells the loops of one process that something was committed: one of them looks, the others sleep.

    Ten loops that look for themselves once a second take 3 % of a core where waking up costs 0.3 ms.

    Parameters
    ----------
    changes
        Of the database.
    """

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._version: Version | None = None
        self._lock = Lock()
        self._asleep: WeakSet[Event] = WeakSet()

    def tell(self, wake: Event) -> bool:
        """Set an event from now on whenever something was committed; False when this database does not tell."""
        with self._lock:
            self._asleep.add(wake)
        return self._changes.version() is not None

    def look(self) -> bool:
        """Return whether something was committed since the last look, or may have been, and wake the others then."""
        version = self._changes.version()
        if version is None:
            return True
        if version == self._version:
            return False
        # Noted before anybody looks, not after: what is committed meanwhile is seen the next time.
        self._version = version
        with self._lock:
            asleep = list(self._asleep)
        for wake in asleep:
            wake.set()
        return True


class Pace:
    """The rests of one loop, and its end.

    Parameters
    ----------
    news
        Of the database that the loop looks at; None where it looks at none.
    """

    def __init__(self, news: News | None = None) -> None:
        self._wake = Event()
        self._stopped = False
        self._told = news is not None and news.tell(self._wake)

    @property
    def stopped(self) -> bool:
        """Whether the loop is to end."""
        return self._stopped

    def stop(self) -> None:
        """End the loop, after what it has in hand; from another thread."""
        self._stopped = True
        self._wake.set()

    def rest(self, poll: float, due: Due = 0) -> None:
        """Return when something was committed since the last rest ended, when something is due, or at the end.

        Parameters
        ----------
        poll
            Seconds after which one looks again where the database does not tell what is committed.
        due
            When to look where it does.
        """
        longest = max(LONGEST, poll)
        if not self._told:
            seconds = poll
        elif due is None:
            seconds = longest
        else:
            seconds = min(due if due > 0 else poll * LOOKS, longest)
        self._wake.wait(seconds)
        if not self._stopped:
            self._wake.clear()
