"""UPS-RS: readings as workitems that others search, retrieve, ask for, watch and cancel (PS3.18 11, IHE AIW-I)."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import Connection, Engine
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from config.settings import WebService
from node.errors import BadRequest, BodyTooLarge, NoSuchResource, PerformedHere, SourceUnknown
from node.web.access import Guarded, GuardedSocket, Scope, caller, require_still
from node.web.addresses import base
from node.web.dicom_json import Model, json_bytes, xml_bytes
from node.web.matching import parse_workitem_query
from node.web.media import DICOM_JSON, DICOM_XML, chosen
from node.web.multipart import Piece, Related
from node.web.ups_model import asked, event_model, workitem_model
from node.worklist import Worklist
from storage.database import reading, writing
from storage.exams import get_exam
from storage.files import InstanceReference
from storage.index import instances_of_exam
from storage.results import results_of
from storage.workitems import (
    GLOBAL,
    Report,
    Workitem,
    get_workitem,
    has_been_told,
    search_workitems,
    subscribe,
    suspend,
    unsubscribe,
    untold,
)

JSON_TYPES: Final = (DICOM_JSON, "application/json", DICOM_XML)
LARGEST: Final = 1 << 20
"""Bytes of a workitem that is asked for."""
POLL: Final = 0.5
"""Seconds between looks at what a subscriber is to be told."""
AT_ONCE: Final = 50
WORKITEMS: Final = "/workitems"
WORKITEM: Final = "/workitems/{uid}"
ASKED_EVERY: Final = 5.0
"""Seconds after which a subscriber who is told nothing is asked again who it is."""
_TITLE: Final = re.compile(r"[\x21-\x5B\x5D-\x7E]{1,16}")


class UnifiedProcedureSteps:
    """Answers for the worklist.

    Parameters
    ----------
    engine
        The database.
    worklist
        Opens and cancels workitems.
    sources
        Web services that studies may be retrieved from.
    """

    def __init__(self, engine: Engine, worklist: Worklist, sources: tuple[WebService, ...]) -> None:
        self._engine = engine
        self._worklist = worklist
        self._sources = sources

    def routes(self) -> list[BaseRoute]:
        """Return the resources."""
        watch = f"{WORKITEM}/subscribers/{{title}}"
        return [
            Guarded(WORKITEMS, self.search, needs=Scope.READ),
            Guarded(WORKITEMS, self.create, needs=Scope.OPERATE, methods=("POST",)),
            Guarded(WORKITEM, self.retrieve, needs=Scope.READ),
            Guarded(WORKITEM, self.performed_here, needs=Scope.OPERATE, methods=("POST", "PUT")),
            Guarded(f"{WORKITEM}/state", self.performed_here, needs=Scope.OPERATE, methods=("PUT", "POST")),
            Guarded(f"{WORKITEM}/cancelrequest", self.cancel, needs=Scope.OPERATE, methods=("POST",)),
            Guarded(watch, self.watch, needs=Scope.READ, methods=("POST",)),
            Guarded(watch, self.stop_watching, needs=Scope.READ, methods=("DELETE",)),
            Guarded(f"{watch}/suspend", self.suspend, needs=Scope.READ, methods=("POST",)),
            GuardedSocket("/subscribers/{title}", self.tell, needs=Scope.READ),
        ]

    def search(self, request: Request) -> Response:
        """Return the workitems that match (PS3.18 11.9)."""
        query = parse_workitem_query(request.query_params.multi_items())
        with reading(self._engine) as connection:
            found = search_workitems(connection, query.conditions, query.limit + 1, query.offset)
            models = [self._model(connection, request, each) for each in found[: query.limit]]
        return self._answer(request, models, query.warning(request.url.hostname, more=len(found) > query.limit))

    def retrieve(self, request: Request) -> Response:
        """Return one workitem (PS3.18 11.5)."""
        with reading(self._engine) as connection:
            model = self._model(connection, request, get_workitem(connection, _uid(request)))
        return self._answer(request, [model], {})

    async def create(self, request: Request) -> Response:
        """Open a workitem (PS3.18 11.4): somebody asks for a reading."""
        document = await _document(request)
        named = [name for name, value in request.query_params.multi_items() if not value] or [
            "2.25." + str(uuid4().int)
        ]
        uid = request.query_params.get("workitem") or request.query_params.get("AffectedSOPInstanceUID") or named[0]
        wanted = asked(document, uid)
        if wanted.retrieve_url and not any(_lies_in(wanted.retrieve_url, each) for each in self._sources):
            raise SourceUnknown
        identity = caller(request)
        await run_in_threadpool(self._worklist.ask, wanted, identity.name if identity else "")
        where = f"{base(request)}/workitems/{uid}"
        return Response(b"", 201, {"Location": where, "Content-Location": where})

    async def cancel(self, request: Request) -> Response:
        """Ask for a reading to be cancelled (PS3.18 11.8); that it was, subscribers learn."""
        uid = _uid(request)
        await _body(request)
        identity = caller(request)
        await run_in_threadpool(self._worklist.cancel, uid, identity.name if identity else "")
        return Response(b"", 202)

    def performed_here(self, request: Request) -> Response:
        """Refuse to let somebody else change or perform a workitem (PS3.18 11.6, 11.7)."""
        with reading(self._engine) as connection:
            get_workitem(connection, _uid(request))
        raise PerformedHere

    def watch(self, request: Request) -> Response:
        """Subscribe an application entity to a workitem or to all of them (PS3.18 11.10)."""
        title, uid = _title(request.path_params["title"]), _uid(request)
        lock = request.query_params.get("deletionlock", "false").lower() == "true"
        with writing(self._engine) as connection:
            subscribe(connection, title, uid, deletion_lock=lock)
        address = re.sub("^http", "ws", base(request))
        return Response(b"", 201, {"Content-Location": f"{address}/subscribers/{title}"})

    def stop_watching(self, request: Request) -> Response:
        """End a subscription (PS3.18 11.11)."""
        with writing(self._engine) as connection:
            if not unsubscribe(connection, _title(request.path_params["title"]), _uid(request)):
                raise NoSuchResource
        return Response(b"", 200)

    def suspend(self, request: Request) -> Response:
        """End a global subscription for workitems to come (PS3.18 11.12)."""
        if _uid(request) != GLOBAL:
            raise NoSuchResource
        with writing(self._engine) as connection:
            if not suspend(connection, _title(request.path_params["title"])):
                raise NoSuchResource
        return Response(b"", 200)

    async def tell(self, socket: WebSocket) -> None:
        """Send a subscriber what happens, as long as the connection stands and may (PS3.18 11.13).

        Raises
        ------
        NotAuthenticated, NotAllowed
            When the credentials have ended since, or were revoked.
        """
        title = _title(socket.path_params["title"])
        await socket.accept()
        gone = asyncio.ensure_future(_until_gone(socket))
        number, asked_at = 0, time.monotonic()
        try:
            while not gone.done():
                reports = await run_in_threadpool(self._untold, title)
                if reports or time.monotonic() - asked_at >= ASKED_EVERY:
                    await run_in_threadpool(require_still, socket, Scope.READ)
                    asked_at = time.monotonic()
                for each in reports:
                    number += 1
                    await socket.send_text(json_bytes(event_model(each, number)).decode())
                if reports:
                    await run_in_threadpool(self._told, title, reports)
                else:
                    await asyncio.wait({gone}, timeout=POLL)
        except (WebSocketDisconnect, RuntimeError):
            return
        finally:
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await gone

    def _untold(self, title: str) -> list[Report]:
        with reading(self._engine) as connection:
            return untold(connection, title, AT_ONCE)

    def _told(self, title: str, reports: list[Report]) -> None:
        with writing(self._engine) as connection:
            has_been_told(connection, title, reports)

    def _model(self, connection: Connection, request: Request, item: Workitem) -> Model:
        if item.exam_id is None:
            return workitem_model(item, {}, (), (), base(request))
        exam = get_exam(connection, item.exam_id)
        patient = {
            "PatientID": exam.patient.patient_id,
            "PatientName": exam.patient.name,
            "PatientBirthDate": exam.patient.birth_date,
            "PatientSex": exam.patient.sex,
        }
        images = instances_of_exam(connection, item.exam_id)
        results = [each for each in results_of(connection, item.exam_id) if each.revision == item.revision]
        return workitem_model(item, patient, images, results, base(request))

    @staticmethod
    def _answer(request: Request, models: list[Model], headers: Mapping[str, str]) -> Response:
        form = chosen(request, JSON_TYPES)
        if form.name == DICOM_XML:
            body = Related(DICOM_XML, (Piece(DICOM_XML, (xml_bytes(each),)) for each in models))
            return Response(b"".join(body), 200, dict(headers), body.content_type)
        return Response(json_bytes(models), 200, dict(headers), form.name)


def _uid(request: Request) -> str:
    uid: str = request.path_params["uid"]
    InstanceReference(uid, uid, uid)
    return uid


def _title(text: str) -> str:
    if not _TITLE.fullmatch(text):
        raise BadRequest("not an AE title")
    return text


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST:
            raise BodyTooLarge(f"a workitem has at most {LARGEST} bytes")
    return bytes(body)


async def _document(request: Request) -> Any:
    try:
        return json.loads(await _body(request))
    except (ValueError, RecursionError) as error:
        raise BadRequest("the body is no JSON") from error


def _lies_in(url: str, service: WebService) -> bool:
    return url.startswith(service.url.rstrip("/") + "/")


async def _until_gone(socket: WebSocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass
