"""UPS-RS: readings as workitems that others search, watch, cancel and ask for, over both databases."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine
from starlette.websockets import WebSocketDisconnect
from structlog.testing import capture_logs

from config.settings import WebService
from node.intake import utc_now
from node.selftest import synthetic_exam
from node.web.bearer import Tokens, Uses
from node.web.dicom_json import DEEPEST
from node.worklist import Worklist
from storage.database import open_database, reading, writing
from storage.exams import close, leave, list_exams
from storage.jobs import CANCELLED, JobQueue
from storage.states import ExamState, JobState, Plan, StepState
from storage.tokens import add_token, revoke_token
from storage.workitems import GLOBAL, change, get_workitem, has_been_told, subscribe, untold
from tests.databases import SQLiteDatabases
from tests.doors import Room, a_room, an_image, phantom_images
from tests.records import LEASE, MODEL, POLICY
from tests.web import Service, a_service, an_address, values

STATE, READY, UID, REASON = "00741000", "00404041", "00080018", "00741238"
STUDY = str(phantom_images()[0].StudyInstanceUID)
SOURCE = "https://archive.example/dicom-web"


@pytest.fixture
def service(room: Room) -> Iterator[Service]:
    with a_service(room) as opened:
        yield opened


def queue_of(service: Service) -> JobQueue:
    return JobQueue(service.room.engine, POLICY, LEASE)


def close_exam(service: Service) -> int:
    """Close the newest exam into a job, as the exam clock does."""
    with writing(service.room.engine) as connection:
        exam = list_exams(connection, 1)[0]
        how: dict[str, Any] = {"plan": Plan.READ, "reasons": (), "model_digest": MODEL, "now": utc_now()}
        return close(connection, exam, chosen={}, rejected={}, **how)


def read(service: Service, answer: str = "no_findings") -> None:
    """Let a worker read what is due."""
    queue, now = queue_of(service), utc_now() + timedelta(seconds=1)
    job = queue.claim("worker", now)
    assert job
    queue.finish(job, "worker", answer=answer, results=[], destinations={}, timings={}, now=now)


def workitems(service: Service, **query: Any) -> list[dict[str, Any]]:
    service.worklist.tick()
    answer = service.get("/workitems", **query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


def states(service: Service, **query: Any) -> list[tuple[str, str]]:
    return [(values(each, STATE)[0], values(each, READY)[0]) for each in workitems(service, **query)]


def test_every_reading_is_a_workitem_from_the_first_image_to_the_answer(service: Service) -> None:
    assert workitems(service) == []
    service.store(*phantom_images())
    assert states(service) == [("SCHEDULED", "INCOMPLETE")]
    close_exam(service)
    assert states(service) == [("SCHEDULED", "READY")]
    job = queue_of(service).claim("worker", utc_now() + timedelta(seconds=1))
    assert job
    assert states(service) == [("IN PROGRESS", "READY")]
    queue_of(service).finish(
        job, "worker", answer="no_findings", results=[], destinations={}, timings={}, now=utc_now()
    )
    assert states(service) == [("COMPLETED", "READY")]
    [item] = workitems(service)
    uid = values(item, UID)[0]
    [whole] = service.get(f"/workitems/{uid}").json()
    assert whole == item
    images = {
        values(each, "00081155")[0] for series in values(whole, "00404021") for each in values(series, "00081199")
    }
    assert images == {str(image.SOPInstanceUID) for image in phantom_images()}
    assert values(whole, "00100020") == [phantom_images()[0].PatientID]
    assert "00081195" not in whole
    assert service.worklist.tick() == 0


def test_the_exam_of_a_self_test_is_nobodys_work(service: Service) -> None:
    service.store(*synthetic_exam(utc_now()).images)
    close_exam(service)
    read(service)
    assert workitems(service) == []


def test_a_later_image_ends_the_workitem_whose_reading_it_supersedes(service: Service) -> None:
    service.store(*phantom_images()[:3])
    workitems(service)
    close_exam(service)
    workitems(service)
    service.store(phantom_images()[3])
    assert sorted(states(service)) == [("SCHEDULED", "INCOMPLETE"), ("SCHEDULED", "READY")]
    close_exam(service)
    found = workitems(service)
    assert sorted(values(each, STATE)[0] for each in found) == ["CANCELED", "SCHEDULED"]
    [old] = [each for each in found if values(each, STATE) == ["CANCELED"]]
    assert "revision 2" in values(values(old, "00741002")[0], REASON)[0]


@pytest.mark.parametrize("asked_for", [False, True])
@pytest.mark.parametrize("finished", [False, True])
def test_a_reading_that_a_later_image_does_not_stop_is_completed(
    service: Service, *, finished: bool, asked_for: bool
) -> None:
    if asked_for:
        ask(service, a_request())
    service.store(*phantom_images()[:3])
    [item] = workitems(service)
    close_exam(service)
    queue = queue_of(service)
    job = queue.claim("worker", utc_now() + timedelta(seconds=1))
    assert job
    service.worklist.tick()
    how: dict[str, Any] = {"answer": "findings", "results": [], "destinations": {}, "timings": {}}
    if finished:
        queue.finish(job, "worker", **how, now=utc_now())
    service.store(phantom_images()[3])
    if not finished:
        assert sorted(states(service)) == [("IN PROGRESS", "READY"), ("SCHEDULED", "INCOMPLETE")]
        queue.finish(job, "worker", **how, now=utc_now())
    assert sorted(states(service)) == [("COMPLETED", "READY"), ("SCHEDULED", "INCOMPLETE")]
    [done] = workitems(service, ProcedureStepState="COMPLETED")
    assert values(done, UID) == values(item, UID)


def test_a_cancellation_that_comes_after_a_later_image_is_answered_once(service: Service) -> None:
    service.store(*phantom_images()[:3])
    [item] = workitems(service)
    close_exam(service)
    workitems(service)
    service.store(phantom_images()[3])
    with capture_logs() as logs:
        assert service.client.post(f"/dicom-web/workitems/{values(item, UID)[0]}/cancelrequest").status_code == 202
        workitems(service)
        service.worklist.tick()
    assert [each["event"] for each in logs].count("reading goes on") == 1


def test_workitems_are_searched(service: Service) -> None:
    service.store(*phantom_images())
    image = phantom_images()[0]
    for query, number in (
        ({"ProcedureStepState": "SCHEDULED"}, 1),
        ({"ProcedureStepState": "COMPLETED"}, 0),
        ({"PatientID": str(image.PatientID)}, 1),
        ({"PatientName": str(image.PatientName).lower()[:2] + "*"}, 1),
        ({"00404021.0020000D": STUDY}, 1),
        ({"ScheduledProcedureStepStartDateTime": "2020-"}, 1),
        ({"ScheduledProcedureStepStartDateTime": "-2020"}, 0),
        ({"WorklistLabel": "MAMMONODE", "InputReadinessState": "INCOMPLETE"}, 1),
    ):
        assert len(workitems(service, **query)) == number, query
    for query in (
        {"Rows": "5"},
        {"nonsense": "5"},
        {"ScheduledProcedureStepStartDateTime": "yesterday"},
        {"limit": "x"},
    ):
        assert service.get("/workitems", **query).status_code == 400


def test_who_searches_or_retrieves_workitems_is_in_the_audit_trail(service: Service) -> None:
    service.store(*phantom_images())
    [item] = workitems(service)
    uid = values(item, UID)[0]
    service.facts.clear()
    service.get("/workitems", PatientName="MARKED*")
    service.get(f"/workitems/{uid}")
    service.get("/workitems/1.2.3")
    who = {"who": "tester", "address": "testclient"}
    assert service.facts == [
        ("searched", who | {"path": "/workitems", "query": "PatientName=*withheld*"}),
        ("searched", who | {"path": f"/workitems/{uid}", "query": ""}),
    ]


def test_a_reading_can_be_cancelled_and_its_exam_is_still_answered(service: Service) -> None:
    service.store(*phantom_images())
    job = close_exam(service)
    [item] = workitems(service)
    uid = values(item, UID)[0]
    assert service.client.post(f"/dicom-web/workitems/{uid}/cancelrequest").status_code == 202
    [waiting] = queue_of(service).list_jobs(5)
    assert (waiting.id, waiting.plan, waiting.reasons) == (job, Plan.NOT_ANALYSED, (CANCELLED,))
    read(service, "not_analysed")
    [item] = workitems(service)
    assert values(item, STATE) == ["CANCELED"]
    assert CANCELLED in values(values(item, "00741002")[0], REASON)[0]
    with reading(service.room.engine) as connection:
        assert list_exams(connection, 1)[0].state is ExamState.ANSWERED
    assert service.client.post(f"/dicom-web/workitems/{uid}/cancelrequest").status_code == 409
    assert service.client.post("/dicom-web/workitems/1.2.3/cancelrequest").status_code == 404


def test_what_is_cancelled_before_it_is_queued_is_not_read(service: Service) -> None:
    service.store(*phantom_images())
    [item] = workitems(service)
    service.client.post(f"/dicom-web/workitems/{values(item, UID)[0]}/cancelrequest")
    close_exam(service)
    workitems(service)
    [job] = queue_of(service).list_jobs(5)
    assert (job.state, job.plan) == (JobState.QUEUED, Plan.NOT_ANALYSED)


def test_nobody_else_performs_or_changes_our_workitems(service: Service) -> None:
    service.store(*phantom_images())
    [item] = workitems(service)
    uid = values(item, UID)[0]
    assert service.client.put(f"/dicom-web/workitems/{uid}/state", json={}).status_code == 403
    assert service.client.post(f"/dicom-web/workitems/{uid}", json=[{}]).status_code == 403
    assert service.client.put("/dicom-web/workitems/1.2.3/state", json={}).status_code == 404


# --- asking for a reading ---


def a_request(study: str = STUDY, retrieve: str = "", more: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return a workitem as a requester writes it."""
    source: dict[str, Any] = {"0020000D": {"vr": "UI", "Value": [study]}}
    if retrieve:
        source["0040E025"] = {"vr": "SQ", "Value": [{"00081190": {"vr": "UR", "Value": [retrieve]}}]}
    item = {
        STATE: {"vr": "CS", "Value": ["SCHEDULED"]},
        "00741200": {"vr": "CS", "Value": ["HIGH"]},
        "00741204": {"vr": "LO", "Value": ["Second opinion"]},
        "00081195": {"vr": "UI"},
        "00404021": {"vr": "SQ", "Value": [source]},
    }
    return [item | (more or {})]


