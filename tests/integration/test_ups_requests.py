"""UPS-RS: workitems by which others ask for a reading, over both databases."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs

from config.settings import WebService
from node.errors import QueryFailed
from node.intake import utc_now
from node.web.dicom_json import DEEPEST
from node.worklist import Worklist
from storage.database import open_database
from tests.databases import SQLiteDatabases
from tests.doors import Room, a_room, phantom_images
from tests.records import POLICY
from tests.web import SENT, Service, a_service, an_address, service, values
from tests.workitems import REASON, STATE, UID, a_request, ask, close_exam, queue_of, read, states, workitems

__all__ = ["service"]

SOURCE = "https://archive.example/dicom-web"


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
        json.dumps(a_request(retrieve=f"http://elsewhere/studies/{SENT}")).encode(),
        json.dumps(a_request(retrieve="http://elsewhere/")).encode(),
        json.dumps(a_request(retrieve=f"{SOURCE}/\x01/studies/{SENT}")).encode(),
        json.dumps(a_request(retrieve=f"{SOURCE}/{'a' * 70_000}/studies/{SENT}")).encode(),
        json.dumps(a_request(retrieve=f"{SOURCE}/../admin/studies/{SENT}")).encode(),
        json.dumps(a_request(retrieve=f"{SOURCE}/%2E%2E/admin/studies/{SENT}")).encode(),
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
            assert ask(service, a_request(retrieve=f"{url}/studies/{SENT}")).status_code == 201
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
    ask(retrieving, a_request(retrieve=f"{SOURCE}/studies/{SENT}"), "2.25.2")
    with capture_logs() as logs:
        assert retrieved(retrieving, does, 5) == ["1.2.3", SENT, "1.2.3", "1.2.3"]
    [never] = workitems(retrieving, SOPInstanceUID="2.25.1")
    assert values(never, STATE) == ["CANCELED"]
    assert type(error).__name__ in values(values(never, "00741002")[0], REASON)[0]
    told = [each for each in logs if each["event"] == "study not retrieved"]
    assert [(each["tries"], each["again"]) for each in told] == [(1, True), (2, True), (3, False)]
    assert "PAT-1" not in str(logs)
    assert len(workitems(retrieving, SOPInstanceUID="2.25.2", InputReadinessState="INCOMPLETE")) == 1


def tries(service: Service, *days: float) -> list[str]:
    """Let a worklist fail to retrieve so many days from now, and return which state each try has left its workitem in."""
    policy, found = replace(POLICY, slow=timedelta(hours=12), attempts=None), []
    for each in days:
        now = utc_now() + timedelta(days=each)
        retrieves = Retrieves(lambda _: 0)
        Worklist(service.room.engine, queue_of(service), retrieves, policy, partial(lambda at: at, now)).retrieving()
        assert retrieves.asked
        found.append(values(workitems(service, SOPInstanceUID="2.25.1")[0], STATE)[0])
    return found


def test_a_study_that_nobody_tried_to_get_for_a_week_is_tried_as_long_as_any_other(retrieving: Service) -> None:
    ask(retrieving, a_request("1.2.3", retrieve=f"{SOURCE}/studies/1.2.3"), "2.25.1")
    # The node was off for a week, and for another one after the first try.
    assert tries(retrieving, 7, 7.3, 14, 14.55, 15.1) == ["SCHEDULED"] * 4 + ["CANCELED"]


def test_a_study_is_not_given_up_before_it_is_to_be_read(retrieving: Service) -> None:
    at = f"{utc_now() + timedelta(days=5):%Y%m%d%H%M%S}+0000"
    wanted = a_request("1.2.3", f"{SOURCE}/studies/1.2.3", {"00404005": {"vr": "DT", "Value": [at]}})
    ask(retrieving, wanted, "2.25.1")
    assert tries(retrieving, 0, 0.5, 1.1, 1.7, 2.3, 2.9, 3.5, 4.1, 4.7, 5.3, 5.9, 6.5) == ["SCHEDULED"] * 11 + [
        "CANCELED"
    ]


def test_a_study_of_which_one_object_cannot_be_stored_is_read_at_the_last_try_too(retrieving: Service) -> None:
    def does(_: str) -> int:
        retrieving.store(*phantom_images())
        raise QueryFailed("1 instance of it could not be stored")

    ask(retrieving, a_request(retrieve=f"{SOURCE}/studies/{SENT}"))
    once = replace(POLICY, attempts=1)
    Worklist(retrieving.room.engine, queue_of(retrieving), Retrieves(does), once, utc_now).retrieving()
    assert states(retrieving) == [("SCHEDULED", "INCOMPLETE")]


def test_a_clock_that_is_put_back_keeps_no_study_waiting(retrieving: Service) -> None:
    ask(retrieving, a_request("1.2.3", retrieve=f"{SOURCE}/studies/1.2.3"), "2.25.1")
    retrieves = Retrieves(lambda _: 0)
    past = utc_now() - timedelta(hours=5)
    Worklist(retrieving.room.engine, queue_of(retrieving), retrieves, POLICY, lambda: past).retrieving()
    assert retrieves.asked == ["1.2.3"]


def test_a_study_that_opens_no_exam_of_the_patient_is_not_retrieved_for_ever(retrieving: Service) -> None:
    somebody = {"00100020": {"vr": "LO", "Value": ["SOMEBODY-ELSE"]}}
    ask(retrieving, a_request(retrieve=f"{SOURCE}/studies/{SENT}", more=somebody))
    retrieving.store(*phantom_images())
    assert retrieved(retrieving, lambda _: 4, 5) == [SENT] * 3
    [item] = workitems(retrieving, SOPInstanceUID="2.25.77")
    assert values(item, STATE) == ["CANCELED"]
    assert values(values(item, "00741002")[0], REASON) == ["nothing of it opens an exam of this patient"]
