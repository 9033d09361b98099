"""What we were asked to commit to (PS3.4 J), what of it we hold, and whether the asker has our report."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, Row, func, insert, select, update

from config.policy import RetryPolicy
from storage.database import has_come, reading, writing
from storage.tables import commitment_requests as requests
from storage.tables import instances, removals

_AT_ONCE = 500
"""UIDs in one query; SQLite before 3.32 takes 999 parameters."""


@dataclass(frozen=True)
class Asked:
    """An instance that we are asked to answer for."""

    sop_class_uid: str
    instance_uid: str


@dataclass(frozen=True)
class CommitmentRequest:
    """A request, durable once it exists.

    Attributes
    ----------
    id
        Primary key.
    transaction_uid, calling_ae, address
        Under which UID, who asked, and from where.
    items
        What for.
    duplicate
        Whether the Transaction UID was in use for something else: nothing is committed to then.
    attempts
        How often the report was sent in vain.
    asked_at
        When, the last time; moved on by what went by while its report was due and not sent.
    not_before
        When the report is due.
    """

    id: int
    transaction_uid: str
    calling_ae: str
    address: str
    items: tuple[Asked, ...]
    duplicate: bool
    attempts: int
    asked_at: datetime
    not_before: datetime


@dataclass(frozen=True)
class Held:
    """What the index says of an instance: its SOP class, and where its file is and how large."""

    sop_class_uid: str
    path: str
    size: int


class CommitmentRequests:
    """The requests of all askers.

    Parameters
    ----------
    engine
        The database.
    policy
        When a report that did not arrive is sent again.
    """

    def __init__(self, engine: Engine, policy: RetryPolicy) -> None:
        self._engine = engine
        self._policy = policy

    def take(
        self,
        transaction_uid: str,
        calling_ae: str,
        address: str,
        items: Sequence[Asked],
        now: datetime,
        report_at: datetime,
    ) -> CommitmentRequest:
        """Note a request for good; the same one again is the one that is known, and is reported on again.

        Parameters
        ----------
        report_at
            When to report, unless that is done before.
        """
        plain = [[item.sop_class_uid, item.instance_uid] for item in items]
        with writing(self._engine) as connection:
            query = select(requests).where(requests.c.transaction_uid == transaction_uid).with_for_update()
            known = connection.execute(query.order_by(requests.c.id)).all()
            for row in known:
                if row.calling_ae == calling_ae and sorted(row.items) == sorted(plain) and not row.duplicate:
                    fresh = {"asked_at": now, "attempts": 0, "not_before": report_at, "finished_at": None}
                    renewed = update(requests).where(requests.c.id == row.id).values(fresh | {"address": address})
                    return _request(connection.execute(renewed.returning(requests)).one())
            values = {
                "transaction_uid": transaction_uid,
                "calling_ae": calling_ae,
                "address": address,
                "items": plain,
                "duplicate": bool(known),
                "asked_at": now,
                "not_before": report_at,
                "attempts": 0,
            }
            return _request(connection.execute(insert(requests).values(values).returning(requests)).one())

    def due(self, now: datetime, limit: int, *, patience: timedelta = timedelta(0)) -> list[CommitmentRequest]:
        """Return what is to be reported on now, oldest first.

        Parameters
        ----------
        patience
            How long whoever took a request has to report on it.
        """
        longest = max(self._policy.slow, patience)
        query = (
            select(requests)
            .where(requests.c.finished_at.is_(None), has_come(requests.c.not_before, now, longest))
            .order_by(requests.c.id)
            .limit(limit)
        )
        with reading(self._engine) as connection:
            return [_request(row) for row in connection.execute(query)]

    def next_at(self) -> datetime | None:
        """Return when the first report is due; None where nobody waits for one."""
        query = select(func.min(requests.c.not_before)).where(requests.c.finished_at.is_(None))
        with reading(self._engine) as connection:
            moment: datetime | None = connection.execute(query).scalar_one()
            return moment

    def report_at(self, request: CommitmentRequest, moment: datetime) -> None:
        """Note when to report, not having done so."""
        self._update(request, not_before=moment)

    def reported(self, request: CommitmentRequest, now: datetime) -> None:
        """Note that the asker has the report."""
        self._update(request, reported_at=now, finished_at=now, message=None)

    def again(self, request: CommitmentRequest, message: str, now: datetime) -> bool:
        """Note that the report did not arrive; False when it is given up."""
        attempts = request.attempts + 1
        since = self._policy.since(request.asked_at, request.not_before, now)
        delay = self._policy.delay(attempts, now - since)
        if delay is None:
            self._update(request, attempts=attempts, message=message, finished_at=now)
        else:
            self._update(request, attempts=attempts, message=message, asked_at=since, not_before=now + delay)
        return delay is not None

    def _update(self, request: CommitmentRequest, **values: object) -> None:
        with writing(self._engine) as connection:
            connection.execute(update(requests).where(requests.c.id == request.id).values(**values))


def held(connection: Connection, uids: Iterable[str]) -> dict[str, Held]:
    """Return what the index knows of instances that were not removed.

    A row is committed only after its file was in its place for good.
    """
    wanted = sorted(set(uids))
    found: dict[str, Held] = {}
    for begin in range(0, len(wanted), _AT_ONCE):
        query = select(instances.c.uid, instances.c.sop_class_uid, instances.c.path, instances.c.size).where(
            instances.c.uid.in_(wanted[begin : begin + _AT_ONCE]),
            ~select(removals.c.path).where(removals.c.path == instances.c.path).exists(),
        )
        found |= {row.uid: Held(row.sop_class_uid, row.path, row.size) for row in connection.execute(query)}
    return found


def _request(row: Row[tuple[object, ...]]) -> CommitmentRequest:
    return CommitmentRequest(
        id=row.id,
        transaction_uid=row.transaction_uid,
        calling_ae=row.calling_ae,
        address=row.address,
        items=tuple(Asked(*item) for item in row.items),
        duplicate=row.duplicate,
        attempts=row.attempts,
        asked_at=row.asked_at,
        not_before=row.not_before,
    )