def ask(service: Service, document: Any, uid: str = "2.25.77") -> Any:
    return service.client.post(
        f"/dicom-web/workitems?workitem={uid}",
        content=document if isinstance(document, bytes) else json.dumps(document),
        headers={"Content-Type": "application/dicom+json"},
    )


def test_somebody_can_ask_for_a_reading_of_a_study_that_comes_later(service: Service) -> None:
    answer = ask(service, a_request())
    assert answer.status_code == 201
    assert answer.headers["location"] == "http://testserver/dicom-web/workitems/2.25.77"
    assert states(service) == [("SCHEDULED", "INCOMPLETE")]
    service.store(*phantom_images())
    [item] = workitems(service)
    assert values(item, UID) == ["2.25.77"]
    assert values(item, "00741204") == ["Second opinion"]
    close_exam(service)
    workitems(service)
    read(service)
    assert states(service) == [("COMPLETED", "READY")]
    assert ask(service, a_request()).status_code == 409


def test_what_is_asked_for_is_found_by_each_group_of_the_name(service: Service) -> None:
    name = {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}
    ask(service, a_request(more={"00100010": {"vr": "PN", "Value": [name]}}))
    for wanted in (*name.values(), "=".join(name.values())):
        assert len(workitems(service, PatientName=wanted)) == 1, wanted


