"""The DICOM door: association policy, C-ECHO, C-STORE.

Handlers only translate: what is received goes to ``node.intake``, and errors become statuses in ``node.status``. The
data set of an event is never decoded here; that would change what the modality sent, and cost three times as much.
"""

import json
import secrets
import ssl
import time
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast
from weakref import WeakKeyDictionary

import pynetdicom
from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from config.settings import TEST_AE_TITLE, Dicom
from node.audit.notes import NOTHING, Notes
from node.guard import Messages, watch
from node.intake import Announced, Receiver
from node.line import KNOWN, has_short_cut
from node.listener import Handshakes, Listener
from node.records import Origin
from node.safekeeping import SafeKeeping
from node.scu import bound, entity_of, report_of, report_on, request_of
from node.sop_classes import ACCEPTED, STORAGE_COMMITMENT, VERIFICATION
from node.status import PROCESSING_FAILURE, SUCCESS, error_comment, receiving_status
from node.telemetry import logger
from node.tls import Certificate, Transport, is_of, subject
from storage.commitment_requests import CommitmentRequest
from storage.errors import BucketUnavailable
from storage.senders import Context

if TYPE_CHECKING:
    from pynetdicom.dimse_primitives import C_STORE

log = logger("scp")

CROWD = 32
"""Connections beyond the associations allowed that are told so; more are closed without a word. pynetdicom cannot serve
descriptors from 1024 on."""

NO_ENCODING: Final = 0x04
"""Result of a presentation context: transfer syntaxes not supported (PS3.8 9.3.3.2)."""

_SILENCE = 0.3
"""Seconds without a message after which a peer that asked for storage commitment is taken to wait for the report."""
_STAYS = 2.0
"""Seconds within which it must be silent; afterwards the report goes on a new association."""


class Rejection(NamedTuple):
    """Result, source and diagnostic of an A-ASSOCIATE-RJ (PS3.8 9.3.4), and why it is sent."""

    result: int
    source: int
    diagnostic: int
    reason: str


UNKNOWN_CALLED: Final = Rejection(0x01, 0x01, 0x07, "called AE title not recognised")
UNKNOWN_CALLING: Final = Rejection(
    0x01, 0x01, 0x03, "calling AE title, or the address or certificate it comes with, not recognised"
)
FAULT: Final = Rejection(0x01, 0x01, 0x01, "no reason given: a fault of this node")
TOO_MANY: Final = Rejection(0x02, 0x03, 0x02, "local limit exceeded: too many associations at once")
"""Sent by pynetdicom."""

REJECTIONS: Final = (UNKNOWN_CALLED, UNKNOWN_CALLING, FAULT, TOO_MANY)


class TakesReports(Protocol):
    """What the door hands N-EVENT-REPORTs to."""

    def reported(self, event_type: int, instance_uid: str, information: Dataset, calling_ae: str) -> int:
        """Take a report and return the status to answer with."""


class NotesSenders(Protocol):
    """What the door tells who has called."""

    def associated(self, origin: Origin, contexts: Sequence[Context]) -> None:
        """Note an association that was accepted, and what became of each context that was proposed."""

    def rejected(self, origin: Origin, reason: str) -> None:
        """Note an association that was rejected."""


