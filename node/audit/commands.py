"""What people do with commands, added to the trail; quick to import, as most commands only look."""

import os
from datetime import datetime
from getpass import getuser
from typing import Any

from sqlalchemy import Connection

from config.settings import Settings
from storage.actions import Action, record_action


def operator() -> str:
    """Return the user of this machine who works at it."""
    try:
        return getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def record(connection: Connection, settings: Settings, now: datetime, kind: str, **data: Any) -> None:
    """Add a fact's message to the chain within a transaction: what a command changes and its record are one."""
    from node.audit.facts import Fact, compose  # noqa: PLC0415 (messages are no matter of commands that look)
    from node.audit.trail import source_of  # noqa: PLC0415 (as above)
    from storage.audit import append  # noqa: PLC0415 (as above)

    append(connection, compose(connection, [Fact.now(kind, now, **data)], source_of(settings)), now)


def record_done(connection: Connection, settings: Settings, action: Action, exam: str = "") -> None:
    """Keep what somebody did with a command, among the actions and in the trail.

    Parameters
    ----------
    exam
        Id of the exam that it was done to; '' where it was none.
    """
    record_action(connection, action)
    told = {"what": action.what, "who": action.who, "destination": action.destination, "detail": action.detail}
    record(connection, settings, action.done_at, "done", **told, exam=exam)