def test_times_are_told_and_searched_with_their_offset(service: Service) -> None:
    wanted = {"00080201": {"vr": "SH", "Value": ["+0200"]}, "00404005": {"vr": "DT", "Value": ["20301122080000"]}}
    ask(service, a_request(more=wanted))
    [item] = workitems(service)
    assert values(item, "00404005") == ["20301122060000+0000"]
    assert values(item, "00404010")[0].endswith("+0000")
    for query, number in (
        ("20301122060000+0000", 1),
        ("20301122010000-0500", 1),
        ("20301122060000-0500", 0),
        ("20301122080000+0200-20301122080000+0200", 1),
        ("20301122080001+0200-", 0),
        ("-20301122005959-0500", 0),
    ):
        assert len(workitems(service, ScheduledProcedureStepStartDateTime=query)) == number, query
    for malformed in ({"00080201": {"vr": "SH", "Value": ["east"]}}, {"00404005": {"vr": "DT", "Value": ["20301322"]}}):
        assert ask(service, a_request(more=wanted | malformed), "2.25.78").status_code == 400


def test_a_reading_of_a_study_that_was_read_is_there_at_once(service: Service) -> None:
    service.store(*phantom_images())
    close_exam(service)
    read(service)
    workitems(service)
    ask(service, a_request())
    found = workitems(service, SOPInstanceUID="2.25.77")
    assert [values(each, STATE)[0] for each in found] == ["COMPLETED"]