class StorageSCP:
    """Receives C-STORE, and answers C-ECHO, until it is stopped.

    What is being received goes to a file at once, which spares memory and a copy.

    Parameters
    ----------
    settings
        Who may call, and how long anything may take.
    intake
        Takes what is received.
    incoming
        The store's folder for what is being received.
    reports
        Takes answers to our requests for storage commitment.
    keeping
        Takes requests of others for storage commitment. Without both, Storage Commitment is not accepted.
    senders
        Is told who calls.
    transport
        TLS, where the door has it.
    notes
        Is told who was refused, for the audit trail.
    """

    def __init__(
        self,
        settings: Dicom,
        intake: Receiver,
        incoming: Path,
        reports: TakesReports | None = None,
        keeping: SafeKeeping | None = None,
        senders: NotesSenders | None = None,
        transport: Transport | None = None,
        notes: Notes = NOTHING,
    ) -> None:
        self._notes = notes
        self._transport = transport
        self._senders = senders
        self._reports = reports
        self._keeping = keeping
        self._settings = settings
        self._intake = intake
        self._incoming = incoming
        self._server: Listener | None = None
        self._ae: AE | None = None
        self._ids: WeakKeyDictionary[Association, str] = WeakKeyDictionary()
        self._lock = Lock()

    @property
    def port(self) -> int:
        """The TCP port that it listens on."""
        return int(self._running.server_address[1])

    @property
    def associations(self) -> int:
        """Number of associations at this moment."""
        return len(self._running.active_associations)

    def start(self) -> None:
        """Open the door.

        Raises
        ------
        OSError
            When the address cannot be listened on.
        """
        _config.LOG_HANDLER_LEVEL = "none"  # a summary of each PDU that nobody reads
        handlers: list[Any] = [
            (evt.EVT_CONN_OPEN, self._watch),
            (evt.EVT_REQUESTED, self._decide),
            (evt.EVT_ACCEPTED, self._accepted),
            (evt.EVT_REJECTED, self._tell_limit),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_N_EVENT_REPORT, self._report),
            (evt.EVT_N_ACTION, self._act),
            (evt.EVT_CONN_CLOSE, self._clear_away),
        ]
        address = (self._settings.bind, self._settings.port)
        self._ae = self._entity()
        secured = self._transport is not None and self._transport.door is not None
        handshakes = Handshakes(self._context, notes=self._notes) if secured else None
        self._server = Listener.listen(self._ae, address, handlers, handshakes)
        told = {"ae_title": self._settings.ae_title, "address": self._settings.bind, "port": self.port}
        log.info("listening", **told, tls=secured)
        if not has_short_cut():
            log.warning(
                "images are received more slowly",
                pynetdicom=pynetdicom.__version__,
                remedy=f"install pynetdicom {KNOWN}*",
            )

    def use(
        self,
        settings: Dicom,
        reports: TakesReports | None,
        keeping: SafeKeeping | None,
        transport: Transport | None = None,
    ) -> None:
        """Go on with other callers, limits and certificates; who is being served keeps those that there were.

        Address, port, AE title, and whether there is TLS, stay as they are.
        """
        self._settings, self._reports, self._keeping, self._transport = settings, reports, keeping, transport
        if self._ae:
            bound(self._ae, settings)

    def stop(self, drain: float = 10) -> None:
        """Close the door: no new association, then those that are there get so many seconds to end."""
        server = self._running
        server.shutdown()
        deadline = time.monotonic() + drain
        while server.active_associations and time.monotonic() < deadline:
            time.sleep(0.02)
        for association in server.active_associations:
            association.abort()
        self._server = None
        log.info("stopped listening")

    @property
    def _running(self) -> Listener:
        if self._server is None:
            raise RuntimeError("not started")
        return self._server

    def _context(self) -> ssl.SSLContext:
        if self._transport is None or self._transport.door is None:
            raise RuntimeError("a door with TLS was given none")
        return self._transport.door

    def _entity(self) -> AE:
        entity = entity_of(self._settings)
        for sop_class, syntaxes in ACCEPTED.items():
            if sop_class != STORAGE_COMMITMENT:
                entity.add_supported_context(sop_class, list(syntaxes))
            elif self._reports and self._keeping:
                # A destination that reports on an association of its own is the SCP there (PS3.4 J.3.3).
                entity.add_supported_context(sop_class, list(syntaxes), scu_role=True, scp_role=True)
        return entity

    def _id(self, association: Association) -> str:
        with self._lock:
            return self._ids.setdefault(association, secrets.token_hex(4))

    def _origin(self, association: Association) -> Origin:
        request = association.requestor.primitive
        return Origin(
            calling_ae=(request and request.calling_ae_title) or "",
            called_ae=(request and request.called_ae_title) or "",
            address=association.requestor.address or "",
            association=self._id(association),
        )

    def _watch(self, event: evt.Event) -> None:
        association = event.assoc
        watch(association, lambda: _context(self._origin(association)), self._incoming, self._intake.require_space)
        if self.associations > self._settings.maximum_associations + CROWD:
            log.warning("connection closed: too many at once", address=association.requestor.address)
            if association.dul.socket is not None:
                association.dul.socket.close()

    def _decide(self, event: evt.Event) -> None:
        # pynetdicom goes on when a handler raises: whatever happens here, only None lets the caller in.
        rejection: Rejection | None = FAULT
        try:
            rejection = self._refusal(self._origin(event.assoc), _certificate(event.assoc))
        finally:
            if rejection is not None:
                event.assoc.acse.send_reject(rejection.result, rejection.source, rejection.diagnostic)
                event.assoc.kill()
                self._note_rejection(event, rejection)

    def _refusal(self, origin: Origin, certificate: Certificate) -> Rejection | None:
        told = _context(origin)
        if self._settings.require_called_ae and origin.called_ae != self._settings.ae_title.strip():
            log.warning(
                "association refused: called by another name",
                **told,
                called_ae=origin.called_ae,
                remedy=f"let the sender call {self._settings.ae_title}, or set dicom.require_called_ae = false",
            )
            return UNKNOWN_CALLED
        if self._is_ours(origin):
            return None
        named = [
            caller
            for caller in self._settings.callers
            if caller.ae_title.strip() == origin.calling_ae and caller.address in {"", origin.address}
        ]
        if not named and not self._settings.allow_unknown_callers:
            log.warning(
                "association refused: unknown caller",
                **told,
                remedy="to allow it, add to callers in [dicom]: "
                f"{{ ae_title = {json.dumps(origin.calling_ae)}, address = {json.dumps(origin.address)} }}",
            )
            return UNKNOWN_CALLING
        if named and not any(is_of(certificate, caller.subject) for caller in named):
            log.warning("association refused: another certificate", **told, subject=subject(certificate))
            return UNKNOWN_CALLING
        return None

    def _is_ours(self, origin: Origin) -> bool:
        # Who calls an address of its own machine calls from it.
        here = origin.address == self._settings.bind or ip_address(origin.address).is_loopback
        return here and origin.calling_ae == TEST_AE_TITLE

    def _accepted(self, event: evt.Event) -> None:
        origin, asked = self._origin(event.assoc), event.assoc.requestor.requested_contexts
        knocks = self._is_ours(origin) and all(context.abstract_syntax == VERIFICATION for context in asked)
        if self._senders and not knocks:
            self._senders.associated(origin, _proposed(event.assoc))
        told = _context(origin)
        if self._transport:
            self._transport.seen.note(f"caller {told['calling_ae']}", _certificate(event.assoc))
        _tell_contexts(event.assoc, told)

    def _tell_limit(self, event: evt.Event) -> None:
        told = _context(self._origin(event.assoc))
        log.warning("association refused: too many at once", **told, limit=self._settings.maximum_associations)
        self._note_rejection(event, TOO_MANY)

    def _note_rejection(self, event: evt.Event, rejection: Rejection) -> None:
        origin, why = self._origin(event.assoc), f"association rejected: {rejection.reason}"
        self._notes.note("caller refused", who=origin.calling_ae, address=origin.address, why=why)
        if self._senders:
            self._senders.rejected(origin, why)

    def _store(self, event: evt.Event) -> Dataset:
        request = cast("C_STORE", event.request)
        answer = Dataset()
        try:
            digest = cast("Messages", event.assoc.dimse).hand_over(event.dataset_path)
            named = str(request.AffectedSOPClassUID or ""), str(request.AffectedSOPInstanceUID or "")
            announced = Announced(*named, digest)
            self._intake.receive(event.dataset_path, announced, self._origin(event.assoc))
        except Exception as error:  # noqa: BLE001 - the peer must get a status, whatever happens
            answer.Status = receiving_status(error)
            answer.ErrorComment = error_comment(type(error))
        else:
            answer.Status = SUCCESS
        return answer

    def _report(self, event: evt.Event) -> tuple[int, None]:
        if self._reports is None:  # pragma: no cover - its context is not accepted then
            return PROCESSING_FAILURE, None
        return self._reports.reported(*report_of(event), self._origin(event.assoc).calling_ae), None

    def _act(self, event: evt.Event) -> tuple[int, None]:
        if self._keeping is None:  # pragma: no cover - its context is not accepted then
            return PROCESSING_FAILURE, None
        origin = self._origin(event.assoc)
        status, request = self._keeping.requested(*request_of(event), origin.calling_ae, origin.address)
        if request is not None:
            arguments = (self._keeping, event.assoc, request)
            Thread(target=self._report_here, args=arguments, name="commitment report", daemon=True).start()
        return status, None

    def _report_here(self, keeping: SafeKeeping, association: Association, request: CommitmentRequest) -> None:
        """Report on the association of the request when its peer waits there, else on a new one."""
        messages, deadline = cast("Messages", association.dimse), time.monotonic() + _STAYS
        with messages.asking:
            # Many that go on storing cannot take a request before the answer that they wait for: only in silence.
            while association.is_established and time.monotonic() < deadline:
                if messages.silence > _SILENCE:
                    try:
                        answer = keeping.answer(request)
                    except BucketUnavailable:
                        break  # told where it is tried again
                    response = report_on(association, answer.event_type, answer.information)
                    if response.status == SUCCESS:
                        keeping.told(request, response)
                        return
                    break
                time.sleep(0.02)
        keeping.elsewhere(request)

    def _clear_away(self, event: evt.Event) -> None:
        association = event.assoc
        if association.requestor.primitive is None:
            # A connection that asked for nothing, as load balancers make: pynetdicom would wait for the request still.
            association.dul.to_user_queue.put(None)
        unfinished = cast("Messages", association.dimse).clear_away()
        if unfinished is not None:
            log.warning(
                "association cut in the middle of an instance",
                association=self._id(association),
                instance=unfinished,
            )


