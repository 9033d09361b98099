"""`serve` within the test process: opened, told new settings while it runs, drained."""

import errno
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread

import httpx2
import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from structlog.testing import capture_logs

from config.settings import TEST_AE_TITLE, Caller, Delivery, Destination, Dicom, Http, Settings, Storage
from node.clock import ExamClock
from node.doors import reachable, web_answers
from node.intake import Intake, utc_now
from node.scu import Peer, Sender
from node.serving import LOOKS_EVERY, LOOKS_EVERY_IDLE, LOOKS_EVERY_READING, Serving
from storage.database import installation_id, reading, writing
from storage.errors import StoreOfAnother
from storage.exams import list_exams
from storage.senders import list_senders
from storage.states import DeliveryState, ExamState
from storage.tokens import add_token, list_tokens
from tests.builders import altered
from tests.doors import ROOM_ENOUGH, Clock, Room, phantom_images
from tests.pacs import a_free_port, a_pacs, hangs_until, waiting_results
from tests.peers import eventually
from tests.records import a_closed_exam

# pynetdicom leaves the socket of a connection that failed to its destructor.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

QUICK = Delivery(first_retry=0.2, slowest_retry=0.5, poll=0.05)


def settings_of(folder: Path, *, callers: tuple[Caller, ...] = (), **destinations: int) -> Settings:
    return Settings(
        dicom=Dicom(port=0, callers=callers),
        storage=Storage(folder=folder / "store", max_used_percent=100, min_free_gb=0),
        delivery=QUICK,
        http=Http(port=0),
        destinations=tuple(
            Destination(name=name, ae_title="PACS", host="127.0.0.1", port=port) for name, port in destinations.items()
        ),
    )


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    opened = Serving(settings_of(tmp_path))
    opened.open()
    with closing(opened):
        yield opened
    opened.parts.engine.dispose()


def is_let_in(serving: Serving, title: str) -> bool:
    entity = AE(title)
    entity.add_requested_context(Verification)
    association = entity.associate("127.0.0.1", serving.dicom_port, ae_title="MAMMONODE")
    if association.is_established:
        association.release()
        return True
    return False


def test_a_caller_that_the_settings_name_anew_is_let_in_while_others_are_served(
    serving: Serving, tmp_path: Path
) -> None:
    entity = AE("STAYS")
    entity.add_requested_context(Verification)
    serving.use(settings_of(tmp_path, callers=(Caller(ae_title="STAYS"),)))
    association = entity.associate("127.0.0.1", serving.dicom_port, ae_title="MAMMONODE")
    assert association.is_established
    assert not is_let_in(serving, "LATE")
    serving.use(settings_of(tmp_path, callers=(Caller(ae_title="LATE"),)))
    assert is_let_in(serving, "LATE")
    assert not is_let_in(serving, "STAYS")
    assert association.send_c_echo().Status == 0
    association.release()


def test_a_destination_that_the_settings_name_anew_gets_what_waits_for_it(serving: Serving, tmp_path: Path) -> None:
    results = waiting_results(serving.parts.store, serving.parts.engine, ["pacs"])
    with a_pacs() as (pacs, port):
        serving.use(settings_of(tmp_path, pacs=port))
        assert eventually(lambda: len(pacs.received) == len(results))
        assert "pacs" not in serving.status() or eventually(lambda: "pacs" not in serving.status())


@pytest.mark.parametrize("tests", [True, False])
def test_destinations_for_tests_alone_are_none_for_patients(serving: Serving, tmp_path: Path, *, tests: bool) -> None:
    settings = settings_of(tmp_path, trial=1)
    trial = settings.destinations[0].model_copy(update={"test": tests})
    with capture_logs() as lines:
        serving.use(settings.model_copy(update={"destinations": (trial,)}))
    assert ("no destinations" in [line["event"] for line in lines]) is tests


