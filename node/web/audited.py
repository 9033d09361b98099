"""Which requests are audited: who looked at what, asked for what, or was not let in (PS3.15 A.5.3)."""

import time
from http import HTTPStatus
from typing import Final

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from node.audit.facts import without_names
from node.audit.notes import Notes
from node.errors import NotAllowed, NotAuthenticated
from node.web.access import SHOWN_EXAM, caller
from node.web.limits import address
from node.web.qido import RESOURCES
from node.web.ups import WORKITEM, WORKITEMS

SEARCHES: Final = frozenset([*(path for path, _ in RESOURCES), WORKITEMS, WORKITEM])
RETRIEVES: Final = "/dicom-web/studies/"
LOOK: Final = 300.0
"""Seconds in which a page, its own refreshes and what it shows are one look."""


class Looks:
    """Who has looked at which exam lately."""

    def __init__(self) -> None:
        self._began: dict[tuple[str, str, str], float] = {}

    def begins(self, who: str, address: str, exam: str) -> bool:
        """Tell whether somebody begins to look at an exam, and goes on with no look that has begun."""
        now, look = time.monotonic(), (who, address, exam)
        while self._began and now - next(iter(self._began.values())) >= LOOK:
            del self._began[next(iter(self._began))]
        if look in self._began:
            return False
        self._began[look] = now
        return True


class Auditing:
    """ASGI middleware around that which knows the callers.

    Parameters
    ----------
    app
        What is inside.
    notes
        Takes the facts.
    """

    def __init__(self, app: ASGIApp, notes: Notes) -> None:
        self._app = app
        self._notes = notes
        self._looks = Looks()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let it be answered, and note what it was."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if status < HTTPStatus.BAD_REQUEST:
                    self._answered(scope, status)
                elif status == HTTPStatus.UNAUTHORIZED:
                    self._not_let_in(scope, "wrong credentials")
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except NotAuthenticated as error:
            if "authorization" in HTTPConnection(scope).headers:
                self._not_let_in(scope, str(error))
            raise
        except NotAllowed:
            connection = HTTPConnection(scope)
            identity = caller(connection)
            why = f"{scope['method']} {scope.get('route_path', '')}"
            self._notes.note(
                "function refused", who=identity.name if identity else "", address=address(connection), why=why
            )
            raise

    def _not_let_in(self, scope: Scope, why: str) -> None:
        self._notes.note("login failed", who="", address=address(HTTPConnection(scope)), why=why)

    def _answered(self, scope: Scope, status: int) -> None:
        connection = HTTPConnection(scope)
        identity = caller(connection)
        told = {"who": identity.name if identity else "", "address": address(connection)}
        route, method, uids = scope.get("route_path", ""), scope["method"], scope.get("path_params", {})
        if (route, method) == ("/login", "POST"):
            self._notes.note("login", **told)
        elif (route, method) == ("/logout", "POST") and identity:
            self._notes.note("logout", **told)
        elif method != "GET":
            return
        elif route in SEARCHES:
            query = without_names(scope["query_string"].decode("latin-1"))
            self._notes.note("searched", **told, path=scope["path"].removeprefix("/dicom-web"), query=query)
        elif scope["path"].startswith(RETRIEVES) and "study" in uids:
            self._notes.note("retrieved", **told, study=uids["study"])
        elif (
            status != HTTPStatus.NO_CONTENT
            and (exam := scope.get(SHOWN_EXAM))
            and self._looks.begins(**told, exam=exam)
        ):
            self._notes.note("looked at", **told, exam=exam)
