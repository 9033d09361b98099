"""UPS-RS from the client's side: a service, readings as workitems, and asking for one."""

import json
from datetime import timedelta
from typing import Any

from node.intake import utc_now
from storage.database import writing
from storage.exams import close, list_exams
from storage.jobs import JobQueue
from storage.states import Plan
from tests.records import LEASE, MODEL, POLICY
from tests.web import SENT, Service, values

STATE, READY, UID, REASON = "00741000", "00404041", "00080018", "00741238"


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


def a_request(study: str = SENT, retrieve: str = "", more: dict[str, Any] | None = None) -> list[dict[str, Any]]:
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