def test_what_is_asked_for_can_be_cancelled_before_images_come(service: Service) -> None:
    ask(service, a_request())
    assert service.client.post("/dicom-web/workitems/2.25.77/cancelrequest").status_code == 202
    assert [state for state, _ in states(service)] == ["CANCELED"]


@pytest.fixture
def retrieving(room: Room) -> Iterator[Service]:
    with a_service(room, sources=(WebService(url=SOURCE),)) as opened:
        yield opened


def test_requests_that_are_none_are_refused(retrieving: Service) -> None:
    service = retrieving
    for document in (
        b"{",
        b"[" * 100_000,
        b"null",
        b"[{}, {}]",
        json.dumps({"x": 1}).encode(),
        json.dumps(a_request(more={STATE: {"vr": "CS", "Value": ["COMPLETED"]}})).encode(),
        json.dumps(a_request(more={"00081195": {"vr": "UI", "Value": ["1.2"]}})).encode(),
        json.dumps(a_request("not a uid")).encode(),
        json.dumps(a_request(more={"00404021": {"vr": "SQ"}})).encode(),
        json.dumps(a_request(retrieve=f"http://elsewhere/studies/{STUDY}")).encode(),
        json.dumps(a_request(retrieve="http://elsewhere/")).encode(),
        json.dumps(a_request(retrieve=f"{SOURCE}/\x01/studies/{STUDY}")).encode(),
        json.dumps(a_request(retrieve=f"{SOURCE}/{'a' * 70_000}/studies/{STUDY}")).encode(),
        json.dumps(a_request(retrieve=f"{SOURCE}/../admin/studies/{STUDY}")).encode(),
        json.dumps(a_request(retrieve=f"{SOURCE}/%2E%2E/admin/studies/{STUDY}")).encode(),
        json.dumps(a_request(more={"00404018": {"vr": "SQ", "Value": ["nonsense"]}})).encode(),
        json.dumps(a_request(more={"00101030": {"vr": "DS", "Value": [float("nan")]}})).encode(),
    ):
        answer = ask(service, document)
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json"), document[:60]
    assert ask(service, a_request(), "nonsense").status_code == 400
    assert ask(service, b"[" + b" " * 2_000_000 + b"]").status_code == 413
    assert workitems(service) == []


