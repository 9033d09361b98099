"""Storage Commitment as SCP: a modality asks for what it has stored, waits or hangs up, and gets the report."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Event

import pytest
from pydicom import Dataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation as Mammogram
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)
from sqlalchemy import select

import node.scp
from config.settings import Caller
from node.intake import utc_now
from node.safekeeping import UNTIL_TAKEN_OVER, Answer
from node.scp import StorageSCP
from node.turns import Turns
from storage.commitment_requests import CommitmentRequest
from storage.database import reading
from storage.tables import commitment_requests as requests
from tests.doors import Clock, Room, an_image, an_open_door, safekeeping
from tests.pacs import a_free_port
from tests.peers import eventually
from tests.records import POLICY

# pynetdicom leaves the socket of a connection that failed to its destructor.
pytestmark = [pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"), pytest.mark.sqlite_alone]

TRANSACTION = "1.2.3.4.5"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the door wait longer than any machine is slow for its peer to be silent."""
    monkeypatch.setattr(node.scp, "_STAYS", 60.0)


@pytest.fixture
def hasty_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take nobody for silent, so that every report goes on a new association, however slow this machine is."""
    monkeypatch.setattr(node.scp, "_SILENCE", 60.0)


def a_request(*pairs: tuple[str, str], transaction: str = TRANSACTION) -> Dataset:
    """Return the action information for (SOP Class UID, SOP Instance UID) pairs."""
    request = Dataset()
    request.TransactionUID = transaction
    request.ReferencedSOPSequence = []
    for sop_class, instance in pairs:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
        request.ReferencedSOPSequence.append(item)
    return request


@dataclass
class Modality:
    """Stores, asks, and takes reports where it is asked to listen.

    Attributes
    ----------
    reports
        Event type and information of each that came.
    answer
        What it answers them with.
    ready
        Reports are answered while this is set.
    messages
        Names of the messages that came on its associations.
    """

    reports: list[tuple[int, Dataset]] = field(default_factory=list)
    answer: int = 0x0000
    ready: Event = field(default_factory=Event)
    messages: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ready.set()
        self._owed = 0

    def _owing(self, event: evt.Event) -> tuple[int, None]:
        self._owed += 1
        return self.report(event)

    def _gone(self, event: evt.Event) -> None:
        if isinstance(event.pdu, P_DATA_TF):
            self._owed = max(0, self._owed - 1)

    def report(self, event: evt.Event) -> tuple[int, None]:
        """Take a report."""
        self.reports.append((int(event.event_type or 0), event.event_information))
        assert self.ready.wait(60)
        return self.answer, None

    def _heard(self, event: evt.Event) -> None:
        self.messages.append(type(event.message).__name__)

    @contextmanager
    def associated(self, door: StorageSCP, *, calling: str = "MODALITY") -> Iterator[Association]:
        """Associate for storage and storage commitment."""
        entity = AE(calling)
        entity.add_requested_context(Mammogram)
        entity.add_requested_context(StorageCommitmentPushModel)
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_N_EVENT_REPORT, self._owing),
            (evt.EVT_PDU_SENT, self._gone),
            (evt.EVT_DIMSE_RECV, self._heard),
        ]
        association = entity.associate("127.0.0.1", door.port, ae_title="MAMMONODE", evt_handlers=handlers)
        assert association.is_established
        yield association
        # pynetdicom's thread ends when an answer follows the release.
        eventually(lambda: not self._owed, seconds=5)
        association.release()

    @contextmanager
    def listening(self, port: int) -> Iterator[None]:
        """Listen for reports on associations of the node."""
        entity = AE("MODALITY")
        entity.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
        server = entity.start_server(
            ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self.report)]
        )
        assert server
        yield
        server.shutdown()

    def told(self) -> tuple[int, list[str], dict[str, int]]:
        """Return event type, committed instances, and the failed ones with their reasons, of its only report."""
        [(kind, report)] = self.reports
        assert report.TransactionUID == TRANSACTION
        failed = {str(i.ReferencedSOPInstanceUID): int(i.FailureReason) for i in report.get("FailedSOPSequence", ())}
        return kind, [str(i.ReferencedSOPInstanceUID) for i in report.get("ReferencedSOPSequence", ())], failed


def ask(association: Association, request: Dataset, kind: int = 1, instance: str = "") -> int:
    """Ask for storage commitment, and return the status of the answer."""
    answer, _ = association.send_n_action(
        request, kind, StorageCommitmentPushModel, instance or StorageCommitmentPushModelInstance
    )
    return int(answer.Status)


def nothing_is_owed(room: Room) -> bool:
    """Tell whether every report has been taken."""
    with reading(room.engine) as connection:
        return not connection.execute(select(requests.c.id).where(requests.c.finished_at.is_(None))).all()


def images(number: int) -> Sequence[Dataset]:
    """Return images of one study."""
    return [an_image(SOPInstanceUID=f"1.2.3.{n}") for n in range(1, number + 1)]


def store(association: Association, image: Dataset) -> None:
    """Store an image, whose File Meta Information follows."""
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    assert association.send_c_store(image).Status == 0x0000


def test_a_modality_that_waits_gets_the_report_on_its_association(room: Room) -> None:
    modality = Modality()
    first, second = images(2)
    with an_open_door(room) as door, modality.associated(door) as association:
        for image in (first, second):
            store(association, image)
        asked = [(str(image.SOPClassUID), str(image.SOPInstanceUID)) for image in (first, second)]
        assert ask(association, a_request(*asked)) == 0x0000
        assert eventually(lambda: len(modality.reports) == 1)
        # It can be used further.
        assert eventually(lambda: safekeeping(room, ()).report_due() == 0)
        store(association, an_image(SOPInstanceUID="1.2.3.9"))
    assert modality.told() == (1, ["1.2.3.1", "1.2.3.2"], {})


def test_only_what_is_held_in_its_class_and_size_is_committed(room: Room) -> None:
    modality = Modality()
    good, truncated, gone = images(3)
    for image in (good, truncated, gone):
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        room.receive(image)
    files = {path.stem: path for path in room.store.root.rglob("*.dcm")}
    files["1.2.3.2"].write_bytes(files["1.2.3.2"].read_bytes()[:-2])
    files["1.2.3.3"].unlink()
    asked = [(str(Mammogram), uid) for uid in ("1.2.3.1", "1.2.3.2", "1.2.3.3", "1.2.3.4")]
    with an_open_door(room) as door, modality.associated(door) as association:
        assert ask(association, a_request(*asked, ("1.2.840.10008.5.1.4.1.1.7", "1.2.3.1"))) == 0x0000
        assert eventually(lambda: len(modality.reports) == 1)
    kind, committed, failed = modality.told()
    assert (kind, committed) == (2, ["1.2.3.1"])
    assert failed == {"1.2.3.1": 0x0119, "1.2.3.2": 0x0112, "1.2.3.3": 0x0112, "1.2.3.4": 0x0112}


@pytest.mark.usefixtures("hasty_peers")
def test_a_modality_that_hangs_up_is_called_at_its_port_until_it_answers(room: Room) -> None:
    modality, clock, port = Modality(answer=0x0110), Clock(), a_free_port()
    keeping = safekeeping(room, (Caller(ae_title="MODALITY", port=port),), clock)
    with an_open_door(room, keeping=keeping) as door:
        with modality.associated(door) as association:
            assert ask(association, a_request((str(Mammogram), "1.2.3.1"))) == 0x0000
        assert eventually(lambda: keeping.report_due() == 1)  # nobody listens
        assert keeping.report_due() == 0
        with modality.listening(port):
            clock.forward(POLICY.slow)
            assert keeping.report_due() == 1  # refused
            modality.answer = 0x0000
            clock.forward(POLICY.slow)
            keeping = safekeeping(room, (Caller(ae_title="MODALITY", port=port),), clock)  # as after a restart
            assert keeping.report_due() == 1
            clock.forward(timedelta(days=1))
            assert keeping.report_due() == 0
    assert [report.FailedSOPSequence[0].FailureReason for _, report in modality.reports] == [0x0112, 0x0112]


@pytest.mark.usefixtures("hasty_peers")
def test_a_report_that_never_arrives_is_given_up_by_the_policy(room: Room) -> None:
    clock = Clock()
    keeping = safekeeping(room, (Caller(ae_title="MODALITY"),), clock)  # without a port
    with an_open_door(room, keeping=keeping) as door:
        with Modality().associated(door) as association:
            ask(association, a_request((str(Mammogram), "1.2.3.1")))
        assert eventually(lambda: keeping.report_due() == 1)
    tries = 1
    clock.forward(POLICY.slow)
    while (wait := keeping.turn()) is not None:
        tries += 1
        assert 0 < wait <= POLICY.slow.total_seconds()
        assert keeping.report_due() == 0
        clock.forward(timedelta(seconds=wait))
    assert tries + 1 == POLICY.attempts


def test_time_in_which_no_report_was_tried_counts_for_nothing(room: Room) -> None:
    clock = Clock()
    keeping = safekeeping(room, (Caller(ae_title="MODALITY"),), clock)  # without a port
    information = a_request((str(Mammogram), "1.2.3.1"))
    keeping.requested(1, StorageCommitmentPushModelInstance, information, "MODALITY", "127.0.0.1")
    clock.forward(timedelta(days=7))  # off, or a clock that went forward
    for _ in range(2):
        assert keeping.report_due() == 1
        assert keeping.turn() is not None
        clock.forward(POLICY.slow)


def test_a_report_that_a_killed_process_owed_is_sent_by_the_next_one(room: Room) -> None:
    modality, clock, port = Modality(), Clock(), a_free_port()
    keeping = safekeeping(room, (Caller(ae_title="MODALITY", port=port),), clock)
    status, request = keeping.requested(
        1, StorageCommitmentPushModelInstance, a_request((str(Mammogram), "1.2.3.1")), "MODALITY", "127.0.0.1"
    )
    assert (status, request is not None) == (0x0000, True)
    next_one = safekeeping(room, (Caller(ae_title="MODALITY", port=port),), clock)
    service = Turns("commitment reports", lambda _: next_one.turn(), 0.01)
    with modality.listening(port):
        clock.forward(UNTIL_TAKEN_OVER)
        service.start()
        assert eventually(lambda: len(modality.reports) == 1)
        service.stop()


@pytest.mark.usefixtures("hasty_peers")
def test_a_modality_that_goes_on_storing_is_not_disturbed(room: Room) -> None:
    modality, port = Modality(), a_free_port()
    keeping = safekeeping(room, (Caller(ae_title="MODALITY", port=port),))
    with an_open_door(room, keeping=keeping) as door, modality.listening(port):
        with modality.associated(door) as association:
            ask(association, a_request((str(Mammogram), "1.2.3.1")))
            for image in images(3):
                store(association, image)
        assert eventually(lambda: keeping.report_due() == 1)
    assert modality.told()[1:] == (["1.2.3.1"], {})  # it has come meanwhile
    assert "N_EVENT_REPORT_RQ" not in modality.messages


def test_the_same_request_is_reported_on_again_and_another_under_its_uid_fails(room: Room) -> None:
    modality = Modality()
    one, other = a_request((str(Mammogram), "1.2.3.1")), a_request((str(Mammogram), "1.2.3.2"))
    with an_open_door(room) as door, modality.associated(door) as association:
        for number, request in enumerate((one, one, other), 1):
            assert ask(association, request) == 0x0000
            assert eventually(lambda number=number: len(modality.reports) == number)  # type: ignore[misc]
            assert eventually(lambda: nothing_is_owed(room))  # pynetdicom's client must not ask while it answers
    reasons = [report.FailedSOPSequence[0].FailureReason for _, report in modality.reports]
    assert reasons == [0x0112, 0x0112, 0x0131]


def test_what_crosses_the_report_is_served_and_two_reports_follow_one_another(room: Room) -> None:
    modality = Modality()
    modality.ready.clear()
    with an_open_door(room) as door, modality.associated(door) as association:
        assert ask(association, a_request((str(Mammogram), "1.2.3.1"))) == 0x0000
        assert eventually(lambda: len(modality.reports) == 1)
        # The node waits for its answer, which comes after these.
        for image in images(2):
            store(association, image)
        assert ask(association, a_request((str(Mammogram), "1.2.3.2"), transaction="1.2.3.4.6")) == 0x0000
        modality.ready.set()
        assert eventually(lambda: nothing_is_owed(room))
        store(association, an_image(SOPInstanceUID="1.2.3.9"))
    assert [(kind, str(report.TransactionUID)) for kind, report in modality.reports] == [
        (2, "1.2.3.4.5"),
        (1, "1.2.3.4.6"),
    ]


def test_the_report_follows_the_response_however_late_that_goes(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    modality, keeping = Modality(), safekeeping(room, ())
    decide, decided = keeping.answer, Event()
    early: list[bool] = []

    def answer(request: CommitmentRequest) -> Answer:
        decided.set()
        return decide(request)

    def sending(event: evt.Event) -> None:
        if type(event.message).__name__ == "N_ACTION_RSP":
            early.append(decided.wait(0.2))

    monkeypatch.setattr(keeping, "answer", answer)
    monkeypatch.setattr(node.scp, "_SILENCE", 0.0)
    with an_open_door(room, keeping=keeping) as door:
        door._running.bind(evt.EVT_DIMSE_SENT, sending)  # noqa: SLF001 (is called just before)
        with modality.associated(door) as association:
            assert ask(association, a_request((str(Mammogram), "1.2.3.1"))) == 0x0000
            assert eventually(lambda: nothing_is_owed(room))
    assert early == [False]
    assert modality.messages == ["N_ACTION_RSP", "N_EVENT_REPORT_RQ"]


def malformed() -> list[tuple[Dataset, int, str, int]]:
    """Return requests that cannot be taken, and what each is answered with."""
    good = a_request((str(Mammogram), "1.2.3.1"))
    without = a_request((str(Mammogram), "1.2.3.1"))
    del without.TransactionUID
    half = a_request((str(Mammogram), "1.2.3.1"))
    del half.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    return [
        (good, 2, "", 0x0123),
        (good, 1, "1.2.3", 0x0112),
        (a_request(), 1, "", 0x0115),
        (without, 1, "", 0x0115),
        (half, 1, "", 0x0115),
    ]


@pytest.mark.parametrize(("request_", "kind", "instance", "status"), malformed())
def test_a_malformed_request_is_refused_and_nothing_is_reported(
    room: Room, request_: Dataset, kind: int, instance: str, status: int
) -> None:
    with an_open_door(room) as door, Modality().associated(door) as association:
        assert ask(association, request_, kind, instance) == status
    assert safekeeping(room, (), Clock(utc_now() + timedelta(days=1))).report_due() == 0
