"""Outbox → destinations: one lane for each, so that a dead destination stops nothing but its own.

The one ``serve`` process owns all lanes (it holds the DICOM port), so what its threads have in hand is known in its
memory: two associations of one lane never send one delivery at once. A lease in the database would guard no more, and
would hold up for its length what a killed process had in hand.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Lock, Thread

from config.settings import Destination, Proof
from node.audit.notes import NOTHING, Notes
from node.commitment import Prover
from node.errors import AssociationRejected, DestinationUnreachable, HandshakeFailed
from node.intake import utc_now
from node.pace import Due, News, Pace, until
from node.progress import Part, Progress
from node.scu import Carrier, Item, Response
from node.status import Outcome, sending_outcome
from node.telemetry import logger
from node.troubles import Troubles
from storage.deliveries import Delivery
from storage.errors import BucketUnavailable, StorageError
from storage.files import InstanceStore
from storage.outbox import Outbox
from storage.states import DeliveryState

log = logger("delivery")

BATCH = 50
"""Results that go through one association."""
PATIENCE = 3600.0
"""Seconds that a lane may take for one result, or for the proof of one batch: every time-out of it, many times over."""

Listing = Callable[[str, datetime, int, frozenset[int]], list[Delivery]]
"""Destination, now, how many at most, and which not → what is to be done."""


class Hand:
    """What the threads of one lane have in hand, by primary key."""

    def __init__(self) -> None:
        self.taken: dict[int, Delivery] = {}
        self.taking = Lock()

    def precedes(self, delivery: Delivery) -> bool:
        """Tell whether an earlier answer of the same exam is being sent, which a later one must not overtake."""
        return any(
            each.exam_id == delivery.exam_id and each.state is DeliveryState.WAITING and each.answer < delivery.answer
            for each in self.taken.values()
        )


class Lane:
    """The queue of one destination, worked off by one thread for each association that may be open at once.

    Parameters
    ----------
    destination
        Where its results go.
    outbox
        What is to be sent, and what came of it.
    sender
        Takes them there: by associations or, to a web service, by requests.
    store
        Where the results are.
    poll
        Seconds between looks at an empty queue.
    clock
        Returns the present time, aware.
    prover
        Asks for proof of what was sent; None when the destination's responses suffice.
    notes
        Is told what is sent, for the audit trail.
    news
        Of the database; None looks every time.
    """

    def __init__(
        self,
        destination: Destination,
        outbox: Outbox,
        sender: Carrier,
        store: InstanceStore,
        poll: float = 1,
        clock: Callable[[], datetime] = utc_now,
        prover: Prover | None = None,
        notes: Notes = NOTHING,
        news: News | None = None,
    ) -> None:
        self._notes = notes
        self._news = news
        self.destination = destination
        self._outbox = outbox
        self._sender = sender
        self._store = store
        self._poll = poll
        self._clock = clock
        self._prover = prover
        self.hand = Hand()

    def take_over(self, former: "Lane") -> None:
        """Take the place of a lane to the same destination, and leave to it what it still has in hand."""
        self.hand = former.hand

    def pace(self) -> Pace:
        """Return the rests of one thread, and what ends it."""
        return Pace(self._news)

    def run(self, pace: Pace, part: Part | None = None) -> None:
        """Send what is due until told to stop.

        Parameters
        ----------
        part
            Gets on with every turn and every result.
        """
        troubles = Troubles()
        while not pace.stopped:
            if part:
                part.beat()
            if not self._turn(troubles, pace, part):
                pace.rest(self._poll, self._next())
        if part:
            part.end()

    def _turn(self, troubles: Troubles, pace: Pace, part: Part | None) -> bool:
        """Do what is due now; return whether there was something, and nothing failed."""
        name, busy = self.destination.name, False
        try:
            busy = self.deliver_due(pace, part) + self.prove_due() > 0
        except StorageError as error:
            if troubles.begin(error):
                log.error("lane waits", destination=name, cause=str(error))  # noqa: TRY400 (the cause says it)
        except Exception as error:  # a lane that ends would go unnoticed
            if troubles.begin(error):
                log.exception("lane failed", destination=name)
        else:
            if troubles.end():
                log.info("goes on again", part="lane", destination=name)
        return busy

    def _next(self) -> Due:
        proofs = self._prover is not None and self.destination.proof is not Proof.NONE
        try:
            return until(self._outbox.next_at(self.destination.name, proofs=proofs), self._clock())
        except StorageError:  # the next turn will say it
            return 0

    def deliver_due(self, pace: Pace | None = None, part: Part | None = None) -> int:
        """Send what is due now through one association, and return how many results were tried."""
        with self._in_hand(self._outbox.due) as due:
            return self._deliver(due, pace, part) if due else 0

    def prove_due(self) -> int:
        """Ask for proof of what was sent, where it is wanted and due, and return for how many results it was."""
        if self._prover is None or self.destination.proof is Proof.NONE:
            return 0
        patience = timedelta(seconds=self.destination.proof_timeout)
        with self._in_hand(partial(self._outbox.unproven, patience=patience)) as due:
            if due:
                self._prover.prove(due)
            return len(due)

    @contextmanager
    def _in_hand(self, listed: Listing) -> Iterator[list[Delivery]]:
        """Yield what is to be done now and nobody else has in hand, a fair share of it."""
        hand = self.hand
        with hand.taking:
            now = self._clock()
            due = []
            if self.destination.is_open(now):
                associations = self.destination.associations
                due = listed(self.destination.name, now, BATCH * associations, frozenset(hand.taken))
                due = [each for each in due if not hand.precedes(each)]
                due = due[: -(-len(due) // associations)]
            hand.taken |= {delivery.id: delivery for delivery in due}
        try:
            yield due
        finally:
            with hand.taking:
                for delivery in due:
                    del hand.taken[delivery.id]

    def _deliver(self, waiting: Sequence[Delivery], pace: Pace | None, part: Part | None) -> int:
        due, items, fault = self._fetched(waiting)
        # To fetch them may have taken long.
        tried = self._send(due, items, pace, part) if due and self._may_go(due[0]) else 0
        if fault:
            raise fault
        return tried

    def _fetched(self, waiting: Sequence[Delivery]) -> tuple[list[Delivery], list[Item], StorageError | None]:
        """Return what can be had of what waits, and why the rest cannot, of which no exam's later objects go before it.

        A file of another size than was written is not among it: what is left of a report would be taken for all of it.

        Raises
        ------
        BucketUnavailable
            When nothing can be had at all.
        """
        due, items, lacking, fault = [], [], set[int](), None
        for delivery in waiting:
            if delivery.exam_id in lacking:
                continue
            try:
                item = Item(self._store.resolve(delivery.path), delivery.sop_class_uid)
            except BucketUnavailable as error:
                self._store.reach()
                lacking.add(delivery.exam_id)
                fault = error
                continue
            if damage := _damage(item.path, delivery.size):
                self._note(delivery, Response(None, damage))
            else:
                due.append(delivery)
                items.append(item)
        return due, items, fault

    def _send(self, due: Sequence[Delivery], items: Sequence[Item], pace: Pace | None, part: Part | None) -> int:
        tried = 0
        try:
            with closing(self._sender.send(self.destination, items)) as responses:
                for delivery, response in zip(due, responses, strict=False):
                    if not tried:
                        self._audit(due, "")
                    self._note(delivery, response)
                    tried += 1
                    if part:
                        part.beat()
                    if (pace and pace.stopped) or not all(map(self._may_go, due[tried : tried + 1])):
                        break
        except (DestinationUnreachable, AssociationRejected, HandshakeFailed) as error:
            again = [each for each in due[tried:] if self._note(each, Response(None, str(error)), alone=False)]
            if again:
                self._tell(again, str(error))
            tried = len(due)
        return tried

    def _audit(self, deliveries: Sequence[Delivery], outcome: str, why: str = "") -> None:
        place = self.destination
        where = {"ae_title": place.ae_title, "address": place.web.url if place.web else place.host}
        for delivery in deliveries:
            told = {"instance": delivery.result_uid, "destination": place.name, **where}
            self._notes.note("sent", **told, outcome=outcome, why=why)

    def _may_go(self, delivery: Delivery) -> bool:
        """Tell whether what is in hand may still be sent; an exam can be held, or its answer recalled, at any time."""
        return self.destination.is_open(self._clock()) and self._outbox.still_due(delivery)

    def _tell(self, waiting: Sequence[Delivery], why: str) -> None:
        """Tell in one line that no association came about, however much waits for it."""
        told: dict[str, object] = waiting[0].log_context()
        if len(waiting) > 1:
            told = {
                "destination": self.destination.name,
                "number": len(waiting),
                "exam": sorted({each.exam_uid for each in waiting}),
                "delivery": [each.id for each in waiting],
            }
        tries = max(each.attempts for each in waiting) + 1
        log.warning("result not delivered, will be tried again", **told, tries=tries, status=None, message=why)

    def _note(self, delivery: Delivery, response: Response, *, alone: bool = True) -> bool:
        """Note what came of a delivery; return whether it is tried again, which is told here when it came alone."""
        now, tries = self._clock(), delivery.attempts + 1
        told = delivery.log_context() | {
            "kind": delivery.kind,
            "tries": tries,
            "status": None if response.status is None else f"{response.status:04X}H",
            "message": response.message,
        }
        match sending_outcome(response.status, tries):
            case Outcome.SENT if response.status is not None:
                wait = self._outbox.policy_of(delivery.destination).first
                prove_at = self._prover.prove_at(now, wait) if self._prover else None
                overtaken = self._outbox.sent(delivery, response.status, now, response.words or None, prove_at=prove_at)
                self._audit([delivery], "0")
                (log.warning if response.status else log.info)("result delivered", **told)
                for each in overtaken:
                    log.info("result overtaken, not sent any more", **each.log_context(), kind=each.kind)
            case Outcome.REFUSED if delivery.fallback_uid is not None:
                self._outbox.replaced(delivery, response.words, response.status, now)
                self._audit([delivery], "4", f"refused with {told['status']}, another form is sent")
                log.warning("result refused, another form of it is sent instead", **told, instead=delivery.fallback_uid)
            case Outcome.REFUSED:
                self._outbox.refused(delivery, response.words, response.status, now)
                self._audit([delivery], "8", f"refused with {told['status']}")
                log.error("result refused for good", **told)
            case _:
                state = self._outbox.again(delivery, response.words, response.status, now)
                if state is DeliveryState.EXPIRED:
                    log.error("result given up; mammonode send sends it again", **told)
                else:
                    if alone:
                        log.warning("result not delivered, will be tried again", **told)
                    return True
        return False


def _damage(path: Path, size: int) -> str:
    """Say what is wrong with a file that is there; '' for nothing, or where it is gone, which the sender tells."""
    with suppress(OSError):
        if (found := path.stat().st_size) != size:
            return f"the file in the store is damaged: it has {found} bytes instead of {size}"
    return ""


class DeliveryService:
    """Runs lanes, each in as many threads as its destination takes associations.

    Parameters
    ----------
    lanes
        One for each destination.
    progress
        Expects every thread to get on.
    """

    def __init__(self, lanes: Sequence[Lane], progress: Progress | None = None) -> None:
        self.lanes = tuple(lanes)
        self._progress = progress or Progress()
        self._paces: list[Pace] = []
        self._threads: list[Thread] = []

    def start(self, former: "DeliveryService | None" = None) -> None:
        """Begin to send, perhaps in the place of another service, whose threads end with what they have in hand."""
        if former:
            theirs = {lane.destination.name: lane for lane in former.lanes}
            for lane in self.lanes:
                if lane.destination.name in theirs:
                    lane.take_over(theirs[lane.destination.name])
            former.retire()
        for lane in self.lanes:
            for number in range(1, lane.destination.associations + 1):
                name = f"lane {lane.destination.name} {number}"
                part = self._progress.expect(name, PATIENCE)
                self._paces.append(lane.pace())
                self._threads.append(Thread(target=lane.run, args=(self._paces[-1], part), name=name, daemon=True))
                self._threads[-1].start()

    def retire(self) -> None:
        """Let every thread end once it has done what it has in hand."""
        for pace in self._paces:
            pace.stop()

    def stop(self, timeout: float = 10) -> None:
        """Stop after the results that are being sent; destinations that do not answer are waited for no longer."""
        self.retire()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))
