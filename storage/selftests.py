"""What came of the self-tests, newest last."""

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

from storage.tables import selftests

KEPT = 1000
"""Outcomes that are kept: a month and more of hourly tests."""


@dataclass(frozen=True)
class SelfTest:
    """One self-test.

    Attributes
    ----------
    started_at
        When its exam was sent.
    seconds
        Until its answer had come, or it was given up.
    passed
        Whether the answer was as it must be.
    phase
        In which it failed; '' when it passed.
    cause
        Why, in words; '' when it passed.
    exam
        The exam's id; '' when there was none.
    """

    started_at: datetime
    seconds: float
    passed: bool
    phase: str = ""
    cause: str = ""
    exam: str = ""


def note(connection: Connection, test: SelfTest) -> None:
    """Keep an outcome, and forget the oldest."""
    connection.execute(insert(selftests).values(asdict(test)))
    newest = select(selftests.c.id).order_by(selftests.c.id.desc()).limit(KEPT)
    connection.execute(delete(selftests).where(selftests.c.id.not_in(newest)))


def last(connection: Connection, *, passed: bool | None = None) -> SelfTest | None:
    """Return the newest outcome, or the newest that passed (or did not); None when there was none."""
    query = select(*[selftests.c[name] for name in SelfTest.__dataclass_fields__]).order_by(selftests.c.id.desc())
    if passed is not None:
        query = query.where(selftests.c.passed.is_(passed))
    row = connection.execute(query.limit(1)).one_or_none()
    return None if row is None else SelfTest(*row)