def _certificate(association: Association) -> Certificate:
    """Return what the peer of an association has shown; empty without TLS, and where it did not have to."""
    line = association.dul.socket
    secured = line.socket if line is not None else None
    return (secured.getpeercert() or {}) if isinstance(secured, ssl.SSLSocket) else {}


def _context(origin: Origin) -> dict[str, str]:
    return {"association": origin.association, "calling_ae": origin.calling_ae, "address": origin.address}


def _proposed(association: Association) -> list[Context]:
    """Return what was proposed, and the transfer syntax that each context was accepted with."""
    taken = {context.context_id: context.transfer_syntax[0] for context in association.accepted_contexts}
    return [
        Context(
            UID(context.abstract_syntax or "").name,
            tuple(UID(syntax).name for syntax in context.transfer_syntax),
            UID(taken[context.context_id]).name if context.context_id in taken else None,
        )
        for context in association.requestor.requested_contexts
    ]


def _tell_contexts(association: Association, told: dict[str, str]) -> None:
    log.debug("association accepted", **told, contexts=[_words(context) for context in association.accepted_contexts])
    taken = {context.abstract_syntax for context in association.accepted_contexts}
    # Senders propose one class in several encodings; only a class that cannot come at all is worth a line.
    lost = [context for context in association.rejected_contexts if context.abstract_syntax not in taken]
    if coded := [_words(context) for context in lost if context.result == NO_ENCODING]:
        log.warning("encodings rejected", **told, contexts=coded)
    if others := [_words(context) for context in lost if context.result != NO_ENCODING]:
        log.info("presentation contexts rejected", **told, contexts=others)


def _words(context: PresentationContext) -> str:
    syntaxes = ", ".join(UID(syntax).name for syntax in context.transfer_syntax)
    return f"{UID(context.abstract_syntax or '').name}: {syntaxes}"
