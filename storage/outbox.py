"""The outbox: which result still has to reach which destination."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from sqlalchemy import ColumnElement, Engine, RowMapping, Select, case, func, literal, select, tuple_, union_all, update
from sqlalchemy.engine import Connection

from config.policy import RetryPolicy
from storage.attempts import note_attempt
from storage.database import has_come, insert_new, reading, writing
from storage.exams import lock_keys
from storage.states import DeliveryState
from storage.tables import Moment, deliveries, exams, jobs, lanes, removals, results

_TOLD = ("first_attempt_at", "last_attempt_at", "finished_at", "status_code", "message", "sent_at", "proven_at")
"""What is forgotten when a delivery begins anew."""


_AWAITS_PROOF = (deliveries.c.state == DeliveryState.SENT) & deliveries.c.finished_at.is_(None)
_PROVABLE = (
    *(DeliveryState.WAITING, DeliveryState.SENT, DeliveryState.VERIFIED),
    *(DeliveryState.EXPIRED, DeliveryState.WAIVED),
)


@dataclass(frozen=True)
class Delivery:
    """One result on its way to one destination.

    Attributes
    ----------
    id
        Primary key.
    result_uid, sop_class_uid, study_uid, series_uid, kind, path, size
        The result; the path is relative to the store.
    fallback_uid
        The result that is sent instead where this one is refused for good, or None.
    exam_id, exam_uid, revision
        What it answers.
    destination
        The destination's name.
    state
        Where the delivery stands.
    attempts
        How often it was tried.
    created_at, not_before
        Since when it waits, and when it may be tried.
    first_attempt_at, last_attempt_at, finished_at
        When it was first and last tried, and ended; the first moved on by the time in which it was due and not tried.
    status_code, message
        What the destination said last: DIMSE status, and words.
    sent_at, proven_at
        When the destination accepted it, and when it was committed or verified.
    proofs
        How often proof was asked for since.
    """

    id: int
    result_uid: str
    sop_class_uid: str
    study_uid: str
    series_uid: str
    kind: str
    path: str
    size: int
    fallback_uid: str | None
    exam_id: int
    exam_uid: str
    revision: int
    destination: str
    state: DeliveryState
    attempts: int
    created_at: datetime
    not_before: datetime
    first_attempt_at: datetime | None
    last_attempt_at: datetime | None
    finished_at: datetime | None
    status_code: int | None
    message: str | None
    sent_at: datetime | None
    proven_at: datetime | None
    proofs: int

    def log_context(self) -> dict[str, object]:
        """Return the fields of a log line about it."""
        return {
            "delivery": self.id,
            "destination": self.destination,
            "exam": self.exam_uid,
            "revision": self.revision,
            "result": self.result_uid,
        }


class Outbox:
    """The deliveries of all lanes; one process at a time sends, and it sends none twice at once (``node.delivery``).

    Parameters
    ----------
    engine
        The database.
    policy
        When a failed attempt is made again, and when it is given up.
    policies
        The same for destinations that have their own, by name.
    """

    def __init__(
        self, engine: Engine, policy: RetryPolicy, policies: Mapping[str, RetryPolicy] = MappingProxyType({})
    ) -> None:
        self._engine = engine
        self._policy = policy
        self._policies = policies

    def due(self, destination: str, now: datetime, limit: int, taken: Collection[int] = ()) -> list[Delivery]:
        """Return what may be sent to a destination now: the most suspicious exams first, then the oldest.

        Nothing of an exam that is held, nothing while the lane is paused, and none of the deliveries ``taken``. What
        belongs to one exam stands in the order of its revisions, whatever their scores: what waits to be tried again is
        due with what comes after it.
        """
        readings = jobs.alias("readings")
        score = select(func.max(readings.c.suspicion)).where(readings.c.exam_id == exams.c.id).scalar_subquery()
        query = self._sendable(_actionable(destination, limit, taken), destination, now)
        return self._list(query.order_by(func.coalesce(score, -1).desc(), deliveries.c.created_at))

    def still_due(self, delivery: Delivery) -> bool:
        """Tell whether what was due may be sent yet: not recalled meanwhile, its exam not held, its lane not paused."""
        query = _actionable(delivery.destination, 1, ()).where(deliveries.c.id == delivery.id)
        return bool(self._list(query.where(deliveries.c.state == DeliveryState.WAITING)))

    def unproven(
        self,
        destination: str,
        now: datetime,
        limit: int,
        taken: Collection[int] = (),
        *,
        patience: timedelta = timedelta(0),
    ) -> list[Delivery]:
        """Return what was sent and whose proof is to be asked for now, oldest first; the same exceptions hold.

        Parameters
        ----------
        patience
            How long an answer is waited for before proof is asked for again.
        """
        longest = max(self._policies.get(destination, self._policy).slow, patience)
        query = _actionable(destination, limit, taken)
        return self._list(query.where(_AWAITS_PROOF, has_come(deliveries.c.not_before, now, longest)))

    def next_at(self, destination: str, *, proofs: bool) -> datetime | None:
        """Return when the first of what waits is due, to be sent or proven; None where nothing waits.

        Parameters
        ----------
        proofs
            Whether proof is asked for.
        """
        state = deliveries.c.state
        waits = [state == DeliveryState.WAITING, *([_AWAITS_PROOF] if proofs else [])]
        query = union_all(
            *(
                select(func.min(deliveries.c.not_before)).where(deliveries.c.destination == destination, each)
                for each in waits
            )
        )
        with reading(self._engine) as connection:
            return min((moment for moment in connection.execute(query).scalars() if moment), default=None)

    def sent(
        self,
        delivery: Delivery,
        status_code: int,
        now: datetime,
        message: str | None = None,
        *,
        prove_at: datetime | None = None,
    ) -> None:
        """Note that the destination accepted it, perhaps with a warning status; that ends it unless it is to be proven.

        Parameters
        ----------
        prove_at
            When to ask for proof; None when none is wanted.
        """
        with writing(self._engine) as connection:
            self._note(
                connection,
                delivery,
                now,
                DeliveryState.SENT,
                status_code=status_code,
                message=message,
                not_before=prove_at,
            )

    def refused(self, delivery: Delivery, message: str, status_code: int | None, now: datetime) -> None:
        """Note that the destination refused it for good (rule R9)."""
        with writing(self._engine) as connection:
            self._note(connection, delivery, now, DeliveryState.REFUSED, status_code=status_code, message=message)

    def replaced(self, delivery: Delivery, message: str, status_code: int | None, now: datetime) -> None:
        """Note that the destination refused this form for good, and put the other form into the outbox.

        Raises
        ------
        ValueError
            When there is no other form.
        """
        if delivery.fallback_uid is None:
            raise ValueError(f"no other form of {delivery.result_uid}")
        with writing(self._engine) as connection:
            # A recall that comes now waits, and then finds the other form.
            lock_keys(connection, [delivery.exam_id])
            # One that was recalled meanwhile has no other form either.
            if self._note(connection, delivery, now, DeliveryState.REPLACED, status_code=status_code, message=message):
                enqueue(connection, [(delivery.fallback_uid, delivery.destination)], now)

    def again(self, delivery: Delivery, message: str, status_code: int | None, now: datetime) -> DeliveryState:
        """Note a failed attempt and return the new state: waiting for the next, or expired when the policy gives up."""
        since = self._since(delivery, delivery.first_attempt_at, now)
        delay = self._policy_of(delivery).delay(delivery.attempts + 1, now - since)
        state = DeliveryState.EXPIRED if delay is None else DeliveryState.WAITING
        not_before = None if delay is None else now + delay
        with writing(self._engine) as connection:
            self._note(
                connection,
                delivery,
                now,
                state,
                status_code=status_code,
                message=message,
                not_before=not_before,
                since=since,
            )
        return state

    def _since(self, delivery: Delivery, begun: datetime | None, now: datetime) -> datetime:
        return self._policy_of(delivery).since(begun or now, delivery.not_before, now)

    def asked(self, connection: Connection, sent: Sequence[Delivery], now: datetime, look_again: datetime) -> None:
        """Note that proof of deliveries is asked for, and when to look again, should no answer come."""
        for delivery in sent:
            values = {
                "proofs": deliveries.c.proofs + 1,
                "not_before": look_again,
                "first_attempt_at": self._since(delivery, delivery.first_attempt_at, now),
            }
            connection.execute(update(deliveries).where(deliveries.c.id == delivery.id, _AWAITS_PROOF).values(values))

    def proven(self, connection: Connection, delivery: Delivery, state: DeliveryState, now: datetime) -> DeliveryState:
        """Note that the destination has it: committed, whatever was thought of it before, or found.

        A delivery that begins anew (``resend``) has not been sent, so that old proof does not end it.
        """
        provable = (deliveries.c.sent_at.is_not(None)) & deliveries.c.state.in_(_PROVABLE)
        return self._prove(
            connection,
            delivery,
            provable if state is DeliveryState.COMMITTED else _AWAITS_PROOF,
            {"state": state, "proven_at": now, "finished_at": now},
        )

    def missing(
        self, connection: Connection, delivery: Delivery, message: str, reason: int | None, now: datetime
    ) -> DeliveryState:
        """Note that it was sent and the destination does not have it: it waits to be sent again, or is given up."""
        since = self._since(delivery, delivery.first_attempt_at, now)
        delay = self._policy_of(delivery).delay(max(delivery.attempts, 1), now - since)
        values: dict[str, Any] = {"status_code": reason, "message": message}
        if delay is None:
            values |= {"state": DeliveryState.EXPIRED, "finished_at": now}
        else:
            values |= {"state": DeliveryState.WAITING, "not_before": now + delay, "first_attempt_at": since}
        return self._prove(connection, delivery, _AWAITS_PROOF, values)

    def disowned(
        self, connection: Connection, delivery: Delivery, message: str, reason: int | None, now: datetime
    ) -> DeliveryState:
        """Note that the destination took it and will never answer for it."""
        values = {"state": DeliveryState.REFUSED, "finished_at": now, "status_code": reason, "message": message}
        return self._prove(connection, delivery, _AWAITS_PROOF, values)

    def ask_again(self, connection: Connection, delivery: Delivery, message: str, now: datetime) -> DeliveryState:
        """Note why proof was not had: it is asked for again as the policy says, or given up."""
        begun = self._since(delivery, delivery.first_attempt_at, now)
        since = max(begun, self._since(delivery, delivery.sent_at, now))
        delay = self._policy_of(delivery).delay(max(delivery.proofs, 1), now - since)
        values: dict[str, Any] = {"message": message}
        if delay is None:
            values |= {"state": DeliveryState.EXPIRED, "finished_at": now}
        else:
            values |= {"not_before": now + delay, "first_attempt_at": begun}
        return self._prove(connection, delivery, _AWAITS_PROOF, values)

    def _prove(
        self, connection: Connection, delivery: Delivery, only: ColumnElement[bool], values: Mapping[str, Any]
    ) -> DeliveryState:
        here = deliveries.c.id == delivery.id
        connection.execute(update(deliveries).where(here, only).values(dict(values)))
        state: DeliveryState = connection.execute(select(deliveries.c.state).where(here)).scalar_one()
        return state

    def resend(
        self,
        exam_id: int,
        now: datetime,
        wanted: Mapping[str, Iterable[str]],
        also: Callable[[Connection, int], object] = lambda *_: None,
    ) -> int:
        """Send all results of an exam's revisions again, to those that had them.

        Parameters
        ----------
        wanted
            Destination → kinds of objects that it gets by now. Nothing else is sent: what no lane serves would wait for
            ever, and what a destination is not to get any more may be just what it refuses.
        also
            Done in the same transaction, with the number of deliveries.

        Returns
        -------
        int
            The number of deliveries that now wait.
        """
        pairs = {(name, str(kind)) for name, kinds in wanted.items() for kind in kinds}
        removed = select(removals.c.path).where(removals.c.path == results.c.path)
        # What was replaced by another form stays so: the other form is sent again. What was recalled is wrong.
        over = [DeliveryState.REPLACED, DeliveryState.RECALLED]
        of_exam = (
            select(deliveries.c.id, deliveries.c.destination, results.c.kind)
            .join(results, results.c.uid == deliveries.c.result_uid)
            .join(jobs, jobs.c.id == results.c.job_id)
            .where(jobs.c.exam_id == exam_id, ~removed.exists())
        )
        fresh: dict[str, Any] = {"state": DeliveryState.WAITING, "attempts": 0, "not_before": now}
        fresh |= {"proofs": 0} | dict.fromkeys(_TOLD)
        with writing(self._engine) as connection:
            # What removes files waits, or has marked them.
            lock_keys(connection, [exam_id])
            goes = [row.id for row in connection.execute(of_exam) if (row.destination, row.kind) in pairs]
            again = update(deliveries).where(deliveries.c.id.in_(goes), deliveries.c.state.not_in(over))
            number = connection.execute(again.values(fresh)).rowcount
            also(connection, number)
        return number

    def of_exam(self, exam_id: int) -> list[Delivery]:
        """Return all deliveries of an exam, oldest first."""
        return self._list(_deliveries().where(exams.c.id == exam_id))

    def latest(
        self,
        limit: int,
        *,
        exam_id: int | None = None,
        state: DeliveryState | None = None,
        destination: str | None = None,
    ) -> list[Delivery]:
        """Return deliveries, newest first."""
        query = _deliveries().order_by(deliveries.c.id.desc()).limit(limit)
        if exam_id is not None:
            query = query.where(exams.c.id == exam_id)
        if state is not None:
            query = query.where(deliveries.c.state == state)
        if destination is not None:
            query = query.where(deliveries.c.destination == destination)
        with reading(self._engine) as connection:
            return [_delivery(row) for row in connection.execute(query).mappings()]

    def counts(self) -> dict[str, dict[DeliveryState, int]]:
        """Return the number of deliveries by destination and state."""
        query = select(deliveries.c.destination, deliveries.c.state, func.count()).group_by(
            deliveries.c.destination, deliveries.c.state
        )
        found: dict[str, dict[DeliveryState, int]] = {}
        with reading(self._engine) as connection:
            for destination, state, number in connection.execute(query):
                found.setdefault(destination, dict.fromkeys(DeliveryState, 0))[state] = number
        return found

    def oldest_waiting(self) -> dict[str, datetime]:
        """Return since when the oldest delivery that waits does so, by destination."""
        query = (
            select(deliveries.c.destination, func.min(deliveries.c.created_at))
            .where(deliveries.c.state == DeliveryState.WAITING)
            .group_by(deliveries.c.destination)
        )
        with reading(self._engine) as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def first_retry(self, delivery: Delivery) -> timedelta:
        """Return the shortest wait of a delivery's policy."""
        return self._policy_of(delivery).first

    def _sendable(self, query: Select[Any], destination: str, now: datetime) -> Select[Any]:
        longest = self._policies.get(destination, self._policy).slow
        # What was never tried waits for nothing but its lane.
        come = (deliveries.c.attempts == 0) | has_come(deliveries.c.not_before, now, longest)
        waits = deliveries.c.state == DeliveryState.WAITING
        newest = (
            select(
                jobs.c.exam_id,
                func.max(jobs.c.revision).label("revision"),
                func.max(deliveries.c.created_at).label("created_at"),
            )
            .join(results, results.c.job_id == jobs.c.id)
            .join(deliveries, deliveries.c.result_uid == results.c.uid)
            .where(deliveries.c.destination == destination, waits, come)
            .group_by(jobs.c.exam_id)
            .cte("newest")
        )
        # An earlier answer goes before a later one, so that the destination's last word is the present one.
        earlier = tuple_(jobs.c.revision, deliveries.c.created_at) < tuple_(newest.c.revision, newest.c.created_at)
        return query.outerjoin(newest, newest.c.exam_id == exams.c.id).where(waits, come | earlier)

    def _policy_of(self, delivery: Delivery) -> RetryPolicy:
        return self._policies.get(delivery.destination, self._policy)

    def _note(
        self,
        connection: Connection,
        delivery: Delivery,
        now: datetime,
        state: DeliveryState,
        *,
        status_code: int | None,
        message: str | None,
        not_before: datetime | None = None,
        since: datetime | None = None,
    ) -> bool:
        """Note an attempt; the delivery has ended unless something is to be done ``not_before`` a time.

        False when it did not wait any more, and nothing is changed. What was waived while it was being sent, and was
        accepted, is sent; what was recalled stays so, and tells since when the destination has it.
        """
        recalled = deliveries.c.state == DeliveryState.RECALLED
        ended = [DeliveryState.WAIVED, DeliveryState.RECALLED] if state is DeliveryState.SENT else []
        states = [DeliveryState.WAITING, *ended]
        still_waits = (deliveries.c.id == delivery.id) & deliveries.c.state.in_(states)
        values: dict[str, Any] = {
            "state": case((recalled, deliveries.c.state), else_=literal(state, deliveries.c.state.type)),
            "attempts": deliveries.c.attempts + 1,
            "first_attempt_at": since or func.coalesce(deliveries.c.first_attempt_at, literal(now, Moment())),
            "last_attempt_at": now,
            "status_code": status_code,
            "message": message,
        }
        if state is DeliveryState.SENT:
            values |= {"sent_at": now, "proofs": 0}
        values |= {"finished_at": now} if not_before is None else {"not_before": not_before}
        if connection.execute(update(deliveries).where(still_waits).values(values)).rowcount == 0:
            return False
        note_attempt(connection, delivery.id, now, state, status_code, message)
        return True

    def _list(self, query: Select[Any]) -> list[Delivery]:
        with reading(self._engine) as connection:
            return [_delivery(row) for row in connection.execute(query.order_by(deliveries.c.id)).mappings()]