def test_what_is_nested_too_deep_is_refused_and_what_is_taken_is_given_again(service: Service) -> None:
    nested: dict[str, Any] = {
        "00080100": {"vr": "SH", "Value": ["A", None]},
        "00101001": {"vr": "PN", "Value": [{"Alphabetic": "Family^Given", "Ideographic": "山田"}, None]},
        "00409096": {"vr": "SQ", "Value": [{}]},
        "00404052": {"vr": "DT"},
        "0040A30A": {"vr": "DS", "Value": [1, 2.5, "3", 10**400]},
        "00420011": {"vr": "OB", "InlineBinary": "AAA="},
        "7fe00010": {"vr": "OW", "BulkDataURI": "http://x/y"},
    }
    for _ in range(DEEPEST - 1):
        nested = {"00404018": {"vr": "SQ", "Value": [nested]}}
    assert ask(service, a_request(more=nested)).status_code == 201
    assert ask(service, a_request(more={"00404018": {"vr": "SQ", "Value": [nested]}}), "2.25.78").status_code == 400
    [found] = workitems(service)
    assert found["00404018"] == nested["00404018"]
    xml = service.get("/workitems", 'multipart/related; type="application/dicom+xml"')
    assert xml.status_code == 200
    assert "山田".encode() in xml.content


def test_a_study_that_is_elsewhere_is_retrieved_and_read(
    tmp_path: Path, engine: Engine, sqlite_databases: SQLiteDatabases
) -> None:
    other = open_database(sqlite_databases.fresh())
    with a_service(a_room(tmp_path / "elsewhere", other)) as elsewhere, an_address(elsewhere.app) as url:
        elsewhere.store(*phantom_images())
        source = WebService(url=url)
        with a_service(a_room(tmp_path / "here", engine), sources=(source,)) as service:
            assert ask(service, a_request(retrieve=f"{url}/studies/{STUDY}")).status_code == 201
            assert service.worklist.retrieve_due() == 1
            assert service.room.rows() == (4, 1, 0)
            [item] = workitems(service)
            assert values(item, UID) == ["2.25.77"]
            assert service.worklist.retrieve_due() == 0
            assert not service.leftovers()
            ask(service, a_request("1.2.3.4", retrieve=f"{url}/studies/1.2.3.4"), "2.25.78")
            assert service.worklist.retrieve_due() == 1
            assert values(workitems(service, SOPInstanceUID="2.25.78")[0], STATE) == ["SCHEDULED"]
    other.dispose()


class Retrieves:
    """Tells what is retrieved, and does with it what it is told."""

    def __init__(self, does: Callable[[str], int]) -> None:
        self.asked: list[str] = []
        self._does = does

    def retrieve(self, url: str) -> int:
        self.asked.append(url.rpartition("/")[2])
        return self._does(url)


def retrieved(service: Service, does: Callable[[str], int], turns: int) -> list[str]:
    """Let a worklist retrieve again and again, hours apart, and return which studies it has asked for."""
    times = iter([utc_now() + timedelta(hours=turn) for turn in range(turns)])
    now = [next(times)]
    retrieves = Retrieves(does)
    worklist = Worklist(service.room.engine, queue_of(service), retrieves, POLICY, lambda: now[0])
    for _ in range(turns):
        due = worklist.retrieving()
        assert due is None or due > 0
        now[0] = next(times, now[0])
    assert worklist.retrieving() is None
    return retrieves.asked


@pytest.mark.parametrize("error", [ValueError("of PAT-1"), OSError(28, "No space left on device")])
def test_a_study_that_cannot_be_retrieved_keeps_no_other_waiting(retrieving: Service, error: Exception) -> None:
    def does(url: str) -> int:
        if url.endswith("1.2.3"):
            raise error
        return retrieving.store(*phantom_images()).status_code  # type: ignore[no-any-return]

    ask(retrieving, a_request("1.2.3", retrieve=f"{SOURCE}/studies/1.2.3"), "2.25.1")
    ask(retrieving, a_request(retrieve=f"{SOURCE}/studies/{STUDY}"), "2.25.2")
    with capture_logs() as logs:
        assert retrieved(retrieving, does, 5) == ["1.2.3", STUDY, "1.2.3", "1.2.3"]
    [never] = workitems(retrieving, SOPInstanceUID="2.25.1")
    assert values(never, STATE) == ["CANCELED"]
    assert type(error).__name__ in values(values(never, "00741002")[0], REASON)[0]
    told = [each for each in logs if each["event"] == "study not retrieved"]
    assert [(each["tries"], each["again"]) for each in told] == [(1, True), (2, True), (3, False)]
    assert "PAT-1" not in str(logs)
    assert len(workitems(retrieving, SOPInstanceUID="2.25.2", InputReadinessState="INCOMPLETE")) == 1


