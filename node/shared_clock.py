"""The time that hosts with one database have in common."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Engine, func, select

from node.intake import utc_now
from node.telemetry import logger
from node.timekeeping import OFF, since_boot
from storage.database import reading
from storage.errors import StorageError

log = logger("shared_clock")

ASKED_EVERY: Final = 60.0
"""Seconds between questions for a server's time."""


class SharedClock:
    """The time that all hosts with one database go by: its server's; that of this machine where there is no server.

    Leases are compared by it. By clocks of their own, workers whose hosts are a minute apart take one another's jobs until
    no attempt is left.

    Parameters
    ----------
    engine
        The database.
    clock
        Returns this machine's time, aware.
    steady
        Returns seconds, by which time goes on until the server is asked again.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Callable[[], datetime] = utc_now,
        steady: Callable[[], float] = since_boot,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._steady = steady
        self._asked: tuple[datetime, float] | None = None
        self._is_apart = False

    def __call__(self) -> datetime:
        """Return the time; the server is asked once a minute, and while it does not answer its time goes on."""
        if self._engine.dialect.name == "sqlite":
            return self._clock()
        if self._asked is None or self._steady() - self._asked[1] > ASKED_EVERY:
            self._ask()
        server, asked_at = self._asked or (self._clock(), self._steady())
        return server + timedelta(seconds=self._steady() - asked_at)

    def _ask(self) -> None:
        try:
            with reading(self._engine) as connection:
                now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
                # Before the connection is given back, which asks the server once more, however long that takes.
                asked_at, here = self._steady(), self._clock()
        except StorageError:
            return
        self._asked = now, asked_at
        offset = (here - now).total_seconds()
        is_apart, was_apart = abs(offset) > OFF, self._is_apart
        self._is_apart = is_apart
        if is_apart and not was_apart:
            log.warning("clock apart", offset=round(offset, 1))