def deliveries_by_id(connection: Connection, ids: Collection[int]) -> list[Delivery]:
    """Return deliveries by their primary keys."""
    query = _deliveries().where(deliveries.c.id.in_(list(ids))).order_by(deliveries.c.id)
    return [_delivery(row) for row in connection.execute(query).mappings()]


def enqueue(connection: Connection, pairs: Sequence[tuple[str, str]], now: datetime) -> None:
    """Put (SOP Instance UID of a result, destination) pairs into the outbox; those already there stay as they are."""
    for result_uid, destination in pairs:
        row = {
            "result_uid": result_uid,
            "destination": destination,
            "state": DeliveryState.WAITING,
            "attempts": 0,
            "proofs": 0,
            "created_at": now,
            "not_before": now,
        }
        insert_new(connection, deliveries, row)


def _actionable(destination: str, limit: int, taken: Collection[int]) -> Select[Any]:
    paused = select(lanes.c.destination).where(lanes.c.destination == destination)
    query = _deliveries().where(
        deliveries.c.destination == destination,
        exams.c.held.is_(False),
        ~paused.exists(),
    )
    return query.where(deliveries.c.id.not_in(taken)).limit(limit) if taken else query.limit(limit)


def _deliveries() -> Select[Any]:
    return (
        select(
            deliveries,
            results.c.sop_class_uid,
            results.c.study_uid,
            results.c.series_uid,
            results.c.kind,
            results.c.path,
            results.c.size,
            results.c.fallback_uid,
            exams.c.id.label("exam_id"),
            exams.c.uid.label("exam_uid"),
            jobs.c.revision,
        )
        .join(results, results.c.uid == deliveries.c.result_uid)
        .join(jobs, jobs.c.id == results.c.job_id)
        .join(exams, exams.c.id == jobs.c.exam_id)
    )


def _delivery(row: RowMapping) -> Delivery:
    return Delivery(**row)
