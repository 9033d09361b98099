"""What people have done: to which exam or lane, what, who, when."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, insert, select

from storage.tables import actions


@dataclass(frozen=True)
class Action:
    """One thing that somebody did.

    Attributes
    ----------
    what
        ``retry``, ``re-read``, ``resend``, ``cancel``, ``pause``, ``resume`` ….
    who
        The name of a token, a certificate's or an issuer's subject, a user of this machine.
    done_at
        When.
    exam_id, destination
        To what; None where it concerns no exam, no destination.
    detail
        In words.
    """

    what: str
    who: str
    done_at: datetime
    exam_id: int | None = None
    destination: str | None = None
    detail: str = ""


def record_action(connection: Connection, action: Action) -> None:
    """Keep what somebody did."""
    connection.execute(insert(actions).values(vars(action)))


def actions_of_exam(connection: Connection, exam_id: int) -> list[Action]:
    """Return what was done to an exam, oldest first."""
    columns = [actions.c[name] for name in Action.__dataclass_fields__]
    query = select(*columns).where(actions.c.exam_id == exam_id).order_by(actions.c.id)
    return [Action(**row) for row in connection.execute(query).mappings()]


def actions_of_destination(connection: Connection, destination: str, limit: int) -> list[Action]:
    """Return what was last done to a lane, newest first."""
    columns = [actions.c[name] for name in Action.__dataclass_fields__]
    query = select(*columns).where(actions.c.destination == destination, actions.c.exam_id.is_(None))
    return [Action(**row) for row in connection.execute(query.order_by(actions.c.id.desc()).limit(limit)).mappings()]
