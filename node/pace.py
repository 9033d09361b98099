"""How long a loop that serves the database rests: until there may be something to do."""

from threading import Event
from typing import Final

from storage.changes import Changes

LOOKS: Final = 10
"""After so many rests one looks though nothing was committed: something may be due by now."""


class Pace:
    """Rests between the turns of one loop.

    Parameters
    ----------
    changes
        Of the database that the loop looks at; None rests once.
    """

    def __init__(self, changes: Changes | None = None) -> None:
        self._changes = changes
        self._version: int | None = None

    def rest(self, stopping: Event, poll: float) -> None:
        """Return when something was committed since the last rest ended, after ``LOOKS`` rests, or when stopping.

        Parameters
        ----------
        stopping
            Ends the rest.
        poll
            Seconds of one rest.
        """
        for _ in range(LOOKS):
            if stopping.wait(poll):
                return
            version = self._changes.version() if self._changes else None
            if version is None or version != self._version:
                # Noted before the loop looks, not after: what is committed meanwhile is seen the next time.
                self._version = version
                return
