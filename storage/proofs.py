"""What becomes of deliveries that were sent and are to be proven: found, missing, disowned, or asked about again."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, select, update

from config.policy import RetryPolicy
from storage.deliveries import Delivery, listed, overtaking
from storage.states import DeliveryState
from storage.tables import deliveries

AWAITS_PROOF: Final = (deliveries.c.state == DeliveryState.SENT) & deliveries.c.finished_at.is_(None)
OVERTAKEN: Final = "a later answer was there first"
_THERE: Final = (DeliveryState.SENT, DeliveryState.COMMITTED, DeliveryState.VERIFIED)
_PROVABLE: Final = (
    *(DeliveryState.WAITING, DeliveryState.SENT, DeliveryState.VERIFIED),
    *(DeliveryState.EXPIRED, DeliveryState.WAIVED),
)


class Proofs:
    """Notes what destinations say of what they were sent.

    Parameters
    ----------
    policy_of
        Name of a destination → when it is sent to or asked again, and when that is given up.
    """

    def __init__(self, policy_of: Callable[[str], RetryPolicy]) -> None:
        self._policy_of = policy_of

    def asked(self, connection: Connection, sent: Sequence[Delivery], now: datetime, look_again: datetime) -> None:
        """Note that proof of deliveries is asked for, and when to look again, should no answer come."""
        for delivery in sent:
            values = {
                "proofs": deliveries.c.proofs + 1,
                "not_before": look_again,
                "first_attempt_at": self._since(delivery, delivery.first_attempt_at, now),
            }
            connection.execute(update(deliveries).where(deliveries.c.id == delivery.id, AWAITS_PROOF).values(values))

    def proven(self, connection: Connection, delivery: Delivery, state: DeliveryState, now: datetime) -> DeliveryState:
        """Note that the destination has it: committed, whatever was thought of it before, or found.

        A delivery that begins anew (``storage.resending``) has not been sent, so that old proof does not end it.
        """
        provable = (deliveries.c.sent_at.is_not(None)) & deliveries.c.state.in_(_PROVABLE)
        only = provable if state is DeliveryState.COMMITTED else AWAITS_PROOF
        return _note(connection, delivery, only, {"state": state, "proven_at": now, "finished_at": now})

    def missing(
        self, connection: Connection, delivery: Delivery, message: str, reason: int | None, now: datetime
    ) -> DeliveryState:
        """Note that it was sent and the destination does not have it: it waits to be sent again, or is given up.

        It is recalled where the destination has what overtakes it of a later answer, which it would follow.
        """
        since = self._since(delivery, delivery.first_attempt_at, now)
        delay = self._policy_of(delivery.destination).delay(max(delivery.attempts, 1), now - since)
        values: dict[str, Any] = {"status_code": reason, "message": message}
        if listed(connection, overtaking(delivery).where(deliveries.c.state.in_(_THERE)).limit(1)):
            values |= {"state": DeliveryState.RECALLED, "finished_at": now, "message": f"{message}; {OVERTAKEN}"}
        elif delay is None:
            values |= {"state": DeliveryState.EXPIRED, "finished_at": now}
        else:
            values |= {"state": DeliveryState.WAITING, "not_before": now + delay, "first_attempt_at": since}
        return _note(connection, delivery, AWAITS_PROOF, values)

    def disowned(
        self, connection: Connection, delivery: Delivery, message: str, reason: int | None, now: datetime
    ) -> DeliveryState:
        """Note that the destination took it and will never answer for it."""
        values = {"state": DeliveryState.REFUSED, "finished_at": now, "status_code": reason, "message": message}
        return _note(connection, delivery, AWAITS_PROOF, values)

    def ask_again(self, connection: Connection, delivery: Delivery, message: str, now: datetime) -> DeliveryState:
        """Note why proof was not had: it is asked for again as the policy says, or given up."""
        begun = self._since(delivery, delivery.first_attempt_at, now)
        since = max(begun, self._since(delivery, delivery.sent_at, now))
        delay = self._policy_of(delivery.destination).delay(max(delivery.proofs, 1), now - since)
        values: dict[str, Any] = {"message": message}
        if delay is None:
            values |= {"state": DeliveryState.EXPIRED, "finished_at": now}
        else:
            values |= {"not_before": now + delay, "first_attempt_at": begun}
        return _note(connection, delivery, AWAITS_PROOF, values)

    def _since(self, delivery: Delivery, begun: datetime | None, now: datetime) -> datetime:
        return self._policy_of(delivery.destination).since(begun or now, delivery.not_before, now)


def _note(
    connection: Connection, delivery: Delivery, only: ColumnElement[bool], values: Mapping[str, Any]
) -> DeliveryState:
    """Note something of a delivery that stands where it may be noted, and return where it stands then."""
    here = deliveries.c.id == delivery.id
    connection.execute(update(deliveries).where(here, only).values(dict(values)))
    state: DeliveryState = connection.execute(select(deliveries.c.state).where(here)).scalar_one()
    return state
