"""Associations out: C-ECHO, C-STORE, N-ACTION (Storage Commitment) and C-FIND to a destination."""

import socket
import ssl
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

from pydicom import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import N_EVENT_REPORT_RSP
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext, build_context, build_role

from config.settings import Destination, Dicom
from node.errors import (
    AssociationRejected,
    ContextsRejected,
    DestinationUnreachable,
    HandshakeFailed,
    NodeError,
    QueryFailed,
)
from node.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.sop_classes import (
    STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_INSTANCE,
    STUDY_ROOT_FIND,
    UNCOMPRESSED,
    VERIFICATION,
    VERIFICATION_SYNTAXES,
)
from node.status import CLASS_NOT_SUPPORTED, PENDING, SUCCESS
from node.tls import Call, Fault, Transport, subject
from storage.files import InstanceReference

if TYPE_CHECKING:
    from pynetdicom.dimse_primitives import N_ACTION, N_EVENT_REPORT

MAXIMUM_PDU_SIZE = 131072
"""Measured: 2.5 times the throughput of 16382, and slower again beyond; DCMTK's maximum too."""

_LEAVES_IN = 0.1
"""Seconds within which a response that was handed over has left; releasing earlier would overtake it."""

Handlers = Sequence[tuple[evt.EventType, Callable[..., Any]]]
OnReport = Callable[[int, str, Dataset], int]
"""Event type, SOP Instance UID and event information → the status to answer with."""


@dataclass(frozen=True)
class EchoResult:
    """Whether a destination answered C-ECHO, in how many seconds, and what was wrong."""

    answered: bool
    seconds: float
    message: str


@dataclass(frozen=True)
class Item:
    """A file to be sent, its SOP class, and its transfer syntax when it is compressed."""

    path: Path
    sop_class_uid: str
    compressed_as: str | None = None

    @classmethod
    def of(cls, path: Path) -> Self:
        """Return the item for a DICOM file, from its File Meta Information."""
        meta = read_file_meta_info(path)
        syntax = UID(meta.TransferSyntaxUID)
        return cls(path, str(meta.MediaStorageSOPClassUID), str(syntax) if syntax.is_encapsulated else None)

    @property
    def contexts(self) -> list[tuple[str, str]]:
        """Abstract and transfer syntax of every context that can carry it; what is compressed is sent as it is."""
        syntaxes = (self.compressed_as,) if self.compressed_as else UNCOMPRESSED
        return [(self.sop_class_uid, str(syntax)) for syntax in syntaxes]


@dataclass(frozen=True)
class Response:
    """What came of sending one item.

    Attributes
    ----------
    status
        Of the C-STORE response; None without one; 0122H also when the destination rejected the SOP class's contexts.
    message
        In our words, '' when there is nothing to say.
    comment
        In the peer's words: Error Comment (PS3.7 C). It may quote a patient's name, so it is kept and never logged.
    """

    status: int | None
    message: str = ""
    comment: str = ""

    @property
    def words(self) -> str:
        """What is kept of it."""
        return self.message or self.comment


@dataclass(frozen=True)
class Peer:
    """Somebody who is no destination, and where to find them."""

    name: str
    ae_title: str
    host: str
    port: int
    tls: bool = False
    subject: str = ""


class Carrier(Protocol):
    """What takes results to a destination and asks it about them; see `Sender` for what each of them does."""

    def echo(self, destination: Destination) -> EchoResult:
        """Ask a destination whether it is there."""

    def send(self, destination: Destination, items: Sequence[Item]) -> Generator[Response]:
        """Send files and yield what came of each, in their order."""

    def ask_commitment(
        self, destination: Destination, information: Dataset, on_report: OnReport, wait: float
    ) -> Response:
        """Ask for storage commitment."""

    def find(self, destination: Destination, sought: Sequence[InstanceReference]) -> set[str]:
        """Return the SOP Instance UIDs, of those sought, that a destination knows."""


