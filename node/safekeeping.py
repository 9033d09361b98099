"""Storage Commitment as SCP (PS3.4 J): a modality asks whether it may delete what it has sent.

A request is in the database before it is answered. The report says what is held at that moment: an index row, which is
committed only after the file was on the disk for good, and a file of the right size still there.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydicom import Dataset
from sqlalchemy import Engine

from config.settings import Caller
from node.commitment import FAILURES_EXIST, SUCCESSFUL
from node.errors import InvalidInformation, NodeError, NoSuchAction, NotWellKnownInstance
from node.intake import utc_now
from node.pace import Due, until
from node.scu import Peer, Response, Sender
from node.sop_classes import STORAGE_COMMITMENT_INSTANCE
from node.status import (
    CLASS_INSTANCE_CONFLICT,
    DUPLICATE_TRANSACTION,
    NO_SUCH_INSTANCE,
    SUCCESS,
    commitment_status,
)
from node.telemetry import logger
from storage.commitment_requests import Asked, CommitmentRequest, CommitmentRequests, Held, held
from storage.database import reading
from storage.files import InstanceStore

log = logger("safekeeping")

REQUEST = 1
"""Action type (PS3.4 J.3.2.1)."""

UNTIL_TAKEN_OVER = timedelta(minutes=3)
"""When a report is sent on a new association although nobody gave up on the one it was asked on: a crash."""

BATCH = 20


def read_request(information: Dataset) -> tuple[str, tuple[Asked, ...]]:
    """Return Transaction UID and instances of an N-ACTION (PS3.4 J.3.2.1.1).

    Raises
    ------
    InvalidInformation
        When they are missing.
    """
    try:
        items = tuple(
            Asked(str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
            for item in information.ReferencedSOPSequence
        )
        transaction_uid = str(information.TransactionUID)
    except (AttributeError, TypeError):
        raise InvalidInformation from None
    uids = [transaction_uid, *(uid for item in items for uid in (item.sop_class_uid, item.instance_uid))]
    if not items or not all(re.fullmatch(r"[0-9.]{1,64}", uid) for uid in uids):
        raise InvalidInformation
    return transaction_uid, items


@dataclass(frozen=True)
class Answer:
    """An N-EVENT-REPORT to send: its event type and information."""

    event_type: int
    information: Dataset


class SafeKeeping:
    """Takes requests, and reports on them.

    Parameters
    ----------
    requests
        What was asked.
    engine, store
        What we hold.
    sender
        Opens associations to those who asked.
    callers
        Who may ask, and where reports go.
    clock
        Returns the present time, aware.
    """

    def __init__(
        self,
        requests: CommitmentRequests,
        engine: Engine,
        store: InstanceStore,
        sender: Sender,
        callers: Sequence[Caller],
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._requests = requests
        self._engine = engine
        self._store = store
        self._sender = sender
        self._callers = tuple(callers)
        self._clock = clock

    def requested(
        self, action_type: int, instance_uid: str, information: Dataset, calling_ae: str, address: str
    ) -> tuple[int, CommitmentRequest | None]:
        """Take an N-ACTION and return the status to answer with, and the request when that is success."""
        try:
            request = self._take(action_type, instance_uid, information, calling_ae, address)
        except Exception as error:  # noqa: BLE001 - the peer must get a status, whatever happens
            status = commitment_status(error)
            cause = f"{type(error).__name__}: {error}" if isinstance(error, NodeError) else type(error).__name__
            log.warning("commitment request refused", calling_ae=calling_ae, status=f"{status:04X}H", cause=cause)
            return status, None
        log.info("commitment requested", **_told(request), number=len(request.items))
        return SUCCESS, request

    def _take(
        self, action_type: int, instance_uid: str, information: Dataset, calling_ae: str, address: str
    ) -> CommitmentRequest:
        if instance_uid != STORAGE_COMMITMENT_INSTANCE:
            raise NotWellKnownInstance(instance_uid)
        if action_type != REQUEST:
            raise NoSuchAction(action_type)
        transaction_uid, items = read_request(information)
        now = self._clock()
        return self._requests.take(transaction_uid, calling_ae, address, items, now, now + UNTIL_TAKEN_OVER)

    def answer(self, request: CommitmentRequest) -> Answer:
        """Return what is to be reported on a request now."""
        with reading(self._engine) as connection:
            known = held(connection, (item.instance_uid for item in request.items))
        committed: list[Dataset] = []
        failed: list[Dataset] = []
        for asked in request.items:
            reference = Dataset()
            reference.ReferencedSOPClassUID = asked.sop_class_uid
            reference.ReferencedSOPInstanceUID = asked.instance_uid
            reason = DUPLICATE_TRANSACTION if request.duplicate else self._reason(asked, known)
            if reason:
                reference.FailureReason = reason
            (failed if reason else committed).append(reference)
        information = Dataset()
        information.TransactionUID = request.transaction_uid
        if committed:
            information.ReferencedSOPSequence = committed
        if failed:
            information.FailedSOPSequence = failed
        log.info("commitment decided", **_told(request), committed=len(committed), failed=len(failed))
        return Answer(FAILURES_EXIST if failed else SUCCESSFUL, information)

    def _reason(self, asked: Asked, known: dict[str, Held]) -> int | None:
        found = known.get(asked.instance_uid)
        if found is None:
            return NO_SUCH_INSTANCE
        if found.sop_class_uid != asked.sop_class_uid:
            return CLASS_INSTANCE_CONFLICT
        if self._store.size_of(found.path) != found.size:
            log.critical("file is not as it was indexed", instance=asked.instance_uid, path=found.path)
            return NO_SUCH_INSTANCE
        return None

    def told(self, request: CommitmentRequest, response: Response) -> None:
        """Note what came of a report."""
        if response.status == SUCCESS:
            self._requests.reported(request, self._clock())
            log.info("commitment reported", **_told(request))
            return
        message = response.message or ("no answer" if response.status is None else f"status {response.status:04X}H")
        if self._requests.again(request, message, self._clock()):
            log.warning("commitment not reported, will be tried again", **_told(request), message=message)
        else:
            log.error("commitment not reported, given up", **_told(request), message=message)

    def elsewhere(self, request: CommitmentRequest) -> None:
        """Report on a new association: the one that a request came on has ended, or is in use."""
        self._requests.report_at(request, self._clock())

    def report_due(self) -> int:
        """Report what is due, each on a new association, and return for how many requests that was tried."""
        due = self._requests.due(self._clock(), BATCH, patience=UNTIL_TAKEN_OVER)
        for request in due:
            peer = self._peer(request)
            if peer is None:
                message = f"nobody said where {request.calling_ae} listens: give it a port under callers in [dicom]"
                self.told(request, Response(None, message))
                continue
            answer = self.answer(request)
            self.told(request, self._sender.report(peer, answer.event_type, answer.information))
        return len(due)

    def turn(self) -> Due:
        """Report what is due, and return how long it is until more may be."""
        self.report_due()
        return until(self._requests.next_at(), self._clock())

    def _peer(self, request: CommitmentRequest) -> Peer | None:
        for caller in self._callers:
            title = caller.ae_title.strip()
            if title == request.calling_ae and caller.address in {"", request.address} and caller.port:
                host = caller.host or caller.address or request.address
                return Peer(title, title, host, caller.port, caller.tls, caller.subject)
        return None


def _told(request: CommitmentRequest) -> dict[str, object]:
    return {"transaction": request.transaction_uid, "calling_ae": request.calling_ae}
