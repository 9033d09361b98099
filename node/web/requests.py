"""What surrounds every request: its number, its limits, its answer when it ends in an error, its line in the log."""

import secrets
import time
from collections import Counter
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from node.faults import described
from node.status import http_status
from node.telemetry import logger
from node.web.access import caller
from node.web.problems import problem

log = logger("web")

QUIET: Final = frozenset({"/livez", "/static/{path:path}"})
"""Routes whose good answers are worth no line."""
NOT_KEPT: Final = (b"cache-control", b"no-store")
"""For answers that say nothing else: patients' data lie in no cache, neither a browser's nor a proxy's (RFC 9111 5.2.2.5)."""
CLIENT_LEFT: Final = 499
"""As nginx calls a request whose client went away before it was answered; nobody gets this status."""


class Requests:
    """ASGI middleware around everything: numbers a request, answers its errors, logs it in one line, counts it.

    Paths are logged where a route knows them, for then they hold UIDs only; queries never are: names and patient IDs
    stand there (rule R14).

    Parameters
    ----------
    app
        What is inside.
    counts
        Number of answers by status, for the System page.
    """

    def __init__(self, app: ASGIApp, counts: Counter[int]) -> None:
        self._app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, whatever happens inside."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        scope["request_id"] = secrets.token_hex(4)
        began = time.perf_counter()
        status, size = 0, 0

        async def watched(message: Message) -> None:
            nonlocal status, size
            match message["type"]:
                case "http.response.start":
                    status = message["status"]
                    number = (b"x-request-id", scope["request_id"].encode())
                    date = (b"date", formatdate(usegmt=True).encode())  # RFC 9110 6.6.1
                    given = message.get("headers", ())
                    kept = () if any(name == b"cache-control" for name, _ in given) else (NOT_KEPT,)
                    message = {**message, "headers": [*given, *kept, number, date]}
                case "http.response.body":
                    size += len(message.get("body", b""))
                case "websocket.accept":
                    status = HTTPStatus.SWITCHING_PROTOCOLS
            await send(message)

        with bound_contextvars(request=scope["request_id"]):
            told: dict[str, object] = {}
            try:
                await self._app(scope, receive, watched)
            except ClientDisconnect:
                status = status or CLIENT_LEFT
            except Exception as error:  # noqa: BLE001 - the client must get an answer, whatever happens
                told = _describe(error)
                if scope["type"] == "websocket":
                    await watched({"type": "websocket.close", "code": 1008 if "cause" in told else 1011})
                    status = http_status(error)
                elif status == 0:
                    await problem(HTTPConnection(scope), error)(scope, receive, watched)
                else:
                    raise Truncated from None  # the connection is cut: the client must not take it for the whole
            finally:
                self._counts[status] += 1
                _log(scope, status, size, time.perf_counter() - began, told)


class Slashes:
    """ASGI middleware that finds what an address names also with slashes at its end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Go on, without them."""
        if scope["type"] in {"http", "websocket"}:
            scope["path"] = scope["path"].rstrip("/") or "/"
        await self._app(scope, receive, send)


class Truncated(Exception):
    """An answer broke off in the middle."""


def _describe(error: Exception) -> dict[str, object]:
    if http_status(error) != HTTPStatus.INTERNAL_SERVER_ERROR:
        return {"cause": str(error)}
    # The text of an error that was not foreseen may hold header values, and stays out (rule R14).
    return {"error": described(error), "check": "a fault of this node: please report it"}


def _log(scope: Scope, status: int, size: int, seconds: float, told: dict[str, object]) -> None:
    connection = HTTPConnection(scope)
    identity = caller(connection)
    route = scope.get("route_path", "")
    event = {
        "method": scope.get("method", "WEBSOCKET"),
        "path": _path(connection, route, status),
        "status": int(status),
        "seconds": round(seconds, 3),
        "bytes": size,
        "caller": identity.name if identity else "",
        "address": connection.client.host if connection.client else "",
        **told,
    }
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.SERVICE_UNAVAILABLE:
        log.error("request", **event)
    elif status >= HTTPStatus.BAD_REQUEST:
        log.warning("request", **event)
    elif route in QUIET or "hx-request" in connection.headers:
        log.debug("request", **event)
    else:
        log.info("request", **event)


def _path(connection: HTTPConnection, route: str, status: int) -> str:
    """Return a path that may be logged; in one that is no good address anything may stand where a UID should."""
    if status == HTTPStatus.BAD_REQUEST:
        return route
    return connection.url.path[:200] if route else "(no such route)"