def by_series(references: Iterable[InstanceReference]) -> dict[tuple[str, str], set[str]]:
    """Return SOP Instance UIDs by Study and Series Instance UID."""
    series: dict[tuple[str, str], set[str]] = {}
    for each in references:
        series.setdefault((each.study_uid, each.series_uid), set()).add(each.instance_uid)
    return series


def entity_of(settings: Dicom) -> AE:
    """Return this node as an application entity."""
    entity = AE(settings.ae_title)
    entity.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.maximum_pdu_size = MAXIMUM_PDU_SIZE
    bound(entity, settings)
    return entity


def bound(entity: AE, settings: Dicom) -> None:
    """Let an application entity wait as long, and serve as many, as settings say."""
    entity.maximum_associations = settings.maximum_associations
    entity.network_timeout = settings.network_timeout
    entity.acse_timeout = settings.acse_timeout
    entity.dimse_timeout = settings.dimse_timeout
    entity.connection_timeout = settings.acse_timeout


class Sender:
    """Opens associations to destinations.

    Parameters
    ----------
    settings
        Our AE title, and how long anything may take.
    transport
        TLS, for those who are called over it.
    """

    def __init__(self, settings: Dicom, transport: Transport | None = None) -> None:
        self._transport = transport
        self._entity = entity_of(settings)

    def echo(self, destination: Destination) -> EchoResult:
        """Ask a destination whether it is there."""
        started = time.monotonic()
        context = build_context(VERIFICATION, list(VERIFICATION_SYNTAXES))
        try:
            with self._association(destination, [context]) as association:
                status = association.send_c_echo().get("Status")
        except NodeError as error:
            return EchoResult(answered=False, seconds=time.monotonic() - started, message=str(error))
        message = "" if status == SUCCESS else "no answer" if status is None else f"status {status:04X}H"
        return EchoResult(answered=status == SUCCESS, seconds=time.monotonic() - started, message=message)

    def knock(self, peer: Peer) -> bool:
        """Tell whether a door is tended: it takes a connection and accepts, rejects or closes it within acse_timeout.

        One that does not like our certificate is tended too.
        """
        started = time.monotonic()
        connected = Event()
        call = self._call(peer)
        association = self._entity.associate(
            peer.host,
            peer.port,
            contexts=[build_context(VERIFICATION, list(VERIFICATION_SYNTAXES))],
            ae_title=peer.ae_title,
            evt_handlers=[(evt.EVT_CONN_OPEN, lambda _: connected.set())],
            tls_args=_tls_args(call, peer),
        )
        if association.is_established:
            association.release()
        refused = call is not None and call.fault is not None and call.fault is not Fault.TOO_LATE
        return (connected.is_set() or refused) and time.monotonic() - started < (self._entity.acse_timeout or 30)

    def send(self, destination: Destination | Peer, items: Sequence[Item]) -> Generator[Response]:
        """Send files through one association and yield what came of each, in their order.

        Only the SOP classes of the items are proposed, every transfer syntax in a context of its own; what is accepted
        decides the encoding. When the association ends early, so do the responses.

        Raises
        ------
        DestinationUnreachable, AssociationRejected
            When there is no association, so that nothing was sent.
        """
        proposed = dict.fromkeys(context for item in items for context in item.contexts)
        contexts = [build_context(sop_class, syntax) for sop_class, syntax in proposed]
        try:
            with self._association(destination, contexts) as association:
                for item in items:
                    yield _send(association, item)
                    if not association.is_established:
                        return
        except ContextsRejected as error:
            yield from (Response(CLASS_NOT_SUPPORTED, str(error)) for _ in items)

    def ask_commitment(
        self, destination: Destination, information: Dataset, on_report: OnReport, wait: float
    ) -> Response:
        """Ask for storage commitment by N-ACTION (PS3.4 J.3.2), and stay for the answer.

        Parameters
        ----------
        information
            The Action Information.
        on_report
            Takes an N-EVENT-REPORT that comes on the same association, and returns the status to answer with.
        wait
            Seconds that the association stays open for it.

        Returns
        -------
        Response
            Of the request, not of the answer. No status: it may have arrived, or there was no association.
        """
        answered = Event()

        def report(event: evt.Event) -> tuple[int, None]:
            return on_report(*report_of(event)), None

        def sent(event: evt.Event) -> None:
            if isinstance(event.message, N_EVENT_REPORT_RSP):
                answered.set()

        context = build_context(STORAGE_COMMITMENT, list(UNCOMPRESSED))
        handlers: Handlers = [(evt.EVT_N_EVENT_REPORT, report), (evt.EVT_DIMSE_SENT, sent)]
        try:
            with self._association(destination, [context], handlers) as association:
                answer, _ = association.send_n_action(information, 1, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)
                response = _response_of(answer)
                deadline = time.monotonic() + (wait if response.status == SUCCESS else 0)
                while association.is_established and not answered.is_set() and time.monotonic() < deadline:
                    answered.wait(0.02)
                if answered.is_set():
                    time.sleep(_LEAVES_IN)
                return response
        except ContextsRejected:
            return Response(CLASS_NOT_SUPPORTED, "the destination does not take Storage Commitment")
        except (NodeError, RuntimeError, ValueError) as error:
            return Response(None, str(error))

    def find(self, destination: Destination, sought: Sequence[InstanceReference]) -> set[str]:
        """Return the SOP Instance UIDs, of those sought, that a destination knows (Study Root, level IMAGE).

        Each series is asked for with its keys; several instances of one are listed by the destination and compared
        here, because not every archive takes a list of UIDs.

        Raises
        ------
        DestinationUnreachable, AssociationRejected, ContextsRejected, QueryFailed
            When it cannot be asked, or does not answer to the end.
        """
        context = build_context(STUDY_ROOT_FIND, list(UNCOMPRESSED))
        found: set[str] = set()
        with self._association(destination, [context]) as association:
            for (study_uid, series_uid), wanted in by_series(sought).items():
                query = Dataset()
                query.QueryRetrieveLevel = "IMAGE"
                query.StudyInstanceUID, query.SeriesInstanceUID = study_uid, series_uid
                query.SOPInstanceUID = next(iter(wanted)) if len(wanted) == 1 else ""
                found |= wanted & set(_matches(association, query))
        return found

    def report(self, peer: Peer, event_type: int, information: Dataset) -> Response:
        """Report on a storage commitment by N-EVENT-REPORT, as its SCP (PS3.4 J.3.3); no status without an answer."""
        context = build_context(STORAGE_COMMITMENT, list(UNCOMPRESSED))
        role = build_role(STORAGE_COMMITMENT, scp_role=True)
        try:
            with self._association(peer, [context], roles=[role]) as association:
                return report_on(association, event_type, information)
        except NodeError as error:
            return Response(None, str(error))

    def _call(self, destination: Destination | Peer) -> Call | None:
        """Return what a connection over TLS is made with; None where none is wanted.

        Raises
        ------
        HandshakeFailed
            When one is wanted, and nothing is known to make it with.
        """
        if not destination.tls:
            return None
        call = self._transport.call(destination.subject) if self._transport else None
        if call is None:
            raise HandshakeFailed(f"{destination.name}: there is no ca in [tls]")
        return call

    @contextmanager
    def _association(
        self,
        destination: Destination | Peer,
        contexts: list[PresentationContext],
        handlers: Handlers = (),
        roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
    ) -> Iterator[Association]:
        connected = Event()

        def opened(event: evt.Event) -> None:
            connected.set()
            _without_delay(event.assoc)

        call = self._call(destination)
        where = f"{destination.name}: {destination.ae_title} at {destination.host}:{destination.port}"
        try:
            association = self._entity.associate(
                destination.host,
                destination.port,
                contexts=contexts,
                ae_title=destination.ae_title,
                max_pdu=MAXIMUM_PDU_SIZE,
                ext_neg=list(roles),
                evt_handlers=[(evt.EVT_CONN_OPEN, opened), *handlers],
                tls_args=_tls_args(call, destination),
            )
        except ValueError as error:  # a name that cannot even be looked up
            raise DestinationUnreachable(f"{where}: {type(error).__name__}") from error
        if not association.is_established:
            raise _no_association(association, where, call, connected=connected.is_set())
        if self._transport and call:
            self._transport.seen.note(f"destination {destination.name}", call.certificate)
        try:
            yield association
        except RuntimeError as error:  # a request on an association that the peer has aborted since
            if association.is_established:
                raise
            raise DestinationUnreachable(f"{where}: aborted") from error
        finally:
            if association.is_established:
                association.release()