def test_a_clock_that_is_put_back_keeps_no_study_waiting(retrieving: Service) -> None:
    ask(retrieving, a_request("1.2.3", retrieve=f"{SOURCE}/studies/1.2.3"), "2.25.1")
    retrieves = Retrieves(lambda _: 0)
    past = utc_now() - timedelta(hours=5)
    Worklist(retrieving.room.engine, queue_of(retrieving), retrieves, POLICY, lambda: past).retrieving()
    assert retrieves.asked == ["1.2.3"]


def test_a_study_that_opens_no_exam_of_the_patient_is_not_retrieved_for_ever(retrieving: Service) -> None:
    somebody = {"00100020": {"vr": "LO", "Value": ["SOMEBODY-ELSE"]}}
    ask(retrieving, a_request(retrieve=f"{SOURCE}/studies/{STUDY}", more=somebody))
    retrieving.store(*phantom_images())
    assert retrieved(retrieving, lambda _: 4, 5) == [STUDY] * 3
    [item] = workitems(retrieving, SOPInstanceUID="2.25.77")
    assert values(item, STATE) == ["CANCELED"]
    assert values(values(item, "00741002")[0], REASON) == ["nothing of it opens an exam of this patient"]


# --- watching ---


def events(service: Service, title: str, number: int) -> list[tuple[str, int, str]]:
    """Return workitem, event type and state of what a subscriber is told."""
    with service.client.websocket_connect(f"/dicom-web/subscribers/{title}") as socket:
        told = [json.loads(socket.receive_text()) for _ in range(number)]
    return [(values(each, "00001000")[0], values(each, "00001002")[0], values(each, STATE)[0]) for each in told]


def test_a_subscriber_is_told_what_happens_once_and_across_connections(service: Service) -> None:
    service.store(*phantom_images())
    [item] = workitems(service)
    uid = values(item, UID)[0]
    answer = service.client.post(f"/dicom-web/workitems/{uid}/subscribers/VIEWER")
    assert answer.status_code == 201
    assert answer.headers["content-location"] == "ws://testserver/dicom-web/subscribers/VIEWER"
    assert events(service, "VIEWER", 1) == [(uid, 1, "SCHEDULED")]
    close_exam(service)
    workitems(service)
    read(service)
    service.worklist.tick()
    assert events(service, "VIEWER", 3) == [(uid, 1, "SCHEDULED"), (uid, 1, "IN PROGRESS"), (uid, 1, "COMPLETED")]
    assert service.client.delete(f"/dicom-web/workitems/{uid}/subscribers/VIEWER").status_code == 200
    assert service.client.delete(f"/dicom-web/workitems/{uid}/subscribers/VIEWER").status_code == 404


def test_a_global_subscriber_is_told_of_all_and_of_cancellations(service: Service) -> None:
    assert service.client.post(f"/dicom-web/workitems/{GLOBAL}/subscribers/PACS").status_code == 201
    ask(service, a_request())
    service.client.post("/dicom-web/workitems/2.25.77/cancelrequest")
    assert events(service, "PACS", 3) == [
        ("2.25.77", 1, "SCHEDULED"),
        ("2.25.77", 2, "SCHEDULED"),
        ("2.25.77", 1, "CANCELED"),
    ]
    ask(service, a_request(), "2.25.78")
    assert service.client.post(f"/dicom-web/workitems/{GLOBAL}/subscribers/PACS/suspend").status_code == 200
    ask(service, a_request(), "2.25.79")
    service.client.post("/dicom-web/workitems/2.25.78/cancelrequest")
    assert {uid for uid, _, _ in events(service, "PACS", 3)} == {"2.25.78"}
    assert service.client.post(f"/dicom-web/workitems/{GLOBAL}/subscribers/PACS/suspend").status_code == 404


def changed(connection: Connection, uid: str) -> None:
    change(connection, get_workitem(connection, uid, lock=True), utc_now(), state=StepState.IN_PROGRESS)


