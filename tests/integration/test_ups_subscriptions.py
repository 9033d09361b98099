"""UPS-RS: who watches workitems, and what they are told, over both databases."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from sqlalchemy import Connection, Engine
from starlette.websockets import WebSocketDisconnect

from node.intake import utc_now
from node.web.bearer import Tokens, Uses
from storage.database import reading, writing
from storage.states import StepState
from storage.tokens import add_token, revoke_token
from storage.workitems import GLOBAL, change, get_workitem, has_been_told, subscribe, untold
from tests.doors import Room, phantom_images
from tests.web import Service, a_service, service, values
from tests.workitems import STATE, UID, a_request, ask, close_exam, read, workitems

__all__ = ["service"]


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


@pytest.mark.timeout(250)  # one who stays connected waits for an event that never comes
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
