"""Which requests are audited: who looked at what, asked for what, or was not let in (PS3.15 A.5.3)."""

from http import HTTPStatus
from typing import Final

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from node.audit.facts import without_names
from node.audit.notes import Notes
from node.errors import NotAllowed, NotAuthenticated
from node.web.access import caller
from node.web.limits import address
from node.web.qido import RESOURCES

SEARCHES: Final = frozenset(path for path, _ in RESOURCES)
RETRIEVES: Final = "/dicom-web/studies/"
EXAM: Final = "/exams/{exam}"


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
                    self._answered(scope)
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

    def _answered(self, scope: Scope) -> None:
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
        elif route == EXAM and "hx-request" not in connection.headers:
            self._notes.note("looked at", **told, exam=uids["exam"])