def told(engine: Engine) -> set[str]:
    with reading(engine) as connection:
        reports = untold(connection, "PACS", 50)
    if reports:
        with writing(engine) as connection:
            has_been_told(connection, "PACS", reports)
    return {each.workitem_uid for each in reports}


@contextmanager
def another(engine: Engine, act: Callable[[Connection], object]) -> Iterator[None]:
    """Let another transaction come as far as it can, and end after this block."""

    def do() -> None:
        with writing(engine) as connection:
            act(connection)

    thread = threading.Thread(target=do)
    thread.start()
    thread.join(0.3)
    try:
        yield
    finally:
        thread.join()


def test_events_whose_transactions_overlap_are_all_told(service: Service) -> None:
    engine = service.room.engine
    service.client.post(f"/dicom-web/workitems/{GLOBAL}/subscribers/PACS")
    ask(service, a_request(), "2.25.1")
    ask(service, a_request(), "2.25.2")
    assert told(engine) == {"2.25.1", "2.25.2"}
    with ExitStack() as others, writing(engine) as connection:
        changed(connection, "2.25.1")
        others.enter_context(another(engine, lambda connection: changed(connection, "2.25.2")))
        early = told(engine)
    assert early | told(engine) == {"2.25.1", "2.25.2"}


def test_who_subscribes_while_a_workitem_changes_keeps_nobody_waiting(service: Service) -> None:
    engine = service.room.engine
    ask(service, a_request(), "2.25.1")
    with ExitStack() as others, writing(engine) as connection:
        item = get_workitem(connection, "2.25.1", lock=True)
        others.enter_context(another(engine, lambda other: subscribe(other, "PACS", GLOBAL, deletion_lock=False)))
        change(connection, item, utc_now(), state=StepState.IN_PROGRESS)
    assert told(engine) == {"2.25.1"}


@pytest.mark.timeout(60)  # one who stays connected waits for an event that never comes
@pytest.mark.parametrize("something_happens", [False, True])
def test_a_subscriber_whose_token_was_revoked_is_told_nothing_more(
    room: Room, monkeypatch: pytest.MonkeyPatch, *, something_happens: bool
) -> None:
    if not something_happens:
        monkeypatch.setattr("node.web.ups.ASKED_EVERY", 0.0)
    with writing(room.engine) as connection:
        secret = add_token(connection, "ris", ["read", "operate"], utc_now(), None)
    credentials = {"Authorization": f"Bearer {secret}"}
    with a_service(room, ways=[Tokens(room.engine, utc_now, Uses(room.engine))]) as service:
        service.client.headers.update(credentials)
        service.client.post(f"/dicom-web/workitems/{GLOBAL}/subscribers/RIS")
        ask(service, a_request())
        with service.client.websocket_connect("/dicom-web/subscribers/RIS", headers=credentials) as socket:
            assert values(json.loads(socket.receive_text()), "00001000") == ["2.25.77"]
            with writing(room.engine) as connection:
                revoke_token(connection, "ris", utc_now())
            if something_happens:
                service.worklist.cancel("2.25.77", "somebody")
            with pytest.raises(WebSocketDisconnect) as ended:
                socket.receive_text()
    assert ended.value.code == 1008


def test_only_what_can_be_watched_is_watched(service: Service) -> None:
    assert service.client.post("/dicom-web/workitems/1.2.3/subscribers/VIEWER").status_code == 404
    assert service.client.post(f"/dicom-web/workitems/{GLOBAL}/subscribers/{'A' * 17}").status_code == 400
    assert service.client.post("/dicom-web/workitems/1.2.3/subscribers/VIEWER/suspend").status_code == 404


def test_a_prior_that_is_not_read_cancels_its_workitem(service: Service) -> None:
    service.store(an_image())
    workitems(service)

    with writing(service.room.engine) as connection:
        leave(connection, list_exams(connection, 1)[0], ExamState.PRIOR, ["prior exam of 2026"], utc_now())
    [item] = workitems(service)
    assert values(item, STATE) == ["CANCELED"]
    assert "prior exam" in values(values(item, "00741002")[0], REASON)[0]
