"""Lanes that an operator has paused; the outbox gives nothing out for them (``storage.outbox``)."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, select

from storage.database import insert_new
from storage.tables import lanes


@dataclass(frozen=True)
class Pause:
    """A paused lane: of which destination, since when, by whom, and why ('' when nobody said so)."""

    destination: str
    paused_at: datetime
    paused_by: str
    reason: str


def pause(connection: Connection, pause: Pause) -> bool:
    """Pause a lane until it is resumed, whatever is restarted meanwhile; False when it is paused already."""
    return insert_new(connection, lanes, vars(pause))


def resume(connection: Connection, destination: str) -> bool:
    """Let a lane send again; False when it was not paused."""
    return connection.execute(delete(lanes).where(lanes.c.destination == destination)).rowcount > 0


def pauses(connection: Connection) -> dict[str, Pause]:
    """Return the paused lanes by destination."""
    return {row.destination: Pause(**row._mapping) for row in connection.execute(select(lanes))}  # noqa: SLF001 (public API of SQLAlchemy)