def _no_association(association: Association, where: str, call: Call | None, *, connected: bool) -> NodeError:
    if association.is_rejected:
        answer = association.acceptor.primitive
        return AssociationRejected(f"{where}: {answer.reason_str}" if answer else where)
    if association.rejected_contexts:
        return ContextsRejected(where)
    if call and call.fault:
        whose = f": {subject(call.certificate)}" if call.fault is Fault.ANOTHER else ""
        return HandshakeFailed(f"{where}: {call.fault}{whose}")
    return DestinationUnreachable(f"{where}: {'aborted' if connected else 'no connection'}")


def _tls_args(call: Call | None, destination: Destination | Peer) -> tuple[ssl.SSLContext, str] | None:
    return (cast("ssl.SSLContext", call), destination.host) if call else None


def _without_delay(association: Association) -> None:
    """Let nothing that is sent wait until what went before is acknowledged (RFC 896), which peers put off for 40 ms."""
    line = association.dul.socket
    if line is not None and line.socket is not None:
        line.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _send(association: Association, item: Item) -> Response:
    if not any(context.abstract_syntax == item.sop_class_uid for context in association.accepted_contexts):
        return Response(CLASS_NOT_SUPPORTED, "the destination does not take this SOP class")
    try:
        answer = association.send_c_store(item.path)
    except RuntimeError:
        return Response(None, "the association was aborted")
    except Exception as error:  # noqa: BLE001 (whatever pydicom makes of a damaged file: the others are sent)
        return Response(None, f"the file cannot be sent: {type(error).__name__}")
    return _response_of(answer)


