"""Errors as problem documents (RFC 9457), by the one table in ``node.status``."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response

from node.status import http_detail, http_status

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER: Final = 5
"""Seconds after which a request that was refused for now is worth another try."""


def problem(connection: HTTPConnection, error: Exception) -> Response:
    """Return the answer to a request that ended in an error."""
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
    return JSONResponse(document, status, headers, MEDIA_TYPE)


def _headers(status: HTTPStatus) -> Mapping[str, str]:
    match status:
        case HTTPStatus.UNAUTHORIZED:
            return {"WWW-Authenticate": 'Bearer realm="mammonode"'}
        case HTTPStatus.TOO_MANY_REQUESTS | HTTPStatus.SERVICE_UNAVAILABLE:
            return {"Retry-After": str(RETRY_AFTER)}
        case _:
            return {}
