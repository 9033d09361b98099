"""Proof that a destination has what was sent: Storage Commitment as SCU (PS3.4 J), and C-FIND.

What is asked for is in the database before the request goes out, and an answer is noted before it is acknowledged: a
process that is killed in between asks again, or gets the answer later, on an association that the destination opens.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from uuid import uuid4

from pydicom import Dataset
from sqlalchemy import Engine

from config.settings import Destination, Proof
from node.errors import InvalidInformation, NodeError, NoSuchEvent, NotWellKnownInstance, UnknownTransaction
from node.intake import utc_now
from node.scu import Carrier
from node.sop_classes import STORAGE_COMMITMENT_INSTANCE
from node.status import CLASS_NOT_SUPPORTED, NO_SUCH_INSTANCE, SUCCESS, commitment_status, failure_reason
from node.telemetry import logger
from storage.commitments import Commitments, Said, Settled, Verdict
from storage.database import writing
from storage.deliveries import Delivery
from storage.files import InstanceReference
from storage.outbox import Outbox
from storage.states import DeliveryState

log = logger("commitment")

LOOKS = 3
"""An archive may index late: what C-FIND does not find so often is sent again."""

SUCCESSFUL = 1
FAILURES_EXIST = 2
"""Event types (PS3.4 J.3.3.1)."""


def new_transaction_uid() -> str:
    """Return a UID that nobody has used (PS3.5 B.2)."""
    return f"2.25.{uuid4().int}"


def action_information(transaction_uid: str, asked: Iterable[Delivery]) -> Dataset:
    """Return what an N-ACTION asks (PS3.4 J.3.2.1.1)."""
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = [_item(each.sop_class_uid, each.result_uid) for each in asked]
    return information


def _item(sop_class_uid: str, instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, instance_uid
    return item


@dataclass(frozen=True)
class Report:
    """An answer: which instances are committed, and which are not, each with its Failure Reason."""

    transaction_uid: str
    committed: frozenset[str]
    failed: Mapping[str, int]


def read_report(information: Dataset) -> Report:
    """Return what an N-EVENT-REPORT says (PS3.4 J.3.3.1.1); an instance in both of its lists has failed.

    Raises
    ------
    InvalidInformation
        When it says nothing that could be understood.
    """
    try:
        failed = {
            str(item.ReferencedSOPInstanceUID): int(item.FailureReason)
            for item in information.get("FailedSOPSequence") or ()
        }
        named = {str(item.ReferencedSOPInstanceUID) for item in information.get("ReferencedSOPSequence") or ()}
        transaction_uid = str(information.TransactionUID)
    except (AttributeError, TypeError, ValueError):
        raise InvalidInformation from None
    if not transaction_uid or not (failed or named):
        raise InvalidInformation
    return Report(transaction_uid, frozenset(named - set(failed)), MappingProxyType(failed))


class Reports:
    """Takes the answers of destinations, whichever association they come on.

    Parameters
    ----------
    commitments
        What we have asked for.
    destinations
        Whom.
    clock
        Returns the present time, aware.
    """

    def __init__(
        self,
        commitments: Commitments,
        destinations: Sequence[Destination],
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._commitments = commitments
        self._destinations = {destination.name: destination for destination in destinations}
        self._clock = clock

    def reported(self, event_type: int, instance_uid: str, information: Dataset, calling_ae: str) -> int:
        """Take an N-EVENT-REPORT and return the status to answer with: success only once it is noted for good."""
        try:
            self._take(event_type, instance_uid, information, calling_ae)
        except Exception as error:  # noqa: BLE001 - the peer must get a status, whatever happens
            status = commitment_status(error)
            log.warning(
                "commitment report refused",
                calling_ae=calling_ae,
                transaction=str(information.get("TransactionUID", "")),
                status=f"{status:04X}H",
                cause=f"{type(error).__name__}: {error}" if isinstance(error, NodeError) else type(error).__name__,
            )
            return status
        return SUCCESS

    def _take(self, event_type: int, instance_uid: str, information: Dataset, calling_ae: str) -> None:
        if instance_uid != STORAGE_COMMITMENT_INSTANCE:
            raise NotWellKnownInstance(instance_uid)
        if event_type not in {SUCCESSFUL, FAILURES_EXIST}:
            raise NoSuchEvent(event_type)
        report = read_report(information)
        asked = self._commitments.find(report.transaction_uid)
        destination = self._destinations.get(asked.destination) if asked else None
        if asked is None or destination is None or destination.ae_title.strip() != calling_ae.strip():
            raise UnknownTransaction(report.transaction_uid)
        said = {uid: Said(Verdict.COMMITTED, SUCCESS) for uid in report.committed}
        said |= {uid: self._failure(destination, reason) for uid, reason in report.failed.items()}
        told = {"destination": destination.name, "transaction": asked.transaction_uid}
        if strange := set(said) - set(asked.reasons):
            log.warning("commitment report names what was not asked for", **told, number=len(strange))
        settled = self._commitments.answer(asked.transaction_uid, said, self._clock())
        if not settled:
            log.info("commitment report changes nothing", **told)
        for each in settled:
            _tell(each, asked.transaction_uid)

    def _failure(self, destination: Destination, reason: int) -> Said:
        words, verdict = failure_reason(reason)
        if reason == CLASS_NOT_SUPPORTED and destination.proof is Proof.COMMITMENT_OR_FIND:
            verdict = Verdict.ASK_AGAIN  # by C-FIND
        return Said(verdict, reason, f"not committed: {words}")


def _tell(settled: Settled, transaction_uid: str) -> None:
    told = settled.delivery.log_context() | {"transaction": transaction_uid, "reason": f"{settled.said.reason:04X}H"}
    match settled.state:
        case DeliveryState.COMMITTED:
            log.info("result committed", **told)
        case DeliveryState.EXPIRED | DeliveryState.REFUSED:
            log.error("result not committed, given up", **told, message=settled.said.message)
        case _:
            log.warning("result not committed", **told, message=settled.said.message, then=settled.state.value)


class Prover:
    """Asks one destination for proof of what was sent to it.

    Parameters
    ----------
    destination
        Which one, and how it proves.
    engine, outbox, commitments
        What was sent, and what was asked for.
    sender
        Asks: by associations or, of a web service, by requests.
    reports
        Takes the answers.
    wait
        Seconds that an association stays open for an answer.
    clock
        Returns the present time, aware.
    """

    def __init__(
        self,
        destination: Destination,
        engine: Engine,
        outbox: Outbox,
        commitments: Commitments,
        sender: Carrier,
        reports: Reports,
        *,
        wait: float = 5,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._destination = destination
        self._engine = engine
        self._proofs = outbox.proofs
        self._commitments = commitments
        self._sender = sender
        self._reports = reports
        self._wait = wait
        self._clock = clock

    def prove_at(self, sent_at: datetime, wait: timedelta) -> datetime | None:
        """Return when to ask for proof of what is being sent: an archive gets a while before it is queried."""
        match self._destination.proof:
            case Proof.NONE:
                return None
            case Proof.FIND:
                return sent_at + wait
            case _:
                return sent_at

    def prove(self, sent: Sequence[Delivery]) -> None:
        """Ask for proof of deliveries that were sent: for the first time, or again when no answer came."""
        by_find = [delivery for delivery in sent if self._is_found(delivery)]
        to_commit = [delivery for delivery in sent if not self._is_found(delivery)]
        if to_commit:
            self._commit(to_commit)
        if by_find:
            self._find(by_find)

    def _is_found(self, delivery: Delivery) -> bool:
        match self._destination.proof:
            case Proof.FIND:
                return True
            case Proof.COMMITMENT_OR_FIND:
                return delivery.proofs > 0
            case _:
                return False

    def _commit(self, sent: Sequence[Delivery]) -> None:
        unanswered = [delivery for delivery in sent if delivery.proofs]
        left = [delivery for delivery in sent if delivery not in unanswered]
        # Asked again as long as the policy says; each time under a new Transaction UID.
        left += [d for d in unanswered if self._again(d, "no answer to the storage commitment request")]
        if not left:
            return
        transaction_uid, now = new_transaction_uid(), self._clock()
        look_again = now + timedelta(seconds=self._destination.proof_timeout)
        self._commitments.ask(transaction_uid, left, now, look_again)
        told = {"destination": self._destination.name, "transaction": transaction_uid, "number": len(left)}
        answer = self._sender.ask_commitment(
            self._destination,
            action_information(transaction_uid, left),
            lambda kind, instance, said: self._reports.reported(kind, instance, said, self._destination.ae_title),
            self._wait,
        )
        if answer.status == SUCCESS:
            log.info("commitment asked for", **told)
            return
        status = "" if answer.status is None else f" (status {answer.status:04X}H)"
        message = f"storage commitment could not be asked for: {answer.message or 'refused'}{status}"
        self._commitments.failed(transaction_uid, message)
        log.warning("commitment not asked for", **told, message=message)
        if answer.status is not None:  # else it may have arrived: time will tell
            for delivery in left:
                self._again(delivery, message)

    def _find(self, sent: Sequence[Delivery]) -> None:
        sought = [InstanceReference(d.study_uid, d.series_uid, d.result_uid) for d in sent]
        now = self._clock()
        with writing(self._engine) as connection:
            self._proofs.asked(connection, sent, now, now + timedelta(seconds=self._destination.proof_timeout))
        try:
            found = self._sender.find(self._destination, sought)
        except NodeError as error:
            for delivery in sent:
                self._again(delivery, str(error))
            return
        for delivery in sent:
            if delivery.result_uid in found:
                with writing(self._engine) as connection:
                    self._proofs.proven(connection, delivery, DeliveryState.VERIFIED, self._clock())
                log.info("result verified", **delivery.log_context())
            elif delivery.proofs + 1 < LOOKS:
                self._again(delivery, "not found")
            else:
                message = f"not found, looked for {delivery.proofs + 1} times"
                with writing(self._engine) as connection:
                    now = self._clock()
                    state = self._proofs.missing(connection, delivery, message, NO_SUCH_INSTANCE, now)
                log.warning("result is not at its destination", **delivery.log_context(), then=state.value)

    def _again(self, delivery: Delivery, message: str) -> bool:
        with writing(self._engine) as connection:
            state = self._proofs.ask_again(connection, delivery, message, self._clock())
        if state is DeliveryState.EXPIRED:
            log.error("result sent and never proven; mammonode send sends it again", **delivery.log_context())
        return state is DeliveryState.SENT
