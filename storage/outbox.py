"""The outbox: which result still has to reach which destination."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Engine, Select, case, func, literal, select, tuple_, union_all, update

from config.policy import RetryPolicy
from storage.attempts import note_attempt
from storage.database import has_come, insert_new, reading, writing
from storage.deliveries import ANSWER, Deliveries, Delivery, all_deliveries, listed, overtaken
from storage.exams import lock_keys
from storage.proofs import AWAITS_PROOF, OVERTAKEN, Proofs
from storage.states import DeliveryState
from storage.tables import Moment, deliveries, exams, jobs, lanes, results


class Outbox(Deliveries):
    """What lanes take out, and note; one process at a time sends, and it sends none twice at once (``node.delivery``).

    Parameters
    ----------
    engine
        The database.
    policy
        When a failed attempt is made again, and when it is given up.
    policies
        The same for destinations that have their own, by name.

    Attributes
    ----------
    proofs
        Notes what comes of what was sent and is to be proven.
    """

    def __init__(
        self, engine: Engine, policy: RetryPolicy, policies: Mapping[str, RetryPolicy] = MappingProxyType({})
    ) -> None:
        super().__init__(engine)
        self._policy = policy
        self._policies = policies
        self.proofs = Proofs(self.policy_of)

    def policy_of(self, destination: str) -> RetryPolicy:
        """Return when a destination is sent to again, and when that is given up."""
        return self._policies.get(destination, self._policy)

    def due(self, destination: str, now: datetime, limit: int, taken: Collection[int] = ()) -> list[Delivery]:
        """Return what may be sent to a destination now: the most suspicious exams first, then the oldest.

        Nothing of an exam that is held, nothing while the lane is paused, and none of the deliveries ``taken``. What
        belongs to one exam stands in the order of its revisions, whatever their scores: what waits to be tried again is
        due with what comes after it.
        """
        readings = jobs.alias("readings")
        score = select(func.max(readings.c.suspicion)).where(readings.c.exam_id == exams.c.id).scalar_subquery()
        query = self._sendable(_actionable(destination, limit, taken), destination, now)
        return self._list(query.order_by(func.coalesce(score, -1).desc(), results.c.created_at))

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
        longest = max(self.policy_of(destination).slow, patience)
        query = _actionable(destination, limit, taken)
        return self._list(query.where(AWAITS_PROOF, has_come(deliveries.c.not_before, now, longest)))

    def next_at(self, destination: str, *, proofs: bool) -> datetime | None:
        """Return when the first of what waits is due, to be sent or proven; None where nothing waits.

        Parameters
        ----------
        proofs
            Whether proof is asked for.
        """
        state = deliveries.c.state
        waits = [state == DeliveryState.WAITING, *([AWAITS_PROOF] if proofs else [])]
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
    ) -> list[Delivery]:
        """Note that the destination accepted it, perhaps with a warning status; that ends it unless it is to be proven.

        What it overtakes of the exam's earlier answers and still waits is recalled: it would be the destination's last word.

        Parameters
        ----------
        prove_at
            When to ask for proof; None when none is wanted.

        Returns
        -------
        list
            What is recalled, as it stood.
        """
        with writing(self._engine) as connection:
            # Whoever recalls or waives locks exams before deliveries, too.
            lock_keys(connection, [delivery.exam_id])
            self._note(
                connection,
                delivery,
                now,
                DeliveryState.SENT,
                status_code=status_code,
                message=message,
                not_before=prove_at,
            )
            recalled = listed(connection, overtaken(delivery).where(deliveries.c.state == DeliveryState.WAITING))
            if recalled:
                ids = [each.id for each in recalled]
                values = {"state": DeliveryState.RECALLED, "finished_at": now}
                values |= {"message": func.coalesce(deliveries.c.message + "; ", "") + OVERTAKEN}
                connection.execute(update(deliveries).where(deliveries.c.id.in_(ids)).values(values))
        return recalled

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
        policy = self.policy_of(delivery.destination)
        since = policy.since(delivery.first_attempt_at or now, delivery.not_before, now)
        delay = policy.delay(delivery.attempts + 1, now - since)
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

    def _sendable(self, query: Select[Any], destination: str, now: datetime) -> Select[Any]:
        longest = self.policy_of(destination).slow
        # What was never tried waits for nothing but its lane.
        come = (deliveries.c.attempts == 0) | has_come(deliveries.c.not_before, now, longest)
        waits = deliveries.c.state == DeliveryState.WAITING
        newest = (
            select(
                jobs.c.exam_id,
                func.max(jobs.c.revision).label("revision"),
                func.max(results.c.created_at).label("issued_at"),
            )
            .join(results, results.c.job_id == jobs.c.id)
            .join(deliveries, deliveries.c.result_uid == results.c.uid)
            .where(deliveries.c.destination == destination, waits, come)
            .group_by(jobs.c.exam_id)
            .cte("newest")
        )
        # An earlier answer goes before a later one, so that the destination's last word is the present one.
        before = tuple_(newest.c.revision, newest.c.issued_at) > ANSWER
        return query.outerjoin(newest, newest.c.exam_id == exams.c.id).where(waits, come | before)

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
    query = all_deliveries().where(
        deliveries.c.destination == destination,
        exams.c.held.is_(False),
        ~paused.exists(),
    )
    return query.where(deliveries.c.id.not_in(taken)).limit(limit) if taken else query.limit(limit)
