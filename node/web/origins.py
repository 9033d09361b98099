"""What browsers may cause: nothing that a page of another site has asked them for (cross-site request forgery)."""

from typing import Final
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from node.errors import NotAllowed
from node.web.bearer import COOKIE

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110 9.2.1)."""


class SameOrigin:
    """ASGI middleware that refuses what changes something when another site's page has asked for it.

    Browsers say so themselves: in Sec-Fetch-Site (Fetch Metadata), or where that is absent in Origin, which no page can
    forge. A request with a session's cookie and neither comes from no browser that is known, and is refused too. Sockets
    have an Origin, and no other protection.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or go on."""
        if scope["type"] == "websocket" or (scope["type"] == "http" and scope["method"] not in SAFE):
            connection = HTTPConnection(scope)
            if not is_own(connection):
                raise NotAllowed("a page of another site has asked for this")
        await self._app(scope, receive, send)


def is_own(connection: HTTPConnection) -> bool:
    """Tell whether a request comes from a page of this node, or from no page."""
    headers = connection.headers
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = headers.get("origin")
    if origin is not None:
        try:
            return urlsplit(origin).netloc == headers.get("host", "")
        except ValueError:  # brackets with no address in them
            return False
    return COOKIE not in connection.cookies