def test_what_a_lane_has_in_hand_is_not_sent_by_its_successor(serving: Serving, tmp_path: Path) -> None:
    results = waiting_results(serving.parts.store, serving.parts.engine, ["pacs"])
    go_on = Event()
    with a_pacs(hangs_until(go_on)) as (pacs, port):
        serving.use(settings_of(tmp_path, pacs=port))
        assert eventually(lambda: len(pacs.received) == 1)
        serving.use(settings_of(tmp_path, pacs=port))
        go_on.set()
        outbox = serving.parts.outbox
        assert eventually(lambda: {each.state for each in outbox.of_exam(1)} == {DeliveryState.SENT})
        assert sorted(pacs.received) == sorted({record.uid for record in results})


def test_a_start_says_which_exams_wait_for_an_operator(tmp_path: Path) -> None:
    opened = Serving(settings_of(tmp_path))
    with closing(opened):
        room = Room(
            opened.parts.store, opened.parts.engine, Intake(opened.parts.store, opened.parts.engine, ROOM_ENOUGH)
        )
        exams = []
        for number, keyword in enumerate(("PatientID", "SeriesDescription")):
            image = altered(phantom_images()[number], StudyInstanceUID=f"2.25.{number}")
            exams.append(room.receive(image).exam_uid)
            room.receive(altered(image, **{keyword: "OTHER"}))
        with capture_logs() as lines:
            opened.open()
    opened.parts.engine.dispose()
    told = [line for line in lines if line["event"] == "exams wait for an operator"]
    assert [(line["exams"], line["log_level"]) for line in told] == [([exams[0]], "critical")]


def test_it_looks_as_soon_as_an_exam_is_due_and_more_often_while_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("node.serving.utc_now", clock)
    opened = Serving(settings_of(tmp_path))
    store, engine = opened.parts.store, opened.parts.engine
    room = Room(store, engine, Intake(store, engine, ROOM_ENOUGH, clock=clock))
    quiet = opened.parts.settings.exam.policy.complete_quiet

    def gone(_: object) -> int:
        raise OSError("no database")

    opened.open()
    with closing(opened):
        [judging] = [chore for chore in opened.chores() if "_close_exams" in repr(chore.do)]
        assert judging.early == 0
        judging.do()
        assert judging.every == LOOKS_EVERY_IDLE
        for image in phantom_images():
            room.receive(image)
        judging.do()
        assert judging.every == LOOKS_EVERY
        clock.forward(quiet - timedelta(seconds=0.3))
        judging.do()
        assert judging.every == pytest.approx(0.3)
        with monkeypatch.context() as patched:
            patched.setattr(ExamClock, "tick", gone)
            with pytest.raises(OSError, match="no database"):
                judging.do()
        assert judging.every == LOOKS_EVERY  # and not again at once, as long as there is none
        clock.forward(timedelta(seconds=0.3))
        judging.do()
        assert judging.every == LOOKS_EVERY_READING
        with reading(engine) as connection:
            assert [exam.state for exam in list_exams(connection, 9)] == [ExamState.QUEUED]
    engine.dispose()