def _response_of(answer: Dataset) -> Response:
    status = answer.get("Status")
    if status is None:
        return Response(None, "no answer")
    return Response(int(status), comment=str(answer.get("ErrorComment", "")))


def report_on(association: Association, event_type: int, information: Dataset) -> Response:
    """Send an N-EVENT-REPORT on an association that is there."""
    try:
        answer, _ = association.send_n_event_report(
            information, event_type, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
        )
    except (RuntimeError, ValueError) as error:
        return Response(None, str(error))
    return _response_of(answer)


def request_of(event: evt.Event) -> tuple[int, str, Dataset]:
    """Return action type, SOP Instance UID and information of an N-ACTION; empty information when unreadable."""
    request = cast("N_ACTION", event.request)
    try:
        information = event.action_information
    except Exception:  # noqa: BLE001 (whatever pydicom makes of a stranger's bytes)
        information = Dataset()
    return int(request.ActionTypeID or 0), str(request.RequestedSOPInstanceUID or ""), information


def report_of(event: evt.Event) -> tuple[int, str, Dataset]:
    """Return event type, SOP Instance UID and information of an N-EVENT-REPORT; empty information when unreadable."""
    request = cast("N_EVENT_REPORT", event.request)
    try:
        information = event.event_information
    except Exception:  # noqa: BLE001 (whatever pydicom makes of a stranger's bytes)
        information = Dataset()
    return int(request.EventTypeID or 0), str(request.AffectedSOPInstanceUID or ""), information


def _matches(association: Association, query: Dataset) -> Iterator[str]:
    status: int | None = None
    if association.is_established:
        for answer, identifier in association.send_c_find(query, STUDY_ROOT_FIND):
            status = answer.get("Status")
            if status in PENDING and identifier is not None:
                yield str(identifier.get("SOPInstanceUID", ""))
    if status != SUCCESS:
        raise QueryFailed("no answer" if status is None else f"status {status:04X}H")
