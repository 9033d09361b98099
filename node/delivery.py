"""Outbox → destinations: one lane for each, so that a dead destination stops nothing but its own."""

from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime
from threading import Event, Thread

from config.settings import Destination
from node.errors import AssociationRejected, DestinationUnreachable
from node.intake import utc_now
from node.scu import Item, Response, Sender
from node.status import Outcome, sending_outcome
from node.telemetry import logger
from storage.errors import StorageError
from storage.files import InstanceStore
from storage.outbox import Delivery, Outbox
from storage.states import DeliveryState

log = logger("delivery")

BATCH = 50
"""Results that go through one association."""


class Lane:
    """The queue of one destination.

    Parameters
    ----------
    destination
        Where its results go.
    outbox
        What is to be sent, and what came of it.
    sender
        Opens the associations.
    store
        Where the results are.
    poll
        Seconds between looks at an empty queue.
    clock
        Returns the present time, aware.
    """

    def __init__(
        self,
        destination: Destination,
        outbox: Outbox,
        sender: Sender,
        store: InstanceStore,
        poll: float = 1,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.destination = destination
        self._outbox = outbox
        self._sender = sender
        self._store = store
        self._poll = poll
        self._clock = clock

    def run(self, stopping: Event) -> None:
        """Send what is due until told to stop."""
        while not stopping.is_set():
            try:
                busy = self.deliver_due(stopping) > 0
            except StorageError as error:
                log.error("lane waits", destination=self.destination.name, cause=str(error))  # noqa: TRY400
                busy = False
            except Exception:  # a lane that ends would go unnoticed
                log.exception("lane failed", destination=self.destination.name)
                busy = False
            if not busy:
                stopping.wait(self._poll)

    def deliver_due(self, stopping: Event | None = None) -> int:
        """Send what is due now through one association, and return how many results were tried."""
        due = self._outbox.due(self.destination.name, self._clock(), BATCH)
        if not due:
            return 0
        items = [Item(self._store.resolve(delivery.path), delivery.sop_class_uid) for delivery in due]
        tried = 0
        try:
            with closing(self._sender.send(self.destination, items)) as responses:
                for delivery, response in zip(due, responses, strict=False):
                    self._note(delivery, response)
                    tried += 1
                    if stopping and stopping.is_set():
                        break
        except (DestinationUnreachable, AssociationRejected) as error:
            for delivery in due[tried:]:
                self._note(delivery, Response(None, str(error)))
            tried = len(due)
        return tried

    def _note(self, delivery: Delivery, response: Response) -> None:
        now, tries = self._clock(), delivery.attempts + 1
        told = delivery.log_context() | {
            "kind": delivery.kind,
            "tries": tries,
            "status": None if response.status is None else f"{response.status:04X}H",
            "message": response.message,
        }
        match sending_outcome(response.status, tries):
            case Outcome.SENT if response.status is not None:
                self._outbox.sent(delivery, response.status, now, response.message or None)
                (log.warning if response.status else log.info)("result delivered", **told)
            case Outcome.REFUSED if delivery.fallback_uid is not None:
                self._outbox.replaced(delivery, response.message, response.status, now)
                log.warning("result refused, another form of it is sent instead", **told, instead=delivery.fallback_uid)
            case Outcome.REFUSED:
                self._outbox.refused(delivery, response.message, response.status, now)
                log.error("result refused for good", **told)
            case _:
                state = self._outbox.again(delivery, response.message, response.status, now)
                if state is DeliveryState.EXPIRED:
                    log.error("result given up; mammonode send sends it again", **told)
                else:
                    log.warning("result not delivered, will be tried again", **told)


class DeliveryService:
    """Runs lanes, each in its thread.

    Parameters
    ----------
    lanes
        One for each destination.
    """

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._stopping = Event()
        self._threads = [
            Thread(target=lane.run, args=(self._stopping,), name=f"lane {lane.destination.name}", daemon=True)
            for lane in lanes
        ]

    def start(self) -> None:
        """Begin to send."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float = 10) -> None:
        """Stop after the results that are being sent; a destination that does not answer is waited for no longer."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout)
