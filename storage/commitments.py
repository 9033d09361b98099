"""What destinations were asked to commit to (PS3.4 J), and what they answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Engine, func, insert, literal, select, update

from storage.database import reading, writing
from storage.deliveries import Delivery, deliveries_by_id
from storage.outbox import Outbox
from storage.states import DeliveryState
from storage.tables import Moment, commitment_items, commitments, deliveries


class Verdict(StrEnum):
    """What the answer for one object means for its delivery."""

    #: The destination answers for its safe keeping.
    COMMITTED = "committed"
    #: It has not, and another request may be answered otherwise.
    ASK_AGAIN = "ask again"
    #: It does not have the object, or not safely: it is to be sent again.
    SEND_AGAIN = "send again"
    #: It never will.
    REFUSED = "refused"


@dataclass(frozen=True)
class Said:
    """What a destination said of one object: 0 or a Failure Reason (PS3.3 C.14.1.1), in words, and what follows."""

    verdict: Verdict
    reason: int
    message: str = ""


@dataclass(frozen=True)
class Commitment:
    """A transaction: of which destination, since when, and what it said of each SOP Instance UID so far."""

    id: int
    transaction_uid: str
    destination: str
    asked_at: datetime
    answered_at: datetime | None
    reasons: Mapping[str, int | None]


@dataclass(frozen=True)
class Settled:
    """What came of one delivery when its destination answered."""

    delivery: Delivery
    said: Said
    state: DeliveryState


class Commitments:
    """The transactions of all lanes.

    Parameters
    ----------
    engine
        The database.
    outbox
        The deliveries that they are about.
    """

    def __init__(self, engine: Engine, outbox: Outbox) -> None:
        self._engine = engine
        self._proofs = outbox.proofs

    def ask(self, transaction_uid: str, asked: Sequence[Delivery], now: datetime, look_again: datetime) -> None:
        """Note what a destination is about to be asked for, before it is: an answer may come at any time from then on.

        Parameters
        ----------
        look_again
            When the deliveries are looked at again, should no answer have come.
        """
        with writing(self._engine) as connection:
            row = {"transaction_uid": transaction_uid, "destination": asked[0].destination, "asked_at": now}
            made: int = connection.execute(insert(commitments).values(row).returning(commitments.c.id)).scalar_one()
            items = [{"commitment_id": made, "delivery_id": delivery.id} for delivery in asked]
            connection.execute(insert(commitment_items), items)
            self._proofs.asked(connection, asked, now, look_again)

    def find(self, transaction_uid: str) -> Commitment | None:
        """Return a transaction, or None when we have asked for no such."""
        items = (
            select(deliveries.c.result_uid, commitment_items.c.reason)
            .join(deliveries, deliveries.c.id == commitment_items.c.delivery_id)
            .join(commitments, commitments.c.id == commitment_items.c.commitment_id)
            .where(commitments.c.transaction_uid == transaction_uid)
        )
        with reading(self._engine) as connection:
            query = select(commitments).where(commitments.c.transaction_uid == transaction_uid)
            row = connection.execute(query).one_or_none()
            if row is None:
                return None
            reasons = {uid: reason for uid, reason in connection.execute(items)}  # noqa: C416 (typed rows)
        return Commitment(row.id, row.transaction_uid, row.destination, row.asked_at, row.answered_at, reasons)

    def answer(self, transaction_uid: str, said: Mapping[str, Said], now: datetime) -> list[Settled]:
        """Note what a destination said, and what follows, in one transaction; return what has changed.

        The first word on an object counts: only a success still changes anything after it. So an answer that comes
        twice changes nothing.
        """
        settled = []
        with writing(self._engine) as connection:
            mine = commitments.c.transaction_uid == transaction_uid
            asked = connection.execute(select(commitments).where(mine).with_for_update()).one()
            rows = connection.execute(
                select(commitment_items.c.delivery_id, commitment_items.c.reason).where(
                    commitment_items.c.commitment_id == asked.id
                )
            )
            known = {row.delivery_id: row.reason for row in rows}
            for delivery in deliveries_by_id(connection, known):
                word, before = said.get(delivery.result_uid), known[delivery.id]
                if word is None or before == 0 or (before is not None and word.verdict is not Verdict.COMMITTED):
                    continue
                connection.execute(
                    update(commitment_items)
                    .where(commitment_items.c.commitment_id == asked.id, commitment_items.c.delivery_id == delivery.id)
                    .values(reason=word.reason)
                )
                if word.verdict is Verdict.COMMITTED:
                    state = self._proofs.proven(connection, delivery, DeliveryState.COMMITTED, now)
                elif delivery.sent_at is None or asked.asked_at < delivery.sent_at:
                    continue  # it was sent again since, and the answer to that is to come
                elif word.verdict is Verdict.REFUSED:
                    state = self._proofs.disowned(connection, delivery, word.message, word.reason, now)
                elif word.verdict is Verdict.SEND_AGAIN:
                    state = self._proofs.missing(connection, delivery, word.message, word.reason, now)
                else:
                    state = self._proofs.ask_again(connection, delivery, word.message, now)
                settled.append(Settled(delivery, word, state))
            open_items = select(func.count()).where(
                commitment_items.c.commitment_id == asked.id, commitment_items.c.reason.is_(None)
            )
            if connection.execute(open_items).scalar_one() == 0:
                values = {"answered_at": func.coalesce(commitments.c.answered_at, literal(now, Moment()))}
                connection.execute(update(commitments).where(mine).values(values))
        return settled

    def failed(self, transaction_uid: str, message: str) -> None:
        """Note why the request itself did not succeed; should it have arrived, an answer is heeded all the same."""
        with writing(self._engine) as connection:
            mine = commitments.c.transaction_uid == transaction_uid
            connection.execute(update(commitments).where(mine).values(message=message))