def test_the_store_is_its_own_or_nothing_is_removed_there(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    [removing] = [chore.do for chore in serving.chores() if "_remove_files" in repr(chore.do)]
    assert serving.parts.store.owner() == installation_id(serving.parts.engine)
    removing()
    serving.parts.store.mark("ab" * 16)
    monkeypatch.setattr(
        "node.retention.Retention.tick", lambda _: pytest.fail("something was looked for to be removed")
    )
    with pytest.raises(StoreOfAnother, match="mammonode adopt"):
        removing()


def test_it_does_not_start_with_the_store_of_another(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    opened = Serving(settings)
    opened.open()
    opened.close()
    opened.parts.engine.dispose()
    Path(tmp_path / "store" / "mammonode.sqlite").rename(tmp_path / "former.sqlite")
    with pytest.raises(StoreOfAnother, match="give each its own"):
        Serving(settings)


def test_it_says_that_the_store_does_not_answer(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr("shutil.disk_usage", gone)
    assert serving.status() == "0 collecting; 0 queued; the store does not answer"


def test_it_says_what_goes_on(serving: Serving) -> None:
    assert re.fullmatch(r"0 collecting; 0 queued; disk \d+ % used", serving.status())
    a_closed_exam(serving.parts.engine, "1.2.9", study="1.2.8", now=utc_now())
    results = waiting_results(serving.parts.store, serving.parts.engine, ["pacs"])
    told = rf"0 collecting; 1 queued \(oldest \d+ s\); pacs: {len(results)} to send, oldest \d+ s; disk \d+ % used"
    assert re.fullmatch(told, serving.status())


def test_when_a_token_was_used_is_written_down(serving: Serving) -> None:
    with writing(serving.parts.engine) as connection:
        secret = add_token(connection, "viewer", ["read"], utc_now(), None)
    address = f"http://127.0.0.1:{serving.web_port}/dicom-web/studies"
    assert httpx2.get(address, headers={"Authorization": f"Bearer {secret}"}, trust_env=False, timeout=60).is_success
    for chore in serving.chores():
        chore.do()
    with reading(serving.parts.engine) as connection:
        assert list_tokens(connection)[0].used_at is not None


def test_its_doors_are_tended_until_they_are_closed(tmp_path: Path) -> None:
    opened = Serving(settings_of(tmp_path))
    opened.open()
    knocks = Sender(Dicom(ae_title=TEST_AE_TITLE, acse_timeout=20))
    peer = Peer("itself", "MAMMONODE", "127.0.0.1", opened.dicom_port)
    web = opened.web_port or 0
    with capture_logs() as logs:
        assert knocks.knock(peer)
        assert web_answers("127.0.0.1", web, secured=False)
    assert [line for line in logs if line["log_level"] != "debug"] == []
    for chore in opened.chores():
        chore.do()
    with reading(opened.parts.engine) as connection:
        assert list_senders(connection, "") == [], "the node is a sender of its own"
    opened.close()
    assert not knocks.knock(peer)
    assert not web_answers("127.0.0.1", web, secured=False)
    opened.parts.engine.dispose()


def test_no_door_stays_open_while_the_other_lets_end_what_has_begun(tmp_path: Path) -> None:
    opened = Serving(settings_of(tmp_path))
    opened.open()
    closing_it = Thread(target=opened.close)
    port = opened.dicom_port
    address = "127.0.0.1", opened.web_port or 0
    with socket.create_connection(address) as sender:
        # One that has begun to send: the door answers to its first words, and waits for the rest.
        fields = {"Host": "127.0.0.1", "Content-Type": "application/x-www-form-urlencoded", "Content-Length": 9}
        head = [f"{name}: {value}" for name, value in {**fields, "Expect": "100-continue"}.items()]
        sender.sendall("\r\n".join(["POST /login HTTP/1.1", *head, "", ""]).encode())
        assert sender.recv(12) == b"HTTP/1.1 100"
        closing_it.start()
        assert eventually(lambda: not _is_open(port), seconds=20)
        assert closing_it.is_alive()
    closing_it.join(60)
    assert not closing_it.is_alive()
    opened.parts.engine.dispose()


def _is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=30).close()
    except OSError:
        return False
    return True


def test_a_refusal_counts_as_an_answer_and_silence_does_not() -> None:
    with a_pacs(callers=["OTHER"]) as (_, port):
        knocks = Sender(Dicom(ae_title=TEST_AE_TITLE, acse_timeout=20))
        assert knocks.knock(Peer("itself", "MAMMONODE", "127.0.0.1", port))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        knocks = Sender(Dicom(ae_title=TEST_AE_TITLE, acse_timeout=0.5))
        assert not knocks.knock(Peer("itself", "MAMMONODE", "127.0.0.1", silent.getsockname()[1]))
    assert not knocks.knock(Peer("itself", "MAMMONODE", "127.0.0.1", a_free_port()))


@pytest.mark.parametrize(
    ("bind", "host"),
    [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("192.0.2.1", "192.0.2.1")],  # noqa: S104 (compared)
)
def test_a_door_on_every_address_is_reached_at_the_loopback_one(bind: str, host: str) -> None:
    assert reachable(bind) == host
