"""UPS-RS: readings as workitems that others search, retrieve and cancel, over both databases."""

from datetime import timedelta
from typing import Any
from uuid import RFC_4122, UUID

import pytest
from structlog.testing import capture_logs

from node.intake import utc_now
from node.selftest import synthetic_exam
from storage.database import reading, writing
from storage.exams import leave, list_exams
from storage.jobs import CANCELLED
from storage.states import ExamState, JobState, Plan
from tests.doors import an_image, phantom_images
from tests.web import SENT, Service, service, values
from tests.workitems import REASON, STATE, UID, a_request, ask, close_exam, queue_of, read, states, workitems

__all__ = ["service"]


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
    assert (UUID(int=int(uid.removeprefix("2.25."))).variant, len(uid.split("."))) == (RFC_4122, 3)  # PS3.5 B.2
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
    with capture_logs() as logs:
        found = workitems(service)
    assert [bool(each["exam"]) for each in logs if each["event"] == "workitem ended"] == [True]
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
    assert all(each["exam"] for each in logs if "workitem" in each), logs


def test_workitems_are_searched(service: Service) -> None:
    service.store(*phantom_images())
    image = phantom_images()[0]
    for query, number in (
        ({"ProcedureStepState": "SCHEDULED"}, 1),
        ({"ProcedureStepState": "COMPLETED"}, 0),
        ({"PatientID": str(image.PatientID)}, 1),
        ({"PatientName": str(image.PatientName).lower()[:2] + "*"}, 1),
        ({"00404021.0020000D": SENT}, 1),
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
        {"PatientID": str(image.PatientID), "00100020": "another's"},
    ):
        assert service.get("/workitems", **query).status_code == 400
    assert "fuzzymatching" in service.get("/workitems", fuzzymatching="true").headers["warning"]


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


def test_a_prior_that_is_not_read_cancels_its_workitem(service: Service) -> None:
    service.store(an_image())
    workitems(service)

    with writing(service.room.engine) as connection:
        leave(connection, list_exams(connection, 1)[0], ExamState.PRIOR, ["prior exam of 2026"], utc_now())
    [item] = workitems(service)
    assert values(item, STATE) == ["CANCELED"]
    assert "prior exam" in values(values(item, "00741002")[0], REASON)[0]
