"""Errors as problem documents (RFC 9457), by the one table in ``node.status``."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response

from node.status import http_detail, http_status
from node.web.rendering import is_htmx, render, to_login

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER: Final = 5
"""Seconds after which a request that was refused for now is worth another try."""


def problem(connection: HTTPConnection, error: Exception) -> Response:
    """Return the answer to a request that ended in an error.

    A browser gets it as a page, or is sent to log in; whoever asks for anything else gets the document.
    """
    if isinstance(error, HTTPException):  # Starlette's own: no such route, another method
        status, detail = HTTPStatus(error.status_code), error.detail
        headers = dict(error.headers or {})
    else:
        status, detail = http_status(error), http_detail(error)
        headers = dict(_headers(status))
    document = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "request": connection.scope.get("request_id", ""),
    }
    if _is_a_page(connection) and status == HTTPStatus.UNAUTHORIZED:
        return to_login(connection)
    if _is_a_page(connection) and not is_htmx(connection):
        return render(connection, "problem.html", status, headers, problem=document)
    return JSONResponse(document, status, headers, MEDIA_TYPE)


def _is_a_page(connection: HTTPConnection) -> bool:
    if connection.scope["type"] != "http" or connection.scope.get("path", "").startswith("/dicom-web"):
        return False
    return is_htmx(connection) or "text/html" in connection.headers.get("accept", "")


def _headers(status: HTTPStatus) -> Mapping[str, str]:
    match status:
        case HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            return {"Connection": "close"}
        case HTTPStatus.UNAUTHORIZED:
            return {"WWW-Authenticate": 'Bearer realm="mammonode"'}
        case HTTPStatus.TOO_MANY_REQUESTS | HTTPStatus.SERVICE_UNAVAILABLE:
            return {"Retry-After": str(RETRY_AFTER)}
        case _:
            return {}
